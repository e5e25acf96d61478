//! FUSE requests to calls of [`Fs`] and back. Translation only.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::errno::FsError;
use crate::fs::{Attr, BLOCK, Fs, LookupEntry, Seek};
use crate::session::caller::may_read_trusted;
use crate::session::cpu_latency::Awake;
use crate::session::keeper::Reports;
use crate::tree::NAME_MAX;
use crate::view::attr_mapping::ACL_PREFIX;

/// Inode numbers are never given out twice.
const GENERATION: Generation = Generation(0);
/// Reads that the kernel may have under way in the background.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for where it knows it.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_MAX_PAGES,
];

/// The adapter.
pub(crate) struct Adapter {
    fs: Arc<Fs>,
    /// The kernel checks permissions, so it must know access control lists: without them the mode's
    /// group bits are their mask, which allows too much.
    checked: bool,
    /// File handles may be made. They are not offered unasked: what keeps one, as overlayfs does, expects it to hold
    /// when this is mounted again, and the kernel cannot look one up then before the way to it was walked.
    export: bool,
    no_open: bool,
    no_opendir: bool,
    awake: Option<Awake>,
    reports: Reports,
}

impl Adapter {
    pub(crate) fn new(
        fs: Arc<Fs>,
        (checked, export): (bool, bool),
        awake: Option<Awake>,
        reports: Reports,
    ) -> Self {
        Adapter { fs, checked, export, no_open: false, no_opendir: false, awake, reports }
    }

    /// The file system, for a request that somebody waits for.
    fn fs(&self) -> &Fs {
        if let Some(awake) = &self.awake {
            awake.tick();
        }
        self.reports.asked();
        &self.fs
    }
}

fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    // 64 bits of nanoseconds are less than 300 years.
    time.unwrap_or(UNIX_EPOCH)
}

fn file_type(kind: u32) -> FileType {
    match kind {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    let meta = &attr.meta;
    FileAttr {
        ino: INodeNo(attr.ino),
        size: if meta.rdev() == 0 { meta.size } else { 0 },
        blocks: attr.blocks,
        atime: time(meta.atime),
        mtime: time(meta.mtime),
        ctime: time(meta.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(meta.kind()),
        perm: meta.mode & 0o7777,
        nlink: attr.nlink,
        uid: meta.uid,
        gid: meta.gid,
        rdev: kernel_device(meta.rdev()),
        blksize: BLOCK,
        flags: 0,
    }
}

/// A device's number as the kernel packs it into 32 bits (`new_encode_dev` in its `kdev_t.h`).
fn kernel_device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// An entry with inode 0: the kernel remembers that there is nothing.
fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn reply_xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Err(e) => reply.error(e.into()),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            Ok(_) | Err(_) => reply.error(FsError::BufferTooSmall.into()),
        },
    }
}

#[allow(clippy::too_many_arguments)]
impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // An older kernel does without.
            let _ = config.add_capabilities(flag);
        }
        if self.checked {
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        if self.export {
            let _ = config.add_capabilities(InitFlags::FUSE_EXPORT_SUPPORT);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let known = config.capabilities();
        self.no_open = known.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        // Folders that change are then cached as well, so the kernel must compare their times.
        let compared = InitFlags::FUSE_NO_OPENDIR_SUPPORT | InitFlags::FUSE_AUTO_INVAL_DATA;
        self.no_opendir = known.contains(compared);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs().lookup(parent.0, name.as_bytes()) {
            Ok(LookupEntry::Found(attr, ttl)) => reply.entry(&ttl, &file_attr(&attr), GENERATION),
            Ok(LookupEntry::Absent(ttl)) => reply.entry(&ttl, &nothing(), GENERATION),
            Err(e) => reply.error(e.into()),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.fs().getattr(ino.0) {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
            Err(e) => reply.error(e.into()),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs().readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(e.into()),
        }
    }

    /// Not implemented on purpose where the kernel knows that: it sends no more of them then, nor
    /// their releases, and keeps what it has cached.
    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.fs().read(ino.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(e.into()),
        }
    }

    /// Not implemented: the kernel stops asking.
    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// Not implemented: the kernel stops asking.
    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// Not implemented: the kernel stops asking.
    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// Not implemented on purpose where the kernel knows that: it sends no more of them then, nor their
    /// releases. It keeps the listing of every directory, and reads it again when its time has changed.
    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            return reply.error(Errno::ENOSYS);
        }
        let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), if Fs::changes(ino.0) { FopenFlags::empty() } else { keep });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let done = self.fs().readdir(ino.0, offset, &mut |child, next| {
            let kind = file_type(child.attr.meta.kind());
            reply.add(INodeNo(child.attr.ino), next, kind, OsStr::from_bytes(child.name))
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e.into()),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let done = self.fs().readdir(ino.0, offset, &mut |child, next| {
            let (number, name) = (INodeNo(child.attr.ino), OsStr::from_bytes(child.name));
            reply.add(number, next, name, &child.ttl, &file_attr(&child.attr), GENERATION)
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e.into()),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let stat = self.fs().statfs();
        reply.statfs(stat.blocks, 0, 0, stat.files, 0, BLOCK, NAME_MAX as u32, BLOCK);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.fs().getxattr(ino.0, name.as_bytes());
        let is_list = self.checked && name.as_bytes().starts_with(ACL_PREFIX);
        match value {
            // A list that the kernel has no room for (a page). Were it told so, it would let nobody open the file,
            // not even root. Now it lets in whom it need not look up in the list.
            Ok(list) if is_list && size > 0 && list.len() > size as usize => reply.error(Errno::EACCES),
            value => reply_xattr(value, size, reply),
        }
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.fs().listxattr(ino.0, || may_read_trusted(req.pid()));
        reply_xattr(names, size, reply);
    }

    /// Asked only where the kernel does not check permissions itself: then who mounted may read everything, and
    /// run what anybody may run.
    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) {
            return reply.error(Errno::EROFS);
        }
        match mask.contains(AccessFlags::X_OK).then(|| self.fs().may_execute(ino.0)) {
            None | Some(Ok(true)) => reply.ok(),
            Some(Ok(false)) => reply.error(Errno::EACCES),
            Some(Err(e)) => reply.error(e.into()),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let whence = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        match self.fs().seek(ino.0, offset, whence).map(i64::try_from) {
            Ok(Ok(found)) => reply.offset(found),
            Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
            Err(e) => reply.error(e.into()),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // The mount is read-only, so the kernel refuses what follows without asking. Were it ever remounted,
    // the answer stays.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _newparent: INodeNo, _newname: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
        self.reports.written(ino.0);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch() {
        let before = UNIX_EPOCH - Duration::new(1, 500_000_000);
        assert_eq!(time(-1_500_000_000), before);
        assert_eq!(time(1), UNIX_EPOCH + Duration::from_nanos(1));
        for extreme in [i64::MIN, i64::MAX] {
            assert_ne!(time(extreme), UNIX_EPOCH);
        }
    }
}
