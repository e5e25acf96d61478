//! Bytes to structs and back. No I/O, no keys; a file per kind of object, its byte table on top.

pub mod acl;
pub mod admission;
pub mod config;
pub mod envelope;
pub mod index;
pub mod item;
pub mod key;
pub mod key_text;
pub mod links;
pub mod marker;
pub mod note;
mod owned;
pub mod pack;
pub mod path;
pub mod pending;
pub mod snapshot;
pub mod special;
pub mod stream;
pub mod table;
mod window;
pub mod wire;

pub use config::{ChunkerParams, Encryption, RepoConfig};
pub use envelope::ObjectKind;
pub use index::{IndexBlob, IndexEntry};
pub use item::{ChunkRef, Item, ItemProblem, ItemType};
pub use key::{EncryptedKey, KdfParams, MasterKeys};
pub use key_text::{KeyExport, KeyTextError};
pub use marker::{LockMarker, SessionMarker};
pub use pending::PendingPack;
pub use snapshot::{Snapshot, SnapshotMeta, SnapshotStats};
pub use stream::ItemStream;

/// Most that one chunk may expand to: 32 MiB.
pub const MAX_CHUNK_PLAINTEXT: u64 = 32 << 20;
/// Most that a metadata object (index, pending index) may expand to: 4 GiB.
pub const MAX_METADATA_PLAINTEXT: u64 = 4 << 30;
/// Largest object that is read whole as metadata: what 4 GiB can grow to when stored.
pub const MAX_METADATA_OBJECT: u64 = MAX_METADATA_PLAINTEXT + (16 << 20);
/// Largest `config`, `keys/repokey`, session or lock object: far above any real one.
pub const MAX_SMALL_OBJECT: u64 = 64 << 10;
/// Largest snapshot object: 32 bytes for each of two million item-stream pointers, encoded.
pub const MAX_SNAPSHOT_OBJECT: u64 = 128 << 20;
