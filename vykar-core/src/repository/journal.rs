//! A running session's journal: the packs that no index names yet, for whoever takes them up if it is killed.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::pack_writer::{PackKind, WrittenPack};
use super::takeup::TakenUp;
use super::{Session, metadata_warning};
use crate::error::{Result, VykarError};
use crate::format::pending::{self, PendingChunk};

/// The journal is written each time this many data packs are durable.
const EVERY: usize = 8;

/// Tells about chunks by the numbers that they were added with.
pub trait PackedChunks: Send + Sync {
    /// Id, stored size and offset of a chunk that has been placed.
    fn pending(&self, chunk: u32) -> PendingChunk;
}

/// The packs of a session: those that it took up, and those that it wrote.
pub struct Journal {
    session: Arc<Session>,
    chunks: Arc<dyn PackedChunks>,
    taken: Arc<TakenUp>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Durable, in the order in which they became so.
    packs: Vec<WrittenPack>,
    data_packs: usize,
    warning: Option<String>,
}

impl Journal {
    /// Of a session that has written nothing.
    pub fn new(session: Arc<Session>, chunks: Arc<dyn PackedChunks>, taken: Arc<TakenUp>) -> Self {
        Journal { session, chunks, taken, state: Mutex::default() }
    }

    /// Adds a pack that is durable, and writes the journal now and then.
    pub fn add(&self, pack: WrittenPack, kind: PackKind) -> Result<()> {
        let mut state = self.state.lock();
        state.packs.push(pack);
        if kind == PackKind::Tree {
            return Ok(());
        }
        state.data_packs += 1;
        if !state.data_packs.is_multiple_of(EVERY) {
            return Ok(());
        }
        match self.write_locked(&mut state) {
            // Too large: what is written so far is named, and only a backup that is killed needs more.
            Err(VykarError::Encode { reason, .. }) => {
                state.warning = Some(format!("this backup's journal could not be written: {reason}"));
                Ok(())
            }
            other => other,
        }
    }

    /// Writes the journal, unless there is nothing to be named. Also where it was written already: somebody who took
    /// this session for dead may have removed it.
    pub fn write(&self) -> Result<()> {
        let mut state = self.state.lock();
        match state.packs.is_empty() && self.taken.is_empty() {
            true => Ok(()),
            false => self.write_locked(&mut state),
        }
    }

    fn write_locked(&self, state: &mut State) -> Result<()> {
        type Chunks<'c> = Box<dyn Iterator<Item = PendingChunk> + 'c>;
        let taken = self.taken.packs().map(|pack| {
            let chunks = pack.slots.iter().map(|slot| self.taken.pending(*slot));
            (pack.id, pack.slots.len() as u32, Box::new(chunks) as Chunks<'_>)
        });
        let written = state.packs.iter().map(|pack| {
            let chunks = pack.chunks.iter().map(|chunk| self.chunks.pending(*chunk));
            (pack.id, pack.chunks.len() as u32, Box::new(chunks) as Chunks<'_>)
        });
        let packs: Vec<_> = taken.chain(written).collect();
        let len = self.session.write_journal(|out| pending::encode_to(out, packs.into_iter()))?;
        state.warning = metadata_warning("this backup's journal", len);
        Ok(())
    }

    /// The packs that the session wrote. Nothing may be added while the caller keeps this.
    pub fn packs(&self) -> impl Deref<Target = [WrittenPack]> + '_ {
        let all: MappedMutexGuard<'_, [WrittenPack]> =
            MutexGuard::map(self.state.lock(), |state| &mut state.packs[..]);
        all
    }

    /// What is to be said about its size.
    pub fn warning(&self) -> Option<String> {
        self.state.lock().warning.clone()
    }
}
