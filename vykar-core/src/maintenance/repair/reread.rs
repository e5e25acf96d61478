//! Reading again what a plan takes for damaged, before it is replaced. Memory, a cable or a network may have given wrong
//! bytes once, and what is sound must not go for that.

use crate::crypto::pack_id;
use crate::error::{Result, StorageError, VykarError};
use crate::format::MAX_SNAPSHOT_OBJECT;
use crate::id::PackId;
use crate::maintenance::repair::plan::RepairPlan;
use crate::maintenance::repair::survey::is_chunk;
use crate::maintenance::repair::{changed, unsteady};
use crate::maintenance::verify::MAX_PACK_OBJECT;
use crate::repository::{INDEX, Repository, pack_key, snapshot_key};
use crate::storage::drop_cached;

/// Reads all snapshots, the index, damaged packs, and chunks that were not found in packs that are not damaged.
///
/// # Errors
/// [`VykarError::RepairRefused`] when any of them is not what it was.
pub(super) fn look_again(repository: &Repository, plan: &RepairPlan) -> Result<()> {
    for id in &plan.ids {
        let key = snapshot_key(id);
        let Some(was) = plan.contents.get(&key) else { continue };
        same_content(repository, &key, MAX_SNAPSHOT_OBJECT, was)?;
    }
    for wrong in &plan.wrong {
        let Some(was) = &wrong.content else { continue };
        same_content(repository, &pack_key(&wrong.pack), MAX_PACK_OBJECT, was)?;
    }
    for wanted in plan.pack_moves.iter().chain(&plan.snapshot_moves) {
        same_content(repository, &wanted.from, MAX_PACK_OBJECT, &wanted.content)?;
    }
    if !plan.contents.contains_key(INDEX) {
        return Ok(());
    }
    drop_cached(repository.backend().as_ref(), INDEX);
    let (index, content) = repository.read_index_hashed();
    let index = match (index, content) {
        (Err(e @ VykarError::Storage(_)), None) => return Err(e),
        (index, content) if content.as_ref() == plan.contents.get(INDEX) => index,
        _ => return Err(unsteady(INDEX)),
    };
    // The same as before, and unusable.
    let Ok(index) = index else { return Ok(()) };
    // A damaged pack is the same as before, and so is what is not in it.
    for entry in index.chunks.iter().filter(|entry| plan.survey.is_in_place(&entry.pack)) {
        let found = plan.survey.table().get(&entry.id);
        if found.is_some_and(|found| (found.pack, found.offset) == (entry.pack, entry.offset)) {
            continue;
        }
        let key = pack_key(&entry.pack);
        let object = match repository.backend().get_range(&key, entry.offset, entry.stored_size as usize) {
            Err(StorageError::Short { .. }) => continue,
            other => other?,
        };
        if is_chunk(repository.keys(), &entry.id, &object).is_some() {
            return Err(unsteady(&key));
        }
    }
    Ok(())
}

fn same_content(repository: &Repository, key: &str, max: u64, was: &PackId) -> Result<()> {
    let backend = repository.backend();
    // Else it may come from where the wrong bytes still are.
    drop_cached(backend.as_ref(), key);
    match backend.get(key, max) {
        Ok(object) if pack_id(&object) == *was => Ok(()),
        Ok(_) => Err(unsteady(key)),
        Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => Err(changed()),
        Err(e) => Err(e.into()),
    }
}
