//! Mounting a repository.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use vykar_core::platform::threads;
use vykar_core::repository::Repository;

use crate::content::chunk_source::Freed;
use crate::fs::{Fs, FsOptions};
use crate::log::{Log, LogLine};
use crate::session::cpu_latency::Awake;
use crate::session::fuse::Adapter;
use crate::session::keeper;
use crate::session::keeper::{Duties, Kept};
use crate::session::mountpoint;
use crate::session::mountpoint::{MountError, Spec};
use crate::session::unmount;
use crate::view::attr_mapping::Shown;

/// Default size of the chunk cache: 256 MiB.
pub const DEFAULT_CACHE: u64 = 256 << 20;
/// Default size of the cache of snapshots' trees: 512 MiB.
pub const DEFAULT_TREE_CACHE: u64 = 512 << 20;
/// Default read-ahead of the kernel: 8 MiB, several reads of the largest size under way at once.
pub const DEFAULT_READ_AHEAD_KIB: u32 = 8192;
/// How long a dropped mount that somebody else has detached waits for its end.
const DETACHED_FOR: Duration = Duration::from_secs(1);

/// How a repository is mounted.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Where. An empty directory.
    pub mountpoint: PathBuf,
    /// The repository's directory, where it has one: it must not hold the mount point, nor lie in it.
    pub repository_path: Option<PathBuf>,
    /// Bytes of decoded chunks to keep.
    pub cache_size: u64,
    /// Bytes of snapshots' trees to keep; one is kept however large it is.
    pub tree_cache_size: u64,
    /// Threads that answer the kernel; 0 chooses by the number of processors.
    pub threads: usize,
    /// Threads that read ahead; `None` chooses by the number of processors.
    pub prefetch_threads: Option<usize>,
    /// How far the kernel reads ahead in a file, in KiB. Only root can raise it above the kernel's
    /// default, which is the least: a smaller number, like 0, changes nothing.
    pub read_ahead_kib: u32,
    /// Let other users in. The kernel checks permissions then.
    pub allow_other: bool,
    /// Nothing in it can be run as a program.
    pub no_exec: bool,
    /// It may be exported by NFS: the kernel then makes file handles of inode numbers.
    pub export: bool,
    /// Keep the processors of a virtual machine awake while many requests come, if this user may. It is a setting
    /// of the whole machine.
    pub keep_awake: bool,
    /// Zone of the times that snapshots are named by.
    pub zone: TimeZone,
    /// What is shown, and how.
    pub shown: Shown,
    /// Called when much memory was freed.
    pub freed: Option<Freed>,
    /// Told of the mount while it is made.
    pub announce: Option<Announce>,
}

/// Takes a path and, once it is known, a device number.
pub type Announced = dyn Fn(&Path, Option<&str>) + Send + Sync;

/// Called with the path, as the kernel will know it, just before anything is mounted there, and again with the number
/// of the mount's device before anything is answered. So whoever is to take it away knows it whenever this process
/// is killed.
#[derive(Clone)]
pub struct Announce(pub Arc<Announced>);

impl std::fmt::Debug for Announce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announce")
    }
}

impl MountOptions {
    /// The defaults, with times in UTC: this library does not look at the environment, so a caller
    /// sets [`MountOptions::zone`], to `TimeZone::system()` for instance.
    pub fn new(mountpoint: impl Into<PathBuf>) -> Self {
        MountOptions {
            mountpoint: mountpoint.into(),
            repository_path: None,
            cache_size: DEFAULT_CACHE,
            tree_cache_size: DEFAULT_TREE_CACHE,
            threads: 0,
            prefetch_threads: None,
            read_ahead_kib: DEFAULT_READ_AHEAD_KIB,
            allow_other: false,
            no_exec: false,
            export: false,
            keep_awake: false,
            zone: TimeZone::UTC,
            shown: Shown::default(),
            freed: None,
            announce: None,
        }
    }

    fn fs_options(&self) -> FsOptions {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        FsOptions {
            cache_size: self.cache_size,
            tree_cache_size: self.tree_cache_size,
            prefetch_threads: self.prefetch_threads.unwrap_or_else(|| threads(0, 8)),
            owner,
            zone: self.zone.clone(),
            shown: self.shown.clone(),
            freed: self.freed.clone(),
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        // The kernel enforces who may enter, from its own caches as well.
        config.acl = SessionACL::All;
        config.n_threads = Some(match self.threads {
            0 => (threads(0, 8) * 2).max(4),
            threads => threads,
        });
        // Whoever was mounted by the helper may not be allowed to open the device.
        config.clone_fd = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
        config
    }
}

/// A mounted repository. Unmounts when dropped, and waits until nothing serves it any more. If it is in
/// use it is detached instead, and served until it is not.
pub struct Mount {
    place: Arc<MountPlace>,
    session: Option<JoinHandle<io::Result<()>>>,
}

struct MountPlace {
    path: PathBuf,
    device: String,
    asked: AtomicBool,
    /// The conversation with the kernel, until it ends.
    connection: Mutex<Option<OwnedFd>>,
}

impl Mount {
    /// Mounts, and returns when the file system is about to answer; who asks before waits for that.
    ///
    /// # Errors
    /// See [`MountError`]. Nothing is mounted then.
    pub fn new(repository: Arc<Repository>, options: &MountOptions, log: Log) -> Result<Self, MountError> {
        let path = mountpoint::check(&options.mountpoint, options.repository_path.as_deref())?;
        let source = format!("vykar:{}", repository.backend().url());
        let fs = Arc::new(Fs::new(repository, options.fs_options(), log.clone())?);
        let spec = Spec { source, allow_other: options.allow_other, no_exec: options.no_exec };
        let announce = |device: Option<&str>| {
            if let Some(Announce(tell)) = &options.announce {
                tell(&path, device);
            }
        };
        announce(None);
        let fd = mountpoint::mount(&path, &spec)?;
        let device = match mountpoint::mounted_at(&path) {
            Ok(Some(entry)) => entry.device,
            Ok(None) => return Err(MountError::NotMounted { path }),
            Err(source) => return Err(abandon(&path, source)),
        };
        announce(Some(&device));
        let connection = fd.try_clone().map_err(|source| abandon(&path, source))?;
        let connection = Mutex::new(Some(connection));
        let place = Arc::new(MountPlace { path, device, asked: AtomicBool::new(false), connection });
        let awake = options.keep_awake.then(|| Awake::start(threads(0, usize::MAX))).flatten();
        let checked = options.allow_other || mountpoint::overrides_permissions();
        let (keeper, reports) = keeper::pair().map_err(|source| abandon(&place.path, source))?;
        let adapter = Adapter::new(fs.clone(), (checked, options.export), awake, reports);
        let session = Session::from_fd(adapter, fd, SessionACL::All, options.config())
            .and_then(|session| {
                let (notifier, other) = (session.notifier(), session.notifier());
                let (device, kept_fs) = (place.device.clone(), Arc::downgrade(&fs));
                let kept = Kept { path: place.path.clone(), device, no_exec: options.no_exec };
                let duties = Duties {
                    log: log.clone(),
                    drop_pages: Box::new(move |ino| {
                        // Not known to the kernel any more: then nobody sees it.
                        let _ = other.inval_inode(fuser::INodeNo(ino), 0, 0);
                    }),
                    give_back: Box::new(move || {
                        let _ = kept_fs.upgrade().map(|fs| fs.give_back());
                    }),
                };
                keeper.start(kept, duties);
                fs.set_store(Box::new(move |ino, offset, data| {
                    // Not known to the kernel, or unmounted by now: then it is not needed.
                    let _ = notifier.store(fuser::INodeNo(ino), offset, data);
                }));
                serve(session, place.clone())
            })
            .map_err(|source| abandon(&place.path, source))?;
        // The conversation has begun. That nobody asks the file system from here is on purpose: who waits for an answer
        // of a process that is killed, and is that process, waits forever, and so does everybody else.
        let mount = Mount { place, session: Some(session) };
        if let Err(e) = mountpoint::raise_read_ahead(&mount.place.device, options.read_ahead_kib)
            && options.read_ahead_kib != DEFAULT_READ_AHEAD_KIB
        {
            log(LogLine::ReadAheadNotSet { reason: e.to_string() });
        }
        // Nobody waits for it: who looks into a snapshot before it is done waits there. Without a thread it is
        // read then.
        let _ = std::thread::Builder::new().name("vykar-index".into()).spawn(move || fs.load_index());
        Ok(mount)
    }

    /// Where it is, as the kernel knows it.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// The number of its device, `MAJOR:MINOR`, which no other mount has while this one is there.
    pub fn device(&self) -> &str {
        &self.place.device
    }

    /// Waits until it is unmounted and nobody uses it any more.
    ///
    /// # Errors
    /// What ended the conversation with the kernel, if that was not the unmount.
    pub fn wait(mut self) -> io::Result<()> {
        match self.session.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the file system's thread panicked")),
            None => Ok(()),
        }
    }

    /// What unmounts it, from any thread.
    pub fn unmounter(&self) -> Unmounter {
        Unmounter { place: self.place.clone() }
    }
}

/// Answers the kernel in threads of its own.
fn serve(session: Session<Adapter>, place: Arc<MountPlace>) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("vykar-mount".into()).spawn(move || {
        let result = session.run();
        // Held any longer, it would let those wait who ask a file system that does not answer.
        drop(place.connection.lock().take());
        result
    })
}

/// Takes away what was mounted and never answered.
fn abandon(path: &Path, source: io::Error) -> MountError {
    let _ = unmount::unmount_resolved(path, true);
    MountError::Session { source }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let unmounted = match self.place.unmount(false) {
            Ok(was_there) => was_there,
            Err(_) => {
                let _ = self.place.unmount(true);
                return;
            }
        };
        // One that somebody detached may be in use for as long as they like.
        let began = Instant::now();
        while !unmounted && !session.is_finished() {
            if began.elapsed() > DETACHED_FOR {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = session.join();
    }
}

impl MountPlace {
    /// False if it was gone already; what is there now is somebody else's.
    fn unmount(&self, lazy: bool) -> Result<bool, MountError> {
        unmount::patiently(&self.device, || match self.is_gone() {
            true => Ok(false),
            false => unmount::unmount_device(&self.path, &self.device, lazy),
        })
    }

    /// True when the kernel has taken it away. Its device number may be another mount's by now.
    fn is_gone(&self) -> bool {
        let connection = self.connection.lock();
        let Some(connection) = connection.as_ref() else { return true };
        let mut asked = [PollFd::new(connection, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Nothing but the end of the conversation is an error.
        rustix::event::poll(&mut asked, Some(&now)).is_ok() && asked[0].revents().contains(PollFlags::ERR)
    }
}

/// Unmounts a [`Mount`]. Clones are the same.
#[derive(Clone)]
pub struct Unmounter {
    place: Arc<MountPlace>,
}

impl Unmounter {
    /// Unmounts; when it is busy, the second request detaches it at once. Never touches a mount that
    /// somebody else put in the same place.
    ///
    /// # Errors
    /// [`MountError::Busy`] on the first request, or what the system says.
    pub fn unmount(&self) -> Result<(), MountError> {
        let again = self.place.asked.swap(true, Ordering::Relaxed);
        self.place.unmount(again).map(drop)
    }
}
