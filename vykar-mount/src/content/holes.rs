//! Which chunks of a file are nothing but zeros.
//!
//! The format has no holes: a sparse file's zeros are ordinary chunks. Cutting a run of zeros gives
//! chunks of the largest size and a rest, so those are recognised by their id, without reading them. What a run
//! shares with data in one chunk is not known from ids, but such a chunk takes next to nothing in its pack. It
//! counts as what it takes, and is read when somebody asks where its holes are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use vykar_core::ChunkId;
use vykar_core::format::MAX_CHUNK_PLAINTEXT;
use vykar_core::repository::Keys;

use crate::tree::FileChunks;

/// Most lengths whose zeros are remembered.
const REMEMBERED: usize = 16 << 10;
/// Holes are looked for in steps of this size, in bytes.
const BLOCK: u64 = 4096;
/// A chunk of at least this size, in bytes, that takes less than a hundredth of it holds zeros, most likely.
const SQUEEZED: u64 = 64 << 10;
const SQUEEZED_BY: u64 = 100;

/// What a chunk takes in its pack, rounded up to whole blocks, where that says that it is mostly zeros.
fn squeezed(content: FileChunks<'_>, at: usize) -> Option<u64> {
    let range = content.range(at);
    let len = range.end.saturating_sub(range.start);
    if len < SQUEEZED {
        return None;
    }
    let stored = u64::from(content.stored_size(at)?);
    (stored < len / SQUEEZED_BY).then(|| stored.next_multiple_of(BLOCK).min(len))
}

/// The first byte from `from` on that is in a block of zeros (`hole`) or in another, in a chunk that begins at
/// `start` of its file. Blocks are the file's.
fn find_in(chunk: &[u8], start: u64, from: u64, hole: bool) -> Option<u64> {
    let end = start.saturating_add(chunk.len() as u64);
    let mut block = (from / BLOCK * BLOCK).max(start);
    while block < end {
        let next = (block / BLOCK + 1).saturating_mul(BLOCK).min(end);
        let bytes = chunk.get((block - start) as usize..(next - start) as usize)?;
        if bytes.iter().all(|byte| *byte == 0) == hole {
            return Some(block.max(from));
        }
        block = next;
    }
    None
}

/// Ids of chunks of zeros.
pub(crate) struct Zeros {
    keys: Arc<Keys>,
    ids: Mutex<HashMap<u64, Option<ChunkId>>>,
}

impl Zeros {
    pub(crate) fn new(keys: Arc<Keys>) -> Self {
        Zeros { keys, ids: Mutex::new(HashMap::new()) }
    }

    /// The id of `len` zeros; `None` for more than a chunk may have.
    fn id(&self, len: u64) -> Option<ChunkId> {
        if len > MAX_CHUNK_PLAINTEXT {
            return None;
        }
        if let Some(id) = self.ids.lock().get(&len) {
            return *id;
        }
        let id = self.keys.hasher().chunk_id(&vec![0; len as usize]).ok();
        let mut ids = self.ids.lock();
        if ids.len() < REMEMBERED {
            ids.insert(len, id);
        }
        id
    }

    /// The ranges of a file's pieces, and whether each is a hole. `largest` is the size that its
    /// snapshot's chunks were cut to at most. A shorter piece is only looked at behind a hole, and at the
    /// end of a file that has one, or where it takes next to nothing: to hash zeros for every length that
    /// occurs would cost more than anyone gains.
    pub(crate) fn ranges<'a>(
        &'a self,
        content: FileChunks<'a>,
        largest: u32,
    ) -> impl Iterator<Item = (Range<u64>, bool)> + 'a {
        let (largest, size) = (u64::from(largest), content.size());
        let (mut hole, mut any) = (false, false);
        (0..content.len()).map(move |at| {
            let range = content.range(at);
            let len = range.end.saturating_sub(range.start);
            let rest = len > 0
                && len < largest
                && (hole || (range.end == size && (any || squeezed(content, at).is_some())));
            hole = (len == largest || rest) && self.id(len) == Some(content.id(at));
            any |= hole;
            (range, hole)
        })
    }

    /// Bytes of a file that are not holes, as far as that is known without reading it.
    pub(crate) fn allocated(&self, content: FileChunks<'_>, largest: u32) -> u64 {
        let taken = self.ranges(content, largest).enumerate().map(|(at, (range, hole))| match hole {
            true => 0,
            false => squeezed(content, at).unwrap_or(range.end.saturating_sub(range.start)),
        });
        // Pieces do not overlap, so this stays below the file's size.
        taken.sum()
    }

    /// The first byte at or behind `offset` that is in a hole (`hole`) or in none; the end of the file
    /// counts as a hole. `None` when there is no such byte. `read` gives the chunk of this number, where that may
    /// have holes in it; what it cannot give is data.
    pub(crate) fn seek(
        &self,
        (content, largest): (FileChunks<'_>, u32),
        offset: u64,
        hole: bool,
        read: &dyn Fn(usize) -> Option<Bytes>,
    ) -> Option<u64> {
        let size = content.size();
        if offset >= size {
            return None;
        }
        let pieces = self.ranges(content, largest).enumerate().filter(|(_, (range, _))| range.end > offset);
        for (at, (range, is_hole)) in pieces {
            let from = range.start.max(offset);
            let mixed = if is_hole { None } else { squeezed(content, at).and_then(|_| read(at)) };
            let found = match mixed {
                Some(chunk) => find_in(&chunk, range.start, from, hole),
                None => (is_hole == hole).then_some(from),
            };
            if found.is_some() {
                return found;
            }
        }
        hole.then_some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Builder, Tree};
    use crate::view::snapshots::made_up;
    use vykar_core::format::{ChunkRef, ChunkerParams, Encryption, Item, ItemType, RepoConfig};

    #[test]
    fn runs_of_zeros_are_holes() {
        let config = RepoConfig {
            version: 2,
            id: vykar_core::RepositoryId([1; 32]),
            chunker: ChunkerParams::FILES,
            encryption: Encryption::None,
            created: String::new(),
            min_pack_size: 1,
            max_pack_size: 2,
        };
        let zeros = Zeros::new(Arc::new(Keys::new(&config, None).unwrap()));
        let zero = |len| zeros.id(len).unwrap();
        let data = ChunkId([9; 32]);
        let ends =
            [(zero(10), 10), (data, 110), (zero(100), 210), (zero(100), 310), (zero(30), 340), (data, 350)];
        let tree = file(&ends);
        let pieces = tree.content(1);
        let holes: Vec<_> = zeros.ranges(pieces, 100).map(|(_, hole)| hole).collect();
        assert_eq!(holes, [false, false, true, true, true, false]);
        assert_eq!(zeros.allocated(pieces, 100), 120);
        let none = &|_| panic!("nothing need be read");
        let seek = |offset, hole| zeros.seek((pieces, 100), offset, hole, none);
        assert_eq!([0, 109, 110, 339].map(|o| seek(o, false)), [Some(0), Some(109), Some(340), Some(340)]);
        assert_eq!([0, 110, 339, 340].map(|o| seek(o, true)), [Some(110), Some(110), Some(339), Some(350)]);
        assert_eq!((seek(350, true), seek(350, false)), (None, None));
        let tail = file(&[(zero(100), 100), (data, 150), (zero(70), 220)]);
        assert_eq!(zeros.allocated(tail.content(1), 100), 50);
        let (end, empty) = (file(&ends[..4]), file(&[]));
        assert_eq!(zeros.seek((end.content(1), 100), 300, false, none), None);
        assert_eq!(zeros.seek((empty.content(1), 100), 0, true, none), None);
    }

    #[test]
    fn holes_in_a_chunk_are_found_in_blocks_of_the_file() {
        // The chunk begins 96 bytes before a block's end.
        let start = 2 * BLOCK - 96;
        let mut chunk = vec![0; 96 + 3 * BLOCK as usize + 5];
        chunk[96 + BLOCK as usize + 7] = 1;
        let find = |from, hole| find_in(&chunk, start, from, hole);
        assert_eq!((find(start, true), find(start, false)), (Some(start), Some(3 * BLOCK)));
        assert_eq!(
            (find(3 * BLOCK + 9, false), find(3 * BLOCK + 9, true)),
            (Some(3 * BLOCK + 9), Some(4 * BLOCK))
        );
        assert_eq!((find(4 * BLOCK, false), find(5 * BLOCK + 4, true)), (None, Some(5 * BLOCK + 4)));
    }

    /// A tree of one file whose chunks end at these places.
    fn file(ends: &[(ChunkId, u64)]) -> Tree {
        let mut start = 0;
        let chunks = ends.iter().map(|(id, end)| {
            let size = (end - std::mem::replace(&mut start, *end)) as u32;
            ChunkRef { id: *id, size, stored_size: 0 }
        });
        let item = Item { chunks: chunks.collect(), ..Item::new("f", ItemType::RegularFile) };
        let (root, mut report) = (made_up((0, 0), 0), |_: &[u8], _: &str| {});
        let mut builder = Builder::new(root, root, Arc::default(), &mut report);
        builder.add(&item).unwrap();
        builder.finish().unwrap()
    }
}
