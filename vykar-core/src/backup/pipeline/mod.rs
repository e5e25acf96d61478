//! From the walk to packs: threads, and what they hand on.

pub(crate) mod chunk_store;
pub(crate) mod context;
pub(crate) mod encoded_items;
pub(crate) mod scheduler;
pub(crate) mod segmented_file;
pub(crate) mod walk;
pub(crate) mod work_item;
pub(crate) mod worker;
