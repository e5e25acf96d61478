//! One backup from the open repository to the published snapshot.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select, unbounded};

use super::attempt::Task;
use super::commit::{Commit, Published, Refusal};
use super::context::{Context, Parts};
use super::emit::{Emitter, JOB_QUEUE, offer};
use super::filecache::{self, FileCache, FileCacheWriter, Record, Records};
use super::progress::{Progress, previous_totals};
use super::references::References;
use super::store::{ChunkStore, Sealer};
use super::walk::Walk;
use super::worker::{Queues, Worker};
use super::writer::{ItemWriter, Written};
use super::{BackupOptions, BackupSummary, emit};
use crate::error::{Result, VykarError};
use crate::event::{Event, Events};
use crate::format::wire::Reader;
use crate::format::{Item, Snapshot, SnapshotMeta, SnapshotStats, snapshot};
use crate::id::SessionId;
use crate::platform::process;
use crate::repository::items::{Found, for_each_item};
use crate::repository::pack_writer::{PackOutput, PackUploader, PackWriter};
use crate::repository::{
    Journal, Leftovers, Manifest, MovingReader, OpenIndex, Repository, Session, now_rfc3339,
};
use crate::stage::Stage;

/// Pieces and jobs waiting for the item writer.
const ITEM_QUEUE: usize = 256;
/// How often [`Event::Progress`] is sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Most threads that read, and as many that list.
const MAX_THREADS: usize = 256;

/// A backup under way.
pub struct Run<'r> {
    task: &'r Task<'r>,
    repository: &'r Repository,
    options: &'r BackupOptions,
    session: Arc<Session>,
    base: OpenIndex,
    references: Arc<References>,
    /// What this backup has stored.
    pub journal: Arc<Journal>,
    began: String,
    threads: usize,
    cache_path: Option<PathBuf>,
}

/// What was stored and is not published yet.
pub struct Stored {
    written: Written,
    root: Option<Vec<u8>>,
    errors: u64,
    changed_files: u64,
}

impl<'r> Run<'r> {
    /// Reads the index, and takes up what unfinished backups left: those of the same sources, and those of `before`.
    pub fn prepare(
        task: &'r Task<'r>,
        session: Arc<Session>,
        before: &[SessionId],
        events: &mut Events<'_>,
    ) -> Result<Self> {
        let Task { repository, options, .. } = *task;
        let base = task.stages.time(Stage::Index, || repository.open_index())?;
        let left = Leftovers::find(repository, &task.claims, session.id(), before)?;
        let (taken, notes) = left.read(&base.index)?;
        let taken = Arc::new(taken);
        let references = Arc::new(References::new(base.index.clone(), taken.clone()));
        let journal = Arc::new(Journal::new(session.clone(), references.clone(), taken.clone()));
        match journal.write() {
            // Only when our journal names their packs.
            Ok(()) => left.remove(&task.claims),
            // Too much for one journal: theirs stay.
            Err(VykarError::Encode { .. }) => {}
            Err(e) => return Err(e),
        }
        notes.into_iter().for_each(|note| emit(events, Event::Note(note)));
        if before.is_empty() && !taken.is_empty() {
            let packs = taken.packs().count();
            emit(events, Event::Note(format!("{packs} pack(s) of an unfinished backup are taken up")));
        }
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
        .min(MAX_THREADS);
        // One file cache for each host, label and set of sources.
        let cache_path = match repository.cache_dir() {
            Some(dir) => {
                let name = task.identity.name(repository.keys().hasher(), u8::from(options.xattrs))?;
                Some(dir.join(format!("files-{name}")))
            }
            None => None,
        };
        let began = now_rfc3339();
        Ok(Run { task, repository, options, session, base, references, journal, began, threads, cache_path })
    }

    /// The cache of the last run, or one made from the previous snapshot of these sources.
    fn open_cache(&self) -> FileCache {
        let hasher = self.repository.keys().hasher();
        let Some(path) = &self.cache_path else { return FileCache::empty(hasher.clone()) };
        let id = self.repository.config().id;
        let open = || FileCache::open(path, &id, hasher);
        open()
            .or_else(|| {
                self.rebuild_cache(path).ok()?;
                open()
            })
            .unwrap_or_else(|| FileCache::empty(hasher.clone()))
    }

    fn rebuild_cache(&self, path: &Path) -> Result<()> {
        let manifest = Manifest::load(self.repository)?;
        let is_ours = |s: &&Snapshot| self.task.identity.is_of(s);
        let Some(previous) = manifest.snapshots.iter().rev().find(is_ours) else { return Ok(()) };
        let began = i64::try_from(previous.time.as_nanosecond()).unwrap_or(0);
        let hasher = self.repository.keys().hasher();
        let failed = |e| VykarError::path(path, e);
        let mut cache = FileCacheWriter::create(path, self.repository.config().id, hasher).map_err(failed)?;
        let reader = MovingReader::new(self.repository)?;
        for_each_item(&reader, previous, &mut |found| {
            if let Found::Item(item) = found
                && let Some(record) = record_of(&item, hasher, began)?
            {
                let mut records = Records::default();
                records.add(&record, hasher)?;
                cache.add(&records).map_err(failed)?;
            }
            Ok(true)
        })?;
        cache.finish().map_err(failed)
    }

    /// Directories that are never stored: the repository, and its local cache, which this very
    /// backup writes.
    fn excluded(&self) -> Vec<(u64, u64, &'static str)> {
        let place = |path: &Path, what| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), what));
        let repository = self.repository.backend().local_path();
        let repository = repository.and_then(|path| place(path, "the repository itself"));
        let cache = self.repository.cache_dir().and_then(|dir| {
            // Before it is looked for: this backup may be the first to make it.
            let _ = std::fs::create_dir_all(&dir);
            place(&dir, "the local cache of the repository")
        });
        repository.into_iter().chain(cache).collect()
    }

    /// Walks, reads and stores everything; all packs are durable when this returns.
    pub fn store(&self, events: &mut Events<'_>) -> Result<Stored> {
        let (sender, receiver) = unbounded();
        let context = Context::new(Parts {
            keys: self.repository.keys(),
            references: &self.references,
            cache: self.open_cache(),
            stages: &self.task.stages,
            read_xattrs: self.options.xattrs,
            base: self.task.sources.base(),
            excluded: self.excluded(),
            events: sender,
            cancel: self.options.cancel.clone(),
        });
        let output = PackOutput {
            backend: self.repository.backend().clone(),
            journal: self.journal.clone(),
            stages: self.task.stages.clone(),
        };
        let data_packs = self.references.base.chunks.packs().len();
        let (packs, uploader) = PackWriter::start(output, self.repository.config(), data_packs)?;
        let store = ChunkStore::new(self.repository.keys(), &self.references, packs, &self.task.stages);
        let written = self.run_threads(&context, &store, &receiver, events);
        self.task.added.fetch_add(store.added_plain.load(Ordering::Relaxed), Ordering::Relaxed);
        self.task.added_stored.fetch_add(store.added_stored.load(Ordering::Relaxed), Ordering::Relaxed);
        let packed = finish_packs(written.is_ok() && !context.is_aborted(), store, uploader);
        // The last packs may have taken long, and somebody may have lost patience.
        context.is_aborted();
        if let Some(error) = context.take_failure() {
            return Err(error);
        }
        let written = written?;
        packed?;
        Ok(Stored {
            written,
            root: context.take_root(),
            errors: context.errors.load(Ordering::Relaxed),
            changed_files: context.changed_files.load(Ordering::Relaxed),
        })
    }

    fn run_threads(
        &self,
        context: &Context<'_>,
        store: &ChunkStore<'_>,
        received: &Receiver<Event>,
        events: &mut Events<'_>,
    ) -> Result<Written> {
        let pieces = self.task.sources.pieces(context)?;
        let (job_sender, jobs) = bounded(JOB_QUEUE);
        let (next_sender, next) = bounded(ITEM_QUEUE);
        let (queues, ask) = Queues::new(jobs, self.threads);
        let (finished, writing_ends) = bounded::<()>(0);
        let chunker = self.repository.config().chunker;
        let compression = self.options.compression;
        let walk = Walk::new(context);
        offer(&walk, &pieces);
        let new_cache = self.cache_path.as_deref().and_then(|path| {
            FileCacheWriter::create(path, self.repository.config().id, context.hasher()).ok()
        });
        let item_writer = ItemWriter::new(context, store, Sealer::new(compression)?, new_cache);
        std::thread::scope(|scope| {
            let (walk, queues) = (&walk, &queues);
            let named = |name: &str| std::thread::Builder::new().name(format!("vykar-{name}"));
            let writing = named("items").spawn_scoped(scope, move || {
                let written = context.ok(item_writer.run(next));
                drop(finished);
                written
            });
            let mut started = writing.as_ref().map(drop).map_err(std::io::Error::kind);
            for number in 0..self.threads {
                let ask = ask.clone();
                let work = move || match Worker::new(context, store, queues, chunker, compression) {
                    Ok(mut worker) => worker.run(ask),
                    Err(e) => {
                        context.abort(e);
                        // Jobs must not wait for workers that never were.
                        queues.jobs.iter().for_each(drop);
                    }
                };
                let worker = named("read").spawn_scoped(scope, work).map_err(|e| e.kind());
                // Fewer do as well, as long as there is one. Without listing threads the emitter
                // lists by itself.
                if number == 0 {
                    started = started.and(worker.map(drop));
                }
                let _ = named("list").spawn_scoped(scope, move || walk.list_ahead());
            }
            drop(ask);
            if self.options.estimate {
                let _ = named("estimate").spawn_scoped(scope, || self.estimate(&context.progress));
            }
            if started.is_ok() {
                let emitting = named("walk").spawn_scoped(scope, move || {
                    Emitter::new(&job_sender, &next_sender, walk.max_handles()).run(context, walk, pieces);
                    walk.close();
                });
                started = emitting.map(drop).map_err(|e| e.kind());
            } else {
                drop((job_sender, next_sender));
            }
            if let Err(kind) = started {
                // What was started ends: its queues have.
                context.abort(VykarError::path("thread", std::io::Error::from(kind)));
                walk.close();
            }
            pass_on_until(context, received, events, &writing_ends);
            match writing.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(Some(written))) => Ok(written),
                // The reason is in the context.
                _ => Err(VykarError::Interrupted),
            }
        })
    }

    /// Without the totals of the last time nobody knows how long this takes, that is all.
    fn estimate(&self, progress: &Progress) {
        let found = previous_totals(self.repository, |s| self.task.identity.is_of(s), || progress.is_over());
        if let Ok(Some(totals)) = found {
            progress.expect(totals);
        }
    }

    /// Makes a snapshot of what was stored.
    pub fn publish(&self, stored: Stored, events: &mut Events<'_>) -> Result<BackupSummary, Refusal> {
        let Stored { written, root, errors, changed_files } = stored;
        let counts = written.counts;
        let identity = &self.task.identity;
        let added_stored = self.task.added_stored.load(Ordering::Relaxed);
        let root = root.as_deref().and_then(|bytes| Item::decode(&mut Reader::new(bytes)).ok()?.ok());
        let meta = SnapshotMeta {
            name: String::new(),
            hostname: identity.hostname.clone(),
            username: process::user_name(),
            time: self.began.clone(),
            time_end: now_rfc3339(),
            chunker: self.repository.config().chunker,
            comment: self.options.comment.clone(),
            item_ptrs: written.pointers,
            stats: SnapshotStats {
                nfiles: counts.files,
                original_size: counts.bytes,
                compressed_size: counts.stored_bytes,
                deduplicated_size: added_stored,
                errors,
            },
            source_label: identity.label.clone(),
            source_paths: identity.paths.clone(),
            label: String::new(),
            ext: snapshot::encode_ext(root.as_ref())?,
            format_version: snapshot::FORMAT_VERSION,
        };
        let commit = Commit {
            repository: self.repository,
            session: &self.session,
            base: &self.base,
            references: &self.references,
            packs: &self.journal.packs(),
            lock: &self.task.lock,
        };
        let published = self.task.stages.time(Stage::Commit, || commit.publish(&meta));
        // It says what was read, whatever becomes of this backup: whoever uses it looks whether the chunks are there.
        // Without it the next backup reads more, that is all.
        if let Some(cache) = written.cache {
            let _ = cache.finish();
        }
        let Published { id, meta, warning } = published?;
        if let Some(warning) = warning {
            emit(events, Event::Note(warning));
        }
        Ok(BackupSummary {
            id,
            meta,
            new: counts.new,
            changed: counts.changed,
            unchanged: counts.unchanged,
            directories: counts.directories,
            symlinks: counts.symlinks,
            added: self.task.added.load(Ordering::Relaxed),
            added_stored,
            changed_while_read: changed_files,
            stages: self.task.stages.clone(),
        })
    }
}

fn finish_packs(complete: bool, store: ChunkStore<'_>, uploader: PackUploader) -> Result<()> {
    let closed = match complete {
        true => store.close(),
        false => {
            drop(store);
            Ok(())
        }
    };
    let finished = uploader.finish();
    closed.and(finished)
}

/// What a snapshot's item says about a file, as a record of the file cache.
fn record_of(item: &Item<'_>, hasher: &crate::crypto::ChunkHasher, began: i64) -> Result<Option<Record>> {
    let (crate::format::ItemType::RegularFile, Some(ctime)) = (item.kind, item.ctime) else {
        return Ok(None);
    };
    Ok(Some(Record {
        path: filecache::path_hash(hasher, item.path_bytes())?,
        size: item.size,
        mtime: item.mtime,
        ctime,
        inode: None,
        // The snapshot may lack what could not be read then.
        has_xattrs: true,
        chunks: item.chunks.clone(),
        settled: filecache::is_settled(ctime, began),
    }))
}

/// Passes events on to the caller, and progress now and then, until `end` disconnects.
fn pass_on_until(
    context: &Context<'_>,
    received: &Receiver<Event>,
    events: &mut Events<'_>,
    end: &Receiver<()>,
) {
    let ticks = crossbeam_channel::tick(PROGRESS_EVERY);
    loop {
        select! {
            recv(received) -> event => {
                if let Ok(event) = event {
                    emit(events, event);
                }
            },
            recv(ticks) -> _ => emit(events, context.progress_event()),
            recv(end) -> _ => break,
        }
    }
    received.try_iter().for_each(|event| emit(events, event));
    context.progress.end();
    emit(events, context.progress_event());
}
