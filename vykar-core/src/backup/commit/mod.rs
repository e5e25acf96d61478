//! From packs to a published snapshot: items, references, the index, and another try where something is gone.

pub(crate) mod extras;
pub(crate) mod index_merge;
pub(crate) mod item_writer;
pub(crate) mod publish;
pub(crate) mod references;
pub(crate) mod retry;
