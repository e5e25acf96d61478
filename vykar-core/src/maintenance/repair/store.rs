//! New packs for what is moved out of damaged ones, and for items of repaired snapshots.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::RepairPlan;
use super::salvage::{SalvagedPart, each_part, each_special_loss};
use super::survey::is_chunk;
use super::{refused, unsteady};
use crate::codec::chunker::Chunker;
use crate::codec::{Compression, Compressor};
use crate::crypto::pack_id;
use crate::error::{ObjectError, Result, VykarError};
use crate::format::pack::{HEADER, LENGTH_PREFIX, MAX_BLOBS, MAX_TREE_PACK};
use crate::format::{ChunkerParams, IndexEntry, Item, ItemType, ObjectKind, Snapshot, SnapshotStats};
use crate::id::{ChunkId, PackId};
use crate::repository::{ChunkReader, Repository, pack_key, snapshot_key};
use crate::storage::{Backend, PutMode};

/// Items are cut when so many bytes of them are there, as in a backup.
const CUT_AT: usize = 128 << 10;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepairPackKind {
    Data = 0,
    Tree = 1,
}

/// A pack that is being filled.
struct RepairPack {
    bytes: Vec<u8>,
    entries: Vec<IndexEntry>,
}

impl RepairPack {
    fn new() -> Self {
        RepairPack { bytes: HEADER.to_vec(), entries: Vec::new() }
    }
}

/// Writes packs.
pub(super) struct PackStore<'r> {
    repository: &'r Repository,
    /// Once it is set, nothing more is written.
    stop: Arc<AtomicBool>,
    open: [RepairPack; 2],
    /// Chunks that were stored, with counts of zero.
    pub entries: Vec<IndexEntry>,
    known: HashSet<ChunkId>,
    /// The packs that hold them.
    pub packs: HashSet<PackId>,
    /// Their bytes.
    pub bytes: u64,
}

impl<'r> PackStore<'r> {
    pub fn new(repository: &'r Repository, stop: Arc<AtomicBool>) -> Self {
        let (entries, known, packs) = (Vec::new(), HashSet::new(), HashSet::new());
        PackStore {
            repository,
            stop,
            open: [RepairPack::new(), RepairPack::new()],
            entries,
            known,
            packs,
            bytes: 0,
        }
    }

    /// Stores what is whole in damaged packs and referred to. `packs` finds each object under the name that its content
    /// would have as a pack.
    pub fn move_chunks(&mut self, plan: &RepairPlan, packs: &dyn Backend) -> Result<()> {
        let table = plan.survey.table();
        let trees: HashSet<ChunkId> =
            plan.whole.iter().chain(&plan.damaged).flat_map(|s| s.meta.item_ptrs.iter().copied()).collect();
        let mut moved: HashMap<PackId, Vec<IndexEntry>> = HashMap::new();
        for (slot, _) in plan.needed.iter().enumerate().filter(|(_, needed)| **needed) {
            let entry = table.entry(slot);
            if !plan.survey.is_whole(&entry.pack) {
                moved.entry(entry.pack).or_default().push(entry);
            }
        }
        let mut moved: Vec<_> = moved.into_iter().collect();
        moved.sort_unstable_by_key(|(pack, _)| *pack);
        for (pack, mut entries) in moved {
            entries.sort_unstable_by_key(|entry| entry.offset);
            let key = pack_key(&pack);
            for entry in entries {
                let len = entry.stored_size as usize;
                let object = packs.get_range(&key, entry.offset, len)?;
                if is_chunk(self.repository.keys(), &entry.id, &object).is_none() {
                    let cause = ObjectError::WrongId;
                    return Err(VykarError::ChunkDamaged { chunk: entry.id, pack, cause });
                }
                let kind =
                    if trees.contains(&entry.id) { RepairPackKind::Tree } else { RepairPackKind::Data };
                self.add(kind, &entry.id, &object)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: RepairPackKind, id: &ChunkId, object: &[u8]) -> Result<()> {
        if !self.known.insert(*id) {
            return Ok(());
        }
        let limit = match kind {
            RepairPackKind::Data => self.repository.config().min_pack_size as usize,
            RepairPackKind::Tree => MAX_TREE_PACK,
        };
        let open = &self.open[kind as usize];
        let size = open.bytes.len() + LENGTH_PREFIX as usize + object.len();
        if !open.entries.is_empty() && (size > limit || open.entries.len() >= MAX_BLOBS) {
            self.close(kind)?;
        }
        let open = &mut self.open[kind as usize];
        let stored_size =
            u32::try_from(object.len()).map_err(|_| refused(format!("chunk {id} is too long")))?;
        open.bytes.extend_from_slice(&stored_size.to_le_bytes());
        let offset = open.bytes.len() as u64;
        open.bytes.extend_from_slice(object);
        open.entries.push(IndexEntry { id: *id, refcount: 0, stored_size, pack: PackId([0; 32]), offset });
        Ok(())
    }

    fn close(&mut self, kind: RepairPackKind) -> Result<()> {
        let RepairPack { bytes, entries } =
            std::mem::replace(&mut self.open[kind as usize], RepairPack::new());
        if entries.is_empty() {
            return Ok(());
        }
        let pack = pack_id(&bytes);
        if self.stop.load(Ordering::Relaxed) {
            return Err(VykarError::Interrupted);
        }
        // It may be the very pack that was damaged; that one has been copied.
        self.repository.backend().put(&pack_key(&pack), &bytes, PutMode::Replace)?;
        self.packs.insert(pack);
        self.bytes += bytes.len() as u64;
        self.entries.extend(entries.into_iter().map(|entry| IndexEntry { pack, ..entry }));
        Ok(())
    }

    /// Writes what is not full yet.
    pub fn flush(&mut self) -> Result<()> {
        self.close(RepairPackKind::Data)?;
        self.close(RepairPackKind::Tree)
    }

    /// The snapshot without the items that are lost. Its items are stored; itself it is not, and its id is that of
    /// the old one.
    pub fn rewrite(
        &mut self,
        reader: &ChunkReader,
        plan: &RepairPlan,
        snapshot: &Snapshot,
    ) -> Result<Snapshot> {
        let mut items = Items { pending: Vec::new(), pointers: Vec::new(), compressor: None };
        let mut stats = SnapshotStats {
            deduplicated_size: snapshot.meta.stats.deduplicated_size,
            errors: snapshot.meta.stats.errors,
            ..SnapshotStats::default()
        };
        let mut parts = [0u64; 3];
        each_part(reader, &plan.survey, snapshot, &mut |part| match part {
            SalvagedPart::Whole(item, bytes) => {
                parts[0] += 1;
                count(&mut stats, item);
                items.pending.extend_from_slice(bytes);
                if items.pending.len() < CUT_AT {
                    return Ok(());
                }
                items.cut(self, plan, false)
            }
            SalvagedPart::Dropped { .. } | SalvagedPart::Lost(_) => {
                parts[if matches!(part, SalvagedPart::Lost(_)) { 2 } else { 1 }] += 1;
                stats.errors = stats.errors.saturating_add(1);
                Ok(())
            }
        })?;
        let mut lost_beside = 0;
        each_special_loss(snapshot, &mut |_, _| lost_beside += 1);
        parts[1] += lost_beside;
        stats.errors = stats.errors.saturating_add(lost_beside);
        // A chunk that is not read this time must not cost more than what was agreed to.
        let fate = plan.snapshots.iter().find(|fate| fate.id == snapshot.id);
        if fate.map(|fate| [fate.kept, fate.dropped, fate.gaps]) != Some(parts) {
            return Err(unsteady(&snapshot_key(&snapshot.id)));
        }
        items.cut(self, plan, true)?;
        let mut rewritten = snapshot.clone();
        let ext = snapshot.meta.ext.as_ref().map(|ext| &ext[..]);
        rewritten.meta.ext =
            crate::maintenance::repair::repair_note::with_repaired_from(ext, &snapshot.id, lost_beside > 0)?;
        rewritten.meta.item_ptrs = items.pointers;
        rewritten.meta.stats = stats;
        // What an older program wrote is written in full.
        rewritten.meta.format_version = crate::format::snapshot::FORMAT_VERSION;
        Ok(rewritten)
    }

    /// True when a chunk is where it can stay, or was stored here.
    fn has(&self, plan: &RepairPlan, id: &ChunkId) -> bool {
        let stays = |slot: usize| plan.stays(&plan.survey.table().entry(slot).pack);
        self.known.contains(id) || plan.survey.table().find(id).is_some_and(stays)
    }
}

/// A snapshot's items on their way into chunks.
struct Items {
    pending: Vec<u8>,
    pointers: Vec<ChunkId>,
    compressor: Option<Compressor>,
}

impl Items {
    fn cut(&mut self, store: &mut PackStore<'_>, plan: &RepairPlan, last: bool) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let chunker = Chunker::new(ChunkerParams::ITEMS);
        let (chunks, used) = match last {
            true => (chunker.cut(&pending).collect(), pending.len()),
            false => chunker.cut_open(&pending),
        };
        for chunk in chunks {
            self.chunk(store, plan, chunk)?;
        }
        self.pending = pending[used..].to_vec();
        Ok(())
    }

    fn chunk(&mut self, store: &mut PackStore<'_>, plan: &RepairPlan, data: &[u8]) -> Result<()> {
        let keys = store.repository.keys().clone();
        let id = keys.hasher().chunk_id(data)?;
        self.pointers.push(id);
        if store.has(plan, &id) {
            return Ok(());
        }
        let failed =
            |e: crate::error::CodecError| VykarError::Encode { what: "items", reason: e.to_string() };
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(Compression::default()).map_err(failed)?),
        };
        let mut payload = Vec::new();
        compressor.compress(data, &mut payload).map_err(failed)?;
        let object = keys.seal(ObjectKind::Chunk, id.as_bytes(), &payload)?;
        store.add(RepairPackKind::Tree, &id, &object)
    }
}

fn count(stats: &mut SnapshotStats, item: &Item<'_>) {
    if item.kind != ItemType::RegularFile {
        return;
    }
    let stored: u64 = item.chunks.iter().map(|chunk| u64::from(chunk.stored_size)).sum();
    stats.nfiles += 1;
    stats.original_size = stats.original_size.saturating_add(item.size);
    stats.compressed_size = stats.compressed_size.saturating_add(stored);
}
