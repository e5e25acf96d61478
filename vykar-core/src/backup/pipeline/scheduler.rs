//! Visits the tree in order: hands files to the workers and everything to the item writer.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::backup::pipeline::context::Context;
use crate::backup::pipeline::encoded_items::Encoded;
use crate::backup::pipeline::walk::{Draft, ListedPiece, SourceWalk, Ticket};
use crate::backup::pipeline::work_item::{ContentSlot, JobSlot, Link, WorkItem, WorkPart};
use crate::backup::source::entry::Stat;

/// Jobs waiting for a worker.
pub const JOB_QUEUE: usize = 32;
/// Larger files are a job of their own, in bytes.
pub const SMALL: u64 = 2 << 20;
/// A job of several files is handed over at so many bytes of content, or of encoded items between the files, or
/// at so many files.
const JOB_BYTES: u64 = 4 << 20;
const JOB_ENCODED: usize = 256 << 10;
const JOB_FILES: usize = 128;
/// Files of several names that are remembered at once; bounds their memory.
const MAX_LINKS: usize = 1_000_000;

/// What the item writer takes, in order.
pub enum NextPiece {
    /// Copy these items.
    Encoded(Encoded),
    /// Wait for this job.
    Job(Arc<JobSlot>),
}

/// Offers the directories among the sources to the listing threads.
pub fn offer(walk: &SourceWalk<'_>, sources: &[Vec<ListedPiece>]) {
    let tickets = sources.iter().flatten().filter_map(|piece| match piece {
        ListedPiece::Dir(ticket) => Some(ticket.clone()),
        _ => None,
    });
    let tickets: Vec<Arc<Ticket>> = tickets.collect();
    tickets.into_iter().rev().for_each(|ticket| walk.offer(ticket));
}

/// Puts jobs together and hands them over.
pub struct Emitter<'q> {
    jobs: &'q Sender<WorkItem>,
    next: &'q Sender<NextPiece>,
    /// The job being put together.
    parts: Vec<WorkPart>,
    files: usize,
    bytes: u64,
    encoded: usize,
    /// Directories that its files are in, which stay open until they are read.
    dirs: usize,
    max_dirs: usize,
    /// Files of several names whose first name was met, by device and inode.
    links: HashMap<(u64, u64), FirstLink>,
}

struct FirstLink {
    content: Arc<ContentSlot>,
    stat: Stat,
    /// Names that are still to come.
    left: u64,
}

/// The other side of a queue has ended, and has said why.
pub struct Ended;

impl<'q> Emitter<'q> {
    /// Hands jobs to `jobs`, and all that becomes items to `next`. `max_handles` directories may be open for
    /// files that wait to be read.
    pub fn new(jobs: &'q Sender<WorkItem>, next: &'q Sender<NextPiece>, max_handles: usize) -> Self {
        Emitter {
            jobs,
            next,
            parts: Vec::new(),
            files: 0,
            bytes: 0,
            encoded: 0,
            dirs: 0,
            max_dirs: (max_handles / JOB_QUEUE).clamp(1, JOB_FILES),
            links: HashMap::new(),
        }
    }

    /// Visits everything.
    pub fn run(mut self, context: &Context<'_>, walk: &SourceWalk<'_>, sources: Vec<Vec<ListedPiece>>) {
        let mut stack: Vec<std::vec::IntoIter<ListedPiece>> =
            sources.into_iter().rev().map(Vec::into_iter).collect();
        while let Some(top) = stack.last_mut() {
            if context.is_aborted() {
                return;
            }
            let sent = match top.next() {
                None => {
                    stack.pop();
                    continue;
                }
                Some(ListedPiece::Dir(ticket)) => {
                    stack.push(walk.take(&ticket).into_iter());
                    continue;
                }
                Some(ListedPiece::Encoded(encoded)) => self.encoded(encoded),
                Some(ListedPiece::File(draft)) => self.file(draft),
                Some(ListedPiece::Stream(stream)) => {
                    self.flush().and_then(|()| self.send(vec![WorkPart::Stream(stream)], None))
                }
            };
            if sent.is_err() {
                return;
            }
        }
        let _ = self.flush();
    }

    fn encoded(&mut self, encoded: Encoded) -> Result<(), Ended> {
        if self.parts.is_empty() {
            return self.next.send(NextPiece::Encoded(encoded)).map_err(|_| Ended);
        }
        self.encoded += encoded.items.len();
        self.parts.push(WorkPart::Encoded(encoded));
        if self.encoded >= JOB_ENCODED { self.flush() } else { Ok(()) }
    }

    fn file(&mut self, draft: Draft) -> Result<(), Ended> {
        let link = self.link(&draft.stat);
        if link.is_some() || draft.stat.size > SMALL {
            self.flush()?;
            return self.send(vec![WorkPart::File(draft)], link);
        }
        let same_dir = self.parts.iter().rev().find_map(|part| match part {
            WorkPart::File(last) => Some(Arc::ptr_eq(&last.dir, &draft.dir)),
            WorkPart::Encoded(_) | WorkPart::Stream(_) => None,
        });
        self.dirs += usize::from(same_dir != Some(true));
        self.files += 1;
        self.bytes += draft.stat.size;
        self.parts.push(WorkPart::File(draft));
        let full = self.bytes >= JOB_BYTES || self.files >= JOB_FILES || self.dirs >= self.max_dirs;
        if full { self.flush() } else { Ok(()) }
    }

    fn link(&mut self, stat: &Stat) -> Option<Link> {
        if stat.nlink < 2 {
            return None;
        }
        let room = self.links.len() < MAX_LINKS;
        let key = (stat.dev, stat.ino);
        match self.links.get_mut(&key) {
            // An inode number may be given to another file while the backup runs.
            Some(known) if known.stat.same_content(stat) => {
                let first = known.content.clone();
                known.left = known.left.saturating_sub(1);
                if known.left == 0 {
                    self.links.remove(&key);
                }
                Some(Link::Other(first))
            }
            _ if room => {
                let content = Arc::new(ContentSlot::default());
                let first = FirstLink { content: content.clone(), stat: *stat, left: stat.nlink - 1 };
                self.links.insert(key, first);
                Some(Link::First(content))
            }
            // Then each name is read by itself, which costs only time.
            _ => None,
        }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        (self.files, self.bytes, self.encoded, self.dirs) = (0, 0, 0, 0);
        match std::mem::take(&mut self.parts) {
            parts if parts.is_empty() => Ok(()),
            parts => self.send(parts, None),
        }
    }

    fn send(&self, parts: Vec<WorkPart>, link: Option<Link>) -> Result<(), Ended> {
        let slot = Arc::new(JobSlot::default());
        // In this order: the writer may wait for the slot only when a worker will see the job.
        self.jobs.send(WorkItem { parts, slot: slot.clone(), link }).map_err(|_| Ended)?;
        self.next.send(NextPiece::Job(slot)).map_err(|_| Ended)
    }
}
