//! The open repository: its keys, its passphrase, and whether it is still in its place.

pub mod keys;
pub mod open;
pub(crate) mod passphrase;
pub(crate) mod reach;
pub(crate) mod undo_init;
