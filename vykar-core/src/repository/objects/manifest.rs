//! The snapshots of a repository. Exists only at run time; nothing of it is stored.

use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::ObjectKind;
use crate::format::{MAX_SNAPSHOT_OBJECT, Snapshot, SnapshotMeta};
use crate::id::SnapshotId;
use crate::repository::objects::layout;
use crate::repository::{Repository, snapshot_key};

/// The folder that they are in.
const SNAPSHOTS: &str = "snapshots/";

fn id_of(key: &str) -> Option<SnapshotId> {
    key.strip_prefix(SNAPSHOTS)?.parse().ok()
}

/// Every snapshot, and those that cannot be used.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Readable snapshots, oldest first (by begin, then id).
    pub snapshots: Vec<Snapshot>,
    /// The others, with the reason.
    pub unreadable: Vec<(SnapshotId, ObjectError)>,
}

impl Manifest {
    /// Lists and reads all snapshots.
    pub fn load(repository: &Repository) -> Result<Self> {
        // One that is not there any more was deleted since it was listed.
        Ok(Self::read(repository, &Self::ids(repository)?)?.0)
    }

    /// The same for who takes away what none of them refers to: two lists must be the same, with everything in them
    /// readable or damaged, but there.
    ///
    /// # Errors
    /// [`VykarError::LockLost`] when they are not, and [`VykarError::SnapshotsMissing`] when something is in the place of
    /// a snapshot that no listing shows, and may lead to one.
    pub(crate) fn load_all(repository: &Repository) -> Result<Self> {
        refuse_odd_entries(repository)?;
        refuse_strays(repository)?;
        let before = Self::ids(repository)?;
        let (manifest, gone) = Self::read(repository, &before)?;
        if gone || Self::ids(repository)? != before {
            let reason = "the list of snapshots is not the same twice".to_owned();
            return Err(VykarError::LockLost { reason });
        }
        Ok(manifest)
    }

    /// Reads these; true when one of them is not there.
    fn read(repository: &Repository, ids: &[SnapshotId]) -> Result<(Self, bool)> {
        let (mut manifest, mut gone) = (Manifest::default(), false);
        for id in ids {
            match read_snapshot(repository, id) {
                Ok(snapshot) => manifest.snapshots.push(snapshot),
                Err(VykarError::SnapshotUnusable { cause, .. }) => manifest.unreadable.push((*id, cause)),
                Err(VykarError::Storage(StorageError::NotFound { .. })) => gone = true,
                Err(other) => return Err(other),
            }
        }
        manifest.snapshots.sort_by_key(|s| (s.time, s.id));
        Ok((manifest, gone))
    }

    /// The ids in the repository.
    pub fn ids(repository: &Repository) -> Result<Vec<SnapshotId>> {
        let objects = repository.backend().list(SNAPSHOTS)?;
        let mut ids: Vec<SnapshotId> = objects.iter().filter_map(|o| id_of(&o.key)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The id of a snapshot that is found as [`Manifest::resolve`] does, and also of one that is damaged, by a unique
    /// prefix of its id.
    ///
    /// # Errors
    /// [`VykarError::SnapshotUnusable`] for one that something newer wrote.
    pub fn resolve_id(&self, wanted: &str) -> Result<SnapshotId> {
        match self.resolve(wanted) {
            Err(VykarError::SnapshotUnusable { snapshot, cause }) if !cause.is_newer() => {
                let prefix = |id: &SnapshotId| id.to_string().starts_with(wanted);
                let matches: Vec<_> = self.unreadable.iter().filter(|(id, _)| prefix(id)).collect();
                if matches.len() > 1 {
                    let matches = matches.iter().map(|(id, _)| id.to_string()).collect();
                    return Err(VykarError::SnapshotAmbiguous { wanted: wanted.to_owned(), matches });
                }
                Ok(snapshot)
            }
            other => other.map(|snapshot| snapshot.id),
        }
    }

    /// Finds a snapshot by name, by a unique prefix of name or id, or as `latest`.
    pub fn resolve(&self, wanted: &str) -> Result<&Snapshot> {
        let not_found = || VykarError::SnapshotNotFound { wanted: wanted.to_owned() };
        if wanted == "latest" {
            return self.snapshots.last().ok_or_else(not_found);
        }
        if wanted.is_empty() {
            return Err(not_found());
        }
        let by_name: Vec<_> = self.snapshots.iter().filter(|s| s.meta.name == wanted).collect();
        let matches = match by_name.len() {
            0 => {
                let id_prefix = wanted.to_ascii_lowercase();
                let hit = |s: &&Snapshot| {
                    s.meta.name.starts_with(wanted) || s.id.to_string().starts_with(&id_prefix)
                };
                self.snapshots.iter().filter(hit).collect()
            }
            _ => by_name,
        };
        match matches[..] {
            [] => match self.unreadable.iter().find(|(id, _)| id.to_string().starts_with(wanted)) {
                Some((id, cause)) => {
                    Err(VykarError::SnapshotUnusable { snapshot: *id, cause: cause.clone() })
                }
                None => Err(not_found()),
            },
            [one] => Ok(one),
            _ => {
                let name = |s: &&Snapshot| format!("{} ({})", s.meta.name, s.id.short());
                let matches = matches.iter().map(name).collect();
                Err(VykarError::SnapshotAmbiguous { wanted: wanted.to_owned(), matches })
            }
        }
    }
}

/// Refuses where a link, say, or a folder is in the place of an object, or of all objects of a kind.
pub(crate) fn refuse_odd_entries(repository: &Repository) -> Result<()> {
    match layout::odd_objects(&**repository.backend())?.into_iter().next() {
        Some(key) if key.starts_with("snapshots") => {
            let reason = format!("{key} is not a file: put what it leads to in its place");
            Err(VykarError::SnapshotsMissing { reason, may_trust: false })
        }
        Some(key) => {
            let reason = format!("{key} is not a file: put what belongs there in its place, or move it away");
            Err(VykarError::Unsound { reason })
        }
        None => Ok(()),
    }
}

/// Keys of what is a snapshot, lies in their folder, and has no snapshot's name; but for copies of those that are there.
/// No listing shows it.
pub(crate) fn stray_snapshots(repository: &Repository) -> Result<Vec<String>> {
    let backend = repository.backend();
    let objects = backend.list(SNAPSHOTS)?;
    let (named, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| id_of(&o.key).is_some());
    let mut strays = Vec::new();
    for other in others.into_iter().filter(|other| (1..=MAX_SNAPSHOT_OBJECT).contains(&other.size)) {
        let object = match backend.get(&other.key, MAX_SNAPSHOT_OBJECT) {
            Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => continue,
            result => result?,
        };
        if !repository.keys().looks_like_snapshot(&object) {
            continue;
        }
        let same_size = named.iter().filter(|named| named.size == other.size);
        let is_copy = same_size
            .map(|named| backend.get(&named.key, MAX_SNAPSHOT_OBJECT))
            .any(|found| found.is_ok_and(|found| found == object));
        if !is_copy {
            strays.push(other.key);
        }
    }
    strays.sort_unstable();
    Ok(strays)
}

/// Refuses where there is one of them: what it refers to must stay.
fn refuse_strays(repository: &Repository) -> Result<()> {
    match stray_snapshots(repository)?.into_iter().next() {
        Some(key) if !repository.trust() => {
            let reason = format!("{key} is a snapshot under a name that is not its own");
            Err(VykarError::SnapshotsMissing { reason, may_trust: true })
        }
        _ => Ok(()),
    }
}

/// Reads one snapshot's metadata.
///
/// # Errors
/// [`VykarError::SnapshotUnusable`] when the object is there and damaged or newer.
pub fn read_snapshot(repository: &Repository, id: &SnapshotId) -> Result<Snapshot> {
    open_snapshot(repository, id, &mut read_object(repository, id)?)
}

/// What is stored of a snapshot.
pub(crate) fn read_object(repository: &Repository, id: &SnapshotId) -> Result<Vec<u8>> {
    match repository.backend().get(&snapshot_key(id), MAX_SNAPSHOT_OBJECT) {
        Err(e @ StorageError::TooLarge { .. }) => {
            let cause = ObjectError::Unreadable(e.to_string());
            Err(VykarError::SnapshotUnusable { snapshot: *id, cause })
        }
        other => Ok(other?),
    }
}

/// The snapshot that this object is, which is decrypted in place.
pub(crate) fn open_snapshot(repository: &Repository, id: &SnapshotId, object: &mut [u8]) -> Result<Snapshot> {
    let unusable = |cause: ObjectError| VykarError::SnapshotUnusable { snapshot: *id, cause };
    let plain = repository.keys().open(ObjectKind::Snapshot, id.as_bytes(), object).map_err(unusable)?;
    let meta = SnapshotMeta::decode(plain).map_err(|e| unusable(e.into()))?;
    Snapshot::new(*id, meta).map_err(|e| unusable(e.into()))
}
