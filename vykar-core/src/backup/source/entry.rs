//! What the source file system says about an entry.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::format::item::Xattrs;
use crate::format::{Item, ItemType};

/// The part of `struct stat` that a backup uses; times in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: FileType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub atime: i64,
    pub ctime: i64,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// The number of a device node.
    pub rdev: u64,
}

impl Stat {
    /// Of an open file.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(&rustix::fs::fstat(fd)?))
    }

    /// Of a name in a directory, symlinks not followed.
    pub fn at(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        Ok(Self::from(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// True when nothing suggests that the content changed between the two.
    pub fn same_content(&self, other: &Stat) -> bool {
        let key = |s: &Stat| (s.dev, s.ino, s.size, s.mtime, s.ctime);
        key(self) == key(other)
    }

    /// True when the file occupies less than its size.
    pub fn has_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

impl Stat {
    /// True where the modification time is one that a snapshot cannot hold.
    pub fn is_time_cut(&self) -> bool {
        matches!(self.mtime, i64::MIN | i64::MAX)
    }
}

impl From<&rustix::fs::Stat> for Stat {
    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    fn from(s: &rustix::fs::Stat) -> Self {
        let nanos = |sec: i64, nsec: i64| sec.saturating_mul(1_000_000_000).saturating_add(nsec);
        Stat {
            kind: FileType::from_raw_mode(s.st_mode),
            mode: s.st_mode as u32,
            uid: s.st_uid,
            gid: s.st_gid,
            size: u64::try_from(s.st_size).unwrap_or(0),
            mtime: nanos(s.st_mtime as i64, s.st_mtime_nsec as i64),
            atime: nanos(s.st_atime as i64, s.st_atime_nsec as i64),
            ctime: nanos(s.st_ctime as i64, s.st_ctime_nsec as i64),
            dev: s.st_dev as u64,
            ino: s.st_ino as u64,
            nlink: s.st_nlink as u64,
            blocks: u64::try_from(s.st_blocks).unwrap_or(0),
            rdev: s.st_rdev as u64,
        }
    }
}

/// Where something is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spot {
    dev: u64,
    /// Known since Linux 5.8. What is mounted twice has two.
    mount: Option<u64>,
}

impl Spot {
    /// Of an open directory.
    pub fn of(dir: impl AsFd) -> io::Result<Self> {
        Self::ask(dir, c"", AtFlags::EMPTY_PATH)
    }

    /// Of a name in a directory. The file system that is mounted there is not asked, so that one answers too which is
    /// dead, or another user's.
    pub fn at(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        Self::ask(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
    }

    fn ask(dir: impl AsFd, name: &CStr, flags: AtFlags) -> io::Result<Self> {
        let found = rustix::fs::statx(dir, name, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
        let mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        Ok(Spot {
            dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            mount: mount.then_some(found.stx_mnt_id),
        })
    }

    /// The device.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// True when the two are known to be on different mounts, be it of one device.
    pub fn is_other_mount(&self, other: &Spot) -> bool {
        self.mount.zip(other.mount).is_some_and(|(one, two)| one != two)
    }
}

/// User and group names, looked up once each.
#[derive(Default)]
pub struct Names {
    users: RwLock<HashMap<u32, Option<Arc<str>>>>,
    groups: RwLock<HashMap<u32, Option<Arc<str>>>>,
}

impl Names {
    fn cached(
        map: &RwLock<HashMap<u32, Option<Arc<str>>>>,
        id: u32,
        look_up: impl FnOnce() -> Option<String>,
    ) -> Option<Arc<str>> {
        if let Some(name) = map.read().get(&id) {
            return name.clone();
        }
        let name = look_up().map(Arc::from);
        map.write().insert(id, name.clone());
        name
    }

    /// The user's name.
    pub fn user(&self, uid: u32) -> Option<Arc<str>> {
        let look_up = || nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|u| u.name);
        Self::cached(&self.users, uid, look_up)
    }

    /// The group's name.
    pub fn group(&self, gid: u32) -> Option<Arc<str>> {
        let look_up = || nix::unistd::Group::from_gid(gid.into()).ok().flatten().map(|g| g.name);
        Self::cached(&self.groups, gid, look_up)
    }
}

/// Extended attributes as they are stored: sorted, `None` when there are none.
pub type OwnedXattrs = Option<Xattrs<'static>>;

/// What could be read, and why that is not everything.
pub type XattrResult = (OwnedXattrs, Option<io::Error>);

/// Attributes of an open file or directory.
pub fn xattrs_of(fd: impl AsFd) -> XattrResult {
    let fd = fd.as_fd();
    collect_xattrs(|buf| rustix::fs::flistxattr(fd, buf), |name, buf| rustix::fs::fgetxattr(fd, name, buf))
}

/// Attributes of a name in a directory, symlinks not followed.
pub fn xattrs_at(dir: &OwnedFd, name: &CStr) -> XattrResult {
    // There is no call by directory handle before Linux 6.13; the handle's name in /proc is one.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = path.as_slice();
    collect_xattrs(
        |buf| rustix::fs::llistxattr(path, buf),
        |name, buf| rustix::fs::lgetxattr(path, name, buf),
    )
}

/// Attributes of a path, symlinks followed.
pub fn xattrs_of_path(path: &[u8]) -> XattrResult {
    collect_xattrs(|buf| rustix::fs::listxattr(path, buf), |name, buf| rustix::fs::getxattr(path, name, buf))
}

fn collect_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> XattrResult {
    let names = match fill(&list) {
        Err(Errno::NOTSUP | Errno::NOSYS) => return (None, None),
        Err(e) => return (None, Some(e.into())),
        Ok(names) => names,
    };
    let mut found: Xattrs<'static> = Vec::new();
    let mut failure = None;
    for name in names.split(|c| *c == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else {
            let shown = String::from_utf8_lossy(name);
            failure = Some(io::Error::other(format!("the name {shown:?} is not UTF-8")));
            continue;
        };
        match fill(|buf| get(name, buf)) {
            // Removed since it was listed, or listed for others only.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(e) => failure = Some(e.into()),
            Ok(value) => found.push((Cow::Owned(text.to_owned()), Cow::Owned(value))),
        }
    }
    found.sort();
    ((!found.is_empty()).then_some(found), failure)
}

/// Calls a function that fills a buffer, with a larger one when it was too small.
fn fill(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut stack = [0u8; 512];
    match call(&mut stack) {
        Ok(n) => return Ok(stack[..n].to_vec()),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    // 64 KiB is the kernel's bound for values and lists alike.
    let mut buf = vec![0u8; 64 << 10];
    let n = call(&mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

/// Opens a regular file for reading without touching its access time where that is allowed.
pub fn open_file(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    // NONBLOCK: what was a file when it was listed may be a FIFO by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    };
    match opened {
        Err(Errno::AGAIN) => open_leased(dir, name),
        other => Ok(other?),
    }
}

/// Opens a file that somebody holds a lease on (a Samba server, for instance), waiting until the
/// kernel has taken the lease back.
fn open_leased(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(dir, name, path, Mode::empty())?;
    if Stat::of(&handle)?.kind != FileType::RegularFile {
        return Err(io::Error::other("was replaced by something else while the backup ran"));
    }
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory in a directory.
pub fn open_dir(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// Everything of an item but its content.
pub fn item<'a>(path: &'a [u8], stat: &Stat, names: &Names, xattrs: OwnedXattrs) -> Item<'a> {
    let kind = match stat.kind {
        FileType::Directory => ItemType::Directory,
        FileType::Symlink => ItemType::Symlink,
        FileType::Fifo => ItemType::Fifo,
        FileType::Socket => ItemType::Socket,
        FileType::CharacterDevice => ItemType::CharDevice,
        FileType::BlockDevice => ItemType::BlockDevice,
        _ => ItemType::RegularFile,
    };
    let owned = |name: Arc<str>| Cow::Owned(name.to_string());
    let mut item = Item {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        user: names.user(stat.uid).map(owned),
        group: names.group(stat.gid).map(owned),
        mtime: stat.mtime,
        atime: Some(stat.atime),
        ctime: Some(stat.ctime),
        size: stat.size,
        xattrs,
        rdev: match kind {
            ItemType::CharDevice | ItemType::BlockDevice => stat.rdev,
            _ => 0,
        },
        hardlink: (kind == ItemType::RegularFile && stat.nlink > 1).then_some((stat.dev, stat.ino)),
        ..Item::new("", kind)
    };
    item.set_names(Cow::Borrowed(path), None);
    item
}
