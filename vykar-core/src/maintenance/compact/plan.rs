//! What a compaction would do.

use std::collections::HashMap;
use std::time::Duration;

use super::CompactOptions;
use crate::error::{Result, VykarError};
use crate::event::Events;
use crate::format::index::ChunkTable;
use crate::format::pack::{HEADER, LENGTH_PREFIX, MAX_TREE_PACK};
use crate::format::{Encryption, MAX_CHUNK_PLAINTEXT, RepoConfig, Snapshot};
use crate::id::PackId;
use crate::maintenance::check::list_packs;
use crate::maintenance::delete::Counting;
use crate::maintenance::evidence::refuse_unless_one_opens;
use crate::maintenance::references;
use crate::maintenance::references::{CountedPart, MISSING};
use crate::maintenance::vanished_guard::{refuse_none, refuse_vanished};
use crate::maintenance::verify::{ByPack, Pack};
use crate::repository::objects::layout;
use crate::repository::objects::pack_writer::{PackKind, data_pack_target};
use crate::repository::{ChunkReader, Manifest, OpenIndex, Repository, pack_key};
use crate::storage::ObjectInfo;

/// An unfinished write that is younger may be going on.
const YOUNG: Duration = Duration::from_secs(3600);
/// Longest object that a length in a pack may announce: the longest chunk, and what its codec and cipher add.
const MAX_CHUNK_OBJECT: usize = 2 * MAX_CHUNK_PLAINTEXT as usize;
/// So many small packs of a kind are put together, even where nothing in them is dead.
const SMALL_PACKS: usize = 8;
/// A pack that is smaller than this part of what a pack should have is small.
const SMALL: u64 = 4;

/// A pack that is written anew without what is dead in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repack {
    /// The pack.
    pub pack: PackId,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes of it that stay, length prefixes included.
    pub live: u64,
    /// What most of it is.
    pub kind: PackKind,
}

impl Repack {
    /// Bytes that nobody refers to.
    pub fn dead(&self) -> u64 {
        self.size.saturating_sub(HEADER.len() as u64 + self.live)
    }

    /// In percent of what is not the header, rounded down.
    fn dead_percent(&self) -> u64 {
        let body = self.size.saturating_sub(HEADER.len() as u64).max(1);
        (u128::from(self.dead()) * 100 / u128::from(body)) as u64 // at most 100
    }
}

/// What a compaction does, found without writing anything.
#[derive(Debug, Default)]
pub struct CompactPlan {
    /// Packs in which no chunk is alive, and those that the index does not name; with their bytes.
    pub delete: Vec<(PackId, u64)>,
    /// Packs that are written anew.
    pub repack: Vec<Repack>,
    /// Chunks that leave the index, since no snapshot refers to them.
    pub chunks_dropped: u64,
    /// Chunks that stay, with a count that was too high.
    pub counts_lowered: u64,
    /// Unfinished writes of programs that are gone.
    pub leftovers: Vec<ObjectInfo>,
    /// Journals of backups that are gone, of packs that are deleted here.
    pub journals: Vec<ObjectInfo>,
}

impl CompactPlan {
    /// Bytes that the packs will have less.
    pub fn bytes_freed(&self) -> u64 {
        let deleted: u64 = self.delete.iter().map(|(_, size)| size).sum();
        deleted + self.repack.iter().map(Repack::dead).sum::<u64>()
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let CompactPlan { delete, repack, chunks_dropped, counts_lowered, leftovers, journals } = self;
        delete.is_empty()
            && repack.is_empty()
            && (*chunks_dropped, *counts_lowered) == (0, 0)
            && leftovers.is_empty()
            && journals.is_empty()
    }
}

/// A plan, and what carrying it out needs.
pub(super) struct PlannedCompaction {
    pub plan: CompactPlan,
    pub index: OpenIndex,
    pub by_pack: ByPack,
    /// References found for each slot.
    pub counts: Vec<u32>,
    /// Which slots are item-stream chunks.
    pub tree: Vec<bool>,
    /// Bytes at which a new data pack is closed.
    pub target: u64,
}

/// Makes a plan.
///
/// # Errors
/// [`VykarError::Unsound`] when the counts cannot be trusted, or a pack that is needed is not there in full:
/// compacting could then take away what a repair needs. [`VykarError::SnapshotsMissing`] when there may be snapshots that
/// are not seen, and [`VykarError::LeadsOut`] when what the index does not name may be somebody else's.
pub(super) fn plan(
    repository: &Repository,
    index: OpenIndex,
    options: &CompactOptions,
    events: &mut Events<'_>,
) -> Result<PlannedCompaction> {
    let manifest = Manifest::load_all(repository)?;
    if let Some((snapshot, cause)) = manifest.unreadable.into_iter().next() {
        return Err(VykarError::SnapshotUnusable { snapshot, cause });
    }
    let table = &index.index.chunks;
    let ids: Vec<_> = manifest.snapshots.iter().map(|s| s.id).collect();
    refuse_none(repository, &ids, index.stamp.map(|_| table))?;
    let reader =
        ChunkReader::new(repository.backend().clone(), repository.keys().clone(), index.index.clone());
    refuse_unless_one_opens(&reader, &manifest.snapshots)?;
    let counts = recount(&reader, &index, &manifest.snapshots, events)?;
    let explained = counts.iter().enumerate().all(|(slot, count)| table.entry(slot).refcount <= *count);
    refuse_vanished(repository, &ids, explained)?;
    let mut tree = vec![false; table.len()];
    for pointer in manifest.snapshots.iter().flat_map(|s| &s.meta.item_ptrs) {
        if let Some(slot) = table.find(pointer) {
            tree[slot] = true;
        }
    }
    let packs = list_packs(repository, table)?;
    let by_pack = ByPack::new(table);
    check_packs(&packs, table, &by_pack, &counts)?;
    let target = data_pack_target(repository.config(), packs.len()) as u64;
    let mut plan = CompactPlan { leftovers: leftovers(repository)?, ..CompactPlan::default() };
    for (slot, count) in counts.iter().enumerate() {
        let recorded = table.entry(slot).refcount;
        plan.chunks_dropped += u64::from(*count == 0);
        plan.counts_lowered += u64::from(*count > 0 && *count < recorded);
    }
    let journals = repository.backend().list("sessions/")?;
    plan.journals = journals.into_iter().filter(|object| object.key.ends_with(".index")).collect();
    let strange = packs.iter().filter(|pack| pack.number.is_none());
    refuse_strangers(repository, strange, &plan.journals)?;
    let mut candidates = Vec::new();
    for pack in &packs {
        let slots = pack.number.map_or(&[][..], |number| by_pack.of(number));
        let repack = judge(pack, slots, table, (&counts, &tree));
        match repack.live {
            0 => plan.delete.push((pack.id, pack.size)),
            _ => candidates.push(repack),
        }
    }
    plan.repack = choose(candidates, options, repository.config(), target);
    Ok(PlannedCompaction { plan, index, by_pack, counts, tree, target })
}

/// Refuses where packs that the index does not name, or journals, are behind a link that leads out of the repository: they
/// may be another one's. Without encryption nothing tells whose a pack is.
fn refuse_strangers<'p>(
    repository: &Repository,
    mut packs: impl Iterator<Item = &'p Pack>,
    journals: &[ObjectInfo],
) -> Result<()> {
    if !journals.is_empty() {
        layout::refuse_to_follow(repository, &["sessions"])?;
    }
    match layout::refuse_to_follow(repository, &["packs"]) {
        Err(e @ VykarError::LeadsOut { .. }) => match packs.all(|pack| is_sealed_here(repository, pack)) {
            true => Ok(()),
            false => Err(e),
        },
        other => other,
    }
}

/// True when a pack's first chunk was sealed with this repository's key, which nobody else has.
fn is_sealed_here(repository: &Repository, pack: &Pack) -> bool {
    let (backend, key) = (repository.backend(), pack_key(&pack.id));
    let read = |offset: usize, len: usize| backend.get_range(&key, offset as u64, len).ok();
    let first = || {
        let length = read(HEADER.len(), LENGTH_PREFIX as usize)?;
        let length = u32::from_le_bytes(*length.first_chunk()?) as usize;
        let object = read(HEADER.len() + LENGTH_PREFIX as usize, length.min(MAX_CHUNK_OBJECT))?;
        repository.keys().identify_chunk(&object).ok()
    };
    repository.config().encryption != Encryption::None && first().is_some()
}

/// Unfinished writes that nobody is at any more: nothing was added to them for long. A younger one may be a backup's that
/// was only taken for dead.
pub(in crate::maintenance) fn leftovers(repository: &Repository) -> Result<Vec<ObjectInfo>> {
    let mut found = repository.backend().leftovers(YOUNG)?;
    found.retain(|object| layout::is_place(&object.key));
    Ok(found)
}

/// Counts all references, each of which must be to a chunk of the index that is counted high enough there.
fn recount(
    reader: &ChunkReader,
    index: &OpenIndex,
    snapshots: &[Snapshot],
    events: &mut Events<'_>,
) -> Result<Vec<u32>> {
    let table = &index.index.chunks;
    let mut counting = Counting { items: 0, events };
    let mut wrong = None;
    let found = references::count(reader, table, snapshots, &mut |seen| {
        if wrong.is_none() {
            wrong = match &seen {
                CountedPart::Item(snapshot, item, slots) if slots.contains(&MISSING) => Some(format!(
                    "snapshot {}, {:?}: a chunk of it is not in the index",
                    snapshot.meta.name, item.path
                )),
                CountedPart::Item(..) | CountedPart::Begin(..) | CountedPart::Again(..) => None,
                CountedPart::Problem(snapshot, problem) => {
                    Some(format!("snapshot {}, {:?}: {problem}", snapshot.meta.name, problem.path()))
                }
                CountedPart::Lost(snapshot, reason) => {
                    Some(format!("snapshot {}: {reason}", snapshot.meta.name))
                }
            };
        }
        counting.see(seen);
    });
    if let Some(reason) = wrong {
        return Err(VykarError::Unsound { reason });
    }
    for (slot, counted) in found.counts.iter().enumerate() {
        let entry = table.entry(slot);
        if *counted > entry.refcount {
            let reason = format!(
                "chunk {}: {counted} references, and the index counts {}",
                entry.id.short(),
                entry.refcount
            );
            return Err(VykarError::Unsound { reason });
        }
    }
    Ok(found.counts)
}

/// Every pack in which a chunk is alive must be there in full.
fn check_packs(packs: &[Pack], table: &ChunkTable, by_pack: &ByPack, counts: &[u32]) -> Result<()> {
    let sizes: HashMap<u32, u64> = packs.iter().filter_map(|pack| Some((pack.number?, pack.size))).collect();
    for (number, id) in (0..).zip(table.packs()) {
        let end = |slot: &u32| {
            let entry = table.entry(*slot as usize);
            entry.offset.saturating_add(entry.stored_size.into())
        };
        let alive = by_pack.of(number).iter().filter(|slot| counts[**slot as usize] > 0);
        let Some(end) = alive.map(end).max() else { continue };
        match sizes.get(&number) {
            Some(size) if *size >= end => {}
            Some(_) => return Err(VykarError::Unsound { reason: format!("pack {id} is too short") }),
            None => return Err(VykarError::Unsound { reason: format!("pack {id} is missing") }),
        }
    }
    Ok(())
}

fn judge(pack: &Pack, slots: &[u32], table: &ChunkTable, (counts, tree): (&[u32], &[bool])) -> Repack {
    let (mut live, mut of_tree) = (0u64, 0u64);
    for slot in slots.iter().map(|slot| *slot as usize).filter(|slot| counts[*slot] > 0) {
        let bytes = LENGTH_PREFIX + u64::from(table.entry(slot).stored_size);
        live = live.saturating_add(bytes);
        of_tree = of_tree.saturating_add(if tree[slot] { bytes } else { 0 });
    }
    let kind = if of_tree > live / 2 { PackKind::Tree } else { PackKind::Data };
    Repack { pack: pack.id, size: pack.size, live, kind }
}

/// Chooses packs to be written anew: those with enough dead bytes, most of them first, and then small ones.
fn choose(mut packs: Vec<Repack>, options: &CompactOptions, config: &RepoConfig, target: u64) -> Vec<Repack> {
    // What is larger would not be read.
    packs.retain(|pack| pack.size <= crate::maintenance::verify::MAX_PACK_OBJECT);
    let is_small = |pack: &Repack| {
        let full = match pack.kind {
            PackKind::Data => target.min(config.min_pack_size.into()),
            PackKind::Tree => MAX_TREE_PACK as u64,
        };
        pack.size < full / SMALL
    };
    let is_dead = |pack: &Repack| pack.dead() > 0 && pack.dead_percent() >= u64::from(options.threshold);
    let enough =
        |kind| packs.iter().filter(|pack| pack.kind == kind && is_small(pack)).count() >= SMALL_PACKS;
    let (small_data, small_tree) = (enough(PackKind::Data), enough(PackKind::Tree));
    let wanted = |pack: &Repack| {
        let together = if pack.kind == PackKind::Data { small_data } else { small_tree };
        is_dead(pack) || (together && is_small(pack))
    };
    packs.retain(wanted);
    packs.sort_by_key(|pack| (!is_dead(pack), std::cmp::Reverse(pack.dead_percent()), pack.pack));
    let mut left = options.max_repack_size.unwrap_or(u64::MAX);
    packs.retain(|pack| {
        let fits = pack.size <= left;
        left -= if fits { pack.size } else { 0 };
        fits
    });
    packs
}
