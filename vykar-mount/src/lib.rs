//! FUSE file system over the snapshots of a vykar repository: every backup is a folder.
//!
//! [`fs`] is the file system as plain calls, [`Mount`] puts it into the machine's file tree. This crate
//! never prints, never reads the environment and handles no signals; what is worth a line goes to a
//! [`log::Log`].

mod content;
pub mod errno;
pub mod fs;
#[doc(hidden)]
pub mod fuzzing;
pub mod log;
pub mod session;
#[cfg(test)]
mod testing;
pub mod tree;
mod versions;
pub mod view;
pub mod xattr;

pub use crate::content::chunk_source::Freed;
pub use crate::session::mount::{Announce, Mount, MountOptions, Unmounter};
pub use crate::session::mountpoint::MountError;
pub use crate::session::unmount::{unmount, unmount_dead, unmount_stuck};
pub use log::{Log, LogLine};
