//! Looking at a repository, without a lock and without changing anything.

pub mod info;

pub use info::{RepositoryInfo, SnapshotsInfo, StoredInfo, info};
