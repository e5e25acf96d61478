//! `index`: object tag 4, context `index`; the plaintext is compressed MessagePack.
//!
//! ```text
//! [ generation u64,
//!   [ { chunk id 32 bytes => [ refcount u32, stored_size u32, pack id 32 bytes, pack_offset u64 ] } ] ]
//! ```
//!
//! In memory the map is a [`ChunkTable`]: sorted by id, 48 bytes a chunk, pack ids kept once.

use std::collections::HashMap;
use std::io::Write;

use super::config::RepoConfig;
use super::wire::Reader;
use crate::error::FormatError;
use crate::id::{ChunkId, PackId};

/// One entry of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The chunk.
    pub id: ChunkId,
    /// How many times all snapshots together refer to it.
    pub refcount: u32,
    /// Length of its object in bytes.
    pub stored_size: u32,
    /// The pack that holds it.
    pub pack: PackId,
    /// Where its object begins in the pack.
    pub offset: u64,
}

/// The decoded index object.
#[derive(Debug, Default)]
pub struct IndexBlob {
    /// A random value, fresh at each write.
    pub generation: u64,
    /// The chunks.
    pub chunks: ChunkTable,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    id: [u8; 32],
    pack: u32,
    offset: u32,
    stored_size: u32,
    refcount: u32,
}

/// All chunks of a repository, sorted by id.
#[derive(Debug, Default)]
pub struct ChunkTable {
    slots: Vec<Slot>,
    packs: Vec<PackId>,
    /// `starts[b]` is the first slot whose id's first `bits` bits are at least `b`.
    starts: Vec<u32>,
    bits: u32,
}

impl ChunkTable {
    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Every pack that an entry names, once, in no order.
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// The slot of a chunk: a number below [`ChunkTable::len`] that stays valid for this table.
    pub fn find(&self, id: &ChunkId) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let bucket = prefix(&id.0, self.bits) as usize;
        let (from, to) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let found = self.slots[from..to].binary_search_by(|slot| slot.id.cmp(&id.0)).ok()?;
        Some(from + found)
    }

    /// The entry in a slot. `slot` must come from [`ChunkTable::find`] on this table.
    pub fn entry(&self, slot: usize) -> IndexEntry {
        let s = &self.slots[slot];
        IndexEntry {
            id: ChunkId(s.id),
            refcount: s.refcount,
            stored_size: s.stored_size,
            pack: self.packs[s.pack as usize],
            offset: s.offset.into(),
        }
    }

    /// The number of a slot's pack in [`ChunkTable::packs`].
    pub fn pack_number(&self, slot: usize) -> u32 {
        self.slots[slot].pack
    }

    /// The entry of a chunk.
    pub fn get(&self, id: &ChunkId) -> Option<IndexEntry> {
        self.find(id).map(|slot| self.entry(slot))
    }

    /// All entries, sorted by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = IndexEntry> + '_ {
        (0..self.slots.len()).map(|slot| self.entry(slot))
    }

    /// Builds a table. Fails on a chunk given twice, or one that lies beyond the largest pack.
    pub fn build(entries: impl IntoIterator<Item = IndexEntry>) -> Result<Self, FormatError> {
        let mut builder = Builder::default();
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

#[derive(Default)]
struct Builder {
    table: ChunkTable,
    numbers: HashMap<PackId, u32>,
}

impl Builder {
    fn add(&mut self, e: IndexEntry) -> Result<(), FormatError> {
        let end = e.offset.checked_add(e.stored_size.into());
        let max = u64::from(RepoConfig::MAX_PACK) + super::MAX_CHUNK_PLAINTEXT * 2;
        let Some(offset) = end.filter(|end| *end <= max).and_then(|_| u32::try_from(e.offset).ok()) else {
            return Err(FormatError::OutOfBounds { what: "pack offset", found: e.offset, min: 0, max });
        };
        let packs = &mut self.table.packs;
        let pack = *self.numbers.entry(e.pack).or_insert_with(|| {
            packs.push(e.pack);
            packs.len() as u32 - 1
        });
        let (stored_size, refcount) = (e.stored_size, e.refcount);
        self.table.slots.push(Slot { id: e.id.0, pack, offset, stored_size, refcount });
        Ok(())
    }

    fn finish(mut self) -> Result<ChunkTable, FormatError> {
        let slots = &mut self.table.slots;
        if !slots.is_sorted_by(|a, b| a.id < b.id) {
            slots.sort_unstable_by_key(|slot| slot.id);
        }
        if let Some(pair) = slots.windows(2).find(|pair| pair[0].id == pair[1].id) {
            let reason = format!("chunk {} twice", ChunkId(pair[0].id));
            return Err(FormatError::Invalid { what: "index", reason });
        }
        // About four chunks a bucket; ids are hashes, so buckets are even.
        let bits = (slots.len() as u64 / 4).checked_ilog2().unwrap_or(0).min(24);
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (at, slot) in slots.iter().enumerate() {
            while starts.len() <= prefix(&slot.id, bits) as usize {
                starts.push(at as u32);
            }
        }
        starts.resize((1 << bits) + 1, slots.len() as u32);
        self.table.bits = bits;
        self.table.starts = starts;
        Ok(self.table)
    }
}

impl IndexBlob {
    /// Decodes the decompressed plaintext.
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(data);
        r.array_of("index", 2, 2)?;
        let generation = r.uint("index generation")?;
        r.array_of("index map", 1, 1)?;
        let count = r.map("index map")?;
        // u32 slots: 4 GiB of plaintext cannot hold more than 2^27 entries.
        let mut builder = Builder::default();
        builder.table.slots.reserve_exact(r.capacity(count, 73));
        for _ in 0..count {
            let id = ChunkId(r.fixed("chunk id")?);
            r.array_of("index entry", 4, 4)?;
            builder.add(IndexEntry {
                id,
                refcount: r.u32("refcount")?,
                stored_size: r.u32("stored size")?,
                pack: PackId(r.fixed("pack id")?),
                offset: r.uint("pack offset")?,
            })?;
        }
        r.end("index")?;
        Ok(IndexBlob { generation, chunks: builder.finish()? })
    }

    /// Writes the plaintext. `count` must be the number of entries.
    pub fn encode_to(
        out: &mut impl Write,
        generation: u64,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
    ) -> std::io::Result<()> {
        use rmp::encode::{write_array_len, write_map_len, write_uint};
        write_array_len(out, 2)?;
        write_uint(out, generation)?;
        write_array_len(out, 1)?;
        write_map_len(out, count)?;
        let mut buf = Vec::with_capacity(160);
        for e in entries {
            buf.clear();
            write_id(&mut buf, &e.id.0)?;
            write_array_len(&mut buf, 4)?;
            write_uint(&mut buf, e.refcount.into())?;
            write_uint(&mut buf, e.stored_size.into())?;
            write_id(&mut buf, &e.pack.0)?;
            write_uint(&mut buf, e.offset)?;
            out.write_all(&buf)?;
        }
        Ok(())
    }
}

fn write_id(out: &mut Vec<u8>, id: &[u8; 32]) -> std::io::Result<()> {
    rmp::encode::write_array_len(out, 32)?;
    for byte in id {
        rmp::encode::write_uint(out, u64::from(*byte))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(n: u32) -> IndexEntry {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        IndexEntry {
            id: ChunkId(id),
            refcount: n,
            stored_size: n * 3,
            pack: PackId([(n % 7) as u8; 32]),
            offset: u64::from(n) + 13,
        }
    }

    fn encoded(generation: u64, entries: &[IndexEntry]) -> Vec<u8> {
        let mut out = Vec::new();
        IndexBlob::encode_to(&mut out, generation, entries.len() as u32, entries.iter().copied()).unwrap();
        out
    }

    #[test]
    fn golden_bytes() {
        let e = IndexEntry {
            id: ChunkId([1; 32]),
            refcount: 2,
            stored_size: 300,
            pack: PackId([0xff; 32]),
            offset: 13,
        };
        let mut expected = vec![0x92, 0xcf, 1, 2, 3, 4, 5, 6, 7, 8, 0x91, 0x81, 0xdc, 0, 32];
        expected.extend([1; 32]);
        expected.extend([0x94, 2, 0xcd, 1, 44, 0xdc, 0, 32]);
        expected.extend([0xcc, 0xff].repeat(32));
        expected.push(13);
        assert_eq!(encoded(0x0102_0304_0506_0708, &[e]), expected);
        let back = IndexBlob::decode(&expected).unwrap();
        assert_eq!(back.generation, 0x0102_0304_0506_0708);
        assert_eq!(back.chunks.iter().collect::<Vec<_>>(), [e]);
        for n in 0..expected.len() {
            assert!(IndexBlob::decode(&expected[..n]).is_err());
        }
    }

    #[test]
    fn encoding_agrees_with_rmp_serde() {
        type Body = (u64, (BTreeMap<[u8; 32], (u32, u32, [u8; 32], u64)>,));
        let mut entries: Vec<_> = (0..500).map(entry).collect();
        entries.sort_by_key(|e| e.id);
        let map = entries.iter().map(|e| (e.id.0, (e.refcount, e.stored_size, e.pack.0, e.offset))).collect();
        let body: Body = (7, (map,));
        assert_eq!(encoded(7, &entries), rmp_serde::to_vec(&body).unwrap());
    }

    #[test]
    fn entries_beyond_the_largest_pack_and_duplicates_are_refused() {
        let far = IndexEntry { offset: 1 << 32, ..entry(1) };
        assert!(ChunkTable::build([far]).is_err());
        assert!(ChunkTable::build([IndexEntry { offset: u64::MAX, ..entry(1) }]).is_err());
        assert!(ChunkTable::build([entry(1), entry(1)]).is_err());
    }

    proptest! {
        #[test]
        fn lookup_finds_exactly_what_is_there(numbers in prop::collection::btree_set(0u32..100_000, 0..300), absent: [u8; 32]) {
            let entries: Vec<_> = numbers.iter().copied().map(entry).collect();
            let table = IndexBlob::decode(&encoded(9, &entries)).unwrap().chunks;
            prop_assert_eq!(table.len(), entries.len());
            for e in &entries {
                prop_assert_eq!(table.get(&e.id), Some(*e));
            }
            let absent = ChunkId(absent);
            prop_assert_eq!(table.get(&absent), entries.iter().copied().find(|e| e.id == absent));
        }
    }
}
