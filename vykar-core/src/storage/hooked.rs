//! A backend that does something else before a call: somebody else's doing, or a failure.

use parking_lot::Mutex;

use super::{Backend, Buffered, ObjectInfo, PutMode, Upload};
use crate::error::StorageError;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    GetRange,
    Put,
    List,
    Delete,
}

/// Sees the call, its key or prefix, and the storage below.
pub(crate) type Hook<B> = Box<dyn Fn(Call, &str, &B) -> Result<(), StorageError> + Send + Sync>;

/// Runs a hook before calls.
pub(crate) struct HookedBackend<B> {
    inner: B,
    hook: Mutex<Option<Hook<B>>>,
}

impl<B: Backend> HookedBackend<B> {
    /// Without a hook.
    pub fn new(inner: B) -> Self {
        HookedBackend { inner, hook: Mutex::new(None) }
    }

    /// From now on; `None` for nothing.
    pub fn set(&self, hook: Option<Hook<B>>) {
        *self.hook.lock() = hook;
    }

    fn before(&self, call: Call, key: &str) -> Result<(), StorageError> {
        match &*self.hook.lock() {
            Some(hook) => hook(call, key, &self.inner),
            None => Ok(()),
        }
    }
}

impl<B: Backend> Backend for HookedBackend<B> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        self.before(Call::Get, key)?;
        self.inner.get(key, max)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        self.before(Call::GetRange, key)?;
        self.inner.get_range(key, offset, len)
    }

    fn drop_cached(&self, key: &str) {
        self.inner.drop_cached(key);
    }

    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.before(Call::Put, key)?;
        self.inner.put(key, data, mode)
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        self.before(Call::Put, key)?;
        self.inner.put_if(key, data, mode, still)
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        Ok(Box::new(Buffered::new(self)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.before(Call::List, prefix)?;
        self.inner.list(prefix)
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.before(Call::Delete, key)?;
        self.inner.delete(key)
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(key)
    }
}
