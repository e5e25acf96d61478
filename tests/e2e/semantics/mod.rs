//! What docs/mount.md promises, sentence by sentence, on real mounts.

mod access;
mod changes;
mod data;
mod loss;
mod metadata;
mod names;
mod versions;
