//! FUSE file system over the snapshots of a vykar repository.

mod tree;
mod xattr;
