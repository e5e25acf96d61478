//! The local copy of the index with any bytes in it.

use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::ChunkHasher;
use crate::id::ChunkId;
use crate::local_state::index_cache::{FIELDS, HEADER, check, parse};
use crate::repository::IndexStamp;

/// A copy of the index with stamp 1, as it is, and once more with its header's check made good, so that what is
/// behind it is reached. The key is 7. A copy that is damaged may say anything, and still nobody falls over it.
pub fn index_copy(data: &[u8]) {
    let hasher = ChunkHasher::new([7; 32]);
    try_one(Bytes::copy_from_slice(data), &hasher);
    let mut sealed = data.to_vec();
    if let Some((fields, sum)) =
        sealed.get_mut(..HEADER).and_then(|header| header.split_at_mut_checked(FIELDS))
        && let Some(good) = check(&hasher, fields)
    {
        sum.copy_from_slice(&good);
        try_one(Bytes::from(sealed), &hasher);
    }
}

fn try_one(bytes: Bytes, hasher: &ChunkHasher) {
    let len = bytes.len();
    let Some(copy) = parse(&bytes, Arc::default(), hasher, &IndexStamp::from_bytes([1; IndexStamp::LEN]))
    else {
        return;
    };
    let chunks = &copy.index.chunks;
    assert!(
        chunks.len() * crate::local_state::index_cache::SLOT <= len
            && chunks.packs().len() * 32 <= len
            && chunks.is_copy()
    );
    let is_sound = copy.is_sound(hasher);
    for (slot, entry) in chunks.iter().enumerate() {
        assert_eq!(chunks.id(slot), entry.id);
        let _ = chunks.pack_number(slot);
        if let Some(found) = chunks.find(&entry.id) {
            assert!(found < chunks.len());
            assert_eq!(chunks.id(found), entry.id);
            assert_eq!(chunks.get(&entry.id), Some(chunks.entry(found)));
        }
    }
    for id in [[0; 32], [0x80; 32], [0xff; 32]] {
        assert!(chunks.find(&ChunkId(id)).is_none_or(|slot| slot < chunks.len()));
    }
    let mut changed = bytes.to_vec();
    if is_sound && let Some(last) = changed.last_mut().filter(|_| len > HEADER) {
        *last ^= 1;
        let again =
            parse(&changed.into(), Arc::default(), hasher, &IndexStamp::from_bytes([1; IndexStamp::LEN]));
        assert!(again.is_none_or(|copy| !copy.is_sound(hasher)));
    }
}
