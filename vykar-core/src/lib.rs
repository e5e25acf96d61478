//! The library behind `vykar`: an encrypted, deduplicating backup repository.
//!
//! Rooms, from the bottom up: [`format`] turns bytes into structs and back, [`crypto`] seals and
//! opens objects, [`codec`] cuts and compresses, [`storage`] keeps opaque bytes under keys. The
//! [`repository`] joins them; [`backup`], [`restore`], [`export`], [`maintenance`] and
//! [`inspect`] are the operations on top and do not know each other.
//!
//! This crate never prints, never reads the environment or a configuration file. Progress leaves
//! through an `Option<&mut dyn FnMut(Event)>`.

pub mod local_state;
pub mod snapshot_ops;
#[cfg(test)]
#[macro_use]
#[path = "../../tests/needs.rs"]
mod needs;

pub mod backup;
pub mod clock;
pub mod codec;
pub mod crypto;
pub mod error;
pub mod event;
pub mod export;
pub mod format;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod inspect;
pub mod maintenance;
pub mod platform;
pub mod repository;
pub mod restore;
pub mod rules;
pub mod stage;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
#[cfg(test)]
mod torture;

pub use error::{CodecError, CryptoError, FormatError, Result, StorageError, VykarError};
pub use event::{Event, Planned, Restoring, Totals};
pub use id::{ChunkId, PackId, RepositoryId, SessionId, SnapshotId};
