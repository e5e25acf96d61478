//! Identifiers: newtypes over fixed byte arrays, written as lower-case hex.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

/// A string that is not the hex form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of {expected} hex digits: {found:?}")]
pub struct ParseIdError {
    /// How many hex digits this kind of identifier has.
    pub expected: usize,
    /// What was given, cut to 80 characters.
    pub found: String,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let mut out = [0u8; N];
    if text.len() != N * 2 || HEXLOWER.decode_mut(text.as_bytes(), &mut out).is_err() {
        return Err(ParseIdError { expected: N * 2, found: text.chars().take(80).collect() });
    }
    Ok(out)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first 16 hex digits, for messages.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(16);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HEXLOWER.encode_mut_str(&self.0, &mut [0; $len * 2]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(s)
            }
        }
    };
}

identifier!(
    /// Keyed BLAKE2b-256 of a chunk's plaintext; also the context its object is bound to.
    ChunkId,
    32
);
identifier!(
    /// Unkeyed BLAKE2b-256 of a whole pack file.
    PackId,
    32
);
identifier!(
    /// A snapshot's random identifier, which is its object's name.
    SnapshotId,
    32
);
identifier!(
    /// A repository's random identifier.
    RepositoryId,
    32
);
identifier!(
    /// A backup session's random identifier.
    SessionId,
    16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_what_is_not_lower_case_hex() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("AB".repeat(32).parse::<ChunkId>().is_err());
        assert!("ab".repeat(31).parse::<ChunkId>().is_err());
        assert!(("ab".repeat(31) + "a").parse::<ChunkId>().is_err());
        assert!(("ab".repeat(31) + "ag").parse::<ChunkId>().is_err());
        let id: [u8; 16] = std::array::from_fn(|at| at as u8 * 0x11);
        assert_eq!(SessionId(id).to_string(), "00112233445566778899aabbccddeeff");
        assert!("é".repeat(32).parse::<ChunkId>().is_err());
    }
}
