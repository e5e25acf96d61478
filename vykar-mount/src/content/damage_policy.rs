//! Zeros in place of what is lost, for whoever wants the rest of a file with ordinary tools.
//!
//! They look like data, and the kernel keeps them. So they are given only where it is certain that the
//! data is not to be had; all doubt is an error.

use bytes::Bytes;
use vykar_core::format::MAX_CHUNK_PLAINTEXT;
use vykar_core::{ChunkId, VykarError};

use crate::content::chunk_source::Data;

/// What is to be thought of a chunk that could not be read.
pub(crate) enum ChunkVerdict {
    /// It can, now.
    Readable(Bytes),
    /// It is damaged or gone, by an index that is the repository's newest.
    Lost,
    /// Something else failed.
    Doubtful,
}

/// Judges a chunk of `size` bytes whose reading failed with `error`.
pub(crate) fn judge(error: &VykarError, (id, size): (&ChunkId, u64), data: &Data) -> ChunkVerdict {
    // A longer piece is one that no chunk can fill.
    let size = u32::try_from(size).ok().filter(|size| u64::from(*size) <= MAX_CHUNK_PLAINTEXT);
    let (true, Some(size)) = (error.is_damage(), size) else {
        return ChunkVerdict::Doubtful;
    };
    // The error may be older than the index, and what was read wrongly once may be read right.
    match data.read_again(id, size) {
        Ok(chunk) => ChunkVerdict::Readable(chunk),
        Err(error) if error.is_damage() => ChunkVerdict::Lost,
        Err(_) => ChunkVerdict::Doubtful,
    }
}
