//! All chunks of a repository, sorted by id.
//!
//! ```text
//! slot   chunk id 32 | pack number u32 | offset u32 | stored size u32 | reference count u32
//! starts (first slot whose id's first `bits` bits are at least b) u32, for b = 0 ..= 2^bits
//! ```
//!
//! Slots and starts are bytes, so that they may be in memory or in a mapped file.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::config::RepoConfig;
use super::index::IndexEntry;
use crate::error::FormatError;
use crate::id::{ChunkId, PackId};

/// Length of a slot in bytes.
pub(crate) const SLOT: usize = 48;
/// Most bits of an id that `starts` tells apart.
pub(crate) const MAX_BITS: u32 = 24;

/// What the bytes of a table are read from.
pub(crate) trait TableSource: fmt::Debug + Send + Sync {
    /// True as long as nobody wrote to it since the table was made.
    fn is_unchanged(&self) -> bool;
}

/// The table. What it says is only as good as the bytes that it was made of: a mapped file that was
/// damaged gives wrong entries, and never anything worse.
#[derive(Debug, Default)]
pub struct ChunkTable {
    len: usize,
    slots: Bytes,
    starts: Bytes,
    packs: Vec<PackId>,
    bits: u32,
    /// Of a mapped file.
    source: Option<Arc<dyn TableSource>>,
}

fn field(slot: &[u8], at: usize) -> u32 {
    slot.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl ChunkTable {
    /// Over bytes of a mapped file; `None` when their lengths do not fit.
    pub(crate) fn mapped(
        source: Arc<dyn TableSource>,
        (slots, starts): (Bytes, Bytes),
        packs: Vec<PackId>,
        bits: u32,
    ) -> Option<Self> {
        let len = slots.len() / SLOT;
        let fits = bits <= MAX_BITS
            && slots.len().is_multiple_of(SLOT)
            && starts.len() == ((1usize << bits) + 1) * 4
            && u32::try_from(len).is_ok();
        fits.then_some(ChunkTable { len, slots, starts, packs, bits, source: Some(source) })
    }

    /// True when this is a local copy, which may be out of date or damaged.
    pub fn is_copy(&self) -> bool {
        self.source.is_some()
    }

    /// False when somebody wrote to the local copy that this is since it was opened: slots may then stand for other
    /// chunks than they did. What was found before such a look is right.
    pub fn is_unchanged(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.is_unchanged())
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every pack that an entry names, once, in no order.
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    fn slot(&self, slot: usize) -> &[u8] {
        self.slots.get(slot * SLOT..(slot + 1) * SLOT).unwrap_or_default()
    }

    fn slot_id(&self, slot: usize) -> &[u8] {
        self.slot(slot).get(..32).unwrap_or_default()
    }

    /// The slot of a chunk: a number below [`ChunkTable::len`] that stays valid for this table.
    pub fn find(&self, id: &ChunkId) -> Option<usize> {
        let bucket = prefix(&id.0, self.bits) as usize;
        let start = |bucket: usize| self.starts.get(bucket * 4..).map(|b| field(b, 0) as usize);
        let (mut from, mut to) = (start(bucket)?, start(bucket + 1)?.min(self.len));
        while from < to {
            let middle = from + (to - from) / 2;
            match self.slot_id(middle).cmp(&id.0) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The chunk in a slot. `slot` must come from [`ChunkTable::find`] on this table.
    pub fn id(&self, slot: usize) -> ChunkId {
        ChunkId(self.slot_id(slot).try_into().unwrap_or_default())
    }

    /// The entry in a slot. `slot` must come from [`ChunkTable::find`] on this table.
    pub fn entry(&self, slot: usize) -> IndexEntry {
        let s = self.slot(slot);
        IndexEntry {
            id: self.id(slot),
            pack: self.packs.get(field(s, 32) as usize).copied().unwrap_or(PackId([0; 32])),
            offset: field(s, 36).into(),
            stored_size: field(s, 40),
            refcount: field(s, 44),
        }
    }

    /// The number of a slot's pack in [`ChunkTable::packs`].
    pub fn pack_number(&self, slot: usize) -> u32 {
        field(self.slot(slot), 32)
    }

    /// Where the object of a slot's chunk ends in its pack, in bytes.
    pub fn end_in_pack(&self, slot: usize) -> u64 {
        let s = self.slot(slot);
        u64::from(field(s, 36)) + u64::from(field(s, 40))
    }

    /// The entry of a chunk.
    pub fn get(&self, id: &ChunkId) -> Option<IndexEntry> {
        self.find(id).map(|slot| self.entry(slot))
    }

    /// All entries, sorted by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = IndexEntry> + '_ {
        (0..self.len).map(|slot| self.entry(slot))
    }

    /// Builds a table. Fails on a chunk given twice, or one that lies beyond the largest pack.
    pub fn build(entries: impl IntoIterator<Item = IndexEntry>) -> Result<Self, FormatError> {
        let mut builder = TableBuilder::default();
        for entry in entries {
            builder.add(entry)?;
        }
        builder.finish()
    }
}

fn prefix(id: &[u8; 32], bits: u32) -> u32 {
    let head = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
    head.checked_shr(32 - bits).unwrap_or(0)
}

fn slot_id(slot: &[u8; SLOT]) -> [u8; 32] {
    slot[..32].try_into().unwrap_or_default()
}

/// Sorts slots, unless they are.
///
/// # Errors
/// A chunk is there twice.
pub(crate) fn sort(slots: &mut [[u8; SLOT]]) -> Result<(), FormatError> {
    if slots.is_sorted_by(|a, b| a[..32] < b[..32]) {
        return Ok(());
    }
    slots.sort_unstable_by(|a, b| a[..32].cmp(&b[..32]));
    match slots.windows(2).find(|pair| pair[0][..32] == pair[1][..32]) {
        None => Ok(()),
        Some(pair) => {
            let reason = format!("chunk {} twice", ChunkId(slot_id(&pair[0])));
            Err(FormatError::Invalid { what: "index", reason })
        }
    }
}

/// The starts of sorted slots, and their bits.
pub(crate) fn starts(slots: &[[u8; SLOT]]) -> (Vec<u8>, u32) {
    // About four chunks a bucket; ids are hashes, so buckets are even.
    let bits = (slots.len() as u64 / 4).checked_ilog2().unwrap_or(0).min(MAX_BITS);
    let buckets = 1usize << bits;
    let mut starts = Vec::with_capacity((buckets + 1) * 4);
    for (at, slot) in slots.iter().enumerate() {
        while starts.len() <= prefix(&slot_id(slot), bits) as usize * 4 {
            starts.extend((at as u32).to_le_bytes());
        }
    }
    while starts.len() < (buckets + 1) * 4 {
        starts.extend((slots.len() as u32).to_le_bytes());
    }
    (starts, bits)
}

/// Makes slots of entries, and numbers their packs.
#[derive(Default)]
pub(crate) struct SlotEncoder {
    pub packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    last: Option<(PackId, u32)>,
}

impl SlotEncoder {
    /// The slot of an entry; fails on one that lies beyond the largest pack.
    pub fn slot(&mut self, e: &IndexEntry) -> Result<[u8; SLOT], FormatError> {
        let end = e.offset.checked_add(e.stored_size.into());
        let max = u64::from(RepoConfig::MAX_PACK) + super::MAX_CHUNK_PLAINTEXT * 2;
        let Some(offset) = end.filter(|end| *end <= max).and_then(|_| u32::try_from(e.offset).ok()) else {
            return Err(FormatError::OutOfBounds { what: "pack offset", found: e.offset, min: 0, max });
        };
        let packs = &mut self.packs;
        let pack = match self.last {
            Some((id, number)) if id == e.pack => number,
            _ => *self.numbers.entry(e.pack).or_insert_with(|| {
                packs.push(e.pack);
                packs.len() as u32 - 1
            }),
        };
        self.last = Some((e.pack, pack));
        let mut slot = [0; SLOT];
        slot[..32].copy_from_slice(&e.id.0);
        for (at, value) in (32..).step_by(4).zip([pack, offset, e.stored_size, e.refcount]) {
            slot[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Ok(slot)
    }
}

/// Collects entries in any order.
#[derive(Default)]
pub struct TableBuilder {
    slots: Vec<[u8; SLOT]>,
    encoder: SlotEncoder,
}

impl TableBuilder {
    /// Adds an entry; fails on one that lies beyond the largest pack.
    pub fn add(&mut self, e: IndexEntry) -> Result<(), FormatError> {
        let slot = self.encoder.slot(&e)?;
        self.slots.push(slot);
        Ok(())
    }

    /// Number of entries so far.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the entries behind the first `len` back.
    pub fn truncate(&mut self, len: usize) {
        self.slots.truncate(len);
    }

    /// Sorts; fails on a chunk given twice.
    pub fn finish(mut self) -> Result<ChunkTable, FormatError> {
        sort(&mut self.slots)?;
        Ok(self.table())
    }

    /// Sorts; of a chunk given several times, one entry stays.
    pub fn finish_distinct(mut self) -> ChunkTable {
        self.slots.sort_unstable_by(|a, b| a[..32].cmp(&b[..32]));
        self.slots.dedup_by(|a, b| a[..32] == b[..32]);
        self.table()
    }

    fn table(self) -> ChunkTable {
        let (starts, bits) = starts(&self.slots);
        ChunkTable {
            len: self.slots.len(),
            slots: Bytes::from(self.slots.into_flattened()),
            starts: Bytes::from(starts),
            packs: self.encoder.packs,
            bits,
            source: None,
        }
    }
}
