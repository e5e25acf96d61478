//! Where the chunks of a tree that is being built are in the index.
//!
//! Each lookup is a few reads of memory that is in no cache, so a snapshot of a million files has them done by a
//! thread beside the one that parses its items.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use vykar_core::ChunkId;
use vykar_core::format::IndexBlob;

use super::TreePiece;
use super::build::{BuildError, bounded};

/// Chunks that are looked up together.
const BATCH: usize = 16 << 10;
/// Batches that may wait for the thread.
const WAITING: usize = 2;

/// Ids in the order of the pieces, on their way to slots.
pub(super) struct Slots {
    index: Arc<IndexBlob>,
    batch: Vec<ChunkId>,
    thread: Option<(SyncSender<Vec<ChunkId>>, JoinHandle<FoundSlots>)>,
    inline: FoundSlots,
}

/// Slots in the order of the pieces, and the chunks that have none: behind the slots they are numbered.
#[derive(Default)]
struct FoundSlots {
    slots: Vec<u32>,
    strangers: Vec<ChunkId>,
    numbers: HashMap<ChunkId, usize>,
    too_many: bool,
}

impl FoundSlots {
    fn look_up(&mut self, index: &IndexBlob, batch: &[ChunkId]) {
        let table = &index.chunks;
        for id in batch {
            let slot = table.find(id).unwrap_or_else(|| {
                let next = self.strangers.len();
                let number = *self.numbers.entry(*id).or_insert(next);
                if number == next {
                    self.strangers.push(*id);
                }
                table.len() + number
            });
            match u32::try_from(slot) {
                Ok(slot) => self.slots.push(slot),
                Err(_) => self.too_many = true,
            }
        }
    }
}

fn work(index: &IndexBlob, batches: &Receiver<Vec<ChunkId>>) -> FoundSlots {
    let mut found = FoundSlots::default();
    for batch in batches {
        found.look_up(index, &batch);
    }
    found
}

impl Slots {
    pub(super) fn new(index: Arc<IndexBlob>) -> Self {
        Slots { index, batch: Vec::new(), thread: None, inline: FoundSlots::default() }
    }

    /// The chunk of the next piece.
    pub(super) fn add(&mut self, id: &ChunkId) {
        self.batch.push(*id);
        if self.batch.len() >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        if self.thread.is_none() && self.inline.slots.is_empty() {
            let (send, batches) = sync_channel(WAITING);
            let index = self.index.clone();
            let thread = std::thread::Builder::new().name("vykar-slots".into());
            self.thread = thread.spawn(move || work(&index, &batches)).ok().map(|thread| (send, thread));
        }
        match &self.thread {
            // It ends only when this is finished, unless it panicked; then finish() says so.
            Some((send, _)) => drop(send.send(batch)),
            None => self.inline.look_up(&self.index, &batch),
        }
    }

    /// Gives each piece its slot; returns the index, and the chunks that it does not know.
    pub(super) fn finish(
        &mut self,
        pieces: &mut [TreePiece],
    ) -> Result<(Arc<IndexBlob>, Vec<ChunkId>), BuildError> {
        let mut found = std::mem::take(&mut self.inline);
        if let Some((send, thread)) = self.thread.take() {
            drop(send);
            found = thread.join().unwrap_or_default();
        }
        found.look_up(&self.index, &self.batch);
        if found.too_many || found.slots.len() != pieces.len() {
            return Err(BuildError { what: "chunks", max: u32::MAX.into() });
        }
        bounded(found.slots.len(), "chunks")?;
        for (piece, slot) in pieces.iter_mut().zip(&found.slots) {
            piece.slot = *slot;
        }
        Ok((self.index.clone(), found.strangers))
    }
}
