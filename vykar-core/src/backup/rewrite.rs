//! The index that a backup publishes: the current one with this backup's references and chunks.
//!
//! It is never in memory: entries are made one by one, as they are written.

use std::sync::Arc;

use super::references::{NewChunk, References};
use crate::error::{Result, VykarError};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::{ChunkId, PackId};
use crate::repository::pack_writer::WrittenPack;

/// How many references this backup adds to the chunks of the current index.
enum Added<'a> {
    /// It is the index that the backup began with.
    Base(&'a References),
    /// It is another one; by its slots.
    Other(Vec<u32>),
}

/// A new index, planned.
pub struct Rewrite<'a> {
    current: Arc<IndexBlob>,
    added: Added<'a>,
    references: &'a References,
    /// Chunks that the current index lacks, sorted: the first bytes of each one's id, and its number.
    new: Vec<(u64, u32)>,
    /// Names of this backup's packs, by number.
    packs: Vec<PackId>,
}

fn prefix(id: &ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl<'a> Rewrite<'a> {
    /// `None` when nothing changes.
    ///
    /// # Errors
    /// A chunk that this backup relied on is gone.
    pub fn plan(
        references: &'a References,
        base: &Arc<IndexBlob>,
        current: Arc<IndexBlob>,
        packs: &[WrittenPack],
    ) -> Result<Option<Self>> {
        let same = Arc::ptr_eq(base, &current);
        let mut others = if same { Vec::new() } else { vec![0u32; current.chunks.len()] };
        let mut changed = false;
        for slot in 0..base.chunks.len() {
            let times = references.to_base(slot);
            if times == 0 {
                continue;
            }
            changed = true;
            if !same {
                let id = base.chunks.id(slot);
                let found = current.chunks.find(&id).ok_or_else(|| gone(&id))?;
                others[found] = others[found].saturating_add(times);
            }
        }
        let mut new = Vec::with_capacity(packs.iter().map(|pack| pack.chunks.len()).sum());
        for number in packs.iter().flat_map(|pack| &pack.chunks) {
            let NewChunk { id, refs, .. } = references.new_chunk(*number);
            if refs == 0 {
                continue;
            }
            changed = true;
            match if same { None } else { current.chunks.find(&id) } {
                // Somebody else stored it meanwhile: theirs is in the index, ours is not needed.
                Some(slot) => others[slot] = others[slot].saturating_add(refs),
                None => new.push((prefix(&id), *number)),
            }
        }
        new.sort_unstable_by(|a, b| {
            let id = |number| references.new_chunk(number).id;
            a.0.cmp(&b.0).then_with(|| id(a.1).cmp(&id(b.1)))
        });
        let mut names = vec![PackId([0; 32]); packs.last().map_or(0, |pack| pack.number as usize + 1)];
        for pack in packs {
            names[pack.number as usize] = pack.id;
        }
        let added = if same { Added::Base(references) } else { Added::Other(others) };
        Ok(changed.then_some(Rewrite { current, added, references, new, packs: names }))
    }

    /// Number of entries.
    pub fn count(&self) -> Result<u32> {
        u32::try_from(self.current.chunks.len() + self.new.len())
            .map_err(|_| VykarError::CommitRefused { reason: "more than 2^32 chunks".into() })
    }

    /// The entries, sorted by id.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry> + '_ {
        let mut old = (0..self.current.chunks.len()).map(|slot| self.old_entry(slot)).peekable();
        let mut new = self.new.iter().map(|(_, number)| self.new_entry(*number)).peekable();
        std::iter::from_fn(move || match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if b.id < a.id => new.next(),
            (Some(_), _) => old.next(),
            (None, _) => new.next(),
        })
    }

    fn old_entry(&self, slot: usize) -> IndexEntry {
        let mut entry = self.current.chunks.entry(slot);
        let added = match &self.added {
            Added::Base(references) => references.to_base(slot),
            Added::Other(by_slot) => by_slot[slot],
        };
        entry.refcount = entry.refcount.saturating_add(added);
        entry
    }

    fn new_entry(&self, number: u32) -> IndexEntry {
        let NewChunk { id, refs: refcount, stored_size, place } = self.references.new_chunk(number);
        let pack = self.packs[place.pack as usize];
        IndexEntry { id, refcount, stored_size, pack, offset: place.offset.into() }
    }
}

fn gone(id: &ChunkId) -> VykarError {
    VykarError::CommitRefused {
        reason: format!("chunk {} was removed while this backup relied on it", id.short()),
    }
}
