//! Deleting a whole repository.
//!
//! The snapshots go first, then the index, the packs, the key, and `config` at the very end: what is cut off in between
//! is still a repository, with fewer snapshots or none, and can be deleted again. Everything that is not the format's
//! stays. What is cut off behind `config` leaves a lock and empty folders, see [`Remains`].

mod remains;

use std::time::Duration;

use crate::error::{Result, VykarError};
use crate::event::{Event, Events, Totals, emit};
use crate::id::SnapshotId;
use crate::maintenance::compact::leftovers;
use crate::repository::objects::layout;
use crate::repository::objects::layout::KeyKind;
use crate::repository::{LockOptions, Manifest, Repository, WriteGuard};
use crate::storage::{Backend, ObjectInfo, folder};

pub use remains::Remains;

/// Objects that are deleted between two [`Event::Progress`].
const BATCH: usize = 256;

/// What a repository consists of, and what else lies there.
#[derive(Debug, Default, Clone)]
pub struct RepositoryContents {
    /// Its snapshots, readable or not, sorted.
    pub snapshots: Vec<SnapshotId>,
    /// All its objects but markers and locks, in the order in which they are deleted.
    pub objects: Vec<ObjectInfo>,
    /// Unfinished writes of programs that are gone.
    pub leftovers: Vec<ObjectInfo>,
    /// What is not the repository's and stays, by names relative to its place; those of folders end in `/`.
    pub others: Vec<String>,
}

impl RepositoryContents {
    /// Looks through it; reads no object.
    ///
    /// # Errors
    /// [`VykarError::LeadsOut`] where a folder of it is a link to another place.
    pub fn of(repository: &Repository) -> Result<Self> {
        layout::refuse_to_follow(repository, &layout::TOP)?;
        let found = layout::objects(repository.backend().as_ref())?.into_iter();
        let mut found: Vec<_> = found.filter_map(|(kind, o)| Some((DeletionStage::of(kind)?, o))).collect();
        found.sort_unstable_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        Ok(RepositoryContents {
            snapshots: Manifest::ids(repository)?,
            objects: found.into_iter().map(|(_, object)| object).collect(),
            leftovers: leftovers(repository)?,
            others: strangers(repository.backend().as_ref(), &|key| KeyKind::of(key).is_some())?,
        })
    }

    /// Bytes of all that is deleted.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().chain(&self.leftovers).map(|object| object.size).sum()
    }
}

/// When an object is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DeletionStage {
    Snapshot,
    Index,
    Pack,
    SetAside,
    Journal,
    Repokey,
    Config,
}

impl DeletionStage {
    /// `None` for markers and locks: those of the dead are gone when the lock is held, and others belong to somebody who
    /// waits for it.
    fn of(kind: KeyKind) -> Option<Self> {
        match kind {
            KeyKind::Snapshot(_) => Some(DeletionStage::Snapshot),
            KeyKind::Index | KeyKind::IndexGeneration => Some(DeletionStage::Index),
            KeyKind::Pack(_) => Some(DeletionStage::Pack),
            KeyKind::SetAside => Some(DeletionStage::SetAside),
            KeyKind::Journal(_) => Some(DeletionStage::Journal),
            KeyKind::Repokey => Some(DeletionStage::Repokey),
            KeyKind::Config => Some(DeletionStage::Config),
            KeyKind::SessionMarker(_) | KeyKind::Lock => None,
        }
    }
}

fn strangers(backend: &dyn Backend, is_object: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let Some(root) = backend.local_path() else {
        let objects = backend.list("")?.into_iter();
        return Ok(objects.map(|object| object.key).filter(|key| !is_object(key)).collect());
    };
    let folders: std::collections::HashSet<_> = layout::folders().collect();
    let found = folder::strangers(root, &|name| folders.contains(name), is_object);
    found.map_err(|e| VykarError::path(root, e))
}

/// What the deletion of a repository did.
#[derive(Debug, Default)]
pub struct WholeReport {
    /// Snapshots that were deleted.
    pub snapshots: u64,
    /// Objects that were deleted, and unfinished writes.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What still lies there, which is not the repository's.
    pub left: Vec<String>,
    /// The place itself is gone, too.
    pub place_is_gone: bool,
}

/// Deletes a repository: every object of it, the folders that are empty then, and its local caches.
///
/// `seen` is what a person was shown, and agreed to. Tells [`Event::Progress`] with objects and bytes deleted.
///
/// # Errors
/// [`VykarError::Changed`] when there is a snapshot that is not among those in `seen`, and those of
/// [`Repository::with_maintenance_lock`]; then nothing is deleted. [`VykarError::Unfinished`] when it fails later, or
/// `lock.cancel` was set: it is still a repository then, and can be deleted again.
pub fn delete_repository(
    repository: &Repository,
    seen: &RepositoryContents,
    lock: &LockOptions,
    mut events: Events<'_>,
) -> Result<WholeReport> {
    let contents = repository.with_maintenance_lock(lock, |guard| {
        guard.may_be_cut_off(lock);
        let contents = RepositoryContents::of(repository)?;
        if let Some(new) = contents.snapshots.iter().find(|id| seen.snapshots.binary_search(id).is_err()) {
            let reason = format!("snapshot {} was made since its contents were looked at", new.short());
            return Err(VykarError::Changed { reason });
        }
        let mut sweep = Sweep { guard, contents: &contents, done: 0, bytes: 0, events: &mut events };
        match sweep.run() {
            Err(source) if sweep.done > 0 => {
                let (done, all) = (sweep.done, contents.objects.len());
                let done = format!(
                    "the repository is deleted in part ({done} of {all} objects), and deleting it again goes on"
                );
                return Err(VykarError::Unfinished { done, source: Box::new(source) });
            }
            other => other?,
        }
        Ok(contents)
    })?;
    // There is no repository any more, so whatever fails from here on costs space.
    if let Err(e) = repository.remove_caches() {
        emit(&mut events, Event::Note(format!("its local cache could not be removed: {e}")));
    }
    let backend = repository.backend().as_ref();
    let place_is_gone = clear_place(backend);
    Ok(WholeReport {
        snapshots: contents.snapshots.len() as u64,
        objects: (contents.objects.len() + contents.leftovers.len()) as u64,
        bytes: contents.bytes(),
        left: if place_is_gone { Vec::new() } else { what_is_left(backend) },
        place_is_gone,
    })
}

/// Removes unfinished writes, which nobody can finish any more, and what is empty.
fn clear_place(backend: &dyn Backend) -> bool {
    for object in backend.leftovers(Duration::ZERO).unwrap_or_default() {
        if layout::is_place(&object.key) {
            let _ = backend.remove_leftover(&object.key);
        }
    }
    let Some(root) = backend.local_path() else { return false };
    folder::remove_empty(root, layout::folders());
    folder::remove_root(root)
}

/// Names of all that still lies there, as far as it can be seen.
fn what_is_left(backend: &dyn Backend) -> Vec<String> {
    let mut left = strangers(backend, &|_| false).unwrap_or_default();
    let leftovers = backend.leftovers(Duration::ZERO).unwrap_or_default();
    left.extend(leftovers.into_iter().map(|object| object.key).filter(|key| layout::is_place(key)));
    left
}

struct Sweep<'s, 'g, 'r, 'e> {
    guard: &'g mut WriteGuard<'r>,
    contents: &'s RepositoryContents,
    /// Objects that are gone.
    done: usize,
    bytes: u64,
    events: &'s mut Events<'e>,
}

impl Sweep<'_, '_, '_, '_> {
    fn run(&mut self) -> Result<()> {
        let contents = self.contents;
        let stage = |object: &ObjectInfo| KeyKind::of(&object.key).and_then(DeletionStage::of);
        for objects in contents.objects.chunk_by(|a, b| stage(a) == stage(b)) {
            match objects.first().and_then(stage) {
                Some(DeletionStage::Index) => {
                    let mut gone = 0;
                    let deleted = self.guard.delete_index(&mut gone);
                    // One of the two may not have been there.
                    self.done += gone.min(objects.len());
                    deleted?;
                    self.tell(objects);
                }
                Some(DeletionStage::Repokey | DeletionStage::Config) => {
                    self.clear();
                    self.delete(objects)?;
                }
                _ => self.delete(objects)?,
            }
        }
        Ok(())
    }

    fn delete(&mut self, objects: &[ObjectInfo]) -> Result<()> {
        for batch in objects.chunks(BATCH) {
            let keys = batch.iter().map(|object| object.key.clone());
            self.guard.delete_counting(keys, &mut self.done)?;
            self.tell(batch);
        }
        Ok(())
    }

    /// Unfinished writes and empty folders, while it is still a repository.
    fn clear(&self) {
        let backend = self.guard.repository().backend();
        for object in &self.contents.leftovers {
            let _ = backend.remove_leftover(&object.key);
        }
        if let Some(root) = backend.local_path() {
            // That of the locks holds ours, and that of the sessions perhaps markers of backups that wait for it.
            folder::remove_empty(root, layout::folders().filter(|name| name != layout::LOCKS));
        }
    }

    /// Tells that these are deleted, too.
    fn tell(&mut self, objects: &[ObjectInfo]) {
        self.bytes += objects.iter().map(|object| object.size).sum::<u64>();
        let bytes = self.contents.objects.iter().map(|object| object.size).sum();
        let expected = Some(Totals { files: self.contents.objects.len() as u64, bytes });
        let progress = Event::Progress { files: self.done as u64, bytes: self.bytes, path: None, expected };
        emit(self.events, progress);
    }
}

#[cfg(test)]
mod tests;
