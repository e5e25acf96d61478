//! Ways in for the fuzz targets (docs/fuzzing.md) to parsers that are nobody else's business. Each takes any bytes,
//! and panics where its parser breaks a promise.

pub use crate::session::mountpoint::fuzz::mountinfo;
pub use crate::tree::fuzz::tree;
pub use crate::versions::copy::fuzz::versions_copy;
pub use crate::view::layout::fuzz::template;
