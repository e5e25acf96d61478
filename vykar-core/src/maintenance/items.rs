//! Looking at items while references are counted.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use super::finding::Finding;
use super::references::{CountedPart, MISSING};
use super::verify::verdict;
use crate::format::{Item, ItemProblem, Snapshot};
use crate::id::SnapshotId;

/// Says what is wrong with items, and keeps in mind what later snapshots share.
pub(super) struct ItemCheck<'v, 's> {
    verdicts: &'v [AtomicU32],
    stretches: HashMap<usize, Stretch>,
    stretch: usize,
    snapshot: Option<&'s Snapshot>,
    /// Damaged items that the snapshot shares with earlier ones.
    shared: u64,
    /// Hashes of the paths that the snapshot has.
    paths: HashSet<u64>,
    hasher: RandomState,
}

/// What a stretch of items was like.
#[derive(Default)]
struct Stretch {
    damaged: u64,
    /// Hashes of its paths.
    paths: Vec<u64>,
}

impl<'v, 's> ItemCheck<'v, 's> {
    /// With what is known about each slot of the index.
    pub fn new(verdicts: &'v [AtomicU32]) -> Self {
        let (stretches, paths) = (HashMap::new(), HashSet::new());
        let hasher = RandomState::new();
        ItemCheck { verdicts, stretches, stretch: 0, snapshot: None, shared: 0, paths, hasher }
    }

    /// Takes what the count passes by.
    pub fn see(&mut self, seen: CountedPart<'s, '_>, found: &mut dyn FnMut(Finding)) {
        match seen {
            CountedPart::Begin(snapshot, stretch) => {
                self.enter(snapshot, found);
                self.stretch = stretch;
            }
            CountedPart::Again(snapshot, stretch) => {
                self.enter(snapshot, found);
                if let Some(stretch) = self.stretches.get(&stretch) {
                    self.shared += stretch.damaged;
                    // What is twice among them was named before; what comes is compared with them.
                    self.paths.extend(&stretch.paths);
                }
            }
            CountedPart::Item(snapshot, item, slots) => {
                let hash = self.hasher.hash_one(item.path_bytes());
                self.stretches.entry(self.stretch).or_default().paths.push(hash);
                let (id, name) = (snapshot.id, &snapshot.meta.name);
                if !self.paths.insert(hash) {
                    let (name, path) = (name.clone(), item.path.clone().into_owned());
                    found(Finding::PathTwice { snapshot: id, name, path });
                }
                if let Some(finding) = file_damage(snapshot, item, slots, self.verdicts) {
                    self.damaged();
                    found(finding);
                }
            }
            CountedPart::Problem(snapshot, problem) => {
                if matches!(problem, ItemProblem::Invalid { .. }) {
                    self.damaged();
                }
                found(item_problem(snapshot, &problem));
            }
            CountedPart::Lost(snapshot, reason) => {
                self.enter(snapshot, found);
                found(Finding::ItemsLost { snapshot: snapshot.id, name: snapshot.meta.name.clone(), reason });
            }
        }
    }

    fn damaged(&mut self) {
        self.stretches.entry(self.stretch).or_default().damaged += 1;
    }

    fn enter(&mut self, snapshot: &'s Snapshot, found: &mut dyn FnMut(Finding)) {
        let same = |id: &SnapshotId| *id == snapshot.id;
        if !self.snapshot.map(|s| &s.id).is_some_and(same) {
            self.leave(found);
            self.snapshot = Some(snapshot);
        }
    }

    /// Ends the snapshot at hand.
    pub fn leave(&mut self, found: &mut dyn FnMut(Finding)) {
        self.paths.clear();
        let items = std::mem::take(&mut self.shared);
        if let Some(snapshot) = self.snapshot.take().filter(|_| items > 0) {
            let (snapshot, name) = (snapshot.id, snapshot.meta.name.clone());
            found(Finding::SnapshotAffected { snapshot, name, items });
        }
    }
}

fn file_damage(
    snapshot: &Snapshot,
    item: &Item<'_>,
    slots: &[u32],
    verdicts: &[AtomicU32],
) -> Option<Finding> {
    item.chunks.iter().zip(slots).find_map(|(chunk, slot)| {
        let verdict = match *slot {
            MISSING => None,
            slot => Some(verdicts[slot as usize].load(Ordering::Relaxed)),
        };
        let reason = match verdict {
            None => "not in the index".to_owned(),
            Some(verdict::UNKNOWN) => return None,
            Some(verdict::NO_PACK) => "its pack is missing".to_owned(),
            Some(verdict::OUTSIDE) => "lies outside its pack".to_owned(),
            Some(verdict::DAMAGED) => "damaged".to_owned(),
            Some(size) if size == chunk.size => return None,
            Some(size) => format!("holds {size} bytes, its item says {}", chunk.size),
        };
        let (name, path) = (snapshot.meta.name.clone(), item.path.clone().into_owned());
        Some(Finding::FileDamaged { snapshot: snapshot.id, name, path, chunk: chunk.id, reason })
    })
}

fn item_problem(snapshot: &Snapshot, problem: &ItemProblem) -> Finding {
    let (snapshot, name) = (snapshot.id, snapshot.meta.name.clone());
    let (path, reason) = (problem.path().to_owned(), problem.to_string());
    match problem {
        ItemProblem::Newer { .. } => Finding::ItemNewer { snapshot, name, path, reason },
        ItemProblem::Invalid { .. } => Finding::ItemInvalid { snapshot, name, path, reason },
    }
}
