//! A directory on a local (or mounted) file system.
//!
//! A write goes to `.tmp-<random>` beside its final place, is synced, renamed (or hard-linked, when it must be
//! exclusive) and made durable by syncing the directory, and once those above it. A failed sync is never retried on the
//! same file: the kernel may have dropped the dirty pages. An upload's temporary file is in `packs/`, since its place
//! is not known before its end.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Advice;

use super::disk::Disk;
use super::{Abilities, Backend, Folder, Head, ObjectInfo, PutMode, Upload, check_key, delete_each};
use crate::crypto::random;
use crate::error::StorageError;
use crate::id::SessionId;
use crate::platform::read::append_at;

/// Name prefix of unfinished writes.
pub const TEMPORARY_PREFIX: &str = ".tmp-";
/// A file whose blocks are given up when a small write finds no other room. Its name is no object's.
pub(super) const RESERVE: &str = ".tmp-reserve";
/// The reserve is made only where there is so many times as much room.
const ROOM_FOR_RESERVE: u64 = 8;
/// An upload begins to go to the disk each time it has so many more bytes.
const FLUSH_EVERY: u64 = 8 << 20;
/// Reads at a time that a disk answers well; a page cache needs none.
const REQUESTS: usize = 8;
/// Bytes that are copied at a time where an unfinished file was removed.
const COPY_BLOCK: usize = 1 << 20;

/// Objects as files below one directory.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    url: String,
    disk: Disk,
    /// See [`LocalBackend::group`].
    group: OnceLock<u32>,
    /// Directories whose own entries, up to the root, were made durable by this process: another one may have made
    /// them and been killed before it could.
    reachable: Mutex<HashSet<PathBuf>>,
}

impl LocalBackend {
    /// Over a directory, which need not exist before the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let url = root.display().to_string();
        LocalBackend { root, url, disk: Disk::default(), group: OnceLock::new(), reachable: Mutex::default() }
    }

    /// With what it does written down.
    #[cfg(test)]
    pub(crate) fn logging(root: impl Into<PathBuf>, log: std::sync::Arc<super::disk::log::DiskLog>) -> Self {
        LocalBackend { disk: Disk::logging(log), ..LocalBackend::new(root) }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &str) -> Result<PathBuf, StorageError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// Opens an object, and tells its length. What is no regular file is refused: opening a FIFO in its place must not
    /// wait for a writer that never comes.
    fn open(&self, key: &str) -> Result<(File, u64), StorageError> {
        let path = self.path(key)?;
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|e| failed("read", key, e))?;
        let metadata = file.metadata().map_err(|e| failed("read", key, e))?;
        match metadata.is_file() {
            true => Ok((file, metadata.len())),
            false => Err(failed("read", key, io::Error::other("not a regular file"))),
        }
    }

    /// What the group may do with new objects: what it may do with `config`, as somebody said who shares the
    /// repository. Everything is made for its owner alone otherwise, whatever the umask says.
    fn group(&self) -> u32 {
        *self.group.get_or_init(|| fs::metadata(self.root.join("config")).map_or(0, |c| c.mode() & 0o060))
    }

    /// Makes the directories between the repository's folder and an object.
    fn make_parents(&self, parent: &Path) -> io::Result<()> {
        if self.is_root(parent) {
            return match self.root.is_dir() {
                true => Ok(()),
                false => Err(io::Error::other("the repository's folder is gone")),
            };
        }
        match self.disk.make_dir(parent, self.group()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match parent.parent() {
                Some(above) => {
                    self.make_parents(above)?;
                    self.make_parents(parent)
                }
                None => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    fn is_root(&self, dir: &Path) -> bool {
        dir == self.root || !dir.starts_with(&self.root)
    }

    /// Makes durable that a directory is there, whoever made it, when this process has not done so yet.
    fn make_reachable(&self, dir: &Path) -> io::Result<()> {
        if self.is_root(dir) || self.reachable.lock().contains(dir) {
            return Ok(());
        }
        let above = dir.parent().unwrap_or(&self.root);
        self.make_reachable(above)?;
        self.disk.sync_dir(above)?;
        self.reachable.lock().insert(dir.to_owned());
        Ok(())
    }

    /// A fresh file in a folder of the repository, which is made when it is missing.
    fn temporary(&self, parent: &Path) -> io::Result<Temporary<'_>> {
        let name = random::<16>().map_err(io::Error::other)?;
        let path = parent.join(format!("{TEMPORARY_PREFIX}{}", SessionId(name)));
        let file = match self.disk.create(&path, self.group()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                self.disk.create(&path, self.group())?
            }
            other => other?,
        };
        Ok(Temporary { disk: &self.disk, path, named: false, file })
    }

    fn make_reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.root.join(RESERVE);
        let there = fs::symlink_metadata(&path).map_or(0, |there| there.len());
        if there >= bytes && there / 4 <= bytes {
            return Ok(());
        }
        let room = rustix::fs::statvfs(&self.root)?;
        if room.f_bavail.saturating_mul(room.f_frsize) / ROOM_FOR_RESERVE < bytes {
            return Ok(());
        }
        let _ = fs::remove_file(&path);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let kept = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
        // Where blocks cannot be had without writing them, there is none.
        kept.map_err(|e| {
            let _ = fs::remove_file(&path);
            e.into()
        })
    }

    /// Makes a file durable in all but its name, and asks then whether it is to get that.
    fn write(
        &self,
        path: &Path,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let temporary = self.temporary(path.parent().unwrap_or(&self.root))?;
        temporary.append(data)?;
        self.disk.sync(&temporary.path, &temporary.file)?;
        match still() {
            true => self.publish_again(temporary, path, mode).map(|()| true),
            false => Ok(false),
        }
    }

    /// Gives a complete file, which was synced, its name.
    fn publish(&self, mut temporary: Temporary<'_>, path: &Path, mode: PutMode) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.root);
        match temporary.rename(path, mode) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                temporary.rename(path, mode)?;
            }
            other => other?,
        }
        self.make_reachable(parent)?;
        self.disk.sync_dir(parent)
    }

    /// The same, and once more where another program has removed the unfinished file meanwhile: its bytes are still
    /// there, as long as it is open.
    fn publish_again(&self, temporary: Temporary<'_>, path: &Path, mode: PutMode) -> io::Result<()> {
        let file = temporary.file.try_clone()?;
        let source = temporary.path.clone();
        match self.publish(temporary, path, mode) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !source.exists() => {
                let copy = self.temporary(path.parent().unwrap_or(&self.root))?;
                let (mut at, mut block) = (0, Vec::with_capacity(COPY_BLOCK));
                while append_at(&file, at, COPY_BLOCK, &mut block)? > 0 {
                    copy.append(&block)?;
                    at += block.len() as u64;
                    block.clear();
                }
                self.disk.sync(&copy.path, &copy.file)?;
                self.publish(copy, path, mode)
            }
            other => other,
        }
    }

    /// Unfinished writes below a directory, which is `depth` levels above the deepest objects.
    fn leftovers_into(
        &self,
        dir: &Path,
        depth: u32,
        found: &mut Vec<(ObjectInfo, Duration)>,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let path = entry.path();
            if metadata.is_dir() && depth > 0 {
                self.leftovers_into(&path, depth - 1, found)?;
            }
            let name = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            if metadata.is_file()
                && let Some(name) = name.filter(|name| is_leftover(name))
            {
                // One from the future is young.
                let age = metadata.modified()?.elapsed().unwrap_or_default();
                found.push((ObjectInfo { key: name.to_owned(), size: metadata.len() }, age));
            }
        }
        Ok(())
    }

    fn list_into(&self, dir: &Path, key: &str, found: &mut Vec<ObjectInfo>) -> Result<(), StorageError> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| failed("list", key, e))?,
        };
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", key, e))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{key}{name}");
            if check_key(&key).is_err() {
                continue;
            }
            let metadata = match entry.metadata() {
                // Deleted since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| failed("list", &key, e))?,
            };
            if metadata.is_dir() {
                self.list_into(&entry.path(), &format!("{key}/"), found)?;
            } else if metadata.is_file() {
                found.push(ObjectInfo { key, size: metadata.len() });
            }
        }
        Ok(())
    }
}

/// Levels of folders in a repository: `packs/ab`.
const DEPTH: u32 = 2;

/// True for the name of an unfinished write, as this back end gives them.
pub(super) fn is_leftover(name: &str) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let random = file.strip_prefix(TEMPORARY_PREFIX);
    random.is_some_and(|random| random.parse::<SessionId>().is_ok())
        && (folder.is_empty() || check_key(folder).is_ok())
}

/// A file that has no key yet, removed when it is dropped before it gets one.
struct Temporary<'b> {
    disk: &'b Disk,
    path: PathBuf,
    named: bool,
    file: File,
}

impl Temporary<'_> {
    fn append(&self, data: &[u8]) -> io::Result<()> {
        self.disk.append(&self.path, &self.file, data)
    }

    fn rename(&mut self, to: &Path, mode: PutMode) -> io::Result<()> {
        self.disk.rename(&self.path, to, mode)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.named {
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// An object being written to a temporary file.
struct LocalUpload<'b> {
    backend: &'b LocalBackend,
    temporary: Temporary<'b>,
    written: u64,
    /// Up to here the system was told to write.
    flushed: u64,
}

impl LocalUpload<'_> {
    /// Starts writing what is not on the disk yet, so that syncing takes less time, and drops what is from the
    /// page cache: a backup must not push out what people work with.
    fn flush(&mut self) {
        let len = NonZeroU64::new(self.written - self.flushed);
        // Only advice: nothing depends on it.
        let _ = rustix::fs::fadvise(&self.temporary.file, self.flushed, len, Advice::DontNeed);
        self.flushed = self.written;
    }
}

impl Upload for LocalUpload<'_> {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.temporary.append(data).map_err(|e| failed("write", "packs/", e))?;
        self.written += data.len() as u64;
        if self.written - self.flushed >= FLUSH_EVERY {
            self.flush();
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        self.temporary.file.read_exact_at(out, offset).map_err(|e| failed("read", "packs/", e))
    }

    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError> {
        let path = self.backend.path(key)?;
        let LocalUpload { backend, temporary, .. } = *self;
        // Still open when it has its name.
        let file = temporary.file.try_clone().map_err(|e| failed("write", key, e))?;
        let published = backend
            .disk
            .sync(&temporary.path, &temporary.file)
            .and_then(|()| backend.publish_again(temporary, &path, PutMode::Replace));
        published.map_err(|e| failed("write", key, e))?;
        let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn failed(operation: &'static str, key: &str, source: io::Error) -> StorageError {
    let key = key.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StorageError::NotFound { key },
        io::ErrorKind::AlreadyExists => StorageError::AlreadyExists { key },
        io::ErrorKind::PermissionDenied => StorageError::Denied { operation, key, source },
        _ if is_full(&source) => StorageError::Full { key, source },
        _ => StorageError::Io { operation, key, source },
    }
}

impl Backend for LocalBackend {
    fn url(&self) -> &str {
        &self.url
    }

    fn abilities(&self) -> Abilities {
        Abilities { exclusive: true, requests: REQUESTS }
    }

    fn prepare(&self) -> Result<(), StorageError> {
        let above = self.root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        let made = make.and_then(|()| self.disk.sync_dir(above));
        made.map_err(|source| StorageError::Io { operation: "make", key: self.url.clone(), source })
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        let (file, size) = self.open(key)?;
        if size > max {
            return Err(StorageError::TooLarge { key: key.to_owned(), size, max });
        }
        let mut data = Vec::with_capacity(size as usize);
        file.take(max).read_to_end(&mut data).map_err(|e| failed("read", key, e))?;
        Ok(data)
    }

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let (file, size) = self.open(key)?;
        let end = offset.saturating_add(len as u64);
        let short = || StorageError::Short { key: key.to_owned(), end };
        // Before allocating what a damaged index may ask for.
        if end > size {
            return Err(short());
        }
        out.clear();
        let mut at = offset;
        while at < end {
            match append_at(&file, at, len - out.len(), out).map_err(|e| failed("read", key, e))? {
                0 => return Err(short()),
                n => at += n as u64,
            }
        }
        Ok(())
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        self.write(&self.path(key)?, data, mode, still).map_err(|e| failed("write", key, e))
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        let temporary = self.temporary(&self.root.join("packs")).map_err(|e| failed("write", "packs/", e))?;
        Ok(Box::new(LocalUpload { backend: self, temporary, written: 0, flushed: 0 }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut found = Vec::new();
        self.list_into(&self.root.join(prefix), prefix, &mut found)?;
        Ok(found)
    }

    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut found = Vec::new();
        self.leftovers_into(&self.root, DEPTH, &mut found).map_err(|e| failed("list", ".", e))?;
        let mut found: Vec<_> =
            found.into_iter().filter(|(_, age)| *age >= min_age).map(|(object, _)| object).collect();
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        if !is_leftover(name) {
            return Err(StorageError::InvalidKey { key: name.to_owned() });
        }
        match self.disk.remove(&self.root.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| failed("delete", name, e)),
        }
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        let path = self.path(key)?;
        let absent = match self.disk.remove(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            other => other.map(|()| false).map_err(|e| failed("delete", key, e))?,
        };
        // Also where it is gone already: the program that removed it may have been killed before that was durable.
        match self.disk.sync_dir(path.parent().unwrap_or(&self.root)) {
            Err(e) if absent && e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| failed("delete", key, e)),
        }
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        let metadata = fs::metadata(self.path(key)?).map_err(|e| failed("read", key, e))?;
        if !metadata.is_file() {
            return Err(StorageError::NotFound { key: key.to_owned() });
        }
        Ok(metadata.len())
    }

    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        delete_each(self, keys, deleted)
    }

    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError> {
        let (file, size) = self.open(key)?;
        let mut data = Vec::new();
        file.take(len as u64).read_to_end(&mut data).map_err(|e| failed("read", key, e))?;
        Ok(Head { data, size, version: None })
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

impl Folder for LocalBackend {
    fn path(&self) -> &Path {
        &self.root
    }

    fn odd_entries(&self, folder: &str) -> Result<Vec<String>, StorageError> {
        let dir = self.root.join(folder.trim_end_matches('/'));
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let is_there = fs::symlink_metadata(&dir).is_ok();
                return Ok(is_there.then(|| folder.to_owned()).into_iter().collect());
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(vec![folder.to_owned()]),
            other => other.map_err(|e| failed("list", folder, e))?,
        };
        let mut odd = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", folder, e))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{folder}{name}");
            let kind = match entry.file_type() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| failed("list", &key, e))?,
            };
            if kind.is_file() || check_key(&key).is_err() {
                continue;
            }
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            odd.push(if is_folder { key + "/" } else { key });
        }
        Ok(odd)
    }

    fn leads_out(&self, folder: &str) -> Result<bool, StorageError> {
        let real = |path: &Path| match fs::canonicalize(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(|e| failed("look at", folder, e)),
        };
        let (root, place) = (real(&self.root)?, real(&self.root.join(folder))?);
        Ok(place.is_some_and(|place| !root.is_some_and(|root| place.starts_with(root))))
    }

    /// Looks at one level only: a folder given by mistake may be someone's whole home.
    fn holds_other_than(&self, keys: &[&str]) -> Result<bool, StorageError> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(|e| failed("list", ".", e))?,
        };
        for entry in entries {
            let name = entry.map_err(|e| failed("list", ".", e))?.file_name();
            let name = name.to_string_lossy();
            let known = |key: &&str| key.split('/').next() == Some(&*name);
            if !keys.iter().any(known) && !name.starts_with(TEMPORARY_PREFIX) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drop_cached(&self, key: &str) {
        if let Ok((file, _)) = self.open(key) {
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
    }

    fn keep_reserve(&self, bytes: u64) {
        // Without it, deleting on a full disk needs room made elsewhere first.
        let _ = self.make_reserve(bytes);
    }

    fn spend_reserve(&self, only_where_short: bool) -> bool {
        let path = self.root.join(RESERVE);
        let Ok(reserve) = fs::symlink_metadata(&path) else { return false };
        let has_room =
            |disk: rustix::fs::StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize) >= reserve.len();
        if only_where_short && rustix::fs::statvfs(&self.root).is_ok_and(has_room) {
            return false;
        }
        fs::remove_file(&path).is_ok()
    }
}
