//! From items in any order to a [`Tree`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use vykar_core::format::{Item, ItemType};

use super::{MAX_NODES, Meta, NAME_MAX, Node, NodeId, Piece, Tree};
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

/// What an item breaks that only shows beside others.
const BELOW_A_FILE: &str = "lies below something that is not a directory";
const HAS_CHILDREN: &str = "a second item for a directory that has contents, and not a directory itself";
const LONG_NAME: &str = "a name is longer than 255 bytes";

/// A node while the tree grows. `node.parent` is a draft's number, and `node.count` of a directory
/// how many children it has so far.
struct Draft {
    node: Node,
    /// Number in `Builder::groups` plus one; zero for none.
    group: u32,
    /// Number in `Builder::xattr_sets` plus one; zero for none.
    xattrs: u32,
}

/// Called with the path of an item that is left out and the reason.
pub type Report<'r> = &'r mut dyn FnMut(&[u8], &str);

/// Collects items and makes the tree.
pub struct Builder<'r> {
    drafts: Vec<Draft>,
    names: Vec<u8>,
    pieces: Vec<Piece>,
    /// All drafts by parent and name.
    index: HashTable<NodeId>,
    hasher: RandomState,
    /// The directory of the last item, and where each of its components ends and which draft it is.
    /// A walk keeps siblings together, so this finds nearly every parent.
    dir: Vec<u8>,
    dir_parts: Vec<(usize, NodeId)>,
    groups: Vec<(u64, u64)>,
    /// Many files have the same attributes, so equal sets are kept once.
    xattr_sets: Vec<(u32, u32)>,
    xattr_bytes: Vec<u8>,
    xattr_index: HashMap<Vec<u8>, u32>,
    /// For directories without an item.
    made_up: Meta,
    report: Report<'r>,
}

fn bounded(n: usize, what: &'static str) -> Result<u32, BuildError> {
    u32::try_from(n).map_err(|_| BuildError { what, max: u32::MAX.into() })
}

impl<'r> Builder<'r> {
    /// A tree of the root alone. Directories that have no item become `made_up`.
    pub fn new(root: Meta, made_up: Meta, report: Report<'r>) -> Self {
        let mut builder = Builder {
            drafts: Vec::new(),
            names: Vec::new(),
            pieces: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            dir: Vec::new(),
            dir_parts: Vec::new(),
            groups: Vec::new(),
            xattr_sets: Vec::new(),
            xattr_bytes: Vec::new(),
            xattr_index: HashMap::new(),
            made_up,
            report,
        };
        builder.drafts.push(Draft::new(Tree::ROOT, root));
        builder
    }

    /// Adds an item that follows the format's rules.
    ///
    /// The last of several items for a path counts, unless it would turn a directory with contents
    /// into something else. That one, and an item below a path that is no directory, is reported and
    /// left out.
    pub fn add(&mut self, item: &Item<'_>) -> Result<(), BuildError> {
        let path = item.path_bytes();
        if path.len() > NAME_MAX && path.split(|c| *c == b'/').any(|part| part.len() > NAME_MAX) {
            (self.report)(path, LONG_NAME);
            return Ok(());
        }
        let (dir, name) = match path.iter().rposition(|c| *c == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let Some(parent) = self.directory(dir)? else {
            (self.report)(path, BELOW_A_FILE);
            return Ok(());
        };
        let Some(at) = self.find(parent, name) else {
            let at = self.insert(parent, name)?;
            return self.fill(at, item);
        };
        let old = &self.drafts[at as usize].node;
        if old.meta.is_dir() && item.kind != ItemType::Directory {
            if old.count > 0 {
                (self.report)(path, HAS_CHILDREN);
                return Ok(());
            }
            // It may be the remembered directory.
            self.dir.clear();
            self.dir_parts.clear();
        }
        self.fill(at, item)
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
                at = match self.find(at, name) {
                    Some(found) if self.drafts[found as usize].node.meta.is_dir() => found,
                    Some(_) => return Ok(None),
                    None => self.insert(at, name)?,
                };
                let end = from + len;
                self.dir_parts.push((end, at));
                self.dir.clear();
                self.dir.extend_from_slice(&dir[..end]);
                from = end + 1;
            }
        }
        Ok(Some(self.dir_parts.last().map_or(Tree::ROOT, |(_, node)| *node)))
    }

    fn find(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hasher.hash_one((parent, name));
        let same = |at: &NodeId| {
            let node = &self.drafts[*at as usize].node;
            node.parent == parent && name_of(&self.names, node) == name
        };
        self.index.find(hash, same).copied()
    }

    /// Adds a made-up directory.
    fn insert(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, BuildError> {
        let at = bounded(self.drafts.len(), "files")?;
        if at >= MAX_NODES {
            return Err(BuildError { what: "files", max: MAX_NODES.into() });
        }
        let mut draft = Draft::new(parent, self.made_up);
        draft.node.name = bounded(self.names.len(), "bytes of names")?;
        // add() looked at its length; a longer one would only be cut.
        draft.node.name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.names.extend_from_slice(name);
        self.drafts.push(draft);
        self.drafts[parent as usize].node.count += 1;
        let hash = self.hasher.hash_one((parent, name));
        let (drafts, names, hasher) = (&self.drafts, &self.names, &self.hasher);
        self.index.insert_unique(hash, at, |at| {
            let node = &drafts[*at as usize].node;
            hasher.hash_one((node.parent, name_of(names, node)))
        });
        Ok(at)
    }

    fn fill(&mut self, at: NodeId, item: &Item<'_>) -> Result<(), BuildError> {
        let mut meta = meta_of(item);
        let (start, count);
        match item.kind {
            ItemType::Directory => {
                let old = &self.drafts[at as usize].node;
                (start, count) = (0, if old.meta.is_dir() { old.count } else { 0 });
            }
            ItemType::RegularFile => {
                start = bounded(self.pieces.len(), "chunks")?;
                let mut end = 0u64;
                for chunk in &item.chunks {
                    end = end.saturating_add(chunk.size.into());
                    self.pieces.push(Piece { id: chunk.id, end });
                }
                count = bounded(item.chunks.len(), "chunks")?;
                meta.size = end.min(MAX_SIZE);
            }
            ItemType::Symlink => {
                let target = item.target_bytes().unwrap_or_default();
                start = bounded(self.names.len(), "bytes of names")?;
                count = bounded(target.len(), "bytes of names")?;
                self.names.extend_from_slice(target);
                meta.size = count.into();
            }
        }
        let group = match item.hardlink {
            Some(key) => {
                self.groups.push(key);
                bounded(self.groups.len(), "hard links")?
            }
            None => 0,
        };
        let xattrs = self.xattr_set(item)?;
        let draft = &mut self.drafts[at as usize];
        (draft.group, draft.xattrs) = (group, xattrs);
        draft.node = Node { meta, nlink: nlink_of(&meta), start, count, ..draft.node };
        Ok(())
    }

    fn xattr_set(&mut self, item: &Item<'_>) -> Result<u32, BuildError> {
        if item.xattrs.is_none() {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        xattr::encode(item, &mut bytes, &mut |reason| (self.report)(item.path_bytes(), reason));
        if bytes.is_empty() {
            return Ok(0);
        }
        if let Some(known) = self.xattr_index.get(&bytes) {
            return Ok(*known);
        }
        let start = bounded(self.xattr_bytes.len(), "bytes of extended attributes")?;
        self.xattr_sets.push((start, bounded(bytes.len(), "bytes of extended attributes")?));
        self.xattr_bytes.extend_from_slice(&bytes);
        let number = bounded(self.xattr_sets.len(), "sets of extended attributes")?;
        self.xattr_index.insert(bytes, number);
        Ok(number)
    }

    /// Sorts, numbers and packs what was added.
    pub fn finish(mut self) -> Result<Tree, BuildError> {
        drop((std::mem::take(&mut self.index), std::mem::take(&mut self.xattr_index)));
        let children = self.sorted_children();
        let mut order: Vec<NodeId> = Vec::with_capacity(self.drafts.len());
        let mut nodes: Vec<Node> = Vec::with_capacity(self.drafts.len());
        let mut names = Vec::with_capacity(self.names.len());
        order.push(Tree::ROOT);
        // Breadth first: the children of the directory that is packed go to the end of the queue.
        while let Some(at) = order.get(nodes.len()).copied() {
            let mut node = self.drafts[at as usize].node;
            let number = nodes.len() as NodeId;
            let name = name_of(&self.names, &node);
            node.name = bounded(names.len(), "bytes of names")?;
            names.extend_from_slice(name);
            if node.meta.is_dir() {
                let from = node.start as usize;
                node.start = order.len() as NodeId;
                for child in &children[from..from + node.count as usize] {
                    let draft = &mut self.drafts[*child as usize];
                    draft.node.parent = number;
                    node.nlink += u32::from(draft.node.meta.is_dir());
                    order.push(*child);
                }
            } else if node.meta.kind() == libc::S_IFLNK {
                let target = node.range();
                node.start = bounded(names.len(), "bytes of names")?;
                names.extend_from_slice(self.names.get(target).unwrap_or_default());
            }
            node.has_xattrs = self.drafts[at as usize].xattrs > 0;
            nodes.push(node);
        }
        self.pieces.shrink_to_fit();
        let mut tree = Tree {
            nodes,
            names,
            pieces: std::mem::take(&mut self.pieces),
            xattrs: self.xattr_table(&order),
            xattr_bytes: std::mem::take(&mut self.xattr_bytes),
            links: Vec::new(),
        };
        tree.names.shrink_to_fit();
        self.join_links(&mut tree, &order);
        Ok(tree)
    }

    /// All drafts but the root grouped by parent and sorted by name; a directory's begin at its
    /// `start` then.
    fn sorted_children(&mut self) -> Vec<NodeId> {
        let mut next = 0u32;
        for draft in self.drafts.iter_mut().filter(|d| d.node.meta.is_dir()) {
            draft.node.start = next;
            // Every draft is one directory's child, so this stays below their number.
            next += draft.node.count;
        }
        let mut children = vec![0; next as usize];
        let mut filled: Vec<u32> = vec![0; self.drafts.len()];
        for at in 1..self.drafts.len() {
            let parent = self.drafts[at].node.parent as usize;
            let place = self.drafts[parent].node.start + filled[parent];
            children[place as usize] = at as NodeId;
            filled[parent] += 1;
        }
        let name = |at: &NodeId| name_of(&self.names, &self.drafts[*at as usize].node);
        for draft in self.drafts.iter().filter(|d| d.node.meta.is_dir() && d.node.count > 1) {
            children[draft.node.range()].sort_unstable_by(|a, b| name(a).cmp(name(b)));
        }
        children
    }

    fn xattr_table(&self, order: &[NodeId]) -> Vec<(NodeId, u32, u32)> {
        let mut table = Vec::new();
        for (number, at) in order.iter().enumerate() {
            let set = self.drafts[*at as usize].xattrs as usize;
            if let Some((start, len)) = set.checked_sub(1).and_then(|set| self.xattr_sets.get(set)) {
                table.push((number as NodeId, *start, *len));
            }
        }
        table.shrink_to_fit();
        table
    }

    /// Names with one device and inode are one file, if their contents are the same. The first in the
    /// tree stands for it.
    fn join_links(&self, tree: &mut Tree, order: &[NodeId]) {
        let mut first: HashMap<((u64, u64), &[Piece]), NodeId> = HashMap::new();
        let mut links = Vec::new();
        for (number, at) in order.iter().enumerate() {
            let draft = &self.drafts[*at as usize];
            let Some(group) = (draft.group as usize).checked_sub(1) else { continue };
            let pieces = tree.pieces.get(draft.node.range()).unwrap_or_default();
            let number = number as NodeId;
            let stands = *first.entry((self.groups[group], pieces)).or_insert(number);
            if stands != number {
                tree.nodes[stands as usize].nlink += 1;
                links.push((number, stands));
            }
        }
        for (name, stands) in &links {
            tree.nodes[*name as usize].nlink = tree.nodes[*stands as usize].nlink;
        }
        links.shrink_to_fit();
        tree.links = links;
    }
}

impl Draft {
    fn new(parent: NodeId, meta: Meta) -> Self {
        let nlink = nlink_of(&meta);
        let node = Node { meta, has_xattrs: false, name_len: 0, name: 0, parent, nlink, start: 0, count: 0 };
        Draft { node, group: 0, xattrs: 0 }
    }
}

fn nlink_of(meta: &Meta) -> u32 {
    if meta.is_dir() { 2 } else { 1 }
}

fn name_of<'n>(names: &'n [u8], node: &Node) -> &'n [u8] {
    let from = node.name as usize;
    names.get(from..from + usize::from(node.name_len)).unwrap_or_default()
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
