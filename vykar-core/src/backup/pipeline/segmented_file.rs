//! Files of several segments, which workers share.

use std::io;
use std::os::fd::OwnedFd;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::backup::source::entry::Stat;
use crate::codec::chunker::SEGMENT;
use crate::error::VykarError;
use crate::format::ChunkRef;

/// Largest file: 64 TiB, a million segments. Larger ones are made up (/proc/kcore) or a mistake.
const MAX_FILE: u64 = 64 << 40;

/// Why a file is not stored.
pub enum StoreFailed {
    /// The source's fault: this file is left out.
    Source(io::Error),
    /// The repository's fault: the backup ends.
    Fatal(VykarError),
}

impl From<io::Error> for StoreFailed {
    fn from(e: io::Error) -> Self {
        StoreFailed::Source(e)
    }
}

impl From<Errno> for StoreFailed {
    fn from(e: Errno) -> Self {
        StoreFailed::Source(e.into())
    }
}

impl From<VykarError> for StoreFailed {
    fn from(e: VykarError) -> Self {
        StoreFailed::Fatal(e)
    }
}

/// A file of several segments.
pub struct Large {
    pub fd: OwnedFd,
    pub stat: Stat,
    work: Mutex<Work>,
    idle: Condvar,
}

/// What is left to do of it.
struct Work {
    /// The next segment's number; past the last one when nothing more is to be begun.
    next: usize,
    /// Workers that have begun a segment.
    working: usize,
    parts: Vec<Option<Vec<ChunkRef>>>,
    failure: Option<StoreFailed>,
}

impl Work {
    /// Keeps the failure that matters most: what ends the backup goes before what leaves a file out.
    fn fail(&mut self, failed: StoreFailed) {
        match (&mut self.failure, failed) {
            (Some(StoreFailed::Fatal(kept)), StoreFailed::Fatal(error)) => {
                let both = [std::mem::replace(kept, VykarError::Interrupted), error];
                *kept = VykarError::first_of(both).unwrap_or(VykarError::Interrupted);
            }
            (Some(StoreFailed::Fatal(_)), StoreFailed::Source(_))
            | (Some(StoreFailed::Source(_)), StoreFailed::Source(_)) => {}
            (kept, failed) => *kept = Some(failed),
        }
    }
}

impl Large {
    /// An open file.
    ///
    /// # Errors
    /// It is too large.
    pub fn new(fd: OwnedFd, stat: &Stat) -> io::Result<Self> {
        let size = stat.size;
        if size > MAX_FILE {
            let reason = format!("{size} bytes, more than the {} TiB that can be stored", MAX_FILE >> 40);
            return Err(io::Error::other(reason));
        }
        let segments = usize::try_from(size.div_ceil(SEGMENT)).map_err(io::Error::other)?;
        let work = Work { next: 0, working: 0, parts: vec![None; segments], failure: None };
        Ok(Large { fd, stat: *stat, work: Mutex::new(work), idle: Condvar::new() })
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.work.lock().parts.len()
    }

    /// The next segment to read: its number, and where it begins and ends.
    pub fn begin(&self) -> Option<(usize, (u64, u64))> {
        let mut work = self.work.lock();
        let number = work.next;
        if number >= work.parts.len() {
            return None;
        }
        work.next += 1;
        work.working += 1;
        let start = (number as u64).saturating_mul(SEGMENT);
        Some((number, (start, start.saturating_add(SEGMENT).min(self.stat.size))))
    }

    /// A segment is read.
    pub fn end(&self, number: usize, result: Result<Vec<ChunkRef>, StoreFailed>) {
        let mut work = self.work.lock();
        match result {
            Ok(chunks) => work.parts[number] = Some(chunks),
            Err(failed) => {
                work.next = work.parts.len();
                work.fail(failed);
            }
        }
        work.working -= 1;
        self.idle.notify_all();
    }

    /// All chunks, once nobody works on them any more; with a failure, those of the segments that were read.
    pub fn wait(&self) -> (Vec<ChunkRef>, Option<StoreFailed>) {
        let mut work = self.work.lock();
        while work.working > 0 {
            self.idle.wait(&mut work);
        }
        let parts = std::mem::take(&mut work.parts);
        let missing = parts.iter().any(Option::is_none);
        let chunks = parts.into_iter().flatten().flatten().collect();
        let failed = work.failure.take();
        (chunks, failed.or_else(|| missing.then(|| io::Error::other("a segment was not read").into())))
    }
}
