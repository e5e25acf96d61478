//! FUSE file system over the snapshots of a vykar repository.
