//! Counting what all snapshots refer to.
//!
//! Snapshots share most of their item stream, and a shared chunk gives the same items again when it
//! follows the same unfinished item. So what a chunk gives is remembered under both, each is decoded
//! once, and how often it was met is multiplied in at the end.

use std::collections::HashMap;

use crate::crypto::pack_id;
use crate::format::index::ChunkTable;
use crate::format::{Item, ItemProblem, ItemStream, Snapshot};
use crate::id::PackId;
use crate::repository::ChunkReader;

/// A chunk that the index does not have, among an item's slots.
pub(crate) const MISSING: u32 = u32::MAX;
/// Longest unfinished item, in bytes, behind which results are remembered.
const MAX_REST: usize = 64 << 10;

/// What the count passes by. What several snapshots share is shown for the first of them.
pub(crate) enum Seen<'s, 'i> {
    /// A stretch of items that was not met before, with its number, comes now.
    Begin(&'s Snapshot, u32),
    /// A stretch that an earlier snapshot had too, by its number.
    Again(&'s Snapshot, u32),
    /// An item, and the index slot of each of its chunks, or [`MISSING`].
    Item(&'s Snapshot, &'i Item<'i>, &'i [u32]),
    /// An item that is left out.
    Problem(&'s Snapshot, ItemProblem),
    /// The rest of a snapshot's items cannot be read.
    Lost(&'s Snapshot, String),
}

/// References of all snapshots.
#[derive(Debug)]
pub(crate) struct References {
    /// Found for each slot of the table.
    pub counts: Vec<u32>,
    /// Those of the snapshots that were to be counted apart, and not in `counts`; empty where there are none.
    pub apart: Vec<u32>,
    /// False when some references could not be read, so that the counts may be too low.
    pub complete: bool,
    /// Items of all snapshots.
    pub items: u64,
}

/// What an item-stream chunk gives.
struct Given {
    /// By snapshots that are counted together, and by those that are counted apart.
    times: [u32; 2],
    items: u64,
    slots: Box<[u32]>,
    rest: Box<[u8]>,
    stretch: u32,
}

struct Counter<'a> {
    reader: &'a ChunkReader,
    table: &'a ChunkTable,
    references: References,
    /// Slot of the stream chunk, and hash of the unfinished item before it.
    known: HashMap<(u32, PackId), Given>,
    /// The snapshot at hand is one that is counted apart.
    apart: bool,
    /// Stretches begun.
    stretches: u32,
}

/// Counts every reference of `snapshots` to the chunks of `table`, which must be the reader's index.
pub(crate) fn count<'s>(
    reader: &ChunkReader,
    table: &ChunkTable,
    snapshots: &'s [Snapshot],
    seen: &mut dyn FnMut(Seen<'s, '_>),
) -> References {
    count_apart(reader, table, (snapshots, &[]), seen)
}

/// The same for two sets of snapshots, those of the second apart from the others: what they share is decoded once.
pub(crate) fn count_apart<'s>(
    reader: &ChunkReader,
    table: &ChunkTable,
    (snapshots, apart): (&'s [Snapshot], &'s [Snapshot]),
    seen: &mut dyn FnMut(Seen<'s, '_>),
) -> References {
    let second = if apart.is_empty() { 0 } else { table.len() };
    let (counts, of_apart) = (vec![0; table.len()], vec![0; second]);
    let references = References { counts, apart: of_apart, complete: true, items: 0 };
    let mut counter =
        Counter { reader, table, references, known: HashMap::new(), apart: false, stretches: 0 };
    for (snapshot, is_apart) in snapshots.iter().map(|s| (s, false)).chain(apart.iter().map(|s| (s, true))) {
        counter.apart = is_apart;
        counter.count_pointers(snapshot);
        if let Err(reason) = counter.snapshot(snapshot, seen) {
            counter.references.complete = false;
            seen(Seen::Lost(snapshot, reason));
        }
    }
    let Counter { mut references, known, .. } = counter;
    for given in known.values() {
        let [together, apart] = given.times;
        for slot in &given.slots {
            let slot = *slot as usize;
            references.counts[slot] = references.counts[slot].saturating_add(together);
            if apart > 0 {
                references.apart[slot] = references.apart[slot].saturating_add(apart);
            }
        }
    }
    references
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
        let References { counts, apart, .. } = &mut self.references;
        let count = &mut (if self.apart { apart } else { counts })[slot];
        *count = count.saturating_add(1);
    }

    /// Goes through one item stream; fails with what makes the rest of it unreadable.
    fn snapshot<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        seen: &mut dyn FnMut(Seen<'s, '_>),
    ) -> Result<(), String> {
        let pointers = &snapshot.meta.item_ptrs;
        let mut stream = ItemStream::new();
        for (at, pointer) in pointers.iter().enumerate() {
            let lost =
                |cause: String| format!("{} of its item chunks cannot be used: {cause}", pointers.len() - at);
            // The table has less than 2^32 slots.
            let slot =
                self.table.find(pointer).ok_or_else(|| lost(format!("chunk {pointer}: not in the index")))?;
            let key = (stream.rest().len() <= MAX_REST).then(|| (slot as u32, pack_id(stream.rest())));
            if let Some(given) = key.and_then(|key| self.known.get_mut(&key)) {
                let times = &mut given.times[usize::from(self.apart)];
                *times = times.saturating_add(1);
                self.references.items += given.items;
                stream = ItemStream::new();
                stream.push(&given.rest);
                seen(Seen::Again(snapshot, given.stretch));
                continue;
            }
            let chunk = self.reader.read(pointer).map_err(|e| lost(e.to_string()))?;
            stream.push(&chunk);
            let stretch = self.begin(snapshot, seen);
            let mut slots = Vec::new();
            let before = self.references.items;
            let parsed = self.items(snapshot, &mut stream, ItemStream::next_item, &mut slots, seen);
            match key.filter(|_| parsed.is_ok() && stream.rest().len() <= MAX_REST) {
                Some(key) => {
                    let (items, rest) = (self.references.items - before, stream.rest().into());
                    let times = if self.apart { [0, 1] } else { [1, 0] };
                    self.known.insert(key, Given { times, items, slots: slots.into(), rest, stretch });
                }
                None => self.add(&slots),
            }
            parsed?;
        }
        self.begin(snapshot, seen);
        let mut slots = Vec::new();
        let parsed = self.items(snapshot, &mut stream, ItemStream::last_item, &mut slots, seen);
        self.add(&slots);
        parsed
    }

    fn begin<'s>(&mut self, snapshot: &'s Snapshot, seen: &mut dyn FnMut(Seen<'s, '_>)) -> u32 {
        let stretch = self.stretches;
        self.stretches = stretch.wrapping_add(1);
        seen(Seen::Begin(snapshot, stretch));
        stretch
    }

    fn add(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.add_one(*slot as usize));
    }

    /// Takes the items that are whole; their chunks that the index has go into `slots`.
    fn items<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        stream: &mut ItemStream,
        next: NextItem,
        slots: &mut Vec<u32>,
        seen: &mut dyn FnMut(Seen<'s, '_>),
    ) -> Result<(), String> {
        let mut of_item = Vec::new();
        loop {
            match next(stream) {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(item))) => {
                    of_item.clear();
                    of_item.extend(
                        item.chunks
                            .iter()
                            .map(|c| self.table.find(&c.id).map_or(MISSING, |slot| slot as u32)),
                    );
                    slots.extend(of_item.iter().filter(|slot| **slot != MISSING));
                    self.references.items += 1;
                    seen(Seen::Item(snapshot, &item, &of_item));
                }
                Ok(Some(Err(problem))) => {
                    // What it refers to is counted in the index, and not here.
                    self.references.complete = false;
                    seen(Seen::Problem(snapshot, problem));
                }
                Err(error) => return Err(format!("the rest of its items cannot be read: {error}")),
            }
        }
    }
}

type NextItem = for<'s> fn(
    &'s mut ItemStream,
) -> Result<Option<Result<Item<'s>, ItemProblem>>, crate::error::FormatError>;
