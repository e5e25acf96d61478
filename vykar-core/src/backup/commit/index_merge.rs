//! The index that a backup publishes: the current one with this backup's references and chunks.
//!
//! It is never in memory: entries are made one by one, as they are written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backup::commit::references::{BackupReferences, NewChunk};
use crate::error::{Result, VykarError};
use crate::format::{IndexBlob, IndexEntry};
use crate::id::{ChunkId, PackId};
use crate::repository::objects::pack_writer::WrittenPack;

/// How many references this backup adds to the chunks of the current index.
enum AddedReferences<'a> {
    /// It is the index that the backup began with.
    Base(&'a BackupReferences),
    /// It is another one; by its slots.
    Other(Vec<u32>),
}

/// A new index, planned.
pub struct Rewrite<'a> {
    current: Arc<IndexBlob>,
    added: AddedReferences<'a>,
    references: &'a BackupReferences,
    /// Chunks that the current index lacks, sorted: the first bytes of each one's id, and its number.
    new: Vec<(u64, u32)>,
    /// Chunks that were taken up and the current index lacks, by their slots, which are in the order of their ids.
    taken: Vec<u32>,
    /// Chunks whose packs are lost and that were stored again, with the references that they have already.
    replaced: HashMap<ChunkId, u32>,
    /// Names of this backup's packs, by number.
    packs: Vec<PackId>,
}

fn prefix(id: &ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What is to be done with the current index.
pub enum MergePlan<'a> {
    /// Nothing: no reference is added.
    Nothing,
    /// It is written anew.
    Write(Rewrite<'a>),
    /// A chunk that this backup relied on is not in it any more.
    Gone(ChunkId),
}

impl<'a> Rewrite<'a> {
    /// Compares what the backup refers to with what there is.
    pub fn plan(
        references: &'a BackupReferences,
        base: &Arc<IndexBlob>,
        current: Arc<IndexBlob>,
        packs: &[WrittenPack],
    ) -> MergePlan<'a> {
        let lost = &references.lost;
        let same = Arc::ptr_eq(base, &current) && lost.is_empty();
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
                let Some(found) = current.chunks.find(&id) else { return MergePlan::Gone(id) };
                others[found] = others[found].saturating_add(times);
            }
        }
        let mut replaced = HashMap::new();
        let mut theirs = |id: &ChunkId| {
            let slot = if same { None } else { current.chunks.find(id) }?;
            let entry = current.chunks.entry(slot);
            if lost.has(&entry.pack) {
                replaced.insert(*id, entry.refcount);
                return None;
            }
            Some(slot)
        };
        let mut new = Vec::with_capacity(packs.iter().map(|pack| pack.chunks.len()).sum());
        for number in packs.iter().flat_map(|pack| &pack.chunks) {
            let NewChunk { id, refs, .. } = references.new_chunk(*number);
            if refs == 0 {
                continue;
            }
            changed = true;
            match theirs(&id) {
                // Somebody else stored it meanwhile: theirs is in the index, ours is not needed.
                Some(slot) => others[slot] = others[slot].saturating_add(refs),
                None => new.push((prefix(&id), *number)),
            }
        }
        new.sort_unstable_by(|a, b| {
            let id = |number| references.new_chunk(number).id;
            a.0.cmp(&b.0).then_with(|| id(a.1).cmp(&id(b.1)))
        });
        let mut taken = Vec::new();
        for slot in 0..references.taken.chunks.len() {
            let times = references.to_taken(slot);
            if times == 0 {
                continue;
            }
            changed = true;
            match theirs(&references.taken.chunks.id(slot)) {
                Some(found) => others[found] = others[found].saturating_add(times),
                // Journals hold fewer chunks than 32 bits count.
                None => taken.push(slot as u32),
            }
        }
        let numbers = packs.iter().map(|pack| pack.number as usize + 1).max().unwrap_or(0);
        let mut names = vec![PackId([0; 32]); numbers];
        for pack in packs {
            names[pack.number as usize] = pack.id;
        }
        let added = if same { AddedReferences::Base(references) } else { AddedReferences::Other(others) };
        match changed {
            true => {
                MergePlan::Write(Rewrite { current, added, references, new, taken, replaced, packs: names })
            }
            false => MergePlan::Nothing,
        }
    }

    /// Number of entries.
    pub fn count(&self) -> Result<u32> {
        let stays = self.current.chunks.len() - self.replaced.len();
        u32::try_from(stays + self.new.len() + self.taken.len())
            .map_err(|_| VykarError::CommitRefused { reason: "more than 2^32 chunks".into() })
    }

    /// An entry that names a pack of this backup.
    pub fn witness(&self) -> Option<IndexEntry> {
        self.new.first().map(|(_, number)| self.new_entry(*number))
    }

    /// The entries, sorted by id.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry> + '_ {
        let stays = |entry: &IndexEntry| !self.replaced.contains_key(&entry.id);
        let old = (0..self.current.chunks.len()).map(|slot| self.old_entry(slot)).filter(stays);
        let new = self.new.iter().map(|(_, number)| self.new_entry(*number));
        let taken = self.taken.iter().map(|slot| self.taken_entry(*slot));
        merge(old, merge(new, taken))
    }

    fn added_to(&self, slot: usize) -> u32 {
        match &self.added {
            AddedReferences::Base(references) => references.to_base(slot),
            AddedReferences::Other(by_slot) => by_slot[slot],
        }
    }

    /// The packs of the current index that this backup relies on, each with the end of the last chunk in it that it
    /// refers to.
    pub fn relied_on(&self) -> HashMap<PackId, u64> {
        let table = &self.current.chunks;
        let mut ends = vec![0u64; table.packs().len()];
        for slot in (0..table.len()).filter(|slot| self.added_to(*slot) > 0) {
            if let Some(end) = ends.get_mut(table.pack_number(slot) as usize) {
                *end = table.end_in_pack(slot).max(*end);
            }
        }
        table.packs().iter().copied().zip(ends).filter(|(_, end)| *end > 0).collect()
    }

    fn old_entry(&self, slot: usize) -> IndexEntry {
        let mut entry = self.current.chunks.entry(slot);
        entry.refcount = entry.refcount.saturating_add(self.added_to(slot));
        entry
    }

    fn replaced(&self, id: &ChunkId) -> u32 {
        self.replaced.get(id).copied().unwrap_or(0)
    }

    fn new_entry(&self, number: u32) -> IndexEntry {
        let NewChunk { id, refs: refcount, stored_size, place } = self.references.new_chunk(number);
        let pack = self.packs[place.pack as usize];
        let refcount = refcount.saturating_add(self.replaced(&id));
        IndexEntry { id, refcount, stored_size, pack, offset: place.offset.into() }
    }

    fn taken_entry(&self, slot: u32) -> IndexEntry {
        let entry = self.references.taken.chunks.entry(slot as usize);
        let refcount = self.references.to_taken(slot as usize).saturating_add(self.replaced(&entry.id));
        IndexEntry { refcount, ..entry }
    }
}

/// Two sorted sequences as one.
fn merge(
    a: impl Iterator<Item = IndexEntry>,
    b: impl Iterator<Item = IndexEntry>,
) -> impl Iterator<Item = IndexEntry> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(first), Some(second)) if second.id < first.id => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}
