//! Ways in for the fuzz targets (docs/fuzzing.md) to parsers that are nobody else's business. Each takes any bytes,
//! and panics where its parser breaks a promise.

pub use crate::backup::filecache::fuzz::file_cache;
pub use crate::maintenance::repair::ext::fuzz::note;
pub use crate::maintenance::repair::salvage::fuzz::salvage;
pub use crate::maintenance::repair::survey::fuzz::pack_scan;
pub use crate::repository::index_copy::fuzz::index_copy;
pub use crate::repository::pin::fuzz::pin;
pub use crate::repository::seen::fuzz::seen;
pub use crate::repository::standing::{judge_lock as lock, judge_session_marker as session};
pub use crate::restore::plan::fuzz::restore;
