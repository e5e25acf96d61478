//! Item streams in pieces that snapshots share.
//!
//! A *section* is a chunk of an item stream together with what the chunks before it left unfinished. What
//! items it holds and what it leaves unfinished itself depend on nothing else. So snapshots that have most of
//! their chunks in common have most sections in common, wherever items straddle chunks.
//!
//! Of a section only this is kept: which directories have something in it, and what it leaves unfinished. Its
//! items are read again when somebody looks.

use std::collections::HashMap;
use std::sync::Arc;

use vykar_core::crypto::ChunkHasher;
use vykar_core::format::{Item, ItemStream, ItemType};
use vykar_core::repository::read::items::{FoundItem, end_of_chunks, next_chunk};
use vykar_core::{ChunkId, CryptoError, SnapshotId, VykarError};

use super::paths::Paths;
use super::rights::{Rights, RightsTable};
use crate::view::inode::SECTION_MAX;
use crate::view::names::fnv1a;
use crate::view::snapshots::Info;

/// No section.
pub(super) const NONE: u32 = u32::MAX;
/// What is left unfinished is kept up to this size, in bytes. Longer than this are only items of files of many
/// chunks, and those are put together from their chunks again.
pub(super) const MAX_KEPT: usize = 4096;

/// Tells what a section leaves unfinished from what others leave.
pub(super) type TailId = [u8; 16];

/// The tail of nothing.
pub(super) const NO_TAIL: TailId = [0; 16];

/// What a section leaves unfinished: the last bytes of what it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    /// These.
    Kept(Box<[u8]>),
    /// So many.
    Long(u32),
}

impl Tail {
    pub(super) fn len(&self) -> usize {
        match self {
            Tail::Kept(bytes) => bytes.len(),
            Tail::Long(len) => *len as usize,
        }
    }
}

/// What tells sections apart: the tail before it, and its chunk. Without one it is what is left behind the last
/// chunk of a stream.
pub(super) type SectionKey = (TailId, Option<ChunkId>);

/// A piece of item streams.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) chunk: Option<ChunkId>,
    /// One that leaves what this one begins with; [`NONE`] where that is nothing.
    pub(super) before: u32,
    pub(super) tail: Tail,
    pub(super) tail_id: TailId,
    /// Nothing behind it can be read.
    pub(super) broken: bool,
    /// Directories that it says something of, as [`Mention`]s, sorted.
    pub(super) mentions: Box<[u32]>,
    /// The directories whose own item it has, and the numbers of their rights; sorted.
    pub(super) owns: Box<[(u32, u32)]>,
    /// Its number in inodes.
    pub(super) number: u64,
    /// The oldest snapshot that has it, or had when it was shown last.
    pub(super) info: Option<Arc<Info>>,
}

/// A directory that a section has something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mention {
    /// Its number among [`Index::dirs`].
    pub(super) dir: u32,
    /// Its files or symlinks are there, and not just its own item.
    pub(super) files: bool,
}

impl Mention {
    pub(super) fn encode(self) -> u32 {
        self.dir << 1 | u32::from(self.files)
    }

    pub(super) fn decode(value: u32) -> Self {
        Mention { dir: value >> 1, files: value & 1 == 1 }
    }
}

/// The sections of a snapshot, in order.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) sections: Arc<[u32]>,
    /// Why there are not more, where a part is damaged or gone. It may be repaired.
    pub(super) lost: Option<String>,
}

impl List {
    /// Of a snapshot whose other sections cannot be read. Fails with the same error where they may be later.
    pub(super) fn cut(sections: Arc<[u32]>, error: VykarError) -> Result<Self, VykarError> {
        match error.is_damage() {
            true => Ok(List { sections, lost: Some(error.to_string()) }),
            false => Err(error),
        }
    }
}

/// All sections that were met, and the snapshots that they are from.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) sections: Vec<Section>,
    pub(super) dirs: Paths,
    /// Rights that any of these directories had.
    pub(super) rights: RightsTable,
    pub(super) lists: HashMap<SnapshotId, List>,
    by_key: HashMap<SectionKey, u32>,
    by_number: HashMap<u64, u32>,
}

impl Index {
    pub(super) fn find(&self, key: &SectionKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The section with this number in inodes.
    pub(super) fn by_number(&self, number: u64) -> Option<u32> {
        self.by_number.get(&number).copied()
    }

    pub(super) fn section(&self, at: u32) -> Option<&Section> {
        self.sections.get(at as usize)
    }

    /// True when a part of this snapshot's items could not be read.
    pub(super) fn is_cut(&self, list: &List) -> bool {
        let broken = |at: &u32| self.section(*at).is_some_and(|section| section.broken);
        list.lost.is_some() || list.sections.last().is_some_and(broken)
    }

    /// The tail behind a section; of [`NONE`] that is nothing.
    pub(super) fn tail_id(&self, at: u32) -> TailId {
        self.section(at).map_or(NO_TAIL, |section| section.tail_id)
    }

    /// Adds a section that is not there yet. `None` when there is no room.
    pub(super) fn add(&mut self, key: SectionKey, mut section: Section) -> Option<u32> {
        let at = u32::try_from(self.sections.len()).ok().filter(|at| *at < NONE)?;
        let chunk = key.1.unwrap_or(ChunkId([0; 32]));
        let hash = fnv1a(&[&key.0[..], chunk.as_bytes()].concat());
        section.number = (hash ^ hash >> 32) & SECTION_MAX;
        while self.by_number.contains_key(&section.number) {
            section.number = (section.number + 1) & SECTION_MAX;
        }
        self.by_number.insert(section.number, at);
        self.by_key.insert(key, at);
        self.sections.push(section);
        Some(at)
    }

    /// Reads the items of the next chunk of a stream, or what is left where there is none, and adds the section
    /// that they make.
    pub(super) fn scan(
        &mut self,
        (key, before): (SectionKey, u32),
        stream: &mut ItemStream,
        chunk: Option<&[u8]>,
        hasher: &ChunkHasher,
    ) -> Result<Option<u32>, CryptoError> {
        let mut scan = Scan::new(&mut self.dirs, &mut self.rights);
        let mut broken = false;
        let mut found = |found: FoundItem<'_>| {
            match found {
                FoundItem::Item(item) => scan.note(&item),
                FoundItem::Problem(_) => {}
                FoundItem::Lost(_) => broken = true,
            }
            Ok(true)
        };
        // It fails only when `found` does.
        let _ = match chunk {
            Some(chunk) => next_chunk(stream, chunk, &mut found),
            None => end_of_chunks(stream, &mut found),
        };
        let (mut mentions, mut owns) = (scan.mentions, scan.owns);
        mentions.sort_unstable();
        mentions.dedup();
        owns.sort_unstable();
        owns.dedup();
        let (tail, tail_id) = tail_of(stream.rest(), &key, hasher)?;
        let section = Section {
            chunk: key.1,
            before,
            tail,
            tail_id,
            broken,
            mentions: mentions.into(),
            owns: owns.into(),
            number: 0,
            info: None,
        };
        Ok(self.add(key, section))
    }
}

/// A tail, and what identifies it: its bytes, so that what differs before does not matter; for a long one, what
/// it was made from, because hashing an item anew with each chunk that it grows by takes too long.
fn tail_of(rest: &[u8], key: &SectionKey, hasher: &ChunkHasher) -> Result<(Tail, TailId), CryptoError> {
    let hash = match rest.len() {
        0 => return Ok((Tail::Kept(Box::default()), NO_TAIL)),
        len if len <= MAX_KEPT => hasher.local(b"vykarvtl", &[b"k", rest])?,
        _ => hasher.local(b"vykarvtl", &[b"l", &key.0, key.1.as_ref().map_or(&[], |id| &id.0[..])])?,
    };
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    let tail = match u32::try_from(rest.len()) {
        Ok(len) if rest.len() > MAX_KEPT => Tail::Long(len),
        _ => Tail::Kept(rest.into()),
    };
    Ok((tail, id))
}

/// Gathers the directories that items are in.
struct Scan<'i> {
    dirs: &'i mut Paths,
    rights: &'i mut RightsTable,
    /// The directory of the last item, and its number: siblings stand together.
    last: (Vec<u8>, Option<u32>),
    mentions: Vec<u32>,
    owns: Vec<(u32, u32)>,
}

impl<'i> Scan<'i> {
    fn new(dirs: &'i mut Paths, rights: &'i mut RightsTable) -> Self {
        Scan { dirs, rights, last: (Vec::new(), None), mentions: Vec::new(), owns: Vec::new() }
    }

    fn note(&mut self, item: &Item<'_>) {
        let path = item.path_bytes();
        let files = item.kind != ItemType::Directory;
        let dir = match path.iter().rposition(|c| *c == b'/') {
            _ if !files => path,
            Some(at) => &path[..at],
            None => &path[..0],
        };
        if self.last.0 != dir || self.mentions.is_empty() {
            let number = self.dirs.add_path(dir);
            self.last.0.clear();
            self.last.0.extend_from_slice(dir);
            self.last.1 = number;
        } else if self.mentions.last() == self.last.1.map(|dir| Mention { dir, files }.encode()).as_ref() {
            return;
        }
        let Some(dir) = self.last.1 else { return };
        self.mentions.push(Mention { dir, files }.encode());
        if !files {
            self.owns.push((dir, self.rights.add(Rights::of_item(item))));
        }
    }
}
