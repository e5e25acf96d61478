//! Storing chunks: named, looked up, and only then compressed, sealed and packed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::codec::{Compression, Compressor};
use crate::error::{CodecError, Result, VykarError};
use crate::format::envelope::{ObjectKind, seal_into};
use crate::format::{ChunkRef, IndexBlob};
use crate::id::ChunkId;
use crate::repository::Keys;
use crate::repository::pack_writer::{PackKind, PackWriter};

const SHARDS: usize = 64;

/// A chunk that this backup stores.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewChunk {
    /// References by this backup's items; zero when those were taken back.
    pub refs: u32,
    /// Length of its object; `None` while another thread is sealing it.
    stored_size: Option<u32>,
}

#[derive(Default)]
struct Shard {
    chunks: Mutex<HashMap<ChunkId, NewChunk>>,
    sealed: Condvar,
}

/// How often this backup refers to each chunk, and which chunks are new.
pub struct References {
    /// The index when the backup began.
    pub base: Arc<IndexBlob>,
    /// References to the chunks of `base`, by slot.
    pub to_base: Vec<AtomicU32>,
    shards: Vec<Shard>,
}

impl References {
    /// None yet.
    pub fn new(base: Arc<IndexBlob>) -> Self {
        let to_base = (0..base.chunks.len()).map(|_| AtomicU32::new(0)).collect();
        References { base, to_base, shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    fn shard(&self, id: &ChunkId) -> &Shard {
        // The table in `base` is sorted by the first bytes; these are as random.
        &self.shards[usize::from(id.0[31]) % SHARDS]
    }

    /// References to a new chunk.
    pub fn to_new(&self, id: &ChunkId) -> u32 {
        self.shard(id).chunks.lock().get(id).map_or(0, |chunk| chunk.refs)
    }

    /// Refers to chunks of the index, if every one is there.
    pub fn add_existing(&self, chunks: &[ChunkRef]) -> bool {
        let slots: Option<Vec<usize>> = chunks.iter().map(|c| self.base.chunks.find(&c.id)).collect();
        let Some(slots) = slots else { return false };
        for slot in slots {
            self.to_base[slot].fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Refers once more to chunks that were put or found before.
    pub fn add_again(&self, chunks: &[ChunkRef]) {
        self.change(chunks, 1);
    }

    /// Takes references back, as of a file that is read again.
    pub fn remove(&self, chunks: &[ChunkRef]) {
        self.change(chunks, -1);
    }

    fn change(&self, chunks: &[ChunkRef], by: i32) {
        for chunk in chunks {
            if let Some(slot) = self.base.chunks.find(&chunk.id) {
                self.to_base[slot].fetch_add(by as u32, Ordering::Relaxed);
            } else if let Some(new) = self.shard(&chunk.id).chunks.lock().get_mut(&chunk.id) {
                new.refs = new.refs.saturating_add_signed(by);
            }
        }
    }
}

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
    references: &'b References,
    packs: PackWriter,
    /// Stored bytes of new file chunks.
    pub added_stored: AtomicU64,
    /// Plaintext bytes of new file chunks.
    pub added_plain: AtomicU64,
}

impl<'b> ChunkStore<'b> {
    /// Over the references and packs of one backup.
    pub fn new(keys: &'b Keys, references: &'b References, packs: PackWriter) -> Self {
        ChunkStore {
            keys,
            references,
            packs,
            added_stored: AtomicU64::new(0),
            added_plain: AtomicU64::new(0),
        }
    }

    /// Stores a chunk, or finds it, and counts one reference to it.
    pub fn put(&self, sealer: &mut Sealer, kind: PackKind, data: &[u8]) -> Result<ChunkRef> {
        let id = self.keys.hasher().chunk_id(data)?;
        // A chunk is at most 16 MiB.
        let size = data.len() as u32;
        if let Some(slot) = self.references.base.chunks.find(&id) {
            self.references.to_base[slot].fetch_add(1, Ordering::Relaxed);
            let stored_size = self.references.base.chunks.entry(slot).stored_size;
            return Ok(ChunkRef { id, size, stored_size });
        }
        let shard = self.references.shard(&id);
        {
            let mut chunks = shard.chunks.lock();
            if let Some(chunk) = chunks.get_mut(&id) {
                chunk.refs = chunk.refs.saturating_add(1);
                // Another thread is sealing it: its size is known in a moment.
                loop {
                    match chunks.get(&id).map(|chunk| chunk.stored_size) {
                        Some(Some(stored_size)) => return Ok(ChunkRef { id, size, stored_size }),
                        Some(None) => shard.sealed.wait(&mut chunks),
                        None => return Err(VykarError::Interrupted),
                    }
                }
            }
            chunks.insert(id, NewChunk { refs: 1, stored_size: None });
        }
        let sealed = self.seal(sealer, kind, id, data);
        let mut chunks = shard.chunks.lock();
        match &sealed {
            Ok(stored_size) => {
                if let Some(chunk) = chunks.get_mut(&id) {
                    chunk.stored_size = Some(*stored_size);
                }
            }
            // Whoever waits for it must not wait for ever.
            Err(_) => drop(chunks.remove(&id)),
        }
        shard.sealed.notify_all();
        drop(chunks);
        Ok(ChunkRef { id, size, stored_size: sealed? })
    }

    fn seal(&self, sealer: &mut Sealer, kind: PackKind, id: ChunkId, data: &[u8]) -> Result<u32> {
        let Sealer { compressor, object } = sealer;
        object.clear();
        seal_into(self.keys.engine(), ObjectKind::Chunk, id.as_bytes(), object, |out| {
            compressor.compress(data, out).map_err(compress_failed)
        })?;
        self.packs.add(kind, id, object)?;
        let stored = object.len() as u32;
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
