//! Opaque bytes under keys.
//!
//! A backend promises little, so that an object store fits: whole-object writes that appear at once
//! or not at all, reads of whole objects or ranges, listing by prefix, deletion. There is no rename
//! and no append.

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod folder;
#[cfg(test)]
pub(crate) mod hooked;
pub mod local;
pub mod memory;
pub mod throttle;

pub use local::LocalBackend;
pub use memory::MemoryBackend;
pub use throttle::Limits;

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
    /// Fail with [`StorageError::AlreadyExists`]; of several writers at once one wins.
    Exclusive,
}

/// Storage of a repository's objects. Keys are `/`-separated relative paths, see [`check_key`].
pub trait Backend: Send + Sync {
    /// Where this is, for messages and for remembering the repository's identity.
    fn url(&self) -> &str;

    /// The folder that holds the objects, where they are files.
    fn local_path(&self) -> Option<&std::path::Path> {
        None
    }

    /// Makes the place where a new repository is to be, with all folders above it. Nothing else makes
    /// it: one that is gone in the middle of something (an unmounted disk) must not appear anew.
    fn prepare(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// A whole object, which must not be larger than `max` bytes.
    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError>;

    /// `len` bytes from `offset`; [`StorageError::Short`] when the object ends before.
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError>;

    /// The same into a buffer, whose contents are replaced; it has room for them where the caller wants to
    /// save the allocation.
    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        *out = self.get_range(key, offset, len)?;
        Ok(())
    }

    /// What this machine remembers of an object's content is dropped, as far as that can be done: it is read from where it
    /// is stored when it is read next. Only advice.
    fn drop_cached(&self, key: &str) {
        let _ = key;
    }

    /// Writes a whole object. When this returns the object is durable and visible in full; when it
    /// fails, the key is as it was, or holds the whole object.
    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError>;

    /// Writes a whole object as [`Backend::put`] does, unless `still` says no, which is asked as late as the storage
    /// allows: when everything is durable and only the name is missing, where there is such a moment. Gives what it
    /// said. What takes long is so done before, and not between the question and the write that depends on it.
    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        match still() {
            true => self.put(key, data, mode).map(|()| true),
            false => Ok(false),
        }
    }

    /// Begins an object that is written piece by piece.
    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError>;

    /// All objects whose key begins with `prefix`, a directory ending in `/` or empty for all, in no
    /// order. Unfinished writes are left out. An absent directory is empty.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError>;

    /// What has an object's name in a folder and is no file, such as a link or a device: no listing has it. Folders are
    /// among them, with a `/` at their end, and so are links that lead to one. The folder itself, where that is a link that
    /// leads nowhere or no folder. None where the storage has no such thing.
    fn odd_entries(&self, folder: &str) -> Result<Vec<String>, StorageError> {
        let _ = folder;
        Ok(Vec::new())
    }

    /// True when a folder is not where its name says, but a link that leads out of the storage.
    fn leads_out(&self, folder: &str) -> Result<bool, StorageError> {
        let _ = folder;
        Ok(false)
    }

    /// Removes an object durably; an absent one is fine.
    fn delete(&self, key: &str) -> Result<(), StorageError>;

    /// An object's length in bytes.
    fn size(&self, key: &str) -> Result<u64, StorageError>;

    /// Unfinished writes to which nothing was added for so long, under names that [`Backend::remove_leftover`] takes.
    /// None where the storage has no such thing.
    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        let _ = min_age;
        Ok(Vec::new())
    }

    /// Removes an unfinished write; one that is gone is fine. Only for who knows that nobody is writing.
    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        Err(StorageError::InvalidKey { key: name.to_owned() })
    }

    /// Keeps so many bytes of room aside, so that deleting works on a full disk. Best effort; nothing where the storage
    /// has no such thing.
    fn keep_reserve(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Gives up the room that is kept aside, or only where there is less than that beside it; true when that was done. For
    /// what deletes alone: a backup would use it up and still fail.
    fn spend_reserve(&self, only_where_short: bool) -> bool {
        let _ = only_where_short;
        false
    }

    /// True when anything but these objects is here, as in a folder that is somebody's already.
    fn holds_other_than(&self, keys: &[&str]) -> Result<bool, StorageError> {
        Ok(self.list("")?.iter().any(|object| !keys.contains(&object.key.as_str())))
    }

    /// True when there is an object under this key.
    fn exists(&self, key: &str) -> Result<bool, StorageError> {
        match self.size(key) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
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
mod tests {
    use super::disk::log::{Entry, Log, Model, Survives};
    use super::*;

    /// What every backend must do.
    fn contract(b: &dyn Backend) {
        assert!(matches!(b.get("config", 10), Err(StorageError::NotFound { .. })));
        assert!(matches!(b.size("config"), Err(StorageError::NotFound { .. })));
        assert!(matches!(b.get_range("packs/00/x", 0, 1), Err(StorageError::NotFound { .. })));
        assert_eq!(b.list("snapshots/").unwrap(), []);
        b.put("config", b"one", PutMode::Exclusive).unwrap();
        assert!(matches!(
            b.put("config", b"two", PutMode::Exclusive),
            Err(StorageError::AlreadyExists { .. })
        ));
        assert_eq!(b.get("config", 3).unwrap(), b"one");
        assert!(matches!(b.get("config", 2), Err(StorageError::TooLarge { size: 3, max: 2, .. })));
        b.put("config", b"three", PutMode::Replace).unwrap();
        assert_eq!(b.get("config", 10).unwrap(), b"three");
        assert_eq!(b.get_range("config", 1, 3).unwrap(), b"hre");
        assert_eq!(b.get_range("config", 5, 0).unwrap(), b"");
        let mut reused = b"longer than that".to_vec();
        b.get_range_into("config", 1, 3, &mut reused).unwrap();
        assert_eq!(reused, b"hre");
        assert!(matches!(b.get_range("config", 3, 3), Err(StorageError::Short { end: 6, .. })));
        assert!(matches!(b.get_range("config", u64::MAX, 3), Err(StorageError::Short { .. })));
        let mut asked = 0;
        for still in [false, true] {
            for (key, mode) in [("config", PutMode::Replace), ("index", PutMode::Exclusive)] {
                let mut answer = || {
                    asked += 1;
                    assert_eq!(b.get("config", 10).unwrap(), b"three", "not yet");
                    assert!(!b.exists("index").unwrap());
                    still
                };
                assert_eq!(b.put_if(key, b"three", mode, &mut answer).unwrap(), still);
            }
        }
        assert_eq!((asked, b.get("index", 10).unwrap()), (4, b"three".to_vec()));
        b.delete("index").unwrap();
        b.put("packs/ab/abcd", b"", PutMode::Replace).unwrap();
        let info = |key: &str, size| ObjectInfo { key: key.into(), size };
        assert_eq!(b.list("packs/").unwrap(), [info("packs/ab/abcd", 0)]);
        let mut all = b.list("").unwrap();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(all, [info("config", 5), info("packs/ab/abcd", 0)]);
        b.delete("packs/ab/abcd").unwrap();
        for pieces in [&[b"one".as_slice(), b"", b"two"][..], &[], &[&[7; 10_000_000]]] {
            let mut upload = b.upload().unwrap();
            pieces.iter().for_each(|piece| upload.write(piece).unwrap());
            assert_eq!(b.list("packs/").unwrap().len(), usize::from(b.exists("packs/cd/cdef").unwrap()));
            let all = pieces.concat();
            let mut back = vec![9; all.len() / 2];
            upload.read_at((all.len() - back.len()) as u64, &mut back).unwrap();
            assert!(all.ends_with(&back) && upload.read_at(all.len() as u64, &mut [0]).is_err());
            upload.finish("packs/cd/cdef").unwrap();
            assert_eq!(b.get("packs/cd/cdef", 1 << 30).unwrap(), pieces.concat());
        }
        assert!(matches!(b.upload().unwrap().finish("../a"), Err(StorageError::InvalidKey { .. })));
        b.upload().unwrap().write(b"never finished").unwrap();
        assert_eq!(b.list("packs/").unwrap().len(), 1);
        assert!(b.holds_other_than(&["config"]).unwrap());
        assert!(b.exists("config").unwrap() && !b.exists("nope").unwrap());
        b.delete("config").unwrap();
        b.delete("config").unwrap();
        assert!(!b.exists("config").unwrap());
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".tmp-1", "a b", "a\0", "é"] {
            assert!(matches!(b.get(bad, 1), Err(StorageError::InvalidKey { .. })), "{bad:?}");
            assert!(
                matches!(b.put(bad, b"", PutMode::Replace), Err(StorageError::InvalidKey { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn memory_keeps_the_contract() {
        contract(&MemoryBackend::new());
    }

    #[test]
    fn throttled_keeps_the_contract() {
        contract(&throttle::tests::throttled(MemoryBackend::new()));
    }

    #[test]
    fn local_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        contract(&LocalBackend::new(dir.path()));
    }

    #[test]
    fn local_asks_when_only_the_name_is_missing_and_leaves_nothing_when_it_must_not_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let b = LocalBackend::new(dir.path());
        let unfinished = || b.leftovers(Duration::ZERO).unwrap();
        let mut stop = || {
            assert_eq!(unfinished()[0].size, 5, "all of it is there");
            false
        };
        assert!(!b.put_if("index", b"whole", PutMode::Replace, &mut stop).unwrap());
        assert!(unfinished().is_empty() && !b.exists("index").unwrap());
    }

    #[test]
    fn an_upload_whose_unfinished_file_was_removed_is_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let b = LocalBackend::new(dir.path());
        let mut upload = b.upload().unwrap();
        let data = vec![5; (1 << 20) + 7];
        upload.write(&data).unwrap();
        for (left, _) in b.leftovers(Duration::ZERO).unwrap().into_iter().map(|info| (info.key, info.size)) {
            std::fs::remove_file(dir.path().join(left)).unwrap();
        }
        upload.finish("packs/ab/abcd").unwrap();
        assert_eq!(b.get("packs/ab/abcd", 2 << 20).unwrap(), data);
        assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
    }

    #[test]
    fn the_folder_itself_is_made_only_for_a_new_repository() {
        let dir = tempfile::tempdir().unwrap();
        let b = LocalBackend::new(dir.path().join("above/repo"));
        let error = b.put("packs/ab/x", b"", PutMode::Exclusive).unwrap_err();
        assert!(error.to_string().contains("folder is gone"), "{error}");
        assert!(!dir.path().join("above").exists());
        b.prepare().unwrap();
        b.put("packs/ab/x", b"", PutMode::Exclusive).unwrap();
        std::fs::remove_dir_all(dir.path().join("above/repo")).unwrap();
        assert!(b.put("packs/ab/x", b"", PutMode::Replace).is_err());
        assert!(!dir.path().join("above/repo").exists());
    }

    #[test]
    fn unfinished_writes_are_found_and_removed_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let b = LocalBackend::new(dir.path());
        assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
        b.put("packs/ab/abcd", b"x", PutMode::Replace).unwrap();
        let name = |folder: &str| format!("{folder}.tmp-{}", "0f".repeat(16));
        let left = ["", "packs/", "packs/ab/"].map(name);
        for name in &left {
            std::fs::write(dir.path().join(name), b"half").unwrap();
        }
        for other in [".tmp-mine", "packs/.temporary"] {
            std::fs::write(dir.path().join(other), b"").unwrap();
        }
        let found: Vec<_> =
            b.leftovers(Duration::ZERO).unwrap().into_iter().map(|info| (info.key, info.size)).collect();
        let mut expected = left.clone().map(|name| (name, 4));
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(b.leftovers(Duration::from_secs(3600)).unwrap(), []);
        let hours_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
        std::fs::File::options()
            .write(true)
            .open(dir.path().join(&left[1]))
            .unwrap()
            .set_modified(hours_ago)
            .unwrap();
        assert_eq!(b.leftovers(Duration::from_secs(3600)).unwrap()[0].key, left[1]);
        for bad in ["packs/ab/abcd", "../.tmp-0f", ".tmp-mine", &format!("../{}", left[0])] {
            assert!(matches!(b.remove_leftover(bad), Err(StorageError::InvalidKey { .. })), "{bad}");
        }
        for name in &left {
            b.remove_leftover(name).unwrap();
            b.remove_leftover(name).unwrap();
        }
        assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
        assert!(b.exists("packs/ab/abcd").unwrap() && dir.path().join(".tmp-mine").exists());
    }

    #[test]
    fn a_deletion_is_durable_also_where_another_program_was_killed_in_the_middle_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, left) = (dir.path().join("repo"), dir.path().join("left"));
        let log = std::sync::Arc::new(Log::default());
        let b = LocalBackend::logging(&root, log.clone());
        b.prepare().unwrap();
        b.put("snapshots/a", b"x", PutMode::Replace).unwrap();
        let mut disk = Model::of(&root).unwrap();
        let before = log.entries().len();
        std::fs::remove_file(root.join("snapshots/a")).unwrap();
        disk.apply(&Entry::Remove(root.join("snapshots/a")));
        b.delete("snapshots/a").unwrap();
        b.delete("packs/ab/not-even-the-folder").unwrap();
        log.entries()[before..].iter().for_each(|entry| disk.apply(entry));
        disk.cut(&root, &left, Survives::Nothing).unwrap();
        assert!(left.join("snapshots").exists() && !left.join("snapshots/a").exists());
    }

    #[test]
    fn objects_are_their_owners_alone_unless_the_repository_is_shared() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("above/repo");
        let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        let store = |key: &str| {
            let backend = LocalBackend::new(&root);
            backend.prepare().unwrap();
            backend.put(key, b"x", PutMode::Replace).unwrap();
        };
        store("config");
        store("packs/00/a");
        assert_eq!(
            ["", "config", "packs", "packs/00", "packs/00/a"].map(mode),
            [0o700, 0o600, 0o700, 0o700, 0o600]
        );
        for (config, folder, file) in [(0o640, 0o750, 0o640), (0o660, 0o770, 0o660), (0o604, 0o700, 0o600)] {
            std::fs::set_permissions(root.join("config"), PermissionsExt::from_mode(config)).unwrap();
            let key = |name: &str| format!("packs/{file:o}{name}");
            store(&key("/a"));
            assert_eq!((mode(&key("")), mode(&key("/a"))), (folder, file), "{config:o}");
        }
    }

    #[test]
    fn local_listing_ignores_unfinished_writes_and_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let b = LocalBackend::new(dir.path());
        b.put("snapshots/a", b"x", PutMode::Replace).unwrap();
        std::fs::write(dir.path().join("snapshots/.tmp-123"), b"half").unwrap();
        std::fs::write(dir.path().join("snapshots/bad name"), b"").unwrap();
        assert_eq!(b.list("snapshots/").unwrap().len(), 1);
    }
}
