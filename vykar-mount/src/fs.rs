//! The file system as plain calls. Knows nothing of FUSE, and needs no mount to be used.

mod attr;
#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod shown_tests;
#[cfg(test)]
mod tests;
mod versions;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::tz::TimeZone;
use vykar_core::repository::Repository;
use vykar_core::{ChunkId, VykarError};

use crate::content::cache::{Cache, Weight};
use crate::content::chunk_source::{Data, Freed, SharedError};
use crate::content::damage_policy::{ChunkVerdict, judge};
use crate::content::holes::Zeros;
use crate::content::readahead::Prefetcher;
use crate::content::walk_prefetch::{StorePages, WalkPrefetch};
use crate::errno::FsError;
use crate::log::{Limiter, Log, LogLine, bounded};
use crate::tree::{Meta, NAME_MAX, NodeId, Tree};
use crate::versions::Versions;
use crate::view::attr_mapping::{OnDamage, Shown};
use crate::view::inode::{Inode, ROOT, View};
use crate::view::layout::{Layout, LayoutFolder, LayoutTarget, Position};
use crate::view::loader::Loader;
use crate::view::names::fnv1a;
use crate::view::snapshots::{Info, Snapshots};
use crate::view::subtree_root::{SetupError, TopFolder};
use crate::view::template::MAX_TEMPLATES;

/// How long the kernel may keep what is inside a snapshot: nothing there ever changes.
pub const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long it may keep the folders above, where snapshots come and go.
pub const MOMENT: Duration = Duration::from_secs(1);
/// Size of a block in [`FsStat`], in bytes.
pub const BLOCK: u32 = 4096;
/// Longest symlink target that the kernel takes, in bytes: a page, less its end.
const TARGET_MAX: usize = 4095;
/// Times that a read is done when somebody writes to the local copy of the index meanwhile.
const MAX_READS: u32 = 3;

type Result<T> = std::result::Result<T, FsError>;

/// How a file system is set up.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// Bytes of decoded chunks to keep.
    pub cache_size: u64,
    /// Bytes of snapshots' trees to keep; one is kept however large it is.
    pub tree_cache_size: u64,
    /// Threads that read ahead.
    pub prefetch_threads: usize,
    /// User and group that own what has no owner.
    pub owner: (u32, u32),
    /// Names of snapshots by time are in this zone.
    pub zone: TimeZone,
    /// What is shown, and how.
    pub shown: Shown,
    /// Called when much memory was freed.
    pub freed: Option<Freed>,
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Type, permissions, owner, size in bytes, times.
    pub meta: Meta,
    /// Blocks of 512 bytes that are no holes.
    pub blocks: u64,
    /// Names in its snapshot; for a directory two more than its subdirectories, or 1 where those are
    /// not counted, as they would have to be read for that.
    pub nlink: u32,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupEntry {
    /// This, and how long that is so.
    Found(Attr, Duration),
    /// Nothing, and how long that is so.
    Absent(Duration),
}

/// An entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What it is.
    pub attr: Attr,
    /// How long that is so.
    pub ttl: Duration,
}

/// Numbers about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsStat {
    /// What the repository stores, in blocks of [`BLOCK`] bytes.
    pub blocks: u64,
    /// Regular files of all snapshots.
    pub files: u64,
}

/// Which end of a hole [`Fs::seek`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

impl Weight for Arc<Tree> {
    fn weight(&self) -> u64 {
        self.bytes() as u64
    }
}

/// The file system.
pub struct Fs {
    repository: Arc<Repository>,
    shown: Shown,
    snapshots: Snapshots,
    /// What is at the root, where it is no folder of snapshots.
    top: Option<TopFolder>,
    data: Arc<Data>,
    zeros: Zeros,
    trees: Cache<u32, Arc<Tree>, FsError>,
    prefetcher: Prefetcher,
    ahead: WalkPrefetch,
    versions: Versions,
    log: Log,
    limiter: Limiter,
}

/// An inode inside a snapshot.
struct SnapshotNode {
    info: Arc<Info>,
    tree: Arc<Tree>,
    of: Of,
    node: NodeId,
    meta: Meta,
}

/// What a tree is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A snapshot, seen in a view.
    Snapshot(View),
    /// The section of item streams with this number.
    Section(u64),
}

impl SnapshotNode {
    /// How long the kernel may keep what is here: for ever where all of the snapshot is known.
    fn ttl(&self) -> Duration {
        if self.tree.is_cut() { MOMENT } else { FOREVER }
    }
}

impl Fs {
    /// Lists the repository's snapshots and reads nothing else, unless a folder of one is the root.
    ///
    /// # Errors
    /// Fails when the repository's snapshots cannot be listed, or the root is not there.
    pub fn new(
        repository: Arc<Repository>,
        options: FsOptions,
        log: Log,
    ) -> std::result::Result<Self, SetupError> {
        let (shown, log) = (options.shown, bounded(log));
        if shown.templates.len() > MAX_TEMPLATES {
            return Err(VykarError::Usage(format!("more than {MAX_TEMPLATES} path templates")).into());
        }
        let place = (options.zone, options.owner);
        let snapshots = Snapshots::load(repository.clone(), place, &shown, log.clone())?;
        let only = snapshots.only();
        let top = shown.top.clone().zip(only.as_ref());
        let top = top.map(|(top, info)| TopFolder::new(top, info.listed.number));
        let data = Arc::new(Data::new(repository.clone(), options.cache_size, options.freed.clone()));
        let prefetcher = Prefetcher::new(data.clone(), options.prefetch_threads, options.cache_size / 4);
        let ahead = WalkPrefetch::new(data.clone(), options.prefetch_threads);
        let versions = Versions::new(repository.clone(), data.clone(), options.owner, log.clone());
        let fs = Fs {
            ahead,
            versions,
            zeros: Zeros::new(repository.keys().clone()),
            repository,
            shown,
            snapshots,
            top,
            data,
            trees: Cache::keeping_one(options.tree_cache_size),
            prefetcher,
            log,
            limiter: Limiter::default(),
        };
        match (&fs.top, only) {
            (Some(top), Some(info)) if !top.is_found() => fs.find_top(top, &info)?,
            _ => {}
        }
        Ok(fs)
    }

    fn find_top(&self, top: &TopFolder, info: &Info) -> std::result::Result<(), SetupError> {
        let name = &info.listed.name;
        let tree = self.tree(info).map_err(|_| SetupError::Unreadable { snapshot: name.clone() })?;
        top.find(&info.listed.id, info.listed.number, &tree);
        match top.is_found() {
            true => Ok(()),
            false if tree.is_cut() => Err(SetupError::Unreadable { snapshot: name.clone() }),
            false => Err(top.missing(name, &tree)),
        }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<LookupEntry> {
        match self.decode(parent)? {
            Inode::Layout(number) => {
                let layout = self.snapshots.layout();
                let folder = self.folder(&layout, number)?;
                let attr = match name {
                    b"." => self.folder_attr(number, folder),
                    b".." => self.target_attr(&layout, LayoutTarget::Folder(folder.parent))?,
                    name => match folder.lookup(name) {
                        Some(target) => self.target_attr(&layout, target)?,
                        None if self.is_partial(number) => return Err(FsError::Io),
                        None => return Err(FsError::NotFound),
                    },
                };
                Ok(LookupEntry::Found(attr, MOMENT))
            }
            Inode::Folder(number) => self.lookup_version(number, name),
            Inode::Version { .. } | Inode::Latest { .. } => Err(FsError::NotADirectory),
            Inode::Node { snapshot, view, node } => {
                if name == b"." {
                    return self.getattr(parent).map(|(attr, ttl)| LookupEntry::Found(attr, ttl));
                }
                let place = self.place(snapshot, view, node)?;
                if !place.meta.is_dir() {
                    return Err(FsError::NotADirectory);
                }
                if name == b".." {
                    return self.getattr(self.above(&place)).map(|(attr, ttl)| LookupEntry::Found(attr, ttl));
                }
                if name.len() > NAME_MAX {
                    return Err(FsError::NameTooLong);
                }
                Ok(match place.tree.lookup(node, name) {
                    Some(child) => LookupEntry::Found(self.node_attr(&place, child), place.ttl()),
                    // It may be in the part that cannot be read.
                    None if place.tree.is_cut() => return Err(FsError::Damaged),
                    None => LookupEntry::Absent(if parent == ROOT { MOMENT } else { FOREVER }),
                })
            }
        }
    }

    /// What `stat` says about an inode, and how long that is so.
    pub fn getattr(&self, ino: u64) -> Result<(Attr, Duration)> {
        match self.decode(ino)? {
            Inode::Layout(number) => {
                let layout = self.snapshots.layout();
                if let Some(folder) = layout.folder(number) {
                    return Ok((self.folder_attr(number, folder), MOMENT));
                }
                Ok((self.latest_attr(&layout, number)?, MOMENT))
            }
            Inode::Node { snapshot, view, node: Tree::ROOT } => {
                let info = self.snapshots.get(snapshot).ok_or(FsError::Stale)?;
                Ok((self.root_attr(&info, view), MOMENT))
            }
            Inode::Folder(number) => Ok((self.versions_attr(number)?, MOMENT)),
            Inode::Latest { place, target } => Ok((self.latest_version(place, target)?.0, MOMENT)),
            inode => {
                let place = self.node(inode)?.ok_or(FsError::Stale)?;
                Ok((self.node_attr(&place, place.node), place.ttl()))
            }
        }
    }

    /// Where a symlink points.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        match self.decode(ino)? {
            Inode::Layout(number) => match self.snapshots.latest(number) {
                Some((_, target)) => Ok(target),
                None => Err(FsError::Invalid),
            },
            Inode::Latest { place, target } => Ok(self.latest_version(place, target)?.1),
            inode => {
                let place = self.node(inode)?.ok_or(FsError::Invalid)?;
                let target = place.tree.target(place.node).ok_or(FsError::Invalid)?;
                if target.len() > TARGET_MAX {
                    return Err(FsError::NameTooLong);
                }
                Ok(target.to_vec())
            }
        }
    }

    /// True for a folder above the snapshots or of versions, whose entries come and go, and for the root.
    pub fn changes(ino: u64) -> bool {
        matches!(Inode::decode(ino), Some(Inode::Layout(_) | Inode::Folder(_)))
    }

    /// Lists a directory from position `offset`, 0 for its begin. `emit` gets each entry and the position
    /// behind it, and returns true when it has no room for it. A listing in several steps shows a folder
    /// as it was at its begin.
    pub fn readdir(&self, ino: u64, offset: u64, emit: &mut dyn FnMut(Child<'_>, u64) -> bool) -> Result<()> {
        match self.decode(ino)? {
            Inode::Layout(number) => {
                let position = Position::decode(offset);
                let layout = match position.at {
                    0 => self.snapshots.layout(),
                    _ => self.snapshots.earlier_layout(position.generation),
                };
                let folder = self.folder(&layout, number)?;
                let dots = [self.folder_attr(number, folder)].into_iter().cycle();
                let names = [&b"."[..], b".."].into_iter().zip(dots).map(|(name, attr)| (name, Ok(attr)));
                let entries = folder.entries.iter();
                let entries = entries.map(|(name, to)| (&**name, self.target_attr(&layout, *to)));
                let from = position.at as usize;
                // What is shown is right, and not all: the listing fails where it would end.
                if from >= folder.entries.len() + 2 && self.is_partial(number) {
                    return Err(FsError::Io);
                }
                for (at, (name, attr)) in (1..).zip(names.chain(entries)).skip(from) {
                    // A snapshot that vanished this moment has no attributes.
                    let Ok(attr) = attr else { continue };
                    let next = Position { generation: layout.generation, at }.encode();
                    if emit(Child { name, attr, ttl: MOMENT }, next) {
                        break;
                    }
                }
                Ok(())
            }
            Inode::Folder(number) => self.list_versions(number, offset, emit),
            inode => {
                let place = self.node(inode)?.ok_or(FsError::NotADirectory)?;
                if !place.meta.is_dir() {
                    return Err(FsError::NotADirectory);
                }
                self.list(&place, offset, emit)
            }
        }
    }

    fn list(
        &self,
        place: &SnapshotNode,
        offset: u64,
        emit: &mut dyn FnMut(Child<'_>, u64) -> bool,
    ) -> Result<()> {
        let children = place.tree.children(place.node);
        if offset >= children.len() as u64 + 2 {
            // What is shown is right, and not all: the listing fails where it would end.
            if place.tree.is_cut() {
                return Err(FsError::Damaged);
            }
            self.ahead.listed(place.info.listed.number, &place.tree, place.node);
        }
        for at in offset..children.len() as u64 + 2 {
            let (name, attr) = match at {
                0 => (&b"."[..], self.node_attr(place, place.node)),
                1 => (&b".."[..], Attr { ino: self.above(place), ..self.node_attr(place, place.node) }),
                n => {
                    let child = children.start + (n - 2) as NodeId;
                    (place.tree.name(child), self.node_attr(place, child))
                }
            };
            if emit(Child { name, attr, ttl: place.ttl() }, at + 1) {
                break;
            }
        }
        Ok(())
    }

    /// `size` bytes of a file from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`FsError::Io`] when any of them cannot be read; that is logged.
    pub fn read(&self, ino: u64, offset: u64, size: u32) -> Result<Bytes> {
        let inode = self.decode(ino)?;
        for _ in 0..MAX_READS {
            let place = self.node(inode)?.ok_or(FsError::IsADirectory)?;
            let result = self.read_at(inode, &place, (offset, size));
            // Otherwise what was read may be of other chunks than the file's.
            if place.tree.is_current() {
                return result;
            }
        }
        Err(FsError::Io)
    }

    fn read_at(&self, inode: Inode, place: &SnapshotNode, (offset, size): (u64, u32)) -> Result<Bytes> {
        match place.meta.kind() {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(FsError::IsADirectory),
            _ => return Err(FsError::Invalid),
        }
        let end = offset.saturating_add(size.into()).min(place.meta.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let content = place.tree.content(place.node);
        self.prefetcher.note(inode.encode(), content, offset, end);
        if let (0, Inode::Node { snapshot, node, .. }) = (offset, inode) {
            self.ahead.note(snapshot, &place.tree, node);
        }
        let mut gathered = Vec::new();
        for at in content.find(offset)..content.len() {
            let range = content.range(at);
            // piece() sees to it that the data is as long as the range.
            let data = self.piece(place, content.id(at), range.end.saturating_sub(range.start))?;
            let from = offset.saturating_sub(range.start) as usize;
            let to = (end.min(range.end).saturating_sub(range.start)) as usize;
            if gathered.is_empty() && end <= range.end {
                return Ok(data.slice(from..to));
            }
            if gathered.is_empty() {
                gathered = self.data.buffer((end - offset) as usize);
            }
            gathered.extend_from_slice(&data[from..to]);
            if end <= range.end {
                break;
            }
        }
        Ok(self.data.freeze(gathered))
    }

    fn piece(&self, place: &SnapshotNode, id: ChunkId, size: u64) -> Result<Bytes> {
        self.data.chunk(&id, size).or_else(|error| {
            let verdict = match self.shown.on_damage {
                OnDamage::Error => ChunkVerdict::Doubtful,
                OnDamage::Zero => judge(&error, (&id, size), &self.data),
            };
            match verdict {
                ChunkVerdict::Readable(chunk) => Ok(chunk),
                ChunkVerdict::Lost if place.tree.is_current() => {
                    self.log_read(place, id, &error, true);
                    Ok(Bytes::from(vec![0; size as usize]))
                }
                ChunkVerdict::Lost | ChunkVerdict::Doubtful => {
                    self.log_read(place, id, &error, false);
                    Err(FsError::Io)
                }
            }
        })
    }

    fn log_read(&self, place: &SnapshotNode, chunk: ChunkId, error: &SharedError, zeros: bool) {
        let path = place.tree.path(place.node);
        let key =
            [&place.info.listed.id.as_bytes()[..], chunk.as_bytes(), &path[..], &[zeros.into()]].concat();
        // Nobody else tells the reader about zeros.
        let allows = if zeros { Limiter::allows_without_room } else { Limiter::allows };
        if !allows(&self.limiter, fnv1a(&key)) {
            return;
        }
        let (pack, reason) = match &**error {
            VykarError::ChunkDamaged { pack, cause, .. } => (Some(*pack), cause.to_string()),
            VykarError::ChunkMissing { .. } => (None, "it is not in the index".to_owned()),
            other => (None, other.to_string()),
        };
        let snapshot = place.info.listed.name.clone();
        (self.log)(LogLine::ReadFailed { snapshot, path, chunk, pack, reason, zeros });
    }

    /// The next data or hole of a file from `offset` on.
    ///
    /// # Errors
    /// [`FsError::BeyondEnd`] when there is none.
    pub fn seek(&self, ino: u64, offset: i64, whence: Seek) -> Result<u64> {
        let place = self.node(self.decode(ino)?)?.ok_or(FsError::Invalid)?;
        if place.meta.kind() != libc::S_IFREG {
            return Err(FsError::Invalid);
        }
        let offset = u64::try_from(offset).map_err(|_| FsError::BeyondEnd)?;
        let (content, largest) = (place.tree.content(place.node), place.info.largest_chunk);
        // What cannot be read is data, and whoever reads it is told.
        let read = |at: usize| {
            let range = content.range(at);
            self.data.chunk(&content.id(at), range.end.saturating_sub(range.start)).ok()
        };
        let found = self.zeros.seek((content, largest), offset, whence == Seek::Hole, &read);
        found.ok_or(FsError::BeyondEnd)
    }

    /// Numbers about the repository. One whose index cannot be read stores nothing, as far as is known.
    pub fn statfs(&self) -> FsStat {
        let stored = self.data.reader().map_or(0, |reader| {
            let sizes = reader.index();
            sizes.chunks.iter().map(|entry| u64::from(entry.stored_size)).sum::<u64>()
        });
        FsStat { blocks: stored.div_ceil(BLOCK.into()), files: self.snapshots.files() }
    }

    /// Reads the index, which the first look into a snapshot will want. What goes wrong is said then.
    pub(crate) fn load_index(&self) {
        let _ = self.data.reader();
    }

    /// Gives up everything that can be read again: nobody has asked for long.
    pub(crate) fn give_back(&self) {
        self.trees.clear();
        self.versions.give_back();
        self.data.give_back();
    }

    /// Where files that are decoded ahead go.
    pub(crate) fn set_store(&self, store: StorePages) {
        self.ahead.set_store(store);
    }

    /// True when nothing is being decoded ahead of a walk.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.ahead.is_idle()
    }

    /// As if other snapshots had been looked into since.
    #[cfg(test)]
    pub(crate) fn forget_trees(&mut self) {
        self.trees = Cache::keeping_one(0);
        self.versions.forget_trees();
    }

    /// As if somebody had looked into `versions`.
    #[cfg(test)]
    pub(crate) fn learn_versions(&self) {
        let _ = self.versions.timeline(&self.snapshots);
    }

    /// Lets the next call look for new snapshots.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        self.snapshots.expire();
        self.versions.expire();
    }

    fn decode(&self, ino: u64) -> Result<Inode> {
        match &self.top {
            Some(top) if ino == ROOT => top.inode(),
            _ => Inode::decode(ino).ok_or(FsError::Stale),
        }
    }

    /// The number of a node, that of the file system's root where it is that.
    fn encode(&self, snapshot: u32, view: View, node: NodeId) -> u64 {
        match &self.top {
            Some(top) if top.is(snapshot, node) => ROOT,
            _ => Inode::Node { snapshot, view, node }.encode(),
        }
    }

    fn folder<'l>(&self, layout: &'l Layout, number: u32) -> Result<&'l LayoutFolder> {
        layout.folder(number).ok_or_else(|| match self.snapshots.latest(number) {
            Some(_) => FsError::NotADirectory,
            None => FsError::Stale,
        })
    }

    fn place(&self, snapshot: u32, view: View, node: NodeId) -> Result<SnapshotNode> {
        let info = self.snapshots.get(snapshot).ok_or(FsError::Stale)?;
        let tree = self.tree(&info)?;
        let meta = if node == Tree::ROOT { info.root } else { *tree.meta(node).ok_or(FsError::Stale)? };
        Ok(SnapshotNode { info, tree, of: Of::Snapshot(view), node, meta })
    }

    /// Where an inode is that is a node of a tree; `None` for others.
    fn node(&self, inode: Inode) -> Result<Option<SnapshotNode>> {
        match inode {
            Inode::Node { snapshot, view, node } => self.place(snapshot, view, node).map(Some),
            Inode::Version { section, node } => self.version(section, node).map(Some),
            Inode::Layout(_) | Inode::Folder(_) | Inode::Latest { .. } => Ok(None),
        }
    }

    fn tree(&self, info: &Info) -> Result<Arc<Tree>> {
        let number = &info.listed.number;
        let tree = self.trees.get_or_make(number, || self.load(info))?;
        if !tree.is_outdated() {
            return Ok(tree);
        }
        self.trees.remove(number);
        self.trees.get_or_make(number, || self.load(info))
    }

    /// True for a folder that may have more entries than are known.
    fn is_partial(&self, folder: u32) -> bool {
        let is_fixed = u64::from(folder) == ROOT && self.shown.templates.is_empty();
        !is_fixed && self.snapshots.is_partial()
    }

    fn load(&self, info: &Info) -> Result<Arc<Tree>> {
        let loader = Loader {
            repository: &self.repository,
            data: &self.data,
            owner: self.snapshots.owner,
            log: &self.log,
            limiter: &self.limiter,
        };
        let tree = loader.load(info)?;
        let shape = tree.shape();
        if *info.shape.get_or_init(|| shape) != shape {
            // Some of its items could not be read before, or cannot now: the numbers that the kernel
            // knows may mean other files.
            let number = self.snapshots.renumber(info, shape);
            if let Some(top) = &self.top {
                top.find(&info.listed.id, number, &tree);
            }
            return Err(FsError::Stale);
        }
        Ok(tree)
    }
}
