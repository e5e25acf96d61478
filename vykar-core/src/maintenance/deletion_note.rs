//! A note in the repository of which snapshots are being deleted.
//!
//! A deletion that is killed between the last snapshot and the index leaves counts that are too high, and to any other
//! machine the same as a snapshot that was lost. So what is to go, and what is to stay, is written down before, under
//! `damaged/deletions/`, where other programs do not look, and removed when the counts are right. A keyed hash vouches for
//! it, as far as the repository has a key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Result, StorageError, VykarError};
use crate::format::MAX_METADATA_OBJECT;
use crate::id::{ChunkId, SnapshotId};
use crate::repository::objects::layout::DELETIONS;
use crate::repository::{Repository, WriteGuard, now_micros};
use crate::storage::PutMode;

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    deleted: BTreeSet<String>,
    stay: u64,
    tag: String,
}

impl Text {
    fn tag(&self, repository: &Repository) -> Option<String> {
        let stay = self.stay.to_le_bytes();
        let deleted: Vec<&str> = self.deleted.iter().map(String::as_str).collect();
        let tag = repository.keys().hasher().local(b"vykardel", &[&stay, deleted.join(" ").as_bytes()]);
        Some(ChunkId(tag.ok()?).to_string())
    }
}

/// What notes say that was meant to be deleted.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// The snapshots.
    pub deleted: BTreeSet<SnapshotId>,
    /// One of them was to leave no snapshot at all.
    pub of_all: bool,
    keys: Vec<String>,
}

impl Deletions {
    /// Reads what is there. What cannot be used says nothing.
    pub fn read(repository: &Repository) -> Result<Self> {
        let mut all = Deletions::default();
        for object in repository.backend().list(DELETIONS)? {
            let text = match repository.backend().get(&object.key, MAX_METADATA_OBJECT) {
                Ok(text) => text,
                Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => continue,
                Err(e) => return Err(e.into()),
            };
            all.keys.push(object.key);
            let Ok(note) = serde_json::from_slice::<Text>(&text) else { continue };
            if note.tag(repository).as_ref() == Some(&note.tag) {
                all.deleted.extend(note.deleted.iter().filter_map(|id| id.parse::<SnapshotId>().ok()));
                all.of_all |= note.stay == 0;
            }
        }
        Ok(all)
    }

    /// Removes the notes: the counts are right now.
    pub fn clear(self, guard: &WriteGuard<'_>) -> Result<()> {
        guard.delete(self.keys)
    }
}

/// Writes down what is to be deleted, and how many snapshots stay. Where there is no room for that, it is done without.
pub(super) fn write_down(
    repository: &Repository,
    deleted: &[SnapshotId],
    stay: u64,
) -> Result<Option<String>> {
    let deleted = deleted.iter().map(ToString::to_string).collect();
    let mut note = Text { deleted, stay, tag: String::new() };
    note.tag = note.tag(repository).unwrap_or_default();
    let text = serde_json::to_vec(&note)
        .map_err(|e| VykarError::Encode { what: "a note", reason: e.to_string() })?;
    let key = format!("{DELETIONS}{:020}", now_micros());
    match repository.backend().put(&key, &text, PutMode::Replace) {
        Ok(()) => Ok(Some(key)),
        Err(StorageError::Full { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
