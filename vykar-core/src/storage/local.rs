//! A directory on a local (or mounted) file system.
//!
//! A write goes to `.tmp-<random>` beside its final place, is synced, renamed (or hard-linked, when
//! it must be exclusive) and made durable by syncing the directory. A failed sync is never retried
//! on the same file: the kernel may have dropped the dirty pages. An upload's temporary file is in `packs/`, since
//! its place is not known before its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use super::{Backend, ObjectInfo, PutMode, Upload, check_key};
use crate::crypto::random;
use crate::error::StorageError;
use crate::id::SessionId;
use crate::platform::read::append_at;

/// Name prefix of unfinished writes.
pub const TEMPORARY_PREFIX: &str = ".tmp-";
/// An upload begins to go to the disk each time it has so many more bytes.
const FLUSH_EVERY: u64 = 8 << 20;

/// Objects as files below one directory.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    url: String,
}

impl LocalBackend {
    /// Over a directory, which need not exist before the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let url = root.display().to_string();
        LocalBackend { root, url }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &str) -> Result<PathBuf, StorageError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn open(&self, key: &str) -> Result<File, StorageError> {
        File::open(self.path(key)?).map_err(|e| failed("read", key, e))
    }

    /// Makes the directories between the repository's folder and an object, and syncs each one's parent.
    fn make_parents(&self, parent: &Path) -> io::Result<()> {
        if parent == self.root || !parent.starts_with(&self.root) {
            return match self.root.is_dir() {
                true => Ok(()),
                false => Err(io::Error::other("the repository's folder is gone")),
            };
        }
        match fs::create_dir(parent) {
            Ok(()) => sync_parent(parent),
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

    /// A fresh file in a folder of the repository, which is made when it is missing.
    fn temporary(&self, parent: &Path) -> io::Result<Temporary> {
        let name = random::<16>().map_err(io::Error::other)?;
        let path = parent.join(format!("{TEMPORARY_PREFIX}{}", SessionId(name)));
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                create()?
            }
            other => other?,
        };
        Ok(Temporary { path: Some(path), file })
    }

    fn write(&self, path: &Path, data: &[u8], mode: PutMode) -> io::Result<()> {
        let mut temporary = self.temporary(path.parent().unwrap_or(&self.root))?;
        temporary.file.write_all(data)?;
        self.publish(temporary, path, mode)
    }

    /// Makes a complete file durable and gives it its name.
    fn publish(&self, temporary: Temporary, path: &Path, mode: PutMode) -> io::Result<()> {
        temporary.file.sync_all()?;
        let parent = path.parent().unwrap_or(&self.root);
        match temporary.rename(path, mode) {
            Err((e, temporary)) if e.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                temporary.rename(path, mode).map_err(|(e, _)| e)?;
            }
            other => other.map_err(|(e, _)| e)?,
        }
        sync_dir(parent)
    }

    /// Unfinished writes below a directory, which is `depth` levels above the deepest objects.
    fn leftovers_into(&self, dir: &Path, depth: u32, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
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
                found.push(ObjectInfo { key: name.to_owned(), size: metadata.len() });
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
fn is_leftover(name: &str) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let random = file.strip_prefix(TEMPORARY_PREFIX);
    random.is_some_and(|random| random.parse::<SessionId>().is_ok())
        && (folder.is_empty() || check_key(folder).is_ok())
}

/// A file that has no key yet, removed when it is dropped before it gets one.
struct Temporary {
    /// `None` once it is renamed.
    path: Option<PathBuf>,
    file: File,
}

impl Temporary {
    fn rename(mut self, to: &Path, mode: PutMode) -> Result<(), (io::Error, Self)> {
        let Some(from) = self.path.take() else { return Ok(()) };
        let renamed = match mode {
            PutMode::Replace => fs::rename(&from, to),
            PutMode::Exclusive => rename_exclusively(&from, to),
        };
        renamed.map_err(|e| {
            self.path = Some(from);
            (e, self)
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags) {
        // File systems without RENAME_NOREPLACE: a hard link is exclusive as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        other => Ok(other?),
    }
}

/// An object being written to a temporary file.
struct LocalUpload<'b> {
    backend: &'b LocalBackend,
    temporary: Temporary,
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
        self.temporary.file.write_all(data).map_err(|e| failed("write", "packs/", e))?;
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
        backend.publish(temporary, &path, PutMode::Replace).map_err(|e| failed("write", key, e))?;
        let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(operation: &'static str, key: &str, source: io::Error) -> StorageError {
    let key = key.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StorageError::NotFound { key },
        io::ErrorKind::AlreadyExists => StorageError::AlreadyExists { key },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full { key, source },
        _ => StorageError::Io { operation, key, source },
    }
}

impl Backend for LocalBackend {
    fn url(&self) -> &str {
        &self.url
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn prepare(&self) -> Result<(), StorageError> {
        let made = fs::create_dir_all(&self.root).and_then(|()| sync_parent(&self.root));
        made.map_err(|source| StorageError::Io { operation: "make", key: self.url.clone(), source })
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        let file = self.open(key)?;
        let size = file.metadata().map_err(|e| failed("read", key, e))?.len();
        if size > max {
            return Err(StorageError::TooLarge { key: key.to_owned(), size, max });
        }
        let mut data = Vec::with_capacity(size as usize);
        file.take(max).read_to_end(&mut data).map_err(|e| failed("read", key, e))?;
        Ok(data)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        let mut data = Vec::new();
        self.get_range_into(key, offset, len, &mut data)?;
        Ok(data)
    }

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let file = self.open(key)?;
        let end = offset.saturating_add(len as u64);
        let short = || StorageError::Short { key: key.to_owned(), end };
        // Before allocating what a damaged index may ask for.
        if end > file.metadata().map_err(|e| failed("read", key, e))?.len() {
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

    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.write(&self.path(key)?, data, mode).map_err(|e| failed("write", key, e))
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

    fn leftovers(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut found = Vec::new();
        self.leftovers_into(&self.root, DEPTH, &mut found).map_err(|e| failed("list", ".", e))?;
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        if !is_leftover(name) {
            return Err(StorageError::InvalidKey { key: name.to_owned() });
        }
        match fs::remove_file(self.root.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| failed("delete", name, e)),
        }
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

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| failed("delete", key, e))?,
        }
        sync_dir(path.parent().unwrap_or(&self.root)).map_err(|e| failed("delete", key, e))
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        let metadata = fs::metadata(self.path(key)?).map_err(|e| failed("read", key, e))?;
        if !metadata.is_file() {
            return Err(StorageError::NotFound { key: key.to_owned() });
        }
        Ok(metadata.len())
    }
}
