//! `config`: bare MessagePack, no tag byte.
//!
//! ```text
//! [ version u32 = 2, id 32 bytes, [chunk min, avg, max] u32, encryption string,
//!   created RFC 3339 string, min_pack_size u32, max_pack_size u32 ]
//! ```

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::wire::Reader;
use crate::error::FormatError;
use crate::id::RepositoryId;

/// The only repository layout this program reads and writes.
pub const LAYOUT_VERSION: u32 = 2;

/// How objects are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Encryption {
    /// Not sealed and not authenticated.
    None,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    Chacha20Poly1305,
}

impl Encryption {
    /// The name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Encryption::None => "None",
            Encryption::Aes256Gcm => "Aes256Gcm",
            Encryption::Chacha20Poly1305 => "Chacha20Poly1305",
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encryption {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305]
            .into_iter()
            .find(|e| e.name() == name)
            .ok_or_else(|| FormatError::Newer { what: "config", detail: format!("encryption {name:?}") })
    }
}

/// FastCDC sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChunkerParams {
    /// Smallest chunk, except the last of a segment.
    pub min: u32,
    /// Expected size.
    pub avg: u32,
    /// Largest chunk.
    pub max: u32,
}

impl ChunkerParams {
    /// Default for file contents: 512 KiB / 2 MiB / 8 MiB.
    pub const FILES: ChunkerParams = ChunkerParams { min: 512 << 10, avg: 2 << 20, max: 8 << 20 };
    /// For item streams, fixed: 32 KiB / 128 KiB / 512 KiB.
    pub const ITEMS: ChunkerParams = ChunkerParams { min: 32 << 10, avg: 128 << 10, max: 512 << 10 };
    /// Upper bound of `max`: 16 MiB.
    pub const MAX: u32 = 16 << 20;

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        r.array_of("chunker parameters", 3, 3)?;
        Ok(ChunkerParams { min: r.u32("chunk min")?, avg: r.u32("chunk avg")?, max: r.u32("chunk max")? })
    }

    /// Checks the bounds of `fastcdc` and of the format.
    pub fn check(&self) -> Result<(), FormatError> {
        use fastcdc::v2020 as f;
        let bound = |what, found: u32, min: usize, max: usize| {
            if (min..=max).contains(&(found as usize)) {
                return Ok(());
            }
            Err(FormatError::OutOfBounds { what, found: found.into(), min: min as u64, max: max as u64 })
        };
        bound("chunk min", self.min, f::MINIMUM_MIN, f::MINIMUM_MAX)?;
        bound("chunk avg", self.avg, f::AVERAGE_MIN, f::AVERAGE_MAX)?;
        bound("chunk max", self.max, f::MAXIMUM_MIN, (Self::MAX as usize).min(f::MAXIMUM_MAX))?;
        if self.min > self.avg || self.avg > self.max {
            let reason = format!("not min <= avg <= max: {} {} {}", self.min, self.avg, self.max);
            return Err(FormatError::Invalid { what: "chunker parameters", reason });
        }
        Ok(())
    }
}

/// The repository's unchanging parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepoConfig {
    /// Layout version, [`LAYOUT_VERSION`].
    pub version: u32,
    /// Random identifier.
    pub id: RepositoryId,
    /// Chunk sizes for file contents.
    pub chunker: ChunkerParams,
    /// How objects are sealed.
    pub encryption: Encryption,
    /// When the repository was made, RFC 3339.
    pub created: String,
    /// Smallest target size of a data pack in bytes.
    pub min_pack_size: u32,
    /// Largest target size of a data pack in bytes, at most [`RepoConfig::MAX_PACK`].
    pub max_pack_size: u32,
}

impl RepoConfig {
    /// Default smallest pack target: 32 MiB.
    pub const DEFAULT_MIN_PACK: u32 = 32 << 20;
    /// Default largest pack target: 192 MiB.
    pub const DEFAULT_MAX_PACK: u32 = 192 << 20;
    /// Upper bound of `max_pack_size`: 512 MiB.
    pub const MAX_PACK: u32 = 512 << 20;

    /// Decodes and checks. A version other than 2 is [`FormatError::Newer`].
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(data);
        let fields = r.array_of("config", 1, 64)?;
        let version = r.u32("config version")?;
        if version != LAYOUT_VERSION || fields != 7 {
            let detail = format!("layout version {version} with {fields} fields");
            return Err(FormatError::Newer { what: "config", detail });
        }
        let config = RepoConfig {
            version,
            id: RepositoryId(r.fixed("repository id")?),
            chunker: ChunkerParams::read(&mut r)?,
            encryption: r.str("encryption")?.parse()?,
            created: r.str("created")?.to_owned(),
            min_pack_size: r.u32("min_pack_size")?,
            max_pack_size: r.u32("max_pack_size")?,
        };
        r.end("config")?;
        config.check()?;
        Ok(config)
    }

    /// Checks chunk and pack sizes, and that the time is one.
    pub fn check(&self) -> Result<(), FormatError> {
        self.chunker.check()?;
        if let Err(e) = self.created.parse::<jiff::Timestamp>() {
            return Err(FormatError::Invalid { what: "created", reason: e.to_string() });
        }
        let (min, max) = (self.min_pack_size, self.max_pack_size);
        if min == 0 {
            let (found, max) = (min.into(), Self::MAX_PACK.into());
            return Err(FormatError::OutOfBounds { what: "min_pack_size", found, min: 1, max });
        }
        if max > Self::MAX_PACK || max == 0 {
            let (found, max) = (max.into(), Self::MAX_PACK.into());
            return Err(FormatError::OutOfBounds { what: "max_pack_size", found, min: 1, max });
        }
        if min > max {
            let reason = format!("{min} is above max_pack_size {max}");
            return Err(FormatError::Invalid { what: "min_pack_size", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wire::encode;

    fn sample() -> RepoConfig {
        RepoConfig {
            version: 2,
            id: RepositoryId([0x80; 32]),
            chunker: ChunkerParams::FILES,
            encryption: Encryption::Aes256Gcm,
            created: "2026-01-02T03:04:05Z".into(),
            min_pack_size: RepoConfig::DEFAULT_MIN_PACK,
            max_pack_size: RepoConfig::DEFAULT_MAX_PACK,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = vec![0x97, 0x02, 0xdc, 0, 32];
        expected.extend([0xcc, 0x80].repeat(32));
        expected.extend([0x93, 0xce, 0, 8, 0, 0, 0xce, 0, 0x20, 0, 0, 0xce, 0, 0x80, 0, 0]);
        expected.extend(b"\xa9Aes256Gcm\xb42026-01-02T03:04:05Z\xce\x02\0\0\0\xce\x0c\0\0\0");
        assert_eq!(encode("config", &sample()).unwrap(), expected);
        assert_eq!(RepoConfig::decode(&expected).unwrap(), sample());
    }

    #[test]
    fn other_versions_are_newer_and_bad_sizes_are_refused() {
        let bytes = |c: &RepoConfig| encode("config", c).unwrap();
        let newer = RepoConfig::decode(&bytes(&RepoConfig { version: 3, ..sample() }));
        assert!(matches!(newer, Err(FormatError::Newer { .. })), "{newer:?}");
        for bad in [
            RepoConfig { max_pack_size: RepoConfig::MAX_PACK + 1, ..sample() },
            RepoConfig { min_pack_size: RepoConfig::DEFAULT_MAX_PACK + 1, ..sample() },
            RepoConfig { chunker: ChunkerParams { max: 17 << 20, ..ChunkerParams::FILES }, ..sample() },
            RepoConfig { min_pack_size: 0, ..sample() },
            RepoConfig { created: String::new(), ..sample() },
            RepoConfig { created: "2026-01-02T03:04:05".into(), ..sample() },
            RepoConfig { created: "2026-13-02T03:04:05Z".into(), ..sample() },
            RepoConfig { created: "2026-01-02T03:04:05[".into(), ..sample() },
            RepoConfig { chunker: ChunkerParams { min: 0, ..ChunkerParams::FILES }, ..sample() },
        ] {
            assert!(RepoConfig::decode(&bytes(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode("config", &sample()).unwrap();
        for n in 0..bytes.len() {
            assert!(RepoConfig::decode(&bytes[..n]).is_err(), "{n}");
        }
    }
}
