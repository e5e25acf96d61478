//! Reading every pack whole and opening every chunk in it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::finding::Finding;
use crate::crypto::pack_id;
use crate::error::{ObjectError, StorageError};
use crate::format::index::ChunkTable;
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::{Encryption, IndexEntry, MAX_CHUNK_PLAINTEXT, RepoConfig};
use crate::id::PackId;
use crate::repository::{Repository, pack_key};

/// Largest pack that is read: the largest allowed, and the chunk that closed it.
pub(super) const MAX_PACK_OBJECT: u64 = RepoConfig::MAX_PACK as u64 + 2 * MAX_CHUNK_PLAINTEXT;
/// Bytes of packs in memory at once; one pack alone may be larger.
const IN_FLIGHT: u64 = 256 << 20;

/// What is known about a chunk: its plaintext length, or one of these.
pub(super) mod verdict {
    /// Nothing is known against it.
    pub const UNKNOWN: u32 = u32::MAX;
    /// Its pack is missing.
    pub const NO_PACK: u32 = u32::MAX - 1;
    /// It lies outside its pack.
    pub const OUTSIDE: u32 = u32::MAX - 2;
    /// It is not what it should be.
    pub const DAMAGED: u32 = u32::MAX - 3;
}

/// A pack of the repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub id: PackId,
    /// Bytes.
    pub size: u64,
    /// Its number in the index, if that names it.
    pub number: Option<u32>,
}

/// The slots of an index, pack by pack in the order they lie there.
pub(super) struct ByPack {
    slots: Vec<u32>,
    /// Where each pack's begin, and the end.
    starts: Vec<usize>,
}

impl ByPack {
    pub fn new(table: &ChunkTable) -> Self {
        // A table has less than 2^32 slots.
        let mut slots: Vec<u32> = (0..table.len() as u32).collect();
        slots.sort_unstable_by_key(|slot| {
            let slot = *slot as usize;
            (table.pack_number(slot), table.entry(slot).offset)
        });
        let mut starts = vec![0; table.packs().len() + 1];
        for slot in &slots {
            starts[table.pack_number(*slot as usize) as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        ByPack { slots, starts }
    }

    /// The slots of a pack.
    pub fn of(&self, pack: u32) -> &[u32] {
        let pack = pack as usize;
        &self.slots[self.starts[pack]..self.starts[pack + 1]]
    }
}

/// What makes a pack one of a newer program.
pub(super) fn newer_pack(data: &[u8]) -> Option<String> {
    let (version, magic) = HEADER.split_last()?;
    let found = data.strip_prefix(magic)?.first()?;
    (found > version).then(|| format!("written by a newer version of the program (pack version {found})"))
}

/// What a thread tells.
pub(super) enum ThreadReport {
    Found(Finding),
    /// A pack is done; its length in bytes.
    Read(u64),
}

/// Verifies packs; shared by all threads.
pub(super) struct Verifier<'a> {
    pub repository: &'a Repository,
    pub table: &'a ChunkTable,
    pub by_pack: &'a ByPack,
    pub packs: &'a [Pack],
    /// For each slot of the table, see [`verdict`].
    pub verdicts: &'a [AtomicU32],
    next: AtomicUsize,
    memory: Budget,
}

/// Bounds the bytes of packs in memory.
#[derive(Default)]
pub(super) struct Budget {
    in_flight: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    /// Waits until there is room for so many bytes, or nothing else is there.
    pub fn take(&self, size: u64) {
        let mut in_flight = self.in_flight.lock();
        while *in_flight > 0 && in_flight.saturating_add(size) > IN_FLIGHT {
            self.freed.wait(&mut in_flight);
        }
        *in_flight = in_flight.saturating_add(size);
    }

    /// Gives them back.
    pub fn give(&self, size: u64) {
        *self.in_flight.lock() -= size;
        self.freed.notify_all();
    }
}

impl<'a> Verifier<'a> {
    pub fn new(
        repository: &'a Repository,
        table: &'a ChunkTable,
        by_pack: &'a ByPack,
        packs: &'a [Pack],
        verdicts: &'a [AtomicU32],
    ) -> Self {
        let (next, memory) = (AtomicUsize::new(0), Budget::default());
        Verifier { repository, table, by_pack, packs, verdicts, next, memory }
    }

    /// Takes packs until none is left.
    pub fn run(&self, told: &Sender<ThreadReport>) {
        while let Some(pack) = self.packs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.memory.take(pack.size);
            // The receiver outlives the threads.
            self.pack(pack, &mut |finding| drop(told.send(ThreadReport::Found(finding))));
            self.memory.give(pack.size);
            let _ = told.send(ThreadReport::Read(pack.size));
        }
    }

    fn pack(&self, pack: &Pack, found: &mut dyn FnMut(Finding)) {
        let (id, used) = (pack.id, pack.number.is_some());
        let slots = pack.number.map_or(&[][..], |number| self.by_pack.of(number));
        let mut data = match self.repository.backend().get(&pack_key(&id), MAX_PACK_OBJECT) {
            Ok(data) => data,
            // Compacted away since it was listed: the caller sees that the repository changed.
            Err(StorageError::NotFound { .. }) if !used => return,
            Err(error) => {
                slots.iter().for_each(|slot| self.judge(*slot, verdict::DAMAGED));
                return found(Finding::PackUnreadable { pack: id, reason: error.to_string(), used });
            }
        };
        let damage = |reason: &str| Finding::PackDamaged { pack: id, reason: reason.into(), used };
        let content = pack_id(&data);
        let sound = content == id;
        if !sound && self.table.packs().contains(&content) {
            found(damage(&format!("content does not match its id, but is that of pack {content}")));
        } else if !sound {
            found(damage("content does not match its id"));
        }
        match newer_pack(&data) {
            Some(reason) if sound => found(Finding::PackNewer { pack: id, reason }),
            _ if data.starts_with(HEADER) => {}
            _ => found(damage("does not begin as a pack of version 1")),
        }
        for slot in slots {
            if self.verdicts[*slot as usize].load(Ordering::Relaxed) != verdict::UNKNOWN {
                continue; // told before
            }
            let entry = self.table.entry(*slot as usize);
            let outcome = self.chunk(&entry, &mut data);
            if let Err(reason) = &outcome {
                let reason = reason.clone();
                found(Finding::ChunkDamaged { chunk: entry.id, pack: id, reason });
            }
            self.judge(*slot, outcome.unwrap_or(verdict::DAMAGED));
        }
    }

    fn judge(&self, slot: u32, verdict: u32) {
        self.verdicts[slot as usize].store(verdict, Ordering::Relaxed);
    }

    /// A chunk's plaintext length, or what is wrong with it.
    fn chunk(&self, entry: &IndexEntry, pack: &mut [u8]) -> Result<u32, String> {
        let start = usize::try_from(entry.offset).ok();
        let range = start.and_then(|start| {
            let prefix = start.checked_sub(LENGTH_PREFIX as usize)?;
            Some((prefix, start, start.checked_add(entry.stored_size as usize)?))
        });
        let Some((prefix, start, end)) = range.filter(|(_, _, end)| *end <= pack.len()) else {
            return Err("lies outside its pack".into());
        };
        let length =
            pack[prefix..start].iter().rev().fold(0u32, |length, byte| length << 8 | u32::from(*byte));
        if length != entry.stored_size {
            return Err(format!("the pack says {length} bytes, the index {}", entry.stored_size));
        }
        let keys = self.repository.keys();
        let data = keys.open_chunk(&entry.id, &mut pack[start..end]).map_err(|e| e.to_string())?;
        // Without a cipher, opening has looked at the id.
        if keys.engine().encryption() != Encryption::None {
            let id = keys.hasher().chunk_id(&data).map_err(|e| e.to_string())?;
            if id != entry.id {
                return Err(ObjectError::WrongId.to_string());
            }
        }
        Ok(data.len() as u32) // at most 32 MiB
    }
}
