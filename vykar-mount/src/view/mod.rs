//! What is shown: folders, names, snapshots, owners and modes.

pub mod attr_mapping;
pub(crate) mod inode;
pub(crate) mod layout;
pub(crate) mod loader;
pub(crate) mod names;
pub(crate) mod snapshots;
pub mod subtree_root;
pub mod template;
