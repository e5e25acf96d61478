//! The object envelope.
//!
//! ```text
//! sealed: tag u8 | nonce 12 | ciphertext | AEAD tag 16
//! plain:  tag u8 | plaintext
//! ```
//!
//! The associated data is `tag | "vger:object-context:v1\0" | context`, so an object opens only as
//! the kind and under the name it was sealed for.

use crate::crypto::Engine;
use crate::error::{CryptoError, ObjectError};

/// The kind of an object: its tag byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// Snapshot metadata; context is the snapshot id.
    Snapshot = 2,
    /// A chunk in a pack; context is the chunk id.
    Chunk = 3,
    /// The chunk index; context is `index`.
    Index = 4,
    /// Local cache: which chunks a file had.
    FileCache = 6,
    /// A session's journal; context is `pending_index`.
    PendingIndex = 7,
    /// Local cache: what snapshots are made of.
    SnapshotCache = 8,
}

/// Context of the `index` object.
pub const INDEX_CONTEXT: &[u8] = b"index";
/// Context of a session's journal.
pub const PENDING_CONTEXT: &[u8] = b"pending_index";

const DOMAIN: &[u8] = b"vger:object-context:v1\0";

/// The associated data of an object.
pub fn associated_data(kind: ObjectKind, context: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(1 + DOMAIN.len() + context.len());
    aad.push(kind as u8);
    aad.extend_from_slice(DOMAIN);
    aad.extend_from_slice(context);
    aad
}

/// Appends a sealed object to `out`; `fill` appends the plaintext in place.
pub fn seal_into<E>(
    engine: &dyn Engine,
    kind: ObjectKind,
    context: &[u8],
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E>
where
    E: From<CryptoError>,
{
    out.push(kind as u8);
    let body = out.len();
    out.resize(body + engine.header_len(), 0);
    fill(out)?;
    engine.seal(&associated_data(kind, context), out, body)?;
    Ok(())
}

/// Seals a plaintext as an object of its own.
pub fn seal(
    engine: &dyn Engine,
    kind: ObjectKind,
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let mut out = Vec::with_capacity(1 + plaintext.len() + engine.overhead());
    seal_into(engine, kind, context, &mut out, |out| {
        out.extend_from_slice(plaintext);
        Ok::<(), CryptoError>(())
    })?;
    Ok(out)
}

/// Opens an object in place; the plaintext is a part of `object`.
pub fn open<'o>(
    engine: &dyn Engine,
    kind: ObjectKind,
    context: &[u8],
    object: &'o mut [u8],
) -> Result<&'o mut [u8], ObjectError> {
    let len = object.len();
    let Some((tag, body)) = object.split_first_mut() else {
        return Err(CryptoError::TooShort { len }.into());
    };
    if *tag != kind as u8 {
        return Err(CryptoError::WrongTag { expected: kind as u8, found: *tag }.into());
    }
    Ok(engine.open(&associated_data(kind, context), body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{AeadEngine, PlaintextEngine};
    use crate::format::Encryption;
    use proptest::prelude::*;

    fn engines() -> Vec<Box<dyn Engine>> {
        vec![
            Box::new(PlaintextEngine),
            Box::new(AeadEngine::new(Encryption::Aes256Gcm, &[1; 32]).unwrap()),
            Box::new(AeadEngine::new(Encryption::Chacha20Poly1305, &[1; 32]).unwrap()),
        ]
    }

    #[test]
    fn plain_objects_are_the_tag_and_the_plaintext() {
        assert_eq!(seal(&PlaintextEngine, ObjectKind::Index, b"index", b"hello").unwrap(), b"\x04hello");
    }

    #[test]
    fn associated_data_golden_bytes() {
        assert_eq!(associated_data(ObjectKind::Chunk, b"ctx"), b"\x03vger:object-context:v1\0ctx");
    }

    proptest! {
        #[test]
        fn objects_open_only_as_what_they_are(data: Vec<u8>, context: Vec<u8>, flip: usize) {
            for engine in engines() {
                let sealed = seal(&*engine, ObjectKind::Chunk, &context, &data).unwrap();
                prop_assert_eq!(sealed.len(), data.len() + 1 + engine.overhead());
                let opened = open(&*engine, ObjectKind::Chunk, &context, &mut sealed.clone()).map(|p| p.to_vec());
                prop_assert_eq!(opened, Ok(data.clone()));
                prop_assert!(open(&*engine, ObjectKind::Index, &context, &mut sealed.clone()).is_err());
                if engine.encryption() == Encryption::None {
                    continue;
                }
                let mut other = context.clone();
                other.push(0);
                prop_assert!(open(&*engine, ObjectKind::Chunk, &other, &mut sealed.clone()).is_err());
                let mut bad = sealed.clone();
                let at = flip % bad.len();
                bad[at] ^= 1;
                prop_assert!(open(&*engine, ObjectKind::Chunk, &context, &mut bad).is_err());
                for n in 0..sealed.len().min(40) {
                    prop_assert!(open(&*engine, ObjectKind::Chunk, &context, &mut sealed[..n].to_vec()).is_err());
                }
            }
        }
    }
}
