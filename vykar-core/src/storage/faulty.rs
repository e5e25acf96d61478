//! A backend that fails when it is told to.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Backend, ObjectInfo, PutMode, Upload};
use crate::error::StorageError;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing.
    Error,
    /// It does what it should, and says that it failed.
    LostReply,
    /// A write leaves half of its bytes under a temporary name; anything else does nothing.
    ShortWrite,
    /// It does nothing, and nor does any other after it.
    LostConnection,
}

pub(crate) const FAULTS: [Fault; 4] =
    [Fault::Error, Fault::LostReply, Fault::ShortWrite, Fault::LostConnection];

/// Counts operations and lets one of them fail.
pub(crate) struct FaultyBackend<B> {
    inner: B,
    done: AtomicU64,
    at: u64,
    fault: Fault,
}

/// What is to become of an operation.
enum Verdict {
    Well,
    Nothing,
    DoneButFails,
    Half,
}

impl<B: Backend> FaultyBackend<B> {
    /// The operation with the number `at`, counted from 0, fails.
    pub fn new(inner: B, at: u64, fault: Fault) -> Self {
        FaultyBackend { inner, done: AtomicU64::new(0), at, fault }
    }

    /// Operations that were asked for.
    pub fn operations(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn verdict(&self) -> Verdict {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::LostConnection if number >= self.at => Verdict::Nothing,
            _ if number != self.at => Verdict::Well,
            Fault::Error | Fault::LostConnection => Verdict::Nothing,
            Fault::LostReply => Verdict::DoneButFails,
            Fault::ShortWrite => Verdict::Half,
        }
    }

    fn run<T>(
        &self,
        key: &str,
        operation: impl FnOnce() -> Result<T, StorageError>,
        half: impl FnOnce(),
    ) -> Result<T, StorageError> {
        match self.verdict() {
            Verdict::Well => return operation(),
            Verdict::DoneButFails => drop(operation()),
            Verdict::Half => half(),
            Verdict::Nothing => {}
        }
        Err(broken(key))
    }

    /// Leaves half of a write where the storage is a folder.
    fn leave_half(&self, data: &[u8]) {
        if let Some(root) = self.inner.local_path() {
            let name = format!(".tmp-{:032x}", self.at);
            std::fs::write(root.join(name), &data[..data.len() / 2]).unwrap();
        }
    }
}

fn broken(key: &str) -> StorageError {
    let source = std::io::Error::other("broken on purpose");
    StorageError::Io { operation: "use", key: key.to_owned(), source }
}

impl<B: Backend> Backend for FaultyBackend<B> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.run("", || self.inner.prepare(), || ())
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        self.run(key, || self.inner.get(key, max), || ())
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        self.run(key, || self.inner.get_range(key, offset, len), || ())
    }

    fn drop_cached(&self, key: &str) {
        self.inner.drop_cached(key);
    }

    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.run(key, || self.inner.put(key, data, mode), || self.leave_half(data))
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        self.run(key, || self.inner.put_if(key, data, mode, still), || self.leave_half(data))
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        let inner = self.run("packs/", || self.inner.upload(), || ())?;
        Ok(Box::new(FaultyUpload { backend: self, inner }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.run(prefix, || self.inner.list(prefix), || ())
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.run(key, || self.inner.delete(key), || ())
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.run(key, || self.inner.size(key), || ())
    }

    fn odd_entries(&self, folder: &str) -> Result<Vec<String>, StorageError> {
        self.run(folder, || self.inner.odd_entries(folder), || ())
    }

    fn leads_out(&self, folder: &str) -> Result<bool, StorageError> {
        self.run(folder, || self.inner.leads_out(folder), || ())
    }

    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        self.run("", || self.inner.leftovers(min_age), || ())
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        self.run(name, || self.inner.remove_leftover(name), || ())
    }

    fn holds_other_than(&self, keys: &[&str]) -> Result<bool, StorageError> {
        self.run("", || self.inner.holds_other_than(keys), || ())
    }
}

struct FaultyUpload<'b, B> {
    backend: &'b FaultyBackend<B>,
    inner: Box<dyn Upload + 'b>,
}

impl<B: Backend> Upload for FaultyUpload<'_, B> {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        let FaultyUpload { backend, inner } = self;
        backend.run("packs/", || inner.write(data), || backend.leave_half(data))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        self.backend.run("packs/", || self.inner.read_at(offset, out), || ())
    }

    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError> {
        let FaultyUpload { backend, inner } = *self;
        backend.run(key, || inner.finish(key), || ())
    }
}
