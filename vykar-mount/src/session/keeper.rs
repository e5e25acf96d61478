//! What is looked after while a mount is there: that it stays read-only, and that it gives memory back.
//!
//! Root can remount any file system read-write, and the kernel asks nobody. It then lets programs change pages
//! that it has cached, by a shared mapping, and other readers see that until the kernel writes them back.
//! Opening a file costs no request here, so the file system cannot refuse to open one for writing. So the
//! mount is made read-only again as soon as the table of mounts shows the change, and when the kernel writes a
//! page back in between, it is told to drop what it has of that file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::pipe::PipeFlags;

use crate::log::{Log, LogLine};
use crate::session::mountpoint;

const TABLE: &str = "/proc/self/mountinfo";
/// How often it is looked whether anything was asked.
const LOOK: Duration = Duration::from_secs(60);
/// After so many looks without a request memory is given back.
const IDLE_LOOKS: u32 = 10;
/// How long to wait before trying again, where somebody has a file open for writing.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Default)]
struct KeeperShared {
    /// Somebody asked something since the last look.
    asked: AtomicBool,
    /// Files that somebody tried to write.
    written: Mutex<BTreeSet<u64>>,
}

/// What the file system's threads tell the keeper. Dropped, it ends.
pub(crate) struct Reports {
    shared: Arc<KeeperShared>,
    wake: OwnedFd,
}

impl Reports {
    /// A request has come.
    pub(crate) fn asked(&self) {
        // Threads that only read share the line.
        if !self.shared.asked.load(Ordering::Relaxed) {
            self.shared.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Somebody tried to write a file.
    pub(crate) fn written(&self, ino: u64) {
        self.shared.written.lock().insert(ino);
        // A pipe that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &[0]);
    }
}

/// Where the mount is, and what it was mounted with.
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) device: String,
    pub(crate) no_exec: bool,
}

/// What the keeper does.
pub(crate) struct Duties {
    pub(crate) log: Log,
    /// Lets the kernel drop what it has of a file.
    pub(crate) drop_pages: Box<dyn Fn(u64) + Send>,
    /// Gives memory back.
    pub(crate) give_back: Box<dyn Fn() + Send>,
}

/// Waits for reports.
pub(crate) struct Keeper {
    shared: Arc<KeeperShared>,
    woken: OwnedFd,
}

/// A keeper that is not at work yet, and what it hears from.
pub(crate) fn pair() -> io::Result<(Keeper, Reports)> {
    let (woken, wake) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let shared = Arc::new(KeeperShared::default());
    Ok((Keeper { shared: shared.clone(), woken }, Reports { shared, wake }))
}

impl Keeper {
    /// Begins, in a thread of its own. Without a thread nothing is kept, as on any other file system.
    pub(crate) fn start(self, kept: Kept, duties: Duties) {
        let thread = std::thread::Builder::new().name("vykar-keeper".into());
        let _ = thread.spawn(move || self.keep(&kept, &duties));
    }

    fn keep(&self, kept: &Kept, duties: &Duties) {
        let table = File::open(TABLE).ok();
        let (mut idle, mut said) = (IdleCount::default(), false);
        loop {
            let is_open = is_writable(&kept.device).unwrap_or(false) && !kept.close(&duties.log, &mut said);
            match self.wait(table.as_ref(), if is_open { AGAIN } else { LOOK }) {
                Ok(Woken::End) | Err(_) => return,
                Ok(Woken::Report) => {}
                Ok(Woken::Late) if is_open => {}
                Ok(Woken::Late) => {
                    if idle.look(self.shared.asked.swap(false, Ordering::Relaxed)) {
                        (duties.give_back)();
                    }
                }
            }
            let written = std::mem::take(&mut *self.shared.written.lock());
            written.into_iter().for_each(|ino| (duties.drop_pages)(ino));
        }
    }

    fn wait(&self, table: Option<&File>, most: Duration) -> io::Result<Woken> {
        let woken = PollFd::new(&self.woken, PollFlags::IN);
        // The table of mounts has nothing to read: a change is urgent data.
        let changed = table.map(|table| PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI));
        let mut all: Vec<_> = std::iter::once(woken).chain(changed).collect();
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        match rustix::event::poll(&mut all, Some(&most)) {
            Ok(0) => return Ok(Woken::Late),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Woken::Report),
            Err(e) => return Err(e.into()),
        }
        let mut bytes = [0; 64];
        match rustix::io::read(&self.woken, &mut bytes) {
            Ok(0) => Ok(Woken::End),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(Woken::Report),
            Err(e) => Err(e.into()),
        }
    }
}

enum Woken {
    /// The mount is gone.
    End,
    /// The mounts have changed, or somebody wrote.
    Report,
    /// Nothing happened.
    Late,
}

/// Counts looks at which nobody had asked anything.
#[derive(Default)]
struct IdleCount(u32);

impl IdleCount {
    /// True once when nobody has asked for long.
    fn look(&mut self, asked: bool) -> bool {
        self.0 = if asked { 0 } else { self.0.saturating_add(1) };
        self.0 == IDLE_LOOKS
    }
}

/// True when the file system with this device number takes changes.
fn is_writable(device: &str) -> io::Result<bool> {
    Ok(mountpoint::options_of(device)?.is_some_and(|options| options.split(',').any(|o| o == "rw")))
}

impl Kept {
    /// Makes the file system read-only again. False when that must be tried again; `said` is whether it was said.
    fn close(&self, log: &Log, said: &mut bool) -> bool {
        let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::NOEXEC, self.no_exec);
        // What another mounted over it is not ours to change.
        let ours =
            mountpoint::mounted_at(&self.path).is_ok_and(|e| e.is_some_and(|e| e.device == self.device));
        let done = if ours { rustix::mount::mount_remount(&self.path, flags, c"") } else { Err(Errno::BUSY) };
        if done.is_ok() || !std::mem::replace(said, true) {
            log(LogLine::Remounted { closed: done.is_ok() });
        }
        *said &= done.is_err();
        // Others than root cannot.
        done.is_ok() || matches!(done, Err(Errno::PERM | Errno::ACCESS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_nobody_has_asked_for_long() {
        let mut idle = IdleCount::default();
        let mut looks = |asked, times| (0..times).filter(|_| idle.look(asked)).count();
        assert_eq!(looks(true, 100), 0);
        assert_eq!(looks(false, IDLE_LOOKS - 1), 0);
        assert_eq!(looks(true, 1), 0, "somebody came");
        assert_eq!((looks(false, IDLE_LOOKS), looks(false, 1000)), (1, 0));
        assert_eq!((looks(true, 1), looks(false, IDLE_LOOKS)), (0, 1), "and again the next time");
    }

    #[test]
    fn it_hears_of_what_was_written_and_ends_with_the_reports() {
        let (keeper, reports) = pair().unwrap();
        let (sender, dropped) = std::sync::mpsc::channel();
        let (drop_pages, give_back) = (Box::new(move |ino| sender.send(ino).unwrap()), Box::new(|| ()));
        let duties = Duties { log: Arc::new(|line| panic!("{line}")), drop_pages, give_back };
        let kept = Kept { path: "/nowhere".into(), device: "0:0".into(), no_exec: false };
        let thread = std::thread::spawn(move || keeper.keep(&kept, &duties));
        reports.asked();
        reports.written(7);
        assert_eq!(dropped.recv(), Ok(7));
        drop(reports);
        thread.join().unwrap();
        assert!(dropped.recv().is_err());
    }
}
