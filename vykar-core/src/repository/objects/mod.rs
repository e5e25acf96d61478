//! What a repository consists of: keys of objects, snapshots, the index, packs.

pub mod index;
pub mod layout;
pub(crate) mod lost_packs;
pub mod manifest;
pub mod pack_writer;
