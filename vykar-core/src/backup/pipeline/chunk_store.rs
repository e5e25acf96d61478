//! Storing chunks: named, looked up, and only then compressed, sealed and packed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backup::commit::references::{BackupReferences, Put};
use crate::codec::{Compression, Compressor};
use crate::error::{CodecError, Result, VykarError};
use crate::format::ChunkRef;
use crate::format::envelope::{ObjectKind, seal_into};
use crate::id::ChunkId;
use crate::repository::Keys;
use crate::repository::objects::pack_writer::{PackKind, PackWriter};
use crate::stage::{Stage, Stages};

/// Working memory of one thread that stores chunks.
pub struct Sealer {
    compressor: Compressor,
    object: Vec<u8>,
}

impl Sealer {
    /// For one thread.
    pub fn new(compression: Compression) -> Result<Self> {
        Ok(Sealer { compressor: Compressor::new(compression).map_err(compress_failed)?, object: Vec::new() })
    }
}

fn compress_failed(e: CodecError) -> VykarError {
    VykarError::Encode { what: "chunk", reason: e.to_string() }
}

/// Stores chunks of a running backup. Shared by its threads.
pub struct ChunkStore<'b> {
    keys: &'b Keys,
    references: &'b BackupReferences,
    packs: PackWriter,
    stages: &'b Stages,
    /// Stored bytes of new file chunks.
    pub added_stored: AtomicU64,
    /// Plaintext bytes of new file chunks.
    pub added_plain: AtomicU64,
}

impl<'b> ChunkStore<'b> {
    /// Over the references and packs of one backup.
    pub fn new(
        keys: &'b Keys,
        references: &'b BackupReferences,
        packs: PackWriter,
        stages: &'b Stages,
    ) -> Self {
        let (added_stored, added_plain) = (AtomicU64::new(0), AtomicU64::new(0));
        ChunkStore { keys, references, packs, stages, added_stored, added_plain }
    }

    /// What counts references to its chunks.
    pub fn references(&self) -> &'b BackupReferences {
        self.references
    }

    /// Names chunks, all at once, since that is faster.
    pub fn names(&self, chunks: &[&[u8]]) -> Vec<ChunkId> {
        self.stages.time(Stage::Hash, || self.keys.hasher().chunk_ids(chunks))
    }

    /// Stores a chunk that has been named, or finds it, and counts one reference to it.
    pub fn put(&self, sealer: &mut Sealer, kind: PackKind, id: ChunkId, data: &[u8]) -> Result<ChunkRef> {
        // A chunk is at most 16 MiB.
        let size = data.len() as u32;
        let stored_size = match self.references.put(&id)? {
            Put::Known(stored_size) => stored_size,
            Put::New(number) => {
                let sealed = self.seal(sealer, kind, (number, id), data);
                if sealed.is_err() {
                    self.references.failed(number);
                }
                sealed?
            }
        };
        Ok(ChunkRef { id, size, stored_size })
    }

    fn seal(
        &self,
        sealer: &mut Sealer,
        kind: PackKind,
        (number, id): (u32, ChunkId),
        data: &[u8],
    ) -> Result<u32> {
        let Sealer { compressor, object } = sealer;
        object.clear();
        let began = Instant::now();
        let mut compressing = Duration::ZERO;
        seal_into(self.keys.engine(), ObjectKind::Chunk, id.as_bytes(), object, |out| {
            let began = Instant::now();
            let compressed = compressor.compress(data, out).map_err(compress_failed);
            compressing = began.elapsed();
            compressed
        })?;
        self.stages.add(Stage::Compress, compressing);
        self.stages.add(Stage::Seal, began.elapsed().saturating_sub(compressing));
        let stored = object.len() as u32;
        self.packs.add(kind, number, object, |place| self.references.placed(number, place, stored))?;
        if kind == PackKind::Data {
            self.added_stored.fetch_add(stored.into(), Ordering::Relaxed);
            self.added_plain.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Ok(stored)
    }

    /// Writes the packs that are not full.
    pub fn close(self) -> Result<()> {
        self.packs.close_all()
    }
}
