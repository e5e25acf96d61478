//! Packs.
//!
//! ```text
//! "VGERPACK" | version u8 = 1 | blob...
//! blob: length u32 | chunk object of that length
//! ```
//!
//! An index entry's offset points at the object, behind its length.

use crate::error::FormatError;

/// Magic and version.
pub const HEADER: &[u8; 9] = b"VGERPACK\x01";
/// Bytes of the length in front of each blob.
pub const LENGTH_PREFIX: u64 = 4;
/// A pack closes at this many blobs.
pub const MAX_BLOBS: usize = 10_000;
/// Largest tree pack: 4 MiB.
pub const MAX_TREE_PACK: usize = 4 << 20;

/// One blob of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Where the object begins in the pack.
    pub offset: u64,
    /// The chunk object.
    pub object: &'a [u8],
}

/// Walks the blobs of a pack that is in memory; ends after the first error.
pub fn blobs(pack: &[u8]) -> Result<impl Iterator<Item = Result<Blob<'_>, FormatError>>, FormatError> {
    let invalid = |reason: &str| FormatError::Invalid { what: "pack", reason: reason.into() };
    let Some(rest) = pack.strip_prefix(&HEADER[..8]) else {
        return Err(invalid("does not begin with VGERPACK"));
    };
    match rest.first() {
        Some(1) => {}
        Some(v) => return Err(FormatError::Newer { what: "pack", detail: format!("version {v}") }),
        None => return Err(FormatError::Truncated { what: "pack" }),
    }
    let mut at = HEADER.len();
    Ok(std::iter::from_fn(move || {
        if at >= pack.len() {
            return None;
        }
        let Some((length, rest)) = pack[at..].split_first_chunk::<4>() else {
            at = pack.len();
            return Some(Err(FormatError::Truncated { what: "blob length" }));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(object) = rest.get(..length) else {
            at = pack.len();
            return Some(Err(FormatError::Truncated { what: "blob" }));
        };
        let offset = at as u64 + LENGTH_PREFIX;
        at += 4 + length;
        Some(Ok(Blob { offset, object }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_pack_is_walked() {
        let pack = b"VGERPACK\x01\x03\0\0\0abc\0\0\0\0\x01\0\0\0z";
        let found: Vec<_> = blobs(pack).unwrap().map(|b| b.unwrap()).map(|b| (b.offset, b.object)).collect();
        assert_eq!(found, [(13, &b"abc"[..]), (20, b""), (24, b"z")]);
    }

    #[test]
    fn damage_is_found() {
        assert!(blobs(b"VGERPAC").is_err());
        assert!(matches!(blobs(b"VGERPACK\x02").map(|_| ()), Err(FormatError::Newer { .. })));
        for cut in [b"VGERPACK\x01\x03\0\0\0ab".as_slice(), b"VGERPACK\x01\x03\0"] {
            assert!(blobs(cut).unwrap().any(|b| b.is_err()));
        }
    }
}
