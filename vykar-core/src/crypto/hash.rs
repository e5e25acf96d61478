//! Chunk ids (keyed BLAKE2b-256) and pack ids (unkeyed BLAKE2b-256).

use blake2::digest::consts::U32;
use blake2::digest::{Digest, FixedOutput, Update};
use blake2::{Blake2b256, Blake2bMac};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::CryptoError;
use crate::id::{ChunkId, PackId, RepositoryId};

/// Computes chunk ids with the repository's key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChunkHasher {
    key: [u8; 32],
}

impl ChunkHasher {
    /// With the master `chunk_id_key`.
    pub fn new(key: [u8; 32]) -> Self {
        ChunkHasher { key }
    }

    /// For encryption `None`: the key is BLAKE2b-256 of the repository id.
    pub fn unencrypted(id: &RepositoryId) -> Self {
        ChunkHasher { key: Blake2b256::digest(id.0).into() }
    }

    /// The id of a plaintext chunk.
    pub fn chunk_id(&self, plaintext: &[u8]) -> Result<ChunkId, CryptoError> {
        self.keyed(b"", &[plaintext]).map(ChunkId)
    }

    /// A keyed hash for local use, kept apart from chunk ids by BLAKE2b's personalisation.
    pub fn local(&self, purpose: &[u8; 8], parts: &[&[u8]]) -> Result<[u8; 32], CryptoError> {
        self.keyed(purpose, parts)
    }

    fn keyed(&self, personal: &[u8], parts: &[&[u8]]) -> Result<[u8; 32], CryptoError> {
        let mut mac = Blake2bMac::<U32>::new_with_salt_and_personal(Some(&self.key), &[], personal)
            .map_err(|e| CryptoError::Internal { what: "keyed BLAKE2b", reason: e.to_string() })?;
        for part in parts {
            mac.update(part);
        }
        Ok(mac.finalize_fixed().into())
    }
}

/// The id of a pack: BLAKE2b-256 of the whole file.
pub fn pack_id(pack: &[u8]) -> PackId {
    PackId(Blake2b256::digest(pack).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blake2b_256_of_abc() {
        let expected = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
        assert_eq!(pack_id(b"abc").to_string(), expected);
    }

    /// From `hashlib.blake2b(b"abc", key=bytes(range(32)), digest_size=32)`.
    #[test]
    fn keyed_ids_match_an_independent_implementation() {
        let mut key = [0u8; 32];
        (0u8..).zip(key.iter_mut()).for_each(|(v, k)| *k = v);
        let id = ChunkHasher::new(key).chunk_id(b"abc").unwrap();
        assert_eq!(id.to_string(), include_str!("testdata/keyed-abc.hex").trim());
        let local = ChunkHasher::new(key).local(b"vykar-fc", &[b"a", b"bc"]).unwrap();
        assert_ne!(local, id.0);
    }
}
