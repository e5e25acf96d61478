//! `index`: object tag 4, context `index`; the plaintext is compressed MessagePack.
//!
//! ```text
//! [ generation u64,
//!   [ { chunk id 32 bytes => [ refcount u32, stored_size u32, pack id 32 bytes, pack_offset u64 ] } ] ]
//! ```
//!
//! In memory the map is a [`ChunkTable`]: sorted by id, 48 bytes a chunk, pack ids kept once.

use std::io::{Read, Write};

pub use super::table::{ChunkTable, TableBuilder};
use super::window::Window;
use super::wire::{Reader, put_array, put_id, put_uint};
use crate::error::{FormatError, IndexError};
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

impl IndexBlob {
    /// Decodes the decompressed plaintext.
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        match Self::decode_from(&mut &*data) {
            Ok(index) => Ok(index),
            Err(IndexError::Format(e)) => Err(e),
            // A slice is never unreadable.
            Err(IndexError::Read(e)) => Err(FormatError::Invalid { what: "index", reason: e.to_string() }),
        }
    }

    /// Decodes the plaintext as it is decompressed, so that it is never in memory as a whole.
    ///
    /// # Errors
    /// What `source` fails with, and what is wrong with what it gives.
    pub fn decode_from(source: &mut dyn Read) -> Result<Self, IndexError> {
        let mut builder = TableBuilder::default();
        let generation = Self::decode_each(source, &mut |entry| Ok(builder.add(entry)?))?;
        Ok(IndexBlob { generation, chunks: builder.finish()? })
    }

    /// Decodes entry by entry, in the order they are stored in, which is any. Gives the generation.
    ///
    /// # Errors
    /// What `source` and `each` fail with, and what is wrong with what the source gives.
    pub fn decode_each(
        source: &mut dyn Read,
        each: &mut dyn FnMut(IndexEntry) -> Result<(), IndexError>,
    ) -> Result<u64, IndexError> {
        let mut window = Window::new(source);
        let (generation, count) = window.parse(read_head)?;
        for _ in 0..count {
            each(window.parse(read_entry)?)?;
        }
        window.end("index")?;
        Ok(generation)
    }

    /// The generation alone, from the beginning of the plaintext.
    pub fn decode_generation(head: &[u8]) -> Result<u64, FormatError> {
        Ok(read_head(&mut Reader::new(head))?.0)
    }

    /// Writes the plaintext. `count` must be the number of entries.
    pub fn encode_to(
        out: &mut impl Write,
        generation: u64,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
    ) -> std::io::Result<()> {
        let mut buf = Vec::with_capacity(160);
        put_array(&mut buf, 2);
        put_uint(&mut buf, generation);
        put_array(&mut buf, 1);
        rmp::encode::write_map_len(&mut buf, count)?;
        out.write_all(&buf)?;
        for e in entries {
            buf.clear();
            put_id(&mut buf, &e.id.0);
            put_array(&mut buf, 4);
            put_uint(&mut buf, e.refcount.into());
            put_uint(&mut buf, e.stored_size.into());
            put_id(&mut buf, &e.pack.0);
            put_uint(&mut buf, e.offset);
            out.write_all(&buf)?;
        }
        Ok(())
    }
}

/// Generation and number of entries.
fn read_head(r: &mut Reader<'_>) -> Result<(u64, usize), FormatError> {
    r.array_of("index", 2, 2)?;
    let generation = r.uint("index generation")?;
    r.array_of("index map", 1, 1)?;
    Ok((generation, r.map("index map")?))
}

fn read_entry(r: &mut Reader<'_>) -> Result<IndexEntry, FormatError> {
    let id = ChunkId(r.fixed("chunk id")?);
    r.array_of("index entry", 4, 4)?;
    Ok(IndexEntry {
        id,
        refcount: r.u32("refcount")?,
        stored_size: r.u32("stored size")?,
        pack: PackId(r.fixed("pack id")?),
        offset: r.uint("pack offset")?,
    })
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
