//! Symlinks, FIFOs, sockets and device nodes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::apply::ObjectOrigin;
use super::handle::{self, Handle, identity, may_be_mine};
use super::place::{Dir, Places};
use super::plan::as_path;
use super::report::Reporter;
use super::site::{Site, state};
use super::tree::NodeKind;
use super::write::{self, EXISTS, NO_DIRECTORY};
use crate::event::Event;

/// Makes all symlinks, FIFOs, sockets and device nodes.
pub(super) fn make(site: &Site<'_>, reporter: &mut Reporter<'_>) {
    let tree = &site.plan.tree;
    let mut places = site.places();
    // Where the first name failed, another stands in for it.
    let mut stand_ins: HashMap<u32, u32> = HashMap::new();
    for node in tree.numbers().filter(|n| tree.node(*n).wanted) {
        let kind = &tree.node(node).kind;
        let is_done = matches!(site.state(node), state::RIGHT | state::REFUSED);
        if is_done || !matches!(kind, NodeKind::Symlink(_) | NodeKind::Special(..)) {
            continue;
        }
        if site.stop.load(Ordering::Acquire) {
            return;
        }
        if !site.has_parent(node) {
            reporter.failed(tree.path(node), NO_DIRECTORY.into());
            continue;
        }
        let first = site.plan.leader(node);
        let written = first.and_then(|first| match site.state(first) {
            state::MADE | state::RIGHT => Some(first),
            _ => stand_ins.get(&first).copied(),
        });
        // Where the file system cannot have one more name of it, it is made by itself.
        if written.is_some_and(|written| write::link(site, &mut places, written, node).is_ok()) {
            site.hardlinks.fetch_add(1, Ordering::Relaxed);
            site.set_state(node, state::MADE);
            continue;
        }
        match make_one(site, &mut places, node) {
            Ok(missing) => {
                if let (Some(first), None) = (first, written) {
                    stand_ins.insert(first, node);
                }
                match kind {
                    NodeKind::Special(..) => reporter.summary.special += 1,
                    _ => reporter.summary.symlinks += 1,
                }
                site.set_state(node, state::MADE);
                if let Some(reason) = missing {
                    reporter.send(Event::RestoreIncomplete { path: as_path(tree.path(node)), reason });
                }
            }
            Err(MakeFailed::Make(error)) if site.is_fatal(error) => return,
            Err(failed) => reporter.failed(tree.path(node), reason(kind, failed, site.state(node))),
        }
    }
}

/// What could not be done.
enum MakeFailed {
    Make(Errno),
    /// Something else has its name.
    Swapped,
    Settle(Errno),
}

fn reason(kind: &NodeKind, failed: MakeFailed, state: u8) -> String {
    match failed {
        MakeFailed::Make(Errno::PERM) if matches!(kind, NodeKind::Special(..)) => {
            "only root may make devices".into()
        }
        MakeFailed::Make(error) => format!("cannot be made: {error}"),
        MakeFailed::Swapped => "was replaced by something else while it was made".into(),
        MakeFailed::Settle(Errno::EXIST) if state != state::REPLACE => EXISTS.into(),
        MakeFailed::Settle(error) if state != state::REPLACE => format!("cannot be given its name: {error}"),
        MakeFailed::Settle(error) => format!("cannot take the place of what is there: {error}"),
    }
}

/// Makes one beside its place, gives it its metadata and then its name. What could not be set is returned.
fn make_one(site: &Site<'_>, places: &mut Places<'_>, node: u32) -> Result<Option<String>, MakeFailed> {
    let dir = places.parent(node).map_err(MakeFailed::Make)?;
    let (temporary, wanted) = (site.temporary(node), site.plan.tree.node(node));
    create(&dir, &temporary, &wanted.kind).map_err(MakeFailed::Make)?;
    let Some(made) = made(&dir, &temporary, &wanted.kind, site.me.0) else { return Err(MakeFailed::Swapped) };
    let missing = site.dress(&Handle::looked_at(&made), &wanted.metadata, ObjectOrigin::Fresh);
    if let (true, Ok(found)) = (site.is_linked(node), rustix::fs::fstat(&made)) {
        site.made.set(node, identity(&found));
    }
    site.settle(node, &dir, &temporary)
        .inspect_err(|_| handle::remove(&dir, &temporary))
        .map_err(MakeFailed::Settle)?;
    Ok(missing)
}

fn create(dir: impl AsFd, name: &[u8], kind: &NodeKind) -> Result<(), Errno> {
    match kind {
        NodeKind::Symlink(target) => rustix::fs::symlinkat(&target[..], dir, name),
        // For its owner alone, until everything else is set.
        NodeKind::Special(bits, rdev) => {
            rustix::fs::mknodat(dir, name, FileType::from_raw_mode(*bits), Mode::from_raw_mode(0o600), *rdev)
        }
        _ => Ok(()),
    }
}

/// What was just made, if that is what has its name: somebody else who may write here can put another thing there, and
/// must not get it back with another owner and mode.
fn made(dir: &Dir, name: &[u8], kind: &NodeKind, uid: u32) -> Option<OwnedFd> {
    let made = handle::look(dir, name).ok()?;
    let found = rustix::fs::fstat(&made).ok()?;
    let file_type = FileType::from_raw_mode(found.st_mode);
    let same = match kind {
        NodeKind::Symlink(target) => {
            let has = rustix::fs::readlinkat(&made, "", Vec::new());
            file_type == FileType::Symlink && has.is_ok_and(|has| has.as_bytes() == &target[..])
        }
        NodeKind::Special(bits, rdev) => {
            let is_device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice);
            file_type == FileType::from_raw_mode(*bits) && (!is_device || found.st_rdev == *rdev)
        }
        _ => false,
    };
    (same && found.st_nlink == 1 && may_be_mine(&made, &found, uid)).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_what_was_made_gets_an_owner_and_a_mode() {
        let folder = tempfile::tempdir().unwrap();
        let dir: Dir = Arc::new(std::fs::File::open(folder.path()).unwrap().into());
        let uid = rustix::process::geteuid().as_raw();
        let (link, fifo) =
            (NodeKind::Symlink(b"target".as_slice().into()), NodeKind::Special(libc::S_IFIFO, 0));
        for (name, kind) in [("link", &link), ("fifo", &fifo)] {
            create(&dir, name.as_bytes(), kind).unwrap();
            assert!(made(&dir, name.as_bytes(), kind, uid).is_some());
            assert!(made(&dir, name.as_bytes(), kind, uid + 1).is_none(), "somebody else's {name}");
        }
        // In their place: a file, a link elsewhere, another kind, and one more name of a file.
        std::fs::write(folder.path().join("file"), b"theirs").unwrap();
        std::fs::hard_link(folder.path().join("fifo"), folder.path().join("again")).unwrap();
        let other = NodeKind::Symlink(b"elsewhere".as_slice().into());
        for (name, kind) in [
            ("file", &link),
            ("file", &fifo),
            ("link", &other),
            ("link", &fifo),
            ("fifo", &link),
            ("again", &fifo),
            ("nothing", &link),
        ] {
            assert!(made(&dir, name.as_bytes(), kind, uid).is_none(), "{name}");
        }
    }
}
