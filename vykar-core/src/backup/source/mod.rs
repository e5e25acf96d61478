//! What is stored: paths, rules, entries of the file system, output of commands.

pub(crate) mod command;
pub(crate) mod direct_read;
pub(crate) mod entry;
pub(crate) mod exclude;
pub(crate) mod mounts;
pub(crate) mod set;
