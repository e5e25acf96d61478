//! What sessions that ended without publishing have left: packs that no index names, and a journal that does.

use std::collections::{HashMap, HashSet};

use crate::codec::decompress_stream;
use crate::error::{IndexError, ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::{ObjectKind, PENDING_CONTEXT};
use crate::format::index::TableBuilder;
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::pending::{self, PendingChunk, PendingPack};
use crate::format::{IndexBlob, IndexEntry, MAX_METADATA_OBJECT, MAX_METADATA_PLAINTEXT, table::ChunkTable};
use crate::id::{PackId, SessionId};
use crate::platform::ProcessIdentity;
use crate::repository::lock::liveness::{SessionInfo, journal_key, marker_key};
use crate::repository::resume::claims::Claims;
use crate::repository::{LostPacks, Repository, pack_key};

/// Sessions that are over and may be taken up by one that runs.
pub struct AbandonedSessions<'r> {
    repository: &'r Repository,
    sessions: Vec<SessionId>,
}

impl<'r> AbandonedSessions<'r> {
    /// Those of the same sources, as `claims` remembers them, and those of this host that nobody on this machine
    /// remembers. `own` has just been registered; `before` are earlier sessions of the same backup.
    ///
    /// A session is over when its process is gone, when it was not refreshed for 72 hours, or when its marker is
    /// gone: should it run all the same, it sees at its commit that it was taken for dead.
    pub fn find(
        repository: &'r Repository,
        claims: &Claims,
        own: &SessionId,
        before: &[SessionId],
    ) -> Result<Self> {
        // Before the markers: whoever claims a session has written its marker, so that one which begins just now
        // is not taken for one whose marker is gone.
        let remembered = claims.list();
        let markers = SessionInfo::list(repository)?;
        let here = ProcessIdentity::current().host;
        let claimed: HashSet<SessionId> = remembered.iter().map(|claim| claim.session).collect();
        let is_over = |id: &SessionId| {
            markers.iter().find(|session| session.id == *id).is_none_or(|session| session.standing.is_over())
        };
        let ours = remembered.iter().filter(|claim| claim.is_ours).map(|claim| claim.session);
        let of_this_host = |session: &&SessionInfo| {
            let marker = session.marker.as_ref();
            !claimed.contains(&session.id) && marker.is_some_and(|marker| marker.hostname == here)
        };
        let forgotten = markers.iter().filter(of_this_host).map(|session| session.id);
        let mut sessions: Vec<SessionId> = ours.chain(forgotten).chain(before.iter().copied()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions.retain(|id| id != own && is_over(id));
        Ok(AbandonedSessions { repository, sessions })
    }

    /// Their chunks that are not in the index, or only in a pack that is lost, as far as their packs are there. What cannot
    /// be read is said, and costs no more than to store it again.
    pub fn read(&self, index: &IndexBlob, lost: &LostPacks) -> Result<(RecoveredChunks, Vec<String>)> {
        let mut reading = Reading::new(self.repository, index, lost);
        let mut notes = Vec::new();
        for session in &self.sessions {
            match reading.journal(session) {
                Err(e @ VykarError::Damaged { .. }) => {
                    notes.push(format!("what an unfinished backup left is not taken up: {e}"));
                }
                other => other?,
            }
        }
        Ok((reading.finish(), notes))
    }

    /// Removes their journals and markers. What they held must be named by another journal, or not be wanted.
    pub fn remove(&self, claims: &Claims) {
        let backend = self.repository.backend();
        for session in &self.sessions {
            // Whatever stays is found again by the next backup.
            let removed = backend.delete(&journal_key(session));
            if removed.and_then(|()| backend.delete(&marker_key(session))).is_ok() {
                claims.remove(session);
            }
        }
    }
}

/// Journals being read.
struct Reading<'r> {
    repository: &'r Repository,
    index: &'r IndexBlob,
    lost: &'r LostPacks,
    chunks: TableBuilder,
    /// Lengths in bytes.
    packs: HashMap<PackId, u64>,
    /// The storage's fault.
    failure: Option<VykarError>,
}

impl<'r> Reading<'r> {
    fn new(repository: &'r Repository, index: &'r IndexBlob, lost: &'r LostPacks) -> Self {
        let (chunks, packs) = (TableBuilder::default(), HashMap::new());
        Reading { repository, index, lost, chunks, packs, failure: None }
    }

    /// All of a journal, or nothing.
    fn journal(&mut self, session: &SessionId) -> Result<()> {
        let key = journal_key(session);
        let damaged = |cause: ObjectError| VykarError::damaged(&key, cause);
        let mut object = match self.repository.backend().get(&key, MAX_METADATA_OBJECT) {
            // It had none, or somebody else has just taken it up.
            Err(StorageError::NotFound { .. }) => return Ok(()),
            Err(e @ StorageError::TooLarge { .. }) => {
                return Err(damaged(ObjectError::Unreadable(e.to_string())));
            }
            other => other?,
        };
        let payload = self.repository.keys().open(ObjectKind::PendingIndex, PENDING_CONTEXT, &mut object);
        let plain = decompress_stream(payload.map_err(damaged)?, MAX_METADATA_PLAINTEXT);
        let mut plain = plain.map_err(|e| damaged(e.into()))?;
        let before = self.chunks.len();
        let read = pending::decode_each(&mut plain, &mut |pack| self.pack(&pack));
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        read.map_err(|e| {
            self.chunks.truncate(before);
            damaged(e.into())
        })
    }

    /// The chunks of a pack that is there in full.
    fn pack(&mut self, PendingPack { pack, chunks }: &PendingPack) -> Result<(), IndexError> {
        let size = match self.repository.backend().size(&pack_key(pack)) {
            Ok(size) => size,
            Err(StorageError::NotFound { .. }) => return Ok(()),
            Err(e) => {
                let stop = IndexError::Read(std::io::Error::other(e.to_string()));
                self.failure = Some(e.into());
                return Err(stop);
            }
        };
        let first = HEADER.len() as u64 + LENGTH_PREFIX;
        let is_inside = |(_, stored_size, offset): &PendingChunk| {
            let end = offset.checked_add(u64::from(*stored_size));
            *stored_size > 0 && *offset >= first && end.is_some_and(|end| end <= size)
        };
        if !chunks.iter().all(is_inside) {
            return Ok(());
        }
        self.packs.insert(*pack, size);
        for (id, stored_size, offset) in chunks.iter().copied() {
            let table = &self.index.chunks;
            if table.find(&id).is_none_or(|slot| self.lost.has_slot(table, slot)) {
                self.chunks.add(IndexEntry { id, refcount: 0, stored_size, pack: *pack, offset })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> RecoveredChunks {
        let chunks = self.chunks.finish_distinct();
        let sizes: Vec<u64> =
            chunks.packs().iter().map(|pack| self.packs.get(pack).copied().unwrap_or(0)).collect();
        // Slots in the order of their packs, by counting.
        let mut starts = vec![0u32; sizes.len() + 1];
        for slot in 0..chunks.len() {
            starts[chunks.pack_number(slot) as usize + 1] += 1;
        }
        for pack in 1..starts.len() {
            starts[pack] += starts[pack - 1];
        }
        let mut next = starts.clone();
        let mut by_pack = vec![0u32; chunks.len()];
        for slot in 0..chunks.len() {
            let at = &mut next[chunks.pack_number(slot) as usize];
            by_pack[*at as usize] = slot as u32;
            *at += 1;
        }
        RecoveredChunks { chunks, sizes, starts, by_pack }
    }
}

/// Chunks that sessions which are over have stored and no index names: 52 bytes each.
#[derive(Default)]
pub struct RecoveredChunks {
    /// The chunks, none of which anybody refers to yet.
    pub chunks: ChunkTable,
    /// Length of each pack, in bytes.
    sizes: Vec<u64>,
    /// Where the slots of each pack begin in `by_pack`; and the end.
    starts: Vec<u32>,
    by_pack: Vec<u32>,
}

/// A pack that was taken up.
pub struct TakenPack<'t> {
    /// Its name.
    pub id: PackId,
    /// Its length in bytes.
    pub size: u64,
    /// Its chunks that are not in the index, by their slots.
    pub slots: &'t [u32],
}

impl RecoveredChunks {
    /// True when nothing was.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The packs that hold a chunk, each once.
    pub fn packs(&self) -> impl Iterator<Item = TakenPack<'_>> {
        let packs = self.chunks.packs().iter().zip(&self.sizes).zip(self.starts.windows(2));
        packs.filter_map(|((id, size), range)| {
            let slots = self.by_pack.get(range[0] as usize..range[1] as usize)?;
            (!slots.is_empty()).then_some(TakenPack { id: *id, size: *size, slots })
        })
    }

    /// The chunk in a slot, as a journal names it.
    pub fn pending(&self, slot: u32) -> PendingChunk {
        let entry = self.chunks.entry(slot as usize);
        (entry.id, entry.stored_size, entry.offset)
    }
}
