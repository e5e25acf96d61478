//! Where a repair keeps what it replaces: under `damaged/`, which other programs do not look at.
//!
//! ```text
//! damaged/snapshots/<id>   damaged/packs/<id>   damaged/index-<microseconds>   the object as it was
//! the same with .json behind it                                                 why, and since when
//! ```
//!
//! The notes are not sealed, so they hold nothing that a sealed object holds, such as the names of snapshots.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::crypto::{pack_id, pack_ids};
use crate::error::{Result, StorageError, VykarError};
use crate::format::{MAX_SMALL_OBJECT, MAX_SNAPSHOT_OBJECT, ObjectKind, SnapshotMeta};
use crate::id::{PackId, SnapshotId};
use crate::maintenance::repair::unsteady;
use crate::maintenance::verify::MAX_PACK_OBJECT;
use crate::repository::objects::layout::{DAMAGED, DELETIONS};
use crate::repository::{Repository, now_micros, now_rfc3339};
use crate::storage::{Backend, PutMode};

/// Bytes that are copied or compared at a time.
const SLICE: u64 = 8 << 20;

/// What is written beside an object.
#[derive(Debug, Serialize, Deserialize)]
struct AsideNote {
    object: String,
    set_aside: String,
    reason: String,
}

/// An object that a repair set aside.
#[derive(Debug, Clone)]
pub struct SetAside {
    /// Where it is now.
    pub key: String,
    /// Where it was.
    pub object: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was set aside, RFC 3339; empty when its note is lost.
    pub time: String,
    /// Why; empty when its note is lost.
    pub reason: String,
    /// What it holds, when it is a snapshot that can be read.
    pub snapshot: Option<Box<SnapshotMeta>>,
}

impl SetAside {
    /// All of them, by where they were.
    pub fn list(repository: &Repository) -> Result<Vec<Self>> {
        let sizes: HashMap<String, u64> =
            repository.backend().list(DAMAGED)?.into_iter().map(|object| (object.key, object.size)).collect();
        let mut all = Vec::new();
        let is_object = |key: &str| !is_note(key, &sizes) && !key.starts_with(DELETIONS);
        for (key, size) in sizes.iter().filter(|(key, _)| is_object(key)) {
            let note = match repository.backend().get(&note_key(key), MAX_SMALL_OBJECT) {
                Ok(note) => serde_json::from_slice::<AsideNote>(&note).ok(),
                Err(StorageError::NotFound { .. } | StorageError::TooLarge { .. }) => None,
                Err(e) => return Err(e.into()),
            };
            let object = key.strip_prefix(DAMAGED).unwrap_or(key).to_owned();
            let snapshot = read_snapshot(repository, key, &object).map(Box::new);
            let (time, reason, object) = match note {
                Some(note) => (note.set_aside, note.reason, note.object),
                None => (String::new(), String::new(), object),
            };
            all.push(SetAside { key: key.clone(), object, size: *size, time, reason, snapshot });
        }
        all.sort_by(|a, b| (&a.object, &a.key).cmp(&(&b.object, &b.key)));
        Ok(all)
    }
}

pub(super) fn note_key(key: &str) -> String {
    format!("{key}.json")
}

fn is_note(key: &str, all: &HashMap<String, u64>) -> bool {
    key.strip_suffix(".json").is_some_and(|object| all.contains_key(object))
}

fn read_snapshot(repository: &Repository, key: &str, object: &str) -> Option<SnapshotMeta> {
    let name = object.strip_prefix("snapshots/")?;
    // A second one under the same id has the time behind it.
    let id: SnapshotId = name.split_once('-').map_or(name, |(id, _)| id).parse().ok()?;
    let mut object = repository.backend().get(key, MAX_SNAPSHOT_OBJECT).ok()?;
    let plain = repository.keys().open(ObjectKind::Snapshot, id.as_bytes(), &mut object).ok()?;
    SnapshotMeta::decode(plain).ok()
}

/// Copies an object to where damaged ones are kept, and gives the copy's key. The copy and its note are durable when this
/// returns; the object itself is still there. Does nothing for one that is not there, and makes no second copy of one that
/// was copied before.
///
/// # Errors
/// [`VykarError::RepairRefused`] when the copy would have another hash than `content`, where that is given.
pub(in crate::maintenance) fn set_aside(
    repository: &Repository,
    object: &str,
    reason: &str,
    content: Option<PackId>,
) -> Result<Option<String>> {
    let backend = &**repository.backend();
    let name = match object.strip_prefix("packs/").and_then(|name| name.split_once('/')) {
        Some((_, id)) => format!("packs/{id}"),
        None => object.to_owned(),
    };
    let always_new = !object.contains('/');
    let plain = format!("{DAMAGED}{name}");
    let key = match always_new || backend.exists(&plain)? {
        // Another one of this name was set aside before.
        true if always_new || !same(backend, object, &plain)? => {
            format!("{plain}-{:020}", now_micros())
        }
        _ => plain,
    };
    if !backend.exists(&key)? && !copy(backend, object, &key, content)? {
        return Ok(None);
    }
    let note = AsideNote { object: object.to_owned(), set_aside: now_rfc3339(), reason: reason.to_owned() };
    let note = serde_json::to_vec(&note)
        .map_err(|e| VykarError::Encode { what: "a note", reason: e.to_string() })?;
    backend.put(&note_key(&key), &note, PutMode::Replace)?;
    Ok(Some(key))
}

/// Copies an object, over what is there; it must have the hash `content`, where that is given. Durable when this
/// returns. False when there is nothing to copy.
pub(super) fn copy(backend: &dyn Backend, from: &str, to: &str, content: Option<PackId>) -> Result<bool> {
    let size = match backend.size(from) {
        Err(StorageError::NotFound { .. }) => return Ok(false),
        other => other?,
    };
    let mut upload = backend.upload()?;
    for offset in (0..size).step_by(SLICE as usize) {
        upload.write(&backend.get_range(from, offset, (size - offset).min(SLICE) as usize)?)?;
    }
    if let Some(content) = content
        && pack_ids(&[size], |_, offset, out| upload.read_at(offset, out))?.first() != Some(&content)
    {
        return Err(unsteady(from));
    }
    match upload.finish(to) {
        // The folder of packs, where an upload begins, may be a link to another disk.
        Err(StorageError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::CrossesDevices && size <= MAX_PACK_OBJECT =>
        {
            let object = backend.get(from, MAX_PACK_OBJECT)?;
            if content.is_some_and(|content| pack_id(&object) != content) {
                return Err(unsteady(from));
            }
            backend.put(to, &object, PutMode::Replace)?;
        }
        other => other?,
    }
    Ok(true)
}

fn same(backend: &dyn Backend, a: &str, b: &str) -> Result<bool> {
    let size = match backend.size(a) {
        Err(StorageError::NotFound { .. }) => return Ok(true),
        other => other?,
    };
    if backend.size(b)? != size {
        return Ok(false);
    }
    for offset in (0..size).step_by(SLICE as usize) {
        let len = (size - offset).min(SLICE) as usize;
        if backend.get_range(a, offset, len)? != backend.get_range(b, offset, len)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{INDEX, snapshot_key};
    use crate::testing::TestRepository;

    #[test]
    fn nothing_that_was_set_aside_is_written_over() {
        let mut t = TestRepository::new();
        let snapshot = t.snapshot("s", &[], None);
        let key = snapshot_key(&snapshot.id);
        let whole = t.backend.get(&key, u64::MAX).unwrap();
        // A repair that was cut off does it once more.
        for _ in 0..2 {
            set_aside(&t.repository, &key, "first", None).unwrap();
        }
        t.backend.put(&key, b"other", PutMode::Replace).unwrap();
        set_aside(&t.repository, &key, "second", None).unwrap();
        set_aside(&t.repository, "snapshots/nonesuch", "gone", None).unwrap();
        let all = SetAside::list(&t.repository).unwrap();
        let reasons: Vec<_> = all.iter().map(|a| (a.object.as_str(), a.reason.as_str(), a.size)).collect();
        assert_eq!(reasons, [(&*key, "first", whole.len() as u64), (&*key, "second", 5)]);
        assert_eq!(all[0].snapshot.as_ref().unwrap().name, "s");
        assert_eq!(t.backend.get(&all[0].key, u64::MAX).unwrap(), whole);
        for _ in 0..2 {
            set_aside(&t.repository, INDEX, "lost", None).unwrap();
        }
        let all = SetAside::list(&t.repository).unwrap();
        assert_eq!(all.iter().filter(|a| a.object == INDEX).count(), 2);
        // Without its note an object is shown still.
        t.backend.delete(&note_key(&all[0].key)).unwrap();
        assert_eq!(SetAside::list(&t.repository).unwrap().len(), 4);
    }
}
