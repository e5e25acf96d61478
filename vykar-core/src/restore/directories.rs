//! The destination and its directories.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::apply::ObjectOrigin;
use super::clock;
use super::existing::Overwrite;
use super::handle::{Handle, identity, may_be_mine};
use super::metadata::Metadata;
use super::place::{Dir, Places, readable};
use super::plan::{RestorePlan, as_path};
use super::report::Reporter;
use super::settle;
use super::site::{Site, state};
use super::tree::{NodeKind, PlanTree, ROOT};
use super::write::NO_DIRECTORY;
use crate::event::Event;

/// Of a directory until everything is in it: nobody else enters it before it has its own mode, and its owner can fill it.
/// The sticky bit, which on such a directory means nothing, says to a later restore that it was not finished.
const UNFINISHED: u32 = 0o1700;
/// Of directories that the snapshot has no item for: nobody knows whom they let in.
const PRIVATE: u32 = 0o700;
/// What the owner of a directory needs to fill it.
const FILL: u32 = 0o700;

pub(super) const NO_DIRECTORY_THERE: &str = "is there already and is not a directory";
pub(super) const IS_OWN_PLACE: &str =
    "is the repository or its local cache, and nothing is restored into those";

/// True for a directory that a restore of this user made and did not finish.
fn is_unfinished(found: &Stat, uid: u32) -> bool {
    // The set-group-id bit comes from the directory above.
    found.st_uid == uid && found.st_mode & 0o7777 & !libc::S_ISGID == UNFINISHED
}

/// The directory that is restored into.
pub(super) struct Destination {
    /// Its handle.
    pub root: Dir,
    /// Made, resumed, or there before.
    pub state: u8,
}

impl Destination {
    /// Makes the destination where it is missing, and opens it.
    pub fn open(dest: &Path, plan: &RestorePlan) -> io::Result<Self> {
        // Only a snapshot restored as a whole has an item for its root.
        let keeps_root = plan.tree.node(ROOT).kind == NodeKind::Directory;
        let mode = if keeps_root { UNFINISHED } else { 0o777 };
        let create = || fs::DirBuilder::new().mode(mode).create(dest);
        let created = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dest.parent().unwrap_or(dest))?;
                create().map(|()| true)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }?;
        let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if created {
            flags |= OFlags::NOFOLLOW;
        }
        let root: OwnedFd = match rustix::fs::open(dest, flags, Mode::empty()) {
            // Entering is enough to restore into it.
            Err(Errno::ACCESS) => rustix::fs::open(dest, flags | OFlags::PATH, Mode::empty())?,
            other => other?,
        };
        let found = rustix::fs::fstat(&root)?;
        let me = rustix::process::geteuid().as_raw();
        if created && !may_be_mine(&root, &found, me) {
            return Err(Errno::STALE.into());
        }
        let state = match created {
            true => state::MADE,
            false if keeps_root && is_unfinished(&found, me) => state::RESUMED,
            false => state::EXISTED,
        };
        Ok(Destination { root: Arc::new(root), state })
    }
}

/// What directories that were there are to have again at the end.
#[derive(Default)]
pub(super) struct Before {
    times: HashMap<u32, Timestamps>,
    /// Of those that were made writable.
    modes: HashMap<u32, u32>,
    /// In which leftovers were removed.
    cleared: HashSet<u32>,
}

/// Makes all directories, parents first, or finds them there.
pub(super) fn make(site: &Site<'_>, reporter: &mut Reporter<'_>) -> Before {
    let tree = &site.plan.tree;
    let mut before = Before::default();
    let mut places = site.places();
    if site.is_old(ROOT)
        && let Ok(found) = rustix::fs::fstat(&site.root)
    {
        enter(site, ROOT, &site.root, &found, &mut before);
    }
    for node in tree.numbers() {
        if !tree.node(node).wanted || !matches!(tree.node(node).kind, NodeKind::Directory | NodeKind::Implied)
        {
            continue;
        }
        if !site.has_parent(node) {
            reporter.failed(tree.path(node), NO_DIRECTORY.into());
            continue;
        }
        match make_one(site, &mut places, node, &mut before) {
            Ok(made) => {
                reporter.summary.directories += u64::from(made == state::MADE);
                site.set_state(node, made);
            }
            Err(DirectoryFailed::InTheWay) => {
                reporter.failed(tree.path(node), NO_DIRECTORY_THERE.into());
            }
            Err(DirectoryFailed::OwnPlace) => {
                reporter.failed(tree.path(node), IS_OWN_PLACE.into());
            }
            Err(DirectoryFailed::Error(error)) if site.is_fatal(error) => return before,
            Err(DirectoryFailed::Error(error)) => {
                reporter.failed(tree.path(node), format!("cannot make the directory: {error}"));
            }
        }
    }
    before
}

/// Why a directory is not there.
enum DirectoryFailed {
    /// Something else is, and stays.
    InTheWay,
    /// It is this program's own.
    OwnPlace,
    Error(Errno),
}

impl From<Errno> for DirectoryFailed {
    fn from(error: Errno) -> Self {
        DirectoryFailed::Error(error)
    }
}

fn make_one(
    site: &Site<'_>,
    places: &mut Places<'_>,
    node: u32,
    before: &mut Before,
) -> Result<u8, DirectoryFailed> {
    let (parent, name) = (places.parent(node)?, site.plan.tree.name(node));
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(UNFINISHED)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                // Only a real directory is entered.
                let dir = places.dir(node)?;
                return entered(site, node, &dir, before);
            }
            if !replaces(site, node, &found) {
                return Err(DirectoryFailed::InTheWay);
            }
            replace_by_directory(site, node, &parent)?;
        }
        Err(error) => return Err(error.into()),
    }
    let dir = places.dir(node)?;
    let found = rustix::fs::fstat(&dir)?;
    if !may_be_mine(&dir, &found, site.me.0) {
        return Err(Errno::STALE.into());
    }
    site.made.set(node, identity(&found));
    Ok(state::MADE)
}

/// True when a directory takes the place of what was found there.
pub(super) fn replaces(site: &Site<'_>, node: u32, found: &Stat) -> bool {
    let wanted = site.plan.tree.node(node);
    match site.overwrite {
        Overwrite::Always | Overwrite::IfChanged => true,
        Overwrite::IfNewer => {
            wanted.kind == NodeKind::Directory && wanted.metadata.mtime > clock::mtime(found)
        }
        Overwrite::Never => false,
    }
}

fn replace_by_directory(site: &Site<'_>, node: u32, parent: &Dir) -> Result<(), Errno> {
    let (temporary, name) = (site.temporary(node), site.plan.tree.name(node));
    rustix::fs::renameat(parent, name, parent, &temporary[..])?;
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(UNFINISHED)) {
        Ok(()) => rustix::fs::unlinkat(parent, &temporary[..], AtFlags::empty()),
        Err(error) => {
            let _ = settle::take_free(parent, &temporary, name);
            Err(error)
        }
    }
}

fn entered(site: &Site<'_>, node: u32, dir: &Dir, before: &mut Before) -> Result<u8, DirectoryFailed> {
    let found = rustix::fs::fstat(dir)?;
    if site.own_places.contains(&identity(&found)) {
        return Err(DirectoryFailed::OwnPlace);
    }
    enter(site, node, dir, &found, before);
    match is_unfinished(&found, site.me.0) {
        true => {
            site.made.set(node, identity(&found));
            Ok(state::RESUMED)
        }
        false => Ok(state::EXISTED),
    }
}

/// Notes what a directory that was there is like, makes it writable for the moment, and removes leftovers.
fn enter(site: &Site<'_>, node: u32, dir: &Dir, found: &Stat, before: &mut Before) {
    let mode = found.st_mode & 0o7777;
    let is_mine = found.st_uid == site.me.0 && site.me.0 != 0;
    if is_mine && mode & FILL != FILL && Handle::looked_at(dir).set_mode(mode | FILL).is_ok() {
        before.modes.insert(node, mode);
    }
    before.times.insert(node, times(found));
    if settle::remove_leftovers(dir, node, &site.plan.tree, site.me.0) {
        before.cleared.insert(node);
    }
}

#[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
fn times(found: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: found.st_atime as _, tv_nsec: found.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: found.st_mtime as _, tv_nsec: found.st_mtime_nsec as _ },
    }
}

/// Finishes the directories, deepest first: their times must survive the making of what is in them, and one without
/// permissions must be filled before. Those made here or by a restore that did not end get the snapshot's metadata, the
/// others what they had before, unless what differs is overwritten. The destination itself keeps what it had.
pub(super) fn finish(site: &Site<'_>, before: &Before, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = site.places();
    let touched = touched(site, before);
    for node in tree.numbers().rev().chain([ROOT]) {
        let own = match tree.node(node).kind {
            NodeKind::Directory => true,
            NodeKind::Implied => false,
            _ => continue,
        };
        let adopts = own && node != ROOT && site.overwrite.adopts_directories();
        let missing = match site.state(node) {
            // Like any other directory that somebody makes.
            state::MADE if node == ROOT && !own => None,
            state::MADE => dress(site, &mut places, node, ObjectOrigin::Fresh),
            state::RESUMED => dress(site, &mut places, node, ObjectOrigin::Found),
            state::EXISTED if adopts => dress(site, &mut places, node, ObjectOrigin::Found),
            // One that is the snapshot's, as an earlier restore made it, gets the snapshot's time again.
            state::EXISTED if touched.contains(&node) && is_as_stored(site, &mut places, node, before) => {
                dress(site, &mut places, node, ObjectOrigin::Found)
            }
            state::EXISTED => {
                put_back(&mut places, node, before, touched.contains(&node));
                None
            }
            _ => None,
        };
        if let Some(reason) = missing {
            reporter.send(Event::RestoreIncomplete { path: as_path(tree.path(node)), reason });
        }
    }
}

/// True for a directory that has the snapshot's owner, mode and attributes.
fn is_as_stored(site: &Site<'_>, places: &mut Places<'_>, node: u32, before: &Before) -> bool {
    let wanted = site.plan.tree.node(node);
    if node == ROOT || wanted.kind != NodeKind::Directory || before.modes.contains_key(&node) {
        return false;
    }
    let dir = places.dir(node).and_then(|dir| readable(&dir));
    dir.is_ok_and(|dir| {
        site.unlike(&Handle::opened(&dir), &wanted.metadata).is_ok_and(|unlike| unlike.is_empty())
    })
}

/// Directories in which something was made, removed or replaced.
fn touched(site: &Site<'_>, before: &Before) -> HashSet<u32> {
    let tree: &PlanTree = &site.plan.tree;
    let mut touched = before.cleared.clone();
    for node in tree.numbers().filter(|n| tree.node(*n).wanted) {
        let parent = tree.node(node).parent;
        let tried = matches!(site.state(node), state::NONE | state::MADE | state::REPLACE);
        if tried && site.state(parent) == state::EXISTED {
            touched.insert(parent);
        }
    }
    touched
}

/// Gives a directory the snapshot's metadata.
fn dress(site: &Site<'_>, places: &mut Places<'_>, node: u32, origin: ObjectOrigin) -> Option<String> {
    let wanted = site.plan.tree.node(node);
    let dir = match places.dir(node).and_then(|dir| readable(&dir)) {
        Ok(dir) => dir,
        Err(error) => return Some(format!("it cannot be opened again: {error}")),
    };
    let handle = Handle::opened(&dir);
    if wanted.kind == NodeKind::Directory {
        return site.dress(&handle, &wanted.metadata, origin);
    }
    let found = match handle.stat() {
        Ok(found) => found,
        Err(error) => return Some(format!("it cannot be looked at: {error}")),
    };
    let plain = Metadata {
        mode: PRIVATE,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: clock::mtime(&found),
        atime: clock::mtime(&found),
        xattrs: Box::default(),
    };
    site.dress(&handle, &plain, origin)
}

/// Gives a directory back what it had. Only its owner may, and nothing else was promised.
fn put_back(places: &mut Places<'_>, node: u32, before: &Before, touched: bool) {
    let Ok(dir) = places.dir(node) else { return };
    let handle = Handle::looked_at(&dir);
    if let Some(times) = before.times.get(&node).filter(|_| touched) {
        let _ = handle.set_times(times);
    }
    if let Some(mode) = before.modes.get(&node) {
        let _ = handle.set_mode(*mode);
    }
}
