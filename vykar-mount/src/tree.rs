//! A snapshot's items as a compact immutable tree.
//!
//! An arena of 72-byte nodes and one buffer of names. A directory's children are contiguous and
//! sorted by bytes, so a lookup is a binary search and a listing a slice. What few nodes have
//! (extended attributes, several names) is in side tables.
//!
//! Nodes are numbered breadth first, so the same items always give the same numbers: an inode number
//! stays good while its tree is dropped from memory and loaded again.

mod build;
pub(crate) mod fuzz;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use build::meta_of;
pub use build::{BuildError, Builder};

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vykar_core::ChunkId;
use vykar_core::format::IndexBlob;

use crate::xattr::EncodedXattrs;

pub use vykar_core::format::admission::NAME_MAX;

/// Most nodes of a tree: their numbers have 30 bits.
pub const MAX_NODES: u32 = 1 << 30;

/// A part that was lost is looked for again when this has passed.
pub(crate) const RETRY: Duration = Duration::from_secs(30);

/// A node's number in its tree. The root is 0.
pub type NodeId = u32;

/// What a node is and what `stat` says about it, apart from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Nanoseconds since the epoch, may be negative.
    pub mtime: i64,
    /// Likewise.
    pub atime: i64,
    /// Likewise.
    pub ctime: i64,
    /// Bytes; of a symlink's target, for a symlink; the number of a device node, as `st_rdev` has it.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permission bits of `st_mode`.
    pub mode: u16,
}

impl Meta {
    /// The type bits of `st_mode`.
    pub fn kind(&self) -> u32 {
        u32::from(self.mode) & libc::S_IFMT
    }

    /// The number of a device node, else 0.
    pub fn rdev(&self) -> u64 {
        if matches!(self.kind(), libc::S_IFCHR | libc::S_IFBLK) { self.size } else { 0 }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
}

/// A piece of a file's content: 12 bytes instead of the 40 of an id and an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct TreePiece {
    /// Its chunk's slot in the tree's index; behind those, a number in `strangers`.
    slot: u32,
    /// Where it ends in the file, in bytes, as low and high half; it begins where the one before ends.
    end: [u32; 2],
}

impl TreePiece {
    fn new(slot: u32, end: u64) -> Self {
        TreePiece { slot, end: [end as u32, (end >> 32) as u32] }
    }

    fn end(&self) -> u64 {
        u64::from(self.end[1]) << 32 | u64::from(self.end[0])
    }
}

/// The chunks of a file in order.
#[derive(Debug, Clone, Copy)]
pub struct FileChunks<'t> {
    tree: &'t Tree,
    pieces: &'t [TreePiece],
}

impl FileChunks<'_> {
    /// How many chunks it has.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// True for a file without content, and for anything that is no file.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.pieces.last().map_or(0, TreePiece::end)
    }

    /// The bytes of the file that chunk number `at` holds; empty behind the last.
    pub fn range(&self, at: usize) -> Range<u64> {
        let start = at.checked_sub(1).and_then(|before| self.pieces.get(before)).map_or(0, TreePiece::end);
        start..self.pieces.get(at).map_or(start, TreePiece::end)
    }

    /// The number of the chunk that holds the byte at `offset`; [`FileChunks::len`] behind the end.
    pub fn find(&self, offset: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= offset)
    }

    /// The id of chunk number `at`, which must be below [`FileChunks::len`].
    pub fn id(&self, at: usize) -> ChunkId {
        let table = &self.tree.index.chunks;
        match self.pieces.get(at).map(|piece| piece.slot as usize) {
            Some(slot) if slot < table.len() => table.id(slot),
            Some(slot) => self.tree.strangers.get(slot - table.len()).copied().unwrap_or(ChunkId([0; 32])),
            None => ChunkId([0; 32]),
        }
    }

    /// Bytes that chunk number `at` takes in its pack, as far as the tree's index knows it.
    pub fn stored_size(&self, at: usize) -> Option<u32> {
        let table = &self.tree.index.chunks;
        let slot = self.pieces.get(at)?.slot as usize;
        (slot < table.len()).then(|| table.entry(slot).stored_size)
    }

    /// Number and length in bytes of each chunk.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..self.len()).map(|at| {
            let range = self.range(at);
            (at, range.end.saturating_sub(range.start))
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct TreeNode {
    meta: Meta,
    flags: u8,
    name_len: u8,
    name: u32,
    parent: NodeId,
    nlink: u32,
    /// First of: a directory's children in `nodes`, a file's pieces, a symlink's target in `names`.
    start: u32,
    /// How many of them.
    count: u32,
}

impl TreeNode {
    fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.count as usize
    }
}

const _: () = assert!(size_of::<TreeNode>() <= 72 && size_of::<TreePiece>() == 12);

/// It has an entry in the table of extended attributes.
const HAS_XATTRS: u8 = 1;
/// An item says what it is, and not just the paths below it.
const HAS_ITEM: u8 = 2;

/// A snapshot's tree.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<TreeNode>,
    names: Vec<u8>,
    pieces: Vec<TreePiece>,
    /// TreeNode, and where its attributes are in `xattr_bytes`; sorted by node.
    xattrs: Vec<(NodeId, u32, u32)>,
    xattr_bytes: Vec<u8>,
    /// Further names of a file, and the node that stands for it; sorted.
    links: Vec<(NodeId, NodeId)>,
    /// The index whose slots the pieces name. It may be out of date; ids do not change.
    index: Arc<IndexBlob>,
    /// Chunks that it does not know.
    strangers: Vec<ChunkId>,
    /// When it was found that a part of the snapshot's items is lost.
    cut: Option<Instant>,
}

impl Tree {
    /// The snapshot's top directory.
    pub const ROOT: NodeId = 0;

    /// A part of the items could not be read: any directory may have more entries than are known.
    pub(crate) fn cut(&mut self) {
        self.cut = Some(Instant::now());
    }

    /// True when a part of the items could not be read.
    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// True when it must be loaded again: a part was lost and may have been repaired, or the chunks of files may be
    /// others, because somebody wrote to the local copy of the index that names them.
    pub fn is_outdated(&self) -> bool {
        self.cut.is_some_and(|since| since.elapsed() >= RETRY) || !self.is_current()
    }

    /// True when the chunks of its files are still those that it was made of.
    pub fn is_current(&self) -> bool {
        self.index.chunks.is_unchanged()
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there is nothing below the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Memory that it takes, in bytes, without the index that it shares.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.nodes.capacity() * size_of::<TreeNode>()
            + self.names.capacity()
            + self.pieces.capacity() * size_of::<TreePiece>()
            + self.xattrs.capacity() * size_of::<(NodeId, u32, u32)>()
            + self.xattr_bytes.capacity()
            + self.links.capacity() * size_of::<(NodeId, NodeId)>()
            + self.strangers.capacity() * size_of::<ChunkId>()
    }

    /// Numbers that differ between trees of different item streams, mostly: nodes, bytes of names and
    /// pieces.
    pub fn shape(&self) -> [usize; 3] {
        [self.nodes.len(), self.names.len(), self.pieces.len()]
    }

    /// What a node is; `None` when there is no such node.
    pub fn meta(&self, node: NodeId) -> Option<&Meta> {
        self.nodes.get(node as usize).map(|n| &n.meta)
    }

    /// How many names a file has in this snapshot; two more than its subdirectories for a directory.
    pub fn nlink(&self, node: NodeId) -> u32 {
        self.nodes.get(node as usize).map_or(0, |n| n.nlink)
    }

    /// The directory that holds a node; the root's is the root.
    pub fn parent(&self, node: NodeId) -> NodeId {
        self.nodes.get(node as usize).map_or(Self::ROOT, |n| n.parent)
    }

    /// A node's name; empty for the root.
    pub fn name(&self, node: NodeId) -> &[u8] {
        self.nodes.get(node as usize).map_or(&[], |n| self.name_of(n))
    }

    fn name_of(&self, node: &TreeNode) -> &[u8] {
        let from = node.name as usize;
        self.names.get(from..from + usize::from(node.name_len)).unwrap_or_default()
    }

    /// A directory's children, sorted by name; empty for anything else.
    pub fn children(&self, node: NodeId) -> Range<NodeId> {
        match self.nodes.get(node as usize) {
            Some(n) if n.meta.is_dir() => n.start..n.start.saturating_add(n.count),
            _ => 0..0,
        }
    }

    /// Finds a child of a directory.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = self.children(dir);
        let nodes = self.nodes.get(children.start as usize..children.end as usize)?;
        let at = nodes.binary_search_by(|n| self.name_of(n).cmp(name)).ok()?;
        Some(children.start + at as u32)
    }

    /// The node that stands for a file with several names; any other node itself.
    pub fn inode(&self, node: NodeId) -> NodeId {
        match self.links.binary_search_by_key(&node, |(name, _)| *name) {
            Ok(at) => self.links[at].1,
            Err(_) => node,
        }
    }

    /// A regular file's content; empty for anything else.
    pub fn content(&self, node: NodeId) -> FileChunks<'_> {
        let pieces = match self.nodes.get(node as usize) {
            Some(n) if n.meta.kind() == libc::S_IFREG => self.pieces.get(n.range()).unwrap_or_default(),
            _ => &[],
        };
        FileChunks { tree: self, pieces }
    }

    /// A symlink's target.
    pub fn target(&self, node: NodeId) -> Option<&[u8]> {
        let node = self.nodes.get(node as usize).filter(|n| n.meta.kind() == libc::S_IFLNK)?;
        self.names.get(node.range())
    }

    /// A node's extended attributes.
    pub fn xattrs(&self, node: NodeId) -> EncodedXattrs<'_> {
        if self.nodes.get(node as usize).is_none_or(|n| n.flags & HAS_XATTRS == 0) {
            return EncodedXattrs::default();
        }
        let found = self.xattrs.binary_search_by_key(&node, |entry| entry.0).ok();
        let bytes = found
            .map(|at| self.xattrs[at])
            .and_then(|(_, start, len)| self.xattr_bytes.get(start as usize..start as usize + len as usize));
        EncodedXattrs(bytes.unwrap_or_default())
    }

    /// A node's path from the root, without a leading slash.
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        while at != Self::ROOT {
            names.push(self.name(at));
            at = self.parent(at);
        }
        names.reverse();
        names.join(&b'/')
    }
}
