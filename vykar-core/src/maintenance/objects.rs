//! Checking what is neither a snapshot, the index's contents nor a pack: parameters and keys, the index's hint, locks,
//! sessions and their journals, and what does not belong here.

use std::collections::BTreeMap;

use super::finding::Finding;
use crate::codec::decompress;
use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::PENDING_CONTEXT;
use crate::format::marker::parse_lock_name;
use crate::format::{MAX_METADATA_OBJECT, MAX_METADATA_PLAINTEXT, ObjectKind, Snapshot, pending};
use crate::id::{PackId, SessionId, SnapshotId};
use crate::repository::standing::journal_key;
use crate::repository::{
    CONFIG, INDEX, INDEX_GENERATION, LockInfo, REPOKEY, Repository, SessionInfo, Standing,
};
use crate::storage::ObjectInfo;

/// Where a repair puts what it replaces.
pub(crate) const DAMAGED: &str = "damaged/";

/// The parameters and keys in the storage.
pub(super) fn check_opened_with(repository: &Repository, found: &mut dyn FnMut(Finding)) {
    let reason = |error: VykarError| match error {
        VykarError::Damaged { cause, .. } => cause.to_string(),
        VykarError::NotARepository { reason, .. } => reason,
        other => other.to_string(),
    };
    if let Err(error) = repository.check_config() {
        found(Finding::ConfigUnusable { reason: reason(error) });
    }
    if let Err(error) = repository.check_key() {
        found(Finding::KeyUnusable { reason: reason(error) });
    }
}

/// Whether the hint agrees with the index, whose generation is given.
pub(super) fn check_hint(repository: &Repository, generation: u64, found: &mut dyn FnMut(Finding)) {
    let reason = match repository.backend().get(INDEX_GENERATION, 8) {
        Ok(hint) if hint == generation.to_le_bytes() => return,
        Ok(hint) if hint.len() == 8 => "names another generation than the index has".to_owned(),
        Ok(hint) => format!("{} bytes instead of 8", hint.len()),
        Err(error) => error.to_string(),
    };
    found(Finding::IndexHintWrong { reason });
}

/// Locks and sessions that nobody keeps, and journals that cannot be used.
pub(super) fn check_markers(
    repository: &Repository,
    objects: &[ObjectInfo],
    found: &mut dyn FnMut(Finding),
) -> Result<()> {
    let left = |standing: Standing| standing.is_over() || standing == Standing::Unreadable;
    for lock in LockInfo::list(repository)?.into_iter().filter(|lock| left(lock.standing)) {
        found(Finding::LockLeft { holder: lock.describe(), key: lock.key });
    }
    for session in SessionInfo::list(repository)?.into_iter().filter(|session| left(session.standing)) {
        found(Finding::SessionLeft { session: session.id, holder: session.describe() });
    }
    for session in objects.iter().filter_map(|object| journal_of(&object.key)) {
        if let Err(error) = open_journal(repository, &session) {
            found(Finding::JournalUnusable { session, reason: error.to_string() });
        }
    }
    Ok(())
}

fn journal_of(key: &str) -> Option<SessionId> {
    key.strip_prefix("sessions/")?.strip_suffix(".index")?.parse().ok()
}

fn open_journal(repository: &Repository, session: &SessionId) -> Result<(), ObjectError> {
    let mut object = match repository.backend().get(&journal_key(session), MAX_METADATA_OBJECT) {
        // Its backup has ended since.
        Err(StorageError::NotFound { .. }) => return Ok(()),
        other => other.map_err(|e| ObjectError::Unreadable(e.to_string()))?,
    };
    let payload = repository.keys().open(ObjectKind::PendingIndex, PENDING_CONTEXT, &mut object)?;
    pending::decode(&decompress(payload, MAX_METADATA_PLAINTEXT)?)?;
    Ok(())
}

/// Names that the format does not know.
pub(super) fn check_names(objects: &[ObjectInfo], found: &mut dyn FnMut(Finding)) {
    for object in objects.iter().filter(|object| !is_known(&object.key)) {
        found(Finding::UnknownObject { key: object.key.clone(), size: object.size });
    }
}

fn is_known(key: &str) -> bool {
    if [CONFIG, INDEX, INDEX_GENERATION, REPOKEY].contains(&key) || key.starts_with(DAMAGED) {
        return true;
    }
    match key.split_once('/') {
        Some(("snapshots", name)) => name.parse::<SnapshotId>().is_ok(),
        Some(("packs", _)) => pack_of(key).is_some(),
        Some(("locks", name)) => parse_lock_name(name).is_some(),
        Some(("sessions", name)) => {
            let id = name.strip_suffix(".json").or_else(|| name.strip_suffix(".index"));
            id.is_some_and(|id| id.parse::<SessionId>().is_ok())
        }
        _ => false,
    }
}

/// The pack under a key, if it is one's.
pub(super) fn pack_of(key: &str) -> Option<PackId> {
    let (shard, name) = key.strip_prefix("packs/")?.split_once('/')?;
    let id = name.parse().ok()?;
    (shard.len() == 2 && name.starts_with(shard)).then_some(id)
}

/// Names that several snapshots have.
pub(super) fn check_snapshot_names(snapshots: &[Snapshot], found: &mut dyn FnMut(Finding)) {
    let mut named: BTreeMap<&str, Vec<SnapshotId>> = BTreeMap::new();
    for snapshot in snapshots {
        named.entry(&snapshot.meta.name).or_default().push(snapshot.id);
    }
    for (name, snapshots) in named.into_iter().filter(|(_, snapshots)| snapshots.len() > 1) {
        found(Finding::NameTwice { name: name.to_owned(), snapshots });
    }
}
