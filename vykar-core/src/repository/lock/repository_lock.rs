//! The repository's lock: an object under `locks/`, held for seconds.
//!
//! Ours is owned only when it is the only live one. With a smaller one there, ours is deleted and
//! tried again later; with only larger ones, we wait for them to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::crypto::random;
use crate::error::{Result, VykarError};
use crate::format::marker::{LockMarker, lock_name};
use crate::platform::ProcessIdentity;
use crate::repository::lock::heartbeat::Heartbeat;
use crate::repository::lock::liveness::LockInfo;
use crate::repository::{Repository, now_micros, now_rfc3339};
use crate::storage::PutMode;

/// How often a held lock is refreshed.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a request to give up may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a lock is waited for.
#[derive(Debug, Clone)]
pub struct LockOptions {
    /// Give up after this long.
    pub wait: Duration,
    /// Give up when somebody sets this.
    pub cancel: Arc<AtomicBool>,
}

impl Default for LockOptions {
    fn default() -> Self {
        LockOptions { wait: Duration::from_secs(600), cancel: Arc::default() }
    }
}

/// All locks but `own`, live ones only; those of the dead are removed.
fn live_locks(repository: &Repository, own: Option<&str>) -> Result<Vec<LockInfo>> {
    let mut live = Vec::new();
    for lock in LockInfo::list(repository)? {
        if Some(lock.key.as_str()) == own {
            continue;
        }
        match lock.standing.is_over() {
            true => repository.backend().delete(&lock.key)?,
            false => live.push(lock),
        }
    }
    Ok(live)
}

/// Waits, with growing pauses and jitter, until no lock is held. The repository is still there then.
pub fn wait_until_free(repository: &Repository, options: &LockOptions) -> Result<()> {
    let mut pauses = Pauses::new(options);
    loop {
        match live_locks(repository, None)?.first() {
            None => return repository.check_in_place(),
            Some(other) => pauses.pause(&other.describe())?,
        }
    }
}

struct Pauses<'o> {
    began: Instant,
    options: &'o LockOptions,
    next: Duration,
}

impl<'o> Pauses<'o> {
    fn new(options: &'o LockOptions) -> Self {
        Pauses { began: Instant::now(), options, next: FIRST_PAUSE }
    }

    fn pause(&mut self, holder: &str) -> Result<()> {
        let waited = self.began.elapsed();
        if waited >= self.options.wait {
            return Err(VykarError::Locked { holder: holder.to_owned(), waited });
        }
        // Half to one and a half of the pause, so that contenders do not move in step.
        let jitter = u32::from(random::<1>()?[0]);
        let pause = self.next / 2 + self.next * jitter / 255;
        let until = Instant::now() + pause.min(self.options.wait - waited);
        loop {
            if self.options.cancel.load(Ordering::Relaxed) {
                return Err(VykarError::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// The held lock, refreshed by a thread. Dropping releases it as well as that can be done.
pub struct RepositoryLock<'r> {
    repository: &'r Repository,
    key: String,
    heartbeat: Option<Heartbeat>,
    released: bool,
}

impl<'r> RepositoryLock<'r> {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`VykarError::Locked`] names the holder after `options.wait`.
    pub fn acquire(repository: &'r Repository, options: &LockOptions) -> Result<Self> {
        let mut pauses = Pauses::new(options);
        loop {
            let mut lock = Self::write_new(repository)?;
            loop {
                let others = live_locks(repository, Some(&lock.key))?;
                let Some(first) = others.first() else {
                    match lock.check() {
                        // Removed by a person, or somebody who began earlier was slower to write.
                        Err(VykarError::LockLost { reason }) => {
                            drop(lock);
                            pauses.pause(&reason)?;
                            break;
                        }
                        other => return other.map(|()| lock),
                    }
                };
                let smaller = others.iter().find(|other| other.key < lock.key);
                if let Some(smaller) = smaller {
                    let holder = smaller.describe();
                    lock.release()?;
                    pauses.pause(&holder)?;
                    break;
                }
                lock.keep_fresh()?;
                pauses.pause(&first.describe())?;
            }
        }
    }

    fn write_new(repository: &'r Repository) -> Result<Self> {
        let key = format!("locks/{}", lock_name(now_micros(), random()?));
        repository.backend().put(&key, &marker()?, PutMode::Replace)?;
        Ok(RepositoryLock { repository, key, heartbeat: None, released: false })
    }

    /// Refreshes it from now on. Who holds it for a moment only need not ask for a thread.
    pub fn keep_fresh(&mut self) -> Result<()> {
        if self.heartbeat.is_none() {
            let (backend, key) = (self.repository.backend().clone(), self.key.clone());
            self.heartbeat = Some(Heartbeat::start(backend, key, REFRESH_EVERY, marker)?);
        }
        Ok(())
    }

    /// Makes sure that the lock is still ours; to be called before each write it protects.
    ///
    /// # Errors
    /// [`VykarError::LockLost`]: stop before writing anything.
    pub fn check(&self) -> Result<()> {
        let lost = |reason: String| VykarError::LockLost { reason };
        let seen_gone = self.heartbeat.as_ref().is_some_and(Heartbeat::is_lost);
        if seen_gone || !self.repository.backend().exists(&self.key)? {
            return Err(lost("our lock object is gone".into()));
        }
        let others = live_locks(self.repository, Some(&self.key))?;
        match others.iter().find(|other| other.key < self.key) {
            Some(other) => Err(lost(format!("{} holds an earlier one", other.describe()))),
            None => Ok(()),
        }
    }

    /// Gives the lock back.
    pub fn release(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        // Stopped first: it must not write the lock again.
        drop(self.heartbeat.take());
        Ok(self.repository.backend().delete(&self.key)?)
    }
}

impl Drop for RepositoryLock<'_> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn marker() -> Result<Vec<u8>> {
    let me = ProcessIdentity::current();
    let marker = LockMarker { hostname: me.host, pid: me.pid, time: now_rfc3339(), boot_id: me.boot_id };
    serde_json::to_vec(&marker).map_err(|e| VykarError::Encode { what: "lock", reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::format::Encryption;
    use crate::repository::{InitOptions, OpenOptions};
    use crate::storage::MemoryBackend;

    fn repository() -> Repository {
        let init = InitOptions::new(Encryption::None);
        let open = OpenOptions::default();
        Repository::init(Arc::new(MemoryBackend::new()), &init, &mut || unreachable!(), &open).unwrap()
    }

    fn put(repository: &Repository, micros: u64, marker: &LockMarker) -> String {
        let key = format!("locks/{}", lock_name(micros, [7; 16]));
        let text = serde_json::to_vec(marker).unwrap();
        repository.backend().put(&key, &text, PutMode::Replace).unwrap();
        key
    }

    fn elsewhere() -> LockMarker {
        LockMarker { hostname: "elsewhere".into(), pid: 1, time: now_rfc3339(), boot_id: None }
    }

    fn brief() -> LockOptions {
        LockOptions { wait: Duration::from_millis(150), ..LockOptions::default() }
    }

    fn locks(repository: &Repository) -> usize {
        repository.backend().list("locks/").unwrap().len()
    }

    #[test]
    fn a_lock_excludes_others_until_it_is_released() {
        let r = repository();
        let lock = RepositoryLock::acquire(&r, &brief()).unwrap();
        assert!(matches!(RepositoryLock::acquire(&r, &brief()), Err(VykarError::Locked { .. })));
        assert!(matches!(wait_until_free(&r, &brief()), Err(VykarError::Locked { .. })));
        lock.release().unwrap();
        drop(RepositoryLock::acquire(&r, &brief()).unwrap());
        assert_eq!(locks(&r), 0);
    }

    #[test]
    fn neither_an_earlier_nor_a_later_live_lock_is_overruled() {
        for micros in [1, u64::MAX] {
            let r = repository();
            put(&r, micros, &elsewhere());
            let error = RepositoryLock::acquire(&r, &brief()).err().unwrap();
            assert!(error.to_string().contains("elsewhere (process 1"), "{error}");
            assert_eq!(locks(&r), 1, "ours is gone, theirs is not");
        }
    }

    #[test]
    fn locks_of_the_dead_are_removed() {
        let me = ProcessIdentity::current();
        // Process ids end at 2^22.
        let boot_id = me.boot_id.clone();
        let gone = LockMarker { hostname: me.host.clone(), pid: 1 << 30, boot_id, ..elsewhere() };
        // Younger than six hours, and older than this machine's boot.
        let up = Duration::from_nanos(crate::platform::process::boot_nanos()) + Duration::from_secs(120);
        let time = Timestamp::now().checked_sub(up).unwrap().to_string();
        let rebooted = LockMarker { hostname: me.host, pid: 1, boot_id: Some("other".into()), time };
        let old = LockMarker { time: "2020-01-01T00:00:00Z".into(), ..elsewhere() };
        for dead in [gone, rebooted, old] {
            let r = repository();
            put(&r, 1, &dead);
            drop(RepositoryLock::acquire(&r, &brief()).unwrap());
            assert_eq!(locks(&r), 0, "{dead:?}");
        }
    }

    #[test]
    fn another_machine_of_the_same_name_is_not_taken_for_dead() {
        let me = ProcessIdentity::current();
        let r = repository();
        put(
            &r,
            1,
            &LockMarker { hostname: me.host, pid: 1 << 30, boot_id: Some("other".into()), ..elsewhere() },
        );
        assert!(matches!(RepositoryLock::acquire(&r, &brief()), Err(VykarError::Locked { .. })));
    }

    #[test]
    fn an_unreadable_lock_blocks_until_a_person_removes_it() {
        let r = repository();
        let key = put(&r, 1, &elsewhere());
        r.backend().put(&key, b"?", PutMode::Replace).unwrap();
        assert!(matches!(RepositoryLock::acquire(&r, &brief()), Err(VykarError::Locked { .. })));
    }

    #[test]
    fn a_lost_lock_is_noticed() {
        let r = repository();
        let lock = RepositoryLock::acquire(&r, &brief()).unwrap();
        lock.check().unwrap();
        put(&r, 1, &elsewhere());
        assert!(matches!(lock.check(), Err(VykarError::LockLost { .. })));
        let r = repository();
        let held = RepositoryLock::acquire(&r, &brief()).unwrap();
        r.backend().delete(&held.key).unwrap();
        assert!(matches!(held.check(), Err(VykarError::LockLost { .. })));
    }

    #[test]
    fn a_lock_that_is_removed_while_it_waits_is_written_anew() {
        let r = repository();
        put(&r, u64::MAX, &elsewhere());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| RepositoryLock::acquire(&r, &LockOptions::default()).map(drop));
            let end = Instant::now() + Duration::from_secs(60);
            while locks(&r) < 2 {
                assert!(Instant::now() < end, "it should wait");
                std::thread::yield_now();
            }
            for object in r.backend().list("locks/").unwrap() {
                r.backend().delete(&object.key).unwrap();
            }
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(locks(&r), 0);
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let r = repository();
        put(&r, 1, &elsewhere());
        let options = LockOptions { cancel: Arc::new(true.into()), ..LockOptions::default() };
        assert!(matches!(RepositoryLock::acquire(&r, &options), Err(VykarError::Interrupted)));
        assert!(matches!(wait_until_free(&r, &options), Err(VykarError::Interrupted)));
        assert_eq!(locks(&r), 1);
    }

    #[test]
    fn many_contenders_take_turns() {
        let r = repository();
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lock = RepositoryLock::acquire(&r, &LockOptions::default()).unwrap();
                    use std::sync::atomic::Ordering::SeqCst;
                    assert_eq!(holders.fetch_add(1, SeqCst), 0, "alone");
                    std::thread::sleep(Duration::from_millis(5));
                    holders.fetch_sub(1, SeqCst);
                    lock.release().unwrap();
                });
            }
        });
        assert_eq!(locks(&r), 0);
    }
}
