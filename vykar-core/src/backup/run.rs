//! One backup from the open repository to the published snapshot.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select, unbounded};
use serde_bytes::ByteBuf;

use super::progress::{Progress, previous_totals};
use super::{BackupOptions, BackupSummary};
use crate::backup::commit::item_writer::{ItemWriter, WrittenItems};
use crate::backup::commit::publish::{Published, Refusal};
use crate::backup::commit::retry::{BackupTask, BaseState};
use crate::backup::parent::known_files;
use crate::backup::parent::known_files::KnownFiles;
use crate::backup::pipeline::chunk_store::{ChunkStore, Sealer};
use crate::backup::pipeline::context::{Context, ContextParts};
use crate::backup::pipeline::scheduler::{Emitter, JOB_QUEUE, offer};
use crate::backup::pipeline::walk::SourceWalk;
use crate::backup::pipeline::worker::{Queues, ReadWorker};
use crate::backup::source::command;
use crate::error::{Result, VykarError};
use crate::event::emit;
use crate::event::{Event, Events};
use crate::format::{SnapshotMeta, SnapshotStats, snapshot};
use crate::platform::{self, process};
use crate::repository::objects::pack_writer::PackUploader;
use crate::repository::{Repository, now_rfc3339};
use crate::stage::Stage;

/// Pieces and jobs waiting for the item writer.
const ITEM_QUEUE: usize = 256;
/// How often [`Event::Progress`] is sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Most threads that read, and as many that list.
const MAX_THREADS: usize = 256;

/// A backup under way.
pub struct BackupRun<'r> {
    task: &'r BackupTask<'r>,
    repository: &'r Repository,
    options: &'r BackupOptions,
    ground: &'r BaseState,
    began: String,
    threads: usize,
    files: KnownFiles<'r>,
}

/// What was stored and is not published yet.
pub struct Stored {
    written: WrittenItems,
    ext: Option<ByteBuf>,
    special: u64,
    errors: u64,
    changed_files: u64,
    excluded: u64,
}

impl<'r> BackupRun<'r> {
    /// On the ground that an attempt stands on.
    pub fn prepare(task: &'r BackupTask<'r>, ground: &'r BaseState) -> Result<Self> {
        let BackupTask { repository, options, .. } = *task;
        let threads = platform::threads(options.threads, MAX_THREADS);
        let files = KnownFiles::new(repository, &task.identity, options)?;
        let began = now_rfc3339();
        Ok(BackupRun { task, repository, options, ground, began, threads, files })
    }

    /// Walks, reads and stores everything; all packs are durable when this returns.
    pub fn store(&self, events: &mut Events<'_>) -> Result<Stored> {
        let (sender, receiver) = unbounded();
        let context = Context::new(ContextParts {
            keys: self.repository.keys(),
            references: &self.ground.references,
            cache: self.files.open(),
            stages: &self.task.stages,
            read_xattrs: self.options.xattrs,
            reread: self.options.reread,
            filter: known_files::filter(self.options)?,
            report_excluded: self.options.report_excluded,
            report_stored: self.options.report_stored,
            base: self.task.sources.base(),
            excluded: known_files::own_places(self.repository),
            events: sender,
            cancel: self.options.cancel.clone(),
        });
        let (store, uploader) = self.ground.open_store(self.repository, &self.task.stages)?;
        let written = self.run_threads(&context, &store, &receiver, events);
        self.task.added.fetch_add(store.added_plain.load(Ordering::Relaxed), Ordering::Relaxed);
        self.task.added_stored.fetch_add(store.added_stored.load(Ordering::Relaxed), Ordering::Relaxed);
        let packed = finish_packs(written.is_ok() && !context.is_aborted(), store, uploader);
        // The last packs may have taken long, and somebody may have lost patience.
        context.is_aborted();
        if let Some(error) = VykarError::first_of(context.take_failure().into_iter().chain(packed.err())) {
            return Err(error);
        }
        let written = written?;
        let (ext, special) = context.extras.take()?;
        Ok(Stored {
            written,
            ext,
            special,
            errors: context.errors.load(Ordering::Relaxed),
            changed_files: context.changed_files.load(Ordering::Relaxed),
            excluded: context.excluded_entries.load(Ordering::Relaxed),
        })
    }

    fn run_threads(
        &self,
        context: &Context<'_>,
        store: &ChunkStore<'_>,
        received: &Receiver<Event>,
        events: &mut Events<'_>,
    ) -> Result<WrittenItems> {
        let mut pieces = self.task.sources.pieces(context)?;
        if !self.options.streams.is_empty() {
            pieces.push(command::pieces(context, &self.options.streams));
        }
        let (job_sender, jobs) = bounded(JOB_QUEUE);
        let (next_sender, next) = bounded(ITEM_QUEUE);
        let (queues, ask) = Queues::new(jobs, self.threads);
        let (finished, writing_ends) = bounded::<()>(0);
        let chunker = self.repository.config().chunker;
        let compression = self.options.compression;
        let walk = SourceWalk::new(context);
        offer(&walk, &pieces);
        let new_cache = self.files.writer();
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
                let work = move || match ReadWorker::new(context, store, queues, chunker, compression) {
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
        let Stored { written, ext, special, errors, changed_files, excluded } = stored;
        let counts = written.counts;
        let identity = &self.task.identity;
        let added_stored = self.task.added_stored.load(Ordering::Relaxed);
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
            ext,
            format_version: snapshot::FORMAT_VERSION,
        };
        let publish = || self.ground.publish(self.repository, &self.task.lock, &meta);
        let published = self.task.stages.time(Stage::Commit, publish);
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
            special,
            added: self.task.added.load(Ordering::Relaxed),
            added_stored,
            changed_while_read: changed_files,
            excluded,
            stages: self.task.stages.clone(),
        })
    }
}

/// Writes what is left, if there is to be a snapshot, and waits until all packs are durable.
pub fn finish_packs(complete: bool, store: ChunkStore<'_>, uploader: PackUploader) -> Result<()> {
    let closed = match complete {
        true => store.close(),
        false => {
            drop(store);
            Ok(())
        }
    };
    // The uploader says why nothing more could be written.
    let failures = [closed.err(), uploader.finish().err()];
    VykarError::first_of(failures.into_iter().flatten()).map_or(Ok(()), Err)
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
