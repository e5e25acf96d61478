//! What is left of a repository whose deletion was cut off after `config` was gone.

use std::time::Duration;

use crate::error::{Result, VykarError};
use crate::maintenance::delete_repository::{WholeReport, clear_place, strangers, what_is_left};
use crate::repository::objects::layout;
use crate::repository::objects::layout::KeyKind;
use crate::repository::{CONFIG, LockInfo, SessionInfo};
use crate::storage::{Backend, ObjectInfo};

/// Locks and markers of those who are gone, unfinished writes, and folders that hold nothing else. It is no repository,
/// and yet keeps another one from being made in its place.
#[derive(Debug, Default, Clone)]
pub struct Remains {
    markers: Vec<ObjectInfo>,
    leftovers: Vec<ObjectInfo>,
}

impl Remains {
    /// Looks whether that is all there is. `None` where there is a repository, nothing of one, or anything else.
    ///
    /// # Errors
    /// [`VykarError::Locked`] and [`VykarError::ActiveSessions`] where somebody may still be at it.
    pub fn of(backend: &dyn Backend) -> Result<Option<Self>> {
        if backend.exists(CONFIG)? {
            return Ok(None);
        }
        let objects = layout::objects(backend)?;
        let is_marker = |kind: &KeyKind| matches!(kind, KeyKind::Lock | KeyKind::SessionMarker(_));
        if !objects.iter().all(|(kind, _)| is_marker(kind)) {
            return Ok(None);
        }
        // An empty folder, whoever made it, is the remains of nothing.
        let has_folders =
            backend.local_path().is_some_and(|root| layout::folders().any(|name| root.join(name).is_dir()));
        if objects.is_empty() && !has_folders {
            return Ok(None);
        }
        if !strangers(backend, &|key| KeyKind::of(key).is_some())?.is_empty() {
            return Ok(None);
        }
        if let Some(lock) = LockInfo::list_at(backend)?.iter().find(|lock| !lock.standing.is_over()) {
            return Err(VykarError::Locked { holder: lock.describe(), waited: Duration::ZERO });
        }
        let sessions = SessionInfo::list_at(backend)?;
        let live: Vec<_> =
            sessions.iter().filter(|s| !s.standing.is_over()).map(SessionInfo::describe).collect();
        if !live.is_empty() {
            return Err(VykarError::ActiveSessions { sessions: live });
        }
        let mut leftovers = backend.leftovers(Duration::ZERO)?;
        leftovers.retain(|object| layout::is_place(&object.key));
        Ok(Some(Remains { markers: objects.into_iter().map(|(_, object)| object).collect(), leftovers }))
    }

    /// What deleting it would do.
    pub fn plan(&self) -> WholeReport {
        let objects = || self.markers.iter().chain(&self.leftovers);
        WholeReport {
            objects: objects().count() as u64,
            bytes: objects().map(|object| object.size).sum(),
            ..WholeReport::default()
        }
    }

    /// Deletes what was found, and the place where it is empty then.
    pub fn delete(&self, backend: &dyn Backend) -> Result<WholeReport> {
        for object in &self.markers {
            backend.delete(&object.key)?;
        }
        let place_is_gone = clear_place(backend);
        let left = if place_is_gone { Vec::new() } else { what_is_left(backend) };
        Ok(WholeReport { left, place_is_gone, ..self.plan() })
    }
}
