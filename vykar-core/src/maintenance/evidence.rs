//! What speaks against the keys or the parameters, and not against the data.
//!
//! Nothing authenticates `config`. One that is damaged, or is another repository's, makes everything look damaged: the
//! packs are as they were written, which their names prove, and yet nothing in them is what it should be. Whoever deletes
//! on such evidence deletes what is whole.

use std::collections::HashSet;

use super::repair::survey::WholeSurvey;
use crate::error::{ObjectError, Result, VykarError};
use crate::format::{Encryption, Snapshot};
use crate::id::ChunkId;
use crate::repository::{ChunkReader, Repository};

/// Of so many chunks that should be there, at least one is, unless the keys are wrong.
const FEW: u64 = 10;
/// Snapshots' chunks that are tried before it is concluded that none can be opened.
const TRIED: usize = 64;

fn wrong_keys(reason: &str) -> VykarError {
    VykarError::KeysDoubtful { reason: reason.to_owned() }
}

/// Refuses where not one chunk, or hardly any, is what names it, although the packs are as they were written.
pub(super) fn refuse_wrong_keys(
    repository: &Repository,
    survey: &WholeSurvey,
    readable: &[Snapshot],
    has_unreadable: bool,
    index_is_lost: bool,
) -> Result<()> {
    let evidence = survey.evidence;
    let pointers: HashSet<_> = readable.iter().flat_map(|s| &s.meta.item_ptrs).collect();
    let found = pointers.iter().filter(|pointer| survey.table().find(pointer).is_some()).count() as u64;
    if found > 0 && found.saturating_mul(FEW) >= pointers.len() as u64 {
        return Ok(());
    }
    if evidence.named > 0 && evidence.matched.saturating_mul(FEW) < evidence.named {
        return Err(wrong_keys(
            "the packs are as they were written, and hardly anything in them is what the index says",
        ));
    }
    let is_sealed = repository.config().encryption != Encryption::None;
    if evidence.sound_packs == 0 || evidence.matched > 0 || (is_sealed && evidence.identified > 0) {
        return Ok(());
    }
    if !pointers.is_empty() && found == 0 && index_is_lost {
        return Err(wrong_keys(
            "the packs are as they were written, and hold nothing that the snapshots refer to",
        ));
    }
    if is_sealed && readable.is_empty() && has_unreadable && index_is_lost {
        return Err(wrong_keys("not one object opens, and the packs are as they were written"));
    }
    Ok(())
}

/// Refuses where none of the lists of files that snapshots have can be read, because what is there is something else.
/// Reads one chunk where all is well.
pub(super) fn refuse_unless_one_opens(reader: &ChunkReader, snapshots: &[Snapshot]) -> Result<()> {
    let mut tried = HashSet::new();
    let mut wrong = false;
    let mut opens = |chunk: ChunkId| match reader.read(&chunk) {
        Ok(_) => true,
        Err(VykarError::ChunkDamaged { cause: ObjectError::WrongId, .. }) => {
            wrong = true;
            false
        }
        Err(_) => false,
    };
    for pointer in snapshots.iter().rev().flat_map(|s| &s.meta.item_ptrs) {
        if tried.len() < TRIED && tried.insert(*pointer) && opens(*pointer) {
            return Ok(());
        }
    }
    // They alone may be damaged.
    let index = reader.index();
    if tried.is_empty() || index.chunks.iter().take(TRIED).any(|entry| opens(entry.id)) {
        return Ok(());
    }
    match wrong {
        true => Err(wrong_keys("not one of the chunks that list the snapshots' files is what names it")),
        false => Ok(()),
    }
}
