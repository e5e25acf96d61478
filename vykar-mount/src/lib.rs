//! FUSE file system over the snapshots of a vykar repository: every backup is a folder.
//!
//! [`fs`] is the file system as plain calls, [`Mount`] puts it into the machine's file tree. This crate
//! never prints, never reads the environment and handles no signals; what is worth a line goes to a
//! [`log::Log`].

mod ahead;
mod awake;
mod cache;
mod caller;
mod damage;
mod data;
pub mod errno;
pub mod fs;
mod fuse;
#[doc(hidden)]
pub mod fuzzing;
mod holes;
mod inode;
mod keeper;
mod layout;
mod loader;
pub mod log;
pub mod mount;
pub mod mountpoint;
mod names;
mod prefetch;
pub mod shown;
mod snapshots;
pub mod template;
#[cfg(test)]
mod testing;
pub mod top;
pub mod tree;
pub mod unmount;
pub mod users;
mod versions;
pub mod xattr;

pub use data::Freed;
pub use log::{Log, LogLine};
pub use mount::{Announce, Mount, MountOptions, Unmounter};
pub use mountpoint::MountError;
pub use unmount::{unmount, unmount_dead, unmount_stuck};
