//! The snapshot before, and what is known of its files.

pub(crate) mod known_files;
pub(crate) mod selection;
