//! Zeros in place of what is lost, for whoever wants the rest of a file with ordinary tools.
//!
//! They look like data, and the kernel keeps them. So they are given only where it is certain that the
//! data is not to be had; all doubt is an error.

use bytes::Bytes;
use vykar_core::error::ObjectError;
use vykar_core::format::MAX_CHUNK_PLAINTEXT;
use vykar_core::repository::{CONFIG, INDEX_GENERATION, Repository};
use vykar_core::{ChunkId, VykarError};

use crate::data::Data;

/// What is to be thought of a chunk that could not be read.
pub(crate) enum Verdict {
    /// It can, now.
    Readable(Bytes),
    /// It is damaged or gone, by an index that is the repository's newest.
    Lost,
    /// Something else failed.
    Doubtful,
}

/// Judges a chunk of `size` bytes whose reading failed with `error`.
pub(crate) fn judge(
    error: &VykarError,
    (id, size): (&ChunkId, u64),
    data: &Data,
    repository: &Repository,
) -> Verdict {
    // A longer piece is one that no chunk can fill.
    let size = u32::try_from(size).ok().filter(|size| u64::from(*size) <= MAX_CHUNK_PLAINTEXT);
    let (true, Ok(reader), Some(size)) = (is_loss(error), data.reader(), size) else {
        return Verdict::Doubtful;
    };
    // The error may be older than the index. A compaction writes the new index before it deletes packs:
    // what is not where this index says, while it is still the newest, is nowhere.
    let known = reader.index().generation;
    match reader.read_sized(id, size) {
        Ok(chunk) => return Verdict::Readable(chunk),
        Err(error) if !is_loss(&error) => return Verdict::Doubtful,
        Err(_) => {}
    }
    let hint = repository.backend().get(INDEX_GENERATION, 8);
    let newest = hint.is_ok_and(|hint| hint == known.to_le_bytes())
        // The hint may be missing or old.
        || (reader.refresh(repository).is_ok() && reader.index().generation == known);
    // A disk that is not mounted has no packs either.
    let reachable = repository.backend().exists(CONFIG).unwrap_or(false);
    if newest && reachable { Verdict::Lost } else { Verdict::Doubtful }
}

fn is_loss(error: &VykarError) -> bool {
    match error {
        VykarError::ChunkMissing { .. } => true,
        VykarError::ChunkDamaged { cause, .. } => match cause {
            ObjectError::OutOfReach(_) => false,
            // What a newer program wrote is whole.
            cause => !cause.is_newer(),
        },
        _ => false,
    }
}
