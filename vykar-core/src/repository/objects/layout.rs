//! Which keys are the format's.

use std::collections::HashSet;

use crate::error::{Result, StorageError, VykarError};
use crate::format::marker::parse_lock_name;
use crate::id::{PackId, SessionId, SnapshotId};
use crate::repository::{CONFIG, INDEX, INDEX_GENERATION, REPOKEY, Repository};
use crate::storage::{Backend, ObjectInfo};

/// What the format keeps under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// The index.
    Index,
    /// The hint of its generation.
    IndexGeneration,
    /// A pack.
    Pack(PackId),
    /// An unfinished backup's journal.
    Journal(SessionId),
    /// A backup's marker.
    SessionMarker(SessionId),
    /// A lock.
    Lock,
    /// The wrapped master keys.
    Repokey,
    /// The parameters, which make it a repository.
    Config,
    /// What a repair replaced. It is no object of the format, and lies where no other program looks.
    SetAside,
}

impl KeyKind {
    /// `None` for a key that is not the format's.
    pub fn of(key: &str) -> Option<Self> {
        match key {
            CONFIG => return Some(KeyKind::Config),
            REPOKEY => return Some(KeyKind::Repokey),
            INDEX => return Some(KeyKind::Index),
            INDEX_GENERATION => return Some(KeyKind::IndexGeneration),
            _ => {}
        }
        let (folder, name) = key.split_once('/')?;
        match folder {
            "snapshots" => name.parse().ok().map(KeyKind::Snapshot),
            "packs" => {
                let (shard, name) = name.split_once('/')?;
                let id = name.parse().ok()?;
                (shard.len() == 2 && name.starts_with(shard)).then_some(KeyKind::Pack(id))
            }
            "sessions" => match name.split_once('.')? {
                (id, "index") => id.parse().ok().map(KeyKind::Journal),
                (id, "json") => id.parse().ok().map(KeyKind::SessionMarker),
                _ => None,
            },
            "locks" => parse_lock_name(name).map(|_| KeyKind::Lock),
            "damaged" => Some(KeyKind::SetAside),
            _ => None,
        }
    }
}

/// All objects of a repository, in no order. Other things that lie there are left out.
pub fn objects(backend: &dyn Backend) -> Result<Vec<(KeyKind, ObjectInfo)>, StorageError> {
    let mut found = Vec::new();
    // Folder by folder, as who reads them does: one may be a link to another disk.
    for prefix in ["snapshots/", "packs/", "sessions/", "locks/", "keys/", DAMAGED] {
        let objects = backend.list(prefix)?.into_iter();
        found.extend(objects.filter_map(|object| Some((KeyKind::of(&object.key)?, object))));
    }
    for (kind, key) in
        [(KeyKind::Index, INDEX), (KeyKind::IndexGeneration, INDEX_GENERATION), (KeyKind::Config, CONFIG)]
    {
        match backend.size(key) {
            Ok(size) => found.push((kind, ObjectInfo { key: key.to_owned(), size })),
            Err(StorageError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Where the format keeps an object or a folder of them and something else is: a folder, a link, a device. No listing
/// shows what belongs there. Sorted.
pub fn odd_objects(backend: &dyn Backend) -> Result<Vec<String>, StorageError> {
    let Some(in_folder) = backend.folder() else { return Ok(Vec::new()) };
    let known: HashSet<String> = folders().collect();
    let mut odd = Vec::new();
    let mut look_into: Vec<String> = vec![String::new()];
    look_into.extend(TOP.iter().filter(|top| **top != "damaged").map(|top| format!("{top}/")));
    while let Some(folder) = look_into.pop() {
        for entry in in_folder.odd_entries(&folder)? {
            let (name, is_folder) = match entry.strip_suffix('/') {
                Some(name) => (name, entry != folder),
                None => (entry.as_str(), false),
            };
            let is_known = known.contains(name);
            if is_folder && is_known && folder == PACKS {
                look_into.push(entry);
            } else if (is_known && !is_folder)
                || KeyKind::of(name).is_some_and(|kind| kind != KeyKind::SetAside)
            {
                // The folder itself keeps its slash.
                odd.push(if entry == folder { entry.clone() } else { name.to_owned() });
            }
        }
    }
    odd.sort_unstable();
    odd.dedup();
    Ok(odd)
}

/// Every folder that objects lie in, each after those that lie in it.
pub fn folders() -> impl Iterator<Item = String> {
    let shards = (0..=255u8).map(|shard| format!("packs/{shard:02x}"));
    let set_aside = ["damaged/snapshots", "damaged/packs", "damaged/keys", "damaged/deletions", "damaged"];
    let folders = ["packs", "snapshots", "keys", "sessions", LOCKS];
    shards.chain(set_aside.into_iter().chain(folders).map(str::to_owned))
}

/// True for the name of what lies in a folder of the format, or beside `config`. An unfinished write anywhere else is
/// somebody else's, whatever its name.
pub fn is_place(name: &str) -> bool {
    name.rsplit_once('/').is_none_or(|(dir, _)| folders().any(|folder| folder == dir))
}

/// Refuses where one of these folders is a link that leads out of the repository, unless a person trusts it. That is as
/// good as any other place for what the index names; but who deletes whatever has a pack's name there may delete another
/// repository's packs.
pub(crate) fn refuse_to_follow(repository: &Repository, folders: &[&str]) -> Result<()> {
    if repository.trust() {
        return Ok(());
    }
    let Some(place) = repository.backend().folder() else { return Ok(()) };
    for folder in folders {
        if place.leads_out(folder)? {
            return Err(VykarError::LeadsOut { folder: (*folder).to_owned() });
        }
    }
    Ok(())
}

/// The folders that lie beside `config`.
pub(crate) const TOP: [&str; 6] = ["packs", "snapshots", "keys", "sessions", LOCKS, "damaged"];

/// The folder of packs.
const PACKS: &str = "packs/";

/// Where a repair keeps what it replaces.
pub const DAMAGED: &str = "damaged/";

/// Where a deletion notes what it deletes, until the index does without it.
pub const DELETIONS: &str = "damaged/deletions/";

/// The folder of locks, which is in use as long as one is held.
pub const LOCKS: &str = "locks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_keys_are_told_from_all_others() {
        let (a, b) = ("ab".repeat(32), "ab".repeat(16));
        for key in ["config", "keys/repokey", "index", "index.gen", &format!("snapshots/{a}")] {
            assert!(KeyKind::of(key).is_some(), "{key}");
        }
        let (journal, marker) = (format!("sessions/{b}.index"), format!("sessions/{b}.json"));
        let set_aside = format!("damaged/snapshots/{a}.json");
        for key in
            [&set_aside, &format!("packs/ab/{a}"), &journal, &marker, &format!("locks/{:020}-{b}.json", 7)]
        {
            assert!(KeyKind::of(key).is_some(), "{key}");
        }
        for key in [
            "",
            "notes.txt",
            "keys/other",
            "config/x",
            "index.old",
            "snapshots",
            "snapshots/readme",
            &format!("snapshots/{}", a.to_uppercase()),
            &format!("snapshots/{a}.json"),
            &format!("packs/{a}"),
            &format!("packs/cd/{a}"),
            &format!("packs/a/{a}"),
            &format!("packs/ab/{a}/x"),
            &format!("sessions/{b}"),
            &format!("sessions/{b}.index.json"),
            "locks/x.json",
        ] {
            assert_eq!(KeyKind::of(key), None, "{key}");
        }
    }

    #[test]
    fn folders_come_after_what_is_in_them() {
        let all: Vec<_> = folders().collect();
        assert_eq!(all.len(), 266);
        let at = |name: &str| all.iter().position(|folder| folder == name).unwrap();
        assert!(at("packs/00") < at("packs") && at("packs/ff") < at("packs"));
    }
}
