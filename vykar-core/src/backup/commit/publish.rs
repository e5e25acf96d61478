//! Publishing a backup: index, then snapshot, under the lock.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::backup::commit::index_merge::{MergePlan, Rewrite};
use crate::backup::commit::references::BackupReferences;
use crate::crypto::random;
use crate::error::{Result, StorageError, VykarError};
use crate::format::note::{COPIED_FROM, noted};
use crate::format::{Encryption, IndexEntry, Snapshot, SnapshotMeta};
use crate::id::{PackId, SnapshotId};
use crate::repository::objects::pack_writer::WrittenPack;
use crate::repository::{
    IndexStamp, LockOptions, Manifest, OpenIndex, Repository, Session, WriteGuard, pack_key, pack_sizes,
};

/// What is to be published.
pub struct Commit<'a> {
    pub repository: &'a Repository,
    pub session: &'a Session,
    /// The index that the backup began with, whose slots the references name.
    pub base: &'a OpenIndex,
    pub references: &'a BackupReferences,
    pub packs: &'a [WrittenPack],
    pub lock: &'a LockOptions,
    /// The snapshot that this one is a copy of: nothing is published where another copy is there.
    pub copy_of: Option<SnapshotId>,
}

/// A snapshot that is there.
pub struct Published {
    pub id: SnapshotId,
    /// Its name is filled in.
    pub meta: SnapshotMeta,
    /// What is to be said about the size of the index.
    pub warning: Option<String>,
}

/// Why nothing was published.
pub enum Refusal {
    /// Something that the backup counted on is gone, as this says.
    Gone(String),
    /// Anything else.
    Failed(VykarError),
}

impl<E: Into<VykarError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Failed(error.into())
    }
}

impl Commit<'_> {
    /// Publishes a snapshot. One that has no name, or the name of another one, is given one here.
    ///
    /// # Errors
    /// Nothing is published when this fails before the snapshot is written; at worst, counts in the
    /// index are too high, which is safe.
    pub fn publish(&self, meta: &SnapshotMeta) -> Result<Published, Refusal> {
        let began = Instant::now();
        let mut written = WrittenIndex::default();
        // Not under the lock: it may take long. What it lacks is looked at by itself then.
        let sizes = pack_sizes(self.repository)?;
        loop {
            let mut guard = WriteGuard::acquire(self.repository, self.lock)?;
            match self.publish_locked(&mut guard, meta.clone(), (&sizes, &mut written)) {
                Ok(done) => {
                    // The snapshot is there: that the lock could not be removed does not undo it.
                    let _ = guard.release();
                    return Ok(done);
                }
                // Somebody's earlier lock appeared late. Nothing is lost but the time to look again.
                Err(Refusal::Failed(VykarError::LockLost { .. })) if began.elapsed() < self.lock.wait => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn publish_locked(
        &self,
        guard: &mut WriteGuard<'_>,
        mut meta: SnapshotMeta,
        (sizes, written): (&HashMap<PackId, u64>, &mut WrittenIndex),
    ) -> Result<Published, Refusal> {
        let manifest = Manifest::load(self.repository)?;
        self.refuse_second_copy(&manifest)?;
        self.check_packs()?;
        written.refuse_lost_update(guard, &manifest)?;
        if !written.is_in_place(guard)? {
            let current = self.current_index(guard)?;
            match Rewrite::plan(self.references, &self.base.index, current.index, self.packs) {
                MergePlan::Nothing => {}
                MergePlan::Write(rewrite) => {
                    self.check_relied_on(&rewrite, sizes)?;
                    let stamp = guard.write_index(rewrite.count()?, rewrite.entries())?;
                    // Without nonces, others give a pack of the same content the same name.
                    let is_unique = self.repository.config().encryption != Encryption::None;
                    let witness = rewrite.witness().filter(|_| is_unique);
                    let snapshots = ids(&manifest).collect();
                    *written = WrittenIndex { stamp: Some(stamp), witness, snapshots };
                }
                MergePlan::Gone(id) => {
                    return Err(Refusal::Gone(format!("chunk {} was removed", id.short())));
                }
            }
        }
        if meta.name.is_empty() || manifest.snapshots.iter().any(|s| s.meta.name == meta.name) {
            meta.name = unique_name(&manifest)?;
        }
        let id = guard.write_snapshot(&meta.encode()?)?;
        Ok(Published { id, meta, warning: guard.index_warning() })
    }

    /// Two programs may copy the same snapshot at once. The second to come here finds the first one's copy.
    fn refuse_second_copy(&self, manifest: &Manifest) -> Result<()> {
        let Some(snapshot) = self.copy_of else { return Ok(()) };
        let is_copy = |s: &&Snapshot| s.id == snapshot || noted(&s.meta, COPIED_FROM) == Some(snapshot);
        match manifest.snapshots.iter().find(is_copy) {
            Some(copy) => Err(VykarError::AlreadyCopied { snapshot, copy: copy.id }),
            None => Ok(()),
        }
    }

    /// The index that is there now, every byte of it sound. It is the one that the backup began with unless
    /// somebody has written another one since.
    fn current_index(&self, guard: &WriteGuard<'_>) -> Result<OpenIndex> {
        let same = guard.index_stamp().is_some() && guard.index_stamp() == self.base.stamp;
        if same && self.base.is_sound(self.repository.keys().hasher()) {
            return Ok(self.base.clone());
        }
        guard.open_index()
    }

    /// Every pack of this session, and each that it took up and uses, must still be there in full: others may have
    /// taken a session that was asleep for dead.
    fn check_packs(&self) -> Result<(), Refusal> {
        if !self.session.is_live()? {
            return Err(Refusal::Gone("its session marker was removed".into()));
        }
        let is_used = |slot: &u32| self.references.to_taken(*slot as usize) > 0;
        let taken = self.references.taken.packs().filter(|pack| pack.slots.iter().any(is_used));
        let own = self.packs.iter().map(|pack| (pack.id, pack.size));
        own.chain(taken.map(|pack| (pack.id, pack.size)))
            .try_for_each(|(id, size)| self.check_pack(&id, size))
    }

    /// What was there before is still there in full.
    fn check_relied_on(&self, rewrite: &Rewrite<'_>, sizes: &HashMap<PackId, u64>) -> Result<(), Refusal> {
        let mut relied_on = rewrite.relied_on().into_iter();
        relied_on.try_for_each(|(id, end)| match sizes.get(&id) {
            Some(size) if *size >= end => Ok(()),
            _ => match self.repository.backend().size(&pack_key(&id)) {
                Ok(size) if size >= end => Ok(()),
                Ok(_) => Err(Refusal::Gone(format!("{} was cut short", pack_key(&id)))),
                Err(StorageError::NotFound { .. }) => {
                    Err(Refusal::Gone(format!("{} was removed", pack_key(&id))))
                }
                Err(e) => Err(e.into()),
            },
        })
    }

    fn check_pack(&self, id: &PackId, size: u64) -> Result<(), Refusal> {
        let key = pack_key(id);
        match self.repository.backend().size(&key) {
            Ok(found) if found == size => Ok(()),
            Ok(found) => Err(Refusal::Gone(format!("{key} has {found} bytes instead of {size}"))),
            Err(StorageError::NotFound { .. }) => Err(Refusal::Gone(format!("{key} was removed"))),
            Err(e) => Err(e.into()),
        }
    }
}

/// The index that an earlier try of this commit wrote, before it lost the lock.
#[derive(Default)]
struct WrittenIndex {
    stamp: Option<IndexStamp>,
    /// An entry of it that only this backup can have written.
    witness: Option<IndexEntry>,
    /// The snapshots that were there before.
    snapshots: HashSet<SnapshotId>,
}

impl WrittenIndex {
    /// The lock may have been lost in the very moment in which the index was written, to somebody who published before
    /// that: their index would be written over. Then there is a snapshot that was not there, beside our index or one that
    /// lacks what that snapshot is made of.
    fn refuse_lost_update(&self, guard: &WriteGuard<'_>, manifest: &Manifest) -> Result<()> {
        let Some(stamp) = self.stamp else { return Ok(()) };
        let new = manifest.snapshots.iter().filter(|s| !self.snapshots.contains(&s.id));
        let mut new = new.filter(|s| !s.meta.item_ptrs.is_empty()).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let index = guard.open_index()?;
        let has =
            |s: &Snapshot| s.meta.item_ptrs.iter().all(|chunk| index.index.chunks.find(chunk).is_some());
        match new.find(|s| index.stamp == Some(stamp) || !has(s)) {
            None => Ok(()),
            Some(lost) => {
                let reason = format!(
                    "snapshot {} was published while this backup had lost the lock, and the index does not count what it \
                     refers to",
                    lost.id.short()
                );
                Err(VykarError::Unsound { reason })
            }
        }
    }

    /// True when the index that is there now has this backup's references: it is that index, or made from it.
    /// Where that cannot be told, they are added again, which makes counts too high and is safe. What this takes
    /// for granted, that nobody has counted anew, holds as long as the session's marker is there.
    fn is_in_place(&self, guard: &WriteGuard<'_>) -> Result<bool> {
        let Some(stamp) = self.stamp else { return Ok(false) };
        if guard.index_stamp() == Some(stamp) {
            return Ok(true);
        }
        let Some(witness) = self.witness else { return Ok(false) };
        let entry = guard.open_index()?.index.chunks.get(&witness.id);
        Ok(entry.is_some_and(|entry| (entry.pack, entry.offset) == (witness.pack, witness.offset)))
    }
}

fn ids(manifest: &Manifest) -> impl Iterator<Item = SnapshotId> {
    manifest.snapshots.iter().map(|s| s.id).chain(manifest.unreadable.iter().map(|(id, _)| *id))
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
