//! Directories below the destination, by handle.
//!
//! Whatever a snapshot says, nothing outside the destination is reached: directories are opened
//! from the destination's own handle, never through a symlink and never upwards, and everything
//! else is done with a handle and a single name.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::handle::{FileIdentity, identity};
use super::tree::{PlanTree, ROOT};

/// Handles each thread keeps open.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
/// Most components opened in one call; the directory reached is kept, so that going up a very deep
/// tree does not start from the top each time.
const STEP_COMPONENTS: usize = 128;
/// Most bytes of a path given to the system (PATH_MAX is 4096 with the NUL).
const STEP_BYTES: usize = 4000;

/// A directory's handle.
pub(super) type Dir = Arc<OwnedFd>;

/// What was made, by node. Whatever has its name later on must be the same thing.
#[derive(Default)]
pub(super) struct Identities(RwLock<HashMap<u32, FileIdentity>>);

impl Identities {
    pub fn set(&self, node: u32, identity: FileIdentity) {
        self.0.write().insert(node, identity);
    }

    /// True when this is known to be what was made, or found, for the node.
    pub fn is(&self, node: u32, identity: FileIdentity) -> bool {
        self.0.read().get(&node) == Some(&identity)
    }

    /// True when this is what was made for the node, or when it is not known what was.
    pub fn agrees(&self, node: u32, identity: FileIdentity) -> bool {
        self.0.read().get(&node).is_none_or(|known| *known == identity)
    }
}

/// Opens directories of a tree, keeping those used last.
pub(super) struct Places<'t> {
    tree: &'t PlanTree,
    root: Dir,
    made: Option<&'t Identities>,
    kept: LruCache<u32, Dir>,
    openat2: bool,
}

impl<'t> Places<'t> {
    pub fn new(tree: &'t PlanTree, root: Dir) -> Self {
        Places { tree, root, made: None, kept: LruCache::new(KEPT), openat2: true }
    }

    /// Directories that were made must be what has their name now.
    pub fn knowing(mut self, made: &'t Identities) -> Self {
        self.made = Some(made);
        self
    }

    /// Without `openat2`, as on systems that lack it.
    #[cfg(test)]
    pub fn one_by_one(mut self) -> Self {
        self.openat2 = false;
        self
    }

    /// The directory that an entry is in.
    pub fn parent(&mut self, node: u32) -> Result<Dir, Errno> {
        self.dir(self.tree.node(node).parent)
    }

    /// A directory of the tree.
    pub fn dir(&mut self, node: u32) -> Result<Dir, Errno> {
        let mut below = Vec::new();
        let mut at = node;
        let mut dir = loop {
            if at == ROOT {
                break self.root.clone();
            }
            if let Some(dir) = self.kept.get(&at) {
                break dir.clone();
            }
            below.push(at);
            at = self.tree.node(at).parent;
        };
        while let Some((path, reached)) = self.step(&mut below) {
            dir = Arc::new(self.open(&dir, &path)?);
            if let Some(made) = self.made
                && !made.agrees(reached, identity(&rustix::fs::fstat(&dir)?))
            {
                return Err(Errno::STALE);
            }
            self.kept.put(reached, dir.clone());
        }
        Ok(dir)
    }

    /// Takes as many nodes from the end of `below` as one call can open.
    fn step(&self, below: &mut Vec<u32>) -> Option<(Vec<u8>, u32)> {
        let mut reached = below.pop()?;
        let mut path = self.tree.name(reached).to_vec();
        for _ in 1..STEP_COMPONENTS {
            let Some(next) = below.last() else { break };
            let name = self.tree.name(*next);
            if path.len() + 1 + name.len() > STEP_BYTES {
                break;
            }
            path.push(b'/');
            path.extend_from_slice(name);
            reached = *next;
            below.pop();
        }
        Some((path, reached))
    }

    fn open(&mut self, from: &Dir, path: &[u8]) -> Result<OwnedFd, Errno> {
        const HANDLE: OFlags =
            OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        const CONFINED: ResolveFlags =
            ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
        if self.openat2 {
            match rustix::fs::openat2(from, path, HANDLE, Mode::empty(), CONFINED) {
                // Before Linux 5.6, and where a sandbox does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.openat2 = false,
                other => return other,
            }
        }
        let mut dir: Option<OwnedFd> = None;
        for name in path.split(|c| *c == b'/') {
            let at = dir.as_ref().map_or(from.as_fd(), AsFd::as_fd);
            dir = Some(rustix::fs::openat(at, name, HANDLE, Mode::empty())?);
        }
        dir.ok_or(Errno::NOENT)
    }
}

/// A directory's handle with which attributes can be set.
pub(super) fn readable(dir: &Dir) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_are_never_passed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join("x/y")).unwrap();
        let dest = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dest.path().join("real/x/y")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dest.path().join("out")).unwrap();
        std::os::unix::fs::symlink("real", dest.path().join("in")).unwrap();
        let mut tree = PlanTree::new();
        let nodes: Vec<u32> = ["real/x/y", "out/x/y", "in/x/y", "out", "in"]
            .map(|p| tree.insert(p.as_bytes()).unwrap().0)
            .into();
        let root: Dir = Arc::new(std::fs::File::open(dest.path()).unwrap().into());
        for confined in [true, false] {
            let mut places = Places::new(&tree, root.clone());
            if !confined {
                places = places.one_by_one();
            }
            assert!(places.dir(nodes[0]).is_ok());
            for node in &nodes[1..] {
                assert!(matches!(places.dir(*node), Err(Errno::LOOP | Errno::NOTDIR)));
            }
        }
    }

    #[test]
    fn a_directory_in_the_place_of_one_that_was_made_is_not_entered() {
        let dest = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dest.path().join("d/e")).unwrap();
        let mut tree = PlanTree::new();
        let e = tree.insert(b"d/e").unwrap().0;
        let root: Dir = Arc::new(std::fs::File::open(dest.path()).unwrap().into());
        let made = Identities::default();
        let dir = Places::new(&tree, root.clone()).dir(e).unwrap();
        made.set(e, identity(&rustix::fs::fstat(&dir).unwrap()));
        assert!(Places::new(&tree, root.clone()).knowing(&made).dir(e).is_ok());
        std::fs::rename(dest.path().join("d/e"), dest.path().join("away")).unwrap();
        std::fs::create_dir(dest.path().join("d/e")).unwrap();
        assert!(matches!(Places::new(&tree, root).knowing(&made).dir(e), Err(Errno::STALE)));
    }
}
