//! Snapshots that are made of other snapshots: their items come from there instead of from a file system, and go the way
//! of every backup, with a session, a journal, and a commit under the lock.

mod copy;
mod rewrite;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::copy::{Copied, CopyOptions, CopyPlan, CopyReport, copy_snapshots, plan_copy};
pub use self::rewrite::{RewriteOptions, Rewritten, rewrite};
use crate::backup::commit::item_writer::StreamWriter;
use crate::backup::commit::publish::{Published, Refusal};
use crate::backup::commit::references::BackupReferences;
use crate::backup::commit::retry::{Attempts, BaseState};
use crate::backup::pipeline::chunk_store::{ChunkStore, Sealer};
use crate::backup::pipeline::context::stored_bytes;
use crate::backup::run::finish_packs;
use crate::codec::Compression;
use crate::error::{ObjectError, Result, VykarError};
use crate::event::emit;
use crate::event::{Event, Events, Totals};
use crate::format::{Item, ItemType, Snapshot, SnapshotMeta, SnapshotStats, snapshot, wire};
use crate::id::{ChunkId, SnapshotId};
use crate::repository::{Claims, LockOptions, Repository};
use crate::stage::{Stage, Stages};

/// How often [`Event::Progress`] is sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Kind of the names of [`Claims`]; backups have others.
const CLAIMS: u8 = 3;

/// Makes snapshots in a repository.
struct Maker<'m> {
    repository: &'m Repository,
    claims: Claims,
    lock: LockOptions,
    compression: Compression,
    stages: Arc<Stages>,
}

/// Gives the items of a snapshot; once more when something that was stored is gone.
type Fill<'f> = &'f mut dyn FnMut(&mut SnapshotBuilder<'_>, &mut Events<'_>) -> Result<()>;

impl<'m> Maker<'m> {
    /// For snapshots that are made of those of `from`. With `cancel` set, nothing is waited for any more.
    fn new(
        repository: &'m Repository,
        from: &Repository,
        (lock, cancel): (&LockOptions, &Arc<AtomicBool>),
        compression: Compression,
    ) -> Result<Self> {
        let key = [&[CLAIMS][..], &from.config().id.0].concat();
        let name = ChunkId(repository.keys().hasher().local(b"vykarfcn", &[&key])?).short();
        Ok(Maker {
            repository,
            claims: Claims::new(repository, name),
            lock: LockOptions { cancel: cancel.clone(), ..lock.clone() },
            compression,
            stages: Arc::default(),
        })
    }

    /// Makes a snapshot with this metadata, but for items and counters.
    fn make(&self, meta: &SnapshotMeta, fill: Fill<'_>, events: &mut Events<'_>) -> Result<Published> {
        let Maker { repository, claims, lock, stages, .. } = self;
        let added = AtomicU64::new(0);
        Attempts { repository, claims, lock, stages }.run(events, &mut |ground, events| {
            let (pointers, mut stats) = self.store(ground, &added, fill, events)?;
            stats.errors = stats.errors.saturating_add(meta.stats.errors);
            let meta = SnapshotMeta {
                item_ptrs: pointers,
                stats,
                // What an older program wrote is written in full.
                format_version: snapshot::FORMAT_VERSION,
                ..meta.clone()
            };
            let published = stages.time(Stage::Commit, || ground.publish(repository, lock, &meta))?;
            if let Some(warning) = &published.warning {
                emit(events, Event::Note(warning.clone()));
            }
            Ok::<_, Refusal>(published)
        })
    }

    /// All packs are durable when this returns.
    fn store(
        &self,
        ground: &BaseState,
        added: &AtomicU64,
        fill: Fill<'_>,
        events: &mut Events<'_>,
    ) -> Result<(Vec<ChunkId>, SnapshotStats)> {
        let (store, uploader) = ground.open_store(self.repository, &self.stages)?;
        let filled = Sealer::new(self.compression).and_then(|sealer| {
            let stream = StreamWriter::new(&store, sealer);
            let stats = SnapshotStats::default();
            let mut making = SnapshotBuilder { store: &store, references: &ground.references, stream, stats };
            fill(&mut making, events)?;
            Ok((making.stream.finish()?, making.stats))
        });
        added.fetch_add(store.added_stored.load(Ordering::Relaxed), Ordering::Relaxed);
        let packed = finish_packs(filled.is_ok(), store, uploader);
        let (pointers, stats) = match (filled, packed) {
            (Ok(made), Ok(())) => made,
            (filled, packed) => {
                let failures = [filled.err(), packed.err()];
                let why = VykarError::first_of(failures.into_iter().flatten());
                return Err(why.unwrap_or(VykarError::Interrupted));
            }
        };
        Ok((pointers, SnapshotStats { deduplicated_size: added.load(Ordering::Relaxed), ..stats }))
    }
}

/// A snapshot that is being made.
struct SnapshotBuilder<'m> {
    store: &'m ChunkStore<'m>,
    references: &'m BackupReferences,
    stream: StreamWriter<'m>,
    stats: SnapshotStats,
}

impl SnapshotBuilder<'_> {
    /// Adds an item, to whose chunks the references are counted already.
    fn add(&mut self, item: &Item<'_>) -> Result<()> {
        if item.kind == ItemType::RegularFile {
            let stats = &mut self.stats;
            stats.nfiles = stats.nfiles.saturating_add(1);
            stats.original_size = stats.original_size.saturating_add(item.size);
            stats.compressed_size = stats.compressed_size.saturating_add(stored_bytes(&item.chunks));
        }
        self.stream.push(&wire::encode("item", item)?);
        self.stream.cut_full()
    }

    /// Counts a path that is left out because it cannot be read.
    fn lose(&mut self) {
        self.stats.errors = self.stats.errors.saturating_add(1);
    }
}

/// Tells how far the reading of a snapshot is, and notices when it is to end.
struct ReadWatch<'w> {
    cancel: &'w AtomicBool,
    told: Instant,
    files: u64,
    bytes: u64,
    expected: Totals,
}

impl<'w> ReadWatch<'w> {
    fn new(cancel: &'w AtomicBool, snapshot: &Snapshot) -> Self {
        let stats = &snapshot.meta.stats;
        let expected = Totals { files: stats.nfiles, bytes: stats.original_size };
        ReadWatch { cancel, told: Instant::now(), files: 0, bytes: 0, expected }
    }

    /// An item is done.
    fn done(&mut self, item: &Item<'_>, events: &mut Events<'_>) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(VykarError::Interrupted);
        }
        if item.kind == ItemType::RegularFile {
            self.files = self.files.saturating_add(1);
            self.bytes = self.bytes.saturating_add(item.size);
        }
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            let path = Some(Path::new(&*item.path).to_owned());
            let (files, bytes, expected) = (self.files, self.bytes, Some(self.expected));
            emit(events, Event::Progress { files, bytes, path, expected });
        }
        Ok(())
    }
}

/// A snapshot whose items cannot all be read.
fn unreadable(snapshot: SnapshotId, reason: String) -> VykarError {
    VykarError::SnapshotUnusable { snapshot, cause: ObjectError::Unreadable(reason) }
}
