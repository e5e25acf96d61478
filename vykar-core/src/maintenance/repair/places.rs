//! What may be a pack, wherever in the repository it lies, and packs that are read from where they lie.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Result, StorageError};
use crate::format::pack::HEADER;
use crate::id::PackId;
use crate::maintenance::verify::MAX_PACK_OBJECT;
use crate::repository::objects::layout::{DAMAGED, KeyKind, TOP};
use crate::repository::{INDEX, INDEX_GENERATION, Repository, pack_key};
use crate::storage::{Abilities, Backend, Folder, Head, ObjectInfo, PutMode, Upload};

/// Folder of packs.
const PACKS: &str = "packs/";

/// An object that may be a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackCandidate {
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The pack whose place it has.
    pub place: Option<PackId>,
    /// The pack that its name speaks of, whatever its place.
    pub named: Option<PackId>,
}

impl PackCandidate {
    fn new(object: &ObjectInfo) -> Self {
        let place = match KeyKind::of(&object.key) {
            Some(KeyKind::Pack(id)) => Some(id),
            _ => None,
        };
        let named = place.or_else(|| ids_in(&object.key).next().map(PackId));
        PackCandidate { key: object.key.clone(), size: object.size, place, named }
    }

    /// True in the folder of packs, whatever its name: it is nobody else's.
    pub fn is_among_packs(&self) -> bool {
        self.key.starts_with(PACKS)
    }
}

/// Every run of 64 hex digits in a key.
pub(super) fn ids_in(key: &str) -> impl Iterator<Item = [u8; 32]> + '_ {
    let runs = key.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() == 64);
    runs.filter_map(|run| run.to_ascii_lowercase().parse::<PackId>().ok().map(|id| id.0))
}

/// All objects of a repository but those that come and go by themselves: locks, markers, journals, and the index. Sorted
/// by key.
pub(super) fn everything(repository: &Repository) -> Result<Vec<ObjectInfo>> {
    let backend = repository.backend();
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    // Folder by folder as well: one may be a link to another disk.
    for folder in std::iter::once(String::new()).chain(TOP.iter().map(|folder| format!("{folder}/"))) {
        all.extend(backend.list(&folder)?.into_iter().map(|object| (object.key, object.size)));
    }
    all.retain(|key, _| {
        let passing = ["locks/", "sessions/"].iter().any(|folder| key.starts_with(folder));
        !passing && key != INDEX && key != INDEX_GENERATION
    });
    Ok(all.into_iter().map(|(key, size)| ObjectInfo { key, size }).collect())
}

/// Those objects that may be packs: whatever lies among packs, or was set aside from there, and what begins as a pack
/// anywhere else.
///
/// # Errors
/// When the storage fails where packs are kept. What is no object of the repository and cannot be read is passed over.
pub(super) fn candidates(repository: &Repository, objects: &[ObjectInfo]) -> Result<Vec<PackCandidate>> {
    let aside = format!("{DAMAGED}{PACKS}");
    let mut found = Vec::new();
    for object in objects {
        let candidate = PackCandidate::new(object);
        let is_note = object.key.starts_with(DAMAGED) && object.key.ends_with(".json");
        let is_pack = !is_note
            && (candidate.is_among_packs()
                || object.key.starts_with(&aside)
                || begins_as_pack(repository, object));
        if is_pack {
            found.push(candidate);
        }
    }
    Ok(found)
}

fn begins_as_pack(repository: &Repository, object: &ObjectInfo) -> bool {
    let may_be = matches!(KeyKind::of(&object.key), None | Some(KeyKind::Snapshot(_) | KeyKind::SetAside));
    may_be
        && (HEADER.len() as u64..=MAX_PACK_OBJECT).contains(&object.size)
        && repository.backend().get_range(&object.key, 0, HEADER.len()).is_ok_and(|head| head == HEADER)
}

/// A storage in which packs are read from where they lie, under the keys that they should have.
pub(super) struct Relocated {
    inner: Arc<dyn Backend>,
    keys: HashMap<String, String>,
}

impl Relocated {
    /// With the objects that are not in their place: the hash of each one's content, and its key.
    pub fn new(inner: Arc<dyn Backend>, elsewhere: &HashMap<PackId, String>) -> Self {
        let keys = elsewhere.iter().map(|(content, key)| (pack_key(content), key.clone())).collect();
        Relocated { inner, keys }
    }

    fn real<'k>(&'k self, key: &'k str) -> &'k str {
        self.keys.get(key).map_or(key, String::as_str)
    }
}

impl Backend for Relocated {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.get(self.real(key), max)
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.inner.prepare()
    }

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.inner.get_range_into(self.real(key), offset, len, out)
    }

    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError> {
        self.inner.head(self.real(key), len)
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        self.inner.put_if(key, data, mode, still)
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        self.inner.upload()
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(prefix)
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.inner.delete(key)
    }

    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        self.inner.delete_many(keys, deleted)
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(self.real(key))
    }

    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.leftovers(min_age)
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        self.inner.remove_leftover(name)
    }

    /// Only objects have other keys here.
    fn folder(&self) -> Option<&dyn Folder> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_speak_of_packs_in_any_place() {
        let id = "ab".repeat(32);
        let of = |key: &str| PackCandidate::new(&ObjectInfo { key: key.to_owned(), size: 1 });
        let right = of(&format!("packs/ab/{id}"));
        assert!(right.place.is_some() && right.named == right.place);
        for key in [format!("packs/cd/{id}"), format!("packs/{id}.old"), format!("damaged/packs/{id}-0123")] {
            assert_eq!((of(&key).place, of(&key).named), (None, right.place), "{key}");
        }
        assert_eq!(of("packs/ab/readme").named, None);
        assert_eq!(ids_in(&format!("copy-of-{id}{id}")).count(), 0);
    }
}
