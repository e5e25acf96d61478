//! Which chunks of a file are nothing but zeros.
//!
//! The format has no holes: a sparse file's zeros are ordinary chunks. Cutting a run of zeros gives
//! chunks of the largest size and a rest, so those are recognised by their id, without reading them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use vykar_core::ChunkId;
use vykar_core::format::MAX_CHUNK_PLAINTEXT;
use vykar_core::repository::Keys;

use crate::tree::Content;

/// Most lengths whose zeros are remembered.
const REMEMBERED: usize = 1024;

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
    /// end of a file that has one: to hash zeros for every length that occurs would cost more than
    /// anyone gains.
    pub(crate) fn ranges<'a>(
        &'a self,
        content: Content<'a>,
        largest: u32,
    ) -> impl Iterator<Item = (Range<u64>, bool)> + 'a {
        let (largest, size) = (u64::from(largest), content.size());
        let (mut hole, mut any) = (false, false);
        (0..content.len()).map(move |at| {
            let range = content.range(at);
            let len = range.end.saturating_sub(range.start);
            let rest = len > 0 && len < largest && (hole || (any && range.end == size));
            hole = (len == largest || rest) && self.id(len) == Some(content.id(at));
            any |= hole;
            (range, hole)
        })
    }

    /// Bytes of a file that are not holes.
    pub(crate) fn allocated(&self, content: Content<'_>, largest: u32) -> u64 {
        // Pieces do not overlap, so this stays below the file's size.
        self.ranges(content, largest)
            .filter(|(_, hole)| !hole)
            .map(|(r, _)| r.end.saturating_sub(r.start))
            .sum()
    }

    /// The first byte at or behind `offset` that is in a hole (`hole`) or in none; the end of the file
    /// counts as a hole. `None` when there is no such byte.
    pub(crate) fn seek(&self, content: Content<'_>, largest: u32, offset: u64, hole: bool) -> Option<u64> {
        let size = content.size();
        if offset >= size {
            return None;
        }
        let mut ranges = self.ranges(content, largest);
        let found = ranges.find(|(range, is_hole)| range.end > offset && *is_hole == hole);
        found.map(|(range, _)| range.start.max(offset)).or(hole.then_some(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::made_up;
    use crate::tree::{Builder, Tree};
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
        let seek = |offset, hole| zeros.seek(pieces, 100, offset, hole);
        assert_eq!([0, 109, 110, 339].map(|o| seek(o, false)), [Some(0), Some(109), Some(340), Some(340)]);
        assert_eq!([0, 110, 339, 340].map(|o| seek(o, true)), [Some(110), Some(110), Some(339), Some(350)]);
        assert_eq!((seek(350, true), seek(350, false)), (None, None));
        let tail = file(&[(zero(100), 100), (data, 150), (zero(70), 220)]);
        assert_eq!(zeros.allocated(tail.content(1), 100), 50);
        let (end, empty) = (file(&ends[..4]), file(&[]));
        assert_eq!(zeros.seek(end.content(1), 100, 300, false), None);
        assert_eq!(zeros.seek(empty.content(1), 100, 0, true), None);
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
