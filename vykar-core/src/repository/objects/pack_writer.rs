//! Collects sealed chunks into packs and writes those behind the callers' backs.
//!
//! ```text
//! callers --blocks--> pack thread (writes them) --whole packs--> sync thread (names them, makes them durable)
//! ```
//!
//! A pack is never in memory as a whole: what is filled goes to the storage in blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::crypto::pack_ids;
use crate::error::{Result, VykarError};
use crate::format::RepoConfig;
use crate::format::pack::{HEADER, MAX_BLOBS, MAX_TREE_PACK};
use crate::id::PackId;
use crate::repository::{Journal, pack_key};
use crate::stage::{Stage, Stages};
use crate::storage::{Backend, Upload};

/// A pack closes at this age, so that a slow backup's journal stays fresh.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Bytes that are collected before they are handed on.
const BLOCK: usize = 1 << 20;
/// Blocks that may wait for the pack thread.
const QUEUE: usize = 3;
/// Empty ones that are kept for the next chunks.
const SPARE: usize = 2;
/// Whole packs that may wait for the sync thread.
const SYNC_QUEUE: usize = 2;
/// So many packs are named at a time, which takes little longer than one, or so many bytes of packs.
const NAMED_AT_ONCE: usize = 4;
const BYTES_AT_ONCE: u64 = 256 << 20;
/// How long a pack waits for others.
const NAMED_AFTER: Duration = Duration::from_secs(1);

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackKind {
    /// File contents.
    Data,
    /// Item streams.
    Tree,
}

/// Where a chunk's object is in the packs of this backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Number of the pack, counted as they are begun.
    pub pack: u32,
    /// Offset in bytes.
    pub offset: u32,
}

/// A pack that is durable.
#[derive(Debug, Clone)]
pub struct WrittenPack {
    /// As in [`ChunkPlace`].
    pub number: u32,
    /// Its name.
    pub id: PackId,
    /// Its length in bytes.
    pub size: u64,
    /// Its chunks, by the numbers they were added with.
    pub chunks: Vec<u32>,
}

/// Target size of a data pack: grows with the repository, `clamp(min * sqrt(packs / 50), min, max)`.
pub fn data_pack_target(config: &RepoConfig, data_packs: usize) -> usize {
    let (min, max) = (f64::from(config.min_pack_size), f64::from(config.max_pack_size));
    let target = min * (data_packs as f64 / 50.0).sqrt();
    target.max(min).min(max) as usize
}

/// A pack being filled.
struct Building {
    number: u32,
    /// The end of it, not yet handed on.
    block: Vec<u8>,
    /// All of it, in bytes.
    len: usize,
    chunks: Vec<u32>,
    opened: Instant,
}

impl Building {
    fn new() -> Self {
        Building { number: 0, block: Vec::new(), len: 0, chunks: Vec::new(), opened: Instant::now() }
    }
}

/// What callers send to the pack thread.
enum Message {
    /// The next bytes of the pack being filled.
    Block(PackKind, Vec<u8>),
    /// Its end: number and chunks.
    Close(PackKind, u32, Vec<u32>),
}

/// Fills packs. Shared by the threads that seal chunks.
pub struct PackWriter {
    target: usize,
    max: usize,
    begun: AtomicU32,
    data: Mutex<Building>,
    tree: Mutex<Building>,
    queue: Sender<Message>,
    /// Blocks that are written, to be filled again.
    spare: Receiver<Vec<u8>>,
}

/// The error that ended the writing.
type SharedFailure = Arc<Mutex<Option<VykarError>>>;

/// The threads that write packs.
pub struct PackUploader {
    thread: JoinHandle<()>,
    failure: SharedFailure,
}

/// What the threads that write packs need.
pub struct PackOutput {
    /// Where packs go.
    pub backend: Arc<dyn Backend>,
    /// Hears of every pack that is durable.
    pub journal: Arc<Journal>,
    /// Counts their time.
    pub stages: Arc<Stages>,
}

impl PackWriter {
    /// Starts the writing threads. `data_packs` is how many data packs the repository has.
    pub fn start(output: PackOutput, config: &RepoConfig, data_packs: usize) -> Result<(Self, PackUploader)> {
        let failure = SharedFailure::default();
        let (queue, messages) = bounded(QUEUE);
        let (used, spare) = bounded(SPARE);
        let writer = PackWriter {
            target: data_pack_target(config, data_packs),
            max: config.max_pack_size as usize,
            begun: AtomicU32::new(0),
            data: Mutex::new(Building::new()),
            tree: Mutex::new(Building::new()),
            queue,
            spare,
        };
        let failed = failure.clone();
        let thread = std::thread::Builder::new()
            .name("vykar-packs".into())
            .spawn(move || output.run(&messages, &used, &failed))
            .map_err(|e| VykarError::path("pack thread", e))?;
        Ok((writer, PackUploader { thread, failure }))
    }

    /// Adds the sealed object of a chunk, which may be taken out of its buffer. `placed` hears where it is before
    /// anybody else does. Blocks while the storage is slower than the callers.
    pub fn add(
        &self,
        kind: PackKind,
        chunk: u32,
        object: &mut Vec<u8>,
        placed: impl FnOnce(ChunkPlace),
    ) -> Result<()> {
        let (building, target, max) = match kind {
            PackKind::Data => (&self.data, self.target, self.max),
            PackKind::Tree => (&self.tree, MAX_TREE_PACK, MAX_TREE_PACK),
        };
        let mut building = building.lock();
        if building.len + object.len() + 4 > max && !building.chunks.is_empty() {
            self.close(kind, &mut building)?;
        }
        if building.chunks.is_empty() {
            building.opened = Instant::now();
            building.number = self.begun.fetch_add(1, Ordering::Relaxed);
            building.block.extend_from_slice(HEADER);
            building.len = HEADER.len();
        }
        // A sealed chunk is at most 16 MiB and some bytes, a pack at most 512 MiB and a chunk.
        building.block.extend_from_slice(&(object.len() as u32).to_le_bytes());
        let place = ChunkPlace { pack: building.number, offset: (building.len + 4) as u32 };
        building.len += 4 + object.len();
        building.chunks.push(chunk);
        placed(place);
        if object.len() >= BLOCK / 2 {
            // Copying it would take longer than handing it on.
            self.send_block(kind, &mut building.block)?;
            self.send_block(kind, object)?;
        } else {
            building.block.extend_from_slice(object);
            if building.block.len() >= BLOCK {
                self.send_block(kind, &mut building.block)?;
            }
        }
        let old = building.opened.elapsed() >= MAX_AGE;
        if building.len >= target || building.chunks.len() >= MAX_BLOBS || old {
            self.close(kind, &mut building)?;
        }
        Ok(())
    }

    fn send_block(&self, kind: PackKind, block: &mut Vec<u8>) -> Result<()> {
        let mut empty = self.spare.try_recv().unwrap_or_default();
        empty.clear();
        self.send(Message::Block(kind, std::mem::replace(block, empty)))
    }

    fn send(&self, message: Message) -> Result<()> {
        // The receiver goes away only after a failure, which [`PackUploader::finish`] tells.
        self.queue.send(message).map_err(|_| VykarError::Interrupted)
    }

    fn close(&self, kind: PackKind, building: &mut Building) -> Result<()> {
        if building.chunks.is_empty() {
            return Ok(());
        }
        if !building.block.is_empty() {
            self.send_block(kind, &mut building.block)?;
        }
        let chunks = std::mem::take(&mut building.chunks);
        building.len = 0;
        self.send(Message::Close(kind, building.number, chunks))
    }

    /// Writes what is left and ends the queue.
    pub fn close_all(self) -> Result<()> {
        self.close(PackKind::Data, &mut self.data.lock())?;
        self.close(PackKind::Tree, &mut self.tree.lock())
    }
}

impl PackUploader {
    /// Waits until every pack is durable and the journal has heard of it. The [`PackWriter`] must be gone.
    ///
    /// # Errors
    /// Why nothing more was written. Those who called the [`PackWriter`] meanwhile got [`VykarError::Interrupted`].
    pub fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| VykarError::Usage("the pack thread panicked".into()))?;
        self.failure.lock().take().map_or(Ok(()), Err)
    }
}

/// A pack being written.
struct PackInProgress<'b> {
    upload: Box<dyn Upload + 'b>,
    size: u64,
}

/// A pack that has only to be named and made durable.
struct Whole<'b> {
    upload: Box<dyn Upload + 'b>,
    kind: PackKind,
    number: u32,
    size: u64,
    chunks: Vec<u32>,
}

impl PackOutput {
    /// The pack thread: starts the sync thread, and ends after it.
    fn run(&self, messages: &Receiver<Message>, used: &Sender<Vec<u8>>, failure: &SharedFailure) {
        std::thread::scope(|scope| {
            let (whole, to_sync) = bounded(SYNC_QUEUE);
            let sync = move || self.sync(to_sync, failure);
            let thread = std::thread::Builder::new().name("vykar-sync".into()).spawn_scoped(scope, sync);
            let result = match thread.as_ref().map_err(std::io::Error::kind) {
                Ok(_) => self.write(messages, used, &whole),
                Err(kind) => Err(VykarError::path("sync thread", std::io::Error::from(kind))),
            };
            drop(whole);
            if let Err(error) = result {
                VykarError::keep_first(&mut failure.lock(), error);
            }
        });
    }

    fn write<'b>(
        &'b self,
        messages: &Receiver<Message>,
        used: &Sender<Vec<u8>>,
        whole: &Sender<Whole<'b>>,
    ) -> Result<()> {
        let mut open: [Option<PackInProgress<'b>>; 2] = [None, None];
        for message in messages {
            match message {
                Message::Block(kind, block) => {
                    let began = Instant::now();
                    let writing = match &mut open[kind as usize] {
                        Some(writing) => writing,
                        none => none.insert(PackInProgress { upload: self.backend.upload()?, size: 0 }),
                    };
                    writing.upload.write(&block)?;
                    writing.size += block.len() as u64;
                    self.stages.add(Stage::Write, began.elapsed());
                    // As many go round as are needed; others are freed.
                    let _ = used.try_send(block);
                }
                Message::Close(kind, number, chunks) => {
                    let Some(PackInProgress { upload, size }) = open[kind as usize].take() else { continue };
                    if whole.send(Whole { upload, kind, number, size, chunks }).is_err() {
                        // The sync thread has said why.
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The sync thread.
    fn sync(&self, packs: Receiver<Whole<'_>>, failure: &SharedFailure) {
        let mut waiting = Vec::new();
        loop {
            let next = match waiting.is_empty() {
                true => packs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => packs.recv_timeout(NAMED_AFTER),
            };
            let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
            let alone = next.is_err();
            waiting.extend(next.ok());
            let bytes: u64 = waiting.iter().map(|whole| whole.size).sum();
            let settle = alone || waiting.len() >= NAMED_AT_ONCE || bytes >= BYTES_AT_ONCE;
            if settle && let Err(error) = self.settle(std::mem::take(&mut waiting)) {
                VykarError::keep_first(&mut failure.lock(), error);
                return;
            }
            if ended {
                return;
            }
        }
    }

    /// Names packs and makes them durable.
    fn settle(&self, packs: Vec<Whole<'_>>) -> Result<()> {
        let lengths: Vec<u64> = packs.iter().map(|whole| whole.size).collect();
        let read = |number: usize, offset, out: &mut [u8]| packs[number].upload.read_at(offset, out);
        let ids = self.stages.time(Stage::Write, || pack_ids(&lengths, read))?;
        for (Whole { upload, kind, number, size, chunks }, id) in packs.into_iter().zip(ids) {
            self.stages.time(Stage::Sync, || upload.finish(&pack_key(&id)))?;
            self.journal.add(WrittenPack { number, id, size, chunks }, kind)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_targets_grow_with_the_repository() {
        let config = RepoConfig {
            version: 2,
            id: crate::RepositoryId([0; 32]),
            chunker: crate::format::ChunkerParams::FILES,
            encryption: crate::format::Encryption::None,
            created: String::new(),
            min_pack_size: 32 << 20,
            max_pack_size: 192 << 20,
        };
        assert_eq!(data_pack_target(&config, 0), 32 << 20);
        assert_eq!(data_pack_target(&config, 50), 32 << 20);
        assert_eq!(data_pack_target(&config, 200), 64 << 20);
        assert_eq!(data_pack_target(&config, 1_000_000), 192 << 20);
    }
}
