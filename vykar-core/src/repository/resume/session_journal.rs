//! A running session's journal: the packs that no index names yet, for whoever takes them up if it is killed.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::error::{Result, VykarError};
use crate::format::pending::{self, PendingChunk};
use crate::repository::objects::pack_writer::{PackKind, WrittenPack};
use crate::repository::resume::abandoned::RecoveredChunks;
use crate::repository::{Session, metadata_warning};

/// The journal is written when so many data packs are durable that it does not name, as the format asks for,
const MAX_UNNAMED: usize = 8;
/// or so many bytes in them: with large packs, eight are 1.5 GiB, which a backup that is killed would leave to nobody,
const MAX_UNNAMED_BYTES: u64 = 256 << 20;
/// or when the first of them has waited so long, with a slow line.
const MAX_UNNAMED_TIME: Duration = Duration::from_secs(60);
/// A journal names all packs, so it is not written for less than this share of what it names.
const LEAST_SHARE: u64 = 64;

/// Tells about chunks by the numbers that they were added with.
pub trait PackedChunks: Send + Sync {
    /// Id, stored size and offset of a chunk that has been placed.
    fn pending(&self, chunk: u32) -> PendingChunk;
}

/// The packs of a session: those that it took up, and those that it wrote.
pub struct Journal {
    session: Arc<Session>,
    chunks: Arc<dyn PackedChunks>,
    taken: Arc<RecoveredChunks>,
    state: Mutex<JournalState>,
}

#[derive(Default)]
struct JournalState {
    /// Durable, in the order in which they became so.
    packs: Vec<WrittenPack>,
    /// Their bytes.
    bytes: u64,
    unnamed: Unnamed,
    warning: Option<String>,
}

/// Data packs that the journal does not name yet.
#[derive(Default)]
struct Unnamed {
    packs: usize,
    bytes: u64,
    since: Option<Instant>,
}

impl Unnamed {
    fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.since.get_or_insert_with(Instant::now);
    }

    /// True when they are to be named, where all packs of the session have so many bytes.
    fn are_due(&self, all: u64) -> bool {
        let is_worth_it = self.bytes >= all / LEAST_SHARE;
        let has_waited = self.since.is_some_and(|since| since.elapsed() >= MAX_UNNAMED_TIME);
        self.packs >= MAX_UNNAMED || (is_worth_it && (self.bytes >= MAX_UNNAMED_BYTES || has_waited))
    }
}

impl Journal {
    /// Of a session that has written nothing.
    pub fn new(session: Arc<Session>, chunks: Arc<dyn PackedChunks>, taken: Arc<RecoveredChunks>) -> Self {
        Journal { session, chunks, taken, state: Mutex::default() }
    }

    /// Adds a pack that is durable, and writes the journal now and then.
    pub fn add(&self, pack: WrittenPack, kind: PackKind) -> Result<()> {
        let mut state = self.state.lock();
        let size = pack.size;
        state.packs.push(pack);
        state.bytes = state.bytes.saturating_add(size);
        if kind == PackKind::Tree {
            return Ok(());
        }
        state.unnamed.add(size);
        if !state.unnamed.are_due(state.bytes) {
            return Ok(());
        }
        state.unnamed = Unnamed::default();
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

    fn write_locked(&self, state: &mut JournalState) -> Result<()> {
        type JournalChunks<'c> = Box<dyn Iterator<Item = PendingChunk> + 'c>;
        let taken = self.taken.packs().map(|pack| {
            let chunks = pack.slots.iter().map(|slot| self.taken.pending(*slot));
            (pack.id, pack.slots.len() as u32, Box::new(chunks) as JournalChunks<'_>)
        });
        let written = state.packs.iter().map(|pack| {
            let chunks = pack.chunks.iter().map(|chunk| self.chunks.pending(*chunk));
            (pack.id, pack.chunks.len() as u32, Box::new(chunks) as JournalChunks<'_>)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_named_after_eight_of_them_many_bytes_or_a_minute() {
        let unnamed = |packs: usize, mib: u64, seconds: u64| {
            let since = Instant::now().checked_sub(Duration::from_secs(seconds));
            Unnamed { packs, bytes: mib << 20, since }
        };
        assert!(!unnamed(7, 200, 0).are_due(0) && unnamed(8, 1, 0).are_due(0));
        assert!(!unnamed(1, 255, 0).are_due(1 << 30) && unnamed(2, 256, 0).are_due(1 << 30));
        assert!(!unnamed(1, 1, 59).are_due(0) && unnamed(1, 1, 61).are_due(0));
        // Behind a terabyte it takes more to be worth a journal.
        assert!(!unnamed(2, 256, 61).are_due(1 << 40) && unnamed(8, 256, 0).are_due(1 << 40));
    }
}
