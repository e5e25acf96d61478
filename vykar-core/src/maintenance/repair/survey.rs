//! Reading every pack, and finding every chunk that is whole, whether the index names it or not.
//!
//! What the index names is verified where it says. Whatever else lies in a pack is found by walking from length to
//! length, and identified by decrypting it (see [`Keys::identify_chunk`]). So a lost index, a chunk that is stored
//! twice and a pack that no index names are one case.
//!
//! [`Keys::identify_chunk`]: crate::repository::Keys::identify_chunk

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use super::super::check::packs_of;
use super::super::verify::{Budget, ByPack, MAX_PACK_OBJECT, Pack, newer_pack};
use super::refused;
use crate::crypto::pack_id;
use crate::error::{Result, StorageError};
use crate::event::{Event, Events};
use crate::format::index::{ChunkTable, TableBuilder};
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::{IndexBlob, IndexEntry, MAX_CHUNK_PLAINTEXT};
use crate::id::{ChunkId, PackId};
use crate::repository::{Keys, Repository, pack_key};
use crate::storage::ObjectInfo;

pub(crate) mod fuzz;

/// A slot whose chunk was not found whole where the index says.
const LOST: u32 = u32::MAX;
/// Longest object that a length in a pack may announce: the longest chunk, and what its codec and cipher add.
const MAX_OBJECT: usize = 2 * MAX_CHUNK_PLAINTEXT as usize;

/// All that is whole.
pub(super) struct Survey {
    /// Every chunk of which a whole copy was found, one copy each, with the count that the old index has for it.
    pub index: Arc<IndexBlob>,
    /// The plaintext's length in bytes, for each slot of the index.
    pub sizes: Vec<u32>,
    /// All packs, as they were listed.
    pub packs: Vec<(PackId, u64)>,
    /// Packs that are not what they were written as, with their lengths and what is wrong. What is whole in them has
    /// to be stored anew.
    pub damaged: HashMap<PackId, (u64, String)>,
    /// The hashes of what was read of these, but for those that are too long to be read.
    pub contents: HashMap<PackId, PackId>,
    /// Packs that the index names and that are not there.
    pub missing: Vec<PackId>,
    /// Chunks of the index without a whole copy.
    pub lost: u64,
    /// Chunks of the index whose whole copy is elsewhere than it says.
    pub redirected: u64,
}

/// A chunk that was found by walking.
#[derive(Debug, Clone, Copy)]
struct Extra {
    entry: IndexEntry,
    size: u32,
}

/// What a thread found in a pack.
struct PackFound {
    pack: Pack,
    damage: Option<String>,
    /// The hash of what was read.
    content: Option<PackId>,
    extras: Vec<Extra>,
}

struct Surveyor<'a> {
    repository: &'a Repository,
    table: &'a ChunkTable,
    by_pack: &'a ByPack,
    packs: &'a [Pack],
    /// Plaintext lengths for each slot of the old index, or [`LOST`].
    sizes: &'a [AtomicU32],
    next: AtomicUsize,
    memory: Budget,
}

impl Survey {
    /// Reads all packs among `objects`; `old` is the index as far as there is one.
    ///
    /// # Errors
    /// When a pack cannot be read although it is there, since what a failing disk keeps back is not lost; and when a
    /// pack was written by something newer.
    pub fn make(
        repository: &Repository,
        old: &ChunkTable,
        objects: &[ObjectInfo],
        threads: usize,
        events: &mut Events<'_>,
    ) -> Result<Self> {
        let packs = packs_of(objects, old);
        let by_pack = ByPack::new(old);
        let sizes: Vec<AtomicU32> = (0..old.len()).map(|_| AtomicU32::new(LOST)).collect();
        let (next, memory) = (AtomicUsize::new(0), Budget::default());
        let surveyor = Surveyor {
            repository,
            table: old,
            by_pack: &by_pack,
            packs: &packs,
            sizes: &sizes,
            next,
            memory,
        };
        let (mut extras, mut damaged, mut contents) = (Vec::new(), HashMap::new(), HashMap::new());
        surveyor.run_all(threads, &mut |found, done| {
            if let Some(reason) = found.damage {
                damaged.insert(found.pack.id, (found.pack.size, reason));
                contents.extend(found.content.map(|content| (found.pack.id, content)));
            }
            extras.extend(found.extras);
            if let Some(events) = events {
                let (files, bytes) = done;
                events(Event::Progress { files, bytes, path: None, expected: None });
            }
        })?;
        let mut there = vec![false; old.packs().len()];
        packs.iter().filter_map(|pack| pack.number).for_each(|number| there[number as usize] = true);
        let missing = old.packs().iter().zip(there).filter(|(_, there)| !there).map(|(id, _)| *id).collect();
        let packs = packs.iter().map(|pack| (pack.id, pack.size)).collect();
        let sizes: Vec<u32> = sizes.into_iter().map(AtomicU32::into_inner).collect();
        let mut survey = Survey {
            index: Arc::default(),
            sizes: Vec::new(),
            packs,
            damaged,
            contents,
            missing,
            lost: 0,
            redirected: 0,
        };
        survey.choose(old, &sizes, extras)?;
        Ok(survey)
    }

    /// Takes one copy of each chunk: where the index says, if that pack is whole; else any other in a whole pack;
    /// else one that has to be stored anew.
    fn choose(&mut self, old: &ChunkTable, old_sizes: &[u32], mut extras: Vec<Extra>) -> Result<()> {
        let whole = |pack: &PackId| !self.damaged.contains_key(pack);
        let stays = |slot: usize| old_sizes[slot] != LOST && whole(&old.entry(slot).pack);
        extras.retain(|extra| !old.find(&extra.entry.id).is_some_and(&stays));
        for slot in (0..old.len()).filter(|slot| old_sizes[*slot] != LOST && !stays(*slot)) {
            extras.push(Extra { entry: old.entry(slot), size: old_sizes[slot] });
        }
        extras.sort_by_key(|extra| (extra.entry.id, !whole(&extra.entry.pack)));
        extras.dedup_by_key(|extra| extra.entry.id);
        let mut builder = TableBuilder::default();
        let mut kept = 0u64;
        for slot in (0..old.len()).filter(|slot| stays(*slot)) {
            kept += 1;
            builder.add(old.entry(slot)).map_err(|e| refused(e.to_string()))?;
        }
        for extra in &mut extras {
            if let Some(recorded) = old.get(&extra.entry.id) {
                self.redirected +=
                    u64::from(recorded.pack != extra.entry.pack || recorded.offset != extra.entry.offset);
                kept += 1;
                extra.entry.refcount = recorded.refcount;
            }
            builder.add(extra.entry).map_err(|e| refused(e.to_string()))?;
        }
        self.lost = old.len() as u64 - kept;
        let chunks = builder.finish().map_err(|e| refused(e.to_string()))?;
        self.sizes = vec![0; chunks.len()];
        let from_old = (0..old.len()).filter(|slot| stays(*slot)).map(|slot| (old.id(slot), old_sizes[slot]));
        for (id, size) in from_old.chain(extras.iter().map(|extra| (extra.entry.id, extra.size))) {
            if let Some(slot) = chunks.find(&id) {
                self.sizes[slot] = size;
            }
        }
        self.index = Arc::new(IndexBlob { generation: 0, chunks });
        Ok(())
    }

    /// The chunks of [`Survey::index`].
    pub fn table(&self) -> &ChunkTable {
        &self.index.chunks
    }

    /// The slot of a chunk that is whole and has this length.
    pub fn slot_of(&self, id: &ChunkId, size: u32) -> Option<usize> {
        self.table().find(id).filter(|slot| self.sizes[*slot] == size)
    }
}

impl Surveyor<'_> {
    fn run_all(&self, threads: usize, each: &mut dyn FnMut(PackFound, (u64, u64))) -> Result<()> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (sender, found) = crossbeam_channel::bounded(64);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.packs.len()) {
                let sender = sender.clone();
                scope.spawn(move || self.run(&sender));
            }
            drop(sender);
            let mut done = (0, 0);
            // Ending early drops the receiver, at which the threads end.
            for found in found {
                let found = found?;
                done = (done.0 + 1, done.1 + found.pack.size);
                each(found, done);
            }
            Ok(())
        })
    }

    fn run(&self, found: &Sender<Result<PackFound>>) {
        while let Some(pack) = self.packs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.memory.take(pack.size);
            let outcome = self.pack(pack);
            self.memory.give(pack.size);
            if found.send(outcome).is_err() {
                return;
            }
        }
    }

    fn pack(&self, pack: &Pack) -> Result<PackFound> {
        let mut found = PackFound { pack: *pack, damage: None, content: None, extras: Vec::new() };
        let data = match self.repository.backend().get(&pack_key(&pack.id), MAX_PACK_OBJECT) {
            Ok(data) => data,
            Err(e @ StorageError::TooLarge { .. }) => {
                found.damage = Some(e.to_string());
                return Ok(found);
            }
            Err(StorageError::NotFound { .. }) => return Err(super::changed()),
            Err(e) => return Err(e.into()),
        };
        let content = pack_id(&data);
        found.content = Some(content);
        let sound = content == pack.id;
        match newer_pack(&data) {
            Some(reason) if sound => return Err(refused(format!("pack {}: {reason}", pack.id))),
            _ if !sound => found.damage = Some("content does not match its id".into()),
            _ if !data.starts_with(HEADER) => {
                found.damage = Some("does not begin as a pack of version 1".into());
            }
            _ => {}
        }
        let slots = pack.number.map_or(&[][..], |number| self.by_pack.of(number));
        let mut whole = Vec::with_capacity(slots.len());
        for slot in slots {
            let entry = self.table.entry(*slot as usize);
            let Some(size) = self.verify(&entry, &data) else { continue };
            self.sizes[*slot as usize].store(size, Ordering::Relaxed);
            let begin = entry.offset as usize - LENGTH_PREFIX as usize;
            if length_at(&data, begin) != Some(entry.stored_size as usize) {
                let reason = format!("the length of chunk {} is wrong", entry.id);
                found.damage.get_or_insert(reason);
            }
            whole.push((begin, begin + LENGTH_PREFIX as usize + entry.stored_size as usize));
        }
        let keys = self.repository.keys();
        walk(&data, &whole, &mut |offset, object| {
            let Ok((id, size)) = keys.identify_chunk(object) else { return };
            let stored_size = object.len() as u32; // within a pack
            let entry = IndexEntry { id, refcount: 0, stored_size, pack: pack.id, offset: offset as u64 };
            found.extras.push(Extra { entry, size });
        });
        Ok(found)
    }

    /// The plaintext's length of a chunk that is where the index says.
    fn verify(&self, entry: &IndexEntry, pack: &[u8]) -> Option<u32> {
        let start = usize::try_from(entry.offset).ok()?;
        start.checked_sub(HEADER.len() + LENGTH_PREFIX as usize)?;
        let object = pack.get(start..start.checked_add(entry.stored_size as usize)?)?;
        is_chunk(self.repository.keys(), &entry.id, object)
    }
}

/// The plaintext's length of an object, if it is this chunk and whole.
pub(super) fn is_chunk(keys: &Keys, id: &ChunkId, object: &[u8]) -> Option<u32> {
    let data = keys.open_chunk(id, &mut object.to_vec()).ok()?;
    // With a cipher the tag binds the id that the writer gave, and nothing that it is the right one.
    (keys.hasher().chunk_id(&data).ok()? == *id).then_some(data.len() as u32)
}

fn length_at(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes) as usize)
}

/// Walks from blob to blob and shows those that are not known to be whole, given by where they begin (with their
/// length) and end, in order.
///
/// A length is followed, but not beyond a place where a whole blob begins: it may be what is damaged, even where what
/// it spans looks like a chunk, as any bytes may without encryption. Where no length makes sense, only the next place
/// that is known helps.
fn walk(data: &[u8], known: &[(usize, usize)], show: &mut dyn FnMut(usize, &[u8])) {
    let prefix = LENGTH_PREFIX as usize;
    let mut at = HEADER.len();
    while at < data.len() {
        let next = known.partition_point(|(begin, _)| *begin < at);
        if let Some((_, end)) = known.get(next).filter(|(begin, _)| *begin == at) {
            at = *end;
            continue;
        }
        let known_next = known.get(next).map(|(begin, _)| *begin);
        let object = length_at(data, at)
            .filter(|length| (1..=MAX_OBJECT).contains(length))
            .and_then(|length| data.get(at + prefix..at + prefix + length));
        match object {
            Some(object) => {
                let end = at + prefix + object.len();
                show(at + prefix, object);
                at = known_next.map_or(end, |known| known.min(end));
            }
            None => match known_next {
                Some(known) => at = known,
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(data: &[u8], known: &[(usize, usize)]) -> Vec<(usize, Vec<u8>)> {
        let mut found = Vec::new();
        walk(data, known, &mut |offset, object| {
            if object.first() != Some(&b'?') {
                found.push((offset, object.to_vec()));
            }
        });
        found
    }

    fn pack(blobs: &[(u32, &[u8])]) -> Vec<u8> {
        let mut pack = HEADER.to_vec();
        for (length, blob) in blobs {
            pack.extend(length.to_le_bytes());
            pack.extend(*blob);
        }
        pack
    }

    #[test]
    fn a_walk_goes_on_behind_damage_where_a_length_or_the_index_allows_it() {
        let (a, b, c): (&[u8], &[u8], &[u8]) = (b"aaa", b"?", b"ccccc");
        let all = [(13, a.to_vec()), (25, c.to_vec())];
        assert_eq!(walked(&pack(&[(3, a), (1, b), (5, c)]), &[]), all);
        // A length that cannot be ends it, unless the next place is known.
        let cut = pack(&[(3, a), (u32::MAX, b), (5, c)]);
        assert_eq!(walked(&cut, &[]), all[..1]);
        let more = pack(&[(3, a), (u32::MAX, b), (5, c), (2, b"dd")]);
        assert_eq!(walked(&more, &[(21, 30)]), [(13, a.to_vec()), (34, b"dd".to_vec())]);
        // One that is wrong and looks right is not followed over what is known.
        let wrong = pack(&[(3, a), (7, b), (5, c), (2, b"dd")]);
        assert_eq!(walked(&wrong, &[(21, 30)]), [(13, a.to_vec()), (34, b"dd".to_vec())]);
        // Nor when it spans what looks like a chunk, as anything may without encryption.
        let spans = pack(&[(7, a), (3, b"ccc"), (2, b"dd")]);
        let last = walked(&spans, &[(16, 23)]).pop();
        assert_eq!(last, Some((27, b"dd".to_vec())));
        assert_eq!(walked(b"", &[]), []);
        assert_eq!(walked(&pack(&[(0, b""), (3, a)]), &[]), []);
    }
}
