//! One back end for all tests: another one, with something before each call, and calls that fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Abilities, Backend, Buffered, Folder, Head, ObjectInfo, PutMode, Upload, delete_each};
use crate::error::StorageError;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Backend::prepare`].
    Prepare,
    /// [`Backend::get`].
    Get,
    /// [`Backend::get_range_into`].
    GetRange,
    /// [`Backend::head`].
    Head,
    /// [`Backend::put_if`], and the end of an upload that is put whole.
    Put,
    /// The last moment of [`Backend::put_if`]: it was asked whether it still may.
    PutAsked,
    /// A step of an upload, where [`TestBackend::with_upload_steps`] was asked for.
    Upload,
    /// [`Backend::list`].
    List,
    /// [`Backend::delete`].
    Delete,
    /// [`Backend::size`].
    Size,
    /// [`Backend::leftovers`], [`Backend::remove_leftover`] and what only a folder has.
    Folder,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Verdict {
    /// It is done.
    Well,
    /// It does nothing, and fails.
    Fails(StorageError),
    /// It is done, and says that it failed.
    DoneButFails(StorageError),
    /// A write leaves half of its bytes under a temporary name where the storage is a folder, and fails; anything else does
    /// nothing and fails.
    HalfDone(StorageError),
}

impl From<Result<(), StorageError>> for Verdict {
    fn from(result: Result<(), StorageError>) -> Self {
        result.map_or_else(Verdict::Fails, |()| Verdict::Well)
    }
}

/// A call that is about to be done, or was.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// What it does.
    pub call: Call,
    /// To what: a key or a prefix.
    pub key: &'a str,
    /// Bytes that are written, or asked for.
    pub bytes: usize,
}

impl<'a> Op<'a> {
    fn new(call: Call, key: &'a str) -> Self {
        Op { call, key, bytes: 0 }
    }
}

/// Sees the call and the storage below.
type Hook<B> = Arc<dyn Fn(Op<'_>, &B) -> Verdict + Send + Sync>;

/// Runs a hook before calls.
pub struct TestBackend<B> {
    inner: B,
    before: Mutex<Option<Hook<B>>>,
    after: Mutex<Option<Hook<B>>>,
    calls: AtomicU64,
    upload_steps: bool,
}

impl<B: Backend> TestBackend<B> {
    /// Without a hook.
    pub fn new(inner: B) -> Self {
        let (before, after) = (Mutex::new(None), Mutex::new(None));
        TestBackend { inner, before, after, calls: AtomicU64::new(0), upload_steps: false }
    }

    /// The call with the number `at`, counted from 0, fails.
    pub fn failing(inner: B, at: u64, fault: Fault) -> Self {
        let (backend, number) = (TestBackend::new(inner).with_upload_steps(), AtomicU64::new(0));
        backend.decide(move |op, _| match op.call {
            Call::PutAsked => Verdict::Well,
            _ => fault.verdict(op.key, number.fetch_add(1, Ordering::SeqCst), at),
        });
        backend
    }

    /// Each step of an upload is a call. Otherwise it is put whole at its end.
    pub fn with_upload_steps(self) -> Self {
        TestBackend { upload_steps: true, ..self }
    }

    /// From now on, before each call, which fails where this does.
    pub fn before(&self, hook: impl Fn(Op<'_>, &B) -> Result<(), StorageError> + Send + Sync + 'static) {
        self.decide(move |op, inner| hook(op, inner).into());
    }

    /// The same, with more to choose from.
    pub fn decide(&self, hook: impl Fn(Op<'_>, &B) -> Verdict + Send + Sync + 'static) {
        *self.before.lock() = Some(Arc::new(hook));
    }

    /// From now on, after each call that was done.
    pub fn after(&self, hook: impl Fn(Op<'_>, &B) + Send + Sync + 'static) {
        *self.after.lock() = Some(Arc::new(move |op, inner| {
            hook(op, inner);
            Verdict::Well
        }));
    }

    /// No hook any more.
    pub fn unhook(&self) {
        (*self.before.lock(), *self.after.lock()) = (None, None);
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The storage below.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn run<T>(
        &self,
        op: Op<'_>,
        operation: impl FnOnce(&B) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.run_or_half(op, operation, &[])
    }

    fn run_or_half<T>(
        &self,
        op: Op<'_>,
        operation: impl FnOnce(&B) -> Result<T, StorageError>,
        data: &[u8],
    ) -> Result<T, StorageError> {
        let op = Op { bytes: op.bytes.max(data.len()), ..op };
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.verdict(op) {
            Verdict::Well => {}
            Verdict::Fails(error) => return Err(error),
            Verdict::DoneButFails(error) => {
                drop(operation(&self.inner));
                return Err(error);
            }
            Verdict::HalfDone(error) => {
                self.leave_half(data);
                return Err(error);
            }
        }
        let done = operation(&self.inner);
        let hook = self.after.lock().clone();
        if let Some(hook) = hook {
            hook(op, &self.inner);
        }
        done
    }

    fn verdict(&self, op: Op<'_>) -> Verdict {
        // Not called under the lock: it may use the storage.
        let hook = self.before.lock().clone();
        hook.map_or(Verdict::Well, |hook| hook(op, &self.inner))
    }

    fn leave_half(&self, data: &[u8]) {
        if let (Some(root), false) = (self.inner.local_path(), data.is_empty()) {
            let name = format!(".tmp-{:032x}", self.calls());
            let _ = std::fs::write(root.join(name), &data[..data.len() / 2]);
        }
    }
}

impl<B: Backend> Backend for TestBackend<B> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.run(Op::new(Call::Prepare, ""), B::prepare)
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        self.run(Op::new(Call::Get, key), |inner| inner.get(key, max))
    }

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.run(Op { bytes: len, ..Op::new(Call::GetRange, key) }, |inner| {
            inner.get_range_into(key, offset, len, out)
        })
    }

    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError> {
        self.run(Op::new(Call::Head, key), |inner| inner.head(key, len))
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        let mut refused = None;
        let mut asked = || {
            still()
                && match self.verdict(Op::new(Call::PutAsked, key)) {
                    Verdict::Well => true,
                    Verdict::Fails(error) | Verdict::DoneButFails(error) | Verdict::HalfDone(error) => {
                        refused = Some(error);
                        false
                    }
                }
        };
        let put = |inner: &B| inner.put_if(key, data, mode, &mut asked);
        let put = self.run_or_half(Op::new(Call::Put, key), put, data);
        refused.map_or(put, Err)
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        if !self.upload_steps {
            return Ok(Box::new(Buffered::new(self)));
        }
        // The result borrows from the storage below, which a closure cannot give.
        self.run(Op::new(Call::Upload, "packs/"), |_| Ok(()))?;
        Ok(Box::new(TestUpload { backend: self, inner: self.inner.upload()? }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        match self.run(Op::new(Call::List, prefix), |inner| inner.list(prefix)) {
            // A folder that is not there is empty.
            Err(StorageError::NotFound { .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.run(Op::new(Call::Delete, key), |inner| inner.delete(key))
    }

    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        delete_each(self, keys, deleted)
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.run(Op::new(Call::Size, key), |inner| inner.size(key))
    }

    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        self.run(Op::new(Call::Folder, ""), |inner| inner.leftovers(min_age))
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        self.run(Op::new(Call::Folder, name), |inner| inner.remove_leftover(name))
    }

    fn folder(&self) -> Option<&dyn Folder> {
        self.inner.folder().map(|_| self as &dyn Folder)
    }
}

/// Used only where there is one.
impl<B: Backend> Folder for TestBackend<B> {
    fn path(&self) -> &Path {
        self.inner.local_path().unwrap_or(Path::new(""))
    }

    fn odd_entries(&self, folder: &str) -> Result<Vec<String>, StorageError> {
        self.run(Op::new(Call::Folder, folder), |inner| {
            inner.folder().map_or(Ok(Vec::new()), |f| f.odd_entries(folder))
        })
    }

    fn leads_out(&self, folder: &str) -> Result<bool, StorageError> {
        self.run(Op::new(Call::Folder, folder), |inner| {
            inner.folder().map_or(Ok(false), |f| f.leads_out(folder))
        })
    }

    fn holds_other_than(&self, keys: &[&str]) -> Result<bool, StorageError> {
        self.run(Op::new(Call::Folder, ""), |inner| super::holds_other_than(inner, keys))
    }

    fn drop_cached(&self, key: &str) {
        super::drop_cached(&self.inner, key);
    }

    fn keep_reserve(&self, bytes: u64) {
        if let Some(folder) = self.inner.folder() {
            folder.keep_reserve(bytes);
        }
    }

    fn spend_reserve(&self, only_where_short: bool) -> bool {
        self.inner.folder().is_some_and(|folder| folder.spend_reserve(only_where_short))
    }
}

struct TestUpload<'b, B> {
    backend: &'b TestBackend<B>,
    inner: Box<dyn Upload + 'b>,
}

impl<B: Backend> Upload for TestUpload<'_, B> {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        let TestUpload { backend, inner } = self;
        backend.run_or_half(Op::new(Call::Upload, "packs/"), |_| inner.write(data), data)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        self.backend.run(Op::new(Call::Upload, "packs/"), |_| self.inner.read_at(offset, out))
    }

    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError> {
        let TestUpload { backend, inner } = *self;
        backend.run(Op::new(Call::Upload, key), |_| inner.finish(key))
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing.
    Error,
    /// It does what it should, and says that it failed.
    LostReply,
    /// A write leaves half of its bytes under a temporary name; anything else does nothing.
    ShortWrite,
    /// It does nothing, and nor does any other after it.
    LostConnection,
}

/// All of them.
pub const FAULTS: [Fault; 4] = [Fault::Error, Fault::LostReply, Fault::ShortWrite, Fault::LostConnection];

impl Fault {
    fn verdict(self, key: &str, number: u64, at: u64) -> Verdict {
        let broken = || {
            let source = std::io::Error::other("broken on purpose");
            StorageError::Io { operation: "use", key: key.to_owned(), source }
        };
        match self {
            Fault::LostConnection if number >= at => Verdict::Fails(broken()),
            _ if number != at => Verdict::Well,
            Fault::Error | Fault::LostConnection => Verdict::Fails(broken()),
            Fault::LostReply => Verdict::DoneButFails(broken()),
            Fault::ShortWrite => Verdict::HalfDone(broken()),
        }
    }
}
