//! Checking what is neither a snapshot, the index's contents nor a pack: parameters and keys, the index's hint, locks,
//! sessions and their journals, and what does not belong here.

use std::collections::BTreeMap;

use super::finding::Finding;
use crate::codec::decompress;
use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::PENDING_CONTEXT;
use crate::format::note::{COPIED_FROM, noted};
use crate::format::{
    ChunkerParams, MAX_METADATA_OBJECT, MAX_METADATA_PLAINTEXT, ObjectKind, Snapshot, pending,
};
use crate::id::{PackId, SessionId, SnapshotId};
use crate::repository::lock::liveness::journal_key;
use crate::repository::objects::layout;
use crate::repository::objects::layout::KeyKind;
use crate::repository::{INDEX_GENERATION, Liveness, LockInfo, Repository, SessionInfo};
use crate::storage::ObjectInfo;

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
pub(super) fn check_markers(repository: &Repository, found: &mut dyn FnMut(Finding)) -> Result<()> {
    let left = |standing: Liveness| standing.is_over() || standing == Liveness::Unreadable;
    for lock in LockInfo::list(repository)?.into_iter().filter(|lock| left(lock.standing)) {
        found(Finding::LockLeft { holder: lock.describe(), key: lock.key });
    }
    for session in SessionInfo::list(repository)?.into_iter().filter(|session| left(session.standing)) {
        found(Finding::SessionLeft { session: session.id, holder: session.describe() });
    }
    for object in repository.backend().list("sessions/")? {
        let Some(KeyKind::Journal(session)) = KeyKind::of(&object.key) else { continue };
        if let Err(error) = open_journal(repository, &session) {
            found(Finding::JournalUnusable { session, reason: error.to_string() });
        }
    }
    Ok(())
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

/// What lies in the repository's place and is none of its objects, or is in the place of one.
pub(super) fn check_names(repository: &Repository, found: &mut dyn FnMut(Finding)) -> Result<()> {
    for key in layout::odd_objects(&**repository.backend())? {
        found(Finding::OddEntry { key });
    }
    let objects = repository.backend().list("")?.into_iter();
    for ObjectInfo { key, size } in objects.filter(|object| KeyKind::of(&object.key).is_none()) {
        found(Finding::UnknownObject { key, size });
    }
    Ok(())
}

/// The pack under a key, if it is one's.
pub(super) fn pack_of(key: &str) -> Option<PackId> {
    match KeyKind::of(key) {
        Some(KeyKind::Pack(id)) => Some(id),
        _ => None,
    }
}

/// The chunk sizes in `config`, which nothing authenticates, beside those that snapshots were made with here.
pub(super) fn check_chunk_sizes(
    repository: &Repository,
    snapshots: &[Snapshot],
    found: &mut dyn FnMut(Finding),
) {
    let config = repository.config().chunker;
    let own = snapshots.iter().filter(|s| noted(&s.meta, COPIED_FROM).is_none()).map(|s| s.meta.chunker);
    let other: Vec<ChunkerParams> = own.collect();
    let text = |sizes: &ChunkerParams| format!("{}/{}/{} bytes", sizes.min, sizes.avg, sizes.max);
    if let Some(last) = other.last().filter(|_| !other.contains(&config)) {
        found(Finding::ChunkSizesDiffer { config: text(&config), snapshots: text(last) });
    }
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
