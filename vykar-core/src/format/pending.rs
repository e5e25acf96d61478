//! `sessions/<id>.index`: object tag 7, context `pending_index`, compressed MessagePack.
//!
//! ```text
//! [ [ pack id 32 bytes, [ [ chunk id 32 bytes, stored_size u32, pack_offset u64 ] ] ] ]
//! ```

use serde::Serialize;

use super::wire::Reader;
use crate::error::FormatError;
use crate::id::{ChunkId, PackId};

/// A pack that a running backup has written and no index names yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingPack {
    /// The pack.
    pub pack: PackId,
    /// Chunk, stored size in bytes, offset of its object in the pack.
    pub chunks: Vec<(ChunkId, u32, u64)>,
}

/// Decodes a journal's plaintext.
pub fn decode(data: &[u8]) -> Result<Vec<PendingPack>, FormatError> {
    let mut r = Reader::new(data);
    let count = r.array("pending packs")?;
    let mut packs = Vec::with_capacity(r.capacity(count, 36));
    for _ in 0..count {
        r.array_of("pending pack", 2, 2)?;
        let pack = PackId(r.fixed("pack id")?);
        let count = r.array("pending chunks")?;
        let mut chunks = Vec::with_capacity(r.capacity(count, 38));
        for _ in 0..count {
            r.array_of("pending chunk", 3, 3)?;
            chunks.push((ChunkId(r.fixed("chunk id")?), r.u32("stored size")?, r.uint("pack offset")?));
        }
        packs.push(PendingPack { pack, chunks });
    }
    r.end("pending packs")?;
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wire::encode;

    #[test]
    fn golden_bytes() {
        let packs = vec![PendingPack { pack: PackId([1; 32]), chunks: vec![(ChunkId([2; 32]), 300, 13)] }];
        let mut expected = vec![0x91, 0x92, 0xdc, 0, 32];
        expected.extend([1; 32]);
        expected.extend([0x91, 0x93, 0xdc, 0, 32]);
        expected.extend([2; 32]);
        expected.extend([0xcd, 1, 44, 13]);
        assert_eq!(encode("pending", &packs).unwrap(), expected);
        assert_eq!(decode(&expected).unwrap(), packs);
        for n in 0..expected.len() {
            assert!(decode(&expected[..n]).is_err());
        }
    }
}
