//! Reading files: cut, name, store.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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

/// Largest file: 64 TiB, a million segments. Larger ones are made up (/proc/kcore) or a mistake.
const MAX_FILE: u64 = 64 << 40;

/// Where a worker leaves what became of a file, and the writer waits for it.
#[derive(Default)]
pub struct FileSlot {
    done: Mutex<Option<FileDone>>,
    ready: Condvar,
}

/// What became of a file.
#[derive(Default)]
struct FileDone {
    /// Its item; `None` when it was left out, which has been reported and counted.
    encoded: Option<Encoded>,
    /// What another name of it needs.
    content: Option<Arc<Content>>,
}

/// A file's content and metadata without its name.
struct Content {
    chunks: Vec<ChunkRef>,
    stat: Stat,
    xattrs: source::OwnedXattrs,
    has_record: bool,
}

impl FileSlot {
    fn set(&self, done: FileDone) {
        *self.done.lock() = Some(done);
        self.ready.notify_all();
    }

    fn wait<T>(&self, take: impl FnOnce(&mut FileDone) -> T) -> T {
        let mut done = self.done.lock();
        loop {
            match &mut *done {
                Some(done) => return take(done),
                None => self.ready.wait(&mut done),
            }
        }
    }

    /// Waits for a worker and takes the file's item, if it was stored.
    pub fn take_encoded(&self) -> Option<Encoded> {
        self.wait(|done| done.encoded.take())
    }

    fn content(&self) -> Option<Arc<Content>> {
        self.wait(|done| done.content.clone())
    }
}

/// A file to be read.
pub struct Job {
    pub draft: Draft,
    pub slot: Arc<FileSlot>,
    /// Another name of the same file, whose job was sent before.
    pub first: Option<Arc<FileSlot>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // A job that nobody could do (the backup ends) must not be waited for.
        let mut done = self.slot.done.lock();
        if done.is_none() {
            *done = Some(FileDone::default());
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
    work: Mutex<LargeWork>,
    idle: Condvar,
}

/// What is left to do of a large file.
struct LargeWork {
    /// The next segment's number; past the last one when nothing more is to be begun.
    next: usize,
    /// Workers that have begun a segment.
    working: usize,
    parts: Vec<Option<Vec<ChunkRef>>>,
    failure: Option<Failed>,
}

impl Large {
    /// The next segment to read.
    fn begin(&self) -> Option<usize> {
        let mut work = self.work.lock();
        let number = work.next;
        if number >= work.parts.len() {
            return None;
        }
        work.next += 1;
        work.working += 1;
        Some(number)
    }

    fn end(&self, number: usize, result: Result<Vec<ChunkRef>, Failed>) {
        let mut work = self.work.lock();
        match result {
            Ok(chunks) => work.parts[number] = Some(chunks),
            Err(failed) => {
                work.next = work.parts.len();
                work.failure.get_or_insert(failed);
            }
        }
        work.working -= 1;
        self.idle.notify_all();
    }

    /// All segments, once nobody works on them any more.
    fn wait(&self) -> (Vec<Option<Vec<ChunkRef>>>, Option<Failed>) {
        let mut work = self.work.lock();
        while work.working > 0 {
            self.idle.wait(&mut work);
        }
        (std::mem::take(&mut work.parts), work.failure.take())
    }
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
            return job.slot.set(FileDone::default());
        }
        if let Some(done) = job.first.as_ref().and_then(|first| self.link(&job.draft, first)) {
            return job.slot.set(done);
        }
        match self.file(&job.draft, ask) {
            Ok(done) => job.slot.set(done),
            Err(failed) => {
                match failed {
                    Failed::Source(e) => self.context.failed(&job.draft.path, &e),
                    Failed::Fatal(e) => self.context.abort(e),
                }
                job.slot.set(FileDone::default());
            }
        }
    }

    /// Another name of a file that was read before: nothing to read, if what was read then is what
    /// was listed under this name. (The first name may have been given to another file meanwhile.)
    ///
    /// Waiting here cannot last: the first name's job was taken before this one, and does not wait.
    fn link(&self, draft: &Draft, first: &FileSlot) -> Option<FileDone> {
        let content = first.content().filter(|c| c.stat.same_content(&draft.stat))?;
        self.context.references.add_again(&content.chunks);
        self.context.done(0, content.stat.size);
        let read_start = content.has_record.then_some(i64::MAX);
        Some(self.finish(draft, content, read_start))
    }

    fn file(&mut self, draft: &Draft, ask: &Ask) -> Result<FileDone, Failed> {
        let read_start = self.context.now();
        self.context.progress.reading(&draft.path, draft.stat.size);
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
        if !unchanged {
            self.context.changed(&draft.path);
        }
        let read: u64 = chunks.iter().map(|c| u64::from(c.size)).sum();
        // With what was read as its size, the item is whole even if the file is not what it was, or
        // its file system makes contents up and does not know their size (/proc, /sys).
        let stat = Stat { size: read, ..before };
        let (xattrs, complete) = self.context.xattrs(&draft.path, || source::xattrs_of(&fd));
        let has_record = unchanged && read == after.size && complete;
        let content = Arc::new(Content { chunks, stat, xattrs, has_record });
        Ok(self.finish(draft, content, has_record.then_some(read_start)))
    }

    /// Encodes the item of a stored file; with a time, its content is remembered as read then.
    fn finish(&self, draft: &Draft, content: Arc<Content>, read_start: Option<i64>) -> FileDone {
        let Content { chunks, stat, xattrs, .. } = &*content;
        let mut encoded = Encoded::default();
        if let Some(read_start) = read_start {
            let record = Record::new(draft.hash, stat, xattrs.is_some(), chunks.clone(), read_start);
            encoded.records.push(record);
        }
        let mut item = source::item(&draft.path, stat, &self.context.names, xattrs.clone());
        item.chunks = chunks.clone();
        self.context.encode(&item, &mut encoded.items);
        encoded.counts = Counts {
            files: 1,
            bytes: stat.size,
            stored_bytes: stored_bytes(chunks),
            ..draft.compared(chunks)
        };
        self.context.done(1, 0);
        let content = (stat.nlink > 1).then_some(content);
        FileDone { encoded: Some(encoded), content }
    }

    /// Reads and stores the content of an open file, alone or with the other workers' help.
    fn content(&mut self, fd: OwnedFd, stat: &Stat, ask: &Ask) -> Result<(OwnedFd, Vec<ChunkRef>), Failed> {
        if stat.size <= SEGMENT {
            let mut chunks = Vec::new();
            // What says that it is empty may have made-up contents: only reading tells.
            let end = if stat.size == 0 { SEGMENT } else { stat.size };
            self.segment(&fd, (0, end), stat.has_holes(), &mut chunks)?;
            return Ok((fd, chunks));
        }
        if stat.size > MAX_FILE {
            let reason =
                format!("{} bytes, more than the {} TiB that can be stored", stat.size, MAX_FILE >> 40);
            return Err(io::Error::other(reason).into());
        }
        let segments = usize::try_from(stat.size.div_ceil(SEGMENT)).map_err(io::Error::other)?;
        let large = Arc::new(Large {
            fd,
            size: stat.size,
            sparse: stat.has_holes(),
            work: Mutex::new(LargeWork { next: 0, working: 0, parts: vec![None; segments], failure: None }),
            idle: Condvar::new(),
        });
        for _ in 1..self.queues.workers.min(segments) {
            let _ = ask.0.send(large.clone());
        }
        self.help(&large);
        let (parts, failure) = large.wait();
        if let Some(failed) = failure {
            for part in parts.iter().flatten() {
                self.context.references.remove(part);
            }
            return Err(failed);
        }
        let parts: Option<Vec<_>> = parts.into_iter().collect();
        let Some(parts) = parts else {
            return Err(io::Error::other("a segment was not read").into());
        };
        let chunks = parts.into_iter().flatten().collect();
        // A helper that came too late may still hold the file: a second handle will do.
        let fd = large.fd.try_clone()?;
        Ok((fd, chunks))
    }

    /// Reads segments of a large file until there are none left.
    fn help(&mut self, large: &Large) {
        while let Some(number) = large.begin() {
            let start = (number as u64).saturating_mul(SEGMENT);
            let end = start.saturating_add(SEGMENT).min(large.size);
            let mut chunks = Vec::new();
            let result = self.segment(&large.fd, (start, end), large.sparse, &mut chunks);
            large.end(number, result.map(|()| chunks));
        }
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
            self.context.done(0, SEGMENT);
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
            self.context.done(0, got as u64);
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
