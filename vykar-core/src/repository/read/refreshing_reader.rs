//! Reading chunks while a compaction moves them.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::format::{IndexBlob, IndexEntry};
use crate::id::ChunkId;
use crate::repository::{ChunkReader, Repository};

/// Gives chunks by their ids.
pub trait ReadChunk: Sync {
    /// A chunk's plaintext.
    ///
    /// # Errors
    /// [`crate::VykarError::ChunkMissing`] and [`crate::VykarError::ChunkDamaged`] name the chunk and its pack.
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes>;
}

impl ReadChunk for ChunkReader {
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes> {
        self.read(id)
    }
}

/// A [`ChunkReader`] that reads the index again when a chunk is not where it should be, as often as there is a newer one,
/// and that tells what is lost from what is out of reach.
pub struct RefreshingReader<'r> {
    repository: &'r Repository,
    reader: ChunkReader,
}

impl<'r> RefreshingReader<'r> {
    /// Over the index that is there now.
    pub fn new(repository: &'r Repository) -> Result<Self> {
        Ok(Self::over(repository, repository.chunk_reader()?))
    }

    /// Over the index of a reader.
    pub fn over(repository: &'r Repository, reader: ChunkReader) -> Self {
        RefreshingReader { repository, reader }
    }

    /// The index as it was last read.
    pub fn index(&self) -> Arc<IndexBlob> {
        self.reader.index()
    }

    /// Where a chunk is, as far as is known.
    pub fn locate(&self, id: &ChunkId) -> Result<IndexEntry> {
        self.reader.locate(id)
    }

    /// A chunk's plaintext, which must be `size` bytes.
    pub fn read_sized(&self, id: &ChunkId, size: u32) -> Result<Bytes> {
        self.reader.read_moving_sized(self.repository, id, size)
    }
}

impl ReadChunk for RefreshingReader<'_> {
    fn read_chunk(&self, id: &ChunkId) -> Result<Bytes> {
        self.reader.read_moving(self.repository, id)
    }
}
