//! Bytes of files: chunks, cache, reading ahead, damage.

pub(crate) mod cache;
pub(crate) mod chunk_source;
pub(crate) mod damage_policy;
pub(crate) mod holes;
pub(crate) mod readahead;
pub(crate) mod walk_prefetch;
