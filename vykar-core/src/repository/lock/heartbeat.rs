//! Keeping a marker fresh while its process works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Result, VykarError};
use crate::platform::process::boot_nanos;
use crate::storage::{Backend, PutMode};

/// How often the clock is looked at, which runs on while the machine sleeps.
const TICK: Duration = Duration::from_secs(20);

/// A thread that rewrites a marker now and then. Never recreates one that has vanished: others have then judged
/// its owner dead.
pub(in crate::repository) struct Heartbeat {
    shared: Arc<HeartbeatShared>,
    thread: Option<JoinHandle<()>>,
}

struct HeartbeatShared {
    stop: Mutex<bool>,
    wake: Condvar,
    lost: AtomicBool,
}

impl Heartbeat {
    /// Rewrites what is under `key` each time it is `every` old, with what `text` gives then.
    pub fn start(
        backend: Arc<dyn Backend>,
        key: String,
        every: Duration,
        text: impl Fn() -> Result<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(HeartbeatShared {
            stop: Mutex::new(false),
            wake: Condvar::new(),
            lost: AtomicBool::new(false),
        });
        let beating = shared.clone();
        let thread = std::thread::Builder::new().name("vykar-heartbeat".into());
        let thread = thread.spawn(move || beating.beat(&*backend, &key, every, &text));
        let thread = thread.map_err(|e| VykarError::path("heartbeat thread", e))?;
        Ok(Heartbeat { shared, thread: Some(thread) })
    }

    /// True once the marker was seen to be gone.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// Ends it; nothing is written after this returns.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        *self.shared.stop.lock() = true;
        self.shared.wake.notify_all();
        let _ = thread.join();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop();
    }
}

impl HeartbeatShared {
    fn beat(&self, backend: &dyn Backend, key: &str, every: Duration, text: &dyn Fn() -> Result<Vec<u8>>) {
        let mut refreshed = boot_nanos();
        let mut stop = self.stop.lock();
        while !*stop {
            self.wake.wait_for(&mut stop, TICK.min(every));
            if *stop || u128::from(boot_nanos().saturating_sub(refreshed)) < every.as_nanos() {
                continue;
            }
            match backend.exists(key) {
                Ok(false) => return self.lost.store(true, Ordering::Release),
                // Storage trouble: the next tick tries again, whoever relies on the marker looks anyway.
                Err(_) => continue,
                Ok(true) => {}
            }
            let written = text().and_then(|text| Ok(backend.put(key, &text, PutMode::Replace)?));
            if written.is_ok() {
                refreshed = boot_nanos();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryBackend;
    use std::time::Instant;

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_refreshes_and_never_recreates() {
        let backend = Arc::new(MemoryBackend::new());
        let read = || backend.get("locks/a", 10).ok();
        backend.put("locks/a", b"old", PutMode::Replace).unwrap();
        let text = || Ok(b"new".to_vec());
        let every = Duration::from_millis(1);
        let mut heartbeat = Heartbeat::start(backend.clone(), "locks/a".into(), every, text).unwrap();
        eventually("refreshed", || read() == Some(b"new".to_vec()));
        // Between its look and its write it may be deleted, and come back once.
        eventually("noticed", || {
            backend.delete("locks/a").unwrap();
            heartbeat.is_lost()
        });
        heartbeat.stop();
        assert_eq!(read(), None);
    }
}
