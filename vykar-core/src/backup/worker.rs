//! Reading files: cut, name, store.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, select_biased};
use parking_lot::{Condvar, Mutex};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::context::{Context, stored_bytes};
use super::filecache::Record;
use super::source::{self, Stat};
use super::store::{ChunkStore, Sealer};
use super::walk::{Counts, Draft, Encoded};
use crate::codec::chunker::SEGMENT;
use crate::codec::{Chunker, Compression};
use crate::error::{Result, VykarError};
use crate::format::ChunkRef;
use crate::repository::pack_writer::PackKind;

/// Where a worker leaves what became of a file, and the writer waits for it.
#[derive(Default)]
pub struct FileSlot {
    done: Mutex<Option<Arc<FileDone>>>,
    ready: Condvar,
}

/// What became of a file.
pub enum FileDone {
    /// Stored.
    Stored(Box<StoredFile>),
    /// Left out, reported and counted.
    Failed,
}

/// A file whose item is encoded, and what another name of it needs.
pub struct StoredFile {
    pub encoded: Encoded,
    pub chunks: Vec<ChunkRef>,
    pub stat: Stat,
    pub xattrs: source::OwnedXattrs,
}

impl FileSlot {
    fn set(&self, done: FileDone) {
        *self.done.lock() = Some(Arc::new(done));
        self.ready.notify_all();
    }

    /// Waits for a worker.
    pub fn wait(&self) -> Arc<FileDone> {
        let mut done = self.done.lock();
        loop {
            match &*done {
                Some(done) => return done.clone(),
                None => self.ready.wait(&mut done),
            }
        }
    }
}

/// A file to be read.
pub struct Job {
    pub draft: Draft,
    pub slot: Arc<FileSlot>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // A job that nobody could do (the backup ends) must not be waited for.
        let mut done = self.slot.done.lock();
        if done.is_none() {
            *done = Some(Arc::new(FileDone::Failed));
            self.slot.ready.notify_all();
        }
    }
}

/// Why a file is not stored.
enum Failed {
    /// The source's fault: this file is left out.
    Source(io::Error),
    /// The repository's fault: the backup ends.
    Fatal(VykarError),
}

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Failed::Source(e)
    }
}

impl From<Errno> for Failed {
    fn from(e: Errno) -> Self {
        Failed::Source(e.into())
    }
}

impl From<VykarError> for Failed {
    fn from(e: VykarError) -> Self {
        Failed::Fatal(e)
    }
}

/// A file of several segments, which workers share.
struct Large {
    fd: OwnedFd,
    size: u64,
    sparse: bool,
    next: AtomicU64,
    parts: Mutex<Vec<Option<Vec<ChunkRef>>>>,
    failure: Mutex<Option<Failed>>,
    working: AtomicUsize,
    idle: Condvar,
    idle_lock: Mutex<()>,
}

/// The queues that workers take from. Helping with a large file comes first.
pub struct Queues {
    pub jobs: Receiver<Job>,
    help: Receiver<Arc<Large>>,
    workers: usize,
}

/// A worker's way to ask the others for help. They end when nobody can ask any more.
#[derive(Clone)]
pub struct Ask(Sender<Arc<Large>>);

impl Queues {
    /// For `workers` threads, each with a clone of the [`Ask`].
    pub fn new(jobs: Receiver<Job>, workers: usize) -> (Self, Ask) {
        let (ask, help) = crossbeam_channel::unbounded();
        (Queues { jobs, help, workers }, Ask(ask))
    }
}

/// One thread that reads files.
pub struct Worker<'w> {
    context: &'w Context<'w>,
    store: &'w ChunkStore<'w>,
    queues: &'w Queues,
    chunker: Chunker,
    sealer: Sealer,
    buf: Vec<u8>,
    /// Most that is read before it is cut: twice the largest chunk.
    window: usize,
    /// The chunks of a segment that is one hole.
    zero_segment: Option<Vec<ChunkRef>>,
}

impl<'w> Worker<'w> {
    /// A worker over shared state.
    pub fn new(
        context: &'w Context<'w>,
        store: &'w ChunkStore<'w>,
        queues: &'w Queues,
        chunker: (Chunker, usize),
        compression: Compression,
    ) -> Result<Self> {
        let (chunker, max_chunk) = chunker;
        let sealer = Sealer::new(compression)?;
        Ok(Worker {
            context,
            store,
            queues,
            chunker,
            sealer,
            buf: Vec::new(),
            window: max_chunk * 2,
            zero_segment: None,
        })
    }

    /// Works until the job queue ends and no worker needs help.
    pub fn run(&mut self, ask: Ask) {
        let queues = self.queues;
        loop {
            select_biased! {
                recv(queues.help) -> large => if let Ok(large) = large { self.help(&large) },
                recv(queues.jobs) -> job => match job {
                    Ok(job) => self.job(&job, &ask),
                    Err(_) => break,
                },
            }
        }
        drop(ask);
        for large in &queues.help {
            self.help(&large);
        }
    }

    fn job(&mut self, job: &Job, ask: &Ask) {
        if self.context.is_aborted() {
            return job.slot.set(FileDone::Failed);
        }
        match self.file(&job.draft, ask) {
            Ok(done) => job.slot.set(done),
            Err(failed) => {
                match failed {
                    Failed::Source(e) => self.context.failed(&job.draft.path, &e),
                    Failed::Fatal(e) => self.context.abort(e),
                }
                job.slot.set(FileDone::Failed);
            }
        }
    }

    fn file(&mut self, draft: &Draft, ask: &Ask) -> Result<FileDone, Failed> {
        let read_start = self.context.now();
        let mut fd = source::open_file(&draft.dir, &draft.name)?;
        let mut before = Stat::of(&fd)?;
        if before.kind != FileType::RegularFile {
            return Err(io::Error::other("was replaced by something else while the backup ran").into());
        }
        let mut chunks;
        (fd, chunks) = self.content(fd, &before, ask)?;
        let mut after = Stat::of(&fd)?;
        if !before.same_content(&after) {
            // Once more; whatever is read then is stored.
            self.context.references.remove(&chunks);
            before = after;
            (fd, chunks) = self.content(fd, &before, ask)?;
            after = Stat::of(&fd)?;
        }
        let unchanged = before.same_content(&after);
        let read: u64 = chunks.iter().map(|c| u64::from(c.size)).sum();
        if !unchanged || read != after.size {
            self.context.changed(&draft.path);
        }
        // With what was read as its size, the item is whole even if the file is not what it was.
        let stat = Stat { size: read, ..before };
        let xattrs = self.context.xattrs(&draft.path, || source::xattrs_of(&fd));
        let mut encoded = Encoded::default();
        if unchanged && read == after.size {
            let record = Record::new(draft.hash, &stat, xattrs.is_some(), chunks.clone(), read_start);
            encoded.records.extend(record);
        }
        let mut item = source::item(&draft.path, &stat, &self.context.names, xattrs.clone());
        item.chunks = chunks;
        self.context.encode(&item, &mut encoded.items);
        let chunks = item.chunks;
        let (new, changed) = (u64::from(!draft.known), u64::from(draft.known));
        encoded.counts = Counts {
            files: 1,
            bytes: read,
            stored_bytes: stored_bytes(&chunks),
            new,
            changed,
            ..Counts::default()
        };
        self.context.done(1, read);
        Ok(FileDone::Stored(Box::new(StoredFile { encoded, chunks, stat, xattrs })))
    }

    /// Reads and stores the content of an open file, alone or with the other workers' help.
    fn content(&mut self, fd: OwnedFd, stat: &Stat, ask: &Ask) -> Result<(OwnedFd, Vec<ChunkRef>), Failed> {
        if stat.size <= SEGMENT {
            let mut chunks = Vec::new();
            self.segment(&fd, (0, stat.size), stat.has_holes(), &mut chunks)?;
            return Ok((fd, chunks));
        }
        let segments = usize::try_from(stat.size.div_ceil(SEGMENT)).map_err(io::Error::other)?;
        let large = Arc::new(Large {
            fd,
            size: stat.size,
            sparse: stat.has_holes(),
            next: AtomicU64::new(0),
            parts: Mutex::new(vec![None; segments]),
            failure: Mutex::new(None),
            working: AtomicUsize::new(0),
            idle: Condvar::new(),
            idle_lock: Mutex::new(()),
        });
        for _ in 1..self.queues.workers.min(segments) {
            let _ = ask.0.send(large.clone());
        }
        self.help(&large);
        let mut guard = large.idle_lock.lock();
        while large.working.load(Ordering::Acquire) > 0 {
            large.idle.wait(&mut guard);
        }
        drop(guard);
        let parts = std::mem::take(&mut *large.parts.lock());
        if let Some(failed) = large.failure.lock().take() {
            for part in parts.iter().flatten() {
                self.context.references.remove(part);
            }
            return Err(failed);
        }
        let chunks = parts.into_iter().flatten().flatten().collect();
        // A helper that came too late may still hold the file: a second handle will do.
        let fd = large.fd.try_clone()?;
        Ok((fd, chunks))
    }

    /// Reads segments of a large file until there are none left.
    fn help(&mut self, large: &Large) {
        large.working.fetch_add(1, Ordering::AcqRel);
        loop {
            let number = large.next.fetch_add(1, Ordering::Relaxed);
            let start = number.saturating_mul(SEGMENT);
            if start >= large.size {
                break;
            }
            let mut chunks = Vec::new();
            let end = start.saturating_add(SEGMENT).min(large.size);
            match self.segment(&large.fd, (start, end), large.sparse, &mut chunks) {
                Ok(()) => {
                    if let Some(part) = large.parts.lock().get_mut(number as usize) {
                        *part = Some(chunks);
                    }
                }
                Err(failed) => {
                    // No segment is begun any more, by late helpers either.
                    large.next.store(u64::MAX / 2, Ordering::Relaxed);
                    large.failure.lock().get_or_insert(failed);
                }
            }
        }
        let guard = large.idle_lock.lock();
        large.working.fetch_sub(1, Ordering::AcqRel);
        large.idle.notify_all();
        drop(guard);
    }

    /// Reads, cuts and stores one segment; the references of a failed one are taken back.
    fn segment(
        &mut self,
        fd: &OwnedFd,
        range: (u64, u64),
        sparse: bool,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), Failed> {
        let whole_hole = sparse && range.1 - range.0 == SEGMENT && hole_at(fd, range.0, SEGMENT) == SEGMENT;
        if whole_hole && let Some(zeros) = &self.zero_segment {
            self.context.references.add_again(zeros);
            chunks.clone_from(zeros);
            return Ok(());
        }
        let result = self.read_segment(fd, range, sparse, chunks);
        if whole_hole && result.is_ok() {
            self.zero_segment = self.is_zero_segment(chunks)?.then(|| chunks.clone());
        }
        if result.is_err() {
            self.context.references.remove(chunks);
            chunks.clear();
        }
        result
    }

    /// True for the chunks of a segment of zeros: all alike, and the id is that of zeros. (Somebody
    /// may have written into the hole before it was read.)
    fn is_zero_segment(&self, chunks: &[ChunkRef]) -> Result<bool> {
        let sum: u64 = chunks.iter().map(|c| u64::from(c.size)).sum();
        let Some(first) = chunks.first().filter(|_| sum == SEGMENT) else { return Ok(false) };
        let zeros = self.context.hasher().chunk_id(&vec![0; first.size as usize])?;
        Ok(chunks.iter().all(|c| c.id == zeros && c.size == first.size))
    }

    fn read_segment(
        &mut self,
        fd: &OwnedFd,
        (mut at, end): (u64, u64),
        sparse: bool,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), Failed> {
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        let mut at_end = false;
        while !at_end {
            if self.context.is_aborted() {
                return Err(VykarError::Interrupted.into());
            }
            let room = (self.window - buf.len()) as u64;
            let wanted = room.min(end - at);
            let got = read_range(fd, at, wanted as usize, sparse, &mut buf)?;
            at += got as u64;
            at_end = (got as u64) < wanted || at >= end;
            let used = match at_end {
                true => {
                    for chunk in self.chunker.cut(&buf) {
                        chunks.push(self.store.put(&mut self.sealer, PackKind::Data, chunk)?);
                    }
                    buf.len()
                }
                false => {
                    let (done, used) = self.chunker.cut_open(&buf);
                    for chunk in done {
                        chunks.push(self.store.put(&mut self.sealer, PackKind::Data, chunk)?);
                    }
                    used
                }
            };
            buf.drain(..used);
        }
        self.buf = buf;
        Ok(())
    }
}

/// Appends up to `len` bytes from `offset` to `buf`; fewer only at the end of the file. Holes of a
/// sparse file become zeros without being read.
fn read_range(fd: &OwnedFd, offset: u64, len: usize, sparse: bool, buf: &mut Vec<u8>) -> io::Result<usize> {
    let start = buf.len();
    buf.resize(start + len, 0);
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        if sparse {
            let hole = hole_at(fd, at, (len - done) as u64);
            if hole > 0 {
                // Cleared by resize, and never written since.
                done += hole as usize;
                continue;
            }
        }
        match rustix::io::pread(fd, &mut buf[start + done..], at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    buf.truncate(start + done);
    Ok(done)
}

/// How many bytes from `at` are a hole, at most `max`; zero where there is data, or no answer.
fn hole_at(fd: &OwnedFd, at: u64, max: u64) -> u64 {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data.saturating_sub(at).min(max),
        // No data behind `at`, or the end of the file: only a look at its size tells which.
        Err(Errno::NXIO) => rustix::fs::fstat(fd)
            .map_or(0, |s| u64::try_from(s.st_size).unwrap_or(0).saturating_sub(at).min(max)),
        Err(_) => 0,
    }
}
