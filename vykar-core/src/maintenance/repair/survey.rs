//! Reading every pack, wherever it lies, and finding every chunk that is whole, whether the index names it or not.
//!
//! A pack is known by its content: its name is the hash of that. What the index names is verified where it says, in
//! whatever object has this content. Whatever else lies in an object is found by walking from length to length, and
//! identified by decrypting it (see [`Keys::identify_chunk`]). So a lost index, a chunk that is stored twice, a pack
//! that no index names, and one under a wrong name are one case.
//!
//! [`Keys::identify_chunk`]: crate::repository::Keys::identify_chunk

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use super::super::verify::{Budget, ByPack, MAX_PACK_OBJECT, newer_pack};
use super::places::PackCandidate;
use super::refused;
use crate::crypto::pack_id;
use crate::error::{Result, StorageError};
use crate::event::{Event, Events};
use crate::format::index::{ChunkTable, TableBuilder};
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::{Encryption, IndexBlob, IndexEntry, MAX_CHUNK_PLAINTEXT, ObjectKind};
use crate::id::{ChunkId, PackId};
use crate::platform;
use crate::repository::{Keys, Repository};

pub(crate) mod fuzz;

/// A slot whose chunk was not found whole where the index says.
const LOST: u32 = u32::MAX;
/// Longest object that a length in a pack may announce: the longest chunk, and what its codec and cipher add.
const MAX_OBJECT: usize = 2 * MAX_CHUNK_PLAINTEXT as usize;

/// An object in a pack's place that is not that pack.
#[derive(Debug, Clone)]
pub(in crate::maintenance) struct WrongPack {
    /// The pack whose place it has.
    pub pack: PackId,
    /// Bytes.
    pub size: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The hash of what was read, unless it is too long to be read.
    pub content: Option<PackId>,
}

/// What speaks for the keys and the parameters, and against them.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::maintenance) struct Evidence {
    /// Chunks of the index that should be in packs whose bytes are as they were written.
    pub named: u64,
    /// Those of them that are there.
    pub matched: u64,
    /// Whole packs with something in them.
    pub sound_packs: u64,
    /// Chunks that were found and that the index does not place there. With a cipher the key has opened them.
    pub identified: u64,
}

/// All that is whole.
pub(in crate::maintenance) struct WholeSurvey {
    /// Every chunk of which a whole copy was found, one copy each, with the count that the old index has for it. The
    /// pack of each is the hash of the object that holds it, whatever its name.
    pub index: Arc<IndexBlob>,
    /// The plaintext's length in bytes, for each slot of the index.
    pub sizes: Vec<u32>,
    /// What is in the place of a pack and is none, or another.
    pub wrong: Vec<WrongPack>,
    /// Packs that are in their places, as they were written.
    in_place: HashSet<PackId>,
    /// Whole packs that are nowhere in their places.
    misplaced: HashSet<PackId>,
    /// Where the objects are whose place is another, by the hash of their content.
    pub elsewhere: HashMap<PackId, String>,
    /// Packs that the index names and in whose place there is nothing.
    pub missing: Vec<PackId>,
    /// Objects under the name of a pack that look like snapshots.
    pub strays: Vec<String>,
    /// Chunks of the index without a whole copy.
    pub lost: u64,
    /// Chunks of the index whose whole copy is elsewhere than it says.
    pub redirected: u64,
    /// What the chunks say of the keys.
    pub evidence: Evidence,
}

/// A chunk that is not where the index says.
#[derive(Debug, Clone, Copy)]
struct Extra {
    entry: IndexEntry,
    size: u32,
}

/// What a thread found in an object.
struct PackFound {
    candidate: usize,
    /// What is wrong with the content, whatever its name.
    flaw: Option<String>,
    /// The hash of what was read.
    content: Option<PackId>,
    /// Its name or the index names this content, or it is chunks of this repository from end to end.
    is_pack: bool,
    extras: Vec<Extra>,
    evidence: Evidence,
    looks_like_snapshot: bool,
}

struct Surveyor<'a> {
    repository: &'a Repository,
    table: &'a ChunkTable,
    by_pack: &'a ByPack,
    numbers: HashMap<PackId, u32>,
    candidates: &'a [PackCandidate],
    /// Plaintext lengths for each slot of the old index, or [`LOST`].
    sizes: &'a [AtomicU32],
    next: AtomicUsize,
    memory: Budget,
}

impl WholeSurvey {
    /// Reads all these objects; `old` is the index as far as there is one.
    ///
    /// # Errors
    /// When a pack cannot be read although it is there, since what a failing disk keeps back is not lost; and when a
    /// pack was written by something newer.
    pub(super) fn make(
        repository: &Repository,
        old: &ChunkTable,
        candidates: &[PackCandidate],
        threads: usize,
        events: &mut Events<'_>,
    ) -> Result<Self> {
        let by_pack = ByPack::new(old);
        let sizes: Vec<AtomicU32> = (0..old.len()).map(|_| AtomicU32::new(LOST)).collect();
        let surveyor = Surveyor {
            repository,
            table: old,
            by_pack: &by_pack,
            numbers: old.packs().iter().copied().zip(0..).collect(),
            candidates,
            sizes: &sizes,
            next: AtomicUsize::new(0),
            memory: Budget::default(),
        };
        let mut gathered = Gathered::default();
        surveyor.run_all(threads, &mut |found, (files, bytes)| {
            gathered.take(candidates, found);
            if let Some(events) = events {
                events(Event::Progress { files, bytes, path: None, expected: None });
            }
        })?;
        let there: HashSet<PackId> = candidates.iter().filter_map(|candidate| candidate.place).collect();
        let missing = old.packs().iter().filter(|pack| !there.contains(pack)).copied().collect();
        let sizes: Vec<u32> = sizes.into_iter().map(AtomicU32::into_inner).collect();
        let (mut survey, extras) = gathered.finish(candidates);
        survey.missing = missing;
        survey.choose(old, &sizes, extras)?;
        Ok(survey)
    }

    /// Takes one copy of each chunk: where the index says, if that pack is whole; else any other in a whole pack;
    /// else one that has to be stored anew.
    fn choose(&mut self, old: &ChunkTable, old_sizes: &[u32], mut extras: Vec<Extra>) -> Result<()> {
        let stays = |slot: usize| old_sizes[slot] != LOST && self.is_whole(&old.entry(slot).pack);
        extras.retain(|extra| !old.find(&extra.entry.id).is_some_and(&stays));
        for slot in (0..old.len()).filter(|slot| old_sizes[*slot] != LOST && !stays(*slot)) {
            extras.push(Extra { entry: old.entry(slot), size: old_sizes[slot] });
        }
        let rank = |pack: &PackId| (!self.in_place.contains(pack), !self.misplaced.contains(pack));
        extras.sort_by_key(|extra| (extra.entry.id, rank(&extra.entry.pack)));
        extras.dedup_by_key(|extra| extra.entry.id);
        let mut builder = TableBuilder::default();
        let (mut kept, mut redirected) = (0u64, 0);
        for slot in (0..old.len()).filter(|slot| stays(*slot)) {
            kept += 1;
            builder.add(old.entry(slot)).map_err(|e| refused(e.to_string()))?;
        }
        for extra in &mut extras {
            if let Some(recorded) = old.get(&extra.entry.id) {
                redirected +=
                    u64::from(recorded.pack != extra.entry.pack || recorded.offset != extra.entry.offset);
                kept += 1;
                extra.entry.refcount = recorded.refcount;
            }
            builder.add(extra.entry).map_err(|e| refused(e.to_string()))?;
        }
        let chunks = builder.finish().map_err(|e| refused(e.to_string()))?;
        let mut sizes = vec![0; chunks.len()];
        let from_old = (0..old.len()).filter(|slot| stays(*slot)).map(|slot| (old.id(slot), old_sizes[slot]));
        for (id, size) in from_old.chain(extras.iter().map(|extra| (extra.entry.id, extra.size))) {
            if let Some(slot) = chunks.find(&id) {
                sizes[slot] = size;
            }
        }
        (self.redirected, self.lost, self.sizes) = (redirected, old.len() as u64 - kept, sizes);
        self.index = Arc::new(IndexBlob { generation: 0, chunks });
        Ok(())
    }

    /// The chunks of [`WholeSurvey::index`].
    pub fn table(&self) -> &ChunkTable {
        &self.index.chunks
    }

    /// The slot of a chunk that is whole and has this length.
    pub fn slot_of(&self, id: &ChunkId, size: u32) -> Option<usize> {
        self.table().find(id).filter(|slot| self.sizes[*slot] == size)
    }

    /// True for a pack that is as it was written, in its place or to be put back there.
    pub fn is_whole(&self, pack: &PackId) -> bool {
        self.in_place.contains(pack) || self.misplaced.contains(pack)
    }

    /// True for a pack that is in its place, as it was written.
    pub fn is_in_place(&self, pack: &PackId) -> bool {
        self.in_place.contains(pack)
    }

    /// Whole packs that hold a chunk that is needed and that are nowhere in their places, with where they are.
    pub fn to_put_back(&self, needed: &[bool]) -> Vec<(PackId, String)> {
        let table = self.table();
        let slots = (0..table.len()).filter(|slot| needed[*slot]).map(|slot| table.entry(slot).pack);
        let wanted: BTreeMap<PackId, &String> = slots
            .filter(|pack| self.misplaced.contains(pack))
            .filter_map(|pack| Some((pack, self.elsewhere.get(&pack)?)))
            .collect();
        wanted.into_iter().map(|(pack, key)| (pack, key.clone())).collect()
    }
}

/// What was found in all objects.
#[derive(Default)]
struct Gathered {
    /// By the hash of their content: the object that is best to read, and whether it is a pack as it was written.
    contents: HashMap<PackId, (usize, bool)>,
    flaws: HashMap<usize, String>,
    content_of: HashMap<usize, PackId>,
    extras: Vec<Extra>,
    strays: Vec<String>,
    evidence: Evidence,
}

impl Gathered {
    fn take(&mut self, candidates: &[PackCandidate], found: PackFound) {
        let candidate = &candidates[found.candidate];
        let sound = found.flaw.is_none();
        if let Some(flaw) = found.flaw {
            self.flaws.insert(found.candidate, flaw);
        }
        if found.looks_like_snapshot {
            self.strays.push(candidate.key.clone());
        }
        let Some(content) = found.content else { return };
        // One that is in its place, then one among packs, then any other; of equals always the same.
        let rank = |at: usize| {
            let other = &candidates[at];
            (other.place != Some(content), !other.is_among_packs(), at)
        };
        let is_pack = sound && found.is_pack;
        self.content_of.insert(found.candidate, content);
        match self.contents.entry(content) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.extras.extend(found.extras);
                let Evidence { named, matched, sound_packs, identified } = found.evidence;
                self.evidence.named += named;
                self.evidence.matched += matched;
                self.evidence.sound_packs += sound_packs;
                self.evidence.identified += identified;
                entry.insert((found.candidate, is_pack));
            }
            // The same bytes hold the same chunks, but where only a name says where to look.
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                self.extras.extend(found.extras);
                let (best, was_pack) = entry.get_mut();
                *was_pack |= is_pack;
                if rank(found.candidate) < rank(*best) {
                    *best = found.candidate;
                }
            }
        }
    }

    fn finish(self, candidates: &[PackCandidate]) -> (WholeSurvey, Vec<Extra>) {
        let (mut in_place, mut misplaced) = (HashSet::new(), HashSet::new());
        let mut elsewhere = HashMap::new();
        for (content, (at, is_pack)) in &self.contents {
            let is_there = candidates[*at].place == Some(*content);
            if !is_there {
                elsewhere.insert(*content, candidates[*at].key.clone());
            }
            match (is_pack, is_there) {
                (true, true) => in_place.insert(*content),
                (true, false) => misplaced.insert(*content),
                (false, _) => false,
            };
        }
        let mut wrong = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let Some(pack) = candidate.place else { continue };
            let content = self.content_of.get(&at).copied();
            let reason = match (self.flaws.get(&at), content) {
                (_, Some(content)) if content != pack && in_place.contains(&content) => {
                    format!("is pack {content}, which is in its own place as well")
                }
                (_, Some(content)) if content != pack => "content does not match its id".to_owned(),
                (Some(flaw), _) => flaw.clone(),
                _ => continue,
            };
            wrong.push(WrongPack { pack, size: candidate.size, reason, content });
        }
        let Gathered { extras, strays, evidence, .. } = self;
        let (index, sizes, missing, lost, redirected) = (Arc::default(), Vec::new(), Vec::new(), 0, 0);
        let survey = WholeSurvey {
            index,
            sizes,
            wrong,
            in_place,
            misplaced,
            elsewhere,
            missing,
            strays,
            lost,
            redirected,
            evidence,
        };
        (survey, extras)
    }
}

impl Surveyor<'_> {
    fn run_all(&self, threads: usize, each: &mut dyn FnMut(PackFound, (u64, u64))) -> Result<()> {
        let (sender, found) = crossbeam_channel::bounded(64);
        std::thread::scope(|scope| {
            for _ in 0..platform::threads(threads, self.candidates.len()) {
                let sender = sender.clone();
                scope.spawn(move || self.run(&sender));
            }
            drop(sender);
            let mut done = (0, 0);
            // Ending early drops the receiver, at which the threads end.
            for found in found {
                let found = found?;
                done = (done.0 + 1, done.1 + self.candidates[found.candidate].size);
                each(found, done);
            }
            Ok(())
        })
    }

    fn run(&self, found: &Sender<Result<PackFound>>) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = self.candidates.get(at) else { return };
            self.memory.take(candidate.size);
            let outcome = self.object(at, candidate);
            self.memory.give(candidate.size);
            if found.send(outcome).is_err() {
                return;
            }
        }
    }

    fn object(&self, at: usize, candidate: &PackCandidate) -> Result<PackFound> {
        let mut found = PackFound {
            candidate: at,
            flaw: None,
            content: None,
            is_pack: false,
            extras: Vec::new(),
            evidence: Evidence::default(),
            looks_like_snapshot: false,
        };
        let data = match self.repository.backend().get(&candidate.key, MAX_PACK_OBJECT) {
            Ok(data) => data,
            Err(e @ StorageError::TooLarge { .. }) => {
                found.flaw = Some(e.to_string());
                return Ok(found);
            }
            Err(StorageError::NotFound { .. }) => return Err(super::changed()),
            Err(e) => return Err(e.into()),
        };
        let content = pack_id(&data);
        found.content = Some(content);
        let number = self.numbers.get(&content);
        let as_written = number.is_some() || candidate.named == Some(content);
        match newer_pack(&data) {
            Some(reason) if as_written => return Err(refused(format!("pack {content}: {reason}"))),
            _ if !data.starts_with(HEADER) => {
                found.flaw = Some("does not begin as a pack of version 1".into());
            }
            _ => {}
        }
        found.looks_like_snapshot = !as_written && data.first() == Some(&(ObjectKind::Snapshot as u8));
        let mut whole = match number {
            Some(number) => self.named_chunks(*number, &data, &mut found),
            None => self.expected_chunks(candidate, content, &data, &mut found),
        };
        let length = |parts: &[(usize, usize)]| parts.iter().map(|(from, to)| to - from).sum::<usize>();
        let mut covered = HEADER.len() + length(&whole);
        let mut blobs = !whole.is_empty();
        // Entries of a damaged index may overlap.
        whole.sort_unstable();
        let keys = self.repository.keys();
        walk(&data, &whole, &mut |offset, object| {
            let Ok((id, size)) = keys.identify_chunk(object) else { return };
            (covered, blobs) = (covered + LENGTH_PREFIX as usize + object.len(), true);
            found.evidence.identified += 1;
            let stored_size = object.len() as u32; // within a pack
            let entry = IndexEntry { id, refcount: 0, stored_size, pack: content, offset: offset as u64 };
            found.extras.push(Extra { entry, size });
        });
        // Without a cipher anything passes for a chunk.
        let is_complete = keys.engine().encryption() != Encryption::None && blobs && covered == data.len();
        found.is_pack = as_written || is_complete;
        found.evidence.sound_packs =
            u64::from(found.flaw.is_none() && as_written && data.len() > HEADER.len());
        Ok(found)
    }

    /// Verifies what the index has in a pack whose content this is. Gives what is whole, by where it begins (with its
    /// length) and ends.
    fn named_chunks(&self, number: u32, data: &[u8], found: &mut PackFound) -> Vec<(usize, usize)> {
        let slots = self.by_pack.of(number);
        let mut whole = Vec::with_capacity(slots.len());
        found.evidence.named = slots.len() as u64;
        for slot in slots {
            let entry = self.table.entry(*slot as usize);
            let Some(size) = self.verify(&entry, data) else { continue };
            found.evidence.matched += 1;
            self.sizes[*slot as usize].store(size, Ordering::Relaxed);
            let part = span(&entry);
            if length_at(data, part.0) != Some(entry.stored_size as usize) {
                let reason = format!("the length of chunk {} is wrong", entry.id);
                found.flaw.get_or_insert(reason);
            }
            whole.push(part);
        }
        whole
    }

    /// Verifies what the index has in the pack that an object is named as, although it is not that pack, or no more.
    fn expected_chunks(
        &self,
        candidate: &PackCandidate,
        content: PackId,
        data: &[u8],
        found: &mut PackFound,
    ) -> Vec<(usize, usize)> {
        let number = candidate.named.and_then(|pack| self.numbers.get(&pack));
        let slots = number.map_or(&[][..], |number| self.by_pack.of(*number));
        let mut whole = Vec::with_capacity(slots.len());
        for slot in slots {
            let entry = self.table.entry(*slot as usize);
            let Some(size) = self.verify(&entry, data) else { continue };
            found.extras.push(Extra { entry: IndexEntry { pack: content, ..entry }, size });
            whole.push(span(&entry));
        }
        whole
    }

    /// The plaintext's length of a chunk that is where the index says.
    fn verify(&self, entry: &IndexEntry, pack: &[u8]) -> Option<u32> {
        let start = usize::try_from(entry.offset).ok()?;
        start.checked_sub(HEADER.len() + LENGTH_PREFIX as usize)?;
        let object = pack.get(start..start.checked_add(entry.stored_size as usize)?)?;
        is_chunk(self.repository.keys(), &entry.id, object)
    }
}

/// Where a chunk that was found whole begins, with its length, and ends.
fn span(entry: &IndexEntry) -> (usize, usize) {
    let offset = entry.offset as usize; // in a pack that was read
    (offset - LENGTH_PREFIX as usize, offset + entry.stored_size as usize)
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
pub(in crate::maintenance) fn walk(
    data: &[u8],
    known: &[(usize, usize)],
    show: &mut dyn FnMut(usize, &[u8]),
) {
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
