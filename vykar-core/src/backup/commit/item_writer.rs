//! The item stream: takes what walkers and workers made, in the walk's order.

use std::time::Instant;

use crossbeam_channel::Receiver;

use crate::backup::pipeline::chunk_store::{ChunkStore, Sealer};
use crate::backup::pipeline::context::Context;
use crate::backup::pipeline::encoded_items::{Counts, Encoded};
use crate::backup::pipeline::scheduler::NextPiece;
use crate::codec::Chunker;
use crate::error::Result;
use crate::format::ChunkerParams;
use crate::id::ChunkId;
use crate::local_state::file_cache::FileCacheWriter;
use crate::repository::objects::pack_writer::PackKind;
use crate::stage::Stage;

/// The buffer is cut when it passes this; the uncut tail stays, so the size does not matter for
/// where the cuts are.
const CUT_AT: usize = 1 << 20;

/// Builds the item stream and the new file cache.
pub struct ItemWriter<'w> {
    context: &'w Context<'w>,
    stream: StreamWriter<'w>,
    counts: Counts,
    cache: Option<FileCacheWriter>,
}

/// What the item stream came to.
pub struct WrittenItems {
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
        ItemWriter { context, stream: StreamWriter::new(store, sealer), counts: Counts::default(), cache }
    }

    /// Takes everything that comes, and ends the stream.
    pub fn run(mut self, queue: Receiver<NextPiece>) -> Result<WrittenItems> {
        for next in queue {
            if self.context.is_aborted() {
                break;
            }
            match next {
                NextPiece::Encoded(encoded) => {
                    self.context.done(encoded.counts.files, encoded.counts.bytes);
                    self.add(&encoded)?;
                }
                NextPiece::Job(slot) => {
                    let encoded = slot.wait(std::mem::take);
                    self.add(&encoded)?;
                }
            }
        }
        Ok(WrittenItems { pointers: self.stream.finish()?, counts: self.counts, cache: self.cache })
    }

    fn add(&mut self, encoded: &Encoded) -> Result<()> {
        let began = Instant::now();
        self.counts.add(&encoded.counts);
        self.stream.push(&encoded.items);
        if let Some(cache) = &mut self.cache {
            // No room for the cache costs the next run its speed, not this run its snapshot.
            if cache.add(&encoded.records).is_err() {
                self.cache = None;
            }
        }
        self.context.stages.add(Stage::Items, began.elapsed());
        self.stream.cut_full()
    }
}

/// Cuts encoded items, one behind the other, and stores the chunks.
pub struct StreamWriter<'w> {
    store: &'w ChunkStore<'w>,
    sealer: Sealer,
    chunker: Chunker,
    buf: Vec<u8>,
    pointers: Vec<ChunkId>,
}

impl<'w> StreamWriter<'w> {
    /// An empty stream.
    pub fn new(store: &'w ChunkStore<'w>, sealer: Sealer) -> Self {
        let chunker = Chunker::new(ChunkerParams::ITEMS);
        StreamWriter { store, sealer, chunker, buf: Vec::new(), pointers: Vec::new() }
    }

    /// Adds items.
    pub fn push(&mut self, items: &[u8]) {
        self.buf.extend_from_slice(items);
    }

    /// Stores what can be cut, once it is enough.
    pub fn cut_full(&mut self) -> Result<()> {
        if self.buf.len() >= CUT_AT { self.cut(false) } else { Ok(()) }
    }

    /// Stores the rest, and gives the chunks of the stream in order.
    pub fn finish(mut self) -> Result<Vec<ChunkId>> {
        self.cut(true)?;
        Ok(self.pointers)
    }

    fn cut(&mut self, last: bool) -> Result<()> {
        let buf = std::mem::take(&mut self.buf);
        let (done, used) = match last {
            true => (self.chunker.cut(&buf).collect(), buf.len()),
            false => self.chunker.cut_open(&buf),
        };
        let names = self.store.names(&done);
        for (id, chunk) in names.into_iter().zip(done) {
            self.pointers.push(self.store.put(&mut self.sealer, PackKind::Tree, id, chunk)?.id);
        }
        self.buf = buf;
        self.buf.drain(..used);
        Ok(())
    }
}
