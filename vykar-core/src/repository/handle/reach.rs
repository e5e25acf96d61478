//! What is lost, and what is only out of reach.
//!
//! An object that is not there may be gone for good, or may lie on a disk that is not mounted. Only other objects tell:
//! a repository whose `config` is not where it was, or whose other packs are missing as well, is away. In doubt nothing
//! is called lost.

use crate::error::{Result, StorageError, VykarError};
use crate::format::IndexBlob;
use crate::id::{PackId, SnapshotId};
use crate::repository::{Manifest, Repository, pack_key, snapshot_key};

/// Other packs that are looked for where one is missing.
const WITNESSES: usize = 8;

impl Repository {
    /// Whether the repository is where it was when it was opened.
    ///
    /// # Errors
    /// [`VykarError::OutOfReach`] when it is not, or when that cannot be told.
    pub fn check_reach(&self) -> Result<()> {
        self.check_in_place().map_err(|e| away("the repository", &e.to_string()))
    }

    /// Whether what could not be read is lost for certain: the repository is where it was, and the pack is there (and
    /// does not hold what it should), or is missing while others are there. `index` names the packs.
    ///
    /// # Errors
    /// [`VykarError::OutOfReach`] where it may come back.
    pub fn check_lost(&self, index: &IndexBlob, pack: Option<&PackId>) -> Result<()> {
        self.check_reach()?;
        let Some(pack) = pack else { return Ok(()) };
        match self.has_pack(pack)? {
            true => Ok(()),
            false => self.check_missing(index, pack),
        }
    }

    fn has_pack(&self, pack: &PackId) -> Result<bool> {
        let key = pack_key(pack);
        match self.backend().size(&key) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound { .. }) => Ok(false),
            Err(e) => Err(away(&key, &e.to_string())),
        }
    }

    /// Packs share folders, and any folder may be a link to another disk. So both the packs beside this one and those
    /// elsewhere are asked.
    fn check_missing(&self, index: &IndexBlob, pack: &PackId) -> Result<()> {
        let all = index.chunks.packs();
        let beside = all.iter().filter(|other| other.0[0] == pack.0[0] && *other != pack);
        let step = (all.len() / WITNESSES).max(1);
        let elsewhere = all.iter().step_by(step).filter(|other| other.0[0] != pack.0[0]);
        let beside = self.any_is_there(beside.take(WITNESSES))?;
        let elsewhere = self.any_is_there(elsewhere.take(WITNESSES))?;
        let reason = match (beside, elsewhere) {
            (Some(true), Some(true) | None) | (None, Some(true)) => return Ok(()),
            (None, None) => "it is missing, and there is no other pack to compare with",
            (Some(false), Some(true)) => "it is missing, and so are the others in its folder",
            (_, Some(false)) | (Some(false), None) => "it is missing, and so are other packs",
        };
        Err(away(&pack_key(pack), reason))
    }

    /// `None` where there are none to ask.
    fn any_is_there<'p>(&self, packs: impl Iterator<Item = &'p PackId>) -> Result<Option<bool>> {
        let mut found = None;
        for pack in packs {
            if self.has_pack(pack)? {
                return Ok(Some(true));
            }
            found = Some(false);
        }
        Ok(found)
    }

    /// Whether a snapshot that is not there was deleted.
    ///
    /// # Errors
    /// [`VykarError::OutOfReach`] where it may come back.
    pub fn check_deleted(&self, id: &SnapshotId) -> Result<()> {
        let key = snapshot_key(id);
        let ids = Manifest::ids(self).map_err(|e| away(&key, &e.to_string()))?;
        match ids.contains(id) {
            true => Err(away(&key, "it is listed, and cannot be read")),
            false if ids.is_empty() => self.check_all_deleted(),
            false => self.check_reach(),
        }
    }

    /// Whether a list of snapshots that is empty, and was not, says that all were deleted: an index that still counts
    /// references tells otherwise.
    ///
    /// # Errors
    /// [`VykarError::OutOfReach`] where they may come back.
    pub fn check_all_deleted(&self) -> Result<()> {
        self.check_reach()?;
        let snapshots = "snapshots/";
        let open = self.open_sound_index().map_err(|e| away(snapshots, &e.to_string()))?;
        match open.index.chunks.iter().any(|entry| entry.refcount > 0) || open.stamp.is_none() {
            true => Err(away(snapshots, "there is none, and the index counts what some refer to")),
            false => Ok(()),
        }
    }
}

fn away(part: &str, reason: &str) -> VykarError {
    VykarError::OutOfReach { part: part.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::CONFIG;
    use crate::storage::{Backend, PutMode};
    use crate::testing::TestRepository;

    /// A repository of so many packs of one chunk each, and their names.
    fn packs(count: u8) -> (TestRepository, Vec<PackId>) {
        let mut t = TestRepository::new();
        let mut packs = Vec::new();
        for n in 0..count {
            let id = t.chunk(&[n; 100]).id;
            t.close_pack();
            packs.push(t.index[&id].pack);
        }
        t.publish();
        (t, packs)
    }

    fn is_lost(t: &TestRepository, pack: &PackId) -> Result<(), String> {
        let index = t.repository.read_index().unwrap();
        t.repository.check_lost(&index, Some(pack)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_pack_is_lost_only_where_others_are_there() {
        let (t, packs) = packs(40);
        assert_eq!(is_lost(&t, &packs[3]), Ok(()), "it is there, so what is in it is wrong");
        t.backend.delete(&pack_key(&packs[3])).unwrap();
        assert_eq!(is_lost(&t, &packs[3]), Ok(()));
        let config = t.backend.get(CONFIG, 1000).unwrap();
        t.backend.delete(CONFIG).unwrap();
        assert!(is_lost(&t, &packs[3]).unwrap_err().starts_with("the repository is out of reach"));
        t.backend.put(CONFIG, &config, PutMode::Replace).unwrap();
        packs[1..].iter().for_each(|pack| t.backend.delete(&pack_key(pack)).unwrap());
        assert!(is_lost(&t, &packs[0]).is_ok() && is_lost(&t, &packs[9]).is_err(), "all but one are away");
    }

    #[test]
    fn a_folder_of_packs_that_is_away_is_not_lost() {
        let (t, packs) = packs(200);
        let shard = |pack: &PackId| packs.iter().filter(|other| other.0[0] == pack.0[0]).count();
        let shared = packs.iter().find(|pack| shard(pack) > 1).unwrap();
        for pack in packs.iter().filter(|pack| pack.0[0] == shared.0[0]) {
            t.backend.delete(&pack_key(pack)).unwrap();
        }
        assert!(is_lost(&t, shared).unwrap_err().contains("so are the others in its folder"));
    }

    #[test]
    fn one_pack_alone_proves_nothing() {
        let (t, packs) = packs(1);
        t.backend.delete(&pack_key(&packs[0])).unwrap();
        assert!(is_lost(&t, &packs[0]).unwrap_err().contains("no other pack"));
    }
}
