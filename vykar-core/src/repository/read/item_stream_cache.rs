//! Reading the items of several snapshots.
//!
//! Snapshots share most of their item stream, and a shared chunk gives the same items again when it follows the same
//! unfinished item. So what a chunk leaves unfinished is remembered under both, and each is decoded once.

use std::collections::HashMap;

use crate::crypto::pack_id;
use crate::error::Result;
use crate::format::{ItemStream, Snapshot};
use crate::id::{ChunkId, PackId};
use crate::repository::ReadChunk;
use crate::repository::read::items::{FoundItem, Loss, each_special, end_of_chunks, next_chunk};

/// Longest unfinished item, in bytes, behind which results are remembered.
const MAX_REST: usize = 64 << 10;

/// What [`ItemStreamCache::read`] passes by.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub enum StreamPart<'a> {
    /// A stretch of items that was not met before, with its number, comes now. Numbers count from zero.
    Begin(usize),
    /// A stretch that was met in full before, by its number.
    Again(usize),
    /// Something of the stretch that began last.
    Found(FoundItem<'a>),
    /// The stretch that began last ends. When this is false, it is never met again.
    End(bool),
}

/// A chunk, and the hash of the unfinished item before it.
type StretchKey = (ChunkId, PackId);

/// A stretch that was met, and what it leaves unfinished.
struct KnownStretch {
    stretch: usize,
    rest: Box<[u8]>,
}

/// Reads item streams, each chunk that they share once. Takes some hundred bytes of memory for each distinct chunk.
pub struct ItemStreamCache<'r> {
    reader: &'r dyn ReadChunk,
    known: HashMap<StretchKey, KnownStretch>,
    stretches: usize,
}

impl<'r> ItemStreamCache<'r> {
    /// Nothing is known yet.
    pub fn new(reader: &'r dyn ReadChunk) -> Self {
        ItemStreamCache { reader, known: HashMap::new(), stretches: 0 }
    }

    /// Goes through a snapshot's items. `seen` returns false to stop early.
    ///
    /// # Errors
    /// Fails only when the caller's `seen` does; damage is a [`FoundItem`].
    pub fn read(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut dyn FnMut(StreamPart<'_>) -> Result<bool>,
    ) -> Result<()> {
        let pointers = &snapshot.meta.item_ptrs;
        let mut stream = ItemStream::new();
        for (at, pointer) in pointers.iter().enumerate() {
            let key = (stream.rest().len() <= MAX_REST).then(|| (*pointer, pack_id(stream.rest())));
            if let Some(KnownStretch { stretch, rest }) = key.and_then(|key| self.known.get(&key)) {
                stream = ItemStream::resume(rest.to_vec());
                if !seen(StreamPart::Again(*stretch))? {
                    return Ok(());
                }
                continue;
            }
            let stretch = self.begin();
            if !seen(StreamPart::Begin(stretch))? {
                return Ok(());
            }
            let goes_on = match self.reader.read_chunk(pointer) {
                Ok(chunk) => next_chunk(&mut stream, &chunk, &mut |found| seen(StreamPart::Found(found)))?,
                Err(error) => {
                    seen(StreamPart::Found(FoundItem::Lost(Loss::of_chunks(pointers.len() - at, &error))))?;
                    false
                }
            };
            let key = key.filter(|_| goes_on && stream.rest().len() <= MAX_REST);
            if let Some(key) = key {
                self.known.insert(key, KnownStretch { stretch, rest: stream.rest().into() });
            }
            if !seen(StreamPart::End(key.is_some()))? || !goes_on {
                return Ok(());
            }
        }
        if !stream.rest().is_empty() {
            if !seen(StreamPart::Begin(self.begin()))? {
                return Ok(());
            }
            let goes_on = end_of_chunks(&mut stream, &mut |found| seen(StreamPart::Found(found)))?;
            if !seen(StreamPart::End(false))? || !goes_on {
                return Ok(());
            }
        }
        self.specials(snapshot, seen)
    }

    /// Items that are not in the stream.
    fn specials(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut dyn FnMut(StreamPart<'_>) -> Result<bool>,
    ) -> Result<()> {
        if !snapshot.meta.has_special() || !seen(StreamPart::Begin(self.begin()))? {
            return Ok(());
        }
        match each_special(snapshot, &mut |found| seen(StreamPart::Found(found)))? {
            true => seen(StreamPart::End(false)).map(drop),
            false => Ok(()),
        }
    }

    fn begin(&mut self) -> usize {
        let stretch = self.stretches;
        self.stretches += 1;
        stretch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Item;
    use crate::testing::{TestRepository, directory};

    /// Paths of a snapshot, and how many of its stretches were known.
    fn read(
        items: &mut ItemStreamCache<'_>,
        snapshot: &Snapshot,
        all: &mut Vec<Vec<String>>,
    ) -> (Vec<String>, usize) {
        let (mut paths, mut again) = (Vec::new(), 0);
        items
            .read(snapshot, &mut |part| {
                match part {
                    StreamPart::Begin(stretch) => {
                        assert_eq!(stretch, all.len());
                        all.push(Vec::new());
                    }
                    StreamPart::Again(stretch) => {
                        again += 1;
                        paths.extend(all[stretch].iter().cloned());
                    }
                    StreamPart::Found(FoundItem::Item(item)) => {
                        paths.push(item.path.to_string());
                        all.last_mut().unwrap().push(item.path.to_string());
                    }
                    StreamPart::Found(other) => panic!("{other:?}"),
                    StreamPart::End(kept) => assert!(kept),
                }
                Ok(true)
            })
            .unwrap();
        (paths, again)
    }

    #[test]
    fn what_snapshots_share_is_read_once_and_means_the_same() {
        let mut t = TestRepository::new();
        let names = |n: usize| (0..n).map(|n| format!("directory-{n}")).collect::<Vec<_>>();
        let items = |names: &[String]| names.iter().map(|n| directory(n)).collect::<Vec<Item<'_>>>();
        let (first, mut other) = (names(40), names(40));
        other[39] = "another-xx".into();
        let snapshots = [&first, &first, &other].map(|names| t.snapshot("s", &items(names), None));
        let reader = t.repository.chunk_reader().unwrap();
        let (mut shared, mut all) = (ItemStreamCache::new(&reader), Vec::new());
        let chunks = snapshots[0].meta.item_ptrs.len();
        assert!(chunks > 5);
        assert_eq!(read(&mut shared, &snapshots[0], &mut all), (first.clone(), 0));
        assert_eq!(read(&mut shared, &snapshots[1], &mut all), (first, chunks));
        let (paths, again) = read(&mut shared, &snapshots[2], &mut all);
        assert_eq!(paths, other);
        assert!((chunks - 2..chunks).contains(&again), "{again} of {chunks}");
    }

    #[test]
    fn what_cannot_be_read_is_lost_for_each_that_has_it() {
        let mut t = TestRepository::new();
        let items: Vec<_> = (0..40).map(|n| directory(&format!("directory-{n}"))).collect();
        let snapshots = [t.snapshot("a", &items, None), t.snapshot("b", &items, None)];
        t.damage(&snapshots[0].meta.item_ptrs[3]);
        let reader = t.repository.chunk_reader().unwrap();
        let mut shared = ItemStreamCache::new(&reader);
        for snapshot in &snapshots {
            let mut lost = 0;
            shared
                .read(snapshot, &mut |part| {
                    lost += usize::from(matches!(part, StreamPart::Found(FoundItem::Lost(_))));
                    Ok(true)
                })
                .unwrap();
            assert_eq!(lost, 1);
        }
    }
}
