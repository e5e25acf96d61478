//! What was made, or looked at, by its handle: its owner, mode, times and attributes are set and read without a second
//! look at its name, where somebody may have put another thing meanwhile.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// A device and an inode number.
pub(super) type FileIdentity = (u64, u64);

/// Which thing this is.
#[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
pub(super) fn identity(found: &Stat) -> FileIdentity {
    (found.st_dev as u64, found.st_ino as u64)
}

/// File systems that give what is made an owner of their own choice: `linux/magic.h` and `statfs(2)`.
const OTHER_OWNERS: [u32; 11] = [
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x5346_544e, // NTFS
    0x7366_746e, // NTFS3
    0x6572_5546, // FUSE
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x517b,      // SMB
    0x0102_1997, // 9P
    0x4244,      // HFS
];

/// True when this process may have made what is there: it is its user's, where the file system keeps owners.
pub(super) fn may_be_mine(fd: impl AsFd, found: &Stat, uid: u32) -> bool {
    let other_owners = || rustix::fs::fstatfs(&fd).is_ok_and(|fs| OTHER_OWNERS.contains(&(fs.f_type as u32)));
    found.st_uid == uid || other_owners()
}

/// The path by which the system knows an open handle.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens a name for nothing but to know what it is, without following a symlink and without any effect on a device.
pub(super) fn look(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Gives an open file another name.
pub(super) fn link(file: impl AsFd, dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::linkat(&file, "", &dir, name, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10, only for who may read everything.
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            rustix::fs::linkat(CWD, proc_path(file), dir, name, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
}

/// Removes a name that was only needed for the moment, if it is there.
pub(super) fn remove(dir: impl AsFd, name: &[u8]) {
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
}

/// An open file or directory, or any other thing that was only looked at.
pub(super) struct Handle<'f> {
    fd: BorrowedFd<'f>,
    /// Of what was not opened: calls on its handle are refused, but not those on this name of it.
    path: Option<String>,
}

impl<'f> Handle<'f> {
    /// Of what is open.
    pub fn opened(fd: &'f impl AsFd) -> Self {
        Handle { fd: fd.as_fd(), path: None }
    }

    /// Of what [`look`] gave.
    pub fn looked_at(fd: &'f impl AsFd) -> Self {
        Handle { fd: fd.as_fd(), path: Some(proc_path(fd)) }
    }

    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(self.fd)
    }

    pub fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
        match &self.path {
            None => rustix::fs::fchown(self.fd, uid, gid),
            Some(_) => rustix::fs::chownat(self.fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    pub fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        match &self.path {
            None => rustix::fs::fchmod(self.fd, Mode::from_raw_mode(mode)),
            Some(path) => rustix::fs::chmod(path, Mode::from_raw_mode(mode)),
        }
    }

    pub fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        match &self.path {
            None => rustix::fs::futimens(self.fd, times),
            Some(path) => rustix::fs::utimensat(CWD, path, times, AtFlags::empty()),
        }
    }

    pub fn set_attribute(&self, name: &str, value: &[u8]) -> Result<(), Errno> {
        match &self.path {
            None => rustix::fs::fsetxattr(self.fd, name, value, XattrFlags::empty()),
            Some(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    pub fn remove_attribute(&self, name: &[u8]) -> Result<(), Errno> {
        match &self.path {
            None => rustix::fs::fremovexattr(self.fd, name),
            Some(path) => rustix::fs::removexattr(path, name),
        }
    }

    /// True when it has an attribute of this name, as far as this process sees.
    pub fn has_attribute(&self, name: &str) -> bool {
        let mut nothing = [0u8; 0];
        match &self.path {
            None => rustix::fs::fgetxattr(self.fd, name, &mut nothing[..]),
            Some(path) => rustix::fs::getxattr(path, name, &mut nothing[..]),
        }
        .is_ok()
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        fill(|buffer| match &self.path {
            None => rustix::fs::fgetxattr(self.fd, name, buffer),
            Some(path) => rustix::fs::getxattr(path, name, buffer),
        })
    }

    /// The names of all attributes; none where the file system has none.
    pub fn attributes(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let list = fill(|buffer| match &self.path {
            None => rustix::fs::flistxattr(self.fd, buffer),
            Some(path) => rustix::fs::listxattr(path, buffer),
        });
        match list {
            Ok(list) => Ok(list.split(|c| *c == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()),
            Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Calls a function that fills a buffer, with the largest there can be where a small one is not enough.
fn fill(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0u8; 256];
    match call(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; 64 << 10];
    let len = call(&mut large)?;
    large.truncate(len);
    Ok(large)
}
