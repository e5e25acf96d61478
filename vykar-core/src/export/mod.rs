//! Handing out what is in a snapshot as a stream of bytes: the content of a file, or a folder as a tar archive.

pub mod archive;
pub mod content;
mod header;
mod survey;

pub use archive::{ArchiveSummary, archive};
pub use content::{ContentReader, Lookup, lookup};

use std::io;

use crate::error::VykarError;

/// Why a stream ends early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The repository failed.
    #[error(transparent)]
    Repository(Box<VykarError>),
    /// A part of a file cannot be read. What came before it was right.
    #[error("{path}: {source}")]
    File {
        /// The path in the snapshot, for display.
        path: String,
        /// What happened.
        source: Box<VykarError>,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl From<VykarError> for ExportError {
    fn from(e: VykarError) -> Self {
        ExportError::Repository(Box::new(e))
    }
}
