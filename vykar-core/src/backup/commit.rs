//! Publishing a backup: index, then snapshot, under the lock.

use std::time::Instant;

use super::references::References;
use super::rewrite::Rewrite;
use crate::crypto::random;
use crate::error::{Result, StorageError, VykarError};
use crate::format::SnapshotMeta;
use crate::id::SnapshotId;
use crate::repository::pack_writer::WrittenPack;
use crate::repository::{
    IndexStamp, LockOptions, Manifest, OpenIndex, Repository, Session, WriteGuard, pack_key,
};

/// What is to be published.
pub struct Commit<'a> {
    pub repository: &'a Repository,
    pub session: &'a Session,
    /// The index that the backup began with, whose slots the references name.
    pub base: &'a OpenIndex,
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
            let mut guard = WriteGuard::acquire(self.repository, self.lock)?;
            match self.publish_locked(&mut guard, meta.clone(), &mut written) {
                Ok(done) => {
                    // The snapshot is there: that the lock could not be removed does not undo it.
                    let _ = guard.release();
                    return Ok(done);
                }
                // Somebody's earlier lock appeared late. Nothing is lost but the time to look again.
                Err(VykarError::LockLost { .. }) if began.elapsed() < self.lock.wait => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// `written` is the stamp of the index that an earlier attempt of this commit wrote.
    fn publish_locked(
        &self,
        guard: &mut WriteGuard<'_>,
        mut meta: SnapshotMeta,
        written: &mut Option<IndexStamp>,
    ) -> Result<(SnapshotId, SnapshotMeta)> {
        let manifest = Manifest::load(self.repository)?;
        self.check_packs()?;
        // With our own index still there, the references are in it. When somebody has written another
        // one since, adding them again makes counts too high, which is safe.
        if written.is_none() || *written != guard.index_stamp() {
            let current = self.current_index(guard)?;
            let rewrite = Rewrite::plan(self.references, &self.base.index, current.index, self.packs)?;
            if let Some(rewrite) = rewrite {
                *written = Some(guard.write_index(rewrite.count()?, rewrite.entries())?);
            }
        }
        meta.name = unique_name(&manifest)?;
        let id = guard.write_snapshot(&meta.encode()?)?;
        Ok((id, meta))
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

    /// Every pack of this session must still be there in full: others may have taken a session that
    /// was asleep for dead.
    fn check_packs(&self) -> Result<()> {
        let refused = |reason| VykarError::CommitRefused { reason };
        if !self.session.is_live()? {
            return Err(refused("this backup's session marker was removed by somebody else".into()));
        }
        for pack in self.packs {
            let key = pack_key(&pack.id);
            match self.repository.backend().size(&key) {
                Ok(size) if size == pack.size => {}
                Ok(size) => return Err(refused(format!("{key} has {size} bytes instead of {}", pack.size))),
                Err(StorageError::NotFound { .. }) => return Err(refused(format!("{key} is gone"))),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
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
