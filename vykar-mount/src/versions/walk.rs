//! Cuts the item streams of snapshots into sections.

use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use parking_lot::RwLock;
use vykar_core::format::ItemStream;
use vykar_core::repository::Repository;
use vykar_core::repository::objects::manifest::read_snapshot;
use vykar_core::{ChunkId, StorageError, VykarError};

use super::sections::{Index, List, NONE};
use super::tail_behind;
use super::timeline::Moment;
use crate::content::chunk_source::Data;
use crate::log::LogLine;

/// Snapshots whose chunks are decoded ahead together.
const BATCH: usize = 16;
/// Chunks that are decoded ahead.
const AHEAD: usize = 8;

/// Reads item streams.
pub(super) struct Walker<'a> {
    pub(super) repository: &'a Repository,
    pub(super) data: &'a Data,
    pub(super) index: &'a RwLock<Index>,
}

/// What came of reading item streams.
pub(super) struct Walked {
    /// What belongs into the log.
    pub(super) lines: Vec<LogLine>,
    /// Something is damaged or gone.
    pub(super) lossy: bool,
    /// Something could not be read that may be readable later.
    pub(super) away: bool,
}

/// A snapshot that is about to be read, and the chunks of its item stream.
struct SnapshotStream<'m> {
    moment: &'m Moment,
    chunks: Vec<ChunkId>,
}

impl Walker<'_> {
    /// Reads the item streams of those of these snapshots that are not known yet.
    pub(super) fn walk(&self, moments: &[Moment]) -> Walked {
        let (mut lines, mut lossy, mut away) = (Vec::new(), false, false);
        let is_new = |moment: &&Moment| {
            self.index.read().lists.get(&moment.info.listed.id).is_none_or(|list| list.lost.is_some())
        };
        let new: Vec<_> = moments.iter().filter(is_new).collect();
        for batch in new.chunks(BATCH) {
            for (moment, list) in self.batch(batch) {
                let snapshot = moment.info.listed.name.clone();
                let list = match list {
                    Ok(list) => list,
                    Err(e) => {
                        away = true;
                        lines.push(LogLine::ItemsLost { snapshot, reason: e.to_string() });
                        continue;
                    }
                };
                let broken = list.sections.last().is_some_and(|at| self.is_broken(*at));
                if let Some(reason) = &list.lost {
                    lossy = true;
                    lines.push(LogLine::ItemsLost { snapshot, reason: reason.clone() });
                } else if broken {
                    let reason = "the rest of its items cannot be read".to_owned();
                    lines.push(LogLine::ItemsLost { snapshot, reason });
                }
                self.index.write().lists.insert(moment.info.listed.id, list);
            }
        }
        Walked { lines, lossy, away }
    }

    fn is_broken(&self, at: u32) -> bool {
        self.index.read().section(at).is_some_and(|section| section.broken)
    }

    /// The lists of these snapshots, or why they cannot be read now.
    fn batch<'m>(&self, moments: &[&'m Moment]) -> Vec<(&'m Moment, Result<List, VykarError>)> {
        let mut lists = Vec::new();
        let mut streams = Vec::new();
        for moment in moments {
            match read_snapshot(self.repository, &moment.info.listed.id) {
                Ok(snapshot) => streams.push(SnapshotStream { moment, chunks: snapshot.meta.item_ptrs }),
                // If it has just been deleted, it will not be shown for long.
                Err(VykarError::Storage(StorageError::NotFound { .. })) => {
                    let id = &moment.info.listed.id;
                    lists.extend(self.repository.check_deleted(id).err().map(|e| (*moment, Err(e))));
                }
                Err(e) => lists.push((*moment, List::cut([].into(), e))),
            }
        }
        let wanted = self.wanted(&streams);
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            let chunks = wanted.clone();
            let ahead = std::thread::Builder::new().name("vykar-versions".into());
            let started = ahead.spawn_scoped(scope, move || {
                // Nobody waits for the rest when the receiver is gone.
                let _ = chunks.iter().try_for_each(|id| sender.send(self.data.read(id)));
            });
            let wanted = if started.is_ok() { wanted } else { VecDeque::new() };
            let mut source = ChunksAhead { data: self.data, wanted, receiver };
            for stream in streams {
                lists.push((stream.moment, self.sections(&stream.chunks, &mut source)));
            }
        });
        lists
    }

    /// Chunks that no section has yet, in the order of their first use.
    fn wanted(&self, streams: &[SnapshotStream<'_>]) -> VecDeque<ChunkId> {
        let index = self.index.read();
        let mut known: HashSet<ChunkId> = index.sections.iter().filter_map(|section| section.chunk).collect();
        let chunks = streams.iter().flat_map(|stream| &stream.chunks);
        chunks.filter(|id| known.insert(**id)).copied().collect()
    }

    /// The sections of an item stream.
    fn sections(&self, chunks: &[ChunkId], source: &mut ChunksAhead<'_>) -> Result<List, VykarError> {
        let mut sections = Vec::with_capacity(chunks.len() + 1);
        match self.walk_stream(chunks, source, &mut sections) {
            Ok(()) => Ok(List { sections: sections.into(), lost: None }),
            Err(e) => List::cut(sections.into(), e),
        }
    }

    fn walk_stream(
        &self,
        chunks: &[ChunkId],
        source: &mut ChunksAhead<'_>,
        sections: &mut Vec<u32>,
    ) -> Result<(), VykarError> {
        let mut stream: Option<ItemStream> = None;
        let mut last = NONE;
        for chunk in chunks.iter().copied().map(Some).chain([None]) {
            let (key, known) = {
                let index = self.index.read();
                let key = (index.tail_id(last), chunk);
                (key, index.find(&key))
            };
            if chunk.is_none() && key.0 == super::sections::NO_TAIL {
                return Ok(());
            }
            let at = match known {
                Some(known) => {
                    stream = None;
                    known
                }
                None => {
                    let items = match stream.take() {
                        Some(items) => items,
                        None => ItemStream::resume(tail_behind(self.index, self.data, last)?),
                    };
                    let items = stream.insert(items);
                    let bytes = chunk.map(|id| source.read(&id)).transpose()?;
                    let hasher = self.repository.keys().hasher();
                    let added = self.index.write().scan((key, last), items, bytes.as_deref(), hasher)?;
                    added.ok_or_else(|| VykarError::Usage("too many parts of item streams".into()))?
                }
            };
            sections.push(at);
            if self.is_broken(at) {
                return Ok(());
            }
            last = at;
        }
        Ok(())
    }
}

/// Chunks, those that are wanted from a thread that decodes them ahead.
struct ChunksAhead<'a> {
    data: &'a Data,
    wanted: VecDeque<ChunkId>,
    receiver: Receiver<Result<Bytes, VykarError>>,
}

impl ChunksAhead<'_> {
    fn read(&mut self, id: &ChunkId) -> Result<Bytes, VykarError> {
        let Some(ahead) = self.wanted.iter().position(|wanted| wanted == id) else {
            return self.data.read(id);
        };
        // What is skipped belongs to a stream that ended early.
        for _ in 0..ahead {
            self.wanted.pop_front();
            let _ = self.receiver.recv();
        }
        self.wanted.pop_front();
        self.receiver.recv().unwrap_or_else(|_| self.data.read(id))
    }
}
