//! A repository: objects of the format in a storage backend, under one set of keys.

pub mod buffers;
pub(crate) mod cache_file;
pub mod chunks;
pub mod guard;
mod heartbeat;
pub mod index;
mod index_copy;
pub mod items;
pub mod keys;
pub mod lock;
pub mod manifest;
pub mod open;
pub mod pack_writer;
pub mod pin;
pub mod session;
pub mod standing;

pub use buffers::BufferPool;
pub use chunks::ChunkReader;
pub use guard::WriteGuard;
pub use index::{IndexStamp, OpenIndex};
pub use keys::Keys;
pub use lock::{LockOptions, RepositoryLock};
pub use manifest::Manifest;
pub use open::{InitOptions, OpenOptions, Passphrase, Repository};
pub use session::Session;
pub use standing::{LockInfo, SessionInfo, Standing};

use std::time::{SystemTime, UNIX_EPOCH};

/// Key of the repository's parameters.
pub const CONFIG: &str = "config";
/// Key of the wrapped master keys.
pub const REPOKEY: &str = "keys/repokey";
/// Key of the chunk index.
pub const INDEX: &str = "index";
/// Key of the index generation's hint.
pub const INDEX_GENERATION: &str = "index.gen";

/// Key of a snapshot.
pub fn snapshot_key(id: &crate::SnapshotId) -> String {
    format!("snapshots/{id}")
}

/// Key of a pack.
pub fn pack_key(id: &crate::PackId) -> String {
    let name = id.to_string();
    format!("packs/{}/{name}", &name[..2])
}

/// Now, as the format writes times.
pub fn now_rfc3339() -> String {
    jiff::Timestamp::now().to_string()
}

/// Microseconds since the epoch.
pub(crate) fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}
