//! `sessions/<id>.index`: object tag 7, context `pending_index`, compressed MessagePack.
//!
//! ```text
//! [ [ pack id 32 bytes, [ [ chunk id 32 bytes, stored_size u32, pack_offset u64 ] ] ] ]
//! ```

use std::io::{self, Write};

use super::wire::{Reader, put_array, put_id, put_uint};
use crate::error::FormatError;
use crate::id::{ChunkId, PackId};

/// A pack that a running backup has written and no index names yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPack {
    /// The pack.
    pub pack: PackId,
    /// Chunk, stored size in bytes, offset of its object in the pack.
    pub chunks: Vec<PendingChunk>,
}

/// A chunk of a pending pack: its id, its stored size in bytes, and where its object is in the pack.
pub type PendingChunk = (ChunkId, u32, u64);

/// Writes a journal's plaintext as the packs come, each with the number of its chunks and what gives them.
pub fn encode_to<C: Iterator<Item = PendingChunk>>(
    out: &mut dyn Write,
    packs: impl ExactSizeIterator<Item = (PackId, u32, C)>,
) -> io::Result<()> {
    let mut buf = Vec::with_capacity(256);
    let count = u32::try_from(packs.len()).map_err(io::Error::other)?;
    put_array(&mut buf, count);
    for (pack, count, chunks) in packs {
        put_array(&mut buf, 2);
        put_id(&mut buf, &pack.0);
        put_array(&mut buf, count);
        for (id, stored_size, offset) in chunks {
            put_array(&mut buf, 3);
            put_id(&mut buf, &id.0);
            put_uint(&mut buf, stored_size.into());
            put_uint(&mut buf, offset);
            out.write_all(&buf)?;
            buf.clear();
        }
    }
    out.write_all(&buf)
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

    fn encode(packs: &[PendingPack]) -> Vec<u8> {
        let packs = packs.iter().map(|p| (p.pack, p.chunks.len() as u32, p.chunks.iter().copied()));
        let mut out = Vec::new();
        encode_to(&mut out, packs).unwrap();
        out
    }

    #[test]
    fn golden_bytes() {
        let packs = vec![PendingPack { pack: PackId([1; 32]), chunks: vec![(ChunkId([2; 32]), 300, 13)] }];
        let mut expected = vec![0x91, 0x92, 0xdc, 0, 32];
        expected.extend([1; 32]);
        expected.extend([0x91, 0x93, 0xdc, 0, 32]);
        expected.extend([2; 32]);
        expected.extend([0xcd, 1, 44, 13]);
        assert_eq!(encode(&packs), expected);
        assert_eq!(decode(&expected).unwrap(), packs);
        for n in 0..expected.len() {
            assert!(decode(&expected[..n]).is_err());
        }
    }

    #[test]
    fn encoding_agrees_with_rmp_serde() {
        let chunks =
            |n: u8| (0..n).map(|c| (ChunkId([c * 90; 32]), u32::from(c) * 999, 1 << (c * 9))).collect();
        let packs: Vec<_> =
            [0, 1, 3].map(|n| PendingPack { pack: PackId([n * 77; 32]), chunks: chunks(n) }).into();
        let tuples: Vec<_> = packs.iter().map(|p| (p.pack, p.chunks.clone())).collect();
        assert_eq!(encode(&packs), rmp_serde::to_vec(&tuples).unwrap());
        assert_eq!(decode(&encode(&packs)).unwrap(), packs);
        assert_eq!(encode(&[]), [0x90]);
    }
}
