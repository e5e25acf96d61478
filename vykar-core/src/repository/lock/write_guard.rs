//! Writing under the lock: every write of the index or a snapshot, and every batch of deletions, goes through here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codec::Compression;
use crate::crypto::random;
use crate::error::{Result, StorageError, VykarError};
use crate::format::{IndexEntry, ObjectKind};
use crate::id::SnapshotId;
use crate::repository::lock::liveness::SessionInfo;
use crate::repository::lock::repository_lock::{LockOptions, RepositoryLock};
use crate::repository::objects::index::{IndexStamp, OpenIndex};
use crate::repository::{INDEX, INDEX_GENERATION, Repository, metadata_warning, snapshot_key};
use crate::storage::PutMode;

/// Ids do not compress, and what does comes out as small at the fastest level.
const INDEX_COMPRESSION: Compression = Compression::Zstd(1);

/// Objects that are deleted between two looks at the lock: on a slow storage each takes a while.
const BATCH: usize = 64;

/// Bytes of room that are kept aside for locks and snapshots, beside two versions of the index, in a reserve that is given
/// up when the disk is full.
const RESERVE: u64 = 256 << 10;

/// The held lock, and the index that was there when it was taken or written by this process since.
///
/// The format asks to look, before each write, whether the lock is still ours and nobody wrote an index that we
/// have not read: [`WriteGuard::check`], which the writing methods call by themselves.
pub struct WriteGuard<'r> {
    repository: &'r Repository,
    lock: RepositoryLock<'r>,
    known: Option<IndexStamp>,
    /// Plaintext bytes of the index that was written here.
    index_len: u64,
    /// Once it is set, nothing more is written.
    stop: Option<Arc<AtomicBool>>,
}

impl<'r> WriteGuard<'r> {
    /// Takes the lock, beside backups that are running. Maintenance uses [`Repository::with_maintenance_lock`].
    pub fn acquire(repository: &'r Repository, options: &LockOptions) -> Result<Self> {
        let mut lock = RepositoryLock::acquire(repository, options)?;
        // Whoever held it before may have deleted the repository.
        repository.check_in_place()?;
        lock.keep_fresh()?;
        repository.refuse_rollback()?;
        repository.refuse_wrong_id()?;
        Ok(WriteGuard { known: stamp(repository)?, index_len: 0, stop: None, repository, lock })
    }

    /// The repository.
    pub fn repository(&self) -> &'r Repository {
        self.repository
    }

    /// The stamp of the index that is there now; `None` where there is none.
    pub fn index_stamp(&self) -> Option<IndexStamp> {
        self.known
    }

    /// The index, every byte of it sound.
    pub fn open_index(&self) -> Result<OpenIndex> {
        let index = self.repository.open_sound_index()?;
        if index.stamp != self.known {
            return Err(index_changed());
        }
        Ok(index)
    }

    /// Ends between any two writes when `options.cancel` is set, with [`VykarError::Interrupted`]. Only for work that
    /// can be cut off anywhere and done again.
    pub fn may_be_cut_off(&mut self, options: &LockOptions) {
        self.stop = Some(options.cancel.clone());
    }

    fn check_cancel(&self) -> Result<()> {
        match self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            true => Err(VykarError::Interrupted),
            false => Ok(()),
        }
    }

    /// The lock is ours, and the index is the one that is known here.
    ///
    /// # Errors
    /// [`VykarError::LockLost`], [`VykarError::Interrupted`]: stop before writing anything.
    pub fn check(&self) -> Result<()> {
        self.check_cancel()?;
        self.lock.check()?;
        // The index itself: its hint is written after it, with best effort, and may be behind.
        match stamp(self.repository)? == self.known {
            true => Ok(()),
            false => Err(index_changed()),
        }
    }

    /// Replaces the index; `count` must be the number of entries, which are sorted by id. Durable when this returns.
    pub fn write_index(
        &mut self,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
    ) -> Result<IndexStamp> {
        let generation = u64::from_le_bytes(random()?);
        let index = self.repository.encode_index(generation, count, entries, INDEX_COMPRESSION)?;
        let mut size = 0;
        let put = |object: &[u8]| {
            size = object.len() as u64;
            self.put(INDEX, object, PutMode::Replace)
        };
        let (stamp, len) = self.repository.put_index(index, put)?;
        if let Some(folder) = self.repository.backend().folder() {
            folder.keep_reserve(RESERVE.saturating_add(size.saturating_mul(2)));
        }
        (self.known, self.index_len) = (Some(stamp), len);
        self.repository.remember_index();
        Ok(stamp)
    }

    /// What is to be said about the size of the index that was written here.
    pub fn index_warning(&self) -> Option<String> {
        metadata_warning("index", self.index_len)
    }

    /// Writes a snapshot, whose plaintext is given, under a new id. Durable when this returns.
    pub fn write_snapshot(&self, plain: &[u8]) -> Result<SnapshotId> {
        let id = SnapshotId(random()?);
        let object = self.repository.keys().seal(ObjectKind::Snapshot, id.as_bytes(), plain)?;
        self.put(&snapshot_key(&id), &object, PutMode::Exclusive)?;
        self.repository.remember_snapshot(&id);
        Ok(id)
    }

    /// Checks at the last moment: a machine may sleep while a large object is made and sent, long enough for the lock to
    /// be somebody else's when it wakes.
    fn put(&self, key: &str, object: &[u8], mode: PutMode) -> Result<()> {
        let mut lost = None;
        let mut still = || match self.check() {
            Ok(()) => true,
            Err(e) => {
                lost = Some(e);
                false
            }
        };
        match self.repository.backend().put_if(key, object, mode, &mut still)? {
            true => Ok(()),
            false => Err(lost.unwrap_or_else(index_changed)),
        }
    }

    /// Deletes objects, each durably; one that is gone already is fine. The first failure ends it, and so does the loss of
    /// the lock, which is looked for before each [`BATCH`]. Within a batch they go in no order.
    pub fn delete(&self, keys: impl IntoIterator<Item = String>) -> Result<()> {
        self.delete_counting(keys, &mut 0)
    }

    /// The same, and adds to `deleted` each that is gone, also when it fails at a later one.
    pub fn delete_counting(&self, keys: impl IntoIterator<Item = String>, deleted: &mut usize) -> Result<()> {
        let mut keys = keys.into_iter();
        loop {
            let batch: Vec<String> = keys.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.check()?;
            batch.iter().for_each(|key| self.repository.remember_deletion(key));
            self.repository.backend().delete_many(&batch, &mut |_| *deleted += 1)?;
        }
    }

    /// Deletes the index, and then its generation's hint. Only for who deletes the whole repository: beside snapshots, an
    /// index that is missing is damage.
    pub(crate) fn delete_index(&mut self, deleted: &mut usize) -> Result<()> {
        self.delete_counting([INDEX.to_owned()], deleted)?;
        self.known = None;
        self.delete_counting([INDEX_GENERATION.to_owned()], deleted)
    }

    /// Gives the lock back.
    pub fn release(self) -> Result<()> {
        self.lock.release()
    }
}

impl Repository {
    /// Does something that no backup may run beside: takes the lock, drops the sessions of the dead, and refuses
    /// while any other remains.
    ///
    /// # Errors
    /// [`VykarError::Locked`] when the lock cannot be had, [`VykarError::ActiveSessions`] names the sessions that
    /// remain, and what `work` fails with.
    pub fn with_maintenance_lock<T>(
        &self,
        options: &LockOptions,
        work: impl FnOnce(&mut WriteGuard<'_>) -> Result<T>,
    ) -> Result<T> {
        // What deletes makes room, and needs a little before that.
        let spend_reserve = |only_where_short| {
            self.backend().folder().is_some_and(|folder| folder.spend_reserve(only_where_short))
        };
        spend_reserve(true);
        let mut guard = match WriteGuard::acquire(self, options) {
            // A quota, which the room on the disk does not tell.
            Err(VykarError::Storage(StorageError::Full { .. })) if spend_reserve(false) => {
                WriteGuard::acquire(self, options)?
            }
            acquired => acquired?,
        };
        drop_dead_sessions(&guard)?;
        let done = work(&mut guard)?;
        // What was to be done is done: a lock that stays behind goes stale by itself.
        let _ = guard.release();
        Ok(done)
    }
}

/// Removes the markers of the dead. Their journals stay: the next backup of the same sources takes them up, and
/// they keep nobody from anything.
fn drop_dead_sessions(guard: &WriteGuard<'_>) -> Result<()> {
    let (over, live): (Vec<_>, Vec<_>) =
        SessionInfo::list(guard.repository())?.into_iter().partition(|session| session.standing.is_over());
    if !live.is_empty() {
        let sessions = live.iter().map(SessionInfo::describe).collect();
        return Err(VykarError::ActiveSessions { sessions });
    }
    match over.is_empty() {
        true => Ok(()),
        false => guard.delete(over.iter().map(SessionInfo::marker_key)),
    }
}

/// As it is, or `None` also where it is missing beside snapshots.
pub(crate) fn stamp(repository: &Repository) -> Result<Option<IndexStamp>> {
    match repository.index_stamp() {
        Err(VykarError::IndexMissing) => Ok(None),
        other => other,
    }
}

fn index_changed() -> VykarError {
    VykarError::LockLost { reason: "the index changed under the lock".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::format::SessionMarker;
    use crate::platform::ProcessIdentity;
    use crate::repository::lock::repository_lock::wait_until_free;
    use crate::repository::{OpenOptions, Session};
    use crate::storage::Backend;
    use crate::storage::testing::{Call, Op, TestBackend};
    use crate::testing::TestRepository;

    fn options() -> LockOptions {
        LockOptions { wait: Duration::from_millis(50), ..LockOptions::default() }
    }

    fn keys(test: &TestRepository) -> Vec<String> {
        test.backend.list("").unwrap().into_iter().map(|object| object.key).collect()
    }

    fn put_session(test: &TestRepository, host: &str, pid: u32, last_refresh: &str) {
        let time = last_refresh.to_owned();
        let marker =
            SessionMarker { hostname: host.into(), pid, registered_at: time.clone(), last_refresh: time };
        let key = format!("sessions/{}.json", "ab".repeat(16));
        test.backend.put(&key, &serde_json::to_vec(&marker).unwrap(), PutMode::Replace).unwrap();
    }

    #[test]
    fn maintenance_waits_for_no_living_backup_and_drops_the_dead() {
        let mut test = TestRepository::new();
        test.snapshot("one", &[], None);
        let before = keys(&test);
        let run = || test.repository.with_maintenance_lock(&options(), |guard| guard.check());
        run().unwrap();
        let session = Session::register(&test.repository).unwrap();
        let error = run().unwrap_err();
        assert!(matches!(&error, VykarError::ActiveSessions { sessions } if sessions.len() == 1), "{error}");
        session.finish().unwrap();
        let (me, now) = (ProcessIdentity::current(), crate::repository::now_rfc3339());
        put_session(&test, "elsewhere", 1, &now);
        assert!(matches!(run(), Err(VykarError::ActiveSessions { .. })));
        put_session(&test, &me.host, 1 << 30, &now);
        run().unwrap();
        put_session(&test, "elsewhere", 1, "2026-01-01T00:00:00Z");
        run().unwrap();
        let unreadable = format!("sessions/{}.json", "cd".repeat(16));
        test.backend.put(&unreadable, b"{}", PutMode::Replace).unwrap();
        assert!(run().unwrap_err().to_string().contains("unreadable"));
        test.backend.delete(&unreadable).unwrap();
        run().unwrap();
        assert_eq!(keys(&test), before, "nothing is left behind");
    }

    #[test]
    fn nothing_is_written_where_the_repository_was_deleted_or_replaced() {
        let mut test = TestRepository::new();
        test.snapshot("one", &[], None);
        let before = keys(&test);
        let config = test.backend.get("config", 1000).unwrap();
        let refused = || {
            let locked = WriteGuard::acquire(&test.repository, &options()).map(drop).unwrap_err();
            let waited = wait_until_free(&test.repository, &options()).unwrap_err();
            assert_eq!(locked.to_string(), waited.to_string());
            assert!(test.backend.list("locks/").unwrap().is_empty());
            locked
        };
        test.backend.delete("config").unwrap();
        assert!(matches!(refused(), VykarError::NotARepository { .. }));
        let other = TestRepository::new().backend.get("config", 1000).unwrap();
        test.backend.put("config", &other, PutMode::Replace).unwrap();
        assert!(matches!(refused(), VykarError::IdentityChanged { .. }));
        test.backend.put("config", &config, PutMode::Replace).unwrap();
        WriteGuard::acquire(&test.repository, &options()).unwrap().release().unwrap();
        assert_eq!(keys(&test), before);
    }

    #[test]
    fn what_is_written_while_an_index_is_made_and_sent_is_not_written_over() {
        let mut test = TestRepository::new();
        test.snapshot("one", &[], None);
        let backend = Arc::new(TestBackend::new(test.backend.clone()));
        let repository =
            Repository::open(backend.clone(), &mut || unreachable!(), &OpenOptions::default()).unwrap();
        for key in ["index", "snapshots/"] {
            let mut guard = WriteGuard::acquire(&repository, &options()).unwrap();
            // This machine sleeps for long just now, and somebody takes its lock for stale.
            let other = Repository::open(
                Arc::new(test.backend.clone()),
                &mut || unreachable!(),
                &OpenOptions::default(),
            );
            let other = other.unwrap();
            backend.before(move |Op { call, key: at, .. }, inner| {
                if call == Call::Put && at.starts_with(key) {
                    for lock in inner.list("locks/")? {
                        inner.delete(&lock.key)?;
                    }
                    let mut theirs = WriteGuard::acquire(&other, &options()).unwrap();
                    theirs.write_index(0, std::iter::empty()).unwrap();
                    theirs.release().unwrap();
                }
                Ok(())
            });
            let before = keys(&test);
            let result = match key {
                "index" => guard.write_index(0, std::iter::empty()).map(drop),
                _ => guard.write_snapshot(b"").map(drop),
            };
            backend.unhook();
            assert!(matches!(result, Err(VykarError::LockLost { .. })), "{key}: {result:?}");
            let seen = guard.index_stamp();
            drop(guard);
            // Theirs is there, whatever we meant to write.
            assert!(test.repository.index_stamp().unwrap() != seen, "{key}");
            let after = keys(&test);
            assert!(after.iter().all(|now| before.contains(now)), "{key}: {after:?}");
        }
    }

    #[test]
    fn no_more_than_a_batch_is_deleted_after_the_lock_is_lost() {
        let test = TestRepository::new();
        let backend = Arc::new(TestBackend::new(test.backend.clone()));
        let repository =
            Repository::open(backend.clone(), &mut || unreachable!(), &OpenOptions::default()).unwrap();
        let keys: Vec<_> = (0..3 * BATCH).map(|n| format!("packs/00/{n}")).collect();
        keys.iter().for_each(|key| test.backend.put(key, b"", PutMode::Replace).unwrap());
        let guard = WriteGuard::acquire(&repository, &options()).unwrap();
        let lost_at = keys[BATCH + 3].clone();
        backend.before(move |Op { call, key, .. }, inner| {
            if call == Call::Delete && key == lost_at {
                inner.list("locks/")?.iter().try_for_each(|lock| inner.delete(&lock.key))?;
            }
            Ok(())
        });
        let mut deleted = 0;
        let result = guard.delete_counting(keys.iter().cloned(), &mut deleted);
        assert!(matches!(result, Err(VykarError::LockLost { .. })), "{result:?}");
        assert_eq!((deleted, test.backend.list("packs/").unwrap().len()), (2 * BATCH, BATCH));
        assert!(guard.delete([]).is_ok());
    }

    #[test]
    fn nothing_is_written_over_an_index_that_somebody_else_wrote() {
        let mut test = TestRepository::new();
        test.snapshot("one", &[], None);
        let mut guard = WriteGuard::acquire(&test.repository, &options()).unwrap();
        guard.write_index(0, std::iter::empty()).unwrap();
        guard.check().unwrap();
        test.publish();
        assert!(matches!(guard.check(), Err(VykarError::LockLost { .. })));
        assert!(matches!(guard.open_index(), Err(VykarError::LockLost { .. })));
        assert!(matches!(guard.write_index(0, std::iter::empty()), Err(VykarError::LockLost { .. })));
        assert!(matches!(guard.write_snapshot(b""), Err(VykarError::LockLost { .. })));
        assert!(matches!(guard.delete(["index".to_owned()]), Err(VykarError::LockLost { .. })));
        assert!(test.backend.exists("index").unwrap());
    }
}
