//! Giving what is restored its owner, mode, times and extended attributes, and comparing what is there with them.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use rustix::fs::{FileType, Gid, Stat, Uid};
use rustix::io::Errno;

use super::acl;
use super::clock;
use super::handle::Handle;
use super::metadata::Metadata;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
/// Attributes that the system's own rules give every file: they are set where that is possible, and are not compared.
const LABELS: [&str; 5] =
    ["security.selinux", "security.SMACK64", "security.apparmor", "security.ima", "security.evm"];
/// Beginnings of the names of attributes that are a file's own: where a snapshot has none of them, none stays.
const OWN: [&str; 4] = ["user.", "trusted.", "security.capability", "system.posix_acl_"];

/// Whose state is looked at before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectOrigin {
    /// Just made: it has no attributes but those that its folder made it inherit.
    Fresh,
    /// It was there before.
    Found,
}

/// Sets metadata. What could not be set is returned to be named; what fails for every file alike is counted.
#[derive(Debug, Default)]
pub(super) struct Applier {
    /// Entries whose owner could not be set.
    pub owners_denied: AtomicU64,
    /// Labels of the system that could not be set.
    pub labels_denied: AtomicU64,
    /// Entries whose modification time is only kept roughly.
    pub coarse_times: AtomicU64,
}

impl Applier {
    /// Sets everything, and says what could not be set, except for what is counted.
    ///
    /// The owner comes first: changing it clears set-id bits and capabilities. The mode comes last: an access control
    /// list changes it, and what is not finished is known by it.
    pub fn apply(&self, handle: &Handle<'_>, metadata: &Metadata, origin: ObjectOrigin) -> Option<String> {
        let mut missing = Vec::new();
        let found = match handle.stat() {
            Ok(found) => found,
            Err(error) => return Some(format!("it cannot be looked at: {error}")),
        };
        // Most are right from the start, and setting them again writes the inode again.
        let right = (found.st_uid, found.st_gid) == (metadata.uid, metadata.gid);
        let owned = right || self.own(handle, metadata, &mut missing);
        let is_symlink = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
        // Set-id bits would lend the rights of an owner that nobody asked for.
        let mut mode = if owned { metadata.mode } else { metadata.mode & !SET_ID };
        let mut changed = !right || !metadata.xattrs.is_empty();
        if !is_symlink {
            changed |= remove_others(handle, &found, metadata, origin, &mut mode, &mut missing);
        }
        self.set_attributes(handle, metadata, &mut mode, &mut missing);
        self.set_times(handle, metadata, &mut missing);
        if !is_symlink && (changed || found.st_mode & 0o7777 != mode) {
            note(&mut missing, "its mode could not be set", handle.set_mode(mode));
        }
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// True when owner and group are as they should be.
    fn own(&self, handle: &Handle<'_>, metadata: &Metadata, missing: &mut Vec<String>) -> bool {
        // The number -1 means "leave it" to the system, and is nobody's.
        let valid = |n: u32| (n != u32::MAX).then_some(n);
        let (Some(uid), Some(gid)) = (valid(metadata.uid), valid(metadata.gid)) else {
            missing.push("its owner is not a valid number".into());
            return false;
        };
        match handle.set_owner(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            Ok(()) => true,
            // EINVAL: a number that this user namespace does not have.
            Err(Errno::PERM | Errno::INVAL) => {
                // The group alone is allowed to its members.
                let _ = handle.set_owner(None, Some(Gid::from_raw(gid)));
                self.owners_denied.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                note(missing, "its owner could not be set", Err(error));
                false
            }
        }
    }

    /// Sets attributes. Where a list of access cannot be set, `mode` loses what only the list bounded.
    fn set_attributes(
        &self,
        handle: &Handle<'_>,
        metadata: &Metadata,
        mode: &mut u32,
        missing: &mut Vec<String>,
    ) {
        for (name, value) in &metadata.xattrs {
            let Err(error) = handle.set_attribute(name, value) else { continue };
            match &**name {
                acl::ACCESS => {
                    *mode = acl::mode_without(*mode, value);
                    let rest = format!("it has mode {mode:04o} alone", mode = *mode);
                    missing.push(format!("its access control list could not be set: {error}; {rest}"));
                }
                acl::DEFAULT => missing
                    .push(format!("the access control list for new files in it could not be set: {error}")),
                label if LABELS.contains(&label) && matches!(error, Errno::NOTSUP | Errno::PERM) => {
                    self.labels_denied.fetch_add(1, Ordering::Relaxed);
                }
                other => missing.push(format!("attribute {other} could not be set: {error}")),
            }
        }
    }

    /// Sets the times, and looks whether the file system keeps them.
    fn set_times(&self, handle: &Handle<'_>, metadata: &Metadata, missing: &mut Vec<String>) {
        if let Err(error) = handle.set_times(&metadata.timestamps()) {
            return note(missing, "its times could not be set", Err(error));
        }
        let Ok(kept) = handle.stat().map(|found| clock::mtime(&found)) else { return };
        match kept.abs_diff(metadata.mtime) {
            0 => {}
            1..clock::COARSEST => {
                self.coarse_times.fetch_add(1, Ordering::Relaxed);
            }
            _ => missing.push(format!(
                "the file system cannot keep its time {}: it has {} now",
                shown(metadata.mtime),
                shown(kept)
            )),
        }
    }
}

/// Removes attributes that the snapshot does not have; true when there were any.
fn remove_others(
    handle: &Handle<'_>,
    found: &Stat,
    metadata: &Metadata,
    origin: ObjectOrigin,
    mode: &mut u32,
    missing: &mut Vec<String>,
) -> bool {
    let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let mut others: Vec<Vec<u8>> = match origin {
        // Nothing else is inherited, and a list of all names would cost more.
        ObjectOrigin::Fresh => [(true, acl::ACCESS), (is_dir, acl::DEFAULT)]
            .into_iter()
            .filter(|(possible, name)| *possible && handle.has_attribute(name))
            .map(|(_, name)| name.into())
            .collect(),
        ObjectOrigin::Found => match handle.attributes() {
            Ok(names) => names.into_iter().filter(|name| is_own(name)).collect(),
            Err(error) => {
                note(missing, "its attributes cannot be listed", Err(error));
                Vec::new()
            }
        },
    };
    others.retain(|name| !metadata.xattrs.iter().any(|(wanted, _)| wanted.as_bytes() == &name[..]));
    for name in &others {
        let Err(error) = handle.remove_attribute(name) else { continue };
        if name == acl::ACCESS.as_bytes() {
            // What is named in the list has the rights of the mask at most, and that is none then.
            *mode &= !0o070;
        }
        let name = String::from_utf8_lossy(name);
        missing.push(format!(
            "attribute {name}, which the snapshot does not have, could not be removed: {error}"
        ));
    }
    !others.is_empty()
}

/// What is not as the snapshot has it, to be told to a person; empty when everything is. Without `owners` those do not
/// matter, since nobody but root sets them.
pub(super) fn unlike(handle: &Handle<'_>, metadata: &Metadata, owners: bool) -> Result<Vec<String>, Errno> {
    let found = handle.stat()?;
    let mut unlike = Vec::new();
    let same_owner = (found.st_uid, found.st_gid) == (metadata.uid, metadata.gid);
    if owners && !same_owner {
        unlike.push("owner".into());
    }
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        let is = found.st_mode & 0o7777;
        // Without their owner they are left out.
        if is != metadata.mode && (same_owner || is != metadata.mode & !SET_ID) {
            unlike.push("mode".into());
        }
    }
    let wanted = metadata.xattrs.iter().filter(|(name, _)| !LABELS.contains(&&**name));
    for (name, value) in wanted {
        let is = handle.attribute(name.as_bytes());
        let is_list = [acl::ACCESS, acl::DEFAULT].contains(&&**name);
        if !is.is_ok_and(|is| is == **value || (is_list && acl::is_same(&is, value))) {
            unlike.push(attribute_name(name.as_bytes()));
        }
    }
    for name in handle.attributes()?.iter().filter(|name| is_own(name)) {
        if !metadata.xattrs.iter().any(|(wanted, _)| wanted.as_bytes() == &name[..]) {
            unlike.push(attribute_name(name));
        }
    }
    Ok(unlike)
}

fn is_own(name: &[u8]) -> bool {
    OWN.iter().any(|own| name.starts_with(own.as_bytes()))
}

fn attribute_name(name: &[u8]) -> String {
    let is = |list: &str| name == list.as_bytes();
    match is(acl::ACCESS) || is(acl::DEFAULT) {
        true => "access control list".into(),
        false => format!("attribute {}", String::from_utf8_lossy(name)),
    }
}

fn shown(nanos: i64) -> String {
    Timestamp::from_nanosecond(nanos.into()).map_or_else(|_| nanos.to_string(), |time| time.to_string())
}

fn note(missing: &mut Vec<String>, what: &str, result: Result<(), Errno>) {
    if let Err(error) = result {
        missing.push(format!("{what}: {error}"));
    }
}
