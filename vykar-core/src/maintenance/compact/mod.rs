//! Giving back the space of what no snapshot refers to any more.
//!
//! Every reference of every snapshot is counted first, and nothing is touched when a chunk is missing or counted too
//! low. Then the index goes without what is dead, packs that hold nothing else are deleted, and packs that are dead
//! in part are written anew, round by round: new packs, the index that names them, and only then the old packs go.
//! What stops in between leaves packs that the index does not name, which the next run deletes.

mod plan;
mod repack;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use self::plan::leftovers;
pub use self::plan::{CompactPlan, Repack};
use self::plan::{PlannedCompaction, plan};
use self::repack::Repacker;
use super::deletion_note::Deletions;
use super::repair::survey::walk;
use super::verify::MAX_PACK_OBJECT;
use crate::crypto::pack_id;
use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::event::{Event, Events, Totals};
use crate::format::pack::HEADER;
use crate::id::PackId;
use crate::repository::{LockOptions, Repository, WriteGuard, pack_key};

/// Dead bytes of a pack in percent at which it is written anew, by default.
pub const DEFAULT_THRESHOLD: u8 = 20;
/// Bytes that are written between two versions of the index, at least. An index takes time, too: a round writes at
/// least [`ROUND_PER_INDEX`] times as much as that has.
const ROUND: u64 = 1 << 30;
const ROUND_PER_INDEX: u64 = 8;

/// How a repository is compacted.
#[derive(Debug, Clone)]
pub struct CompactOptions {
    /// A pack is written anew when so many percent of it are dead, 0 to 100.
    pub threshold: u8,
    /// Write anew at most so many bytes of old packs, those with most dead bytes first.
    pub max_repack_size: Option<u64>,
    /// How long to wait for the lock.
    pub lock: LockOptions,
    /// Set by the caller to end early. What is done then stays done.
    pub cancel: Arc<AtomicBool>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        CompactOptions {
            threshold: DEFAULT_THRESHOLD,
            max_repack_size: None,
            lock: LockOptions::default(),
            cancel: Arc::default(),
        }
    }
}

/// What a compaction did.
#[derive(Debug, Default)]
pub struct CompactReport {
    /// What was planned.
    pub plan: CompactPlan,
    /// Packs that were deleted, and their bytes.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Packs that were written.
    pub packs_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Packs that are not what their names say, and were left as they are.
    pub damaged: Vec<(PackId, String)>,
}

impl CompactReport {
    /// Bytes that the packs have less.
    pub fn bytes_freed(&self) -> u64 {
        self.bytes_deleted.saturating_sub(self.bytes_written)
    }
}

/// Finds out what [`compact`] would do, without a lock and without writing anything.
///
/// # Errors
/// As [`compact`].
pub fn plan_compact(
    repository: &Repository,
    options: &CompactOptions,
    mut events: Events<'_>,
) -> Result<CompactPlan> {
    Ok(plan(repository, repository.open_sound_index()?, options, &mut events)?.plan)
}

/// Deletes what no snapshot refers to.
///
/// Tells [`Event::Progress`] with items of snapshots counted, and then with packs and bytes rewritten.
///
/// # Errors
/// [`VykarError::Unsound`], [`VykarError::SnapshotUnusable`] and [`VykarError::SnapshotsMissing`], with nothing changed,
/// when what snapshots refer to is not all known, not all there, or not all counted. [`VykarError::Interrupted`] when cancelled. Whatever it ends
/// with, every snapshot is as whole as before, and the next run goes on.
pub fn compact(
    repository: &Repository,
    options: &CompactOptions,
    mut events: Events<'_>,
) -> Result<CompactReport> {
    let mut done = false;
    let report = repository.with_maintenance_lock(&options.lock, |guard| {
        let planned = plan(repository, guard.open_index()?, options, &mut events)?;
        let mut report = CompactReport::default();
        if !planned.plan.is_empty() {
            let mut run = Compaction { guard, planned: &planned, options, report: &mut report };
            done = run.all(&mut events)?;
        } else {
            done = true;
        }
        if done {
            // The counts are right.
            Deletions::read(repository)?.clear(guard)?;
        }
        report.plan = planned.plan;
        Ok(report)
    })?;
    if done { Ok(report) } else { Err(VykarError::Interrupted) }
}

struct Compaction<'g, 'r, 'p> {
    guard: &'g mut WriteGuard<'r>,
    planned: &'p PlannedCompaction,
    options: &'p CompactOptions,
    report: &'p mut CompactReport,
}

impl Compaction<'_, '_, '_> {
    /// False when it was cancelled.
    fn all(&mut self, events: &mut Events<'_>) -> Result<bool> {
        let backend = self.guard.repository().backend().clone();
        let plan = &self.planned.plan;
        let mut repacker = Repacker::new(&*backend, self.planned);
        // What is dead goes first: the room may be needed.
        if plan.chunks_dropped > 0 || plan.counts_lowered > 0 {
            self.write_index(&repacker)?;
        }
        for leftover in &plan.leftovers {
            self.guard.check()?;
            backend.remove_leftover(&leftover.key)?;
        }
        self.guard.delete(plan.journals.iter().map(|object| object.key.clone()))?;
        self.delete_dead()?;
        let index_size = self.guard.index_stamp().map_or(0, |stamp| stamp.object_len());
        let round = ROUND.max(index_size.saturating_mul(ROUND_PER_INDEX));
        let expected = Totals {
            files: plan.repack.len() as u64,
            bytes: plan.repack.iter().map(|repack| repack.size).sum(),
        };
        let (mut files, mut bytes, mut cancelled) = (0, 0, false);
        for repack in &plan.repack {
            cancelled = self.options.cancel.load(Ordering::Relaxed);
            if cancelled {
                break;
            }
            match repacker.take(repack)? {
                Ok(()) => self.report.bytes_written += repack.live,
                Err(reason) => self.report.damaged.push((repack.pack, reason)),
            }
            files += 1;
            bytes += repack.size;
            if let Some(events) = events {
                events(Event::Progress { files, bytes, path: None, expected: Some(expected) });
            }
            if repacker.unsettled >= round {
                self.settle(&mut repacker)?;
            }
        }
        self.settle(&mut repacker)?;
        self.report.packs_written = repacker.written();
        self.report.bytes_written += self.report.packs_written * HEADER.len() as u64;
        Ok(!cancelled)
    }

    /// Deletes packs in which nothing is alive, but for those that are something else than their names say: what they hold
    /// may be alive under another name.
    fn delete_dead(&mut self) -> Result<()> {
        let table = &self.planned.index.index.chunks;
        let numbers: HashMap<PackId, u32> = table.packs().iter().copied().zip(0..).collect();
        for (pack, size) in &self.planned.plan.delete {
            match self.misnamed(pack, numbers.get(pack).copied())? {
                None => self.delete(std::iter::once((*pack, *size)))?,
                Some(reason) => self.report.damaged.push((*pack, reason)),
            }
        }
        Ok(())
    }

    /// What speaks against a pack being what its name says. Of one that the index knows, two chunks tell it from any
    /// other; another one is read, and goes whatever its name where it holds nothing that the index knows.
    fn misnamed(&self, pack: &PackId, number: Option<u32>) -> Result<Option<String>> {
        let repository = self.guard.repository();
        let (backend, key) = (repository.backend(), pack_key(pack));
        let slots = number.map_or(&[][..], |number| self.planned.by_pack.of(number));
        let wrong = |reason: String| Ok(Some(reason));
        if slots.is_empty() {
            return match backend.get(&key, MAX_PACK_OBJECT) {
                Ok(data) if pack_id(&data) == *pack || !self.holds_known(&data) => Ok(None),
                Ok(_) => wrong(ObjectError::WrongId.to_string()),
                Err(StorageError::NotFound { .. }) => Ok(None),
                Err(e @ StorageError::TooLarge { .. }) => wrong(e.to_string()),
                Err(e) => Err(e.into()),
            };
        }
        for slot in slots.first().into_iter().chain(slots.last()) {
            let entry = self.planned.index.index.chunks.entry(*slot as usize);
            let mut object = match backend.get_range(&key, entry.offset, entry.stored_size as usize) {
                Ok(object) => object,
                Err(StorageError::NotFound { .. }) => return Ok(None),
                Err(e @ StorageError::Short { .. }) => return wrong(e.to_string()),
                Err(e) => return Err(e.into()),
            };
            if let Err(e) = repository.keys().open_chunk(&entry.id, &mut object) {
                return wrong(format!("chunk {}: {e}", entry.id.short()));
            }
        }
        Ok(None)
    }

    fn holds_known(&self, pack: &[u8]) -> bool {
        let (table, keys) = (&self.planned.index.index.chunks, self.guard.repository().keys());
        let mut known = table.packs().contains(&pack_id(pack));
        walk(pack, &[], &mut |_, object| {
            known = known || keys.identify_chunk(object).is_ok_and(|(id, _)| table.find(&id).is_some());
        });
        known
    }

    /// New packs, the index that names them, and then the old ones go.
    fn settle(&mut self, repacker: &mut Repacker<'_>) -> Result<()> {
        if repacker.emptied.is_empty() {
            return Ok(());
        }
        repacker.settle()?;
        self.write_index(repacker)?;
        let emptied: HashSet<PackId> = repacker.emptied.drain(..).collect();
        // A pack that was written again as it is has its old name.
        let gone: Vec<_> = self.planned.plan.repack.iter().filter(|r| emptied.contains(&r.pack)).collect();
        let gone = gone.into_iter().filter(|r| !repacker.wrote(&r.pack)).map(|r| (r.pack, r.size));
        self.delete(gone.collect::<Vec<_>>().into_iter())
    }

    fn write_index(&mut self, repacker: &Repacker<'_>) -> Result<()> {
        self.guard.write_index(repacker.count(), repacker.entries()).map(drop)
    }

    fn delete(&mut self, packs: impl Iterator<Item = (PackId, u64)>) -> Result<()> {
        for (id, size) in packs {
            self.guard.delete([pack_key(&id)])?;
            self.report.packs_deleted += 1;
            self.report.bytes_deleted += size;
        }
        Ok(())
    }
}
