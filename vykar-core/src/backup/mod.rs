//! Storing trees: walk, read, cut, name, store, and publish as a snapshot.
//!
//! ```text
//! listing threads --pieces--> emitter --jobs--> workers --blocks--> pack thread --packs--> sync thread
//!                                |                 |
//!                                +----in order---> item writer
//! ```
//!
//! A job is some files and what lies between them, or one large file, whose segments several workers share. Every
//! queue is bounded, so memory is.

pub(crate) mod commit;
mod parent;
pub(crate) mod pipeline;
mod preview;
mod progress;
pub(crate) mod run;
pub(crate) mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use self::preview::{Preview, preview};
use crate::backup::commit::retry::BackupTask;
pub use crate::backup::source::command::{DUMPS, OpenStream, Stream, StreamContent};
pub use crate::backup::source::exclude::Excludes;
pub use crate::backup::source::mounts::MOUNT_TYPE;
pub use crate::backup::source::set::Sources;
use crate::codec::Compression;
use crate::error::Result;
use crate::event::{Event, Events, emit};
use crate::format::SnapshotMeta;
use crate::id::SnapshotId;
use crate::repository::{LockOptions, Repository};
use crate::stage::Stages;
use crate::text::first_few;

/// Paths that a message names; it counts the others.
const NAMED: usize = 3;

/// What to store, and how.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Files and directories.
    pub sources: Vec<PathBuf>,
    /// Store what symlinks among the sources lead to. Without that only those with a slash behind them are followed.
    pub follow_sources: bool,
    /// Files that come from elsewhere; with some, there need be no sources.
    pub streams: Vec<Stream>,
    /// What people call this set of sources; by default the directory's name.
    pub label: Option<String>,
    /// Host name for the snapshot; by default this machine's.
    pub hostname: Option<String>,
    /// Free text.
    pub comment: String,
    /// For new chunks.
    pub compression: Compression,
    /// Threads that read files, and as many that list directories; 0 for one per processor.
    pub threads: usize,
    /// Store extended attributes and ACLs.
    pub xattrs: bool,
    /// What is left out.
    pub excludes: Excludes,
    /// Tell what is left out, and why, with [`Event::Excluded`].
    pub report_excluded: bool,
    /// Tell each file that was read, with [`Event::Stored`].
    pub report_stored: bool,
    /// Read all files again, also those that look unchanged.
    pub reread: bool,
    /// Look up what the previous snapshot of the same host, label and sources held, for
    /// [`Event::Progress`]. That reads all snapshots' metadata, beside the backup.
    pub estimate: bool,
    /// How long to wait for other programs' locks.
    pub lock: LockOptions,
    /// Set by the caller to end the backup early, with nothing published.
    pub cancel: Arc<AtomicBool>,
}

impl BackupOptions {
    /// Defaults for these sources.
    pub fn new(sources: Vec<PathBuf>) -> Self {
        BackupOptions {
            sources,
            follow_sources: false,
            streams: Vec::new(),
            label: None,
            hostname: None,
            comment: String::new(),
            compression: Compression::default(),
            threads: 0,
            xattrs: true,
            excludes: Excludes::default(),
            report_excluded: false,
            report_stored: false,
            reread: false,
            estimate: false,
            lock: LockOptions::default(),
            cancel: Arc::default(),
        }
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupSummary {
    /// The new snapshot.
    pub id: SnapshotId,
    /// Its metadata, name and counters included.
    pub meta: SnapshotMeta,
    /// Files that no earlier backup knew.
    pub new: u64,
    /// Files that differ from what the last backup saw.
    pub changed: u64,
    /// Files that were not read again.
    pub unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// FIFOs, sockets and device nodes.
    pub special: u64,
    /// Plaintext bytes of new chunks of file contents.
    pub added: u64,
    /// The same, as stored.
    pub added_stored: u64,
    /// Files that changed while they were read.
    pub changed_while_read: u64,
    /// Entries that were left out; what is in a directory that was is not counted.
    pub excluded: u64,
    /// Time spent in each stage.
    pub stages: Arc<Stages>,
}

impl BackupSummary {
    /// True when everything was stored as it was.
    pub fn is_complete(&self) -> bool {
        self.meta.stats.errors == 0 && self.changed_while_read == 0
    }

    /// Bytes of the files that were in the repository already, or more than once in them.
    pub fn deduplicated(&self) -> u64 {
        // What was read of a file that changed and was read again is added, and not part of the size.
        self.meta.stats.original_size.saturating_sub(self.added)
    }
}

/// Stores the sources as a new snapshot.
///
/// # Errors
/// Fails with nothing published on storage errors, when the lock cannot be had, or when cancelled. What was stored
/// by then is taken up by the next backup of the same sources.
/// Trouble with single files is reported as events and counted in the summary.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    mut events: Events<'_>,
) -> Result<BackupSummary> {
    let sources = resolve_sources(options, &mut events)?;
    BackupTask::new(repository, options, &sources)?.run(&mut events)
}

/// The paths that are asked for; none where everything comes from streams.
fn resolve_sources(options: &BackupOptions, events: &mut Events<'_>) -> Result<Sources> {
    options.streams.iter().try_for_each(Stream::check)?;
    if options.sources.is_empty() && !options.streams.is_empty() {
        return Ok(Sources::none());
    }
    let sources = Sources::resolve(&options.sources, options.follow_sources)?;
    if !sources.covered.is_empty() {
        emit(events, Event::Note(format!("{}: stored with another source", some(&sources.covered))));
    }
    if !sources.links.is_empty() {
        let hint = "stored as symlinks, without what they lead to; a slash behind a path asks for that";
        emit(events, Event::Note(format!("{}: {hint}", some(&sources.links))));
    }
    Ok(sources)
}

/// The first of some paths, and how many more there are.
fn some(paths: &[PathBuf]) -> String {
    first_few(paths.iter().map(|path| path.display()), NAMED, ", ")
}
