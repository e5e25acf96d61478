//! A backend in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Backend, Buffered, ObjectInfo, PutMode, Upload, check_key};
use crate::error::StorageError;

/// Objects in a map; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    objects: Arc<RwLock<BTreeMap<String, Vec<u8>>>>,
}

impl MemoryBackend {
    /// An empty backend.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(
        &self,
        key: &str,
        f: impl FnOnce(&[u8]) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        check_key(key)?;
        match self.objects.read().get(key) {
            Some(data) => f(data),
            None => Err(StorageError::NotFound { key: key.to_owned() }),
        }
    }
}

impl Backend for MemoryBackend {
    fn url(&self) -> &str {
        "memory"
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        self.with(key, |data| {
            let size = data.len() as u64;
            if size > max {
                return Err(StorageError::TooLarge { key: key.to_owned(), size, max });
            }
            Ok(data.to_vec())
        })
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        self.with(key, |data| {
            let end = offset.saturating_add(len as u64);
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let found = range.and_then(|(from, to)| data.get(from..to));
            found.map(<[u8]>::to_vec).ok_or_else(|| StorageError::Short { key: key.to_owned(), end })
        })
    }

    fn put(&self, key: &str, data: &[u8], mode: PutMode) -> Result<(), StorageError> {
        check_key(key)?;
        let mut objects = self.objects.write();
        if mode == PutMode::Exclusive && objects.contains_key(key) {
            return Err(StorageError::AlreadyExists { key: key.to_owned() });
        }
        objects.insert(key.to_owned(), data.to_vec());
        Ok(())
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        Ok(Box::new(Buffered::new(self)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let objects = self.objects.read();
        let found = objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, data)| ObjectInfo { key: key.clone(), size: data.len() as u64 }).collect())
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        check_key(key)?;
        self.objects.write().remove(key);
        Ok(())
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.with(key, |data| Ok(data.len() as u64))
    }
}
