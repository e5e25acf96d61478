//! Exit codes, and the error that carries one.

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use vykar_core::error::ObjectError;
use vykar_core::repository::{CONFIG, REPOKEY};
use vykar_core::{StorageError, VykarError};

use crate::context;

/// What to do when the storage fails and nothing is known to be damaged.
const OUT_OF_REACH: &str = "see that the whole repository is there and may be read: a disk that is not mounted, a link that \
                            leads nowhere, permissions";

/// What the exit code says to a script. Documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Success = 0,
    /// Failed for a reason that has no code of its own.
    Failure = 1,
    /// Wrong arguments (clap uses the same code).
    Usage = 2,
    /// Done, but some files could not be stored or restored as they are, or are lost to a repair.
    Partial = 3,
    /// Wrong or missing passphrase.
    Passphrase = 4,
    /// Locked, or backups are running.
    Locked = 5,
    /// No repository at this place, or not the one that was there before.
    NoRepository = 6,
    /// The repository is damaged.
    Damaged = 7,
    /// The repository's storage failed, or is full: it is not the source's fault.
    Storage = 8,
    /// The repository changed while it was looked at: run the command again.
    Changed = 9,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    const ALL: [Exit; 11] = [
        Exit::Success,
        Exit::Failure,
        Exit::Usage,
        Exit::Partial,
        Exit::Passphrase,
        Exit::Locked,
        Exit::NoRepository,
        Exit::Damaged,
        Exit::Storage,
        Exit::Changed,
        Exit::Interrupted,
    ];

    /// Of two that were reached one after the other: the first that is not success, but that a failure comes before
    /// what is done in part.
    pub fn and(self, next: Exit) -> Exit {
        match (self, next) {
            (Exit::Success, next)
            | (Exit::Partial, next @ (Exit::Failure | Exit::Damaged | Exit::Changed)) => next,
            (first, _) => first,
        }
    }

    /// Of a command that only reads: all that it should, or not, and then because something is damaged or is out of reach.
    pub fn of_reading(complete: bool, out_of_reach: bool) -> Self {
        match (complete, out_of_reach) {
            (true, _) => Exit::Success,
            (false, false) => Exit::Damaged,
            (false, true) => Exit::Storage,
        }
    }

    /// The one with this code; [`Exit::Failure`] for a code that this program does not use.
    pub fn from_code(code: i32) -> Self {
        Exit::ALL.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Exit::Failure)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error with its exit code and, where there is one, what to do next.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    exit: Exit,
    is_full: bool,
}

impl CliError {
    /// True when the storage has no room.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// An error without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        CliError { message: message.into(), hint: None, exit, is_full: false }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what it is about in front.
    pub fn context(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do next.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<VykarError> for CliError {
    fn from(e: VykarError) -> Self {
        use VykarError as V;
        if let V::Unfinished { done, source } = e {
            let CliError { message, hint, exit, is_full } = CliError::from(*source);
            return CliError { message: format!("{done}; then it failed: {message}"), hint, exit, is_full };
        }
        let (exit, hint) = match &e {
            V::Usage(_) => (Exit::Usage, None),
            V::NotARepository { .. } => (
                Exit::NoRepository,
                Some(
                    "check the path given with -R; `vykar -R PATH init` makes a new repository, and `vykar key import` \
                     gives one its config back",
                ),
            ),
            V::AlreadyARepository { .. } => {
                (Exit::Failure, Some("to store something in it, use `vykar backup`"))
            }
            V::NotEmpty { .. } => {
                (Exit::Failure, Some("give an empty folder, or one that does not exist yet"))
            }
            V::WrongPassphrase { .. } => (
                Exit::Passphrase,
                Some(
                    "it may have been changed since; if it is certainly right, keys/repokey may be damaged: `vykar key \
                     import`",
                ),
            ),
            // At the prompt.
            V::NoPassphrase { .. } if context::interrupts().load(Ordering::Relaxed) => {
                (Exit::Interrupted, None)
            }
            V::NoPassphrase { .. } => (
                Exit::Passphrase,
                Some("set VYKAR_PASSPHRASE, give --passphrase-file or --passcommand, or run on a terminal"),
            ),
            V::IdentityChanged { .. } => (
                Exit::NoRepository,
                Some("if the repository was really replaced, accept the new one with --trust-repo"),
            ),
            V::RolledBack { .. } => (
                Exit::NoRepository,
                Some(
                    "if it was restored from a copy, accept it with --trust-repo; if not, do not write to it",
                ),
            ),
            V::Damaged { cause, .. } | V::SnapshotUnusable { cause, .. } if cause.is_newer() => {
                (Exit::Failure, Some("use a newer version of this program"))
            }
            V::Damaged { key, .. } if key == CONFIG || key == REPOKEY => (
                Exit::Damaged,
                Some("`vykar key import` puts back what `vykar key export` wrote; else take it from a copy"),
            ),
            V::OutOfReach { .. } => (Exit::Storage, Some(OUT_OF_REACH)),
            V::ChunkDamaged { cause: ObjectError::OutOfReach(_), .. } => (Exit::Storage, Some(OUT_OF_REACH)),
            V::Damaged { .. }
            | V::IndexMissing
            | V::ChunkMissing { .. }
            | V::ChunkDamaged { .. }
            | V::SnapshotUnusable { .. } => (
                Exit::Damaged,
                Some("`vykar check` lists all damage, and with --repair shows what can be done"),
            ),
            V::Unsound { .. } => (
                Exit::Damaged,
                Some(
                    "`vykar check --verify-data` lists all damage, `vykar check --repair` shows what can be done; \
                     nothing is taken away before that",
                ),
            ),
            V::KeysDoubtful { .. } => (
                Exit::Damaged,
                Some(
                    "put `config` and `keys/repokey` back from a copy of the repository, or with `vykar key import`; \
                     nothing is deleted or repaired before that",
                ),
            ),
            V::SnapshotsMissing { may_trust: true, .. } => (
                Exit::Damaged,
                Some(
                    "see that the whole repository is there: a disk that is not mounted, a copy that is not complete. If \
                     they are gone on purpose, or deleting them was cut off, say so with --trust-repo",
                ),
            ),
            V::SnapshotsMissing { .. } => {
                (Exit::Damaged, Some("see that the whole repository is there, with all snapshots as files"))
            }
            V::LeadsOut { .. } => {
                (Exit::Failure, Some("if all of it is this repository's, say so with --trust-repo"))
            }
            V::Changed { .. } => (Exit::Changed, Some("look at it again, and then decide")),
            V::SnapshotNotFound { .. } => (Exit::Failure, Some("`vykar list` shows what there is")),
            V::SnapshotAmbiguous { .. } => (Exit::Failure, Some("give more digits of the id")),
            V::ActiveSessions { .. } => (
                Exit::Locked,
                Some(
                    "try again when they are done; `vykar break-lock --sessions` shows them and removes what is left \
                     of backups that are not running",
                ),
            ),
            V::Locked { .. } => (
                Exit::Locked,
                Some(
                    "try again when it is done; `vykar break-lock` removes a lock whose program is not running",
                ),
            ),
            V::LockLost { .. } => (Exit::Locked, Some("try again when the other program is done")),
            V::Storage(StorageError::Full { .. }) => (
                Exit::Storage,
                Some(
                    "make room there (`vykar prune`, then `vykar compact`), and run this again: what a backup has \
                     stored is taken up",
                ),
            ),
            V::Storage(StorageError::Throttled { .. }) => (Exit::Storage, Some("run this again later")),
            V::Storage(
                StorageError::Io { .. } | StorageError::Denied { .. } | StorageError::Unreachable { .. },
            ) => (
                Exit::Storage,
                Some(
                    "the repository's disk, its permissions or the connection to it are at fault, not the source",
                ),
            ),
            V::Interrupted => (Exit::Interrupted, None),
            V::Path { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
                (Exit::Failure, Some("give a folder, or a path that does not exist yet"))
            }
            V::Path { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                (Exit::Failure, Some("check the path; nothing was stored or restored"))
            }
            _ => (Exit::Failure, None),
        };
        let is_full = matches!(e, V::Storage(StorageError::Full { .. }));
        CliError { message: e.to_string(), hint: hint.map(str::to_owned), exit, is_full }
    }
}

/// What commands return.
pub type CliResult<T = Exit> = Result<T, CliError>;
