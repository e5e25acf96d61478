//! How what was made gets its name: whole, and at once.
//!
//! A file has no name until it is complete. Where the file system has no such files, and for what is no file, the name
//! is one that says what it is, in the same directory: what a restore that was killed leaves of them, the next one
//! removes ([`remove_leftovers`]).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use super::handle;
use super::handle::{FileIdentity, identity};
use super::place::{Dir, readable};
use super::tree::PlanTree;

/// How the names of what is not complete begin.
const PREFIX: &str = ".vykar-restore-";
/// Directories within each other that are removed at most.
const MAX_DEPTH: usize = 500;

/// A name for what is not complete yet.
pub(super) fn temporary(nonce: u64, node: u32) -> Vec<u8> {
    format!("{PREFIX}{nonce:016x}-{node}").into_bytes()
}

/// True for names that [`temporary`] makes.
fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX.as_bytes()) else { return false };
    let Some((nonce, rest)) = rest.split_first_chunk::<16>() else { return false };
    let Some((b'-', number)) = rest.split_first() else { return false };
    let is_hex = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    nonce.iter().all(is_hex) && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

/// A file that is being written.
pub(super) struct Fresh {
    pub file: OwnedFd,
    /// Its name until then, where it must have one.
    pub name: Option<Vec<u8>>,
}

impl Fresh {
    /// Makes a file that has no name.
    pub fn unnamed(dir: &Dir, mode: u32, access: OFlags) -> Result<Self, Errno> {
        let flags = access | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(mode))?;
        Ok(Fresh { file, name: None })
    }

    /// Makes a file with a name of its own, for its owner alone. While it is open no other restore takes it for a
    /// leftover.
    pub fn named(dir: &Dir, name: Vec<u8>, access: OFlags) -> Result<Self, Errno> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, &name[..], flags, Mode::from_raw_mode(0o600))?;
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
        Ok(Fresh { file, name: Some(name) })
    }
}

/// Gives a temporary name's thing its own name, unless there is something.
pub(super) fn take_free(dir: &Dir, temporary: &[u8], name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(dir, temporary, dir, name, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag, and then most know links.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    match rustix::fs::linkat(dir, temporary, dir, name, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(dir, temporary, AtFlags::empty()),
        Err(Errno::EXIST) => Err(Errno::EXIST),
        Err(_) => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => rustix::fs::renameat(dir, temporary, dir, name),
        },
    }
}

/// Puts a temporary name's thing in the place of what is there. A directory that is there must be empty, unless
/// `conflicting` says that what is in it goes; what is one of `kept` stays in any case.
pub(super) fn take_over(
    dir: &Dir,
    temporary: &[u8],
    name: &[u8],
    conflicting: bool,
    kept: &[FileIdentity],
) -> Result<(), Errno> {
    let renamed = match rustix::fs::renameat(dir, temporary, dir, name) {
        Err(Errno::ISDIR) => {
            remove_directory(dir, name, conflicting, kept)?;
            take_free(dir, temporary, name)
        }
        other => other,
    };
    renamed?;
    // Two names of one file stay as they are when one is renamed to the other.
    let _ = rustix::fs::unlinkat(dir, temporary, AtFlags::empty());
    Ok(())
}

/// Removes a directory that something else is to take the place of.
fn remove_directory(dir: &Dir, name: &[u8], conflicting: bool, kept: &[FileIdentity]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if conflicting => {
            let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            remove_tree(dir, name, identity(&found).0, kept, MAX_DEPTH)
        }
        other => other,
    }
}

/// Removes a directory of this device and everything in it.
fn remove_tree(
    dir: impl AsFd,
    name: &[u8],
    device: u64,
    kept: &[FileIdentity],
    depth: usize,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    let found = identity(&rustix::fs::fstat(&inside)?);
    if found.0 != device || kept.contains(&found) {
        return Err(Errno::BUSY);
    }
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    for name in names(&inside)? {
        match rustix::fs::unlinkat(&inside, &name[..], AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&inside, &name, device, kept, depth)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// True for a directory with nothing in it.
pub(super) fn is_empty(dir: impl AsFd, name: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty());
    opened.and_then(|dir| names(&dir)).is_ok_and(|names| names.is_empty())
}

fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what a restore that was killed left in a directory: what has a name as [`temporary`] makes them, is
/// `owner`'s and no directory, is not in the snapshot, and is written by nobody. True when there was any.
pub(super) fn remove_leftovers(dir: &Dir, node: u32, tree: &PlanTree, owner: u32) -> bool {
    let Ok(names) = readable(dir).and_then(|dir| names(&dir)) else { return false };
    let mut removed = false;
    let left = names.into_iter().filter(|name| is_temporary(name) && tree.find(node, name).is_none());
    for name in left {
        let Ok(found) = handle::look(dir, &name).and_then(|fd| rustix::fs::fstat(&fd)) else { continue };
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_ours = found.st_uid == owner || owner == 0;
        if is_ours && kind != FileType::Directory && !(kind == FileType::RegularFile && is_locked(dir, &name))
        {
            removed |= rustix::fs::unlinkat(dir, &name[..], AtFlags::empty()).is_ok();
        }
    }
    removed
}

fn is_locked(dir: &Dir, name: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty());
    file.and_then(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_programs_making_are_leftovers() {
        assert!(is_temporary(&temporary(0, 0)) && is_temporary(&temporary(u64::MAX, u32::MAX)));
        for name in [
            ".vykar-restore-",
            ".vykar-restore-0123456789abcdef",
            ".vykar-restore-0123456789abcdef-",
            ".vykar-restore-0123456789abcdef-1.txt",
            ".vykar-restore-0123456789ABCDEF-1",
            ".vykar-restore-0123456789abcde-1",
            "x.vykar-restore-0123456789abcdef-1",
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
    }
}
