//! Chunks of a repository through the cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use vykar_core::error::ObjectError;
use vykar_core::format::ChunkerParams;
use vykar_core::repository::{BufferPool, ChunkReader, ReadChunk, Repository, pack_key};
use vykar_core::storage::drop_cached;
use vykar_core::{ChunkId, VykarError};

use crate::content::cache::Cache;

/// A chunk that could not be read fails from memory this long: the kernel asks again for each page.
const BAD: Duration = Duration::from_secs(2);
/// Most chunks that are remembered as bad.
const MAX_BAD: usize = 4096;

/// Bytes that leave the cache between two calls of [`Freed`].
const FREED_STEP: u64 = 16 << 20;

/// Called when much memory was freed, so that the program's allocator can give it back to the system. From any
/// thread, and not while a lock is held.
#[derive(Clone)]
pub struct Freed(pub Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Freed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Freed")
    }
}

/// An error that several readers get.
pub(crate) type SharedError = Arc<VykarError>;

/// Reads and caches chunks.
pub(crate) struct Data {
    repository: Arc<Repository>,
    /// Made when it is first needed: a mount that only lists snapshots reads no index.
    reader: Mutex<Option<Arc<ChunkReader>>>,
    cache: Cache<ChunkId, Bytes, SharedError>,
    buffers: BufferPool,
    freed: Option<Freed>,
    /// What had left the cache when that was called last.
    reported: AtomicU64,
    bad: Mutex<HashMap<ChunkId, (Instant, SharedError)>>,
}

impl Data {
    /// With a cache of `cache_size` bytes.
    pub(crate) fn new(repository: Arc<Repository>, cache_size: u64, freed: Option<Freed>) -> Self {
        Data {
            repository,
            reader: Mutex::new(None),
            cache: Cache::new(cache_size, ChunkerParams::MAX.into()),
            buffers: BufferPool::default(),
            freed,
            reported: AtomicU64::new(0),
            bad: Mutex::new(HashMap::new()),
        }
    }

    /// Reads through the index, which is read when this is called first.
    ///
    /// # Errors
    /// Where the index cannot be read. One that is not there is such a case too: only those ask who know of a snapshot.
    pub(crate) fn reader(&self) -> Result<Arc<ChunkReader>, VykarError> {
        let reader = self.first_reader()?;
        let index = reader.index();
        // Slots of a copy that somebody wrote to stand for nothing any more.
        if !index.chunks.is_unchanged() {
            reader.catch_up(&self.repository, &index)?;
        }
        Ok(reader)
    }

    fn first_reader(&self) -> Result<Arc<ChunkReader>, VykarError> {
        let mut reader = self.reader.lock();
        if let Some(reader) = &*reader {
            return Ok(reader.clone());
        }
        let open = self.repository.open_index()?;
        if open.stamp.is_none() {
            return Err(VykarError::IndexMissing);
        }
        let made = Arc::new(ChunkReader::over(&self.repository, open, self.buffers.clone()));
        *reader = Some(made.clone());
        Ok(made)
    }

    /// An empty buffer with room for `len` bytes, for [`Data::freeze`].
    pub(crate) fn buffer(&self, len: usize) -> Vec<u8> {
        self.buffers.take(len)
    }

    /// What is in a buffer, to be read and given back.
    pub(crate) fn freeze(&self, buffer: Vec<u8>) -> Bytes {
        self.buffers.freeze(buffer, 0)
    }

    /// True when a chunk is cached, or being read, or known to be bad.
    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        self.cache.has(id) || self.known_bad(id).is_some()
    }

    /// Drops a chunk that nobody is likely to want again: a file was read past it, and the kernel has its bytes.
    pub(crate) fn forget(&self, id: &ChunkId) {
        self.cache.remove(id);
    }

    /// A chunk, which must be `size` bytes, as the item that refers to it says.
    pub(crate) fn chunk(&self, id: &ChunkId, size: u64) -> Result<Bytes, SharedError> {
        if let Some(error) = self.known_bad(id) {
            return Err(error);
        }
        let data = self.cache.get_or_make(id, || self.read(id).map_err(|e| self.remember_bad(id, e)))?;
        self.report_freed();
        if data.len() as u64 == size {
            return Ok(data);
        }
        let reason = format!("holds {} bytes, its item says {size}", data.len());
        let pack = self.reader()?.locate(id)?.pack;
        Err(Arc::new(VykarError::ChunkDamaged { chunk: *id, pack, cause: ObjectError::Unreadable(reason) }))
    }

    /// Gives up all that is kept of chunks, and lets the program give that memory back to the system.
    pub(crate) fn give_back(&self) {
        self.cache.clear();
        self.buffers.drop_idle();
        if let Some(freed) = &self.freed {
            (freed.0)();
        }
    }

    fn report_freed(&self) {
        let Some(freed) = &self.freed else { return };
        let (evicted, before) = (self.cache.evicted(), self.reported.load(Ordering::Relaxed));
        let due = evicted.saturating_sub(before) >= FREED_STEP;
        // One of several threads does it.
        if due
            && self.reported.compare_exchange(before, evicted, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            (freed.0)();
        }
    }

    /// A chunk of whatever size, past the cache, wherever a compaction has moved it. Only what is damaged or gone for
    /// certain is called so ([`VykarError::is_damage`]).
    pub(crate) fn read(&self, id: &ChunkId) -> Result<Bytes, VykarError> {
        self.reader()?.read_moving(&self.repository, id)
    }

    /// A chunk of `size` bytes that was called damaged, from where it is stored.
    pub(crate) fn read_again(&self, id: &ChunkId, size: u32) -> Result<Bytes, VykarError> {
        let reader = self.reader()?;
        if let Ok(entry) = reader.locate(id) {
            drop_cached(self.repository.backend().as_ref(), &pack_key(&entry.pack));
        }
        reader.read_moving_sized(&self.repository, id, size)
    }

    fn known_bad(&self, id: &ChunkId) -> Option<SharedError> {
        let bad = self.bad.lock();
        bad.get(id).filter(|(when, _)| when.elapsed() < BAD).map(|(_, error)| error.clone())
    }

    fn remember_bad(&self, id: &ChunkId, error: VykarError) -> SharedError {
        let error = Arc::new(error);
        let mut bad = self.bad.lock();
        if bad.len() >= MAX_BAD {
            bad.retain(|_, (when, _)| when.elapsed() < BAD);
        }
        if bad.len() < MAX_BAD {
            bad.insert(*id, (Instant::now(), error.clone()));
        }
        error
    }
}

impl ReadChunk for Data {
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes, VykarError> {
        self.read(id)
    }
}
