//! Reading files: cut, name, store.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, select_biased};
use rustix::fs::FileType;

use crate::backup::pipeline::chunk_store::{ChunkStore, Sealer};
use crate::backup::pipeline::context::{Context, stored_bytes};
use crate::backup::pipeline::encoded_items::{Counts, Encoded};
use crate::backup::pipeline::scheduler::SMALL;
use crate::backup::pipeline::segmented_file::{Large, StoreFailed};
use crate::backup::pipeline::walk::Draft;
use crate::backup::pipeline::work_item::{ContentSlot, FileData, Link, WorkItem, WorkPart};
use crate::backup::source::direct_read::{FileReader, hole_at};
use crate::backup::source::entry;
use crate::backup::source::entry::Stat;
use crate::codec::chunker::SEGMENT;
use crate::codec::{Chunker, Compression};
use crate::error::{Result, VykarError};
use crate::format::{ChunkRef, ChunkerParams};
use crate::local_state::file_cache::Record;
use crate::repository::objects::pack_writer::PackKind;
use crate::stage::Stage;

/// Bytes that all workers together may have read and not cut, but that each has room for the largest chunk.
const WINDOWS: usize = 64 << 20;

/// The queues that workers take from. Helping with a large file comes first.
pub struct Queues {
    pub jobs: Receiver<WorkItem>,
    help: Receiver<Arc<Large>>,
    workers: usize,
}

/// A worker's way to ask the others for help. They end when nobody can ask any more.
#[derive(Clone)]
pub struct Ask(Sender<Arc<Large>>);

impl Queues {
    /// For `workers` threads, each with a clone of the [`Ask`].
    pub fn new(jobs: Receiver<WorkItem>, workers: usize) -> (Self, Ask) {
        let (ask, help) = crossbeam_channel::unbounded();
        (Queues { jobs, help, workers }, Ask(ask))
    }
}

/// A small file that is read: where it is in the buffer, and the rest of it.
struct Small {
    range: Range<usize>,
    stat: Stat,
    xattrs: entry::OwnedXattrs,
    complete: bool,
}

/// One thread that reads files.
pub struct ReadWorker<'w> {
    pub(in crate::backup) context: &'w Context<'w>,
    store: &'w ChunkStore<'w>,
    queues: &'w Queues,
    chunker: Chunker,
    sealer: Sealer,
    reader: FileReader,
    /// The files of a job.
    batch: Vec<u8>,
    /// A part of a larger file.
    window: Vec<u8>,
    /// Most that is read before it is cut.
    window_len: usize,
    /// The chunks of a segment that is one hole.
    zero_segment: Option<Vec<ChunkRef>>,
}

impl<'w> ReadWorker<'w> {
    /// A worker over shared state.
    pub fn new(
        context: &'w Context<'w>,
        store: &'w ChunkStore<'w>,
        queues: &'w Queues,
        params: ChunkerParams,
        compression: Compression,
    ) -> Result<Self> {
        // Three times the largest chunk, so that many are named at once; a little more than one will do.
        let largest = params.max as usize;
        let window_len = (WINDOWS / queues.workers.max(1)).clamp(largest + largest / 4 + 1, largest * 3 + 1);
        Ok(ReadWorker {
            context,
            store,
            queues,
            chunker: Chunker::new(params),
            sealer: Sealer::new(compression)?,
            reader: FileReader::new(),
            batch: Vec::new(),
            window: Vec::new(),
            window_len,
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
                    Ok(job) => self.job(job, &ask),
                    Err(_) => break,
                },
            }
        }
        drop(ask);
        for large in &queues.help {
            self.help(&large);
        }
    }

    fn job(&mut self, mut job: WorkItem, ask: &Ask) {
        if self.context.is_aborted() {
            return;
        }
        let parts = std::mem::take(&mut job.parts);
        let mut out = Encoded::default();
        match &job.link {
            None => self.batch(parts, ask, &mut out),
            Some(link) => {
                for part in parts {
                    match part {
                        WorkPart::Encoded(encoded) => self.pass_on(encoded, &mut out),
                        WorkPart::File(draft) => self.linked(&draft, link, ask, &mut out),
                        WorkPart::Stream(stream) => self.stream(&stream, &mut out),
                    }
                }
            }
        }
        job.slot.set(out);
    }

    /// What needed no reading, between files that do.
    fn pass_on(&self, encoded: Encoded, out: &mut Encoded) {
        self.context.done(encoded.counts.files, encoded.counts.bytes);
        out.append(encoded);
    }

    /// Reads all small files first, since chunks are named faster several at once.
    fn batch(&mut self, parts: Vec<WorkPart>, ask: &Ask, out: &mut Encoded) {
        let read_start = self.context.now();
        let mut buf = std::mem::take(&mut self.batch);
        let small = self.context.stages.time(Stage::Read, || self.read_small_files(&parts, &mut buf));
        let chunks = |small: &Option<Small>| match small {
            Some(small) => self.chunker.cut(&buf[small.range.clone()]).collect(),
            None => Vec::new(),
        };
        let cut: Vec<Vec<&[u8]>> =
            self.context.stages.time(Stage::Cut, || small.iter().map(chunks).collect());
        let mut names = self.store.names(&cut.concat()).into_iter();
        for ((part, small), cut) in parts.into_iter().zip(small).zip(cut) {
            match (part, small) {
                (WorkPart::Encoded(encoded), _) => self.pass_on(encoded, out),
                (WorkPart::Stream(stream), _) => self.stream(&stream, out),
                (WorkPart::File(draft), None) => {
                    self.file(&draft, ask, out);
                }
                (WorkPart::File(draft), Some(small)) => {
                    let named = cut.iter().zip(names.by_ref());
                    let stored: Result<Vec<ChunkRef>> = named
                        .map(|(data, id)| self.store.put(&mut self.sealer, PackKind::Data, id, data))
                        .collect();
                    let Some(chunks) = self.context.ok(stored) else { return };
                    let Small { stat, xattrs, complete, .. } = small;
                    let content = FileData { chunks, stat, xattrs, has_record: complete };
                    self.context.done(0, stat.size);
                    self.finish(&draft, &content, complete.then_some(read_start), out);
                }
            }
        }
        self.batch = buf;
    }

    /// Reads what can be read at once and is just as it was listed. What is left out here, whatever the reason, is
    /// done file by file.
    fn read_small_files(&mut self, parts: &[WorkPart], buf: &mut Vec<u8>) -> Vec<Option<Small>> {
        let small = |part: &WorkPart| match part {
            WorkPart::File(draft) if draft.stat.size <= SMALL => draft.stat.size as usize + 1,
            _ => 0,
        };
        let room = parts.iter().map(small).sum();
        if buf.len() < room {
            buf.resize(room, 0);
        }
        let mut at = 0;
        let mut found = Vec::with_capacity(parts.len());
        for part in parts {
            let WorkPart::File(draft) = part else {
                found.push(None);
                continue;
            };
            // One more than there should be: only then its end is seen.
            let read = self.read_small(draft, &mut buf[at..at + small(part)]);
            let end = at + draft.stat.size as usize;
            found.push(read.map(|read| {
                let range = at..end;
                at = end;
                Small { range, ..read }
            }));
        }
        found
    }

    fn read_small(&mut self, draft: &Draft, buf: &mut [u8]) -> Option<Small> {
        let size = buf.len().checked_sub(1)?;
        self.context.progress.reading(&draft.path, draft.stat.size);
        let fd = entry::open_file(&draft.dir, &draft.name).ok()?;
        let read = self.reader.read_expecting(&fd, draft.stat.dev, size, buf).ok()?;
        let stat = Stat::of(&fd).ok()?;
        if read != size || stat.kind != FileType::RegularFile || !stat.same_content(&draft.stat) {
            return None;
        }
        let (xattrs, complete) = self.context.xattrs(&draft.path, || entry::xattrs_of(&fd));
        Some(Small { range: 0..0, stat, xattrs, complete })
    }

    /// A name of a file that has several: nothing to read, if what was read under the first name is what was listed
    /// under this one. (The first name may have been given to another file meanwhile.)
    ///
    /// Waiting here cannot last: the first name's job was taken before this one, and does not wait.
    fn linked(&mut self, draft: &Draft, link: &Link, ask: &Ask, out: &mut Encoded) {
        let first: &ContentSlot = match link {
            Link::First(slot) => {
                let content = self.file(draft, ask, out);
                return slot.set(content);
            }
            Link::Other(first) => first,
        };
        let same = |c: &Arc<FileData>| c.stat.same_content(&draft.stat);
        let Some(content) = first.wait(|content| content.clone()).filter(same) else {
            self.file(draft, ask, out);
            return;
        };
        self.context.references.add_again(&content.chunks);
        self.context.done(0, content.stat.size);
        self.finish(draft, &content, content.has_record.then_some(i64::MAX), out);
    }

    /// Stores one file; gives its content for its other names.
    fn file(&mut self, draft: &Draft, ask: &Ask, out: &mut Encoded) -> Option<Arc<FileData>> {
        let read_start = self.context.now();
        match self.read(draft, ask) {
            Ok(content) => {
                self.finish(draft, &content, content.has_record.then_some(read_start), out);
                Some(Arc::new(content))
            }
            Err(StoreFailed::Source(e)) => {
                self.context.failed(&draft.path, &e);
                None
            }
            Err(StoreFailed::Fatal(e)) => {
                self.context.abort(e);
                None
            }
        }
    }

    fn read(&mut self, draft: &Draft, ask: &Ask) -> Result<FileData, StoreFailed> {
        self.context.progress.reading(&draft.path, draft.stat.size);
        let mut fd = entry::open_file(&draft.dir, &draft.name)?;
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
        let (xattrs, complete) = self.context.xattrs(&draft.path, || entry::xattrs_of(&fd));
        let has_record = unchanged && read == after.size && complete;
        Ok(FileData { chunks, stat, xattrs, has_record })
    }

    /// Encodes the item of a stored file; with a time, its content is remembered as read then.
    fn finish(&self, draft: &Draft, content: &FileData, read_start: Option<i64>, out: &mut Encoded) {
        let FileData { chunks, stat, xattrs, .. } = content;
        if let Some(read_start) = read_start {
            let record = Record::new(draft.hash, stat, xattrs.is_some(), chunks.clone(), read_start);
            self.context.remember(&record, &mut out.records);
        }
        let mut item = entry::item(&draft.path, stat, &self.context.names, xattrs.clone());
        item.chunks = chunks.clone();
        self.context.encode(&item, &mut out.items);
        out.counts.add(&Counts {
            files: 1,
            bytes: stat.size,
            stored_bytes: stored_bytes(chunks),
            ..draft.compared(chunks)
        });
        self.context.done(1, 0);
        self.context.stored(&draft.path, draft.before.is_none(), stat.size);
    }

    /// Reads and stores the content of an open file, alone or with the other workers' help.
    fn content(
        &mut self,
        fd: OwnedFd,
        stat: &Stat,
        ask: &Ask,
    ) -> Result<(OwnedFd, Vec<ChunkRef>), StoreFailed> {
        if stat.size <= SEGMENT {
            let mut chunks = Vec::new();
            // What says that it is empty may have made-up contents: only reading tells.
            let end = if stat.size == 0 { SEGMENT } else { stat.size };
            self.segment(&fd, stat, (0, end), &mut chunks)?;
            return Ok((fd, chunks));
        }
        let large = Arc::new(Large::new(fd, stat)?);
        for _ in 1..self.queues.workers.min(large.segments()) {
            let _ = ask.0.send(large.clone());
        }
        self.help(&large);
        match large.wait() {
            // A helper that came too late may still hold the file: a second handle will do.
            (chunks, None) => Ok((large.fd.try_clone()?, chunks)),
            (chunks, Some(failed)) => {
                self.context.references.remove(&chunks);
                Err(failed)
            }
        }
    }

    /// Reads segments of a large file until there are none left.
    fn help(&mut self, large: &Large) {
        while let Some((number, range)) = large.begin() {
            let mut chunks = Vec::new();
            let result = self.segment(&large.fd, &large.stat, range, &mut chunks);
            large.end(number, result.map(|()| chunks));
        }
    }

    /// Reads, cuts and stores one segment; the references of a failed one are taken back.
    fn segment(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        range: (u64, u64),
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), StoreFailed> {
        let whole_hole =
            stat.has_holes() && range.1 - range.0 == SEGMENT && hole_at(fd, range.0, SEGMENT) == SEGMENT;
        if whole_hole && let Some(zeros) = &self.zero_segment {
            self.context.references.add_again(zeros);
            self.context.done(0, SEGMENT);
            chunks.clone_from(zeros);
            return Ok(());
        }
        let mut window = self.take_window();
        let result = self.read_segment(fd, stat, range, &mut window, chunks);
        self.give_window(window);
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

    /// Room for what is read.
    pub fn take_window(&mut self) -> Vec<u8> {
        match std::mem::take(&mut self.window) {
            // Zeroed by the system as it is used, and only then in memory.
            window if window.is_empty() => vec![0; self.window_len],
            window => window,
        }
    }

    /// Gives it back.
    pub fn give_window(&mut self, window: Vec<u8>) {
        self.window = window;
    }

    /// Cuts and stores what was read, but for what may go on behind it; returns how much that was.
    pub fn cut(&mut self, data: &[u8], at_end: bool, chunks: &mut Vec<ChunkRef>) -> Result<usize> {
        let (cut, used) = self.context.stages.time(Stage::Cut, || match at_end {
            true => (self.chunker.cut(data).collect(), data.len()),
            false => self.chunker.cut_open(data),
        });
        for (id, data) in self.store.names(&cut).into_iter().zip(cut) {
            chunks.push(self.store.put(&mut self.sealer, PackKind::Data, id, data)?);
        }
        Ok(used)
    }

    fn read_segment(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        (mut at, end): (u64, u64),
        window: &mut [u8],
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), StoreFailed> {
        let stages = self.context.stages;
        let mut filled = 0;
        loop {
            if self.context.is_aborted() {
                return Err(VykarError::Interrupted.into());
            }
            let wanted = (end - at).min((window.len() - filled) as u64) as usize;
            let room = &mut window[filled..filled + wanted];
            let got = stages.time(Stage::Read, || match stat.has_holes() {
                true => self.reader.read_sparse(fd, stat.dev, at, room),
                false => self.reader.read(fd, stat.dev, at, room),
            })?;
            filled += got;
            at += got as u64;
            self.context.done(0, got as u64);
            let at_end = got < wanted || at >= end;
            let used = self.cut(&window[..filled], at_end, chunks)?;
            if at_end {
                return Ok(());
            }
            window.copy_within(used..filled, 0);
            filled -= used;
        }
    }
}
