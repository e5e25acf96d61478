//! Counting what all snapshots refer to.
//!
//! Snapshots share most of their item stream. What they share is decoded once ([`ItemStreamCache`]), and how often it was
//! met is multiplied in at the end.

use std::collections::HashMap;

use crate::format::index::ChunkTable;
use crate::format::{Item, ItemProblem, Snapshot};
use crate::repository::ChunkReader;
use crate::repository::read::item_stream_cache::{ItemStreamCache, StreamPart};
use crate::repository::read::items::{FoundItem, Loss};

/// A chunk that the index does not have, among an item's slots.
pub(crate) const MISSING: u32 = u32::MAX;
/// What the count passes by. What several snapshots share is shown for the first of them.
pub(crate) enum CountedPart<'s, 'i> {
    /// A stretch of items that was not met before, with its number, comes now.
    Begin(&'s Snapshot, usize),
    /// A stretch that an earlier snapshot had too, by its number.
    Again(&'s Snapshot, usize),
    /// An item, and the index slot of each of its chunks, or [`MISSING`].
    Item(&'s Snapshot, &'i Item<'i>, &'i [u32]),
    /// An item that is left out.
    Problem(&'s Snapshot, ItemProblem),
    /// The rest of a snapshot's items cannot be read.
    Lost(&'s Snapshot, String),
}

/// ReferenceCounts of all snapshots.
#[derive(Debug)]
pub(crate) struct ReferenceCounts {
    /// FoundItem for each slot of the table.
    pub counts: Vec<u32>,
    /// Those of the snapshots that were to be counted apart, and not in `counts`; empty where there are none.
    pub apart: Vec<u32>,
    /// False when some references could not be read, so that the counts may be too low.
    pub complete: bool,
    /// Items of all snapshots.
    pub items: u64,
}

/// What a stretch of items gives.
#[derive(Default)]
struct StretchReferences {
    /// How often it was met, by snapshots that are counted together, and by those that are counted apart.
    times: [u32; 2],
    items: u64,
    slots: Vec<u32>,
}

struct Counter<'a> {
    table: &'a ChunkTable,
    references: ReferenceCounts,
    /// By the number of the stretch, of those that may be met again.
    given: HashMap<usize, StretchReferences>,
    /// The stretch at hand.
    stretch: (usize, StretchReferences),
    /// The snapshot at hand is one that is counted apart.
    apart: bool,
    /// Index slots of an item's chunks.
    of_item: Vec<u32>,
}

/// Counts every reference of `snapshots` to the chunks of `table`, which must be the reader's index.
pub(crate) fn count<'s>(
    reader: &ChunkReader,
    table: &ChunkTable,
    snapshots: &'s [Snapshot],
    seen: &mut dyn FnMut(CountedPart<'s, '_>),
) -> ReferenceCounts {
    count_apart(reader, table, (snapshots, &[]), seen)
}

/// The same for two sets of snapshots, those of the second apart from the others: what they share is decoded once.
pub(crate) fn count_apart<'s>(
    reader: &ChunkReader,
    table: &ChunkTable,
    (snapshots, apart): (&'s [Snapshot], &'s [Snapshot]),
    seen: &mut dyn FnMut(CountedPart<'s, '_>),
) -> ReferenceCounts {
    let second = if apart.is_empty() { 0 } else { table.len() };
    let (counts, of_apart) = (vec![0; table.len()], vec![0; second]);
    let references = ReferenceCounts { counts, apart: of_apart, complete: true, items: 0 };
    let (given, stretch) = (HashMap::new(), (0, StretchReferences::default()));
    let mut counter = Counter { table, references, given, stretch, apart: false, of_item: Vec::new() };
    let mut items = ItemStreamCache::new(reader);
    for (snapshot, is_apart) in snapshots.iter().map(|s| (s, false)).chain(apart.iter().map(|s| (s, true))) {
        counter.apart = is_apart;
        counter.count_pointers(snapshot);
        let read = items.read(snapshot, &mut |part| Ok(counter.part(snapshot, part, seen)));
        // It fails only when what it is given does.
        counter.references.complete &= read.is_ok();
    }
    for given in std::mem::take(&mut counter.given).into_values() {
        counter.add(&given);
    }
    counter.references
}

impl Counter<'_> {
    fn count_pointers(&mut self, snapshot: &Snapshot) {
        for pointer in &snapshot.meta.item_ptrs {
            if let Some(slot) = self.table.find(pointer) {
                self.add_one(slot);
            }
        }
    }

    fn add_one(&mut self, slot: usize) {
        let ReferenceCounts { counts, apart, .. } = &mut self.references;
        let count = &mut (if self.apart { apart } else { counts })[slot];
        *count = count.saturating_add(1);
    }

    fn add(&mut self, given: &StretchReferences) {
        let [together, apart] = given.times;
        let ReferenceCounts { counts, apart: of_apart, .. } = &mut self.references;
        for slot in given.slots.iter().map(|slot| *slot as usize) {
            counts[slot] = counts[slot].saturating_add(together);
            if apart > 0 {
                of_apart[slot] = of_apart[slot].saturating_add(apart);
            }
        }
    }

    /// Takes a part of an item stream; true, since all of it is wanted.
    fn part<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        part: StreamPart<'_>,
        seen: &mut dyn FnMut(CountedPart<'s, '_>),
    ) -> bool {
        match part {
            StreamPart::Begin(stretch) => {
                self.stretch = (stretch, StretchReferences::default());
                self.stretch.1.times[usize::from(self.apart)] = 1;
                seen(CountedPart::Begin(snapshot, stretch));
            }
            StreamPart::End(kept) => {
                let (stretch, mut given) = std::mem::take(&mut self.stretch);
                match kept {
                    true => {
                        given.slots.shrink_to_fit();
                        self.given.insert(stretch, given);
                    }
                    false => self.add(&given),
                }
            }
            StreamPart::Again(stretch) => {
                if let Some(given) = self.given.get_mut(&stretch) {
                    let times = &mut given.times[usize::from(self.apart)];
                    *times = times.saturating_add(1);
                    self.references.items += given.items;
                }
                seen(CountedPart::Again(snapshot, stretch));
            }
            StreamPart::Found(FoundItem::Item(item)) => self.item(snapshot, &item, seen),
            StreamPart::Found(FoundItem::Problem(problem)) => {
                // What it refers to is counted in the index, and not here.
                self.references.complete = false;
                seen(CountedPart::Problem(snapshot, problem));
            }
            StreamPart::Found(FoundItem::Lost(Loss { reason, .. })) => {
                self.references.complete = false;
                seen(CountedPart::Lost(snapshot, reason));
            }
        }
        true
    }

    fn item<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        item: &Item<'_>,
        seen: &mut dyn FnMut(CountedPart<'s, '_>),
    ) {
        // The table has less than 2^32 slots.
        let slots = item.chunks.iter().map(|c| self.table.find(&c.id).map_or(MISSING, |slot| slot as u32));
        self.of_item.clear();
        self.of_item.extend(slots);
        let (_, given) = &mut self.stretch;
        given.slots.extend(self.of_item.iter().filter(|slot| **slot != MISSING));
        given.items += 1;
        self.references.items += 1;
        seen(CountedPart::Item(snapshot, item, &self.of_item));
    }
}
