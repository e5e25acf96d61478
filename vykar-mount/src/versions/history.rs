//! What a directory held over all snapshots that are shown.

use std::collections::HashMap;
use std::sync::Arc;

use vykar_core::CryptoError;
use vykar_core::crypto::ChunkHasher;

use super::timeline::{SectionHolder, VersionsTimeline};
use crate::content::cache::Weight;
use crate::tree::{NodeId, Tree};

/// A version of a file or symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileVersion {
    /// The first snapshot that has it: its number in the timeline.
    pub(super) moment: u32,
    /// Where it is there.
    pub(super) section: u32,
    pub(super) node: NodeId,
}

/// A name in the directory.
#[derive(Debug, Clone, Copy)]
struct HistoryName {
    start: u32,
    len: u8,
    /// A snapshot has a directory of this name.
    is_dir: bool,
    /// Its versions, oldest first.
    versions: (u32, u32),
    /// The version that the newest snapshot which has one has.
    latest: u32,
}

/// All names that a directory had, and their versions.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Sorted.
    names: Vec<HistoryName>,
    bytes: Vec<u8>,
    versions: Vec<FileVersion>,
    /// There may be more, in sections that are damaged.
    pub(super) partial: bool,
}

/// An entry of a [`History`].
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryEntry<'h> {
    pub(super) name: &'h [u8],
    pub(super) is_dir: bool,
    pub(super) versions: &'h [FileVersion],
    /// Which of them the newest snapshot has that has one.
    pub(super) latest: usize,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<HistoryEntry<'_>> {
        let name = self.names.get(at)?;
        let (start, end) = name.versions;
        Some(HistoryEntry {
            name: self.name(name),
            is_dir: name.is_dir,
            versions: self.versions.get(start as usize..end as usize).unwrap_or_default(),
            latest: name.latest as usize,
        })
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<HistoryEntry<'_>> {
        self.get(self.names.binary_search_by(|known| self.name(known).cmp(name)).ok()?)
    }

    fn name(&self, name: &HistoryName) -> &[u8] {
        let start = name.start as usize;
        self.bytes.get(start..start + usize::from(name.len)).unwrap_or_default()
    }
}

impl Weight for Arc<History> {
    fn weight(&self) -> u64 {
        let names = self.names.capacity() * size_of::<HistoryName>() + self.bytes.capacity();
        (names + self.versions.capacity() * size_of::<FileVersion>()) as u64
    }
}

/// An item of a section.
struct SectionItem {
    /// Number in [`HistoryBuilder::names`].
    name: u32,
    section: u32,
    node: NodeId,
    /// Equal for equal contents.
    content: u32,
}

/// A history that is being made.
pub(super) struct HistoryBuilder<'t> {
    timeline: &'t VersionsTimeline,
    hasher: &'t ChunkHasher,
    names: HashMap<Vec<u8>, u32>,
    /// Which of them are directories.
    is_dir: Vec<bool>,
    contents: HashMap<[u8; 16], u32>,
    candidates: Vec<SectionItem>,
    scratch: Vec<u8>,
}

impl<'t> HistoryBuilder<'t> {
    pub(super) fn new(timeline: &'t VersionsTimeline, hasher: &'t ChunkHasher) -> Self {
        HistoryBuilder {
            timeline,
            hasher,
            names: HashMap::new(),
            is_dir: Vec::new(),
            contents: HashMap::new(),
            candidates: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds a subdirectory.
    pub(super) fn add_dir(&mut self, name: &[u8]) {
        let number = self.number(name);
        self.is_dir[number as usize] = true;
    }

    /// Adds the files and symlinks of a section that are in the directory `path`.
    pub(super) fn add_section(&mut self, section: u32, tree: &Tree, path: &[u8]) -> Result<(), CryptoError> {
        let mut names = path.split(|c| *c == b'/').filter(|name| !name.is_empty());
        let Some(dir) = names.try_fold(Tree::ROOT, |at, name| tree.lookup(at, name)) else { return Ok(()) };
        for node in tree.children(dir).filter(|node| tree.meta(*node).is_some_and(|meta| !meta.is_dir())) {
            let content = self.content(tree, node)?;
            let name = self.number(tree.name(node));
            self.candidates.push(SectionItem { name, section, node, content });
        }
        Ok(())
    }

    fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = self.is_dir.len() as u32;
        self.names.insert(name.to_vec(), number);
        self.is_dir.push(false);
        number
    }

    /// A number for what a node holds: its type, and its chunks with their sizes, or its target.
    fn content(&mut self, tree: &Tree, node: NodeId) -> Result<u32, CryptoError> {
        let bytes = &mut self.scratch;
        bytes.clear();
        if let Some(target) = tree.target(node) {
            bytes.extend_from_slice(target);
        }
        let content = tree.content(node);
        for (at, len) in content.chunks() {
            bytes.extend_from_slice(content.id(at).as_bytes());
            bytes.extend(len.to_le_bytes());
        }
        let kind = tree.meta(node).map_or(0, |meta| meta.kind());
        let hash = self.hasher.local(b"vykarvcn", &[&kind.to_le_bytes(), bytes])?;
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        let next = self.contents.len() as u32;
        Ok(*self.contents.entry(digest).or_insert(next))
    }

    pub(super) fn finish(mut self) -> History {
        self.candidates.sort_by_key(|candidate| candidate.name);
        let mut history = History::default();
        let mut names: Vec<_> = std::mem::take(&mut self.names).into_iter().collect();
        names.sort_unstable();
        let mut first_in = vec![None; self.timeline.moments.len()];
        for (name, number) in names {
            let start = self.candidates.partition_point(|candidate| candidate.name < number);
            let end = self.candidates.partition_point(|candidate| candidate.name <= number);
            let first = history.versions.len();
            let latest = self.choose(&self.candidates[start..end], &mut first_in, &mut history.versions);
            // Names are shorter than 256 bytes, and there are fewer than 2³² nodes of all trees.
            history.names.push(HistoryName {
                start: history.bytes.len() as u32,
                len: name.len() as u8,
                is_dir: self.is_dir[number as usize],
                versions: (first as u32, history.versions.len() as u32),
                latest,
            });
            history.bytes.extend_from_slice(&name);
        }
        history.names.shrink_to_fit();
        history.bytes.shrink_to_fit();
        history.versions.shrink_to_fit();
        history
    }

    /// Adds the versions among items of one path, and returns which of them the newest snapshot has. In a
    /// snapshot with several items the first one counts. `first_in` is scratch, one place for each snapshot.
    fn choose<'c>(
        &self,
        items: &'c [SectionItem],
        first_in: &mut [Option<(u32, &'c SectionItem)>],
        versions: &mut Vec<FileVersion>,
    ) -> u32 {
        if let [item] = items
            && let Some(first) = self.timeline.holders.of(item.section).first()
        {
            versions.push(FileVersion { moment: first.moment, section: item.section, node: item.node });
            return 0;
        }
        first_in.fill(None);
        for item in items {
            for SectionHolder { moment, position } in self.timeline.holders.of(item.section) {
                let Some(place) = first_in.get_mut(*moment as usize) else { continue };
                if place.is_none_or(|(before, _)| before > *position) {
                    *place = Some((*position, item));
                }
            }
        }
        let mut known: HashMap<u32, u32> = HashMap::new();
        let mut latest = 0;
        for (moment, (_, item)) in (0..).zip(&*first_in).filter_map(|(at, found)| Some((at, (*found)?))) {
            let next = known.len() as u32;
            latest = *known.entry(item.content).or_insert(next);
            if latest == next {
                versions.push(FileVersion { moment, section: item.section, node: item.node });
            }
        }
        latest
    }
}
