//! Publishing a backup: index, then snapshot, under the lock.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::store::References;
use crate::codec::Compression;
use crate::crypto::random;
use crate::error::{Result, StorageError, VykarError};
use crate::format::envelope::ObjectKind;
use crate::format::{IndexBlob, IndexEntry, SnapshotMeta};
use crate::id::{ChunkId, SnapshotId};
use crate::repository::pack_writer::WrittenPack;
use crate::repository::{LockOptions, Manifest, Repository, RepositoryLock, Session, pack_key, snapshot_key};
use crate::storage::PutMode;

/// What is to be published.
pub struct Commit<'a> {
    pub repository: &'a Repository,
    pub session: &'a Session,
    pub references: &'a References,
    pub packs: &'a [WrittenPack],
    pub lock: &'a LockOptions,
}

impl Commit<'_> {
    /// Publishes a snapshot; its name is filled in here.
    ///
    /// # Errors
    /// Nothing is published when this fails before the snapshot is written; at worst, counts in the
    /// index are too high, which is safe.
    pub fn publish(&self, meta: &SnapshotMeta) -> Result<(SnapshotId, SnapshotMeta)> {
        let began = Instant::now();
        let mut written = None;
        loop {
            let mut lock = RepositoryLock::acquire(self.repository, self.lock)?;
            match self.publish_locked(&mut lock, meta.clone(), &mut written) {
                Ok(done) => {
                    // The snapshot is there: that the lock could not be removed does not undo it.
                    let _ = lock.release();
                    return Ok(done);
                }
                // Somebody's earlier lock appeared late. Nothing is lost but the time to look again.
                Err(VykarError::LockLost { .. }) if began.elapsed() < self.lock.wait => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// `written` is the generation of the index that an earlier attempt of this commit wrote.
    fn publish_locked(
        &self,
        lock: &mut RepositoryLock<'_>,
        mut meta: SnapshotMeta,
        written: &mut Option<u64>,
    ) -> Result<(SnapshotId, SnapshotMeta)> {
        let manifest = Manifest::load(self.repository)?;
        let current = self.repository.read_index()?;
        self.check_packs()?;
        let mut known = current.generation;
        // With our own index still there, the references are in it. When somebody has written another
        // one since, adding them again makes counts too high, which is safe.
        let entries = if *written == Some(known) { Vec::new() } else { self.reconcile(&current)? };
        if !entries.is_empty() {
            let generation = u64::from_le_bytes(random()?);
            self.check_owner(lock, known)?;
            let count = u32::try_from(entries.len())
                .map_err(|_| VykarError::CommitRefused { reason: "more than 2^32 chunks".into() })?;
            self.repository.write_index(generation, count, entries.into_iter(), Compression::default())?;
            (known, *written) = (generation, Some(generation));
        }
        meta.name = unique_name(&manifest)?;
        let id = SnapshotId(random()?);
        let object = self.repository.keys().seal(ObjectKind::Snapshot, id.as_bytes(), &meta.encode()?)?;
        self.check_owner(lock, known)?;
        self.repository.backend().put(&snapshot_key(&id), &object, PutMode::Exclusive)?;
        Ok((id, meta))
    }

    /// Every pack of this session must still be there in full: others may have taken a session that
    /// was asleep for dead.
    fn check_packs(&self) -> Result<()> {
        let refused = |reason| VykarError::CommitRefused { reason };
        if !self.session.is_live()? {
            return Err(refused("this backup's session marker was removed by somebody else".into()));
        }
        for pack in self.packs {
            let key = pack_key(&pack.pending.pack);
            match self.repository.backend().size(&key) {
                Ok(size) if size == pack.size => {}
                Ok(size) => return Err(refused(format!("{key} has {size} bytes instead of {}", pack.size))),
                Err(StorageError::NotFound { .. }) => return Err(refused(format!("{key} is gone"))),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The new index: the current one with this backup's references and chunks. Empty when nothing
    /// changes.
    fn reconcile(&self, current: &IndexBlob) -> Result<Vec<IndexEntry>> {
        let base = &self.references.base;
        let mut entries: Vec<IndexEntry> = current.chunks.iter().collect();
        let mut changed = false;
        let mut refer = |entries: &mut Vec<IndexEntry>, slot: usize, times: u32| {
            let count = &mut entries[slot].refcount;
            *count = count.saturating_add(times);
            changed = true;
        };
        for (slot, times) in self.references.to_base.iter().enumerate() {
            let times = times.load(Ordering::Relaxed);
            if times == 0 {
                continue;
            }
            let found = match base.generation == current.generation {
                true => Some(slot),
                false => current.chunks.find(&base.chunks.entry(slot).id),
            };
            let Some(found) = found else {
                return Err(gone(&base.chunks.entry(slot).id));
            };
            refer(&mut entries, found, times);
        }
        let mut added = Vec::new();
        for pack in self.packs {
            for (id, stored_size, offset) in &pack.pending.chunks {
                let refcount = self.references.to_new(id);
                match current.chunks.find(id) {
                    _ if refcount == 0 => {}
                    // Somebody else stored it meanwhile: theirs is in the index, ours is not needed.
                    Some(slot) => refer(&mut entries, slot, refcount),
                    None => {
                        let (stored_size, offset, pack) = (*stored_size, *offset, pack.pending.pack);
                        added.push(IndexEntry { id: *id, refcount, stored_size, pack, offset });
                    }
                }
            }
        }
        if !changed && added.is_empty() {
            return Ok(Vec::new());
        }
        entries.append(&mut added);
        entries.sort_unstable_by_key(|entry| entry.id);
        Ok(entries)
    }

    /// The lock is ours, and nobody wrote an index that we have not read.
    fn check_owner(&self, lock: &mut RepositoryLock<'_>, known: u64) -> Result<()> {
        lock.check()?;
        // The index itself: its hint is written after it, with best effort, and may be behind.
        match self.repository.read_index()?.generation {
            found if found == known => Ok(()),
            found => Err(VykarError::LockLost {
                reason: format!("the index changed under the lock (generation {found:016x})"),
            }),
        }
    }
}

fn gone(id: &ChunkId) -> VykarError {
    VykarError::CommitRefused {
        reason: format!("chunk {} was removed while this backup relied on it", id.short()),
    }
}

/// Eight hex digits that no snapshot of this repository has as its name.
fn unique_name(manifest: &Manifest) -> Result<String> {
    loop {
        let name = format!("{:08x}", u32::from_le_bytes(random()?));
        if manifest.snapshots.iter().all(|s| s.meta.name != name) {
            return Ok(name);
        }
    }
}
