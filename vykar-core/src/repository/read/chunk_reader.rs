//! Reading chunks through the index.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::{ChunkId, PackId};
use crate::repository::objects::index::OpenIndex;
use crate::repository::{BufferPool, Keys, Repository, pack_key};
use crate::storage::Backend;

/// Longest object that is read as a chunk, in bytes: more than 32 MiB take in any form. An index may claim more.
pub(crate) const MAX_STORED: u32 = 40 << 20;

/// Reads and decodes chunks. Shared by threads; holds no cache of its own.
pub struct ChunkReader {
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    index: RwLock<Arc<IndexBlob>>,
    /// What that was read from, to tell whether there is another one now; `None` where that is not known.
    origin: Mutex<Option<OpenIndex>>,
    buffers: BufferPool,
}

/// Most newer indexes that are looked at for one chunk.
const MAX_LOOKS: u32 = 8;

impl ChunkReader {
    /// Over a decoded index.
    pub fn new(backend: Arc<dyn Backend>, keys: Arc<Keys>, index: Arc<IndexBlob>) -> Self {
        let (index, origin, buffers) = (RwLock::new(index), Mutex::default(), BufferPool::default());
        ChunkReader { backend, keys, index, origin, buffers }
    }

    /// Over an index of a repository, decoding into buffers of a pool.
    pub fn over(repository: &Repository, open: OpenIndex, buffers: BufferPool) -> Self {
        let (backend, keys) = (repository.backend().clone(), repository.keys().clone());
        let index = RwLock::new(open.index.clone());
        ChunkReader { backend, keys, index, origin: Mutex::new(Some(open)), buffers }
    }

    /// The index as it was last read.
    pub fn index(&self) -> Arc<IndexBlob> {
        self.index.read().clone()
    }

    /// After `seen` led to nothing: reads the index again where it is another one by now. A compaction moves chunks
    /// while they are read, and a backup adds some; and a local copy may be damaged. True when there is another index
    /// now; false when `seen` is the newest one, and whole.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn catch_up(&self, repository: &Repository, seen: &Arc<IndexBlob>) -> Result<bool> {
        // Others wait here, and find what the first has read.
        let mut origin = self.origin.lock();
        if !Arc::ptr_eq(&self.index(), seen) {
            return Ok(true);
        }
        let stamp = repository.index_stamp()?.ok_or(VykarError::IndexMissing)?;
        let known = origin.as_ref().filter(|open| open.stamp == Some(stamp));
        let is_whole =
            |open: &OpenIndex| open.index.chunks.is_unchanged() && open.is_sound(repository.keys().hasher());
        if known.is_some_and(is_whole) {
            return Ok(false);
        }
        let fresh = repository.open_sound_index()?;
        *self.index.write() = fresh.index.clone();
        *origin = Some(fresh);
        Ok(true)
    }

    /// A chunk's plaintext, wherever it is by now. An error that is damage ([`VykarError::is_damage`]) is so by the
    /// repository's newest index, with the repository where it was.
    pub fn read_moving(&self, repository: &Repository, id: &ChunkId) -> Result<Bytes> {
        let mut looks = 0;
        loop {
            let seen = self.index();
            let error = match self.read(id) {
                Err(e @ (VykarError::ChunkMissing { .. } | VykarError::ChunkDamaged { .. })) => e,
                result => return result,
            };
            let newer = self.catch_up(repository, &seen);
            looks += 1;
            return Err(match newer {
                Ok(true) if looks <= MAX_LOOKS => continue,
                Ok(true) => in_doubt(error, "the index changes all the time"),
                Ok(false) if !error.is_damage() => error,
                Ok(false) => match repository.check_lost(&seen, pack_of(&error)) {
                    Ok(()) => error,
                    Err(away) => in_doubt(error, &away.to_string()),
                },
                Err(e) => in_doubt(error, &format!("the index cannot be read: {e}")),
            });
        }
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
        self.sized(self.read(id)?, id, size)
    }

    /// The same, wherever it is by now, see [`ChunkReader::read_moving`].
    pub fn read_moving_sized(&self, repository: &Repository, id: &ChunkId, size: u32) -> Result<Bytes> {
        self.sized(self.read_moving(repository, id)?, id, size)
    }

    fn sized(&self, data: Bytes, id: &ChunkId, size: u32) -> Result<Bytes> {
        if data.len() as u64 == u64::from(size) {
            return Ok(data);
        }
        let reason = format!("holds {} bytes, its item says {size}", data.len());
        let pack = self.locate(id)?.pack;
        Err(VykarError::ChunkDamaged { chunk: *id, pack, cause: ObjectError::Unreadable(reason) })
    }
}

fn pack_of(error: &VykarError) -> Option<&PackId> {
    match error {
        VykarError::ChunkDamaged { pack, .. } => Some(pack),
        _ => None,
    }
}

/// What looks like damage and may be none.
fn in_doubt(error: VykarError, reason: &str) -> VykarError {
    match error {
        VykarError::ChunkDamaged { chunk, pack, cause } => {
            let cause = match cause {
                ObjectError::OutOfReach(cause) => cause,
                cause => format!("{cause}; {reason}"),
            };
            VykarError::ChunkDamaged { chunk, pack, cause: ObjectError::OutOfReach(cause) }
        }
        other => VykarError::OutOfReach { part: other.to_string(), reason: reason.to_owned() },
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
        | StorageError::Denied { .. }
        | StorageError::Unreachable { .. }
        | StorageError::Throttled { .. }
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
