//! A directory on a local (or mounted) file system.
//!
//! A write goes to `.tmp-<random>` beside its final place, is synced, renamed (or hard-linked, when
//! it must be exclusive) and made durable by syncing the directory. A failed sync is never retried
//! on the same file: the kernel may have dropped the dirty pages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Backend, ObjectInfo, PutMode, check_key};
use crate::crypto::random;
use crate::error::StorageError;
use crate::id::SessionId;

/// Name prefix of unfinished writes.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

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

    fn write(&self, path: &Path, data: &[u8], mode: PutMode) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.root);
        let name = random::<16>().map_err(io::Error::other)?;
        let temporary = parent.join(format!("{TEMPORARY_PREFIX}{}", SessionId(name)));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let mut file = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_parents(parent)?;
                create()?
            }
            other => other?,
        };
        let written = file.write_all(data).and_then(|()| file.sync_all()).and_then(|()| match mode {
            PutMode::Replace => fs::rename(&temporary, path),
            PutMode::Exclusive => {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &temporary,
                    rustix::fs::CWD,
                    path,
                    rustix::fs::RenameFlags::NOREPLACE,
                )
                .or_else(|e| match e {
                    // File systems without RENAME_NOREPLACE: a hard link is exclusive as well.
                    rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => {
                        rustix::fs::link(&temporary, path).and_then(|()| rustix::fs::unlink(&temporary))
                    }
                    e => Err(e),
                })
                .map_err(io::Error::from)
            }
        });
        if let Err(e) = written {
            let _ = fs::remove_file(&temporary);
            return Err(e);
        }
        sync_dir(parent)
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
            // Into what is allocated and not yet used, which need not be zeroed first.
            out.reserve(len - out.len());
            let read = rustix::io::pread(&file, rustix::buffer::spare_capacity(out), at);
            match read.map_err(io::Error::from) {
                Ok(0) => return Err(short()),
                Ok(n) => at += n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("read", key, e)),
            }
        }
        // The capacity may be larger than what was asked for.
        out.truncate(len);
        Ok(())
    }

    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.write(&self.path(key)?, data, mode).map_err(|e| failed("write", key, e))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut found = Vec::new();
        self.list_into(&self.root.join(prefix), prefix, &mut found)?;
        Ok(found)
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
