//! Snapshots that lie under another name than their own.
//!
//! A snapshot's id is part of what is authenticated, and nowhere in the object: it opens under its own id alone. So those
//! that do not open are tried with every id that anything speaks of: names in the repository, and what this machine
//! remembers. Without a cipher an object opens under any id, and only its name can tell.

use std::collections::{BTreeSet, HashSet};

use super::places::ids_in;
use super::put_back::Move;
use super::refused;
use crate::crypto::pack_id;
use crate::error::{Result, StorageError, VykarError};
use crate::format::{Encryption, MAX_SNAPSHOT_OBJECT, ObjectKind, Snapshot};
use crate::id::SnapshotId;
use crate::maintenance::repair::repair_note::repaired_from;
use crate::repository::objects::layout::{DAMAGED, KeyKind};
use crate::repository::objects::manifest::{open_snapshot, stray_snapshots};
use crate::repository::{Repository, snapshot_key};
use crate::storage::ObjectInfo;

/// A snapshot that lies elsewhere than it belongs.
pub(super) struct MisplacedSnapshot {
    pub snapshot: Snapshot,
    pub wanted: Move,
}

/// What is known when snapshots under other names are looked for.
pub(super) struct Identified<'k> {
    pub readable: &'k [Snapshot],
    pub unreadable: &'k [SnapshotId],
    /// All objects of the repository.
    pub objects: &'k [ObjectInfo],
    /// Keys of objects that look like snapshots among packs.
    pub among_packs: &'k [String],
}

/// Finds them.
///
/// # Errors
/// [`VykarError::SnapshotsMissing`] for what looks like a snapshot in the folder of snapshots and opens under no id that
/// anybody knows, and [`VykarError::RepairRefused`] for one that a newer program wrote.
pub(super) fn find_misplaced(
    repository: &Repository,
    known: &Identified<'_>,
) -> Result<Vec<MisplacedSnapshot>> {
    let wanted = wanted_ids(repository, known);
    let mut found: Vec<MisplacedSnapshot> = Vec::new();
    let mut taken = HashSet::new();
    for key in places(repository, known) {
        let object = match repository.backend().get(&key, MAX_SNAPSHOT_OBJECT) {
            Ok(object) => object,
            Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        let its_own: BTreeSet<SnapshotId> = ids_in(&key).map(SnapshotId).collect();
        let is_aside = key.starts_with(DAMAGED);
        let may_be = |id: &&SnapshotId| match repository.config().encryption {
            // Its name is all there is, and what was set aside under it was replaced.
            Encryption::None => its_own.contains(*id) && !is_aside,
            // One that opened under its name was replaced, or had lost something.
            _ => !(is_aside && its_own.contains(*id)),
        };
        for id in wanted.iter().filter(may_be).filter(|id| snapshot_key(id) != key) {
            match open_snapshot(repository, id, &mut object.clone()) {
                Ok(snapshot) => {
                    let wanted = Move { content: pack_id(&object), from: key.clone(), to: snapshot_key(id) };
                    if taken.insert(*id) {
                        found.push(MisplacedSnapshot { snapshot, wanted });
                    }
                    break;
                }
                Err(VykarError::SnapshotUnusable { cause, .. }) if cause.is_newer() => {
                    let reason =
                        format!("{key} is snapshot {id}: {cause}. Only a newer program can judge it");
                    return Err(refused(reason));
                }
                Err(_) => {}
            }
        }
    }
    let is_found = |key: &String| found.iter().any(|misplaced| misplaced.wanted.from == *key);
    match stray_snapshots(repository)?.into_iter().find(|key| !is_found(key)) {
        Some(key) if !repository.trust() => {
            let reason = format!(
                "{key} is a snapshot, and nothing says which; a file of a snapshot is named by its id, 64 hex digits"
            );
            Err(VykarError::SnapshotsMissing { reason, may_trust: true })
        }
        _ => Ok(found),
    }
}

/// Ids that anything speaks of and under which no readable snapshot lies.
fn wanted_ids(repository: &Repository, known: &Identified<'_>) -> BTreeSet<SnapshotId> {
    let names = known.objects.iter().filter(|object| match KeyKind::of(&object.key) {
        None | Some(KeyKind::Snapshot(_)) => true,
        Some(KeyKind::SetAside) => object.key.starts_with(&format!("{DAMAGED}snapshots/")),
        Some(_) => false,
    });
    let mut ids: BTreeSet<SnapshotId> =
        names.flat_map(|object| ids_in(&object.key)).map(SnapshotId).collect();
    ids.extend(known.unreadable);
    ids.extend(repository.remembered_snapshots());
    for snapshot in known.readable {
        ids.remove(&snapshot.id);
        // That one was set aside, and this is what is left of it.
        repaired_from(&snapshot.meta).map(|id| ids.remove(&id));
    }
    ids
}

/// Keys of what may be a snapshot under another name, those in the folder of snapshots first.
fn places(repository: &Repository, known: &Identified<'_>) -> Vec<String> {
    let mut keys: Vec<String> = known.unreadable.iter().map(snapshot_key).collect();
    let unknown = known.objects.iter().filter(|object| {
        KeyKind::of(&object.key).is_none() && object.size <= MAX_SNAPSHOT_OBJECT && object.size > 0
    });
    let tag = [ObjectKind::Snapshot as u8];
    let begins = |key: &str| repository.backend().get_range(key, 0, 1).is_ok_and(|head| head == tag);
    keys.extend(unknown.filter(|object| begins(&object.key)).map(|object| object.key.clone()));
    keys.sort_by_key(|key| !key.starts_with("snapshots/"));
    keys.extend(known.among_packs.iter().cloned());
    let aside = format!("{DAMAGED}snapshots/");
    let aside = known.objects.iter().filter(|object| object.key.starts_with(&aside) && begins(&object.key));
    keys.extend(aside.map(|object| object.key.clone()));
    keys
}
