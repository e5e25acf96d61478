//! Reading chunks while a compaction moves them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{ChunkReader, INDEX_GENERATION, Repository};
use crate::error::{Result, VykarError};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::ChunkId;

/// Most newer indexes that are looked at for one chunk.
const MAX_LOOKS: u32 = 8;

/// Gives chunks by their ids.
pub trait ReadChunk: Sync {
    /// A chunk's plaintext.
    ///
    /// # Errors
    /// [`VykarError::ChunkMissing`] and [`VykarError::ChunkDamaged`] name the chunk and its pack.
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes>;
}

impl ReadChunk for ChunkReader {
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes> {
        self.read(id)
    }
}

/// A [`ChunkReader`] that reads the index again when a chunk is not where it should be, as often as there is a newer one.
pub struct MovingReader<'r> {
    repository: &'r Repository,
    reader: ChunkReader,
    looked: Mutex<Looked>,
}

/// When the index was read again.
#[derive(Default)]
struct Looked {
    ever: bool,
    /// What the generation's hint was just before. A compaction writes it before it deletes what it has moved.
    hint: Option<Vec<u8>>,
}

impl<'r> MovingReader<'r> {
    /// Over the index that is there now.
    pub fn new(repository: &'r Repository) -> Result<Self> {
        Ok(Self::over(repository, repository.chunk_reader()?))
    }

    /// Over the index of a reader.
    pub fn over(repository: &'r Repository, reader: ChunkReader) -> Self {
        MovingReader { repository, reader, looked: Mutex::default() }
    }

    /// The index as it was last read.
    pub fn index(&self) -> Arc<IndexBlob> {
        self.reader.index()
    }

    /// Where a chunk is, as far as is known.
    pub fn locate(&self, id: &ChunkId) -> Result<IndexEntry> {
        self.reader.locate(id)
    }

    /// Reads the index again after `seen` led to nothing, unless it has not been written since that was done last. True
    /// when there is another one now.
    fn refresh(&self, seen: &Arc<IndexBlob>) -> bool {
        // Others wait here, and find what the first has read.
        let mut looked = self.looked.lock();
        if !Arc::ptr_eq(&self.reader.index(), seen) {
            return true;
        }
        let hint = self.repository.backend().get(INDEX_GENERATION, 8).ok();
        if looked.ever && looked.hint == hint {
            return false;
        }
        *looked = Looked { ever: true, hint };
        self.reader.refresh(self.repository).is_ok() && self.reader.index().generation != seen.generation
    }
}

impl ReadChunk for MovingReader<'_> {
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes> {
        let mut looks = 0;
        loop {
            let seen = self.reader.index();
            match self.reader.read(id) {
                Err(VykarError::ChunkMissing { .. } | VykarError::ChunkDamaged { .. })
                    if looks < MAX_LOOKS && self.refresh(&seen) =>
                {
                    looks += 1;
                }
                result => return result,
            }
        }
    }
}
