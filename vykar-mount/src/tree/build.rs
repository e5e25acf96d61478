//! From items in any order to a [`Tree`].

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use vykar_core::format::admission::{Misplaced, has_long_name};
use vykar_core::format::{IndexBlob, Item, ItemType};

use super::slots::Slots;
use super::{HAS_ITEM, HAS_XATTRS, MAX_NODES, Meta, NodeId, Tree, TreeNode, TreePiece};
use crate::xattr;

/// A tree that is too large for this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is too large: more than {max} {what}")]
pub struct BuildError {
    /// What there is too much of.
    pub what: &'static str,
    /// The bound.
    pub max: u64,
}

/// A node, and the begin and length of its attributes.
type Attributes = (NodeId, u32, u32);
/// A node, and the device and inode that it had.
type LinkedNode = (NodeId, (u64, u64));

/// Called with the path of an item that is left out and the reason.
pub type Report<'r> = &'r mut dyn FnMut(&[u8], &str);

/// Collects items and makes the tree.
///
/// Until the tree is finished a node's `parent` is a number in `nodes` as they were added, and the `count` of a
/// directory is how many children it has so far.
pub struct Builder<'r> {
    nodes: Vec<TreeNode>,
    names: Vec<u8>,
    pieces: Vec<TreePiece>,
    /// All nodes by parent and name.
    by_name: HashTable<NodeId>,
    hasher: DefaultHashBuilder,
    slots: Slots,
    /// The directory of the last item, and where each of its components ends and which node it is.
    /// A walk keeps siblings together, so this finds nearly every parent.
    dir: Vec<u8>,
    dir_parts: Vec<(usize, NodeId)>,
    /// Nodes that had several names, and the device and inode they had.
    groups: Vec<LinkedNode>,
    /// Nodes with [`HAS_XATTRS`] and a number in `xattr_sets`.
    xattrs: Vec<(NodeId, u32)>,
    /// Many files have the same attributes, so equal sets are kept once.
    xattr_sets: Vec<(u32, u32)>,
    xattr_bytes: Vec<u8>,
    xattr_index: HashMap<Vec<u8>, u32>,
    /// For directories without an item.
    made_up: Meta,
    report: Report<'r>,
}

pub(super) fn bounded(n: usize, what: &'static str) -> Result<u32, BuildError> {
    u32::try_from(n).map_err(|_| BuildError { what, max: u32::MAX.into() })
}

impl<'r> Builder<'r> {
    /// A tree of the root alone. Directories that have no item become `made_up`. `index` should know the
    /// chunks of the files, but need not.
    pub fn new(root: Meta, made_up: Meta, index: Arc<IndexBlob>, report: Report<'r>) -> Self {
        Builder {
            nodes: vec![TreeNode::new(Tree::ROOT, root)],
            names: Vec::new(),
            pieces: Vec::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            slots: Slots::new(index),
            dir: Vec::new(),
            dir_parts: Vec::new(),
            groups: Vec::new(),
            xattrs: Vec::new(),
            xattr_sets: Vec::new(),
            xattr_bytes: Vec::new(),
            xattr_index: HashMap::new(),
            made_up,
            report,
        }
    }

    /// Makes room for this many items; more or fewer may come.
    pub fn expect(&mut self, items: usize) {
        self.nodes.reserve(items);
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.reserve(items, |at| hash_of(hasher, nodes, names, *at));
    }

    /// Nodes so far, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Adds an item that follows the format's rules.
    ///
    /// The first of several items for a path counts, as in a restore. Another one, one below a path that is no
    /// directory, and one that is no directory and has others below it, is reported and left out.
    pub fn add(&mut self, item: &Item<'_>) -> Result<(), BuildError> {
        let path = item.path_bytes();
        if has_long_name(path) {
            return self.leave_out(path, Misplaced::LongName);
        }
        let (dir, name) = match path.iter().rposition(|c| *c == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let Some(parent) = self.directory(dir)? else {
            return self.leave_out(path, Misplaced::BelowFile);
        };
        let (at, is_new) = self.find_or_insert(parent, name)?;
        let problem = match self.nodes[at as usize].flags & HAS_ITEM != 0 {
            true => Some(Misplaced::Twice),
            false => (!is_new && item.kind != ItemType::Directory).then_some(Misplaced::HasEntries),
        };
        match problem {
            Some(why) => self.leave_out(path, why),
            None => self.fill(at, item),
        }
    }

    fn leave_out(&mut self, path: &[u8], why: Misplaced) -> Result<(), BuildError> {
        (self.report)(path, &why.to_string());
        Ok(())
    }

    /// Finds or makes a directory; `None` when something on the way is no directory.
    fn directory(&mut self, dir: &[u8]) -> Result<Option<NodeId>, BuildError> {
        if dir != self.dir {
            let common = self.dir.iter().zip(dir).take_while(|(a, b)| a == b).count();
            let stays = |end: usize| end <= common && matches!(dir.get(end), None | Some(b'/'));
            let kept = self.dir_parts.iter().take_while(|(end, _)| stays(*end)).count();
            self.dir_parts.truncate(kept);
            let mut from = self.dir_parts.last().map_or(0, |(end, _)| end + 1);
            self.dir.truncate(from.saturating_sub(1));
            let mut at = self.dir_parts.last().map_or(Tree::ROOT, |(_, node)| *node);
            while let Some(rest) = dir.get(from..).filter(|rest| !rest.is_empty()) {
                let len = rest.iter().position(|c| *c == b'/').unwrap_or(rest.len());
                let name = &rest[..len];
                at = self.find_or_insert(at, name)?.0;
                if !self.nodes[at as usize].meta.is_dir() {
                    return Ok(None);
                }
                let end = from + len;
                self.dir_parts.push((end, at));
                self.dir.clear();
                self.dir.extend_from_slice(&dir[..end]);
                from = end + 1;
            }
        }
        Ok(Some(self.dir_parts.last().map_or(Tree::ROOT, |(_, node)| *node)))
    }

    /// Finds a node, or adds a made-up directory; says whether it was added.
    fn find_or_insert(&mut self, parent: NodeId, name: &[u8]) -> Result<(NodeId, bool), BuildError> {
        let hash = self.hasher.hash_one((parent, name));
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        let same = |at: &NodeId| {
            let node = &nodes[*at as usize];
            node.parent == parent && name_of(names, node) == name
        };
        let vacant = match self.by_name.entry(hash, same, |at| hash_of(hasher, nodes, names, *at)) {
            Entry::Occupied(found) => return Ok((*found.get(), false)),
            Entry::Vacant(vacant) => vacant,
        };
        let at = bounded(nodes.len(), "files")?;
        if at >= MAX_NODES {
            return Err(BuildError { what: "files", max: MAX_NODES.into() });
        }
        let mut node = TreeNode::new(parent, self.made_up);
        node.name = bounded(names.len(), "bytes of names")?;
        // add() looked at its length; a longer one would only be cut.
        node.name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        vacant.insert(at);
        self.names.extend_from_slice(name);
        self.nodes.push(node);
        self.nodes[parent as usize].count += 1;
        Ok((at, true))
    }

    fn fill(&mut self, at: NodeId, item: &Item<'_>) -> Result<(), BuildError> {
        let mut meta = meta_of(item);
        let (start, count);
        match item.kind {
            ItemType::Directory => (start, count) = (0, self.nodes[at as usize].count),
            ItemType::RegularFile => {
                start = bounded(self.pieces.len(), "chunks")?;
                let mut end = 0u64;
                for chunk in &item.chunks {
                    end = end.saturating_add(chunk.size.into());
                    self.slots.add(&chunk.id);
                    self.pieces.push(TreePiece::new(0, end));
                }
                count = bounded(item.chunks.len(), "chunks")?;
                meta.size = end.min(MAX_SIZE);
            }
            ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => {
                (start, count) = (0, 0);
                meta.size = item.rdev;
            }
            ItemType::Symlink => {
                let target = item.target_bytes().unwrap_or_default();
                start = bounded(self.names.len(), "bytes of names")?;
                count = bounded(target.len(), "bytes of names")?;
                self.names.extend_from_slice(target);
                meta.size = count.into();
            }
        }
        let mut flags = HAS_ITEM;
        self.groups.extend(item.link_key().map(|key| (at, key)));
        if let Some(set) = self.xattr_set(item)? {
            self.xattrs.push((at, set));
            flags |= HAS_XATTRS;
        }
        let node = &mut self.nodes[at as usize];
        *node = TreeNode { meta, flags, nlink: nlink_of(&meta), start, count, ..*node };
        Ok(())
    }

    /// The number of an item's set of attributes; `None` when it has none.
    fn xattr_set(&mut self, item: &Item<'_>) -> Result<Option<u32>, BuildError> {
        if item.xattrs.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        xattr::encode(item, &mut bytes, &mut |reason| (self.report)(item.path_bytes(), reason));
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.xattr_index.get(&bytes) {
            return Ok(Some(*known));
        }
        let number = bounded(self.xattr_sets.len(), "sets of extended attributes")?;
        let start = bounded(self.xattr_bytes.len(), "bytes of extended attributes")?;
        self.xattr_sets.push((start, bounded(bytes.len(), "bytes of extended attributes")?));
        self.xattr_bytes.extend_from_slice(&bytes);
        self.xattr_index.insert(bytes, number);
        Ok(Some(number))
    }

    /// Sorts, numbers and packs what was added. Nodes change places within their array: a second one would
    /// double what a large snapshot takes for a moment.
    pub fn finish(mut self) -> Result<Tree, BuildError> {
        self.by_name = HashTable::new();
        self.xattr_index = HashMap::new();
        let (index, strangers) = self.slots.finish(&mut self.pieces)?;
        let children = self.sorted_children();
        let mut order: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        let mut names = Vec::with_capacity(self.names.len());
        order.push(Tree::ROOT);
        let mut number = 0;
        // Breadth first: the children of the directory that is packed go to the end of the queue.
        while let Some(at) = order.get(number).copied() {
            let old = self.nodes[at as usize];
            let node = &mut self.nodes[at as usize];
            node.name = bounded(names.len(), "bytes of names")?;
            names.extend_from_slice(name_of(&self.names, &old));
            if old.meta.is_dir() {
                node.start = order.len() as NodeId;
                let mut directories = 0;
                for child in &children[old.range()] {
                    let child_node = &mut self.nodes[*child as usize];
                    child_node.parent = number as NodeId;
                    directories += u32::from(child_node.meta.is_dir());
                    order.push(*child);
                }
                self.nodes[at as usize].nlink += directories;
            } else if old.meta.kind() == libc::S_IFLNK {
                node.start = bounded(names.len(), "bytes of names")?;
                names.extend_from_slice(self.names.get(old.range()).unwrap_or_default());
            }
            number += 1;
        }
        drop((children, std::mem::take(&mut self.names)));
        let (xattrs, groups) = self.renumbered(&order);
        permute(&mut self.nodes, order);
        names.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.pieces.shrink_to_fit();
        let mut tree = Tree {
            nodes: self.nodes,
            names,
            pieces: self.pieces,
            xattrs,
            xattr_bytes: self.xattr_bytes,
            links: Vec::new(),
            index,
            strangers,
            cut: None,
        };
        join_links(&mut tree, &groups);
        Ok(tree)
    }

    /// All nodes but the root grouped by parent and sorted by name; a directory's begin at its `start` then.
    fn sorted_children(&mut self) -> Vec<NodeId> {
        let mut next = 0u32;
        for node in self.nodes.iter_mut().filter(|n| n.meta.is_dir()) {
            node.start = next;
            // Every node is one directory's child, so this stays below their number.
            next += node.count;
        }
        let mut children = vec![0; next as usize];
        for at in 1..self.nodes.len() {
            let parent = self.nodes[at].parent as usize;
            let start = &mut self.nodes[parent].start;
            children[*start as usize] = at as NodeId;
            *start += 1;
        }
        for node in self.nodes.iter_mut().filter(|n| n.meta.is_dir()) {
            node.start -= node.count;
        }
        let name = |at: &NodeId| name_of(&self.names, &self.nodes[*at as usize]);
        for node in self.nodes.iter().filter(|n| n.meta.is_dir() && n.count > 1) {
            children[node.range()].sort_unstable_by(|a, b| name(a).cmp(name(b)));
        }
        children
    }

    /// The tables of attributes and of hard links by the nodes' numbers in the tree, sorted by them.
    fn renumbered(&mut self, order: &[NodeId]) -> (Vec<Attributes>, Vec<LinkedNode>) {
        let (xattrs, groups) = (std::mem::take(&mut self.xattrs), std::mem::take(&mut self.groups));
        if xattrs.is_empty() && groups.is_empty() {
            return Default::default();
        }
        let mut numbers = vec![0; order.len()];
        for (number, at) in order.iter().enumerate() {
            numbers[*at as usize] = number as NodeId;
        }
        let xattrs = sorted(xattrs, &numbers);
        let place = |(number, set): (NodeId, u32)| {
            let (start, len) = self.xattr_sets.get(set as usize).copied().unwrap_or_default();
            (number, start, len)
        };
        (xattrs.into_iter().map(place).collect(), sorted(groups, &numbers))
    }
}

/// Gives the entries their nodes' new numbers, and sorts them. No node has two.
fn sorted<T>(mut entries: Vec<(NodeId, T)>, numbers: &[NodeId]) -> Vec<(NodeId, T)> {
    entries.iter_mut().for_each(|(at, _)| *at = numbers[*at as usize]);
    entries.sort_unstable_by_key(|(at, _)| *at);
    entries.shrink_to_fit();
    entries
}

/// Names with one device and inode are one file, if they have the same type and content, target or device number. The
/// first in the tree stands for it.
fn join_links(tree: &mut Tree, groups: &[LinkedNode]) {
    let mut first: HashMap<_, NodeId> = HashMap::new();
    let mut links = Vec::new();
    for (number, group) in groups {
        let node = &tree.nodes[*number as usize];
        let kind = node.meta.kind();
        let (pieces, target) = match kind {
            libc::S_IFREG => (tree.pieces.get(node.range()), None),
            libc::S_IFLNK => (None, tree.names.get(node.range())),
            _ => (None, None),
        };
        let stands = *first.entry((*group, kind, node.meta.size, pieces, target)).or_insert(*number);
        if stands != *number {
            tree.nodes[stands as usize].nlink += 1;
            links.push((*number, stands));
        }
    }
    for (name, stands) in &links {
        tree.nodes[*name as usize].nlink = tree.nodes[*stands as usize].nlink;
    }
    links.shrink_to_fit();
    tree.links = links;
}

/// Puts what is at `order[n]` to place `n`, for all `n`. `order` holds each place once.
fn permute(nodes: &mut [TreeNode], mut order: Vec<NodeId>) {
    for first in 0..order.len() {
        let mut at = first;
        loop {
            let from = order[at] as usize;
            order[at] = at as NodeId;
            if from == first {
                break;
            }
            nodes.swap(at, from);
            at = from;
        }
    }
}

impl TreeNode {
    fn new(parent: NodeId, meta: Meta) -> Self {
        TreeNode { meta, flags: 0, name_len: 0, name: 0, parent, nlink: nlink_of(&meta), start: 0, count: 0 }
    }
}

fn nlink_of(meta: &Meta) -> u32 {
    if meta.is_dir() { 2 } else { 1 }
}

fn name_of<'n>(names: &'n [u8], node: &TreeNode) -> &'n [u8] {
    let from = node.name as usize;
    names.get(from..from + usize::from(node.name_len)).unwrap_or_default()
}

fn hash_of(hasher: &DefaultHashBuilder, nodes: &[TreeNode], names: &[u8], at: NodeId) -> u64 {
    let node = &nodes[at as usize];
    hasher.hash_one((node.parent, name_of(names, node)))
}

/// The kernel takes a larger size for a broken file system.
const MAX_SIZE: u64 = i64::MAX as u64;

/// What `stat` says about an item.
pub(crate) fn meta_of(item: &Item<'_>) -> Meta {
    Meta {
        mtime: item.mtime,
        atime: item.atime.unwrap_or(item.mtime),
        ctime: item.ctime.unwrap_or(item.mtime),
        size: item.size.min(MAX_SIZE),
        uid: item.uid,
        gid: item.gid,
        // Twelve bits of permissions and four of type.
        mode: (item.permissions() | item.kind.mode_bits()) as u16,
    }
}
