//! Reading and decoding chunks in the order they lie in the packs, neighbours in one read.

use std::ops::Range;

use parking_lot::Mutex;

use super::plan::PlannedPiece;
use crate::error::{ObjectError, Result, VykarError};
use crate::format::IndexEntry;
use crate::format::index::ChunkTable;
use crate::id::PackId;
use crate::repository::read::chunk_reader::MAX_STORED;
use crate::repository::{ReadChunk, RefreshingReader, Repository, pack_key};

/// Unwanted bytes between two chunks that are read along instead of reading twice.
const MAX_GAP: u64 = 64 << 10;

/// Where chunks come from; shared by all threads.
pub(super) struct ChunkOrigin<'a> {
    pub repository: &'a Repository,
    pub reader: &'a RefreshingReader<'a>,
    pub table: &'a ChunkTable,
    /// Buffers of chunks that were kept and are not needed any more.
    pub spare: Mutex<Vec<Vec<u8>>>,
}

/// Neighbouring chunks of one pack.
struct ChunkRun {
    wants: Range<usize>,
    pack: PackId,
    offset: u64,
    len: u64,
}

#[derive(PartialEq, Eq)]
enum Buffer {
    NotRead,
    Read,
    Unreadable,
}

/// Decodes a list of pieces, one after another; one for each thread.
pub(super) struct Fetcher<'a> {
    source: &'a ChunkOrigin<'a>,
    /// Bytes read at once, unless one chunk alone is larger.
    max_read: u64,
    runs: Vec<ChunkRun>,
    current: usize,
    state: Buffer,
    bytes: Vec<u8>,
    /// The last chunk: runs of zeros repeat it.
    memo: Option<(u32, Plain)>,
    /// Memory for the next one.
    spare: Vec<u8>,
}

/// Where a chunk's plaintext is.
enum Plain {
    /// Expanded.
    Expanded(Vec<u8>),
    /// As it was read.
    Read(Range<usize>),
}

impl<'a> Fetcher<'a> {
    pub fn new(source: &'a ChunkOrigin<'a>, max_read: u64) -> Self {
        let (state, bytes) = (Buffer::NotRead, Vec::new());
        Fetcher {
            source,
            max_read,
            runs: Vec::new(),
            current: 0,
            state,
            bytes,
            memo: None,
            spare: Vec::new(),
        }
    }

    /// Plans the reads for `wants`, which [`Fetcher::chunk`] is then asked for in order.
    pub fn begin(&mut self, wants: &[PlannedPiece]) {
        self.runs.clear();
        (self.current, self.state) = (0, Buffer::NotRead);
        let mut last = None;
        for (at, want) in wants.iter().enumerate() {
            let entry = self.source.table.entry(want.slot as usize);
            let same = last == Some(want.slot);
            last = Some(want.slot);
            match self.runs.last_mut() {
                Some(run) if same => run.wants.end = at + 1,
                Some(run) if extends(run, &entry, self.max_read) => {
                    run.wants.end = at + 1;
                    run.len = end(&entry) - run.offset;
                }
                _ => self.runs.push(ChunkRun {
                    wants: at..at + 1,
                    pack: entry.pack,
                    offset: entry.offset,
                    len: entry.stored_size.into(),
                }),
            }
        }
    }

    /// The plaintext of `want`, which is number `at` of the list. Those before it may be left out.
    pub fn chunk(&mut self, at: usize, want: PlannedPiece) -> Result<&[u8]> {
        if self.memo.as_ref().is_none_or(|memo| memo.0 != want.slot) {
            if let Some((_, Plain::Expanded(used))) = self.memo.take() {
                self.spare = used;
            }
            self.memo = Some((want.slot, self.decode(at, want)?));
            // The slot stood for this chunk only if nobody wrote to the copy of the index meanwhile.
            if !self.source.table.is_unchanged() {
                self.memo = None;
                let reason = "the local copy of the index was written to meanwhile: run it again";
                let entry = self.source.table.entry(want.slot as usize);
                return Err(damaged(&entry, ObjectError::OutOfReach(reason.into())));
            }
        }
        let data = self.last();
        if data.len() as u64 != u64::from(want.size) {
            let entry = self.source.table.entry(want.slot as usize);
            let reason = format!("holds {} bytes, its item says {}", data.len(), want.size);
            return Err(damaged(&entry, ObjectError::Unreadable(reason)));
        }
        Ok(data)
    }

    /// The chunk that was given last.
    pub fn last(&self) -> &[u8] {
        match &self.memo {
            None => &[],
            Some((_, Plain::Expanded(data))) => data,
            Some((_, Plain::Read(range))) => &self.bytes[range.clone()],
        }
    }

    /// The same, to be kept. Its memory comes back through [`ChunkOrigin::spare`].
    pub fn take(&mut self) -> Vec<u8> {
        match self.memo.take() {
            None => Vec::new(),
            Some((_, Plain::Expanded(data))) => data,
            Some((_, Plain::Read(range))) => {
                let mut data = self.buffer();
                data.clear();
                data.extend_from_slice(&self.bytes[range]);
                data
            }
        }
    }

    /// Memory that was used before, if there is any.
    fn buffer(&mut self) -> Vec<u8> {
        match std::mem::take(&mut self.spare) {
            none if none.capacity() == 0 => self.source.spare.lock().pop().unwrap_or_default(),
            some => some,
        }
    }

    fn decode(&mut self, at: usize, want: PlannedPiece) -> Result<Plain> {
        let entry = self.source.table.entry(want.slot as usize);
        if entry.stored_size > MAX_STORED {
            let reason = format!("stored as {} bytes, more than any chunk", entry.stored_size);
            return Err(damaged(&entry, ObjectError::Unreadable(reason)));
        }
        while self.runs.get(self.current).is_some_and(|run| run.wants.end <= at) {
            (self.current, self.state) = (self.current + 1, Buffer::NotRead);
        }
        if self.state == Buffer::NotRead {
            self.state = self.read();
        }
        let mut out = self.buffer();
        if let (Buffer::Read, Some(run)) = (&self.state, self.runs.get(self.current)) {
            let start = (entry.offset - run.offset) as usize;
            let object = &mut self.bytes[start..start + entry.stored_size as usize];
            let keys = self.source.repository.keys();
            match keys.open_chunk_at(&entry.id, object, &mut out) {
                Ok(None) => return Ok(Plain::Expanded(out)),
                Ok(Some(range)) => {
                    self.spare = out;
                    return Ok(Plain::Read(start + range.start..start + range.end));
                }
                Err(_) => {}
            }
        }
        // By itself, and where it was moved meanwhile.
        Ok(Plain::Expanded(self.source.reader.read_chunk(&entry.id)?.into()))
    }

    /// A pack that ends early, or is gone, may still have some of a run's chunks: those are then
    /// read one by one.
    fn read(&mut self) -> Buffer {
        let Some(run) = self.runs.get(self.current) else { return Buffer::Unreadable };
        let Ok(len) = usize::try_from(run.len) else { return Buffer::Unreadable };
        let key = pack_key(&run.pack);
        match self.source.repository.backend().get_range_into(&key, run.offset, len, &mut self.bytes) {
            Ok(()) => Buffer::Read,
            Err(_) => Buffer::Unreadable,
        }
    }
}

fn end(entry: &IndexEntry) -> u64 {
    entry.offset + u64::from(entry.stored_size) // the index bounds both
}

fn extends(run: &ChunkRun, entry: &IndexEntry, max: u64) -> bool {
    let run_end = run.offset + run.len;
    run.pack == entry.pack
        && entry.offset >= run_end
        && entry.offset - run_end <= MAX_GAP
        && end(entry) - run.offset <= max
}

fn damaged(entry: &IndexEntry, cause: ObjectError) -> VykarError {
    VykarError::ChunkDamaged { chunk: entry.id, pack: entry.pack, cause }
}
