//! `keys/repokey`: bare MessagePack, no tag byte.
//!
//! ```text
//! [ [ algorithm "argon2id", time_cost u32, memory_cost u32 (KiB), parallelism u32, salt bytes ],
//!   nonce 12 bytes, wrapped bytes ]
//! ```
//!
//! `wrapped` is AES-256-GCM of MessagePack `[encryption_key 32 bytes, chunk_id_key 32 bytes]`.

use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::wire::{self, Reader};
use crate::error::FormatError;

/// The only key derivation of the format.
pub const KDF_ALGORITHM: &str = "argon2id";

/// Argon2id parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KdfParams {
    /// [`KDF_ALGORITHM`].
    pub algorithm: String,
    /// Passes, 1..=10.
    pub time_cost: u32,
    /// Memory in KiB, 1..=524288.
    pub memory_cost: u32,
    /// Lanes, 1..=16.
    pub parallelism: u32,
    /// 16..=64 bytes.
    pub salt: Vec<u8>,
}

impl KdfParams {
    /// Refuses parameters that would cost a reader too much, before anything is derived.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.algorithm != KDF_ALGORITHM {
            let detail = format!("key derivation {:?}", self.algorithm);
            return Err(FormatError::Newer { what: "repokey", detail });
        }
        let bound = |what, found: u64, min, max| {
            if (min..=max).contains(&found) {
                return Ok(());
            }
            Err(FormatError::OutOfBounds { what, found, min, max })
        };
        bound("argon2 time cost", self.time_cost.into(), 1, 10)?;
        bound("argon2 memory cost (KiB)", self.memory_cost.into(), 1, 524_288)?;
        bound("argon2 parallelism", self.parallelism.into(), 1, 16)?;
        bound("argon2 salt length", self.salt.len() as u64, 16, 64)
    }

    /// The associated data that binds the wrapped key to these parameters.
    pub fn associated_data(&self) -> Vec<u8> {
        let mut aad = b"vger:kdf-aad:v1\0".to_vec();
        let lengths = [self.algorithm.len(), self.salt.len()].map(|n| (n as u32).to_le_bytes());
        aad.extend(lengths[0]);
        aad.extend(self.algorithm.as_bytes());
        for cost in [self.time_cost, self.memory_cost, self.parallelism] {
            aad.extend(cost.to_le_bytes());
        }
        aad.extend(lengths[1]);
        aad.extend(&self.salt);
        aad
    }
}

/// The passphrase-wrapped master keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncryptedKey {
    /// How the key-encryption key is derived.
    pub kdf: KdfParams,
    /// AES-256-GCM nonce.
    pub nonce: [u8; 12],
    /// Sealed [`MasterKeys`].
    pub wrapped: Vec<u8>,
}

impl EncryptedKey {
    /// Decodes and checks the derivation parameters' bounds.
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(data);
        r.array_of("repokey", 3, 3)?;
        r.array_of("repokey kdf", 5, 5)?;
        let kdf = KdfParams {
            algorithm: r.str("kdf algorithm")?.to_owned(),
            time_cost: r.u32("argon2 time cost")?,
            memory_cost: r.u32("argon2 memory cost (KiB)")?,
            parallelism: r.u32("argon2 parallelism")?,
            salt: r.bytes("argon2 salt")?.into_owned(),
        };
        kdf.check()?;
        let nonce = r.fixed("repokey nonce")?;
        let wrapped = r.bytes("repokey wrapped key")?.into_owned();
        r.end("repokey")?;
        Ok(EncryptedKey { kdf, nonce, wrapped })
    }
}

/// The secrets everything else hangs on; wiped from memory when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKeys {
    /// Seals every object.
    pub encryption_key: [u8; 32],
    /// Keys the chunk ids.
    pub chunk_id_key: [u8; 32],
}

impl MasterKeys {
    /// Decodes the unwrapped bytes.
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(data);
        r.array_of("master keys", 2, 2)?;
        let keys =
            MasterKeys { encryption_key: r.fixed("encryption key")?, chunk_id_key: r.fixed("chunk id key")? };
        r.end("master keys")?;
        Ok(keys)
    }

    /// Encodes for wrapping.
    pub fn encode(&self) -> crate::Result<Zeroizing<Vec<u8>>> {
        // Large enough not to be reallocated, which would leave an unwiped copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        rmp_serde::encode::write(&mut *out, &(&self.encryption_key, &self.chunk_id_key))
            .map_err(|e| crate::VykarError::Encode { what: "master keys", reason: e.to_string() })?;
        Ok(out)
    }
}

impl EncryptedKey {
    /// Encodes for `keys/repokey`.
    pub fn encode(&self) -> crate::Result<Vec<u8>> {
        wire::encode("repokey", self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> EncryptedKey {
        EncryptedKey {
            kdf: KdfParams {
                algorithm: "argon2id".into(),
                time_cost: 3,
                memory_cost: 65536,
                parallelism: 4,
                salt: vec![7; 32],
            },
            nonce: [1; 12],
            wrapped: vec![0xff; 3],
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = b"\x93\x95\xa8argon2id\x03\xce\0\x01\0\0\x04\xdc\0\x20".to_vec();
        expected.extend([7; 32]);
        expected.push(0x9c);
        expected.extend([1; 12]);
        expected.extend([0x93, 0xcc, 0xff, 0xcc, 0xff, 0xcc, 0xff]);
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(EncryptedKey::decode(&expected).unwrap(), sample());
    }

    #[test]
    fn associated_data_golden_bytes() {
        let mut expected =
            b"vger:kdf-aad:v1\0\x08\0\0\0argon2id\x03\0\0\0\0\0\x01\0\x04\0\0\0\x20\0\0\0".to_vec();
        expected.extend([7; 32]);
        assert_eq!(sample().kdf.associated_data(), expected);
    }

    #[test]
    fn expensive_or_unknown_derivation_is_refused_when_decoding() {
        let with = |change: &dyn Fn(&mut KdfParams)| {
            let mut key = sample();
            change(&mut key.kdf);
            EncryptedKey::decode(&key.encode().unwrap())
        };
        assert!(with(&|_| ()).is_ok());
        assert!(with(&|k| k.time_cost = 0).is_err());
        assert!(with(&|k| k.time_cost = 11).is_err());
        assert!(with(&|k| k.memory_cost = 524_289).is_err());
        assert!(with(&|k| k.memory_cost = 0).is_err());
        assert!(with(&|k| k.parallelism = 17).is_err());
        assert!(with(&|k| k.parallelism = 0).is_err());
        assert!(with(&|k| k.salt = vec![0; 15]).is_err());
        assert!(with(&|k| k.salt = vec![0; 65]).is_err());
        assert!(matches!(with(&|k| k.algorithm = "scrypt".into()), Err(FormatError::Newer { .. })));
    }

    #[test]
    fn master_keys_round_trip() {
        let keys = MasterKeys { encryption_key: [0x90; 32], chunk_id_key: [3; 32] };
        let bytes = keys.encode().unwrap();
        assert_eq!(&bytes[..6], &[0x92, 0xdc, 0, 32, 0xcc, 0x90]);
        let back = MasterKeys::decode(&bytes).unwrap();
        assert_eq!((back.encryption_key, back.chunk_id_key), ([0x90; 32], [3; 32]));
    }
}
