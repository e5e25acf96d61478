//! How often a backup refers to each chunk, and which chunks are new.
//!
//! A backup may refer to ten million chunks and store as many: four bytes are kept for each chunk of the index,
//! about sixty for each new one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use parking_lot::{Condvar, Mutex};

use crate::error::{ObjectError, Result, VykarError};
use crate::format::pending::PendingChunk;
use crate::format::{ChunkRef, IndexBlob};
use crate::id::ChunkId;
use crate::repository::objects::pack_writer::ChunkPlace;
use crate::repository::resume::session_journal::PackedChunks;
use crate::repository::{LostPacks, RecoveredChunks};

/// New chunks are kept in so many parts, each with its own lock: the low bits of a chunk's number.
const SHARDS: u32 = 64;
const SHARD_BITS: u32 = SHARDS.ilog2();
/// Numbers in a shard.
const MAX_IN_SHARD: usize = 1 << (u32::BITS - SHARD_BITS);
/// New chunks whose memory is allocated at once.
const BLOCK: usize = 256;
/// Counters whose memory is allocated at once.
const COUNTERS: usize = 4096;

/// A chunk that this backup stores.
#[derive(Debug, Clone, Copy)]
pub struct NewChunk {
    /// Its id.
    pub id: ChunkId,
    /// BackupReferences by this backup's items; zero when those were taken back.
    pub refs: u32,
    /// Length of its object; zero while a thread is sealing it, and when that failed.
    pub stored_size: u32,
    /// Where it is.
    pub place: ChunkPlace,
}

/// Stored size of a chunk that could not be stored. No object is as long.
const FAILED: u32 = u32::MAX;

/// Chunks in blocks, so that growing copies nothing.
#[derive(Default)]
struct NewChunks {
    blocks: Vec<Vec<NewChunk>>,
    by_id: HashTable<u32>,
}

fn hash(id: &ChunkId) -> u64 {
    // Ids are hashes already.
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl NewChunks {
    fn get(&self, at: u32) -> &NewChunk {
        &self.blocks[at as usize / BLOCK][at as usize % BLOCK]
    }

    fn get_mut(&mut self, at: u32) -> &mut NewChunk {
        &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK]
    }

    fn find(&self, id: &ChunkId) -> Option<u32> {
        self.by_id.find(hash(id), |at| self.get(*at).id == *id).copied()
    }

    fn insert(&mut self, chunk: NewChunk) -> Option<u32> {
        let full = self.blocks.last().is_none_or(|block| block.len() == BLOCK);
        if full {
            if self.blocks.len() * BLOCK >= MAX_IN_SHARD {
                return None;
            }
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.len() - 1;
        let at = (block * BLOCK + self.blocks[block].len()) as u32;
        self.blocks[block].push(chunk);
        let blocks = &self.blocks;
        let hash_at = |at: &u32| hash(&blocks[*at as usize / BLOCK][*at as usize % BLOCK].id);
        self.by_id.insert_unique(hash(&chunk.id), at, hash_at);
        Some(at)
    }
}

#[derive(Default)]
struct CountShard {
    chunks: Mutex<NewChunks>,
    sealed: Condvar,
}

/// What became of a chunk that is to be stored.
pub enum Put {
    /// It is in the index, or was stored by this backup or one that is taken up: as so many bytes.
    Known(u32),
    /// It is new: the caller must store it under this number.
    New(u32),
}

/// A counter for each slot of a table, in blocks that are made when they are needed.
struct Counters(Vec<OnceLock<Box<[AtomicU32]>>>);

impl Counters {
    fn new(slots: usize) -> Self {
        Counters((0..slots.div_ceil(COUNTERS)).map(|_| OnceLock::new()).collect())
    }

    fn at(&self, slot: usize) -> &AtomicU32 {
        let block =
            self.0[slot / COUNTERS].get_or_init(|| (0..COUNTERS).map(|_| AtomicU32::new(0)).collect());
        &block[slot % COUNTERS]
    }

    fn get(&self, slot: usize) -> u32 {
        let block = self.0.get(slot / COUNTERS).and_then(OnceLock::get);
        block.map_or(0, |block| block[slot % COUNTERS].load(Ordering::Relaxed))
    }
}

/// Counts references. Shared by all threads of a backup.
pub struct BackupReferences {
    /// The index when the backup began.
    pub base: Arc<IndexBlob>,
    /// Chunks that others have stored and not published; none that is in the index.
    pub taken: Arc<RecoveredChunks>,
    /// Packs of the index that are not there in full: their chunks are stored again.
    pub lost: LostPacks,
    to_base: Counters,
    to_taken: Counters,
    shards: Vec<CountShard>,
}

/// A chunk that was there before the backup, by its slot.
#[derive(Clone, Copy)]
enum Old {
    Base(usize),
    Taken(usize),
}

impl BackupReferences {
    /// None yet.
    pub fn new(base: Arc<IndexBlob>, taken: Arc<RecoveredChunks>, lost: LostPacks) -> Self {
        let (to_base, to_taken) = (Counters::new(base.chunks.len()), Counters::new(taken.chunks.len()));
        let shards = (0..SHARDS).map(|_| CountShard::default()).collect();
        BackupReferences { base, taken, lost, to_base, to_taken, shards }
    }

    fn find_old(&self, id: &ChunkId) -> Option<Old> {
        let table = &self.base.chunks;
        let base = table.find(id).filter(|slot| !self.lost.has_slot(table, *slot));
        base.map(Old::Base).or_else(|| self.taken.chunks.find(id).map(Old::Taken))
    }

    fn counter(&self, old: Old) -> &AtomicU32 {
        match old {
            Old::Base(slot) => self.to_base.at(slot),
            Old::Taken(slot) => self.to_taken.at(slot),
        }
    }

    /// BackupReferences to a chunk of the index, by its slot there.
    pub fn to_base(&self, slot: usize) -> u32 {
        self.to_base.get(slot)
    }

    /// BackupReferences to a chunk that was taken up, by its slot there.
    pub fn to_taken(&self, slot: usize) -> u32 {
        self.to_taken.get(slot)
    }

    fn shard(&self, id: &ChunkId) -> (u32, &CountShard) {
        // The table is searched by the first bytes; these are as random.
        let number = u32::from(id.0[31]) % SHARDS;
        (number, &self.shards[number as usize])
    }

    fn by_number(&self, number: u32) -> (&CountShard, u32) {
        (&self.shards[(number % SHARDS) as usize], number >> SHARD_BITS)
    }

    /// A new chunk.
    pub fn new_chunk(&self, number: u32) -> NewChunk {
        let (shard, at) = self.by_number(number);
        *shard.chunks.lock().get(at)
    }

    /// Counts a reference to a chunk and says whether it must be stored. Waits while another thread is sealing it.
    ///
    /// # Errors
    /// When the other thread failed, or there are too many chunks.
    pub fn put(&self, id: &ChunkId) -> Result<Put> {
        if let Some(old) = self.find_old(id) {
            self.counter(old).fetch_add(1, Ordering::Relaxed);
            let entry = match old {
                Old::Base(slot) => self.base.chunks.entry(slot),
                Old::Taken(slot) => self.taken.chunks.entry(slot),
            };
            return Ok(Put::Known(entry.stored_size));
        }
        let (shard_number, shard) = self.shard(id);
        let mut chunks = shard.chunks.lock();
        if let Some(at) = chunks.find(id) {
            let chunk = chunks.get_mut(at);
            chunk.refs = chunk.refs.saturating_add(1);
            loop {
                match *chunks.get(at) {
                    NewChunk { stored_size: FAILED, .. } => return Err(VykarError::Interrupted),
                    NewChunk { stored_size: 0, .. } => shard.sealed.wait(&mut chunks),
                    NewChunk { stored_size, .. } => return Ok(Put::Known(stored_size)),
                }
            }
        }
        let place = ChunkPlace { pack: 0, offset: 0 };
        let at = chunks.insert(NewChunk { id: *id, refs: 1, stored_size: 0, place });
        let too_many = || VykarError::CommitRefused { reason: "more than 2^32 new chunks".into() };
        Ok(Put::New(at.ok_or_else(too_many)? << SHARD_BITS | shard_number))
    }

    /// A new chunk has been put into a pack.
    pub fn placed(&self, number: u32, place: ChunkPlace, stored_size: u32) {
        let (shard, at) = self.by_number(number);
        let mut chunks = shard.chunks.lock();
        let chunk = chunks.get_mut(at);
        (chunk.place, chunk.stored_size) = (place, stored_size);
        drop(chunks);
        shard.sealed.notify_all();
    }

    /// A new chunk could not be stored: whoever waits for it must not wait for ever.
    pub fn failed(&self, number: u32) {
        let (shard, at) = self.by_number(number);
        shard.chunks.lock().get_mut(at).stored_size = FAILED;
        shard.sealed.notify_all();
    }

    /// Refers to chunks that were there before the backup, if every one was.
    pub fn add_existing(&self, chunks: &[ChunkRef]) -> bool {
        let find = |c: &ChunkRef| self.find_old(&c.id);
        if let [chunk] = chunks {
            // Most files.
            return find(chunk).map(|old| self.counter(old).fetch_add(1, Ordering::Relaxed)).is_some();
        }
        let Some(found) = chunks.iter().map(find).collect::<Option<Vec<Old>>>() else { return false };
        for old in found {
            self.counter(old).fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Why [`BackupReferences::add_existing`] refused these.
    pub fn why_not_there(&self, chunks: &[ChunkRef]) -> VykarError {
        let Some(chunk) = chunks.iter().find(|chunk| self.find_old(&chunk.id).is_none()) else {
            return VykarError::Usage("chunks were found only when they were looked at again".into());
        };
        match self.base.chunks.get(&chunk.id) {
            None => VykarError::ChunkMissing { chunk: chunk.id },
            Some(entry) => {
                let cause = ObjectError::Unreadable("the pack is missing or too short".into());
                VykarError::ChunkDamaged { chunk: chunk.id, pack: entry.pack, cause }
            }
        }
    }

    /// Refers to a chunk that was there before or has been put, and gives its stored size; `None` when it must be put.
    ///
    /// # Errors
    /// As [`BackupReferences::put`].
    pub fn add_known(&self, id: &ChunkId) -> Result<Option<u32>> {
        if self.find_old(id).is_none() && self.shard(id).1.chunks.lock().find(id).is_none() {
            return Ok(None);
        }
        // What is known stays so.
        match self.put(id)? {
            Put::Known(stored_size) => Ok(Some(stored_size)),
            Put::New(number) => {
                self.failed(number);
                Err(VykarError::Interrupted)
            }
        }
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
            if let Some(old) = self.find_old(&chunk.id) {
                self.counter(old).fetch_add(by as u32, Ordering::Relaxed);
                continue;
            }
            let mut new = self.shard(&chunk.id).1.chunks.lock();
            if let Some(at) = new.find(&chunk.id) {
                let chunk = new.get_mut(at);
                chunk.refs = chunk.refs.saturating_add_signed(by);
            }
        }
    }
}

impl PackedChunks for BackupReferences {
    fn pending(&self, chunk: u32) -> PendingChunk {
        let NewChunk { id, stored_size, place, .. } = self.new_chunk(chunk);
        (id, stored_size, place.offset.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ChunkId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        id[31] = (n % 251) as u8;
        ChunkId(id)
    }

    fn reference(n: u32) -> ChunkRef {
        ChunkRef { id: id(n), size: 1, stored_size: 1 }
    }

    #[test]
    fn new_chunks_are_stored_once_and_counted() {
        let references = BackupReferences::new(Arc::default(), Arc::default(), LostPacks::default());
        let mut numbers = Vec::new();
        for n in 0..50_000 {
            let Ok(Put::New(number)) = references.put(&id(n)) else { panic!("{n} is not new") };
            references.placed(number, ChunkPlace { pack: n / 1000, offset: n % 1000 }, n + 1);
            numbers.push(number);
        }
        for (n, number) in (0..).zip(&numbers) {
            assert!(matches!(references.put(&id(n)), Ok(Put::Known(size)) if size == n + 1));
            let chunk = references.new_chunk(*number);
            assert_eq!((chunk.id, chunk.refs, chunk.place.pack), (id(n), 2, n / 1000));
            assert_eq!(references.pending(*number), (id(n), n + 1, u64::from(n % 1000)));
        }
        references.remove(&[reference(7), reference(7)]);
        references.add_again(&[reference(8)]);
        assert_eq!([7, 8].map(|n| references.new_chunk(numbers[n]).refs), [0, 3]);
        assert!(!references.add_existing(&[reference(7)]), "not in the index");
    }

    #[test]
    fn a_chunk_that_could_not_be_stored_keeps_nobody_waiting() {
        let references = BackupReferences::new(Arc::default(), Arc::default(), LostPacks::default());
        let Ok(Put::New(number)) = references.put(&id(1)) else { panic!() };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| references.put(&id(1)).is_err());
            std::thread::sleep(std::time::Duration::from_millis(20));
            references.failed(number);
            assert!(waiting.join().unwrap());
        });
    }
}
