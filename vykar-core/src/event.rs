//! What an operation tells its caller while it runs.

use std::fmt;
use std::path::PathBuf;

use crate::id::SnapshotId;

/// Why something is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclusion {
    /// A rule of the caller.
    Pattern(String),
    /// A rule of a `.gitignore` file.
    GitIgnore(String),
    /// It holds an entry of this name.
    Marker(String),
    /// It is marked as a cache.
    Cache,
    /// It is on another file system.
    FileSystem,
    /// It is a larger file than wanted: its bytes.
    Large(u64),
    /// Something else is stored under its name.
    Replaced,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exclusion::Pattern(rule) => write!(f, "the rule `{rule}`"),
            Exclusion::GitIgnore(rule) => write!(f, "the rule `{rule}` of a .gitignore"),
            Exclusion::Marker(name) => write!(f, "it holds `{name}`"),
            Exclusion::Cache => f.write_str("it is marked as a cache (CACHEDIR.TAG)"),
            Exclusion::FileSystem => f.write_str("another file system"),
            Exclusion::Large(size) => write!(f, "too large ({size} bytes)"),
            Exclusion::Replaced => f.write_str("the output of commands is stored under this name"),
        }
    }
}

/// A thing worth telling while an operation runs. Operations never print; a caller renders these.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A source path could not be stored (vanished, unreadable); the rest of the tree goes on.
    SourceFailed {
        /// The path as walked.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A source path was stored without a part of its metadata.
    SourceIncomplete {
        /// The path as walked.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file changed while it was read, twice; what was read is stored.
    SourceChanged {
        /// The path as walked.
        path: PathBuf,
    },
    /// A folder was left out on purpose (the repository itself, its local cache).
    Skipped {
        /// The path as walked.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of the source that was read is stored.
    Stored {
        /// The path as walked.
        path: PathBuf,
        /// New or changed, as far as earlier backups tell.
        what: Planned,
        /// Bytes of its content.
        size: u64,
    },
    /// Something in the source was left out because a rule says so.
    Excluded {
        /// The path as walked.
        path: PathBuf,
        /// Which rule.
        why: Exclusion,
    },
    /// Something that a backup would store, in a preview of one.
    Planned {
        /// The path as walked; of a stream, in the snapshot.
        path: PathBuf,
        /// What it is, and what would become of it.
        what: Planned,
        /// Bytes of a file's content.
        size: u64,
    },
    /// How far a running backup, restore or check is.
    Progress {
        /// Regular files done; packs, in a check.
        files: u64,
        /// Bytes of content done, those of files that are not done yet included. A file that must be read
        /// twice counts twice.
        bytes: u64,
        /// What is worked on: in the source, or inside the snapshot. `None` before the first one and after
        /// the last.
        path: Option<PathBuf>,
        /// What `files` and `bytes` will come to: exactly in a restore, and in a backup what the previous
        /// snapshot of the same sources held, if that was asked for.
        expected: Option<Totals>,
    },
    /// An item of a snapshot that breaks a rule of the format, or cannot be decoded; left out.
    ItemSkipped {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The item's path, as far as it is known.
        path: String,
        /// Which rule.
        reason: String,
    },
    /// Something that a restore would make, in a dry run.
    PlannedRestore {
        /// The path inside the snapshot.
        path: PathBuf,
        /// What would become of it.
        what: Restoring,
    },
    /// A path could not be restored completely.
    RestoreFailed {
        /// The path inside the snapshot.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Restored, but part of its metadata (owner, an attribute) could not be set.
    RestoreIncomplete {
        /// The path inside the snapshot.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// What was there already is as in the snapshot, but for some of its metadata, and was left as it is.
    RestoreKept {
        /// The path inside the snapshot.
        path: PathBuf,
        /// What differs: owner, mode, attributes.
        reason: String,
    },
    /// A snapshot object that cannot be used.
    SnapshotUnreadable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What happened.
        reason: String,
    },
    /// Anything else worth a line.
    Note(String),
}

/// What a backup would do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// Read a file that no earlier backup knew.
    New,
    /// Read a file that looks different from what the last backup saw.
    Changed,
    /// Refer to what the last backup stored.
    Unchanged,
    /// Store a directory.
    Directory,
    /// Store a symlink.
    Symlink,
    /// Store a FIFO, a socket or a device node.
    Special,
    /// Read what a program hands over.
    Stream,
}

/// What a restore would do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoring {
    /// Make it.
    Make,
    /// Put it in the place of what is there.
    Replace,
    /// Leave what is there.
    Keep,
}

/// The size of a whole operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// Where an operation's events go.
pub type Events<'a> = Option<&'a mut dyn FnMut(Event)>;

/// Tells an event to whoever listens.
pub(crate) fn emit(events: &mut Events<'_>, event: Event) {
    if let Some(listener) = events {
        listener(event);
    }
}
