//! The item stream: takes what walkers and workers made, in the walk's order.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::context::Context;
use super::filecache::FileCacheWriter;
use super::source::Stat;
use super::store::{ChunkStore, Sealer};
use super::walk::{Counts, Draft, Encoded, Piece, Ticket, Walk};
use super::worker::{FileSlot, Job};
use crate::codec::Chunker;
use crate::error::Result;
use crate::format::ChunkerParams;
use crate::id::ChunkId;
use crate::repository::pack_writer::PackKind;

/// The buffer is cut when it passes this; the uncut tail stays, so the size does not matter for
/// where the cuts are.
const CUT_AT: usize = 1 << 20;

/// Files of several names that are remembered at once; bounds their memory.
const MAX_LINKS: usize = 1_000_000;

/// What the writer takes, in order.
pub enum Next {
    /// Copy these items.
    Encoded(Encoded),
    /// Wait for this file.
    File(Arc<FileSlot>),
}

/// Visits the tree in order: hands files to the workers and everything to the writer.
pub fn emit(
    context: &Context<'_>,
    walk: &Walk<'_>,
    sources: Vec<Vec<Piece>>,
    jobs: &Sender<Job>,
    next: &Sender<Next>,
) {
    let mut links = Links::default();
    let mut stack: Vec<std::vec::IntoIter<Piece>> = sources.into_iter().rev().map(Vec::into_iter).collect();
    while let Some(top) = stack.last_mut() {
        if context.is_aborted() {
            return;
        }
        let sent = match top.next() {
            None => {
                stack.pop();
                continue;
            }
            Some(Piece::Dir(ticket)) => {
                stack.push(walk.take(&ticket).into_iter());
                continue;
            }
            Some(Piece::Encoded(encoded)) => next.send(Next::Encoded(encoded)).is_ok(),
            Some(Piece::File(draft)) => emit_file(draft, &mut links, jobs, next),
        };
        if !sent {
            // The other side has ended, and has said why.
            return;
        }
    }
}

/// Files of several names whose first name was met, by device and inode.
type Links = HashMap<(u64, u64), FirstName>;

struct FirstName {
    slot: Arc<FileSlot>,
    stat: Stat,
    /// Names that are still to come.
    left: u64,
}

fn emit_file(draft: Draft, links: &mut Links, jobs: &Sender<Job>, next: &Sender<Next>) -> bool {
    let key = (draft.stat.dev, draft.stat.ino);
    let slot = Arc::new(FileSlot::default());
    let mut first = None;
    if draft.stat.nlink > 1 {
        let room = links.len() < MAX_LINKS;
        match links.get_mut(&key) {
            // An inode number may be given to another file while the backup runs.
            Some(known) if known.stat.same_content(&draft.stat) => {
                first = Some(known.slot.clone());
                known.left = known.left.saturating_sub(1);
                if known.left == 0 {
                    links.remove(&key);
                }
            }
            _ if room => {
                let (slot, stat, left) = (slot.clone(), draft.stat, draft.stat.nlink - 1);
                links.insert(key, FirstName { slot, stat, left });
            }
            // Then each name is read by itself, which costs only time.
            _ => {}
        }
    }
    // In this order: the writer may wait for the slot only when a worker will see the job.
    jobs.send(Job { draft, slot: slot.clone(), first }).is_ok() && next.send(Next::File(slot)).is_ok()
}

/// Offers the directories among the sources to the listing threads.
pub fn offer(walk: &Walk<'_>, sources: &[Vec<Piece>]) {
    let tickets = sources.iter().flatten().filter_map(|piece| match piece {
        Piece::Dir(ticket) => Some(ticket.clone()),
        _ => None,
    });
    let tickets: Vec<Arc<Ticket>> = tickets.collect();
    tickets.into_iter().rev().for_each(|ticket| walk.offer(ticket));
}

/// Builds the item stream and the new file cache.
pub struct ItemWriter<'w> {
    context: &'w Context<'w>,
    store: &'w ChunkStore<'w>,
    sealer: Sealer,
    chunker: Chunker,
    buf: Vec<u8>,
    pointers: Vec<ChunkId>,
    counts: Counts,
    cache: Option<FileCacheWriter>,
}

/// What the item stream came to.
pub struct Written {
    /// The chunks of the stream, in order.
    pub pointers: Vec<ChunkId>,
    /// Counters over its items.
    pub counts: Counts,
    /// The new file cache, to be put into place after the commit.
    pub cache: Option<FileCacheWriter>,
}

impl<'w> ItemWriter<'w> {
    /// An empty stream.
    pub fn new(
        context: &'w Context<'w>,
        store: &'w ChunkStore<'w>,
        sealer: Sealer,
        cache: Option<FileCacheWriter>,
    ) -> Self {
        ItemWriter {
            context,
            store,
            sealer,
            chunker: Chunker::new(ChunkerParams::ITEMS),
            buf: Vec::new(),
            pointers: Vec::new(),
            counts: Counts::default(),
            cache,
        }
    }

    /// Takes everything that comes, and ends the stream.
    pub fn run(mut self, queue: Receiver<Next>) -> Result<Written> {
        for next in queue {
            if self.context.is_aborted() {
                break;
            }
            match next {
                Next::Encoded(encoded) => {
                    self.context.done(encoded.counts.files, encoded.counts.bytes);
                    self.add(&encoded)?;
                }
                Next::File(slot) => {
                    if let Some(encoded) = slot.take_encoded() {
                        self.add(&encoded)?;
                    }
                }
            }
        }
        self.cut(true)?;
        Ok(Written { pointers: self.pointers, counts: self.counts, cache: self.cache })
    }

    fn add(&mut self, encoded: &Encoded) -> Result<()> {
        self.counts.add(&encoded.counts);
        self.buf.extend_from_slice(&encoded.items);
        if let Some(cache) = &mut self.cache {
            let written = encoded.records.iter().try_for_each(|record| cache.add(record));
            // No room for the cache costs the next run its speed, not this run its snapshot.
            if written.is_err() {
                self.cache = None;
            }
        }
        if self.buf.len() >= CUT_AT {
            self.cut(false)?;
        }
        Ok(())
    }

    fn cut(&mut self, last: bool) -> Result<()> {
        let buf = std::mem::take(&mut self.buf);
        let (done, used) = match last {
            true => (self.chunker.cut(&buf).collect(), buf.len()),
            false => self.chunker.cut_open(&buf),
        };
        for chunk in done {
            self.pointers.push(self.store.put(&mut self.sealer, PackKind::Tree, chunk)?.id);
        }
        self.buf = buf;
        self.buf.drain(..used);
        Ok(())
    }
}
