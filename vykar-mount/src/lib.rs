//! FUSE file system over the snapshots of a vykar repository.

mod cache;
mod data;
pub mod errno;
pub mod fs;
mod holes;
mod inode;
mod layout;
mod loader;
pub mod log;
mod names;
mod prefetch;
mod snapshots;
#[cfg(test)]
mod testing;
pub mod tree;
pub mod xattr;
