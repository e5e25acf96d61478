//! Writing packs anew without what is dead in them. Blobs are moved as they are: nothing is decrypted.

use super::plan::{PlannedCompaction, Repack};
use crate::crypto::{pack_id, pack_ids};
use crate::error::{Result, StorageError, VykarError};
use crate::format::IndexEntry;
use crate::format::pack::{HEADER, LENGTH_PREFIX, MAX_BLOBS, MAX_TREE_PACK};
use crate::id::PackId;
use crate::maintenance::verify::MAX_PACK_OBJECT;
use crate::repository::objects::pack_writer::PackKind;
use crate::repository::pack_key;
use crate::storage::{Backend, Upload};

/// Where a chunk went.
#[derive(Debug, Clone, Copy)]
struct Moved {
    slot: u32,
    /// Number of the new pack.
    pack: u32,
    /// In it, in bytes: a pack is shorter than 4 GiB.
    offset: u32,
}

/// A pack being written.
struct OpenPack<'b> {
    upload: Box<dyn Upload + 'b>,
    number: u32,
    size: u64,
    blobs: usize,
}

/// Moves the living chunks of packs into new ones.
pub(super) struct Repacker<'a> {
    backend: &'a dyn Backend,
    planned: &'a PlannedCompaction,
    /// By kind.
    open: [Option<OpenPack<'a>>; 2],
    /// Names of the new packs, once they are durable.
    new: Vec<Option<PackId>>,
    /// By slot, as far as [`Repacker::settle`] has sorted them.
    moved: Vec<Moved>,
    /// Packs all of whose chunks are moved, and are not deleted yet.
    pub emptied: Vec<PackId>,
    /// Bytes written since packs were last made durable.
    pub unsettled: u64,
}

impl<'a> Repacker<'a> {
    pub fn new(backend: &'a dyn Backend, planned: &'a PlannedCompaction) -> Self {
        let open = [None, None];
        Repacker {
            backend,
            planned,
            open,
            new: Vec::new(),
            moved: Vec::new(),
            emptied: Vec::new(),
            unsettled: 0,
        }
    }

    /// Copies what is alive in a pack. Its content is looked at first: nothing is taken from a damaged one, and the
    /// inner result says what is wrong with it.
    pub fn take(&mut self, repack: &Repack) -> Result<std::result::Result<(), String>> {
        let data = match self.backend.get(&pack_key(&repack.pack), MAX_PACK_OBJECT) {
            Err(e @ (StorageError::NotFound { .. } | StorageError::TooLarge { .. })) => {
                return Ok(Err(e.to_string()));
            }
            other => other?,
        };
        if pack_id(&data) != repack.pack {
            return Ok(Err("content does not match its id".into()));
        }
        let table = &self.planned.index.index.chunks;
        let Some(number) = table.packs().iter().position(|id| *id == repack.pack) else { return Ok(Ok(())) };
        let slots = self.planned.by_pack.of(number as u32); // less than 2^32 packs
        let alive: Vec<u32> =
            slots.iter().copied().filter(|slot| self.planned.counts[*slot as usize] > 0).collect();
        let mut blobs = Vec::with_capacity(alive.len());
        for slot in &alive {
            let entry = table.entry(*slot as usize);
            match blob(&data, &entry) {
                Some(bytes) => blobs.push(bytes),
                None => {
                    return Ok(Err(format!(
                        "the index and the pack disagree about chunk {}",
                        entry.id.short()
                    )));
                }
            }
        }
        for (slot, bytes) in alive.into_iter().zip(blobs) {
            self.add(slot, bytes)?;
        }
        self.emptied.push(repack.pack);
        Ok(Ok(()))
    }

    /// Appends a blob, its length in front.
    fn add(&mut self, slot: u32, bytes: &[u8]) -> Result<()> {
        let kind = if self.planned.tree[slot as usize] { PackKind::Tree } else { PackKind::Data };
        let target = match kind {
            PackKind::Data => self.planned.target,
            PackKind::Tree => MAX_TREE_PACK as u64,
        };
        let len = bytes.len() as u64;
        if let Some(open) = &self.open[kind as usize]
            && open.size + len > target
        {
            self.close(kind)?;
        }
        let open = match &mut self.open[kind as usize] {
            Some(open) => open,
            none => {
                let mut upload = self.backend.upload()?;
                upload.write(HEADER)?;
                let number = self.new.len() as u32;
                self.new.push(None);
                none.insert(OpenPack { upload, number, size: HEADER.len() as u64, blobs: 0 })
            }
        };
        open.upload.write(bytes)?;
        let offset = u32::try_from(open.size + LENGTH_PREFIX)
            .map_err(|_| VykarError::Encode { what: "pack", reason: "larger than 4 GiB".into() })?;
        self.moved.push(Moved { slot, pack: open.number, offset });
        open.size += len;
        open.blobs += 1;
        self.unsettled += len;
        if open.blobs >= MAX_BLOBS {
            self.close(kind)?;
        }
        Ok(())
    }

    /// Names a pack and makes it durable.
    fn close(&mut self, kind: PackKind) -> Result<()> {
        let Some(OpenPack { upload, number, size, .. }) = self.open[kind as usize].take() else {
            return Ok(());
        };
        let ids = pack_ids(&[size], |_, offset, out| upload.read_at(offset, out))?;
        let id = ids.first().copied().unwrap_or(PackId([0; 32]));
        upload.finish(&pack_key(&id))?;
        self.new[number as usize] = Some(id);
        Ok(())
    }

    /// Makes everything that was written durable, so that an index may name it.
    pub fn settle(&mut self) -> Result<()> {
        self.close(PackKind::Data)?;
        self.close(PackKind::Tree)?;
        self.moved.sort_unstable_by_key(|moved| moved.slot);
        self.unsettled = 0;
        Ok(())
    }

    /// Number of entries of the index as it is now.
    pub fn count(&self) -> u32 {
        // A table has less than 2^32 slots.
        self.planned.counts.iter().filter(|count| **count > 0).count() as u32
    }

    /// The entries, sorted by id; after [`Repacker::settle`].
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry> {
        let table = &self.planned.index.index.chunks;
        let mut moved = self.moved.iter().peekable();
        self.planned.counts.iter().enumerate().filter_map(move |(slot, count)| {
            let mut entry = table.entry(slot);
            if let Some(to) = moved.next_if(|moved| moved.slot as usize == slot)
                && let Some(pack) = self.new[to.pack as usize]
            {
                (entry.pack, entry.offset) = (pack, to.offset.into());
            }
            entry.refcount = *count;
            (*count > 0).then_some(entry)
        })
    }

    /// True for a pack that was written here: its name may be one of the old ones, which must not be deleted then.
    pub fn wrote(&self, pack: &PackId) -> bool {
        self.new.iter().flatten().any(|id| id == pack)
    }

    /// How many packs were written.
    pub fn written(&self) -> u64 {
        self.new.iter().flatten().count() as u64
    }
}

/// A chunk's object with its length in front, where the pack has it and agrees.
fn blob<'d>(pack: &'d [u8], entry: &IndexEntry) -> Option<&'d [u8]> {
    let from = usize::try_from(entry.offset.checked_sub(LENGTH_PREFIX)?).ok()?;
    let blob = pack.get(from..from.checked_add(LENGTH_PREFIX as usize + entry.stored_size as usize)?)?;
    let (length, _) = blob.split_first_chunk::<4>()?;
    (from >= HEADER.len() && u32::from_le_bytes(*length) == entry.stored_size).then_some(blob)
}
