//! Decodes the next chunks of files that are read in sequence, on threads of its own.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use vykar_core::ChunkId;

use crate::content::chunk_source::Data;
use crate::tree::FileChunks;

/// The kernel's reads of one file arrive out of order by up to this many bytes.
const NEAR: u64 = 16 << 20;
/// Chunks behind a sequential reader that are dropped from the cache with each of its reads, which are at most
/// 1 MiB while chunks are seldom below 512 KiB.
const PASSED: usize = 3;
/// Files whose position is remembered.
const FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// A pool of decoding threads, which ends when this is dropped.
pub(crate) struct Prefetcher {
    shared: Arc<ReadaheadShared>,
    threads: Vec<JoinHandle<()>>,
    /// How far each file was read, in bytes.
    positions: Mutex<LruCache<u64, u64>>,
    /// Most bytes to be ahead.
    max_ahead: u64,
}

struct ReadaheadShared {
    data: Arc<Data>,
    queue: Mutex<ReadaheadQueue>,
    filled: Condvar,
    /// Most chunks that wait.
    max: usize,
}

#[derive(Default)]
struct ReadaheadQueue {
    chunks: VecDeque<(ChunkId, u64)>,
    closed: bool,
}

impl Prefetcher {
    /// Starts `threads` threads; with none, or where none can be started, nothing is read ahead.
    /// `max_ahead` bytes must be well below the size of the cache.
    pub(crate) fn new(data: Arc<Data>, threads: usize, max_ahead: u64) -> Self {
        let shared = Arc::new(ReadaheadShared {
            data,
            queue: Mutex::default(),
            filled: Condvar::new(),
            max: threads * 2,
        });
        let start = |n| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("vykar-next-{n}"));
            thread.spawn(move || shared.work()).ok()
        };
        let threads = (0..threads).map_while(start).collect();
        Prefetcher { shared, threads, positions: Mutex::new(LruCache::new(FILES)), max_ahead }
    }

    /// A file's bytes from `offset` to `end` are being read. Call before reading them.
    pub(crate) fn note(&self, file: u64, content: FileChunks<'_>, offset: u64, end: u64) {
        if self.threads.is_empty() || content.len() < 2 {
            return;
        }
        let reached = {
            let mut positions = self.positions.lock();
            let before = positions.get(&file).copied();
            let near = before.is_some_and(|at| offset.abs_diff(at) <= NEAR || end.abs_diff(at) <= NEAR);
            let reached = before.filter(|_| near).map_or(end, |at| at.max(end));
            positions.put(file, reached);
            if !near {
                return;
            }
            reached
        };
        // Reads may come late by that much; what lies before will not be read again, and its buffer is warm.
        if let Some(behind) = reached.checked_sub(NEAR) {
            // Runs of zeros repeat one chunk.
            let current = content.id(content.find(offset));
            let passed = content.find(behind);
            let ids = (passed.saturating_sub(PASSED)..passed).map(|at| content.id(at));
            ids.filter(|id| *id != current).for_each(|id| self.shared.data.forget(&id));
        }
        let first = content.find(reached) + 1;
        let limit = reached.saturating_add(self.max_ahead);
        for at in (first..content.len()).take(self.threads.len()) {
            let range = content.range(at);
            if range.end > limit {
                break;
            }
            let (id, size) = (content.id(at), range.end.saturating_sub(range.start));
            if size > 0 && !self.shared.data.has(&id) {
                self.shared.push(id, size);
            }
        }
    }
}

impl ReadaheadShared {
    fn push(&self, id: ChunkId, size: u64) {
        let mut queue = self.queue.lock();
        if queue.chunks.iter().any(|(waiting, _)| *waiting == id) {
            return;
        }
        if queue.chunks.len() >= self.max {
            // The oldest wish is the one most likely read by now.
            queue.chunks.pop_front();
        }
        queue.chunks.push_back((id, size));
        self.filled.notify_one();
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            let (id, size) = loop {
                if queue.closed {
                    return;
                }
                match queue.chunks.pop_front() {
                    Some(next) => break next,
                    None => self.filled.wait(&mut queue),
                }
            };
            drop(queue);
            if !self.data.has(&id) {
                // A failure is reported when somebody reads it.
                let _ = self.data.chunk(&id, size);
            }
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
