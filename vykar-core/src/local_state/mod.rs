//! What this machine remembers of a repository between two runs. All of it can be lost.

pub mod cache_file;
pub(crate) mod file_cache;
pub mod identity_pin;
pub(crate) mod index_cache;
pub mod rollback;
