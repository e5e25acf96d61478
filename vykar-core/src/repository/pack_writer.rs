//! Collects sealed chunks into packs and writes those, one at a time, behind the callers' backs.
//!
//! At most two packs of a kind are in memory: the one being filled and the one being written.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::{Session, pack_key};
use crate::crypto::pack_id;
use crate::error::{Result, VykarError};
use crate::format::pack::{HEADER, MAX_BLOBS, MAX_TREE_PACK};
use crate::format::{PendingPack, RepoConfig};
use crate::id::{ChunkId, PackId};
use crate::storage::{Backend, PutMode};

/// A pack closes at this age, so that a slow backup's journal stays fresh.
const MAX_AGE: Duration = Duration::from_secs(300);
/// The journal is written each time this many data packs are durable.
const JOURNAL_EVERY: usize = 8;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackKind {
    /// File contents.
    Data,
    /// Item streams.
    Tree,
}

/// A pack that is durable.
#[derive(Debug, Clone)]
pub struct WrittenPack {
    /// Its length in bytes.
    pub size: u64,
    /// Its id and chunks.
    pub pending: PendingPack,
}

/// Target size of a data pack: grows with the repository, `clamp(min * sqrt(packs / 50), min, max)`.
pub fn data_pack_target(config: &RepoConfig, data_packs: usize) -> usize {
    let (min, max) = (f64::from(config.min_pack_size), f64::from(config.max_pack_size));
    let target = min * (data_packs as f64 / 50.0).sqrt();
    target.max(min).min(max) as usize
}

struct Building {
    buf: Vec<u8>,
    chunks: Vec<(ChunkId, u32, u64)>,
    opened: Instant,
}

struct Closed {
    kind: PackKind,
    buf: Vec<u8>,
    chunks: Vec<(ChunkId, u32, u64)>,
}

impl Building {
    /// In a buffer that an earlier pack has left.
    fn new(mut buf: Vec<u8>) -> Self {
        buf.clear();
        buf.extend_from_slice(HEADER);
        Building { buf, chunks: Vec::new(), opened: Instant::now() }
    }
}

/// Fills and writes packs. Shared by the threads that seal chunks.
pub struct PackWriter {
    target: usize,
    max: usize,
    data: Mutex<Building>,
    tree: Mutex<Building>,
    queue: Sender<Closed>,
    /// Buffers of packs that are written, to be filled again.
    spare: Receiver<Vec<u8>>,
    failure: Arc<Mutex<Option<VykarError>>>,
}

/// The thread that writes closed packs.
pub struct PackUploader {
    thread: JoinHandle<Vec<WrittenPack>>,
    failure: Arc<Mutex<Option<VykarError>>>,
}

impl PackWriter {
    /// Starts the writing thread. `data_packs` is how many data packs the repository has.
    pub fn start(
        backend: Arc<dyn Backend>,
        config: &RepoConfig,
        data_packs: usize,
        session: Arc<Session>,
    ) -> Result<(Self, PackUploader)> {
        let failure = Arc::new(Mutex::new(None));
        let (queue, closed) = bounded(0);
        let (used, spare) = bounded(1);
        let writer = PackWriter {
            target: data_pack_target(config, data_packs),
            max: config.max_pack_size as usize,
            data: Mutex::new(Building::new(Vec::new())),
            tree: Mutex::new(Building::new(Vec::new())),
            queue,
            spare,
            failure: failure.clone(),
        };
        let failed = failure.clone();
        let thread = std::thread::Builder::new()
            .name("vykar-packs".into())
            .spawn(move || upload(&*backend, &session, (&closed, &used), &failed))
            .map_err(|e| VykarError::path("pack thread", e))?;
        Ok((writer, PackUploader { thread, failure }))
    }

    /// Adds a sealed chunk. Blocks while the pack before the last is being written.
    pub fn add(&self, kind: PackKind, id: ChunkId, object: &[u8]) -> Result<()> {
        let (building, target, max) = match kind {
            PackKind::Data => (&self.data, self.target, self.max),
            PackKind::Tree => (&self.tree, MAX_TREE_PACK, MAX_TREE_PACK),
        };
        let mut building = building.lock();
        if building.buf.len() + object.len() + 4 > max && !building.chunks.is_empty() {
            self.close(kind, &mut building)?;
        }
        if building.chunks.is_empty() {
            building.opened = Instant::now();
        }
        // A sealed chunk is at most 16 MiB and some bytes.
        building.buf.extend_from_slice(&(object.len() as u32).to_le_bytes());
        let offset = building.buf.len() as u64;
        building.buf.extend_from_slice(object);
        building.chunks.push((id, object.len() as u32, offset));
        let old = building.opened.elapsed() >= MAX_AGE;
        if building.buf.len() >= target || building.chunks.len() >= MAX_BLOBS || old {
            self.close(kind, &mut building)?;
        }
        Ok(())
    }

    fn close(&self, kind: PackKind, building: &mut Building) -> Result<()> {
        if building.chunks.is_empty() {
            return Ok(());
        }
        let spare = match kind {
            PackKind::Data => self.spare.try_recv().unwrap_or_default(),
            PackKind::Tree => Vec::new(),
        };
        let Building { buf, chunks, .. } = std::mem::replace(building, Building::new(spare));
        // The receiver goes away only after a failure.
        self.queue.send(Closed { kind, buf, chunks }).map_err(|_| self.take_failure())
    }

    fn take_failure(&self) -> VykarError {
        self.failure.lock().take().unwrap_or(VykarError::Interrupted)
    }

    /// Writes what is left and ends the queue.
    pub fn close_all(self) -> Result<()> {
        self.close(PackKind::Data, &mut self.data.lock())?;
        self.close(PackKind::Tree, &mut self.tree.lock())
    }
}

impl PackUploader {
    /// Waits until every pack is durable. The [`PackWriter`] must be gone.
    pub fn finish(self) -> Result<Vec<WrittenPack>> {
        let written = self.thread.join().map_err(|_| VykarError::Usage("the pack thread panicked".into()))?;
        match self.failure.lock().take() {
            Some(error) => Err(error),
            None => Ok(written),
        }
    }
}

fn upload(
    backend: &dyn Backend,
    session: &Session,
    (closed, used): (&Receiver<Closed>, &Sender<Vec<u8>>),
    failure: &Mutex<Option<VykarError>>,
) -> Vec<WrittenPack> {
    let mut written: Vec<WrittenPack> = Vec::new();
    let mut data_packs = 0;
    for pack in closed {
        let id: PackId = pack_id(&pack.buf);
        let size = pack.buf.len() as u64;
        let mut result = backend.put(&pack_key(&id), &pack.buf, PutMode::Replace).map_err(VykarError::from);
        if pack.kind == PackKind::Data {
            // Two buffers go round; a third is freed.
            let _ = used.try_send(pack.buf);
        }
        written.push(WrittenPack { size, pending: PendingPack { pack: id, chunks: pack.chunks } });
        if result.is_ok() && pack.kind == PackKind::Data {
            data_packs += 1;
            if data_packs % JOURNAL_EVERY == 0 {
                let pending: Vec<_> = written.iter().map(|w| w.pending.clone()).collect();
                result = session.write_journal(&pending);
            }
        }
        if let Err(error) = result {
            *failure.lock() = Some(error);
            break;
        }
    }
    written
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
