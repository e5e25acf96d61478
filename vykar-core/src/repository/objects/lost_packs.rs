//! Packs that the index names and the storage does not have in full: nothing may rely on them.

use std::collections::{HashMap, HashSet};

use crate::error::{Result, VykarError};
use crate::format::table::ChunkTable;
use crate::id::PackId;
use crate::repository::Repository;
use crate::repository::objects::layout::KeyKind;

/// Lengths of the packs that are there, in bytes, as a listing has them.
pub fn pack_sizes(repository: &Repository) -> Result<HashMap<PackId, u64>> {
    let size = |object: crate::storage::ObjectInfo| match KeyKind::of(&object.key) {
        Some(KeyKind::Pack(id)) => Some((id, object.size)),
        _ => None,
    };
    Ok(repository.backend().list("packs/")?.into_iter().filter_map(size).collect())
}

/// Packs of an index that are missing, or end before a chunk that the index says is in them.
#[derive(Debug, Default)]
pub struct LostPacks {
    ids: HashSet<PackId>,
    /// By their numbers in the table.
    numbers: HashSet<u32>,
}

impl LostPacks {
    /// Compares an index with a listing of the packs.
    ///
    /// # Errors
    /// [`VykarError::Unsound`] when none of the packs is there: more likely they are out of reach than lost.
    pub fn find(repository: &Repository, table: &ChunkTable) -> Result<Self> {
        if table.is_empty() {
            return Ok(LostPacks::default());
        }
        let sizes = pack_sizes(repository)?;
        let packs = table.packs();
        if !packs.is_empty() && packs.iter().all(|id| !sizes.contains_key(id)) {
            let reason = format!("none of the {} packs that the index names is there", packs.len());
            return Err(VykarError::Unsound { reason });
        }
        let mut ends = vec![0u64; packs.len()];
        for slot in 0..table.len() {
            if let Some(end) = ends.get_mut(table.pack_number(slot) as usize) {
                *end = table.end_in_pack(slot).max(*end);
            }
        }
        let mut lost = LostPacks::default();
        for ((number, id), end) in (0..).zip(packs).zip(ends) {
            if sizes.get(id).is_none_or(|size| *size < end) {
                lost.ids.insert(*id);
                lost.numbers.insert(number);
            }
        }
        Ok(lost)
    }

    /// True when every pack is there.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True for a pack that is one of them.
    pub fn has(&self, pack: &PackId) -> bool {
        self.ids.contains(pack)
    }

    /// True for a slot of the table they were found with, when its chunk is in one of them.
    pub fn has_slot(&self, table: &ChunkTable, slot: usize) -> bool {
        !self.numbers.is_empty() && self.numbers.contains(&table.pack_number(slot))
    }
}
