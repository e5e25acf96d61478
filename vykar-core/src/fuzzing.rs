//! Ways in for the fuzz targets (docs/fuzzing.md) to parsers that are nobody else's business. Each takes any bytes,
//! and panics where its parser breaks a promise.

pub use crate::local_state::file_cache::fuzz::file_cache;
pub use crate::local_state::identity_pin::fuzz::pin;
pub use crate::local_state::index_cache::fuzz::index_copy;
pub use crate::local_state::rollback::fuzz::seen;
pub use crate::maintenance::repair::repair_note::fuzz::note;
pub use crate::maintenance::repair::salvage::fuzz::salvage;
pub use crate::maintenance::repair::survey::fuzz::pack_scan;
pub use crate::repository::lock::liveness::{judge_lock as lock, judge_session_marker as session};
pub use crate::restore::plan::fuzz::restore;
