//! Doing what a plan says.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::references;
use super::super::references::{CountedPart, MISSING};
use super::places::{Relocated, everything};
use super::plan::{RepairPlan, stamp};
use super::put_back::put_back;
use super::store::PackStore;
use super::{RepairOptions, changed};
use crate::error::{ObjectError, Result, VykarError};
use crate::format::index::{ChunkTable, TableBuilder};
use crate::format::{IndexBlob, IndexEntry, Snapshot};
use crate::id::{PackId, SnapshotId};
use crate::maintenance::repair::quarantine::{note_key, set_aside};
use crate::maintenance::repair::reread::look_again;
use crate::repository::objects::layout::DAMAGED;
use crate::repository::{
    ChunkReader, INDEX, INDEX_GENERATION, Repository, WriteGuard, pack_key, snapshot_key,
};
use crate::storage::{Backend, PutMode};

/// What a repair did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Snapshots that were set aside.
    pub set_aside: Vec<SnapshotId>,
    /// Those of them that have a successor, and its id.
    pub replaced: Vec<(SnapshotId, SnapshotId)>,
    /// Damaged packs that were set aside.
    pub packs_set_aside: Vec<PackId>,
    /// Packs that were put back where they belong.
    pub packs_put_back: Vec<PackId>,
    /// Snapshots that were.
    pub snapshots_put_back: Vec<SnapshotId>,
    /// Packs that were written.
    pub packs_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// The index was written.
    pub index_written: bool,
}

/// Repairs the repository as planned.
///
/// # Errors
/// [`VykarError::RepairRefused`] when the repository is not as it was when the plan was made, or what the plan takes for
/// damaged is read differently now; nothing is changed then.
/// [`VykarError::Interrupted`] once the lock's `cancel` is set. After that and any other failure everything that could be read before can be read still, and another repair finishes it.
pub fn apply_repair(
    repository: &Repository,
    plan: &RepairPlan,
    options: &RepairOptions,
) -> Result<RepairReport> {
    repository.with_maintenance_lock(&options.lock, |guard| {
        guard.may_be_cut_off(&options.lock);
        is_current(repository, plan)?;
        look_again(repository, plan)?;
        let mut apply =
            Apply { repository, plan, options, report: RepairReport::default(), needless: Vec::new() };
        apply.run(guard)?;
        Ok(apply.report)
    })
}

fn is_current(repository: &Repository, plan: &RepairPlan) -> Result<()> {
    let same = everything(repository)? == plan.objects && stamp(repository)? == plan.stamp;
    if same { Ok(()) } else { Err(changed()) }
}

struct Apply<'r> {
    repository: &'r Repository,
    plan: &'r RepairPlan,
    options: &'r RepairOptions,
    report: RepairReport,
    /// Copies that were made on the way.
    needless: Vec<String>,
}

impl Apply<'_> {
    fn run(&mut self, guard: &mut WriteGuard<'_>) -> Result<()> {
        let (repository, plan) = (self.repository, self.plan);
        // Before anything is stored: a new pack may take the place of the damaged one that it is made of.
        let mut elsewhere = plan.survey.elsewhere.clone();
        for wrong in &plan.wrong {
            guard.check()?;
            let copy = set_aside(repository, &pack_key(&wrong.pack), &wrong.reason, wrong.content)?;
            if let (Some(copy), Some(content)) = (copy, wrong.content)
                && !plan.survey.is_whole(&content)
            {
                elsewhere.insert(content, copy);
            }
        }
        self.needless = put_back(guard, plan.pack_moves.clone())?;
        plan.pack_moves.iter().for_each(|wanted| drop(elsewhere.remove(&wanted.content)));
        self.report.packs_put_back = plan.packs_put_back.iter().map(|(pack, _)| *pack).collect();
        let packs: Arc<dyn Backend> = Arc::new(Relocated::new(repository.backend().clone(), &elsewhere));
        let mut store = PackStore::new(repository, self.options.lock.cancel.clone());
        store.move_chunks(plan, &*packs)?;
        let new = self.rewrite(&mut store, packs)?;
        store.flush()?;
        self.report.packs_written = store.packs.len() as u64;
        self.report.bytes_written = store.bytes;
        let index = self.index(&store)?;
        if plan.writes_index() || !plan.snapshot_moves.is_empty() {
            self.write_all(guard, &index, new)?;
        } else if plan.hint_wrong {
            guard.check()?;
            let hint = plan.generation.to_le_bytes();
            repository.backend().put(INDEX_GENERATION, &hint, PutMode::Replace)?;
        }
        self.clear(guard, &store)?;
        self.report.packs_set_aside = plan.packs_damaged.iter().map(|(pack, ..)| *pack).collect();
        Ok(())
    }

    /// Deletes what is kept under `damaged/` now, or is in its own place as well.
    fn clear(&mut self, guard: &WriteGuard<'_>, store: &PackStore<'_>) -> Result<()> {
        let plan = self.plan;
        let damaged = plan.wrong.iter().map(|wrong| pack_key(&wrong.pack));
        let moved = plan.pack_moves.iter().map(|wanted| wanted.from.clone());
        let gone = damaged.chain(moved.filter(|key| is_ours(key)));
        let aside = plan.pack_moves.iter().map(|wanted| &wanted.from).filter(|key| key.starts_with(DAMAGED));
        self.needless.extend(aside.map(|key| note_key(key)));
        let mut stays: HashSet<String> = store.packs.iter().map(pack_key).collect();
        stays.extend(plan.pack_moves.iter().map(|wanted| wanted.to.clone()));
        guard.delete(gone.filter(|key| !stays.contains(key)))?;
        guard.delete(std::mem::take(&mut self.needless))
    }

    /// The snapshots that take the place of damaged ones, which are not written yet.
    fn rewrite(&self, store: &mut PackStore<'_>, packs: Arc<dyn Backend>) -> Result<Vec<Snapshot>> {
        let keys = self.repository.keys().clone();
        let reader = ChunkReader::new(packs, keys, self.plan.survey.index.clone());
        let replaced: HashSet<SnapshotId> =
            self.plan.snapshots.iter().filter(|fate| fate.replaced).map(|fate| fate.id).collect();
        let damaged = self.plan.damaged.iter().filter(|snapshot| replaced.contains(&snapshot.id));
        damaged.map(|snapshot| store.rewrite(&reader, self.plan, snapshot)).collect()
    }

    /// Where every chunk is now, with the counts of the old index.
    fn index(&self, store: &PackStore<'_>) -> Result<Arc<IndexBlob>> {
        let table = self.plan.survey.table();
        let mut builder = TableBuilder::default();
        let failed =
            |e: crate::error::FormatError| VykarError::Encode { what: "index", reason: e.to_string() };
        let mut stored: HashSet<_> = store.entries.iter().map(|entry| entry.id).collect();
        for entry in table.iter().filter(|entry| self.plan.stays(&entry.pack)) {
            stored.remove(&entry.id);
            builder.add(entry).map_err(failed)?;
        }
        for entry in store.entries.iter().filter(|entry| stored.contains(&entry.id)) {
            let refcount = table.get(&entry.id).map_or(0, |old| old.refcount);
            builder.add(IndexEntry { refcount, ..*entry }).map_err(failed)?;
        }
        Ok(Arc::new(IndexBlob { generation: 0, chunks: builder.finish().map_err(failed)? }))
    }

    /// Writes index and snapshots, in the order that [`super`] describes.
    fn write_all(
        &mut self,
        guard: &mut WriteGuard<'_>,
        index: &Arc<IndexBlob>,
        new: Vec<Snapshot>,
    ) -> Result<()> {
        let (repository, plan) = (self.repository, self.plan);
        let (backend, keys) = (repository.backend().clone(), repository.keys().clone());
        let reader = ChunkReader::new(backend, keys, index.clone());
        let table = &index.chunks;
        let left: Vec<Snapshot> = plan.whole.iter().chain(&new).cloned().collect();
        let counts = self.count_whole(&reader, table, &left)?;
        for fate in &plan.snapshots {
            let key = snapshot_key(&fate.id);
            set_aside(repository, &key, &fate.plain_reason(), plan.contents.get(&key).copied())?;
        }
        for key in plan.in_the_way.iter().map(snapshot_key) {
            set_aside(repository, &key, "another object took its place", plan.contents.get(&key).copied())?;
        }
        if plan.index_unusable.is_some() || plan.index_entries_change() {
            let reason = plan.index_unusable.as_deref().unwrap_or("replaced by one without what is lost");
            set_aside(repository, INDEX, reason, plan.contents.get(INDEX).copied())?;
        }
        if !plan.snapshots.is_empty() || !plan.snapshot_moves.is_empty() {
            let old = references::count(&reader, table, &plan.damaged, &mut |_| ()).counts;
            let most = |slot: usize| table.entry(slot).refcount.max(counts[slot].saturating_add(old[slot]));
            let most: Vec<u32> = (0..table.len()).map(most).collect();
            write(guard, table, &most)?;
            self.needless.extend(put_back(guard, plan.snapshot_moves.clone())?);
            self.report.snapshots_put_back = plan.snapshots_put_back.iter().map(|(id, ..)| *id).collect();
            for snapshot in &new {
                let id = guard.write_snapshot(&snapshot.meta.encode()?)?;
                self.report.replaced.push((snapshot.id, id));
            }
            let fates = plan.snapshots.iter().map(|fate| snapshot_key(&fate.id));
            let moved = plan.snapshot_moves.iter().map(|wanted| wanted.from.clone());
            let aside = moved.clone().filter(|key| key.starts_with(DAMAGED)).map(|key| note_key(&key));
            let gone = fates.chain(moved.filter(|key| is_ours(key))).chain(aside);
            guard.delete(gone.filter(|key| !plan.snapshot_moves.iter().any(|wanted| wanted.to == *key)))?;
            self.report.set_aside = plan.snapshots.iter().map(|fate| fate.id).collect();
        }
        self.report.index_written = true;
        write(guard, table, &counts)
    }

    /// References of the snapshots that are left, of which everything must be there.
    fn count_whole(&self, reader: &ChunkReader, table: &ChunkTable, left: &[Snapshot]) -> Result<Vec<u32>> {
        let mut wrong = None;
        let references = references::count(reader, table, left, &mut |seen| {
            let problem = match seen {
                CountedPart::Begin(..) | CountedPart::Again(..) => None,
                CountedPart::Item(_, item, slots) => {
                    let there = |size: u32, id| self.plan.survey.slot_of(id, size).is_some();
                    let chunks = item.chunks.iter().zip(slots);
                    let mut bad =
                        chunks.filter(|(chunk, slot)| **slot == MISSING || !there(chunk.size, &chunk.id));
                    bad.next().map(|(chunk, _)| format!("chunk {} of {:?}", chunk.id, item.path))
                }
                CountedPart::Problem(_, problem) => Some(problem.to_string()),
                CountedPart::Lost(_, reason) => Some(reason),
            };
            wrong = wrong.take().or(problem);
        });
        match wrong {
            // What was whole when it was planned is not any more.
            Some(reason) => Err(VykarError::damaged(INDEX, ObjectError::Unreadable(reason))),
            None => Ok(references.counts),
        }
    }
}

/// True in the repository's own folders. What lies elsewhere may be a copy that somebody made.
fn is_ours(key: &str) -> bool {
    ["packs/", "snapshots/", DAMAGED].iter().any(|folder| key.starts_with(folder))
}

fn write(guard: &mut WriteGuard<'_>, table: &ChunkTable, counts: &[u32]) -> Result<()> {
    let left = counts.iter().filter(|count| **count > 0).count();
    let left = u32::try_from(left).unwrap_or(u32::MAX); // a table has less than 2^32 slots
    let entries = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let entries = entries.map(|(slot, count)| IndexEntry { refcount: *count, ..table.entry(slot) });
    guard.write_index(left, entries).map(drop)
}
