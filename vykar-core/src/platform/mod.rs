//! What the operating system is asked directly. The only place where `unsafe` is allowed, each
//! block with its argument.

pub mod map;
pub mod private;
pub mod process;
pub mod read;

pub use process::ProcessIdentity;
