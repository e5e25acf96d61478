//! Keeps the processors of a virtual machine from going to sleep while many requests come.
//!
//! A request is two wake-ups: of the thread that answers, and of the program that asked. An idle processor of a
//! virtual machine is given back to its host, and each wake-up of one then takes ten times as long as the
//! answer. Linux has a switch against that (PM QoS): as long as `/dev/cpu_dma_latency` is open with a 0 written
//! to it, idle processors wait awake. Only root may; so nothing happens for others, nor on machines whose idle
//! processors are not governed by `haltpoll`, which is the virtual ones. `ls -lR`, of which nearly all time is
//! such wake-ups, took half as long. The switch is the machine's, not the mount's, and costs power: a mount uses it
//! only if its options ask for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const DEVICE: &str = "/dev/cpu_dma_latency";
const GOVERNOR: &str = "/sys/devices/system/cpu/cpuidle/current_governor";
/// On machines with more processors too many would wait for nothing.
const MAX_PROCESSORS: usize = 16;
/// Requests are counted over this time.
const WINDOW: Duration = Duration::from_millis(20);
/// So many in a window, and it begins; fewer, and it ends. A program that asks one thing after another asks
/// hundreds, one that reads small files decoded ahead some dozens.
const MANY: u64 = 20;
/// The watching thread is woken only by each so many requests.
const KNOCK: u64 = 16;

/// Watches the rate of requests. Ends when dropped.
pub(crate) struct Awake {
    shared: Arc<LatencyShared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct LatencyShared {
    requests: AtomicU64,
    watching: AtomicBool,
    held: AtomicBool,
    closed: AtomicBool,
}

impl Awake {
    /// Starts watching, where it is of use; `None` elsewhere.
    pub(crate) fn start(processors: usize) -> Option<Self> {
        let governor = fs::read_to_string(GOVERNOR).unwrap_or_default();
        let may = OpenOptions::new().write(true).open(DEVICE).is_ok();
        let of_use = governor.trim() == "haltpoll" && processors <= MAX_PROCESSORS && may;
        of_use.then(|| Self::over(Path::new(DEVICE)).ok()).flatten()
    }

    fn over(device: &Path) -> io::Result<Self> {
        let shared = Arc::new(LatencyShared::default());
        let (watched, device) = (shared.clone(), device.to_owned());
        let thread = std::thread::Builder::new().name("vykar-awake".into());
        let thread = thread.spawn(move || watched.watch(&device))?;
        Ok(Awake { shared, thread })
    }

    /// A request has come.
    pub(crate) fn tick(&self) {
        let before = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(KNOCK) && !self.shared.watching.load(Ordering::Relaxed) {
            self.thread.thread().unpark();
        }
    }
}

impl LatencyShared {
    fn watch(&self, device: &Path) {
        let mut held: Option<File> = None;
        while !self.closed.load(Ordering::Relaxed) {
            self.watching.store(true, Ordering::Relaxed);
            let before = self.requests.load(Ordering::Relaxed);
            std::thread::sleep(WINDOW);
            let many = self.requests.load(Ordering::Relaxed).wrapping_sub(before) >= MANY;
            if many && held.is_none() {
                held = hold(device).ok();
            } else if !many {
                // Closing it is what ends it.
                held = None;
                self.held.store(false, Ordering::Relaxed);
                self.watching.store(false, Ordering::Relaxed);
                std::thread::park();
            }
            self.held.store(held.is_some(), Ordering::Relaxed);
        }
    }
}

fn hold(device: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(device)?;
    // Microseconds that waking up may take.
    file.write_all(&0i32.to_ne_bytes())?;
    Ok(file)
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // The thread ends by itself; nothing depends on it, so nobody waits.
        self.thread.thread().unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;

    #[test]
    fn many_requests_keep_the_machine_awake_and_only_as_long_as_they_come() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let awake = Awake::over(device.path()).unwrap();
        let held = || awake.shared.held.load(Ordering::Relaxed);
        for _ in 0..MANY / 2 {
            awake.tick();
        }
        std::thread::sleep(WINDOW * 3);
        assert!(!held() && fs::read(device.path()).unwrap().is_empty(), "a few are not many");
        for _ in 0..2 {
            eventually(|| {
                (0..MANY * 2).for_each(|_| awake.tick());
                held()
            });
            assert_eq!(fs::read(device.path()).unwrap(), [0; 4]);
            eventually(|| !held());
        }
    }
}
