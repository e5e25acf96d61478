//! Remembering which repository lives at a URL.
//!
//! Whoever holds the storage could put another repository in its place (one without encryption, for
//! instance) and wait for the next backup. So the first use remembers the identity, and a changed
//! one is refused until a person says that it is meant.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::crypto::pack_id;
use crate::error::VykarError;
use crate::format::RepoConfig;
use crate::local_state::cache_file;
use crate::platform::read::open_regular;
use crate::repository::Keys;

/// A longer file is not ours, in bytes.
const MAX_FILE: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PinnedIdentity {
    url: String,
    id: String,
    encryption: String,
    /// A keyed hash that only the holder of the keys can compute.
    fingerprint: String,
    /// Chunk sizes, pack sizes and when it was made; what earlier versions remembered has none of them.
    #[serde(default)]
    parameters: Option<String>,
    /// A hash of the others, to tell damage of this file from another repository; empty in older files.
    #[serde(default)]
    check: String,
}

impl PinnedIdentity {
    fn of(url: &str, config: &RepoConfig, keys: &Keys) -> Result<Self, VykarError> {
        let print = keys.hasher().local(b"vykarpin", &[config.id.as_bytes()])?;
        let mut identity = PinnedIdentity {
            url: url.to_owned(),
            id: config.id.to_string(),
            encryption: config.encryption.to_string(),
            fingerprint: crate::ChunkId(print).to_string(),
            parameters: Some(parameters(config)),
            check: String::new(),
        };
        identity.check = identity.sum();
        Ok(identity)
    }

    /// `None` for what is damaged.
    fn parse(text: &str) -> Option<Self> {
        let identity: PinnedIdentity = serde_json::from_str(text).ok()?;
        (identity.check.is_empty() || identity.check == identity.sum()).then_some(identity)
    }

    fn sum(&self) -> String {
        let PinnedIdentity { url, id, encryption, fingerprint, parameters, check: _ } = self;
        let parameters = parameters.as_deref().unwrap_or_default();
        pack_id([&**url, id, encryption, fingerprint, parameters].join("\0").as_bytes()).to_string()
    }

    fn difference(&self, other: &PinnedIdentity) -> Option<String> {
        if self.id != other.id {
            let short = |id: &str| id.chars().take(16).collect::<String>();
            return Some(format!("repository id {} became {}", short(&self.id), short(&other.id)));
        }
        if self.encryption != other.encryption {
            return Some(format!("encryption {} became {}", self.encryption, other.encryption));
        }
        if self.fingerprint != other.fingerprint {
            return Some("its keys changed".to_owned());
        }
        match (&self.parameters, &other.parameters) {
            (Some(a), Some(b)) if a != b => Some(format!("its parameters changed from {a} to {b}")),
            _ => None,
        }
    }
}

/// What else `config` says, which nothing authenticates.
fn parameters(config: &RepoConfig) -> String {
    let RepoConfig { chunker, created, min_pack_size, max_pack_size, .. } = config;
    let (min, avg, max) = (chunker.min, chunker.avg, chunker.max);
    format!("chunks {min}/{avg}/{max}, packs {min_pack_size}/{max_pack_size}, made {created}")
}

fn pin_path(cache_dir: &Path, url: &str) -> PathBuf {
    cache_dir.join("pins").join(format!("{}.json", pack_id(url.as_bytes())))
}

/// Compares with what is remembered and remembers what is new. False when nothing was remembered.
///
/// # Errors
/// [`VykarError::IdentityChanged`] when another repository was here before, unless `trust`.
pub fn check(
    cache_dir: &Path,
    url: &str,
    config: &RepoConfig,
    keys: &Keys,
    trust: bool,
) -> Result<bool, VykarError> {
    let now = PinnedIdentity::of(url, config, keys)?;
    let path = pin_path(cache_dir, url);
    let mut is_known = false;
    // A file that is empty, cut off or no file at all remembers nothing, as one that was removed does: only this machine
    // writes there, and whoever holds the storage cannot.
    if let Some(before) = remembered(&path) {
        match before.difference(&now) {
            None if before.parameters.is_some() => return Ok(true),
            None => is_known = true,
            Some(detail) if !trust => {
                return Err(VykarError::IdentityChanged { url: url.to_owned(), detail });
            }
            Some(_) => {}
        }
    }
    // A cache that cannot be written (a read-only home) must not stop a restore.
    let _ = remember(&path, &now);
    Ok(is_known)
}

fn remembered(path: &Path) -> Option<PinnedIdentity> {
    let mut text = String::new();
    open_regular(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    PinnedIdentity::parse(&text)
}

fn remember(path: &Path, identity: &PinnedIdentity) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    crate::platform::private::make_closed_dir(dir)?;
    cache_file::write(path, &[&serde_json::to_vec_pretty(identity)?])
}

pub(crate) mod fuzz {
    use super::PinnedIdentity;

    /// A remembered identity.
    pub fn pin(data: &[u8]) {
        let Some(identity) = std::str::from_utf8(data).ok().and_then(PinnedIdentity::parse) else { return };
        let written = serde_json::to_string_pretty(&identity);
        assert_eq!(written.ok().as_deref().and_then(PinnedIdentity::parse).as_ref(), Some(&identity));
        assert_eq!(identity.difference(&identity), None);
        let other = PinnedIdentity { id: identity.id.clone() + "0", ..identity.clone() };
        assert!(identity.difference(&other).is_some());
        let other = PinnedIdentity { fingerprint: identity.fingerprint.clone() + "0", ..identity.clone() };
        assert!(identity.difference(&other).is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::format::Encryption;
    use crate::repository::{InitOptions, OpenOptions, Repository};
    use crate::storage::{Backend, MemoryBackend};

    fn make(backend: &MemoryBackend, encryption: Encryption) {
        let mut secret = || Ok("x".to_owned().into());
        let init = InitOptions::new(encryption);
        Repository::init(Arc::new(backend.clone()), &init, &mut secret, &OpenOptions::default()).unwrap();
    }

    fn open(backend: &MemoryBackend, cache: &Path, trust: bool) -> Result<Repository, VykarError> {
        let options = OpenOptions { cache_dir: Some(cache.to_owned()), trust };
        Repository::open(Arc::new(backend.clone()), &mut || Ok("x".to_owned().into()), &options)
    }

    #[test]
    fn a_file_that_is_no_good_remembers_nothing_and_is_made_again() {
        let cache = tempfile::tempdir().unwrap();
        let backend = MemoryBackend::new();
        make(&backend, Encryption::None);
        open(&backend, cache.path(), false).unwrap();
        let file = pin_path(cache.path(), backend.url());
        let good = fs::read(&file).unwrap();
        type Harm<'h> = &'h dyn Fn(&Path);
        let flip = |file: &Path, at: usize| {
            let mut bad = good.clone();
            bad[at] = if bad[at] == b'1' { b'2' } else { b'1' };
            fs::write(file, bad).unwrap();
        };
        let text = std::str::from_utf8(&good).unwrap();
        let (in_id, in_print) =
            (text.find("\"id\": \"").unwrap() + 9, text.find("\"fingerprint\"").unwrap() + 20);
        let harms: [Harm<'_>; 8] = [
            &|file| flip(file, in_id),
            &|file| flip(file, in_print),
            &|file| fs::write(file, b"").unwrap(),
            &|file| fs::write(file, &good[..good.len() / 2]).unwrap(),
            &|file| fs::write(file, vec![0; good.len()]).unwrap(),
            &|file| fs::write(file, [0xff, 0, 1, b'{']).unwrap(),
            &|file| {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
            },
            &|file| {
                fs::remove_file(file).unwrap();
                rustix::fs::mkfifoat(rustix::fs::CWD, file, 0o600.into()).unwrap();
            },
        ];
        for harm in harms {
            harm(&file);
            open(&backend, cache.path(), false).unwrap();
            assert_eq!(fs::read(&file).unwrap(), good);
        }
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn another_repository_at_the_same_url_is_refused_until_trusted() {
        let cache = tempfile::tempdir().unwrap();
        let backend = MemoryBackend::new();
        make(&backend, Encryption::Aes256Gcm);
        open(&backend, cache.path(), false).unwrap();
        open(&backend, cache.path(), false).unwrap();
        // Somebody takes the encryption away, keeping the id.
        let mut plain = crate::format::RepoConfig::decode(&backend.get("config", 1000).unwrap()).unwrap();
        plain.encryption = Encryption::None;
        let bytes = crate::format::wire::encode("config", &plain).unwrap();
        backend.put("config", &bytes, crate::storage::PutMode::Replace).unwrap();
        let error = open(&backend, cache.path(), false).err().unwrap();
        assert!(error.to_string().contains("encryption Aes256Gcm became None"), "{error}");
        open(&backend, cache.path(), true).unwrap();
        open(&backend, cache.path(), false).unwrap();

        // A bit of anything else flips.
        for change in [
            (|c: &mut crate::format::RepoConfig| c.min_pack_size ^= 1) as fn(&mut _),
            |c| c.max_pack_size ^= 1,
            |c| c.chunker.avg ^= 64,
            |c| c.created.replace_range(0..1, "3"),
            |c| c.id.0[31] ^= 1,
        ] {
            let whole = backend.get("config", 1000).unwrap();
            let mut config = crate::format::RepoConfig::decode(&whole).unwrap();
            change(&mut config);
            let bytes = crate::format::wire::encode("config", &config).unwrap();
            backend.put("config", &bytes, crate::storage::PutMode::Replace).unwrap();
            let error = open(&backend, cache.path(), false).err().unwrap();
            assert!(matches!(error, VykarError::IdentityChanged { .. }), "{error}");
            backend.put("config", &whole, crate::storage::PutMode::Replace).unwrap();
        }
        // What an earlier version remembered is enough, and completed.
        let path = pin_path(cache.path(), "memory");
        let mut pin = PinnedIdentity::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        pin.parameters = None;
        remember(&path, &pin).unwrap();
        open(&backend, cache.path(), false).unwrap();
        assert!(PinnedIdentity::parse(&fs::read_to_string(&path).unwrap()).unwrap().parameters.is_some());

        let other = MemoryBackend::new();
        make(&other, Encryption::None);
        assert!(matches!(open(&other, cache.path(), false), Err(VykarError::IdentityChanged { .. })));
    }
}
