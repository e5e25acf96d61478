//! A local copy of the index that is mapped into memory instead of decoded.
//!
//! ```text
//! header  "VYKARIX1" | generation u64 | chunks u64 | packs u32 | bits u32 | check 32
//! packs   pack id 32 ...
//! starts  as in a chunk table
//! slots   as in a chunk table
//! ```
//!
//! The check is a hash, keyed with the repository's, of the header's other fields and the packs. Slots are not checked: one that is
//! wrong leads to a chunk that does not open, and then the index itself is read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::crypto::{ChunkHasher, random};
use crate::format::IndexBlob;
use crate::format::table::{ChunkTable, MAX_BITS, SLOT};
use crate::id::{PackId, SessionId};
use crate::platform::map::ReadOnlyMap;

const MAGIC: &[u8; 8] = b"VYKARIX1";
const FIELDS: usize = 8 + 8 + 8 + 4 + 4;
const HEADER: usize = FIELDS + 32;

fn path(dir: &Path) -> PathBuf {
    dir.join("index")
}

/// Opens the copy of this generation; `None` when there is none that can be used.
pub(super) fn open(dir: &Path, hasher: &ChunkHasher, generation: u64) -> Option<IndexBlob> {
    let map = ReadOnlyMap::open(&path(dir)).ok()?;
    let bytes = Bytes::from_owner(map);
    let index = parse(&bytes, hasher)?;
    (index.generation == generation).then_some(index)
}

fn parse(bytes: &Bytes, hasher: &ChunkHasher) -> Option<IndexBlob> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let small = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if !header.starts_with(MAGIC) {
        return None;
    }
    let (generation, chunks, packs, bits) = (number(8)?, number(16)?, small(24)?, small(28)?);
    if bits > MAX_BITS {
        return None;
    }
    let packs_end = HEADER.checked_add((packs as usize).checked_mul(32)?)?;
    let starts_end = packs_end.checked_add(((1usize << bits) + 1) * 4)?;
    let slots = usize::try_from(chunks).ok()?.checked_mul(SLOT)?;
    if starts_end.checked_add(slots)? != bytes.len() {
        return None;
    }
    let ids = &bytes[HEADER..packs_end];
    if check(hasher, &header[..FIELDS], ids)? != header[FIELDS..] {
        return None;
    }
    let packs = ids.chunks_exact(32).filter_map(|id| Some(PackId(id.try_into().ok()?))).collect();
    let table =
        ChunkTable::mapped(bytes.slice(starts_end..), bytes.slice(packs_end..starts_end), packs, bits)?;
    Some(IndexBlob { generation, chunks: table })
}

fn check(hasher: &ChunkHasher, fields: &[u8], packs: &[u8]) -> Option<[u8; 32]> {
    hasher.local(b"VKINDEXC", &[fields, packs]).ok()
}

/// Writes a copy, and opens it.
pub(super) fn write(dir: &Path, hasher: &ChunkHasher, index: &IndexBlob) -> io::Result<Option<IndexBlob>> {
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".tmp-{}", SessionId(random().map_err(io::Error::other)?)));
    let written = write_to(&temporary, hasher, index).and_then(|()| fs::rename(&temporary, path(dir)));
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    Ok(open(dir, hasher, index.generation))
}

fn write_to(path: &Path, hasher: &ChunkHasher, index: &IndexBlob) -> io::Result<()> {
    let table = &index.chunks;
    let (slots, starts, bits) = table.parts();
    let mut fields = Vec::with_capacity(FIELDS);
    fields.extend_from_slice(MAGIC);
    fields.extend(index.generation.to_le_bytes());
    fields.extend((table.len() as u64).to_le_bytes());
    // Every pack holds a chunk, and chunks are numbered by 32 bits.
    fields.extend((table.packs().len() as u32).to_le_bytes());
    fields.extend(bits.to_le_bytes());
    let packs: Vec<u8> = table.packs().iter().flat_map(|id| id.0).collect();
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    out.write_all(&fields)?;
    let check = check(hasher, &fields, &packs).ok_or_else(|| io::Error::other("hashing failed"))?;
    out.write_all(&check)?;
    out.write_all(&packs)?;
    if starts.is_empty() {
        // A table that was never built.
        out.write_all(&[0; 8])?;
    }
    out.write_all(starts)?;
    out.write_all(slots)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::IndexEntry;
    use crate::id::ChunkId;

    fn sample(generation: u64, count: u32) -> IndexBlob {
        let entry = |n: u32| {
            let mut id = [7; 32];
            id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
            let pack = PackId([(n % 3) as u8; 32]);
            IndexEntry { id: ChunkId(id), refcount: n, stored_size: n + 1, pack, offset: u64::from(n) }
        };
        IndexBlob { generation, chunks: ChunkTable::build((0..count).map(entry)).unwrap() }
    }

    fn hasher() -> ChunkHasher {
        ChunkHasher::new([1; 32])
    }

    #[test]
    fn a_copy_says_what_the_index_says() {
        let dir = tempfile::tempdir().unwrap();
        for (generation, count) in [(1, 0), (2, 1), (3, 1000)] {
            let index = sample(generation, count);
            let copy = write(dir.path(), &hasher(), &index).unwrap().unwrap();
            assert!(copy.chunks.is_copy() && !index.chunks.is_copy());
            assert_eq!(copy.chunks.iter().collect::<Vec<_>>(), index.chunks.iter().collect::<Vec<_>>());
            assert_eq!(copy.chunks.packs(), index.chunks.packs());
            for entry in index.chunks.iter() {
                assert_eq!(copy.chunks.get(&entry.id), Some(entry));
            }
            assert!(open(dir.path(), &hasher(), generation + 1).is_none(), "of another generation");
        }
        let empty = IndexBlob { generation: 5, ..IndexBlob::default() };
        assert!(write(dir.path(), &hasher(), &empty).unwrap().is_some());
    }

    #[test]
    fn a_damaged_copy_is_not_used_or_finds_something_else_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let index = sample(9, 50);
        write(dir.path(), &hasher(), &index).unwrap();
        let good = fs::read(path(dir.path())).unwrap();
        let slots = good.len() - 50 * SLOT;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let parsed = parse(&Bytes::from(bad), &hasher());
            if at < HEADER + 3 * 32 {
                assert!(parsed.is_none(), "{at}");
            }
            let Some(copy) = parsed else { continue };
            for (slot, entry) in index.chunks.iter().enumerate() {
                let wrong = copy.chunks.get(&entry.id).is_some_and(|found| found != entry);
                assert!(!wrong || at.checked_sub(slots).is_some_and(|at| at / SLOT == slot), "{at}");
            }
        }
        for n in 0..good.len() {
            assert!(parse(&Bytes::copy_from_slice(&good[..n]), &hasher()).is_none(), "{n}");
        }
    }
}
