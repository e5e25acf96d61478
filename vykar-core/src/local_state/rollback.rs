//! What this machine saw of a repository, to notice when an earlier state of it comes back.
//!
//! Whoever holds the storage cannot make an index or a snapshot, but can put an old one in place, or take snapshots
//! away. So the cache directory keeps the stamps of the indexes that were superseded, the snapshots that were there,
//! and those that were deleted from here. The file is authenticated with the repository's key; a missing or damaged
//! one remembers nothing.
//!
//! Everybody looks at the repository and at this file under a lock of the file, one after another, so that an index
//! that was read before another one was written is never taken for one that came back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::error::{Result, VykarError};
use crate::format::Snapshot;
use crate::id::{ChunkId, SnapshotId};
use crate::local_state::cache_file;
use crate::platform::read::open_regular;
use crate::repository::{Keys, Manifest, Repository, now_rfc3339};
use crate::text::first_few;

pub(crate) mod fuzz;

/// The file in the repository's cache directory.
const FILE: &str = "seen";
/// Superseded indexes that are remembered.
const MAX_SUPERSEDED: usize = 1000;
/// Snapshots that are gone and remembered.
const MAX_GONE: usize = 10_000;
/// A longer file is not ours, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// How long another program's look at the memory is waited for: it takes moments, unless its storage does not answer.
const LOCK_WAIT: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(10) };
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long a deletion may last from when it is remembered to when the snapshot is gone, in seconds: a batch of them on a
/// slow storage. One that failed is taken for going on so long.
const DELETION_LASTS: i64 = 600;
/// Shortest beginning of an id that stands for it here.
const MIN_PREFIX: usize = 8;
/// Snapshots that a message names.
const NAMED: usize = 5;

/// Something that is not as this machine left it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackWarning {
    /// An index that had been superseded is there again.
    #[error(
        "index: the one that was superseded on {superseded} is there again: somebody has put back an earlier state of the repository"
    )]
    IndexRolledBack {
        /// When this machine saw that (RFC 3339).
        superseded: String,
    },
    /// Snapshots are gone that were not deleted from here. Told once.
    #[error(
        "{count} snapshot(s) that were here before are gone, and were not deleted from this machine: {names}"
    )]
    SnapshotsVanished {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// Snapshots that were deleted from here are there again.
    #[error("{count} snapshot(s) that were deleted from this machine are there again: {names}")]
    SnapshotsReturned {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// Nothing was compared: another program has kept the memory to itself for long.
    #[error(
        "not compared with what this machine saw before: another program has been at {file} for {} s, and may wait for the \
         storage", .waited.as_secs()
    )]
    NotCompared {
        /// The file that it holds.
        file: String,
        /// For how long that was waited for.
        waited: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum SnapshotMemory {
    Here,
    /// It is being deleted from this machine.
    Doomed,
    /// It was deleted from this machine, and was seen to be gone.
    Gone,
    /// It is gone, was not deleted from this machine, and that was told.
    Vanished,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KnownState {
    state: SnapshotMemory,
    name: Option<String>,
    /// When its deletion began, in seconds since the epoch.
    #[serde(default)]
    doomed: i64,
}

impl KnownState {
    fn new(state: SnapshotMemory, name: Option<String>) -> Self {
        let doomed = if state == SnapshotMemory::Doomed { now() } else { 0 };
        KnownState { state, name, doomed }
    }

    /// True when its deletion may be going on, so that it says nothing that it is there.
    fn may_be_going(&self) -> bool {
        now().saturating_sub(self.doomed) < DELETION_LASTS
    }
}

fn now() -> i64 {
    crate::clock::now().as_second()
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    index: Option<String>,
    /// Stamps, each with when it was seen to be superseded; oldest first.
    superseded: Vec<(String, String)>,
    snapshots: BTreeMap<String, KnownState>,
}

impl Repository {
    /// Compares the repository with what this machine saw of it last, and remembers what is new. With a manifest,
    /// whose snapshots must be those that are there, their names are remembered too.
    ///
    /// # Errors
    /// When the storage fails. What cannot be remembered is not an error.
    pub fn compare_with_last_time(&self, manifest: Option<&Manifest>) -> Result<Vec<RollbackWarning>> {
        let compared = self.with_memory(|memory| {
            let mut strange: Vec<_> = self.see_index(memory)?.into_iter().collect();
            strange.extend(memory.snapshots(&Manifest::ids(self)?, manifest));
            Ok(strange)
        });
        match compared {
            MemoryCheck::Done(strange) => strange,
            MemoryCheck::Nothing => Ok(Vec::new()),
            MemoryCheck::Busy(file) => {
                Ok(vec![RollbackWarning::NotCompared { file: file.display().to_string(), waited: LOCK_WAIT }])
            }
        }
    }

    fn see_index(&self, memory: &mut Memory) -> Result<Option<RollbackWarning>> {
        let stamp = crate::repository::lock::write_guard::stamp(self)?
            .map(|stamp| HEXLOWER.encode(&stamp.to_bytes()));
        if self.trust() {
            *memory = Memory::default();
        }
        Ok(memory.index(stamp))
    }

    /// Refuses to go on where an earlier index is there again: what is written on top of it would lose what came
    /// after it.
    pub(crate) fn refuse_rollback(&self) -> Result<()> {
        match self.with_memory(|memory| self.see_index(memory)) {
            MemoryCheck::Done(Ok(Some(strange))) => {
                let (url, detail) = (self.backend().url().to_owned(), strange.to_string());
                Err(VykarError::RolledBack { url, detail })
            }
            MemoryCheck::Done(Err(e)) => Err(e),
            MemoryCheck::Done(Ok(None)) | MemoryCheck::Nothing | MemoryCheck::Busy(_) => Ok(()),
        }
    }

    /// The ids of snapshots that this machine saw here, as far as it did not delete them.
    pub(crate) fn remembered_snapshots(&self) -> Vec<SnapshotId> {
        let seen = self.with_memory(|memory| {
            let known = memory.snapshots.iter();
            let known = known
                .filter(|(_, known)| matches!(known.state, SnapshotMemory::Here | SnapshotMemory::Vanished));
            known.filter_map(|(id, _)| id.parse().ok()).collect()
        });
        match seen {
            MemoryCheck::Done(ids) => ids,
            MemoryCheck::Nothing | MemoryCheck::Busy(_) => Vec::new(),
        }
    }

    /// Which of the snapshots that were here before are not among these, and were not deleted from this machine, nor
    /// `elsewhere`: how many, and the first of them. They are remembered until [`Repository::forget_vanished`].
    pub(crate) fn vanished_snapshots(
        &self,
        ids: &[SnapshotId],
        elsewhere: &BTreeSet<SnapshotId>,
    ) -> Option<(usize, String)> {
        if self.trust() {
            return None;
        }
        let vanished = self.with_memory(|memory| {
            // What was published since these were listed is remembered, and not among them.
            let mut now = Manifest::ids(self).unwrap_or_default();
            now.extend_from_slice(ids);
            memory.snapshots(&now, None);
            let is_deleted = |id: &str| id.parse().is_ok_and(|id: SnapshotId| elsewhere.contains(&id));
            let vanished = memory
                .snapshots
                .iter()
                .filter(|(id, known)| known.state == SnapshotMemory::Vanished && !is_deleted(id));
            vanished.map(|(id, known)| label(id, known)).collect::<Vec<_>>()
        });
        let MemoryCheck::Done(vanished) = vanished else { return None };
        (!vanished.is_empty()).then(|| (vanished.len(), first_few(vanished, NAMED, ", ")))
    }

    /// What has vanished was deleted as it should be: the index does not count it any more.
    pub(crate) fn forget_vanished(&self) {
        let _ = self.with_memory(|memory| {
            memory.snapshots.retain(|_, known| known.state != SnapshotMemory::Vanished);
        });
    }

    /// Remembers the index that was just written here.
    pub(crate) fn remember_index(&self) {
        let _ = self.with_memory(|memory| self.see_index(memory));
    }

    /// Remembers a snapshot that was just written here.
    pub(crate) fn remember_snapshot(&self, id: &SnapshotId) {
        let known = KnownState::new(SnapshotMemory::Here, None);
        let _ = self.with_memory(|memory| memory.snapshots.insert(id.to_string(), known));
    }

    /// Remembers that a snapshot is deleted from here; nothing for other keys.
    pub(crate) fn remember_deletion(&self, key: &str) {
        let id = key.strip_prefix("snapshots/").filter(|id| id.parse::<SnapshotId>().is_ok());
        let Some(id) = id else { return };
        let _ = self.with_memory(|memory| {
            let name = memory.snapshots.get(id).and_then(|known| known.name.clone());
            memory.snapshots.insert(id.to_owned(), KnownState::new(SnapshotMemory::Doomed, name));
        });
    }

    /// Remembers what snapshots are called that are to be deleted.
    pub(crate) fn remember_names(&self, snapshots: &[Snapshot]) {
        let _ = self.with_memory(|memory| {
            for snapshot in snapshots {
                let known = memory.snapshots.entry(snapshot.id.to_string());
                known.or_insert(KnownState::new(SnapshotMemory::Here, None)).name =
                    Some(snapshot.meta.name.clone());
            }
        });
    }

    /// True for a snapshot, by its name or the beginning of its id, that was deleted from this machine, as far as that
    /// is remembered.
    pub fn was_deleted_here(&self, wanted: &str) -> bool {
        let is_meant = |id: &str, known: &KnownState| {
            known.name.as_deref() == Some(wanted) || (wanted.len() >= MIN_PREFIX && id.starts_with(wanted))
        };
        let found = self.with_memory(|memory| {
            let mut all = memory.snapshots.iter();
            all.any(|(id, known)| {
                matches!(known.state, SnapshotMemory::Gone | SnapshotMemory::Doomed) && is_meant(id, known)
            })
        });
        matches!(found, MemoryCheck::Done(true))
    }

    /// Works on what is remembered, and keeps what becomes of it where the cache directory can be written. Where it
    /// cannot, what is there is compared all the same.
    fn with_memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> MemoryCheck<T> {
        let Some(dir) = self.cache_dir() else { return MemoryCheck::Nothing };
        let _ = crate::platform::private::make_closed_dir(&dir);
        let file = dir.join("seen.lock");
        let lock = lock_file(&file);
        let can_write = lock.is_some();
        // Whoever holds it looks at the storage meanwhile, which may not answer. That was waited for once.
        let wait = if self.memory_is_busy().load(Ordering::Relaxed) { Duration::ZERO } else { LOCK_WAIT };
        if lock.as_ref().is_some_and(|lock| !lock_within(lock, wait)) {
            self.memory_is_busy().store(true, Ordering::Relaxed);
            return MemoryCheck::Busy(file);
        }
        let before = read(&dir, self.keys());
        let mut memory =
            before.as_deref().and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
        let done = work(&mut memory);
        if can_write
            && let Ok(after) = serde_json::to_vec(&memory)
            && before.as_deref() != Some(&after[..])
        {
            let _ = write(&dir, self.keys(), &after);
        }
        MemoryCheck::Done(done)
    }
}

/// Opens a file that is only ever locked; `None` where there is none and none can be made.
fn lock_file(path: &Path) -> Option<File> {
    let make =
        || crate::platform::private::options().truncate(false).custom_flags(libc::O_NONBLOCK).open(path);
    let is_file = |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_file());
    if let Some(file) = make().ok().filter(is_file).or_else(|| open_regular(path).ok()) {
        return Some(file);
    }
    cache_file::clear(path);
    make().ok().filter(is_file)
}

/// What came of looking at what is remembered.
enum MemoryCheck<T> {
    Done(T),
    /// Nothing is kept.
    Nothing,
    /// Somebody else has this file for long.
    Busy(PathBuf),
}

/// Locks a file against others, within this time. Where the file system has no locks it goes on without.
fn lock_within(file: &File, wait: Duration) -> bool {
    let began = Instant::now();
    loop {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if began.elapsed() < wait => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return false,
            _ => return true,
        }
    }
}

impl Memory {
    fn index(&mut self, now: Option<String>) -> Option<RollbackWarning> {
        if now == self.index {
            return None;
        }
        if let Some((_, when)) = self.superseded.iter().find(|(stamp, _)| Some(stamp) == now.as_ref()) {
            return Some(RollbackWarning::IndexRolledBack { superseded: when.clone() });
        }
        if let Some(old) = std::mem::replace(&mut self.index, now) {
            self.superseded.push((old, now_rfc3339()));
            let excess = self.superseded.len().saturating_sub(MAX_SUPERSEDED);
            self.superseded.drain(..excess);
        }
        None
    }

    fn snapshots(&mut self, ids: &[SnapshotId], manifest: Option<&Manifest>) -> Vec<RollbackWarning> {
        let readable = manifest.map(|m| &m.snapshots[..]).unwrap_or_default();
        let names: HashMap<_, _> = readable.iter().map(|s| (s.id, &s.meta.name)).collect();
        let name = |id: &SnapshotId| names.get(id).map(|name| (*name).clone());
        let here: BTreeMap<String, Option<String>> =
            ids.iter().map(|id| (id.to_string(), name(id))).collect();
        let (mut vanished, mut returned) = (Vec::new(), Vec::new());
        for (id, known) in &mut self.snapshots {
            match (known.state, here.contains_key(id)) {
                (SnapshotMemory::Here, true) | (SnapshotMemory::Gone | SnapshotMemory::Vanished, false) => {}
                // Somebody looks between the decision and the deed.
                (SnapshotMemory::Doomed, true) if known.may_be_going() => {}
                // The deletion failed, or what it is on was not there for a while.
                (SnapshotMemory::Doomed | SnapshotMemory::Vanished, true) => {
                    known.state = SnapshotMemory::Here
                }
                (SnapshotMemory::Doomed, false) => known.state = SnapshotMemory::Gone,
                (SnapshotMemory::Gone, true) => returned.push(label(id, known)),
                (SnapshotMemory::Here, false) => {
                    vanished.push(label(id, known));
                    known.state = SnapshotMemory::Vanished;
                }
            }
        }
        for (id, name) in here {
            let known = self.snapshots.entry(id).or_insert(KnownState::new(SnapshotMemory::Here, None));
            known.name = name.or(known.name.take());
        }
        self.forget();
        let mut strange = Vec::new();
        if !vanished.is_empty() {
            strange.push(RollbackWarning::SnapshotsVanished {
                count: vanished.len(),
                names: first_few(vanished, NAMED, ", "),
            });
        }
        if !returned.is_empty() {
            strange.push(RollbackWarning::SnapshotsReturned {
                count: returned.len(),
                names: first_few(returned, NAMED, ", "),
            });
        }
        strange
    }

    /// Keeps the number of snapshots that are gone bounded.
    fn forget(&mut self) {
        let is_gone =
            |known: &KnownState| matches!(known.state, SnapshotMemory::Gone | SnapshotMemory::Vanished);
        let gone = self.snapshots.values().filter(|known| is_gone(known)).count();
        let mut excess = gone.saturating_sub(MAX_GONE);
        self.snapshots.retain(|_, known| {
            let forget = excess > 0 && is_gone(known);
            excess -= usize::from(forget);
            !forget
        });
    }
}

fn label(id: &str, known: &KnownState) -> String {
    let short = id.get(..16).unwrap_or(id);
    match &known.name {
        Some(name) => format!("{name} ({short})"),
        None => short.to_owned(),
    }
}

fn tag(keys: &Keys, text: &[u8]) -> Option<String> {
    keys.hasher().local(b"vykarsen", &[text]).ok().map(|tag| ChunkId(tag).to_string())
}

/// The file's text, if it is ours and whole: a line with the keyed hash of the rest.
fn read(dir: &Path, keys: &Keys) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    open_regular(&dir.join(FILE)).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    let (line, text) = content.split_at_checked(65)?;
    let expected = tag(keys, text)?;
    (line.strip_suffix(b"\n") == Some(expected.as_bytes())).then(|| text.to_vec())
}

fn write(dir: &Path, keys: &Keys, text: &[u8]) -> std::io::Result<()> {
    let tag = tag(keys, text).ok_or_else(|| std::io::Error::other("no tag"))?;
    cache_file::write(&dir.join(FILE), &[tag.as_bytes(), b"\n", text])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::format::Encryption;
    use crate::maintenance::{DeleteOptions, delete_snapshots};
    use crate::repository::{InitOptions, LockOptions, OpenOptions, WriteGuard, snapshot_key};
    use crate::storage::{Backend, MemoryBackend, PutMode};

    struct Place {
        backend: MemoryBackend,
        cache: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = Place { backend: MemoryBackend::new(), cache: tempfile::tempdir().unwrap() };
            let init = InitOptions::new(Encryption::None);
            let none = &mut || unreachable!();
            Repository::init(Arc::new(place.backend.clone()), &init, none, &OpenOptions::default()).unwrap();
            place
        }

        fn open(&self, trust: bool) -> Repository {
            let options = OpenOptions { cache_dir: Some(self.cache.path().to_owned()), trust };
            Repository::open(Arc::new(self.backend.clone()), &mut || unreachable!(), &options).unwrap()
        }

        fn look(&self) -> Vec<RollbackWarning> {
            let repository = self.open(false);
            let manifest = Manifest::load(&repository).unwrap();
            repository.compare_with_last_time(Some(&manifest)).unwrap()
        }

        fn index(&self) -> Vec<u8> {
            self.backend.get("index", u64::MAX).unwrap()
        }

        fn put_index(&self, index: &[u8]) {
            self.backend.put("index", index, PutMode::Replace).unwrap();
        }

        fn write_index(&self) -> Result<()> {
            let repository = self.open(false);
            let mut guard = WriteGuard::acquire(&repository, &LockOptions::default())?;
            guard.write_index(0, std::iter::empty()).map(drop)
        }

        /// Adds a snapshot without the program's doing.
        fn put_snapshot(&self, n: u8) -> SnapshotId {
            let id = SnapshotId([n; 32]);
            self.backend.put(&snapshot_key(&id), b"?", PutMode::Replace).unwrap();
            id
        }
    }

    #[test]
    fn an_index_that_was_superseded_is_noticed_and_not_written_over() {
        let place = Place::new();
        assert_eq!(place.look(), []);
        let first = place.index();
        place.write_index().unwrap();
        // By another machine, which this one sees.
        place.write_index().unwrap();
        let third = place.index();
        assert_eq!(place.look(), []);
        place.put_index(&first);
        for _ in 0..2 {
            assert!(matches!(place.look()[..], [RollbackWarning::IndexRolledBack { .. }]));
            assert!(matches!(place.write_index(), Err(VykarError::RolledBack { .. })));
        }
        assert!(place.index() == first && place.backend.list("locks/").unwrap().is_empty());
        place.put_index(&third);
        assert_eq!(place.look(), []);
        // A person says that it is meant.
        place.put_index(&first);
        assert_eq!(place.open(true).compare_with_last_time(None).unwrap(), []);
        assert_eq!(place.look(), []);
        place.write_index().unwrap();
        assert_eq!(place.look(), []);
    }

    #[test]
    fn snapshots_that_vanish_are_told_once_and_those_deleted_here_never() {
        let place = Place::new();
        let ids: Vec<_> = (1..9).map(|n| place.put_snapshot(n)).collect();
        assert_eq!(place.look(), []);
        for id in &ids[..6] {
            place.backend.delete(&snapshot_key(id)).unwrap();
        }
        let told = place.look();
        assert!(matches!(told[..], [RollbackWarning::SnapshotsVanished { count: 6, .. }]), "{told:?}");
        assert!(told[0].to_string().contains("and 1 more"), "{}", told[0]);
        assert_eq!(place.look(), []);
        let copy = place.backend.get(&snapshot_key(&ids[7]), 10).unwrap();
        delete_snapshots(&place.open(false), &[ids[7]], &DeleteOptions::default(), None).unwrap();
        assert_eq!(place.look(), []);
        place.backend.put(&snapshot_key(&ids[7]), &copy, PutMode::Replace).unwrap();
        for _ in 0..2 {
            let told = place.look();
            assert!(matches!(told[..], [RollbackWarning::SnapshotsReturned { count: 1, .. }]), "{told:?}");
        }
    }

    #[test]
    fn who_looks_while_a_deletion_or_a_backup_goes_on_takes_nothing_for_vanished() {
        let place = Place::new();
        let id = place.put_snapshot(1);
        assert_eq!(place.look(), []);
        // Between the decision and the deed.
        place.open(false).remember_deletion(&snapshot_key(&id));
        assert_eq!(place.look(), []);
        place.backend.delete(&snapshot_key(&id)).unwrap();
        assert_eq!(place.look(), []);
        // With a list that was made before another one was published.
        let repository = place.open(false);
        let before = Manifest::ids(&repository).unwrap();
        let new = place.put_snapshot(2);
        repository.remember_snapshot(&new);
        assert_eq!(repository.vanished_snapshots(&before, &BTreeSet::new()), None);
        assert_eq!(place.look(), []);
    }

    #[test]
    fn a_memory_that_somebody_keeps_is_not_waited_for_without_end() {
        let place = Place::new();
        assert_eq!(place.look(), []);
        let first = place.index();
        place.write_index().unwrap();
        place.put_index(&first);
        let file = place.open(false).cache_dir().unwrap().join("seen.lock");
        let held = File::open(&file).unwrap();
        assert!(lock_within(&held, LOCK_WAIT));
        let told = place.look();
        assert!(matches!(told[..], [RollbackWarning::NotCompared { .. }]), "{told:?}");
        assert!(told[0].to_string().contains("seen.lock"), "{}", told[0]);
        // Waited for once, however much there is to remember.
        let repository = place.open(false);
        let began = Instant::now();
        for n in 0..100 {
            repository.remember_deletion(&snapshot_key(&SnapshotId([n; 32])));
        }
        assert!(began.elapsed() < 3 * LOCK_WAIT, "{:?}", began.elapsed());
        drop(held);
        assert!(matches!(place.look()[..], [RollbackWarning::IndexRolledBack { .. }]));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_compared_with_all_the_same() {
        let place = Place::new();
        let id = place.put_snapshot(1);
        assert_eq!(place.look(), []);
        let (dir, first) = (place.open(false).cache_dir().unwrap(), place.index());
        place.write_index().unwrap();
        place.put_index(&first);
        place.backend.delete(&snapshot_key(&id)).unwrap();
        let before = fs::read(dir.join(FILE)).unwrap();
        // Where even root cannot make a file.
        fs::remove_file(dir.join("seen.lock")).unwrap();
        fs::create_dir_all(dir.join("seen.lock/somebody's")).unwrap();
        for _ in 0..2 {
            let told = place.look();
            let expected = matches!(
                told[..],
                [
                    RollbackWarning::IndexRolledBack { .. },
                    RollbackWarning::SnapshotsVanished { count: 1, .. }
                ]
            );
            assert!(expected, "{told:?}");
            assert!(matches!(place.write_index(), Err(VykarError::RolledBack { .. })));
        }
        assert!(fs::read(dir.join(FILE)).unwrap() == before);
    }

    #[test]
    fn what_cannot_be_read_remembers_nothing() {
        let place = Place::new();
        assert_eq!(place.look(), []);
        let first = place.index();
        place.write_index().unwrap();
        let file = place.open(false).cache_dir().unwrap().join(FILE);
        let mut content = fs::read(&file).unwrap();
        let at = content.len() - 3;
        content[at] ^= 1;
        fs::write(&file, content).unwrap();
        place.put_index(&first);
        assert_eq!(place.look(), [], "it could be anybody's");
        // Without a cache directory nothing is kept.
        let repository = Repository::open(
            Arc::new(place.backend.clone()),
            &mut || unreachable!(),
            &OpenOptions::default(),
        );
        assert_eq!(repository.unwrap().compare_with_last_time(None).unwrap(), []);
    }
}
