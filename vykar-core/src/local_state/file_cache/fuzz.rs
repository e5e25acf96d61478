//! The file cache with any bytes in it.

use bytes::Bytes;

use crate::crypto::ChunkHasher;
use crate::id::RepositoryId;
use crate::local_state::file_cache::{FIXED_BODY, FileCache, HEADER, INDEX_ENTRY, Record, check};

/// Paths that are looked for in each file.
const LOOKED_FOR: usize = 16;

/// A cache file of repository 1, as it is, and once more with its checks made good, so that what is behind them is
/// reached. The key is 7.
pub fn file_cache(data: &[u8]) {
    let (repository, hasher) = (RepositoryId([1; 32]), ChunkHasher::new([7; 32]));
    try_one(data.to_vec(), &repository, &hasher);
    let mut sealed = data.to_vec();
    if seal(&mut sealed, &hasher).is_some() {
        try_one(sealed, &repository, &hasher);
    }
}

fn try_one(data: Vec<u8>, repository: &RepositoryId, hasher: &ChunkHasher) {
    let Some(cache) = FileCache::parse(Bytes::from(data), repository, hasher) else { return };
    let entries = &cache.data[cache.index.clone()];
    let paths = entries.chunks_exact(INDEX_ENTRY).filter_map(|entry| entry.first_chunk::<16>());
    for path in paths.take(LOOKED_FOR).chain([&[0; 16], &[0xff; 16]]) {
        let Some(known) = cache.find(path) else { continue };
        assert_eq!(known.record.path, *path);
        // It is what would be written for it, except for flags and an inode that mean nothing.
        let mut again = Vec::new();
        assert!(known.record.encode(hasher, &mut again).is_ok());
        assert!(again[12..36] == known.raw[12..36] && again[45..] == known.raw[45..]);
        assert_eq!(Record::decode(*path, &again[12..]).as_ref(), Some(&known.record));
    }
}

/// Makes the header's check and those of the first records good.
fn seal(data: &mut [u8], hasher: &ChunkHasher) -> Option<()> {
    let header = data.get(..HEADER)?;
    let (count, start) = (header.get(40..48)?.try_into().ok()?, header.get(48..56)?.try_into().ok()?);
    let (count, start) = (u64::from_le_bytes(count) as usize, u64::from_le_bytes(start) as usize);
    for at in 0..count.min(LOOKED_FOR) {
        let entry = data.get(start.checked_add(at * INDEX_ENTRY)?..)?.first_chunk::<INDEX_ENTRY>()?;
        let path: [u8; 16] = *entry.first_chunk()?;
        let offset = u64::from_le_bytes(*entry.last_chunk()?) as usize;
        let Some(record) = data.get_mut(offset..) else { continue };
        let Some((len, rest)) = record.split_first_chunk_mut::<4>() else { continue };
        let Some((sum, body)) = rest.split_first_chunk_mut::<8>() else { continue };
        let len = u32::from_le_bytes(*len) as usize;
        let Some(body) = body.get(..len).filter(|body| body.len() >= FIXED_BODY) else { continue };
        *sum = check(hasher, &[&path, body]).ok()?;
    }
    let sum = check(hasher, &[data.get(..HEADER - 8)?]).ok()?;
    data.get_mut(HEADER - 8..HEADER)?.copy_from_slice(&sum);
    Some(())
}
