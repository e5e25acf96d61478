//! Looking at a repository, without a lock and without changing anything.

pub mod diff;
pub mod facts;
pub mod find;
pub mod info;
pub mod pattern;
mod timeline;

pub use diff::{Change, ChangeKind, DiffReport, DiffSummary, diff};
pub use facts::{Aspect, Facts};
pub use find::{FindOptions, FindReport, FoundPath, SnapshotSeries, find};
pub use info::{RepositoryInfo, SnapshotsInfo, StoredInfo, info};
pub use pattern::Pattern;
pub use timeline::{PathState, PathVersion};
