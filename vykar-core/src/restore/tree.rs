//! The wanted part of a snapshot as a tree in memory: a parent's number is always below its
//! children's, so that going through the nodes in order meets parents first, and backwards last.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::metadata::Metadata;
use crate::format::admission::Misplaced;

/// The destination itself.
pub(super) const ROOT: u32 = 0;

/// A file's content: where its pieces are in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileContent {
    /// First piece.
    pub first: usize,
    /// Number of pieces.
    pub count: usize,
    /// Bytes.
    pub size: u64,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A directory that only the paths below it tell of.
    Implied,
    /// A directory.
    Directory,
    /// A file to be written.
    File(FileContent),
    /// Another name of the file `leader`.
    Link {
        /// The node that is written.
        leader: u32,
        /// Its content, should linking fail.
        content: FileContent,
    },
    /// A symlink and its target.
    Symlink(Box<[u8]>),
    /// A FIFO, a socket or a device node: type bits of `st_mode`, and the device's number.
    Special(u32, u64),
    /// Something that cannot be restored and has been reported.
    Failed,
}

/// A name in the tree.
#[derive(Debug)]
pub(super) struct PlanNode {
    /// The directory it is in; the root is its own.
    pub parent: u32,
    /// What it is.
    pub kind: NodeKind,
    /// Its owner, mode, times and attributes.
    pub metadata: Metadata,
    /// To be restored: selected, or above something selected.
    pub wanted: bool,
    name_at: usize,
    name_len: u16,
}

/// Why a path has no place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// It lies below a file or symlink of the same snapshot.
    #[error("{}", Misplaced::BelowFile)]
    BelowFile,
    /// More names than can be numbered.
    #[error("too many names")]
    TooMany,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct PlanTree {
    nodes: Vec<PlanNode>,
    names: Vec<u8>,
    children: HashTable<u32>,
    hasher: RandomState,
    /// The directories met last: most items are in, or are, one of them.
    recent: [(Vec<u8>, u32); 2],
}

impl PlanTree {
    pub fn new() -> Self {
        let root = PlanNode {
            parent: ROOT,
            kind: NodeKind::Implied,
            metadata: Metadata::default(),
            wanted: true,
            name_at: 0,
            name_len: 0,
        };
        PlanTree {
            nodes: vec![root],
            names: Vec::new(),
            children: HashTable::new(),
            hasher: RandomState::new(),
            recent: [(Vec::new(), ROOT), (Vec::new(), ROOT)],
        }
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The numbers of all nodes but the root, parents first.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        1..self.nodes.len() as u32 // TooMany keeps this below u32::MAX
    }

    pub fn node(&self, number: u32) -> &PlanNode {
        &self.nodes[number as usize]
    }

    pub fn node_mut(&mut self, number: u32) -> &mut PlanNode {
        &mut self.nodes[number as usize]
    }

    /// A node's name in its directory.
    pub fn name(&self, number: u32) -> &[u8] {
        let node = self.node(number);
        &self.names[node.name_at..node.name_at + usize::from(node.name_len)]
    }

    /// A node's path inside the snapshot.
    pub fn path(&self, number: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = number;
        while at != ROOT {
            names.push(self.name(at));
            at = self.node(at).parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Finds or makes the node of a plain relative path, and the directories above it. The flag is
    /// true when the node is new.
    pub fn insert(&mut self, path: &[u8]) -> Result<(u32, bool), NoPlace> {
        let (parent_path, name) = match path.iter().rposition(|c| *c == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let parent = self.directory(parent_path)?;
        self.child(parent, name)
    }

    fn directory(&mut self, path: &[u8]) -> Result<u32, NoPlace> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        if let Some((_, number)) = self.recent.iter().find(|(recent, _)| recent == path) {
            return self.require_directory(*number);
        }
        // Going down: most often one step from a directory met just now.
        let above = self.recent.iter().filter(|(recent, _)| is_above(recent, path));
        let (start, mut at) = match above.max_by_key(|(recent, _)| recent.len()) {
            Some((recent, number)) => (recent.len() + 1, *number),
            None => (0, ROOT),
        };
        for name in path[start..].split(|c| *c == b'/') {
            self.require_directory(at)?;
            at = self.child(at, name)?.0;
        }
        self.recent.swap(0, 1);
        self.recent[0].0.clear();
        self.recent[0].0.extend_from_slice(path);
        self.recent[0].1 = at;
        self.require_directory(at)
    }

    fn require_directory(&self, number: u32) -> Result<u32, NoPlace> {
        match self.node(number).kind {
            NodeKind::Implied | NodeKind::Directory => Ok(number),
            _ => Err(NoPlace::BelowFile),
        }
    }

    /// The entry of this name in a directory.
    pub fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        let same = |n: &u32| self.node(*n).parent == parent && self.name(*n) == name;
        self.children.find(hash, same).copied()
    }

    fn child(&mut self, parent: u32, name: &[u8]) -> Result<(u32, bool), NoPlace> {
        if let Some(found) = self.find(parent, name) {
            return Ok((found, false));
        }
        let hash = self.hasher.hash_one((parent, name));
        let name_len = u16::try_from(name.len()).map_err(|_| NoPlace::TooMany)?;
        let number =
            u32::try_from(self.nodes.len()).ok().filter(|n| *n < u32::MAX).ok_or(NoPlace::TooMany)?;
        let name_at = self.names.len();
        self.names.extend_from_slice(name);
        self.nodes.push(PlanNode {
            parent,
            kind: NodeKind::Implied,
            metadata: Metadata::default(),
            wanted: false,
            name_at,
            name_len,
        });
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.children.insert_unique(hash, number, |n| {
            let node = &nodes[*n as usize];
            let name = &names[node.name_at..node.name_at + usize::from(node.name_len)];
            hasher.hash_one((node.parent, name))
        });
        Ok((number, true))
    }

    /// Marks every directory above a wanted node as wanted.
    pub fn want_parents(&mut self) {
        for number in self.numbers().rev() {
            let PlanNode { parent, wanted, .. } = *self.node(number);
            if wanted {
                self.node_mut(parent).wanted = true;
            }
        }
    }
}

fn is_above(directory: &[u8], path: &[u8]) -> bool {
    !directory.is_empty() && path.starts_with(directory) && path.get(directory.len()) == Some(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_numbered_below_their_children() {
        let mut tree = PlanTree::new();
        for path in ["a/b/c", "a", "z/y", "a/b", "a/bb/d", "z", "q", "a/b/c/d/e/f"] {
            tree.insert(path.as_bytes()).unwrap();
        }
        for number in tree.numbers() {
            assert!(tree.node(number).parent < number);
        }
        let (number, new) = tree.insert(b"a/bb/d").unwrap();
        assert!(!new && tree.path(number) == b"a/bb/d");
        assert_eq!(tree.len(), 1 + 11);
    }

    #[test]
    fn nothing_lies_below_what_is_not_a_directory() {
        let mut tree = PlanTree::new();
        let (number, new) = tree.insert(b"f").unwrap();
        assert!(new);
        tree.node_mut(number).kind = NodeKind::Symlink(b"/etc".as_slice().into());
        assert_eq!(tree.insert(b"f/passwd"), Err(NoPlace::BelowFile));
        assert_eq!(tree.insert(b"f/g/h"), Err(NoPlace::BelowFile));
        // Also when the directory was met as one before.
        tree.insert(b"d/x").unwrap();
        let (number, _) = tree.insert(b"d").unwrap();
        tree.node_mut(number).kind = NodeKind::Failed;
        assert_eq!(tree.insert(b"d/y"), Err(NoPlace::BelowFile));
    }
}
