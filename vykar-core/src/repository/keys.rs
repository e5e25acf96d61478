//! What opens a repository's objects.

use crate::crypto::{ChunkHasher, Engine, engine_for};
use crate::error::{CryptoError, ObjectError};
use crate::format::envelope::{self, ObjectKind};
use crate::format::{Encryption, MasterKeys, RepoConfig};
use crate::id::ChunkId;

/// The engine that seals objects and the hasher that names chunks.
pub struct Keys {
    engine: Box<dyn Engine>,
    hasher: ChunkHasher,
}

impl Keys {
    /// From the unwrapped master keys; `None` for encryption `None`.
    pub fn new(config: &RepoConfig, master: Option<&MasterKeys>) -> Result<Self, CryptoError> {
        match (config.encryption, master) {
            (Encryption::None, _) => Ok(Keys {
                engine: engine_for(Encryption::None, &[0; 32])?,
                hasher: ChunkHasher::unencrypted(&config.id),
            }),
            (encryption, Some(master)) => Ok(Keys {
                engine: engine_for(encryption, &master.encryption_key)?,
                hasher: ChunkHasher::new(master.chunk_id_key),
            }),
            (_, None) => Err(CryptoError::Internal { what: "opening keys", reason: "no master keys".into() }),
        }
    }

    /// The sealing engine.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The chunk id function.
    pub fn hasher(&self) -> &ChunkHasher {
        &self.hasher
    }

    /// Seals one object.
    pub fn seal(&self, kind: ObjectKind, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        envelope::seal(self.engine(), kind, context, plaintext)
    }

    /// Opens one object in place.
    pub fn open<'o>(
        &self,
        kind: ObjectKind,
        context: &[u8],
        object: &'o mut [u8],
    ) -> Result<&'o mut [u8], ObjectError> {
        envelope::open(self.engine(), kind, context, object)
    }

    /// Opens and expands a chunk object. With encryption `None` nothing binds it to its id, so the
    /// id is recomputed; with a cipher the authentication tag does that.
    pub fn open_chunk(&self, id: &ChunkId, object: &mut [u8]) -> Result<Vec<u8>, ObjectError> {
        let payload = self.open(ObjectKind::Chunk, id.as_bytes(), object)?;
        let data = crate::codec::decompress(payload, crate::format::MAX_CHUNK_PLAINTEXT)?;
        if self.engine.encryption() == Encryption::None && self.hasher.chunk_id(&data)? != *id {
            return Err(ObjectError::WrongId);
        }
        Ok(data)
    }
}
