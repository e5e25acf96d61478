//! Opaque bytes under keys.
//!
//! A back end promises little, so that an object store fits: whole-object writes that appear at once
//! or not at all, reads of whole objects or ranges, listing by prefix, deletion. There is no rename
//! and no append. What only a folder has is behind [`Backend::folder`].

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub(crate) mod disk;
pub(crate) mod folder;
pub mod local;
pub mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;

pub use local::LocalBackend;
pub use memory::MemoryBackend;
pub use throttle::Limits;

use std::path::Path;
use std::time::Duration;

use crate::error::StorageError;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What a write does when the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Replace what is there.
    Replace,
    /// Fail with [`StorageError::AlreadyExists`]; of several writers at once one wins, where [`Abilities::exclusive`]
    /// holds.
    Exclusive,
}

/// The beginning of an object, and what one request tells about all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its first bytes.
    pub data: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
    /// What changes with each write (an ETag), where the storage has such a thing.
    pub version: Option<String>,
}

/// What a storage can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// [`PutMode::Exclusive`] holds between writers at the same moment.
    pub exclusive: bool,
    /// Requests at a time that it answers faster than one after another.
    pub requests: usize,
}

/// Storage of a repository's objects. Keys are `/`-separated relative paths, see [`check_key`].
///
/// What has a body here is made of the rest, so that a back end, or one around another, that leaves something out does
/// not compile. [`contract`] is what each must do.
pub trait Backend: Send + Sync {
    /// Where this is, for messages and for remembering the repository's identity.
    fn url(&self) -> &str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Makes the place where a new repository is to be, with all folders above it. Nothing else makes
    /// it: one that is gone in the middle of something (an unmounted disk) must not appear again.
    fn prepare(&self) -> Result<(), StorageError>;

    /// A whole object, which must not be larger than `max` bytes.
    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError>;

    /// `len` bytes from `offset`; [`StorageError::Short`] when the object ends before. They replace what is in the
    /// buffer, which has room for them where the caller wants to save the allocation.
    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError>;

    /// The first `len` bytes of an object, or all of a shorter one, with its length and version, all of one moment.
    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError>;

    /// Writes a whole object, unless `still` says no, which is asked as late as the storage allows: when everything is
    /// durable and only the name is missing, where there is such a moment. Gives what it said. What takes long is so
    /// done before, and not between the question and the write that depends on it.
    ///
    /// When this returns the object is durable and visible in full; when it fails, the key is as it was, or holds the
    /// whole object.
    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError>;

    /// Begins an object that is written piece by piece.
    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError>;

    /// All objects whose key begins with `prefix`, a directory ending in `/` or empty for all, in no
    /// order. Unfinished writes are left out. An absent directory is empty.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError>;

    /// Removes an object durably; an absent one is fine.
    fn delete(&self, key: &str) -> Result<(), StorageError>;

    /// Removes objects as [`Backend::delete`] does, in no order, and names each that is gone to `deleted`, also when
    /// another one fails.
    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError>;

    /// An object's length in bytes.
    fn size(&self, key: &str) -> Result<u64, StorageError>;

    /// Unfinished writes to which nothing was added for so long, under names that [`Backend::remove_leftover`] takes.
    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError>;

    /// Removes an unfinished write; one that is gone is fine. Only where nobody is writing it.
    fn remove_leftover(&self, name: &str) -> Result<(), StorageError>;

    /// The folder, where the objects are files in one.
    fn folder(&self) -> Option<&dyn Folder>;

    /// [`Backend::get_range_into`] a new buffer.
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        let mut data = Vec::new();
        self.get_range_into(key, offset, len, &mut data)?;
        Ok(data)
    }

    /// [`Backend::put_if`] whatever else happened meanwhile.
    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.put_if(key, data, mode, &mut || true).map(drop)
    }

    /// True when there is an object under this key.
    fn exists(&self, key: &str) -> Result<bool, StorageError> {
        match self.size(key) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The folder that holds the objects, where they are files.
    fn local_path(&self) -> Option<&Path> {
        self.folder().map(Folder::path)
    }
}

/// What a storage has that is a folder of a file system.
pub trait Folder: Send + Sync {
    /// Where it is.
    fn path(&self) -> &Path;

    /// What has an object's name in a folder of it and is no file, such as a link or a device: no listing has it. Folders
    /// are among them, with a `/` at their end, and so are links that lead to one. The folder itself, where that is a link
    /// that leads nowhere or no folder.
    fn odd_entries(&self, folder: &str) -> Result<Vec<String>, StorageError>;

    /// True when a folder is not where its name says, but a link that leads out of this one.
    fn leads_out(&self, folder: &str) -> Result<bool, StorageError>;

    /// True when anything but these objects is here. Looks at one level only: a folder given by mistake may be somebody's
    /// whole home.
    fn holds_other_than(&self, keys: &[&str]) -> Result<bool, StorageError>;

    /// What this machine remembers of an object's content is dropped, as far as that can be done: it is read from the disk
    /// when it is read next. Only advice.
    fn drop_cached(&self, key: &str);

    /// Keeps this much room aside, in bytes, so that deleting works on a full disk. Best effort.
    fn keep_reserve(&self, bytes: u64);

    /// Gives up the room that is kept aside, or only where there is less than that beside it; true when that was done. For
    /// what deletes alone: a backup would use it up and still fail.
    fn spend_reserve(&self, only_where_short: bool) -> bool;
}

/// True when anything but these objects is in a storage, as in a folder that is somebody's already.
pub fn holds_other_than(backend: &dyn Backend, keys: &[&str]) -> Result<bool, StorageError> {
    match backend.folder() {
        Some(folder) => folder.holds_other_than(keys),
        None => Ok(backend.list("")?.iter().any(|object| !keys.contains(&object.key.as_str()))),
    }
}

/// [`Folder::drop_cached`], where there is one.
pub fn drop_cached(backend: &dyn Backend, key: &str) {
    if let Some(folder) = backend.folder() {
        folder.drop_cached(key);
    }
}

/// [`Backend::delete_many`] for a storage that removes one at a time.
pub(crate) fn delete_each(
    backend: &dyn Backend,
    keys: &[String],
    deleted: &mut dyn FnMut(&str),
) -> Result<(), StorageError> {
    for key in keys {
        backend.delete(key)?;
        deleted(key);
    }
    Ok(())
}

/// An object whose key is known when it is complete, as a pack's is, which is named by its content. Dropped
/// before it is finished, it leaves nothing.
pub trait Upload: Send {
    /// Appends bytes.
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError>;

    /// Reads bytes that were written, to fill `out`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError>;

    /// Puts the object under its key, replacing what is there; durable and visible in full when this returns, as
    /// after [`Backend::put`].
    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError>;
}

/// An [`Upload`] that keeps everything in memory and puts it whole.
pub struct Buffered<'b> {
    backend: &'b dyn Backend,
    data: Vec<u8>,
}

impl<'b> Buffered<'b> {
    /// Empty.
    pub fn new(backend: &'b dyn Backend) -> Self {
        Buffered { backend, data: Vec::new() }
    }
}

impl Upload for Buffered<'_> {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = from.saturating_add(out.len());
        let data = self.data.get(from..end);
        let short = || StorageError::Short { key: "an upload".to_owned(), end: end as u64 };
        out.copy_from_slice(data.ok_or_else(short)?);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError> {
        self.backend.put(key, &self.data, PutMode::Replace)
    }
}

/// Accepts `a/b/c` of ASCII letters, digits, `.`, `-` and `_`, no component empty or starting with a
/// dot, at most 255 bytes.
pub fn check_key(key: &str) -> Result<(), StorageError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    let component = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    if key.len() <= 255 && key.split('/').all(component) {
        return Ok(());
    }
    Err(StorageError::InvalidKey { key: key.to_owned() })
}

#[cfg(test)]
mod tests;
