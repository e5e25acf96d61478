//! `sessions/<id>.index`: object tag 7, context `pending_index`, compressed MessagePack.
//!
//! ```text
//! [ [ pack id 32 bytes, [ [ chunk id 32 bytes, stored_size u32, pack_offset u64 ] ] ] ]
//! ```

use std::io::{self, Read, Write};

use super::window::Window;
use super::wire::{Reader, put_array, put_id, put_uint};
use crate::error::{FormatError, IndexError};
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
    let mut packs = Vec::new();
    let each = &mut |pack| {
        packs.push(pack);
        Ok(())
    };
    match decode_each(&mut &*data, each) {
        Ok(()) => Ok(packs),
        Err(IndexError::Format(e)) => Err(e),
        // A slice is never unreadable.
        Err(IndexError::Read(e)) => {
            Err(FormatError::Invalid { what: "pending packs", reason: e.to_string() })
        }
    }
}

/// Decodes pack by pack, as the plaintext is decompressed.
///
/// # Errors
/// What `source` and `each` fail with, and what is wrong with what the source gives.
pub fn decode_each(
    source: &mut dyn Read,
    each: &mut dyn FnMut(PendingPack) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut window = Window::new(source);
    for _ in 0..window.parse(|r| r.array("pending packs"))? {
        let (pack, count) = window.parse(read_pack)?;
        // Not allocated at once: the count may be anything.
        let mut chunks = Vec::new();
        for _ in 0..count {
            chunks.push(window.parse(read_chunk)?);
        }
        each(PendingPack { pack, chunks })?;
    }
    window.end("pending packs")
}

/// A pack's name, and the number of its chunks.
fn read_pack(r: &mut Reader<'_>) -> Result<(PackId, usize), FormatError> {
    r.array_of("pending pack", 2, 2)?;
    Ok((PackId(r.fixed("pack id")?), r.array("pending chunks")?))
}

fn read_chunk(r: &mut Reader<'_>) -> Result<PendingChunk, FormatError> {
    r.array_of("pending chunk", 3, 3)?;
    Ok((ChunkId(r.fixed("chunk id")?), r.u32("stored size")?, r.uint("pack offset")?))
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
