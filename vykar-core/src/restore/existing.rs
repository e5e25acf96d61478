//! What is at the destination already: what is right, what is replaced, and what stays in the way.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::metadata::Metadata;
use super::place::{Dir, Places};
use super::plan::as_path;
use super::report::Reporter;
use super::tree::Kind;
use super::write::{EXISTS, Site, state};
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

const NOT_REPLACED: &str = "is a directory there, which is not replaced by something else";

/// Looks at what is there in directories that existed, and decides.
pub(super) fn decide(site: &Site<'_>, overwrite: Overwrite, verify: bool, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = Places::new(tree, site.root.clone());
    // Files that are right, by node: another name of one must be the same file.
    let mut inodes: HashMap<u32, (u64, u64)> = HashMap::new();
    for node in tree.numbers() {
        let wanted = tree.node(node).wanted && is_entry(&tree.node(node).kind);
        if !wanted || site.state(tree.node(node).parent) != state::EXISTED {
            continue;
        }
        let Ok(dir) = places.parent(node) else { continue };
        let found = match rustix::fs::statat(&dir, tree.name(node), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // What else is wrong shows when it is made.
            Err(_) => continue,
        };
        let inode = (found.st_dev, found.st_ino);
        let linked = match tree.node(node).kind {
            Kind::Link { leader, .. } => inodes.get(&leader) == Some(&inode),
            _ => true,
        };
        let same = || {
            linked
                && is_right(site, node, &dir, &found)
                && (!verify || holds(site, node, &dir, tree.name(node)))
        };
        match judge(overwrite, &tree.node(node).metadata, &found, same) {
            Verdict::Right => {
                if overwrite.adopts_directories() {
                    correct(site, node, &dir, &found, reporter);
                }
                inodes.insert(node, inode);
                reporter.summary.unchanged += 1;
                site.set_state(node, state::RIGHT);
            }
            Verdict::Replace => site.set_state(node, state::REPLACE),
            Verdict::InTheWay(why) => {
                reporter.failed(tree.path(node), why.into());
                site.set_state(node, state::REFUSED);
            }
        }
    }
}

/// Says what [`decide`] and the rest would do, and does nothing. Without a destination everything is made.
pub(super) fn preview(
    site: &Site<'_>,
    dest: Option<&Dir>,
    overwrite: Overwrite,
    reporter: &mut Reporter<'_>,
) {
    let tree = &site.plan.tree;
    let mut places = dest.map(|dest| Places::new(tree, dest.clone()));
    for node in tree.numbers().filter(|node| tree.node(*node).wanted) {
        let kind = &tree.node(node).kind;
        let found = places.as_mut().and_then(|places| {
            let dir = places.parent(node).ok()?;
            let found = rustix::fs::statat(&dir, tree.name(node), AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some((dir, found))
        });
        let what = match (&found, is_entry(kind)) {
            (None, _) => Restoring::Make,
            (Some((_, found)), false) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                Restoring::Keep
            }
            (Some(_), false) => {
                reporter.failed(tree.path(node), "is there already and is not a directory".into());
                continue;
            }
            (Some((dir, found)), true) => {
                let same = || is_right(site, node, dir, found);
                match judge(overwrite, &tree.node(node).metadata, found, same) {
                    Verdict::Right => Restoring::Keep,
                    Verdict::Replace => Restoring::Replace,
                    Verdict::InTheWay(why) => {
                        reporter.failed(tree.path(node), why.into());
                        continue;
                    }
                }
            }
        };
        let counter = match (what, kind) {
            (Restoring::Keep, _) => &mut reporter.summary.unchanged,
            (_, Kind::Directory | Kind::Implied) => &mut reporter.summary.directories,
            (_, Kind::Symlink(_)) => &mut reporter.summary.symlinks,
            (_, Kind::Special(..)) => &mut reporter.summary.special,
            (_, Kind::Link { .. }) => &mut reporter.summary.hardlinks,
            (_, Kind::File(content)) => {
                reporter.summary.bytes = reporter.summary.bytes.saturating_add(content.size);
                &mut reporter.summary.files
            }
            (_, Kind::Failed) => continue,
        };
        *counter += 1;
        reporter.send(Event::PlannedRestore { path: as_path(tree.path(node)), what });
    }
}

enum Verdict {
    Right,
    Replace,
    InTheWay(&'static str),
}

fn judge(overwrite: Overwrite, wanted: &Metadata, found: &Stat, right: impl FnOnce() -> bool) -> Verdict {
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Verdict::InTheWay(NOT_REPLACED);
    }
    match overwrite {
        Overwrite::Always => Verdict::Replace,
        Overwrite::IfNewer if wanted.mtime > mtime(found) => Verdict::Replace,
        Overwrite::IfNewer => Verdict::Right,
        _ if right() => Verdict::Right,
        Overwrite::IfChanged => Verdict::Replace,
        Overwrite::Never => Verdict::InTheWay(EXISTS),
    }
}

/// True for what is made after directories.
fn is_entry(kind: &Kind) -> bool {
    match kind {
        Kind::File(_) | Kind::Link { .. } | Kind::Symlink(_) | Kind::Special(..) => true,
        Kind::Implied | Kind::Directory | Kind::Failed => false,
    }
}

#[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
fn mtime(found: &Stat) -> i64 {
    (found.st_mtime as i64).saturating_mul(1_000_000_000).saturating_add(found.st_mtime_nsec as i64)
}

/// True when what is there looks as it should. A restore sets a file's time last, so that one which it did not
/// finish does not.
fn is_right(site: &Site<'_>, node: u32, dir: &Dir, found: &Stat) -> bool {
    let wanted = site.plan.tree.node(node);
    if mtime(found) != wanted.metadata.mtime {
        return false;
    }
    let size = u64::try_from(found.st_size).unwrap_or(0);
    match (&wanted.kind, FileType::from_raw_mode(found.st_mode)) {
        (Kind::File(content) | Kind::Link { content, .. }, FileType::RegularFile) => content.size == size,
        (Kind::Symlink(target), FileType::Symlink) => {
            let found = rustix::fs::readlinkat(dir, site.plan.tree.name(node), Vec::new());
            found.is_ok_and(|found| found.as_bytes() == &target[..])
        }
        (Kind::Special(bits, rdev), _) => found.st_mode & libc::S_IFMT == *bits && found.st_rdev == *rdev,
        _ => false,
    }
}

/// Sets owner and permissions of what is right otherwise.
fn correct(site: &Site<'_>, node: u32, dir: &Dir, found: &Stat, reporter: &mut Reporter<'_>) {
    let wanted = &site.plan.tree.node(node).metadata;
    let same = (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (wanted.uid, wanted.gid, wanted.mode);
    if same || FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return;
    }
    let missing = match open(dir, site.plan.tree.name(node)) {
        Ok(file) => site.applier.apply(&file, wanted),
        Err(e) => Some(format!("cannot be opened: {e}")),
    };
    if let Some(reason) = missing {
        reporter.send(Event::RestoreIncomplete { path: as_path(site.plan.tree.path(node)), reason });
    }
}

fn open(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// True when a file has the content that the snapshot says, read chunk by chunk. Of anything else, true.
pub(super) fn holds(site: &Site<'_>, node: u32, dir: &Dir, name: &[u8]) -> bool {
    let (Kind::File(content) | Kind::Link { content, .. }) = &site.plan.tree.node(node).kind else {
        return true;
    };
    let Ok(file) = open(dir, name) else { return false };
    let hasher = site.source.repository.keys().hasher();
    let mut buffer = Vec::new();
    let mut at = 0;
    for piece in site.plan.pieces(content) {
        buffer.resize(piece.size as usize, 0);
        if !read_exact(&file, at, &mut buffer) {
            return false;
        }
        let found: Option<ChunkId> = hasher.chunk_id(&buffer).ok();
        if found != Some(site.source.table.entry(piece.slot as usize).id) {
            return false;
        }
        at += u64::from(piece.size);
    }
    rustix::fs::fstat(&file).is_ok_and(|found| u64::try_from(found.st_size) == Ok(at))
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
