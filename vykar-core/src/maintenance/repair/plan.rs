//! What a repair would do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::evidence;
use super::super::references;
use super::super::references::{CountedPart, MISSING};
use super::identify::{Identified, MisplacedSnapshot, find_misplaced};
use super::places::{Relocated, candidates, everything};
use super::put_back::Move;
use super::salvage::{SalvagedPart, each_part, each_special_loss};
use super::survey::{WholeSurvey, WrongPack};
use super::{RepairOptions, changed, refused};
use crate::crypto::pack_id;
use crate::error::{Result, StorageError, VykarError};
use crate::event::{Event, Events};
use crate::format::{IndexBlob, ItemProblem, Snapshot};
use crate::id::{PackId, SnapshotId};
use crate::maintenance::repair::repair_note::repaired_from;
use crate::maintenance::vanished_guard::{refuse_none, refuse_vanished};
use crate::repository::objects::manifest::{open_snapshot, read_object, refuse_odd_entries};
use crate::repository::{
    ChunkReader, INDEX, INDEX_GENERATION, IndexStamp, KeyKind, Manifest, Repository, pack_key, snapshot_key,
};
use crate::storage::ObjectInfo;

/// Dropped items that a plan names; more are counted, and told as [`Event::ItemSkipped`].
const MAX_NAMED: usize = 1000;

/// An item that a repaired snapshot does not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The damaged snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub name: String,
    /// The item's path; empty when that is lost too.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What becomes of a damaged snapshot. It is set aside in any case.
#[derive(Debug, Clone)]
pub struct SnapshotFate {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its name; `None` when the object itself is damaged.
    pub name: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// A snapshot of the same name, with the items that are whole, takes its place.
    pub replaced: bool,
    /// An earlier repair wrote that one already.
    pub replaced_before: bool,
    /// Items that are kept.
    pub kept: u64,
    /// Items that are dropped; [`RepairPlan::dropped`] names them.
    pub dropped: u64,
    /// Places in the list of items where an unknown number of them is lost.
    pub gaps: u64,
}

/// What a repair would do; everything in here was read and nothing written.
pub struct RepairPlan {
    /// Why the index has to be rebuilt from the packs.
    pub index_unusable: Option<String>,
    /// Chunks that the index names and of which no whole copy was found.
    pub chunks_lost: u64,
    /// Chunks that are found elsewhere than the index says.
    pub chunks_redirected: u64,
    /// Chunks that snapshots need and that only the packs have.
    pub chunks_found: u64,
    /// Chunks that the index counts too low.
    pub counts_too_low: u64,
    /// Chunks that it counts too high, or that no snapshot refers to; with damaged snapshots there may be fewer.
    pub counts_too_high: u64,
    /// `index.gen` does not fit.
    pub hint_wrong: bool,
    /// Damaged packs, which are set aside, their lengths in bytes, and what is wrong.
    pub packs_damaged: Vec<(PackId, u64, String)>,
    /// Whole chunks in those that are stored anew.
    pub chunks_moved: u64,
    /// Their bytes.
    pub bytes_moved: u64,
    /// Packs that are gone.
    pub packs_missing: Vec<PackId>,
    /// Whole packs that lie elsewhere than they belong, with the keys that they have now.
    pub packs_put_back: Vec<(PackId, String)>,
    /// Snapshots that lie elsewhere than they belong: ids, names, and the keys that they have now.
    pub snapshots_put_back: Vec<(SnapshotId, String, String)>,
    /// Damaged snapshots.
    pub snapshots: Vec<SnapshotFate>,
    /// Items that are dropped, 1000 at most.
    pub dropped: Vec<Dropped>,
    /// How many are dropped in all.
    pub dropped_total: u64,
    /// Snapshots that are whole.
    pub snapshots_whole: u64,
    pub(super) stamp: Option<IndexStamp>,
    pub(super) generation: u64,
    /// All objects, as they were listed.
    pub(super) objects: Vec<ObjectInfo>,
    pub(super) ids: Vec<SnapshotId>,
    /// What is in the place of a pack and is not to be there.
    pub(super) wrong: Vec<WrongPack>,
    pub(super) pack_moves: Vec<Move>,
    pub(super) snapshot_moves: Vec<Move>,
    /// Objects in the places of snapshots that are put back there.
    pub(super) in_the_way: Vec<SnapshotId>,
    /// The hashes of snapshots and index as they were read, by key, but for those that are too long to be read.
    pub(super) contents: HashMap<String, PackId>,
    pub(super) survey: WholeSurvey,
    /// References of all readable snapshots, for each slot of the survey's table; of damaged ones as far as they can
    /// be counted.
    counts: Vec<u32>,
    /// Whether any snapshot refers to it, those that are written anew included, for each slot.
    pub(super) needed: Vec<bool>,
    pub(super) whole: Vec<Snapshot>,
    /// Readable ones that are to be set aside.
    pub(super) damaged: Vec<Snapshot>,
}

impl RepairPlan {
    /// False when there is nothing to do.
    pub fn has_work(&self) -> bool {
        self.writes_index()
            || self.hint_wrong
            || !self.packs_damaged.is_empty()
            || !self.snapshots.is_empty()
            || !self.packs_put_back.is_empty()
            || !self.snapshots_put_back.is_empty()
    }

    /// True when something cannot be brought back: a file, or a snapshot.
    pub fn loses_data(&self) -> bool {
        self.snapshots.iter().any(|fate| !fate.replaced_before)
    }

    pub(super) fn writes_index(&self) -> bool {
        self.index_unusable.is_some()
            || !self.snapshots.is_empty()
            || self.index_entries_change()
            || self.counts_too_low + self.counts_too_high > 0
    }

    /// True for a pack in which chunks can stay: it is in its place, or is put back there.
    pub(super) fn stays(&self, pack: &PackId) -> bool {
        let is_back = || self.packs_put_back.binary_search_by_key(pack, |(id, _)| *id).is_ok();
        self.survey.is_in_place(pack) || is_back()
    }

    /// More than counts.
    pub(super) fn index_entries_change(&self) -> bool {
        self.chunks_lost + self.chunks_redirected + self.chunks_found + self.chunks_moved > 0
    }
}

/// Reads and verifies everything, and says what a repair would do.
///
/// Tells [`Event::Progress`] with packs and bytes, and [`Event::ItemSkipped`] for each item that would be dropped.
///
/// # Errors
/// [`VykarError::RepairRefused`] when something is not this program's to judge (snapshots, items or packs that a newer
/// one wrote), when config or key are damaged, and when the storage fails while it is read.
/// [`VykarError::SnapshotsMissing`] when there may be snapshots that are not seen.
pub fn plan_repair(
    repository: &Repository,
    options: &RepairOptions,
    mut events: Events<'_>,
) -> Result<RepairPlan> {
    check_opened_with(repository)?;
    refuse_odd_entries(repository)?;
    let ids = Manifest::ids(repository)?;
    let objects = everything(repository)?;
    if snapshots_among(&objects) != ids {
        return Err(changed());
    }
    let mut contents = HashMap::new();
    let (mut readable, unreadable) = read_snapshots(repository, &ids, &mut contents)?;
    let stamp = stamp(repository)?;
    let (index, index_unusable) = read_index(repository, &mut contents)?;
    if self::stamp(repository)? != stamp {
        return Err(changed());
    }
    let candidates = candidates(repository, &objects)?;
    let survey = WholeSurvey::make(repository, &index.chunks, &candidates, options.threads, &mut events)?;
    let not_read: Vec<_> = unreadable.iter().map(|(id, _)| *id).collect();
    let known = Identified {
        readable: &readable,
        unreadable: &not_read,
        objects: &objects,
        among_packs: &survey.strays,
    };
    let misplaced = find_misplaced(repository, &known)?;
    let seen: Vec<_> = ids.iter().copied().chain(misplaced.iter().map(|m| m.snapshot.id)).collect();
    let is_there = index_unusable.is_none() && stamp.is_some();
    refuse_none(repository, &seen, is_there.then_some(&index.chunks))?;
    let Fates { fates, in_the_way, snapshot_moves, snapshots_put_back } = Fates::of(unreadable, &misplaced);
    readable.extend(misplaced.into_iter().map(|misplaced| misplaced.snapshot));
    readable.sort_by_key(|s| (s.time, s.id));
    evidence::refuse_wrong_keys(repository, &survey, &readable, !fates.is_empty(), index_unusable.is_some())?;
    let backend = Arc::new(Relocated::new(repository.backend().clone(), &survey.elsewhere));
    let reader = ChunkReader::new(backend, repository.keys().clone(), survey.index.clone());
    let (counts, affected) = count(&reader, &survey, &readable)?;

    let (damaged, whole): (Vec<_>, Vec<_>) = readable.into_iter().partition(|s| affected.contains_key(&s.id));
    let hint = repository.backend().get(INDEX_GENERATION, 8);
    let hint_wrong = is_there && !hint.is_ok_and(|hint| hint == index.generation.to_le_bytes());
    let mut plan = RepairPlan {
        index_unusable,
        chunks_lost: survey.lost,
        chunks_redirected: survey.redirected,
        chunks_found: 0,
        counts_too_low: 0,
        counts_too_high: 0,
        hint_wrong,
        packs_damaged: Vec::new(),
        chunks_moved: 0,
        bytes_moved: 0,
        packs_missing: Vec::new(),
        packs_put_back: Vec::new(),
        snapshots_put_back,
        snapshots: fates,
        dropped: Vec::new(),
        dropped_total: 0,
        snapshots_whole: whole.len() as u64,
        stamp,
        generation: index.generation,
        objects,
        ids: seen,
        wrong: Vec::new(),
        pack_moves: Vec::new(),
        snapshot_moves,
        in_the_way,
        contents,
        survey,
        needed: counts.iter().map(|counted| *counted > 0).collect(),
        counts,
        whole,
        damaged,
    };
    plan.judge_snapshots(&reader, &affected, &mut events)?;
    plan.judge_packs();
    plan.compare_counts(&index);
    // A repair takes out of the index whatever it finds no reference to.
    let explained = plan.index_unusable.is_none() && plan.counts_too_high == 0;
    refuse_vanished(repository, &plan.ids, explained)?;
    Ok(plan)
}

fn snapshots_among(objects: &[ObjectInfo]) -> Vec<SnapshotId> {
    let id = |object: &ObjectInfo| match KeyKind::of(&object.key) {
        Some(KeyKind::Snapshot(id)) => Some(id),
        _ => None,
    };
    let mut ids: Vec<_> = objects.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

/// What becomes of objects that do not open under their names.
struct Fates {
    /// They are set aside.
    fates: Vec<SnapshotFate>,
    /// They are set aside, and another object takes their place.
    in_the_way: Vec<SnapshotId>,
    snapshot_moves: Vec<Move>,
    snapshots_put_back: Vec<(SnapshotId, String, String)>,
}

impl Fates {
    fn of(unreadable: Unreadable, misplaced: &[MisplacedSnapshot]) -> Self {
        let sources: HashSet<&str> = misplaced.iter().map(|m| m.wanted.from.as_str()).collect();
        let targets: HashSet<SnapshotId> = misplaced.iter().map(|m| m.snapshot.id).collect();
        let (mut fates, mut in_the_way) = (Vec::new(), Vec::new());
        for (id, reason) in unreadable {
            match (sources.contains(&*snapshot_key(&id)), targets.contains(&id)) {
                // It goes to its own place.
                (true, _) => {}
                (false, true) => in_the_way.push(id),
                (false, false) => fates.push(SnapshotFate::unreadable(id, reason)),
            }
        }
        let put_back =
            |m: &MisplacedSnapshot| (m.snapshot.id, m.snapshot.meta.name.clone(), m.wanted.from.clone());
        Fates {
            fates,
            in_the_way,
            snapshot_moves: misplaced.iter().map(|m| m.wanted.clone()).collect(),
            snapshots_put_back: misplaced.iter().map(put_back).collect(),
        }
    }
}

impl SnapshotFate {
    /// The reason without anything that is sealed in the repository, such as a path.
    pub(super) fn plain_reason(&self) -> String {
        match (&self.name, self.replaced_before) {
            (None, _) => "the object cannot be read".to_owned(),
            (_, true) => "an earlier repair has written it anew".to_owned(),
            _ => format!("{} items are damaged, and {} parts of the list lost", self.dropped, self.gaps),
        }
    }

    fn unreadable(id: SnapshotId, reason: String) -> Self {
        let (name, kept, dropped, gaps) = (None, 0, 0, 0);
        SnapshotFate { id, name, reason, replaced: false, replaced_before: false, kept, dropped, gaps }
    }
}

impl RepairPlan {
    /// Finds out which packs go back to their places, and what must go from there.
    fn judge_packs(&mut self) {
        self.packs_put_back = self.survey.to_put_back(&self.needed);
        let moved =
            |(pack, from): &(PackId, String)| Move { content: *pack, from: from.clone(), to: pack_key(pack) };
        self.pack_moves = self.packs_put_back.iter().map(moved).collect();
        let sources: HashSet<&str> = self.pack_moves.iter().map(|wanted| wanted.from.as_str()).collect();
        let wrong = self.survey.wrong.iter().filter(|wrong| !sources.contains(&*pack_key(&wrong.pack)));
        self.wrong = wrong.cloned().collect();
        self.packs_damaged =
            self.wrong.iter().map(|wrong| (wrong.pack, wrong.size, wrong.reason.clone())).collect();
        self.packs_damaged.sort_unstable();
        let is_back = |pack: &PackId| self.packs_put_back.binary_search_by_key(pack, |(id, _)| *id).is_ok();
        self.packs_missing = self.survey.missing.iter().filter(|pack| !is_back(pack)).copied().collect();
    }

    fn compare_counts(&mut self, index: &IndexBlob) {
        for (slot, counted) in self.counts.iter().enumerate() {
            let entry = self.survey.table().entry(slot);
            if self.needed[slot] && !self.survey.is_whole(&entry.pack) {
                self.chunks_moved += 1;
                self.bytes_moved += u64::from(entry.stored_size);
            }
            match index.chunks.get(&entry.id) {
                None => self.chunks_found += u64::from(self.needed[slot]),
                Some(recorded) => {
                    self.counts_too_low += u64::from(*counted > recorded.refcount);
                    self.counts_too_high += u64::from(*counted < recorded.refcount);
                }
            }
        }
    }

    /// Finds out what is left of each damaged snapshot.
    fn judge_snapshots(
        &mut self,
        reader: &ChunkReader,
        affected: &HashMap<SnapshotId, String>,
        events: &mut Events<'_>,
    ) -> Result<()> {
        let replaced: HashSet<SnapshotId> =
            self.whole.iter().filter_map(|snapshot| repaired_from(&snapshot.meta)).collect();
        for snapshot in &self.damaged {
            let reason = affected.get(&snapshot.id).cloned().unwrap_or_default();
            let mut fate = SnapshotFate::unreadable(snapshot.id, reason);
            let name = snapshot.meta.name.clone();
            fate.name = Some(name.clone());
            if replaced.contains(&snapshot.id) {
                fate.replaced_before = true;
                self.snapshots.push(fate);
                continue;
            }
            let (dropped, total) = (&mut self.dropped, &mut self.dropped_total);
            let (needed, table) = (&mut self.needed, self.survey.table());
            each_part(reader, &self.survey, snapshot, &mut |part| {
                let (path, reason) = match part {
                    SalvagedPart::Whole(item, _) => {
                        // The count ended where the list of items has a gap.
                        item.chunks
                            .iter()
                            .filter_map(|c| table.find(&c.id))
                            .for_each(|slot| needed[slot] = true);
                        fate.kept += 1;
                        return Ok(());
                    }
                    SalvagedPart::Dropped { path, reason } => {
                        fate.dropped += 1;
                        *total += 1;
                        (path, reason)
                    }
                    SalvagedPart::Lost(reason) => {
                        fate.gaps += 1;
                        (String::new(), reason)
                    }
                };
                tell_dropped(
                    events,
                    dropped,
                    Dropped { snapshot: snapshot.id, name: name.clone(), path, reason },
                );
                Ok(())
            })?;
            let in_stream = fate.dropped + fate.gaps;
            each_special_loss(snapshot, &mut |path, reason| {
                fate.dropped += 1;
                *total += 1;
                tell_dropped(
                    events,
                    dropped,
                    Dropped { snapshot: snapshot.id, name: name.clone(), path, reason },
                );
            });
            if fate.dropped + fate.gaps == 0 {
                return Err(refused(format!(
                    "snapshot {name} ({}) could not be read at first ({}), and then it could: the storage fails now \
                     and then",
                    snapshot.id.short(),
                    fate.reason
                )));
            }
            // All that is wrong may be what is kept beside the list of items.
            fate.replaced = fate.kept > 0 || in_stream == 0;
            self.snapshots.push(fate);
        }
        Ok(())
    }
}

/// Tells of an item that would be dropped, and keeps the first of them.
fn tell_dropped(events: &mut Events<'_>, kept: &mut Vec<Dropped>, item: Dropped) {
    if let Some(events) = events {
        let Dropped { snapshot, path, reason, .. } = item.clone();
        events(Event::ItemSkipped { snapshot, path, reason });
    }
    if kept.len() < MAX_NAMED {
        kept.push(item);
    }
}

fn check_opened_with(repository: &Repository) -> Result<()> {
    for opened_with in [repository.check_config(), repository.check_key()] {
        match opened_with {
            Err(e @ (VykarError::Damaged { .. } | VykarError::NotARepository { .. })) => {
                let advice = "No other object says what is in it: put it back from a copy of the repository";
                return Err(refused(format!("{e}. {advice}")));
            }
            other => other?,
        }
    }
    Ok(())
}

type Unreadable = Vec<(SnapshotId, String)>;

fn read_snapshots(
    repository: &Repository,
    ids: &[SnapshotId],
    contents: &mut HashMap<String, PackId>,
) -> Result<(Vec<Snapshot>, Unreadable)> {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for id in ids {
        let read = read_object(repository, id).and_then(|mut object| {
            contents.insert(snapshot_key(id), pack_id(&object));
            open_snapshot(repository, id, &mut object)
        });
        match read {
            Ok(snapshot) => readable.push(snapshot),
            Err(VykarError::SnapshotUnusable { cause, .. }) if cause.is_newer() => {
                return Err(refused(format!("snapshot {id}: {cause}. Only a newer program can judge it")));
            }
            Err(VykarError::SnapshotUnusable { cause, .. }) => unreadable.push((*id, cause.to_string())),
            Err(VykarError::Storage(StorageError::NotFound { .. })) => return Err(changed()),
            Err(other) => return Err(other),
        }
    }
    readable.sort_by_key(|s| (s.time, s.id));
    Ok((readable, unreadable))
}

pub(super) fn stamp(repository: &Repository) -> Result<Option<IndexStamp>> {
    match repository.index_stamp() {
        Err(VykarError::IndexMissing) => Ok(None),
        other => other,
    }
}

/// The index, empty where it cannot be used, and why that is.
fn read_index(
    repository: &Repository,
    contents: &mut HashMap<String, PackId>,
) -> Result<(IndexBlob, Option<String>)> {
    let (read, content) = repository.read_index_hashed();
    contents.extend(content.map(|content| (INDEX.to_owned(), content)));
    let reason = match read {
        Ok(index) => return Ok((index, None)),
        Err(VykarError::IndexMissing) => "missing although there are snapshots".to_owned(),
        Err(VykarError::Damaged { cause, .. }) if cause.is_newer() => {
            return Err(refused(format!("index: {cause}. Only a newer program can judge it")));
        }
        Err(VykarError::Damaged { cause, .. }) => cause.to_string(),
        Err(VykarError::Storage(e @ StorageError::TooLarge { .. })) => e.to_string(),
        Err(other) => return Err(other),
    };
    Ok((IndexBlob::default(), Some(reason)))
}

/// All references to what is whole, and the snapshots that are not, with the first thing that is wrong.
fn count(
    reader: &ChunkReader,
    survey: &WholeSurvey,
    snapshots: &[Snapshot],
) -> Result<(Vec<u32>, HashMap<SnapshotId, String>)> {
    let mut affected: HashMap<SnapshotId, String> = HashMap::new();
    // What the first snapshot that has a stretch of items was affected by.
    let mut stretches: HashMap<usize, String> = HashMap::new();
    let (mut at, mut newer) = (0, None);
    let references = references::count(reader, survey.table(), snapshots, &mut |seen| {
        let (snapshot, reason) = match seen {
            CountedPart::Begin(_, stretch) => {
                at = stretch;
                return;
            }
            CountedPart::Again(snapshot, stretch) => match stretches.get(&stretch) {
                None => return,
                Some(reason) => (snapshot, reason.clone()),
            },
            CountedPart::Item(snapshot, item, slots) => {
                let sized = |slot: u32, size: u32| slot != MISSING && survey.sizes[slot as usize] == size;
                let bad = item.chunks.iter().zip(slots).find(|(chunk, slot)| !sized(**slot, chunk.size));
                let Some((chunk, _)) = bad else { return };
                let reason = format!("{:?}: chunk {} is lost", item.path, chunk.id);
                stretches.entry(at).or_insert_with(|| reason.clone());
                (snapshot, reason)
            }
            CountedPart::Problem(snapshot, problem) => {
                let reason = format!("{:?}: {problem}", problem.path());
                if matches!(problem, ItemProblem::Newer { .. }) {
                    newer.get_or_insert_with(|| format!("snapshot {}: {reason}", snapshot.id));
                }
                stretches.entry(at).or_insert_with(|| reason.clone());
                (snapshot, reason)
            }
            CountedPart::Lost(snapshot, reason) => (snapshot, reason),
        };
        affected.entry(snapshot.id).or_insert(reason);
    });
    match newer {
        Some(reason) => Err(refused(format!("{reason}. Only a newer program can judge it"))),
        None => Ok((references.counts, affected)),
    }
}
