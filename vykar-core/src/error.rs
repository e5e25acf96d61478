//! Errors: one enum per layer, a variant per cause.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::{ChunkId, PackId, SnapshotId};

/// The result of most calls in this crate.
pub type Result<T, E = VykarError> = std::result::Result<T, E>;

/// Bytes that do not follow the repository format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end inside a value.
    #[error("{what}: ends too early")]
    Truncated {
        /// The value being read.
        what: &'static str,
    },
    /// Another type than the format says.
    #[error("{what}: unexpected type (marker {marker:#04x})")]
    Type {
        /// The value being read.
        what: &'static str,
        /// The MessagePack marker found.
        marker: u8,
    },
    /// A length or number outside its bounds.
    #[error("{what}: {found} is outside {min}..={max}")]
    OutOfBounds {
        /// The value being read.
        what: &'static str,
        /// What was found.
        found: u64,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// Written by a newer program: kept, never called damaged.
    #[error("{what}: written by a newer version of the program ({detail})")]
    Newer {
        /// The object.
        what: &'static str,
        /// What gives it away.
        detail: String,
    },
    /// Anything else that a rule of the format forbids.
    #[error("{what}: {reason}")]
    Invalid {
        /// The value being read.
        what: &'static str,
        /// The rule that is broken.
        reason: String,
    },
}

/// Why an index or a journal could not be decoded while it was decompressed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It does not follow the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It does not decompress.
    #[error(transparent)]
    Read(io::Error),
}

impl From<IndexError> for ObjectError {
    fn from(error: IndexError) -> ObjectError {
        match error {
            IndexError::Format(e) => e.into(),
            IndexError::Read(e) => match e.downcast::<CodecError>() {
                Ok(e) => e.into(),
                Err(e) => CodecError::Corrupt { codec: "zstd", reason: e.to_string() }.into(),
            },
        }
    }
}

/// Sealing, opening and key derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// An object's tag byte names another kind.
    #[error("object tag {found}, expected {expected}")]
    WrongTag {
        /// The kind asked for.
        expected: u8,
        /// The kind found.
        found: u8,
    },
    /// Shorter than any sealed object.
    #[error("only {len} bytes, shorter than any sealed object")]
    TooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// The authentication tag does not match: damaged, or not what it claims to be.
    #[error("authentication failed: damaged, or not the object it is named as")]
    Authentication,
    /// The passphrase does not unwrap the key.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The library or the system's random source failed.
    #[error("{what} failed: {reason}")]
    Internal {
        /// The step.
        what: &'static str,
        /// The library's own words.
        reason: String,
    },
}

/// Compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The payload's first byte names no known codec.
    #[error("unknown compression codec {codec:#04x}")]
    UnknownCodec {
        /// The byte found.
        codec: u8,
    },
    /// Would expand beyond the bound.
    #[error("expands to more than {max} bytes")]
    TooLarge {
        /// The bound in bytes.
        max: u64,
    },
    /// The codec refuses the bytes.
    #[error("{codec}: {reason}")]
    Corrupt {
        /// The codec.
        codec: &'static str,
        /// Its own words.
        reason: String,
    },
}

/// A storage operation.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No object under this key.
    #[error("{key}: no such object")]
    NotFound {
        /// The key.
        key: String,
    },
    /// An exclusive write found the key taken.
    #[error("{key}: exists already")]
    AlreadyExists {
        /// The key.
        key: String,
    },
    /// A key that this storage does not accept.
    #[error("{key:?}: not a valid object key")]
    InvalidKey {
        /// The key.
        key: String,
    },
    /// The object is shorter than the range asked for.
    #[error("{key}: ends before byte {end}")]
    Short {
        /// The key.
        key: String,
        /// The first byte behind the range.
        end: u64,
    },
    /// Larger than a caller accepts to load.
    #[error("{key}: {size} bytes, more than the {max} accepted")]
    TooLarge {
        /// The key.
        key: String,
        /// The object's size in bytes.
        size: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// The storage has no room left.
    #[error("{key}: no space left in the repository's storage")]
    Full {
        /// The key being written.
        key: String,
        /// The system's error.
        source: io::Error,
    },
    /// The storage refuses: rights or credentials.
    #[error("cannot {operation} {key}: {source}")]
    Denied {
        /// What was being done.
        operation: &'static str,
        /// The key.
        key: String,
        /// The system's error.
        source: io::Error,
    },
    /// The storage does not answer, or the line to it is down.
    #[error("cannot {operation} {key}: the storage is out of reach: {source}")]
    Unreachable {
        /// What was being done.
        operation: &'static str,
        /// The key.
        key: String,
        /// The system's error.
        source: io::Error,
    },
    /// The storage asks for fewer requests, and went on doing so.
    #[error("cannot {operation} {key}: the storage asks to slow down")]
    Throttled {
        /// What was being done.
        operation: &'static str,
        /// The key.
        key: String,
    },
    /// Anything else the system reports.
    #[error("cannot {operation} {key}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The key.
        key: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Any error of the repository and the operations on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VykarError {
    /// The storage failed.
    #[error("repository storage: {0}")]
    Storage(#[from] StorageError),
    /// There is no repository at this place.
    #[error("{url}: no repository here ({reason})")]
    NotARepository {
        /// Where.
        url: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// Init found a repository.
    #[error("{url}: a repository exists here already")]
    AlreadyARepository {
        /// Where.
        url: String,
    },
    /// Init found other things.
    #[error("{url}: holds other files and is not an empty folder")]
    NotEmpty {
        /// Where.
        url: String,
    },
    /// Something about the arguments.
    #[error("{0}")]
    Usage(String),
    /// The passphrase does not open the repository.
    #[error("wrong passphrase for {url}")]
    WrongPassphrase {
        /// Where.
        url: String,
    },
    /// The caller's source of the passphrase failed.
    #[error("no passphrase: {reason}")]
    NoPassphrase {
        /// Why.
        reason: String,
    },
    /// The repository under this URL is another one than last time.
    #[error("{url}: not the repository that was here before ({detail})")]
    IdentityChanged {
        /// Where.
        url: String,
        /// What differs.
        detail: String,
    },
    /// An earlier state of the repository has come back.
    #[error("{url}: {detail}")]
    RolledBack {
        /// Where.
        url: String,
        /// How that was seen.
        detail: String,
    },
    /// Snapshots may be there that are not seen now, and what they refer to would be taken away.
    #[error("not all snapshots may be there: {reason}; nothing was changed")]
    SnapshotsMissing {
        /// How that was seen.
        reason: String,
        /// A person may say that it is meant ([`crate::repository::OpenOptions::trust`]).
        may_trust: bool,
    },
    /// What is to be deleted may be somebody else's.
    #[error(
        "{folder} is a link that leads out of the repository, and what lies there may be another one's; nothing was changed"
    )]
    LeadsOut {
        /// The folder.
        folder: String,
    },
    /// An object that is there cannot be used.
    #[error("{key}: {cause}")]
    Damaged {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        cause: ObjectError,
    },
    /// A part of the repository is not where it was, and nothing proves that it is lost.
    #[error("{part} is out of reach: {reason}")]
    OutOfReach {
        /// What it is.
        part: String,
        /// How that was seen.
        reason: String,
    },
    /// No index beside snapshots.
    #[error("index: missing although the repository has snapshots")]
    IndexMissing,
    /// A chunk is not in the index.
    #[error("chunk {chunk}: not in the index")]
    ChunkMissing {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk is in the index and cannot be read.
    #[error("chunk {chunk} in pack {pack}: {cause}")]
    ChunkDamaged {
        /// The chunk.
        chunk: ChunkId,
        /// The pack that should hold it.
        pack: PackId,
        /// What is wrong.
        cause: ObjectError,
    },
    /// No snapshot matches.
    #[error("snapshot {wanted:?}: not found")]
    SnapshotNotFound {
        /// What was asked for.
        wanted: String,
    },
    /// Several snapshots match.
    #[error("snapshot {wanted:?}: matches {}", .matches.join(", "))]
    SnapshotAmbiguous {
        /// What was asked for.
        wanted: String,
        /// Names and ids of those that match.
        matches: Vec<String>,
    },
    /// The snapshot is there and cannot be used.
    #[error("snapshot {snapshot}: {cause}")]
    SnapshotUnusable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        cause: ObjectError,
    },
    /// Backups are running, so maintenance may not.
    #[error("{} backup session(s) are running: {}", .sessions.len(), .sessions.join("; "))]
    ActiveSessions {
        /// One line each.
        sessions: Vec<String>,
    },
    /// Somebody else holds the repository's lock.
    #[error("the repository is locked by {holder} (waited {} s)", .waited.as_secs())]
    Locked {
        /// Host and process.
        holder: String,
        /// How long this program waited.
        waited: Duration,
    },
    /// The lock that this process held is gone.
    #[error("the repository lock was lost: {reason}; nothing was written after that")]
    LockLost {
        /// How that was seen.
        reason: String,
    },
    /// What a program hands over to be stored is not all there.
    #[error("{path}: {reason}; nothing was published")]
    Stream {
        /// Its path in the snapshot.
        path: String,
        /// What happened.
        reason: String,
    },
    /// What the commit relies on is gone.
    #[error("cannot commit: {reason}; nothing was published, run the backup again")]
    CommitRefused {
        /// What is missing.
        reason: String,
    },
    /// The repository is not in a state in which anything may be taken away.
    #[error("the repository is not sound: {reason}; nothing was changed")]
    Unsound {
        /// What is wrong.
        reason: String,
    },
    /// Nothing, or hardly anything, is what it should be, so that the keys or the parameters are wrong and not the data.
    #[error("{reason}: `config` or the key is wrong, and not the data; nothing was changed")]
    KeysDoubtful {
        /// How that was seen.
        reason: String,
    },
    /// A repair would do harm, or cannot help.
    #[error("not repaired: {reason}; nothing was changed")]
    RepairRefused {
        /// Why.
        reason: String,
    },
    /// An exported key is not this repository's.
    #[error("not imported: {reason}; nothing was changed")]
    KeyRefused {
        /// Why.
        reason: String,
    },
    /// A source path or destination failed as a whole.
    #[error("{}: {source}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Sealing or key derivation failed on our side.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Encoding failed on our side.
    #[error("cannot encode {what}: {reason}")]
    Encode {
        /// The structure.
        what: &'static str,
        /// The library's own words.
        reason: String,
    },
    /// Another program copied the same snapshot meanwhile.
    #[error("snapshot {} is there already, copied as {}", .snapshot.short(), .copy.short())]
    AlreadyCopied {
        /// The one that was read.
        snapshot: SnapshotId,
        /// The one that is there.
        copy: SnapshotId,
    },
    /// The operation was asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The repository is not what the caller was shown, and agreed to.
    #[error("{reason}; nothing was changed")]
    Changed {
        /// What is different.
        reason: String,
    },
    /// Something that cannot be undone was done in part.
    #[error("{done}; then it failed: {source}")]
    Unfinished {
        /// What was done, and what that means.
        done: String,
        /// What came then.
        source: Box<VykarError>,
    },
}

/// Why an object that is there cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It does not follow the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It does not open.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// It does not decompress.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its bytes hash to something else than its name.
    #[error("content does not match its id")]
    WrongId,
    /// It is not there, or not in full, or cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The storage failed while handing it out: it may well be whole.
    #[error("{0}")]
    OutOfReach(String),
}

impl ObjectError {
    /// True for what a newer program wrote: unsupported, never damaged.
    pub fn is_newer(&self) -> bool {
        matches!(self, ObjectError::Format(FormatError::Newer { .. }))
    }
}

impl VykarError {
    /// A [`VykarError::Damaged`] for the object under `key`.
    pub fn damaged(key: impl Into<String>, cause: impl Into<ObjectError>) -> Self {
        VykarError::Damaged { key: key.into(), cause: cause.into() }
    }

    /// True for what was read and is wrong, or is gone for certain. Everything else may pass: a disk that is not mounted, a
    /// network that is down.
    pub fn is_damage(&self) -> bool {
        match self {
            VykarError::ChunkMissing { .. } => true,
            VykarError::ChunkDamaged { cause, .. }
            | VykarError::Damaged { cause, .. }
            | VykarError::SnapshotUnusable { cause, .. } => {
                // What a newer program wrote is whole.
                !matches!(cause, ObjectError::OutOfReach(_)) && !cause.is_newer()
            }
            _ => false,
        }
    }

    /// A [`VykarError::Path`].
    pub fn path(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        VykarError::Path { path: path.into(), source: source.into() }
    }

    /// Keeps the failure that says why, where several threads leave theirs. The first one stays, but for
    /// [`VykarError::Interrupted`], with which threads end that another one's failure has stopped: it gives way to any
    /// other.
    pub fn keep_first(kept: &mut Option<VykarError>, failure: VykarError) {
        if matches!(kept, None | Some(VykarError::Interrupted)) {
            *kept = Some(failure);
        }
    }

    /// The one of several failures that says why, as [`VykarError::keep_first`] chooses it.
    pub fn first_of(failures: impl IntoIterator<Item = VykarError>) -> Option<VykarError> {
        let mut kept = None;
        failures.into_iter().for_each(|failure| Self::keep_first(&mut kept, failure));
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_first_that_says_why_is_kept() {
        let usage = |text: &str| VykarError::Usage(text.into());
        let kept =
            |failures: Vec<VykarError>| VykarError::first_of(failures).map(|failure| failure.to_string());
        let interrupted = || VykarError::Interrupted;
        assert_eq!(kept(vec![]), None);
        assert_eq!(kept(vec![interrupted(), interrupted()]).as_deref(), Some("interrupted"));
        let one = usage("one").to_string();
        assert_eq!(kept(vec![interrupted(), usage("one"), interrupted(), usage("two")]), Some(one.clone()));
        assert_eq!(kept(vec![usage("one"), interrupted()]), Some(one));
    }
}
