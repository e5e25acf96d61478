//! A folder of one snapshot as the root of the mount.

use parking_lot::RwLock;
use vykar_core::text::first_few;
use vykar_core::{SnapshotId, VykarError};

use crate::errno::FsError;
use crate::tree::{NodeId, Tree};
use crate::view::attr_mapping::Top;
use crate::view::inode::{Inode, View};

/// Most names that a message lists.
const MAX_NAMES: usize = 8;

/// Why a file system cannot be set up. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The repository cannot be read, or what was asked for makes no sense.
    #[error(transparent)]
    Repository(#[from] VykarError),
    /// The snapshot has no such folder.
    #[error("snapshot {snapshot:?}: no folder {path:?}: {found}")]
    NoSuchFolder {
        /// The snapshot's name.
        snapshot: String,
        /// The path that was asked for.
        path: String,
        /// What there is.
        found: String,
    },
    /// Its items cannot be read.
    #[error("snapshot {snapshot:?}: its items cannot be read")]
    Unreadable {
        /// The snapshot's name.
        snapshot: String,
    },
}

/// The folder that the root's inode number stands for.
pub(crate) struct TopFolder {
    id: SnapshotId,
    path: Vec<u8>,
    /// The snapshot's number and the folder's, where it is there: both change when the items read
    /// differently than before.
    at: RwLock<Option<(u32, NodeId)>>,
}

impl TopFolder {
    /// In the snapshot with this number. A folder below its own must be found by [`TopFolder::find`].
    pub(crate) fn new(top: Top, number: u32) -> Self {
        let parts = top.path.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".");
        let path = parts.collect::<Vec<_>>().join(&b'/');
        let at = path.is_empty().then_some((number, Tree::ROOT));
        TopFolder { id: top.snapshot, path, at: RwLock::new(at) }
    }

    /// True when it is known where the folder is.
    pub(crate) fn is_found(&self) -> bool {
        self.at.read().is_some()
    }

    /// Looks for the folder in its snapshot's tree.
    pub(crate) fn find(&self, id: &SnapshotId, number: u32, tree: &Tree) {
        if self.id == *id {
            *self.at.write() = self.follow(tree).ok().map(|node| (number, node));
        }
    }

    fn follow(&self, tree: &Tree) -> Result<NodeId, NodeId> {
        let parts = self.path.split(|c| *c == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(Tree::ROOT, |at, name| {
            let below = tree.lookup(at, name).ok_or(at)?;
            if tree.meta(below).is_some_and(|meta| meta.is_dir()) { Ok(below) } else { Err(below) }
        })
    }

    /// What the root's inode number stands for.
    pub(crate) fn inode(&self) -> Result<Inode, FsError> {
        let (snapshot, node) = self.at.read().ok_or(FsError::Stale)?;
        Ok(Inode::Node { snapshot, view: View::Ids, node })
    }

    /// True when this node is the root.
    pub(crate) fn is(&self, snapshot: u32, node: NodeId) -> bool {
        *self.at.read() == Some((snapshot, node))
    }

    /// What to say about a folder that is not there: which part of its path is, and what is in it.
    pub(crate) fn missing(&self, snapshot: &str, tree: &Tree) -> SetupError {
        let shown = |name: &[u8]| format!("{:?}", String::from_utf8_lossy(name));
        let at = self.follow(tree).unwrap_or_else(|last| last);
        let place = if at == Tree::ROOT { "it".to_owned() } else { shown(&tree.path(at)) };
        let children = tree.children(at);
        let found = if !tree.meta(at).is_some_and(|meta| meta.is_dir()) {
            format!("{place} is not a folder")
        } else if children.is_empty() {
            format!("{place} is empty")
        } else {
            let names = children.map(|node| shown(tree.name(node)));
            format!("{place} has {}", first_few(names, MAX_NAMES, ", "))
        };
        let path = String::from_utf8_lossy(&self.path).into_owned();
        SetupError::NoSuchFolder { snapshot: snapshot.to_owned(), path, found }
    }
}
