//! Snapshots of one repository copied into another.
//!
//! Each chunk is read and verified, named by the key of the other repository, and stored there unless it is there
//! already. Files stay cut as they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::backup::pipeline::chunk_store::{ChunkStore, Sealer};
use crate::codec::Compression;
use crate::error::{ObjectError, Result, VykarError};
use crate::event::{Event, Events};
use crate::format::note::{COPIED_FROM, noted, with_note};
use crate::format::special::is_special;
use crate::format::{ChunkRef, Item, Snapshot, SnapshotMeta};
use crate::id::{ChunkId, SnapshotId};
use crate::platform;
use crate::repository::objects::pack_writer::PackKind;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};
use crate::repository::{LockOptions, Manifest, ReadChunk, RefreshingReader, Repository, snapshot_key};
use crate::snapshot_ops::{Maker, ReadWatch, SnapshotBuilder, emit, unreadable};

/// A batch is copied when its files have so many bytes, or it has so many items.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_ITEMS: usize = 4096;
/// CopiedChunks whose names in both repositories are remembered, about 100 bytes each; others are read once more.
const REMEMBERED: usize = 4 << 20;
/// Most threads.
const MAX_THREADS: usize = 256;

/// How snapshots are copied.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// For new chunks.
    pub compression: Compression,
    /// Threads that read and store chunks; 0 for one per processor.
    pub threads: usize,
    /// How long to wait for locks of the other repository.
    pub lock: LockOptions,
    /// Set by the caller to end it early; what is copied by then stays.
    pub cancel: Arc<AtomicBool>,
}

/// Which snapshots are to be copied.
#[derive(Debug, Default)]
pub struct CopyPlan {
    /// Oldest first.
    pub wanted: Vec<Snapshot>,
    /// Those that are in the other repository already.
    pub there: Vec<Snapshot>,
}

/// A snapshot that was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The one that was read.
    pub from: SnapshotId,
    /// Its name.
    pub from_name: String,
    /// The copy.
    pub id: SnapshotId,
    /// Its metadata, name and counters included.
    pub meta: SnapshotMeta,
    /// Paths that could not be read.
    pub lost: u64,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// In the order of the plan.
    pub copied: Vec<Copied>,
    /// Those whose items cannot all be read: nothing of them is copied.
    pub failed: Vec<SnapshotId>,
    /// Those that another program copied meanwhile.
    pub there: Vec<SnapshotId>,
}

impl CopyReport {
    /// True when everything was copied as it is.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.copied.iter().all(|copied| copied.lost == 0)
    }
}

/// Finds out which of these snapshots are not in the other repository: neither they nor copies of them, nor what they
/// were copied from.
///
/// # Errors
/// The snapshots of the other repository cannot be listed.
pub fn plan_copy(to: &Repository, mut snapshots: Vec<Snapshot>) -> Result<CopyPlan> {
    let manifest = Manifest::load(to)?;
    let ids = manifest.snapshots.iter().map(|s| s.id).chain(manifest.unreadable.iter().map(|(id, _)| *id));
    let copies = manifest.snapshots.iter().filter_map(|s| noted(&s.meta, COPIED_FROM));
    let there: HashSet<SnapshotId> = ids.chain(copies).collect();
    snapshots.sort_by_key(|s| (s.time, s.id));
    snapshots.dedup_by_key(|s| s.id);
    let is_there = |s: &Snapshot| {
        there.contains(&s.id) || noted(&s.meta, COPIED_FROM).is_some_and(|from| there.contains(&from))
    };
    let (there, wanted) = snapshots.into_iter().partition(is_there);
    Ok(CopyPlan { wanted, there })
}

/// Copies snapshots, one after the other; each is published when it is complete.
///
/// Tells [`Event::Progress`] for each, [`Event::ItemSkipped`] for each path that is damaged and left out, and
/// [`Event::SnapshotUnreadable`] for each snapshot that cannot be copied.
///
/// # Errors
/// On failures of storage, of either repository, and when interrupted. What was copied by then is there, and what was
/// stored of the next one is taken up the next time.
pub fn copy_snapshots(
    (from, to): (&Repository, &Repository),
    snapshots: &[Snapshot],
    options: &CopyOptions,
    mut events: Events<'_>,
) -> Result<CopyReport> {
    let mut copy = CopyRun::new(from, to, options)?;
    let mut report = CopyReport::default();
    for snapshot in snapshots {
        match copy.snapshot(snapshot, &mut events) {
            Ok(copied) => report.copied.push(copied),
            Err(VykarError::SnapshotUnusable { snapshot, cause }) => {
                let reason = format!("not copied: {cause}");
                emit(&mut events, Event::SnapshotUnreadable { snapshot, reason });
                report.failed.push(snapshot);
            }
            Err(VykarError::AlreadyCopied { snapshot, .. }) => report.there.push(snapshot),
            Err(e) => return Err(e),
        }
    }
    Ok(report)
}

/// A copy under way.
struct CopyRun<'c> {
    from: &'c Repository,
    maker: Maker<'c>,
    cancel: &'c AtomicBool,
    chunks: CopiedChunks<'c>,
    sealers: Vec<Sealer>,
}

impl<'c> CopyRun<'c> {
    fn new(from: &'c Repository, to: &'c Repository, options: &'c CopyOptions) -> Result<Self> {
        let CopyOptions { compression, cancel, .. } = options;
        let threads = platform::threads(options.threads, MAX_THREADS);
        let sealers = (0..threads).map(|_| Sealer::new(*compression));
        Ok(CopyRun {
            from,
            maker: Maker::new(to, from, (&options.lock, cancel), *compression)?,
            cancel,
            chunks: CopiedChunks { reader: RefreshingReader::new(from)?, known: RwLock::default() },
            sealers: sealers.collect::<Result<_>>()?,
        })
    }

    fn snapshot(&mut self, snapshot: &Snapshot, events: &mut Events<'_>) -> Result<Copied> {
        let ext = snapshot.meta.ext.as_ref().map(|ext| &ext[..]);
        let ext = with_note(ext, (COPIED_FROM, &snapshot.id), &mut |_| true)?;
        let meta = SnapshotMeta { ext, ..snapshot.meta.clone() };
        let CopyRun { from, maker, cancel, chunks, sealers } = self;
        let mut lost = 0;
        let mut fill = |making: &mut SnapshotBuilder<'_>, events: &mut Events<'_>| {
            let watch = ReadWatch::new(cancel, snapshot);
            let batch = Batch { chunks, sealers, watch, id: snapshot.id, items: Vec::new(), bytes: 0 };
            batch.fill(snapshot, making, events)?;
            lost = making.stats.errors;
            // Deleted meanwhile, or all of it out of reach: then it is not these files that are damaged.
            if lost > 0 && !from.backend().exists(&snapshot_key(&snapshot.id))? {
                return Err(VykarError::SnapshotNotFound { wanted: snapshot.id.to_string() });
            }
            Ok(())
        };
        let made = maker.make(&meta, &mut fill, events)?;
        let from_name = snapshot.meta.name.clone();
        Ok(Copied { from: snapshot.id, from_name, id: made.id, meta: made.meta, lost })
    }
}

/// Items that are copied at once, by several threads.
struct Batch<'b, 'c> {
    chunks: &'b CopiedChunks<'c>,
    sealers: &'b mut Vec<Sealer>,
    watch: ReadWatch<'b>,
    id: SnapshotId,
    items: Vec<Item<'static>>,
    bytes: u64,
}

impl Batch<'_, '_> {
    fn fill(
        mut self,
        snapshot: &Snapshot,
        making: &mut SnapshotBuilder<'_>,
        events: &mut Events<'_>,
    ) -> Result<()> {
        let id = self.id;
        for_each_item(&self.chunks.reader, snapshot, &mut |found| {
            match found {
                // They are in the metadata, which is copied.
                FoundItem::Item(item) if is_special(item.kind) => {}
                FoundItem::Item(item) => {
                    self.bytes = self.bytes.saturating_add(item.size);
                    self.items.push(item.into_owned());
                    if self.bytes >= BATCH_BYTES || self.items.len() >= BATCH_ITEMS {
                        self.flush(making, events)?;
                    }
                }
                FoundItem::Problem(problem) => {
                    let path = problem.path().to_owned();
                    making.lose();
                    emit(events, Event::ItemSkipped { snapshot: id, path, reason: problem.to_string() });
                }
                FoundItem::Lost(Loss { reason, .. }) => return Err(unreadable(id, reason)),
            }
            Ok(true)
        })?;
        self.flush(making, events)
    }

    /// Copies the chunks of all items, and adds the items in their order.
    fn flush(&mut self, making: &mut SnapshotBuilder<'_>, events: &mut Events<'_>) -> Result<()> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        let wanted: Vec<ChunkRef> = items.iter().flat_map(|item| item.chunks.iter().copied()).collect();
        let mut copied = self.copy(&wanted, making.store)?.into_iter();
        for mut item in items {
            let mut there = Vec::with_capacity(item.chunks.len());
            let mut damage = None;
            for chunk in copied.by_ref().take(item.chunks.len()) {
                match chunk {
                    Some(Ok(chunk)) => there.push(chunk),
                    Some(Err(e)) => damage = Some(e.to_string()),
                    None => return Err(VykarError::Interrupted),
                }
            }
            self.watch.done(&item, events)?;
            if let Some(reason) = damage {
                making.references.remove(&there);
                making.lose();
                let path = item.path.into_owned();
                emit(events, Event::ItemSkipped { snapshot: self.id, path, reason });
                continue;
            }
            item.chunks = there;
            making.add(&item)?;
        }
        Ok(())
    }

    /// Copies chunks. Those that are damaged in the source are errors of their own.
    fn copy(&mut self, wanted: &[ChunkRef], store: &ChunkStore<'_>) -> Result<Vec<Option<Result<ChunkRef>>>> {
        let threads = wanted.len().min(self.sealers.len());
        let Some((own, others)) = self.sealers[..threads].split_first_mut() else { return Ok(Vec::new()) };
        let (chunks, cancel) = (self.chunks, self.watch.cancel);
        let next = AtomicUsize::new(0);
        let work = |sealer: &mut Sealer| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = wanted.get(at) else { return Ok(done) };
                if cancel.load(Ordering::Relaxed) {
                    return Err(VykarError::Interrupted);
                }
                match chunks.copy(chunk, store, sealer) {
                    Err(e) if !is_damage(&e) => {
                        // Nobody needs to begin another one.
                        next.store(wanted.len(), Ordering::Relaxed);
                        return Err(e);
                    }
                    result => done.push((at, result)),
                }
            }
        };
        let all = std::thread::scope(|scope| {
            let start = |sealer| {
                let thread = std::thread::Builder::new().name("vykar-copy".into());
                // Fewer do as well: this one works too.
                thread.spawn_scoped(scope, || work(sealer)).ok()
            };
            let threads: Vec<_> = others.iter_mut().filter_map(start).collect();
            let mut all = vec![work(own)];
            let died = |_| Err(VykarError::Usage("a copying thread panicked".into()));
            all.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)));
            all
        });
        let mut copied: Vec<Option<Result<ChunkRef>>> = wanted.iter().map(|_| None).collect();
        let mut failure = None;
        for part in all {
            match part {
                Ok(done) => done.into_iter().for_each(|(at, chunk)| copied[at] = Some(chunk)),
                Err(e) => VykarError::keep_first(&mut failure, e),
            }
        }
        failure.map_or(Ok(copied), Err)
    }
}

/// Damage to a chunk, which stays, and not a failure of the storage, which may pass.
fn is_damage(error: &VykarError) -> bool {
    match error {
        VykarError::ChunkMissing { .. } => true,
        VykarError::ChunkDamaged { cause, .. } => !matches!(cause, ObjectError::OutOfReach(_)),
        _ => false,
    }
}

/// The source's chunks.
struct CopiedChunks<'c> {
    reader: RefreshingReader<'c>,
    /// What those that were read are called in the other repository, and how long they are.
    known: RwLock<HashMap<ChunkId, (ChunkId, u32)>>,
}

impl CopiedChunks<'_> {
    /// Stores a chunk, or finds it, and counts one reference to it.
    fn copy(&self, chunk: &ChunkRef, store: &ChunkStore<'_>, sealer: &mut Sealer) -> Result<ChunkRef> {
        let known = self.known.read().get(&chunk.id).copied();
        if let Some((id, size)) = known
            && size == chunk.size
            && let Some(stored_size) = store.references().add_known(&id)?
        {
            return Ok(ChunkRef { id, size, stored_size });
        }
        let data = self.reader.read_chunk(&chunk.id)?;
        if data.len() as u64 != u64::from(chunk.size) {
            let reason = format!("holds {} bytes, its item says {}", data.len(), chunk.size);
            let pack = self.reader.locate(&chunk.id)?.pack;
            let cause = ObjectError::Unreadable(reason);
            return Err(VykarError::ChunkDamaged { chunk: chunk.id, pack, cause });
        }
        let [id] = store.names(&[&data])[..] else { return Err(VykarError::Interrupted) };
        let mut known = self.known.write();
        if known.len() < REMEMBERED {
            known.insert(chunk.id, (id, chunk.size));
        }
        drop(known);
        store.put(sealer, PackKind::Data, id, &data)
    }
}
