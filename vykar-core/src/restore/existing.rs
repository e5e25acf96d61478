//! What is at the destination already: what is right, what is replaced, and what stays in the way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::apply::ObjectOrigin;
use super::clock::mtime;
use super::directories;
use super::handle::{self, Handle, identity};
use super::place::{Dir, Places};
use super::plan::as_path;
use super::report::Reporter;
use super::settle;
use super::site::{Site, state};
use super::tree::NodeKind;
use super::write::EXISTS;
use crate::event::{Event, Restoring};
use crate::id::ChunkId;

/// What becomes of what exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays. What is not as in the snapshot is counted as an error.
    #[default]
    Never,
    /// What has another type, size or modification time is replaced.
    IfChanged,
    /// What is older than in the snapshot is replaced.
    IfNewer,
    /// It is replaced.
    Always,
}

impl Overwrite {
    /// True when directories that exist get their metadata from the snapshot.
    pub(super) fn adopts_directories(self) -> bool {
        matches!(self, Overwrite::IfChanged | Overwrite::Always)
    }
}

const IS_DIRECTORY: &str = "is a directory there, which is not replaced by something else";
const NOT_EMPTY: &str = "is a directory there that is not empty; --delete-conflicting replaces those as well";
const OWN_PLACE: &str = "is the repository or its local cache there, and those are never replaced";

/// Looks at what is there in directories that existed, and decides.
pub(super) fn decide(site: &Site<'_>, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = site.places();
    for node in tree.numbers() {
        let wanted = tree.node(node).wanted && is_entry(&tree.node(node).kind);
        if !wanted || !site.is_old(tree.node(node).parent) {
            continue;
        }
        let Ok(dir) = places.parent(node) else { continue };
        // What else is wrong shows when it is made.
        let Some(found) = Existing::look(&dir, tree.name(node)) else { continue };
        // Another name of what is right must be of the same thing.
        let first = site.plan.leader(node);
        let linked = first.is_none_or(|first| site.made.is(first, identity(&found.stat)));
        match judge(site, node, &dir, &found, linked) {
            verdict @ (ExistingVerdict::Right | ExistingVerdict::Newer) => {
                if matches!(verdict, ExistingVerdict::Right) {
                    compare(site, node, &dir, &found, reporter);
                }
                if site.is_linked(node) {
                    site.made.set(node, identity(&found.stat));
                }
                reporter.summary.unchanged += 1;
                site.set_state(node, state::RIGHT);
            }
            ExistingVerdict::Replace => site.set_state(node, state::REPLACE),
            ExistingVerdict::InTheWay(why) => {
                reporter.failed(tree.path(node), why.into());
                site.set_state(node, state::REFUSED);
            }
        }
    }
}

/// Says what [`decide`] and the rest would do, and does nothing. Without a destination everything is made.
pub(super) fn preview(site: &Site<'_>, dest: Option<&Dir>, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = dest.map(|dest| Places::new(tree, dest.clone()));
    let root = if dest.is_some() { Restoring::Keep } else { Restoring::Make };
    reporter.send(Event::PlannedRestore { path: ".".into(), what: root });
    for node in tree.numbers().filter(|node| tree.node(*node).wanted) {
        let kind = &tree.node(node).kind;
        if *kind == NodeKind::Failed {
            continue;
        }
        let found = places.as_mut().and_then(|places| {
            let dir = places.parent(node).ok()?;
            let found = Existing::look(&dir, tree.name(node))?;
            Some((dir, found))
        });
        let what = match found {
            None => Ok(Restoring::Make),
            Some((_, found)) if !is_entry(kind) => preview_directory(site, node, &found),
            Some((dir, found)) => match judge(site, node, &dir, &found, true) {
                ExistingVerdict::Right | ExistingVerdict::Newer => Ok(Restoring::Keep),
                ExistingVerdict::Replace => Ok(Restoring::Replace),
                ExistingVerdict::InTheWay(why) => Err(why),
            },
        };
        match what {
            Ok(what) => planned(site, node, what, reporter),
            Err(why) => reporter.failed(tree.path(node), why.into()),
        }
    }
}

fn preview_directory(site: &Site<'_>, node: u32, found: &Existing) -> Result<Restoring, &'static str> {
    match found.kind() {
        FileType::Directory if site.own_places.contains(&identity(&found.stat)) => {
            Err(directories::IS_OWN_PLACE)
        }
        FileType::Directory => Ok(Restoring::Keep),
        _ if directories::replaces(site, node, &found.stat) => Ok(Restoring::Replace),
        _ => Err(directories::NO_DIRECTORY_THERE),
    }
}

fn planned(site: &Site<'_>, node: u32, what: Restoring, reporter: &mut Reporter<'_>) {
    let summary = &mut reporter.summary;
    let counter = match (what, &site.plan.tree.node(node).kind) {
        (Restoring::Keep, _) => &mut summary.unchanged,
        (_, NodeKind::Directory | NodeKind::Implied) => &mut summary.directories,
        (_, NodeKind::Symlink(_)) => &mut summary.symlinks,
        (_, NodeKind::Special(..)) => &mut summary.special,
        (_, NodeKind::Link { .. }) => &mut summary.hardlinks,
        (_, NodeKind::File(content)) => {
            summary.bytes = summary.bytes.saturating_add(content.size);
            &mut summary.files
        }
        (_, NodeKind::Failed) => return,
    };
    *counter += 1;
    reporter.send(Event::PlannedRestore { path: as_path(site.plan.tree.path(node)), what });
}

/// Something that is there.
struct Existing {
    /// Looked at, not opened.
    fd: OwnedFd,
    stat: Stat,
}

impl Existing {
    fn look(dir: &Dir, name: &[u8]) -> Option<Self> {
        let fd = handle::look(dir, name).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        Some(Existing { fd, stat })
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

enum ExistingVerdict {
    /// As it should be, but perhaps for owner, mode and attributes.
    Right,
    /// Newer than in the snapshot, where only what is older is replaced.
    Newer,
    Replace,
    InTheWay(&'static str),
}

fn judge(site: &Site<'_>, node: u32, dir: &Dir, found: &Existing, linked: bool) -> ExistingVerdict {
    let wanted = &site.plan.tree.node(node).metadata;
    let same_time = || site.clocks.agree(dir, &found.stat, wanted.mtime);
    let right = || {
        linked
            && same_time()
            && is_right(site, node, found)
            && (!site.verify || has_content(site, node, dir, found))
    };
    if found.kind() == FileType::Directory {
        return judge_directory(site, node, dir, found);
    }
    match site.overwrite {
        Overwrite::Always => ExistingVerdict::Replace,
        _ if right() => ExistingVerdict::Right,
        Overwrite::IfNewer if wanted.mtime > mtime(&found.stat) && !same_time() => ExistingVerdict::Replace,
        Overwrite::IfNewer => ExistingVerdict::Newer,
        Overwrite::IfChanged => ExistingVerdict::Replace,
        Overwrite::Never => ExistingVerdict::InTheWay(EXISTS),
    }
}

/// True when a file is read as it should be, and for anything else.
fn has_content(site: &Site<'_>, node: u32, dir: &Dir, found: &Existing) -> bool {
    found.kind() != FileType::RegularFile
        || open(dir, site.plan.tree.name(node)).is_ok_and(|file| holds(site, node, &file))
}

/// What becomes of a directory where something else is to be.
fn judge_directory(site: &Site<'_>, node: u32, dir: &Dir, found: &Existing) -> ExistingVerdict {
    let is_older = || site.plan.tree.node(node).metadata.mtime > mtime(&found.stat);
    let free = || site.delete_conflicting || settle::is_empty(dir, site.plan.tree.name(node));
    match site.overwrite {
        _ if site.own_places.contains(&identity(&found.stat)) => ExistingVerdict::InTheWay(OWN_PLACE),
        Overwrite::Never => ExistingVerdict::InTheWay(IS_DIRECTORY),
        Overwrite::IfNewer if !is_older() => ExistingVerdict::Newer,
        _ if free() => ExistingVerdict::Replace,
        _ => ExistingVerdict::InTheWay(NOT_EMPTY),
    }
}

/// True for what is made after directories.
fn is_entry(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::File(_) | NodeKind::Link { .. } | NodeKind::Symlink(_) | NodeKind::Special(..) => true,
        NodeKind::Implied | NodeKind::Directory | NodeKind::Failed => false,
    }
}

/// True when what is there has the type, size, target or device that it should, its time being right. A restore sets a
/// file's time before it has its name, so that one which it did not finish is not here.
fn is_right(site: &Site<'_>, node: u32, found: &Existing) -> bool {
    let size = u64::try_from(found.stat.st_size).unwrap_or(0);
    match (&site.plan.tree.node(node).kind, found.kind()) {
        (NodeKind::File(content) | NodeKind::Link { content, .. }, FileType::RegularFile) => {
            content.size == size
        }
        (NodeKind::Symlink(target), FileType::Symlink) => {
            let is = rustix::fs::readlinkat(&found.fd, "", Vec::new());
            is.is_ok_and(|is| is.as_bytes() == &target[..])
        }
        (NodeKind::Special(bits, rdev), _) => {
            found.stat.st_mode & libc::S_IFMT == *bits && found.stat.st_rdev == *rdev
        }
        _ => false,
    }
}

/// Compares owner, permissions and attributes of what is right otherwise, and corrects them or says what differs.
fn compare(site: &Site<'_>, node: u32, dir: &Dir, found: &Existing, reporter: &mut Reporter<'_>) {
    let wanted = &site.plan.tree.node(node).metadata;
    let handle = Handle::looked_at(&found.fd);
    let unlike = match site.unlike(&handle, wanted) {
        Ok(unlike) if unlike.is_empty() => return,
        Ok(unlike) => unlike,
        Err(error) => vec![format!("attributes, which cannot be read ({error})")],
    };
    let path = as_path(site.plan.tree.path(node));
    if !site.overwrite.adopts_directories() {
        let reason = unlike.join(", ");
        return reporter.send(Event::RestoreKept { path, reason });
    }
    let missing = match found.kind() {
        // Attributes of a user's can be set through a handle that is open alone, where the system has no /proc.
        FileType::RegularFile => match open(dir, site.plan.tree.name(node)) {
            Ok(file) if is_same(&file, &found.stat) => {
                site.dress(&Handle::opened(&file), wanted, ObjectOrigin::Found)
            }
            _ => site.dress(&handle, wanted, ObjectOrigin::Found),
        },
        _ => site.dress(&handle, wanted, ObjectOrigin::Found),
    };
    if let Some(reason) = missing {
        reporter.send(Event::RestoreIncomplete { path, reason });
    }
}

fn is_same(file: &OwnedFd, found: &Stat) -> bool {
    rustix::fs::fstat(file).is_ok_and(|file| identity(&file) == identity(found))
}

fn open(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// True when an open file has the content that the snapshot says, read chunk by chunk. Of anything else, true.
pub(super) fn holds(site: &Site<'_>, node: u32, file: &OwnedFd) -> bool {
    let (NodeKind::File(content) | NodeKind::Link { content, .. }) = &site.plan.tree.node(node).kind else {
        return true;
    };
    let hasher = site.source.repository.keys().hasher();
    let mut buffer = Vec::new();
    let mut at = 0;
    for piece in site.plan.pieces(content) {
        buffer.resize(piece.size as usize, 0);
        if !read_exact(file, at, &mut buffer) {
            return false;
        }
        let found: Option<ChunkId> = hasher.chunk_id(&buffer).ok();
        if found != Some(site.source.table.entry(piece.slot as usize).id) {
            return false;
        }
        at += u64::from(piece.size);
    }
    rustix::fs::fstat(file).is_ok_and(|found| u64::try_from(found.st_size) == Ok(at))
}

fn read_exact(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> bool {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => return false,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
