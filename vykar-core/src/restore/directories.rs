//! The destination, its directories and symlinks.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::place::{Dir, Places, readable};
use super::plan::{Plan, as_path};
use super::report::Reporter;
use super::tree::{Kind, ROOT, Tree};
use super::write::{EXISTS, NO_DIRECTORY, Site, state};
use crate::event::Event;

/// Nobody else enters a directory before it has its own mode, and its owner can fill it. One that the snapshot has no
/// item for keeps it: nobody knows whom it let in.
const PRIVATE: u32 = 0o700;

/// The directory that is restored into.
pub(super) struct Destination {
    /// Its handle.
    pub root: Dir,
    /// The snapshot's own metadata for it is to be set.
    adopt: bool,
    /// Directories below it that existed get the snapshot's metadata, too.
    adopt_below: bool,
}

impl Destination {
    /// Makes the destination where it is missing, and opens it.
    pub fn open(dest: &Path, plan: &Plan, adopt_below: bool) -> io::Result<Self> {
        // Only a snapshot restored as a whole has an item for its root.
        let keeps_root = plan.tree.node(ROOT).kind == Kind::Directory;
        let mode = if keeps_root { PRIVATE } else { 0o777 };
        let create = || fs::DirBuilder::new().mode(mode).create(dest);
        let created = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dest.parent().unwrap_or(dest))?;
                create().map(|()| true)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root: OwnedFd = match rustix::fs::open(dest, flags, Mode::empty()) {
            // Entering is enough to restore into it, though not to see that it is empty.
            Err(Errno::ACCESS) => rustix::fs::open(dest, flags | OFlags::PATH, Mode::empty())?,
            other => other?,
        };
        let adopt = keeps_root
            && (created || adopt_below || fs::read_dir(dest).is_ok_and(|mut dir| dir.next().is_none()));
        Ok(Destination { root: Arc::new(root), adopt, adopt_below })
    }
}

/// Makes all directories, parents first, or finds them there.
pub(super) fn make(site: &Site<'_>, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = Places::new(tree, site.root.clone());
    for node in tree.numbers() {
        if !tree.node(node).wanted || !matches!(tree.node(node).kind, Kind::Directory | Kind::Implied) {
            continue;
        }
        if !site.has_parent(node) {
            reporter.failed(tree.path(node), NO_DIRECTORY.into());
            continue;
        }
        match make_one(&mut places, node, tree.name(node)) {
            Ok(made) => {
                reporter.summary.directories += u64::from(made == state::MADE);
                site.set_state(node, made);
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                reporter.failed(tree.path(node), "is there already and is not a directory".into());
            }
            Err(error) if site.is_fatal(error) => return,
            Err(error) => reporter.failed(tree.path(node), format!("cannot make the directory: {error}")),
        }
    }
}

fn make_one(places: &mut Places<'_>, node: u32, name: &[u8]) -> Result<u8, Errno> {
    let parent = places.parent(node)?;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(PRIVATE)) {
        Ok(()) => Ok(state::MADE),
        // Only a real directory is entered.
        Err(Errno::EXIST) => places.dir(node).map(|_| state::EXISTED),
        Err(error) => Err(error),
    }
}

/// Makes all symlinks, FIFOs, sockets and device nodes.
pub(super) fn make_others(site: &Site<'_>, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = Places::new(tree, site.root.clone());
    for node in tree.numbers().filter(|n| tree.node(*n).wanted) {
        let kind = &tree.node(node).kind;
        let is_done = matches!(site.state(node), state::RIGHT | state::REFUSED);
        if is_done || !matches!(kind, Kind::Symlink(_) | Kind::Special(..)) {
            continue;
        }
        if site.stop.load(Ordering::Acquire) {
            return;
        }
        if !site.has_parent(node) {
            reporter.failed(tree.path(node), NO_DIRECTORY.into());
            continue;
        }
        let name = &site.first_name(node)[..];
        match places.parent(node).and_then(|dir| make_other(&dir, name, kind).map(|()| dir)) {
            Ok(dir) => {
                let metadata = &tree.node(node).metadata;
                let missing = match kind {
                    Kind::Special(..) => {
                        reporter.summary.special += 1;
                        site.applier.apply_to_special(&dir, name, metadata)
                    }
                    _ => {
                        reporter.summary.symlinks += 1;
                        site.applier.apply_to_symlink(&dir, name, metadata)
                    }
                };
                incomplete(reporter, tree, node, missing);
                if let Err(e) = site.settle(node, &dir) {
                    let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
                    reporter.failed(tree.path(node), format!("cannot take the place of what is there: {e}"));
                }
            }
            Err(Errno::EXIST) => reporter.failed(tree.path(node), EXISTS.into()),
            Err(error) if site.is_fatal(error) => return,
            Err(Errno::PERM) if matches!(kind, Kind::Special(..)) => {
                reporter.failed(tree.path(node), "only root may make devices".into());
            }
            Err(error) => reporter.failed(tree.path(node), format!("cannot be made: {error}")),
        }
    }
}

fn make_other(dir: impl AsFd, name: &[u8], kind: &Kind) -> Result<(), Errno> {
    match kind {
        Kind::Symlink(target) => rustix::fs::symlinkat(&target[..], dir, name),
        // For its owner alone, until everything else is set.
        Kind::Special(bits, rdev) => {
            rustix::fs::mknodat(dir, name, FileType::from_raw_mode(*bits), Mode::from_raw_mode(0o600), *rdev)
        }
        _ => Ok(()),
    }
}

/// Sets the metadata of the directories made here, deepest first: their times must survive the
/// making of what is in them, and one without permissions must be filled before.
pub(super) fn finish(site: &Site<'_>, destination: &Destination, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = Places::new(tree, site.root.clone());
    let ours = |n: &u32| match site.state(*n) {
        state::MADE => true,
        state::EXISTED => destination.adopt_below && tree.node(*n).kind == Kind::Directory,
        _ => false,
    };
    for node in tree.numbers().rev().filter(ours) {
        let own = match tree.node(node).kind {
            Kind::Directory => true,
            Kind::Implied => false,
            _ => continue,
        };
        let missing = match places.dir(node).and_then(|dir| readable(&dir)) {
            Ok(dir) if own => site.applier.apply(&dir, &tree.node(node).metadata),
            Ok(dir) => {
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(PRIVATE)).err().map(|e| format!("mode: {e}"))
            }
            Err(error) => Some(format!("cannot open it again: {error}")),
        };
        incomplete(reporter, tree, node, missing);
    }
    if destination.adopt {
        let missing = match readable(&destination.root) {
            Ok(dir) => site.applier.apply(&dir, &tree.node(ROOT).metadata),
            Err(error) => Some(error.to_string()),
        };
        incomplete(reporter, tree, ROOT, missing);
    }
}

fn incomplete(reporter: &mut Reporter<'_>, tree: &Tree, node: u32, missing: Option<String>) {
    if let Some(reason) = missing {
        reporter.send(Event::RestoreIncomplete { path: as_path(tree.path(node)), reason });
    }
}
