//! What a repository is, and how much is in it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{ObjectError, Result, VykarError};
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::table::ChunkTable;
use crate::format::{EncryptedKey, Encryption, KdfParams, MAX_SMALL_OBJECT, RepoConfig};
use crate::id::PackId;
use crate::repository::objects::layout::{KeyKind, objects};
use crate::repository::{LockInfo, Manifest, REPOKEY, Repository, SessionInfo};
use crate::storage::ObjectInfo;

/// How often what is stored is looked at again because the index was replaced meanwhile.
const ATTEMPTS: u32 = 3;

/// Everything that can be said about a repository without reading what is in its packs.
#[derive(Debug)]
pub struct RepositoryInfo {
    /// Where it is.
    pub url: String,
    /// Its unchanging parameters.
    pub config: RepoConfig,
    /// How its key is derived from the passphrase; `None` where nothing is encrypted.
    pub key: Option<KdfParams>,
    /// Its snapshots.
    pub snapshots: SnapshotsInfo,
    /// What is stored.
    pub stored: StoredInfo,
    /// Locks that are there now.
    pub locks: Vec<LockInfo>,
    /// Backups that are running, or were when they were cut off.
    pub sessions: Vec<SessionInfo>,
    /// Folder of its local caches, and their bytes; `None` where none are kept.
    pub cache: Option<(PathBuf, u64)>,
}

/// All snapshots together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SnapshotsInfo {
    /// Those that can be read. The other fields are about these.
    pub readable: u64,
    /// Those that are damaged.
    pub damaged: u64,
    /// Those that something newer wrote.
    pub newer: u64,
    /// Begin of the oldest.
    pub oldest: Option<Timestamp>,
    /// Begin of the newest.
    pub newest: Option<Timestamp>,
    /// How many there are of each host.
    pub hosts: BTreeMap<String, u64>,
    /// How many there are with each label.
    pub labels: BTreeMap<String, u64>,
    /// Regular files, counted in each snapshot.
    pub files: u64,
    /// Bytes of their content.
    pub size: u64,
    /// Bytes of that after compression and encryption, if nothing were shared.
    pub compressed_size: u64,
}

/// What lies in the storage. Sizes are in bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StoredInfo {
    /// Chunks that the index names.
    pub chunks: u64,
    /// What they take in packs.
    pub chunk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Their size.
    pub pack_bytes: u64,
    /// Of that, what the index does not name: chunks of deleted snapshots, and what a backup that is running, or was cut
    /// off, has stored.
    pub unreferenced: u64,
    /// The index.
    pub index_bytes: u64,
    /// Journals of backups that are running or were cut off.
    pub journals: u64,
    /// Objects of all kinds.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
}

impl RepositoryInfo {
    /// How many times smaller compression makes what is in the snapshots; `None` where there is nothing.
    pub fn compression(&self) -> Option<f64> {
        ratio(self.snapshots.size, self.snapshots.compressed_size)
    }

    /// How many times smaller it becomes by storing once what comes several times.
    pub fn deduplication(&self) -> Option<f64> {
        ratio(self.snapshots.compressed_size, self.stored.chunk_bytes)
    }

    /// How many times more is in the snapshots than all objects take.
    pub fn total_ratio(&self) -> Option<f64> {
        ratio(self.snapshots.size, self.stored.bytes)
    }
}

fn ratio(before: u64, after: u64) -> Option<f64> {
    (before > 0 && after > 0).then(|| before as f64 / after as f64)
}

/// Looks at a repository.
///
/// # Errors
/// The index or the key is missing or damaged, or the storage fails. Snapshots that cannot be read are counted.
pub fn info(repository: &Repository) -> Result<RepositoryInfo> {
    let cache = repository.cache_dir().map(|dir| {
        let size = size_of(&dir);
        (dir, size)
    });
    Ok(RepositoryInfo {
        url: repository.backend().url().to_owned(),
        config: repository.config().clone(),
        key: key(repository)?,
        snapshots: snapshots(&Manifest::load(repository)?),
        stored: stored(repository)?,
        locks: LockInfo::list(repository)?,
        sessions: SessionInfo::list(repository)?,
        cache,
    })
}

fn key(repository: &Repository) -> Result<Option<KdfParams>> {
    if repository.config().encryption == Encryption::None {
        return Ok(None);
    }
    let data = repository.backend().get(REPOKEY, MAX_SMALL_OBJECT)?;
    let key = EncryptedKey::decode(&data).map_err(|e| VykarError::damaged(REPOKEY, ObjectError::from(e)))?;
    Ok(Some(key.kdf))
}

fn snapshots(manifest: &Manifest) -> SnapshotsInfo {
    let newer = manifest.unreadable.iter().filter(|(_, cause)| cause.is_newer()).count() as u64;
    let mut info = SnapshotsInfo {
        readable: manifest.snapshots.len() as u64,
        damaged: manifest.unreadable.len() as u64 - newer,
        newer,
        oldest: manifest.snapshots.first().map(|s| s.time),
        newest: manifest.snapshots.last().map(|s| s.time),
        ..SnapshotsInfo::default()
    };
    for snapshot in &manifest.snapshots {
        let stats = &snapshot.meta.stats;
        *info.hosts.entry(snapshot.meta.hostname.clone()).or_default() += 1;
        *info.labels.entry(snapshot.label().to_owned()).or_default() += 1;
        info.files = info.files.saturating_add(stats.nfiles);
        info.size = info.size.saturating_add(stats.original_size);
        info.compressed_size = info.compressed_size.saturating_add(stats.compressed_size);
    }
    info
}

fn stored(repository: &Repository) -> Result<StoredInfo> {
    let mut attempt = 1;
    loop {
        let index = repository.open_sound_index()?;
        let found = objects(repository.backend().as_ref())?;
        // A pack that came or went with another index would be judged by the wrong one.
        if attempt == ATTEMPTS || repository.index_stamp()? == index.stamp {
            return Ok(sum(&index.index.chunks, &found));
        }
        attempt += 1;
    }
}

fn sum(table: &ChunkTable, found: &[(KeyKind, ObjectInfo)]) -> StoredInfo {
    let mut info = StoredInfo { chunks: table.len() as u64, ..StoredInfo::default() };
    // What each pack has to have, by its number.
    let mut named = vec![HEADER.len() as u64; table.packs().len()];
    for slot in 0..table.len() {
        let bytes = u64::from(table.entry(slot).stored_size);
        info.chunk_bytes += bytes;
        if let Some(pack) = named.get_mut(table.pack_number(slot) as usize) {
            *pack += bytes + LENGTH_PREFIX;
        }
    }
    let named: HashMap<PackId, u64> = table.packs().iter().copied().zip(named).collect();
    for (kind, object) in found {
        info.objects += 1;
        info.bytes = info.bytes.saturating_add(object.size);
        match kind {
            KeyKind::Pack(id) => {
                info.packs += 1;
                info.pack_bytes = info.pack_bytes.saturating_add(object.size);
                let named = named.get(id).copied().unwrap_or(0);
                info.unreferenced = info.unreferenced.saturating_add(object.size.saturating_sub(named));
            }
            KeyKind::Index => info.index_bytes = object.size,
            KeyKind::Journal(_) => info.journals += 1,
            _ => {}
        }
    }
    info
}

/// Bytes of all files in a folder and below, as far as they can be seen.
fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SessionMarker;
    use crate::repository::now_rfc3339;
    use crate::storage::{Backend, PutMode};
    use crate::testing::{TestRepository, noise};

    /// Snapshots with these counters, all of the same item.
    fn filled(test: &mut TestRepository) {
        let item = test.file("file", &noise(1, 100_000));
        for (n, host) in ["a", "b", "a"].into_iter().enumerate() {
            let snapshot = test.snapshot("x", std::slice::from_ref(&item), None);
            test.backend.delete(&crate::repository::snapshot_key(&snapshot.id)).unwrap();
            let mut meta = snapshot.meta;
            (meta.hostname, meta.source_label) = (host.to_owned(), format!("label {n}"));
            meta.time = format!("2026-01-0{}T00:00:00Z", n + 1);
            (meta.stats.nfiles, meta.stats.original_size, meta.stats.compressed_size) = (1, 100_000, 50_000);
            test.put_snapshot(&meta.encode().unwrap(), None);
        }
    }

    #[test]
    fn all_snapshots_and_all_that_is_stored_are_counted() {
        let mut test = TestRepository::with(Encryption::Aes256Gcm);
        filled(&mut test);
        test.put_snapshot(b"?", None);
        test.put_snapshot(&[0xdc, 0, 15, 0xc0], None);
        let before = test.backend.list("").unwrap();
        let found = info(&test.repository).unwrap();
        let SnapshotsInfo { readable, damaged, newer, files, size, compressed_size, .. } = found.snapshots;
        assert_eq!((readable, damaged, newer), (3, 1, 1));
        assert_eq!((files, size, compressed_size), (3, 300_000, 150_000));
        assert_eq!(found.snapshots.oldest.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(found.snapshots.newest.unwrap().to_string(), "2026-01-03T00:00:00Z");
        assert_eq!(found.snapshots.hosts, BTreeMap::from([("a".into(), 2), ("b".into(), 1)]));
        assert_eq!(found.snapshots.labels.len(), 3);
        let total =
            |prefix: &str| before.iter().filter(|o| o.key.starts_with(prefix)).map(|o| o.size).sum::<u64>();
        assert_eq!((found.stored.bytes, found.stored.objects), (total(""), before.len() as u64));
        assert_eq!(
            (found.stored.pack_bytes, found.stored.index_bytes),
            (total("packs/"), total("index") - 8)
        );
        assert_eq!(found.stored.chunks, test.index.len() as u64);
        assert_eq!(found.stored.unreferenced, 0);
        assert_eq!(found.compression(), Some(2.0));
        assert!((1.4..1.5).contains(&found.deduplication().unwrap()), "{found:?}");
        assert_eq!(
            found.key.map(|key| (key.time_cost, key.memory_cost, key.parallelism)),
            Some((3, 65536, 4))
        );
        assert!(test.backend.list("").unwrap() == before, "it was only looked at");
    }

    #[test]
    fn what_the_index_does_not_name_is_unreferenced() {
        let mut test = TestRepository::new();
        filled(&mut test);
        // A pack that nothing names, and a chunk of a pack that is named.
        let orphan = format!("packs/ab/{}", "ab".repeat(32));
        test.backend.put(&orphan, &[0; 1000], PutMode::Replace).unwrap();
        let gone = *test.index.keys().next().unwrap();
        let dead = test.index.remove(&gone).unwrap();
        test.publish();
        let found = info(&test.repository).unwrap().stored;
        let alone = test.index.values().all(|entry| entry.pack != dead.pack);
        let header = if alone { HEADER.len() as u64 } else { 0 };
        assert_eq!(found.unreferenced, 1000 + u64::from(dead.stored_size) + LENGTH_PREFIX + header);
        // A pack that is gone makes nothing unreferenced.
        let pack = test.index.values().next().unwrap().pack;
        test.backend.delete(&crate::repository::pack_key(&pack)).unwrap();
        let without = info(&test.repository).unwrap().stored;
        assert!(without.unreferenced <= found.unreferenced && without.packs + 1 == found.packs);
    }

    #[test]
    fn who_is_at_work_is_named_and_nothing_is_needed() {
        let test = TestRepository::new();
        let empty = info(&test.repository).unwrap();
        assert_eq!((empty.compression(), empty.deduplication(), empty.total_ratio()), (None, None, None));
        assert!(empty.key.is_none() && empty.cache.is_none() && empty.sessions.is_empty());
        let time = now_rfc3339();
        let marker =
            SessionMarker { hostname: "far".into(), pid: 1, registered_at: time.clone(), last_refresh: time };
        let key = |kind: &str| format!("sessions/{}.{kind}", "ab".repeat(16));
        test.backend.put(&key("json"), &serde_json::to_vec(&marker).unwrap(), PutMode::Replace).unwrap();
        test.backend.put(&key("index"), b"", PutMode::Replace).unwrap();
        let found = info(&test.repository).unwrap();
        assert_eq!((found.sessions.len(), found.stored.journals), (1, 1));
        // Without an index beside snapshots nothing can be said of what is stored.
        test.put_snapshot(b"?", None);
        test.backend.delete("index").unwrap();
        assert!(matches!(info(&test.repository), Err(VykarError::IndexMissing)));
    }
}
