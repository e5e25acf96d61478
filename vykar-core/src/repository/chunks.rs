//! Reading chunks through the index.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{BufferPool, Keys, Repository, pack_key};
use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::ChunkId;
use crate::storage::Backend;

/// Longest object that is read as a chunk, in bytes: more than 32 MiB take in any form. An index may claim more.
pub(crate) const MAX_STORED: u32 = 40 << 20;

/// Reads and decodes chunks. Shared by threads; holds no cache of its own.
pub struct ChunkReader {
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    index: RwLock<Arc<IndexBlob>>,
    buffers: BufferPool,
}

impl ChunkReader {
    /// Over a decoded index.
    pub fn new(backend: Arc<dyn Backend>, keys: Arc<Keys>, index: Arc<IndexBlob>) -> Self {
        Self::with_buffers(backend, keys, index, BufferPool::default())
    }

    /// The same, decoding into buffers of a pool.
    pub fn with_buffers(
        backend: Arc<dyn Backend>,
        keys: Arc<Keys>,
        index: Arc<IndexBlob>,
        buffers: BufferPool,
    ) -> Self {
        ChunkReader { backend, keys, index: RwLock::new(index), buffers }
    }

    /// The index as it was last read.
    pub fn index(&self) -> Arc<IndexBlob> {
        self.index.read().clone()
    }

    /// Reads the index again, after a compaction moved chunks or a backup added some.
    pub fn refresh(&self, repository: &Repository) -> Result<()> {
        let fresh = Arc::new(repository.read_index()?);
        *self.index.write() = fresh;
        Ok(())
    }

    /// Where a chunk is.
    pub fn locate(&self, id: &ChunkId) -> Result<IndexEntry> {
        self.index.read().chunks.get(id).ok_or(VykarError::ChunkMissing { chunk: *id })
    }

    /// A chunk's plaintext.
    ///
    /// # Errors
    /// [`VykarError::ChunkMissing`] and [`VykarError::ChunkDamaged`] name the chunk and its pack.
    pub fn read(&self, id: &ChunkId) -> Result<Bytes> {
        let entry = self.locate(id)?;
        let damaged = |cause| VykarError::ChunkDamaged { chunk: *id, pack: entry.pack, cause };
        if entry.stored_size > MAX_STORED {
            let reason = format!("stored as {} bytes, more than any chunk", entry.stored_size);
            return Err(damaged(ObjectError::Unreadable(reason)));
        }
        let mut object = self.buffers.take(entry.stored_size as usize);
        self.backend
            .get_range_into(&pack_key(&entry.pack), entry.offset, entry.stored_size as usize, &mut object)
            .map_err(|e| damaged(unreadable(&e)))?;
        self.keys.open_chunk_in(id, object, &self.buffers).map_err(damaged)
    }

    /// A chunk's plaintext, which must be `size` bytes, as the item that refers to it says.
    pub fn read_sized(&self, id: &ChunkId, size: u32) -> Result<Bytes> {
        let data = self.read(id)?;
        if data.len() as u64 != u64::from(size) {
            let reason = format!("holds {} bytes, its item says {size}", data.len());
            let pack = self.locate(id)?.pack;
            return Err(VykarError::ChunkDamaged {
                chunk: *id,
                pack,
                cause: ObjectError::Unreadable(reason),
            });
        }
        Ok(data)
    }
}

/// Why an object could not be had: gone or cut short, or a failure of the storage that may pass.
fn unreadable(error: &StorageError) -> ObjectError {
    match error {
        StorageError::NotFound { .. } | StorageError::Short { .. } => {
            ObjectError::Unreadable(error.to_string())
        }
        StorageError::AlreadyExists { .. }
        | StorageError::InvalidKey { .. }
        | StorageError::TooLarge { .. }
        | StorageError::Full { .. }
        | StorageError::Io { .. } => ObjectError::OutOfReach(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRepository;

    #[test]
    fn a_length_that_no_chunk_has_is_refused_before_anything_is_read() {
        let mut t = TestRepository::new();
        let id = t.chunk(b"small").id;
        t.close_pack();
        for (claimed, reason) in [(MAX_STORED, "ends before"), (MAX_STORED + 1, "more than any chunk")] {
            let entry = IndexEntry { stored_size: claimed, ..t.index[&id] };
            let index = IndexBlob {
                generation: 1,
                chunks: crate::format::index::ChunkTable::build([entry]).unwrap(),
            };
            let reader =
                ChunkReader::new(Arc::new(t.backend.clone()), t.repository.keys().clone(), Arc::new(index));
            let error = reader.read(&id).unwrap_err();
            let VykarError::ChunkDamaged { cause, .. } = &error else { panic!("{error}") };
            assert!(cause.to_string().contains(reason), "{cause}");
        }
    }
}
