//! A backend in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{
    Abilities, Backend, Buffered, Folder, Head, ObjectInfo, PutMode, Upload, check_key, delete_each,
};
use crate::error::StorageError;
use std::time::Duration;

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

    fn abilities(&self) -> Abilities {
        Abilities { exclusive: true, requests: 1 }
    }

    fn prepare(&self) -> Result<(), StorageError> {
        Ok(())
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

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.with(key, |data| {
            let end = offset.saturating_add(len as u64);
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let found = range.and_then(|(from, to)| data.get(from..to));
            let found = found.ok_or_else(|| StorageError::Short { key: key.to_owned(), end })?;
            out.clear();
            out.extend_from_slice(found);
            Ok(())
        })
    }

    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError> {
        self.with(key, |data| {
            let head = data[..data.len().min(len)].to_vec();
            Ok(Head { data: head, size: data.len() as u64, version: None })
        })
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        check_key(key)?;
        if !still() {
            return Ok(false);
        }
        let mut objects = self.objects.write();
        if mode == PutMode::Exclusive && objects.contains_key(key) {
            return Err(StorageError::AlreadyExists { key: key.to_owned() });
        }
        objects.insert(key.to_owned(), data.to_vec());
        Ok(true)
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

    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        delete_each(self, keys, deleted)
    }

    fn leftovers(&self, _min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        Ok(Vec::new())
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        Err(StorageError::InvalidKey { key: name.to_owned() })
    }

    fn folder(&self) -> Option<&dyn Folder> {
        None
    }
}
