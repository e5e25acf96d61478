//! A local copy of the index that is mapped into memory instead of decoded.
//!
//! ```text
//! header  "VYKARIX2" | generation u64 | stamp 24 | chunks u64 | packs u32 | bits u32 | digest 32 | check 32
//! slots   as in a chunk table
//! starts  as in a chunk table
//! packs   pack id 32 ...
//! ```
//!
//! The digest is a hash of all that follows the header, the check one of the header, both keyed with the
//! repository's key. The digest takes as long as reading the file does, and is looked at only by those who must
//! rely on the copy; for the others a wrong slot leads to a chunk that does not open.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use parking_lot::Mutex;

use crate::crypto::ChunkHasher;
use crate::format::table::{self, ChunkTable, MAX_BITS, SLOT, SlotEncoder, TableSource};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::PackId;
use crate::local_state::cache_file;
use crate::local_state::cache_file::{Fields, temporary};
use crate::platform::map::{MapState, ReadOnlyMap, ScratchMap};
use crate::repository::objects::index::IndexStamp;

pub(crate) mod fuzz;

const MAGIC: &[u8; 8] = b"VYKARIX2";
const FIELDS: usize = 8 + 8 + IndexStamp::LEN + 8 + 4 + 4 + 32;
const HEADER: usize = FIELDS + 32;

fn path(dir: &Path) -> PathBuf {
    dir.join("index")
}

/// An open copy.
pub(crate) struct IndexCache {
    pub index: Arc<IndexBlob>,
    body: Bytes,
    digest: [u8; 32],
    watch: Arc<MapWatch>,
    /// What the file was like when every byte was as it was written.
    sound: Mutex<Option<MapState>>,
}

/// The map, and what its file was like when it was opened.
#[derive(Default)]
struct MapWatch {
    map: Option<Arc<ReadOnlyMap>>,
    opened: Option<MapState>,
}

impl MapWatch {
    fn state(&self) -> Option<MapState> {
        self.map.as_ref().and_then(|map| map.state())
    }
}

impl fmt::Debug for MapWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opened.fmt(f)
    }
}

impl TableSource for MapWatch {
    fn is_unchanged(&self) -> bool {
        self.opened.is_some() && self.state() == self.opened
    }
}

/// A map that its users share.
struct SharedMap(Arc<ReadOnlyMap>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl IndexCache {
    /// True when every byte is as it was written. Reads all of it, unless nobody wrote to it since that was done last.
    pub fn is_sound(&self, hasher: &ChunkHasher) -> bool {
        let mut sound = self.sound.lock();
        let state = self.watch.state();
        if state.is_some() && *sound == state {
            return true;
        }
        let right = digest(hasher, &self.body).is_some_and(|found| found == self.digest);
        // A page of zeros may have taken the place of one that was right a moment ago.
        let still = self.watch.state();
        *sound = state.filter(|_| right && still == state);
        right && still == state
    }
}

/// Opens the copy of the index with this stamp; `None` when there is none that can be used.
pub(crate) fn open(dir: &Path, hasher: &ChunkHasher, stamp: &IndexStamp) -> Option<IndexCache> {
    let map = Arc::new(ReadOnlyMap::open(&path(dir)).ok()?);
    let bytes = Bytes::from_owner(SharedMap(map.clone()));
    let watch = MapWatch { opened: map.state(), map: Some(map) };
    parse(&bytes, Arc::new(watch), hasher, stamp)
}

/// Removes the copy, which was found damaged.
pub(crate) fn remove(dir: &Path) {
    cache_file::clear(&path(dir));
}

fn parse(
    bytes: &Bytes,
    watch: Arc<MapWatch>,
    hasher: &ChunkHasher,
    wanted: &IndexStamp,
) -> Option<IndexCache> {
    let (fields, found) = bytes.get(..HEADER)?.split_at(FIELDS);
    if check(hasher, fields)? != found {
        return None;
    }
    let mut fields = Fields(fields);
    let magic: [u8; 8] = fields.take()?;
    let generation = fields.u64()?;
    let stamp: [u8; IndexStamp::LEN] = fields.take()?;
    if magic != *MAGIC || stamp != wanted.to_bytes() {
        return None;
    }
    let chunks = usize::try_from(fields.u64()?).ok()?;
    let (packs, bits) = (fields.u32()?, fields.u32()?);
    let digest = fields.take()?;
    if bits > MAX_BITS {
        return None;
    }
    let body = bytes.slice(HEADER..);
    let starts = chunks.checked_mul(SLOT)?;
    let ids = starts.checked_add(((1usize << bits) + 1) * 4)?;
    if ids.checked_add((packs as usize).checked_mul(32)?)? != body.len() {
        return None;
    }
    let packs = body[ids..].chunks_exact(32).filter_map(|id| Some(PackId(id.try_into().ok()?))).collect();
    let chunks =
        ChunkTable::mapped(watch.clone(), (body.slice(..starts), body.slice(starts..ids)), packs, bits)?;
    let index = Arc::new(IndexBlob { generation, chunks });
    Some(IndexCache { index, body, digest, watch, sound: Mutex::default() })
}

fn check(hasher: &ChunkHasher, fields: &[u8]) -> Option<[u8; 32]> {
    hasher.local(b"VKINDEXC", &[fields]).ok()
}

fn digest(hasher: &ChunkHasher, body: &[u8]) -> Option<[u8; 32]> {
    hasher.local(b"VKINDEXD", &[body]).ok()
}

/// A file that has no name any more, and is gone when it is closed.
pub(crate) fn scratch_file(dir: &Path) -> io::Result<File> {
    crate::platform::private::make_dirs(dir)?;
    let path = temporary(dir)?;
    let file = crate::platform::private::create_new(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Writes a copy entry by entry. Dropped before its end, it leaves nothing.
pub(crate) struct CopyWriter {
    dir: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    encoder: SlotEncoder,
    chunks: u64,
}

impl CopyWriter {
    /// An empty one.
    pub fn create(dir: &Path) -> io::Result<Self> {
        crate::platform::private::make_dirs(dir)?;
        let temporary = temporary(dir)?;
        let file = crate::platform::private::create_new(&temporary)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&[0; HEADER])?;
        Ok(CopyWriter { dir: dir.to_owned(), temporary, out, encoder: SlotEncoder::default(), chunks: 0 })
    }

    /// Adds an entry, in any order.
    pub fn add(&mut self, entry: &IndexEntry) -> io::Result<()> {
        let slot = self.encoder.slot(entry).map_err(io::Error::other)?;
        self.out.write_all(&slot)?;
        self.chunks += 1;
        Ok(())
    }

    /// Puts the copy into place.
    pub fn finish(mut self, hasher: &ChunkHasher, generation: u64, stamp: &IndexStamp) -> io::Result<()> {
        self.out.flush()?;
        let bits = self.append_starts()?;
        for id in &self.encoder.packs {
            self.out.write_all(&id.0)?;
        }
        self.out.flush()?;
        let file = self.out.get_mut();
        let map = ScratchMap::new(file)?;
        let digest = digest(hasher, &map[HEADER..]).ok_or_else(hashing_failed)?;
        map.check()?;
        drop(map);
        let mut fields = Vec::with_capacity(HEADER);
        fields.extend_from_slice(MAGIC);
        fields.extend(generation.to_le_bytes());
        fields.extend(stamp.to_bytes());
        fields.extend(self.chunks.to_le_bytes());
        // Every pack holds a chunk, and chunks are numbered by 32 bits.
        fields.extend((self.encoder.packs.len() as u32).to_le_bytes());
        fields.extend(bits.to_le_bytes());
        fields.extend(digest);
        let check = check(hasher, &fields).ok_or_else(hashing_failed)?;
        fields.extend(check);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&fields)?;
        cache_file::replace(&self.temporary, &path(&self.dir))
    }

    /// Sorts the slots where they are, which needs no other memory than the file's, and writes the starts.
    fn append_starts(&mut self) -> io::Result<u32> {
        let mut map = ScratchMap::new(self.out.get_ref())?;
        let (slots, _) = map[HEADER..].as_chunks_mut::<SLOT>();
        table::sort(slots).map_err(io::Error::other)?;
        let (starts, bits) = table::starts(slots);
        map.check()?;
        drop(map);
        self.out.write_all(&starts)?;
        Ok(bits)
    }
}

fn hashing_failed() -> io::Error {
    io::Error::other("hashing failed")
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        // Gone already when it was put into place.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    fn entry(n: u32) -> IndexEntry {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        let pack = PackId([(n % 3) as u8; 32]);
        IndexEntry { id: ChunkId(id), refcount: n, stored_size: n + 1, pack, offset: u64::from(n) }
    }

    fn sample(count: u32) -> IndexBlob {
        IndexBlob { generation: 5, chunks: ChunkTable::build((0..count).map(entry)).unwrap() }
    }

    fn stamp(n: u8) -> IndexStamp {
        IndexStamp::from_bytes([n; IndexStamp::LEN])
    }

    fn hasher() -> ChunkHasher {
        ChunkHasher::new([1; 32])
    }

    fn write(dir: &Path, entries: &[IndexEntry]) -> io::Result<()> {
        let mut writer = CopyWriter::create(dir).unwrap();
        entries.iter().try_for_each(|e| writer.add(e))?;
        writer.finish(&hasher(), 5, &stamp(1))
    }

    #[test]
    fn a_copy_says_what_the_index_says_whatever_its_order() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 2, 1000] {
            let index = sample(count);
            let sorted: Vec<_> = index.chunks.iter().collect();
            let unsorted: Vec<_> = (0..count).map(entry).collect();
            for entries in [sorted, unsorted] {
                write(dir.path(), &entries).unwrap();
                let copy = open(dir.path(), &hasher(), &stamp(1)).unwrap();
                assert!(copy.is_sound(&hasher()) && copy.index.generation == 5);
                let chunks = &copy.index.chunks;
                assert!(chunks.is_copy() && !index.chunks.is_copy());
                assert_eq!(chunks.iter().collect::<Vec<_>>(), index.chunks.iter().collect::<Vec<_>>());
                assert_eq!(chunks.packs().len(), index.chunks.packs().len());
                assert!(index.chunks.iter().all(|entry| chunks.get(&entry.id) == Some(entry)));
            }
            assert!(open(dir.path(), &hasher(), &stamp(2)).is_none(), "of another index");
            assert!(
                open(dir.path(), &ChunkHasher::new([2; 32]), &stamp(1)).is_none(),
                "of another repository"
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_chunk_given_twice_makes_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &[entry(1), entry(2), entry(1)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_copy_is_not_sound_and_finds_nothing_that_is_wrong_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let index = sample(50);
        write(dir.path(), &(0..50).map(entry).collect::<Vec<_>>()).unwrap();
        let good = fs::read(path(dir.path())).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let parsed = parse(&Bytes::from(bad), Arc::default(), &hasher(), &stamp(1));
            assert_eq!(parsed.is_none(), at < HEADER, "{at}");
            let Some(copy) = parsed else { continue };
            assert!(!copy.is_sound(&hasher()), "{at}");
            let in_slots = at < HEADER + 50 * SLOT;
            let in_packs = at >= good.len() - 3 * 32;
            for (slot, entry) in index.chunks.iter().enumerate() {
                let wrong = copy.index.chunks.get(&entry.id).is_some_and(|found| found != entry);
                assert!(!wrong || in_packs || (in_slots && (at - HEADER) / SLOT == slot), "{at}");
            }
        }
        for n in 0..good.len() {
            assert!(
                parse(&Bytes::copy_from_slice(&good[..n]), Arc::default(), &hasher(), &stamp(1)).is_none(),
                "{n}"
            );
        }
    }
}
