//! A repository: objects of the format in a storage backend, under one set of keys.

pub mod handle;
pub mod lock;
pub mod objects;
pub mod read;
pub mod resume;
pub mod snapshot_query;

pub use crate::local_state::rollback::RollbackWarning;
pub use crate::repository::handle::keys::Keys;
pub use crate::repository::handle::open::{InitOptions, OpenOptions, Passphrase, Repository};
pub use crate::repository::lock::liveness::{Liveness, LockInfo, SessionInfo};
pub use crate::repository::lock::repository_lock::{LockOptions, RepositoryLock};
pub use crate::repository::lock::session::Session;
pub use crate::repository::lock::write_guard::WriteGuard;
pub use crate::repository::objects::index::{IndexStamp, OpenIndex};
pub use crate::repository::objects::layout::KeyKind;
pub use crate::repository::objects::lost_packs::{LostPacks, pack_sizes};
pub use crate::repository::objects::manifest::Manifest;
pub use crate::repository::read::buffer_pool::BufferPool;
pub use crate::repository::read::chunk_reader::ChunkReader;
pub use crate::repository::read::refreshing_reader::{ReadChunk, RefreshingReader};
pub use crate::repository::resume::abandoned::{AbandonedSessions, RecoveredChunks};
pub use crate::repository::resume::claims::Claims;
pub use crate::repository::resume::session_journal::Journal;
pub use crate::repository::snapshot_query::SnapshotQuery;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::format::MAX_METADATA_PLAINTEXT;

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

/// What is to be said about a metadata object whose plaintext has this many bytes: from 3 GiB on, since 4 GiB are
/// refused ([`MAX_METADATA_PLAINTEXT`]).
pub fn metadata_warning(key: &str, len: u64) -> Option<String> {
    let gib = len as f64 / (1u64 << 30) as f64;
    (len >= MAX_METADATA_PLAINTEXT / 4 * 3).then(|| {
        format!(
            "{key}: {gib:.1} GiB before compression, and no more than 4 GiB can be read: begin another repository"
        )
    })
}

/// Now, as the format writes times.
pub fn now_rfc3339() -> String {
    crate::clock::now().to_string()
}

/// Microseconds since the epoch.
pub(crate) fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_nears_its_bound_is_warned_about() {
        assert_eq!(metadata_warning("index", (3 << 30) - 1), None);
        let text = metadata_warning("index", 3 << 30).unwrap();
        assert!(text.starts_with("index: 3.0 GiB"), "{text}");
    }
}
