//! What a check finds.

use crate::id::{ChunkId, PackId, SessionId, SnapshotId};

fn short_ids(snapshots: &[SnapshotId]) -> String {
    snapshots.iter().map(SnapshotId::short).collect::<Vec<_>>().join(", ")
}

/// What a finding means for the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is lost, or will be when maintenance trusts what is written.
    Damage,
    /// Written by a newer program: not understood here, and not wrong.
    Newer,
    /// Costs space at most.
    Harmless,
}

/// One thing that a check finds. Displayed as one line that names the object, and snapshot and path
/// where they are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// The parameters that the repository was opened with are not what is stored.
    #[error("config: {reason}")]
    ConfigUnusable {
        /// What is wrong with it.
        reason: String,
    },
    /// The chunk sizes in `config` are others than those that all snapshots were cut with.
    #[error(
        "config: chunks of {config}, and all snapshots were made with {snapshots} (harmless: less is shared with them)"
    )]
    ChunkSizesDiffer {
        /// The sizes in `config`.
        config: String,
        /// Those of the snapshots.
        snapshots: String,
    },
    /// The wrapped keys that the repository was opened with are not what is stored.
    #[error("keys/repokey: {reason}")]
    KeyUnusable {
        /// What is wrong with it.
        reason: String,
    },
    /// `index.gen` does not name the generation of the index. Local caches are then read anew once.
    #[error("index.gen: {reason} (harmless)")]
    IndexHintWrong {
        /// What is wrong with it.
        reason: String,
    },
    /// A folder, a link or a device where an object belongs, or all of a kind. No listing shows what should be there.
    #[error("{key}: not a file, and an object belongs there")]
    OddEntry {
        /// Where it is.
        key: String,
    },
    /// Something in the repository's folders that the format does not know.
    #[error("{key}: no object of a repository, {size} bytes (harmless)")]
    UnknownObject {
        /// Where it is.
        key: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A lock that nobody holds any more, or that cannot be read.
    #[error("{key}: left behind by {holder}; `vykar break-lock` removes it (harmless)")]
    LockLeft {
        /// The lock.
        key: String,
        /// Whose it was.
        holder: String,
    },
    /// A backup's marker that nobody keeps any more, or that cannot be read.
    #[error(
        "session {session}: left behind by {holder}; `vykar break-lock --sessions` removes it (harmless)"
    )]
    SessionLeft {
        /// The session.
        session: SessionId,
        /// Whose it was.
        holder: String,
    },
    /// A backup's journal that cannot be used: what it names is stored again.
    #[error("journal of session {session}: {reason} (harmless)")]
    JournalUnusable {
        /// The session.
        session: SessionId,
        /// What is wrong with it.
        reason: String,
    },
    /// Several snapshots have the same name, so that their ids must be given.
    #[error("snapshots {}: all named {name:?} (harmless)", short_ids(.snapshots))]
    NameTwice {
        /// The name.
        name: String,
        /// The snapshots.
        snapshots: Vec<SnapshotId>,
    },
    /// A snapshot has two items with the same path, of which one can be seen.
    #[error("snapshot {name} ({}), {path:?}: there twice (harmless)", .snapshot.short())]
    PathTwice {
        /// The first snapshot that has it.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// The path.
        path: String,
    },
    /// A snapshot shares damaged items with an earlier one, where they are named.
    #[error("snapshot {name} ({}): {items} damaged items that an earlier snapshot has too", .snapshot.short())]
    SnapshotAffected {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// How many.
        items: u64,
    },
    /// A pack that a newer program wrote.
    #[error("pack {pack}: {reason}")]
    PackNewer {
        /// The pack.
        pack: PackId,
        /// What gives it away.
        reason: String,
    },
    /// A snapshot that cannot be used.
    #[error("snapshot {snapshot}: {reason}")]
    SnapshotUnreadable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot that a newer program wrote.
    #[error("snapshot {snapshot}: {reason}")]
    SnapshotNewer {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What gives it away.
        reason: String,
    },
    /// The index cannot be used, so that no chunk can be found.
    #[error("index: {reason}")]
    IndexUnusable {
        /// What is wrong with it.
        reason: String,
    },
    /// Part of a snapshot's item stream cannot be read.
    #[error("snapshot {name} ({}): {reason}", .snapshot.short())]
    ItemsLost {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// How much is lost, and why.
        reason: String,
    },
    /// An item that breaks a rule of the format.
    #[error("snapshot {name} ({}), {path:?}: {reason}", .snapshot.short())]
    ItemInvalid {
        /// The first snapshot that has it.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// The item's path, where it could be read.
        path: String,
        /// The rule.
        reason: String,
    },
    /// An item that a newer program wrote.
    #[error("snapshot {name} ({}), {path:?}: {reason}", .snapshot.short())]
    ItemNewer {
        /// The first snapshot that has it.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// The item's path, where it could be read.
        path: String,
        /// What gives it away.
        reason: String,
    },
    /// A file whose content is not all there.
    #[error("snapshot {name} ({}), {path:?}: chunk {chunk}: {reason}", .snapshot.short())]
    FileDamaged {
        /// The first snapshot that has it.
        snapshot: SnapshotId,
        /// Its name.
        name: String,
        /// The file's path.
        path: String,
        /// The first of its chunks that is missing or damaged.
        chunk: ChunkId,
        /// What is wrong with that.
        reason: String,
    },
    /// A pack that the index names is not there.
    #[error("pack {pack}: missing, with {chunks} chunks")]
    PackMissing {
        /// The pack.
        pack: PackId,
        /// How many chunks the index places in it.
        chunks: u64,
    },
    /// A pack ends before chunks that the index places in it.
    #[error("pack {pack}: has {size} bytes, {chunks} chunks lie behind its end")]
    PackTooShort {
        /// The pack.
        pack: PackId,
        /// Its length in bytes.
        size: u64,
        /// How many chunks end behind it.
        chunks: u64,
    },
    /// A pack cannot be read.
    #[error("pack {pack}: {reason}")]
    PackUnreadable {
        /// The pack.
        pack: PackId,
        /// What the storage says.
        reason: String,
        /// The index names it.
        used: bool,
    },
    /// A pack's bytes are not what was written.
    #[error("pack {pack}: {reason}")]
    PackDamaged {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        reason: String,
        /// The index names it.
        used: bool,
    },
    /// A chunk that is not what the index says.
    #[error("chunk {chunk} in pack {pack}: {reason}")]
    ChunkDamaged {
        /// The chunk.
        chunk: ChunkId,
        /// The pack it should be in.
        pack: PackId,
        /// What is wrong with it.
        reason: String,
    },
    /// A chunk has more references than the index counts: maintenance could remove it too early.
    #[error("chunk {chunk}: {counted} references, the index counts {recorded}")]
    RefcountTooLow {
        /// The chunk.
        chunk: ChunkId,
        /// References found.
        counted: u32,
        /// References that the index has.
        recorded: u32,
    },
    /// A chunk has fewer references than the index counts: it will be kept longer than needed.
    #[error("chunk {chunk}: {counted} references, the index counts {recorded} (harmless)")]
    RefcountTooHigh {
        /// The chunk.
        chunk: ChunkId,
        /// References found.
        counted: u32,
        /// References that the index has.
        recorded: u32,
    },
    /// A chunk that no snapshot refers to.
    #[error("chunk {chunk}: no snapshot refers to it (harmless)")]
    ChunkUnreferenced {
        /// The chunk.
        chunk: ChunkId,
        /// Its pack.
        pack: PackId,
    },
    /// A pack that no index entry names, as an interrupted backup leaves it.
    #[error("pack {pack}: {size} bytes that the index does not name (harmless)")]
    PackUnreferenced {
        /// The pack.
        pack: PackId,
        /// Its length in bytes.
        size: u64,
    },
    /// An unfinished write, as a program that was killed leaves it.
    #[error("{name}: {size} bytes of an unfinished write (harmless)")]
    Leftover {
        /// Where it is in the repository.
        name: String,
        /// Its length in bytes.
        size: u64,
    },
}

impl Finding {
    /// The pack that it is about, where it is about one.
    pub fn pack(&self) -> Option<PackId> {
        match self {
            Finding::PackNewer { pack, .. }
            | Finding::PackMissing { pack, .. }
            | Finding::PackTooShort { pack, .. }
            | Finding::PackUnreadable { pack, .. }
            | Finding::PackDamaged { pack, .. }
            | Finding::ChunkDamaged { pack, .. } => Some(*pack),
            _ => None,
        }
    }

    /// What it means for the data.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::SnapshotNewer { .. } | Finding::ItemNewer { .. } | Finding::PackNewer { .. } => {
                Severity::Newer
            }
            Finding::IndexHintWrong { .. }
            | Finding::ChunkSizesDiffer { .. }
            | Finding::UnknownObject { .. }
            | Finding::LockLeft { .. }
            | Finding::SessionLeft { .. }
            | Finding::JournalUnusable { .. }
            | Finding::NameTwice { .. }
            | Finding::PathTwice { .. }
            | Finding::RefcountTooHigh { .. }
            | Finding::ChunkUnreferenced { .. }
            | Finding::PackUnreferenced { .. }
            | Finding::Leftover { .. }
            | Finding::PackUnreadable { used: false, .. }
            | Finding::PackDamaged { used: false, .. } => Severity::Harmless,
            Finding::ConfigUnusable { .. }
            | Finding::OddEntry { .. }
            | Finding::KeyUnusable { .. }
            | Finding::SnapshotAffected { .. }
            | Finding::SnapshotUnreadable { .. }
            | Finding::IndexUnusable { .. }
            | Finding::ItemsLost { .. }
            | Finding::ItemInvalid { .. }
            | Finding::FileDamaged { .. }
            | Finding::PackMissing { .. }
            | Finding::PackTooShort { .. }
            | Finding::PackUnreadable { .. }
            | Finding::PackDamaged { .. }
            | Finding::ChunkDamaged { .. }
            | Finding::RefcountTooLow { .. } => Severity::Damage,
        }
    }
}
