//! What opens a repository's objects.

use std::io::{self, Write};
use std::ops::Range;

use bytes::Bytes;

use crate::codec::compress::compress_stream;
use crate::codec::{self, Compression};
use crate::crypto::{ChunkHasher, Engine, engine_for};
use crate::error::{CodecError, CryptoError, FormatError, ObjectError, Result, VykarError};
use crate::format::envelope::{self, ObjectKind};
use crate::format::{
    Encryption, MAX_CHUNK_PLAINTEXT, MAX_METADATA_PLAINTEXT, MasterKeys, RepoConfig, SnapshotMeta,
};
use crate::id::ChunkId;
use crate::repository::BufferPool;

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

    /// Seals a metadata object of any size, whose plaintext `encode` writes: compressed, as it is written. Gives the
    /// object, and the length of its plaintext in bytes.
    ///
    /// # Errors
    /// The plaintext is longer than [`MAX_METADATA_PLAINTEXT`], which nobody would read, or cannot be sealed.
    pub fn seal_metadata(
        &self,
        (kind, context): (ObjectKind, &[u8]),
        what: &'static str,
        compression: Compression,
        encode: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(Vec<u8>, u64)> {
        let mut object = Vec::new();
        let mut len = 0;
        envelope::seal_into(self.engine(), kind, context, &mut object, |out| {
            compress_stream(compression, out, |inner| encode(&mut Counted { inner, len: &mut len }))
                .map_err(|e| VykarError::Encode { what, reason: e.to_string() })
        })?;
        Ok((object, len))
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
        let mut data = Vec::new();
        self.open_chunk_into(id, object, &mut data)?;
        Ok(data)
    }

    /// The same into a buffer, whose contents are replaced and whose memory is used again.
    pub fn open_chunk_into(
        &self,
        id: &ChunkId,
        object: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ObjectError> {
        if let Some(range) = self.open_chunk_at(id, object, out)? {
            out.extend_from_slice(&object[range]);
        }
        Ok(())
    }

    /// The same, and where the chunk is not compressed it stays in `object`: there, in the range that is given.
    pub fn open_chunk_at(
        &self,
        id: &ChunkId,
        object: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Range<usize>>, ObjectError> {
        let len = object.len();
        let payload = self.open(ObjectKind::Chunk, id.as_bytes(), object)?;
        out.clear();
        if let Some(data) = codec::stored(payload) {
            if data.len() as u64 > MAX_CHUNK_PLAINTEXT {
                return Err(CodecError::TooLarge { max: MAX_CHUNK_PLAINTEXT }.into());
            }
            self.check_id(id, data)?;
            let from = self.stored_at(len, data.len());
            return Ok(Some(from..from + data.len()));
        }
        let mut used = std::mem::take(out);
        let mut room = |len: usize| {
            let mut buffer = std::mem::take(&mut used);
            buffer.reserve(len);
            buffer
        };
        codec::decompress_into(payload, MAX_CHUNK_PLAINTEXT, &mut room, out)?;
        self.check_id(id, out)?;
        Ok(None)
    }

    /// Where the plaintext of an uncompressed chunk begins in its object: behind object tag, header of the cipher
    /// and codec byte, before the cipher's tag.
    fn stored_at(&self, object: usize, plain: usize) -> usize {
        object - plain - (self.engine.overhead() - self.engine.header_len())
    }

    /// The same for an object in a buffer of `pool`, into another one; or in place, where the chunk is not
    /// compressed.
    pub fn open_chunk_in(
        &self,
        id: &ChunkId,
        mut object: Vec<u8>,
        pool: &BufferPool,
    ) -> Result<Bytes, ObjectError> {
        let len = object.len();
        let payload = self.open(ObjectKind::Chunk, id.as_bytes(), &mut object)?;
        if let Some(data) = codec::stored(payload) {
            if data.len() as u64 > MAX_CHUNK_PLAINTEXT {
                return Err(CodecError::TooLarge { max: MAX_CHUNK_PLAINTEXT }.into());
            }
            self.check_id(id, data)?;
            let plain = data.len();
            let from = self.stored_at(len, plain);
            object.truncate(from + plain);
            return Ok(pool.freeze(object, from));
        }
        let mut data = Vec::new();
        codec::decompress_into(payload, MAX_CHUNK_PLAINTEXT, &mut |len| pool.take(len), &mut data)?;
        self.check_id(id, &data)?;
        pool.give(object);
        Ok(pool.freeze(data, 0))
    }

    /// Finds out which chunk an object holds, although nothing says so: the id is the hash of the plaintext, which can
    /// be had without it. With a cipher the tag then confirms the id; without one any bytes that expand have one.
    ///
    /// Gives the id and the plaintext's length in bytes.
    ///
    /// # Errors
    /// The object is damaged, or not a chunk, or of another repository.
    pub fn identify_chunk(&self, object: &[u8]) -> Result<(ChunkId, u32), ObjectError> {
        let expected = ObjectKind::Chunk as u8;
        let body = match object.split_first() {
            Some((tag, body)) if *tag == expected => body,
            Some((tag, _)) => return Err(CryptoError::WrongTag { expected, found: *tag }.into()),
            None => return Err(CryptoError::TooShort { len: 0 }.into()),
        };
        let payload = self.engine.decrypt_unverified(body)?;
        let data = codec::decompress(&payload, MAX_CHUNK_PLAINTEXT)?;
        let id = self.hasher.chunk_id(&data)?;
        if self.engine.encryption() != Encryption::None {
            self.open(ObjectKind::Chunk, id.as_bytes(), &mut object.to_vec())?;
        }
        Ok((id, data.len() as u32)) // at most 32 MiB
    }

    /// True for what reads as a snapshot, whatever its id. Nothing vouches for it: it must be opened under that.
    pub fn looks_like_snapshot(&self, object: &[u8]) -> bool {
        let Some((tag, body)) = object.split_first() else { return false };
        if *tag != ObjectKind::Snapshot as u8 {
            return false;
        }
        let Ok(plain) = self.engine.decrypt_unverified(body) else { return false };
        match SnapshotMeta::decode(&plain) {
            Ok(_) => true,
            Err(e) => matches!(e, FormatError::Newer { .. }),
        }
    }

    fn check_id(&self, id: &ChunkId, data: &[u8]) -> Result<(), ObjectError> {
        match self.engine.encryption() == Encryption::None && self.hasher.chunk_id(data)? != *id {
            true => Err(ObjectError::WrongId),
            false => Ok(()),
        }
    }
}

/// Counts what is written, and stops when that is more than anybody would read.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    len: &'a mut u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if *self.len + buf.len() as u64 > MAX_METADATA_PLAINTEXT {
            return Err(io::Error::other(CodecError::TooLarge { max: MAX_METADATA_PLAINTEXT }));
        }
        let n = self.inner.write(buf)?;
        *self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::compress::Compressor;
    use crate::format::{ChunkerParams, RepoConfig};

    #[test]
    fn no_more_metadata_is_written_than_would_be_read() {
        let (mut out, mut len) = (Vec::new(), MAX_METADATA_PLAINTEXT - 3);
        let mut counted = Counted { inner: &mut out, len: &mut len };
        counted.write_all(b"abc").unwrap();
        let error = counted.write_all(b"d").unwrap_err();
        assert!(error.to_string().contains("4294967296") && out == b"abc", "{error}");
    }

    #[test]
    fn chunks_open_the_same_in_both_ways() {
        for encryption in [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305] {
            let config = RepoConfig {
                version: 2,
                id: crate::RepositoryId([1; 32]),
                chunker: ChunkerParams::FILES,
                encryption,
                created: String::new(),
                min_pack_size: 1,
                max_pack_size: 2,
            };
            let master = MasterKeys { encryption_key: [3; 32], chunk_id_key: [4; 32] };
            let keys = Keys::new(&config, Some(&master)).unwrap();
            let pool = BufferPool::default();
            for (len, compression) in [0, 1, 1000, 300_000]
                .into_iter()
                .flat_map(|len| [Compression::None, Compression::Lz4, Compression::Zstd(3)].map(|c| (len, c)))
            {
                let data: Vec<u8> = (0..len).map(|n: u32| (n / 7) as u8).collect();
                let id = keys.hasher().chunk_id(&data).unwrap();
                let mut payload = Vec::new();
                Compressor::new(compression).unwrap().compress(&data, &mut payload).unwrap();
                let object = keys.seal(ObjectKind::Chunk, id.as_bytes(), &payload).unwrap();
                assert_eq!(keys.open_chunk(&id, &mut object.clone()).unwrap(), data);
                let mut reused = vec![9; 1000];
                keys.open_chunk_into(&id, &mut object.clone(), &mut reused).unwrap();
                assert_eq!(reused, data);
                assert_eq!(keys.open_chunk_in(&id, object.clone(), &pool).unwrap(), data);
                assert_eq!(keys.identify_chunk(&object).unwrap(), (id, data.len() as u32));
                let mut bad = object.clone();
                bad[object.len() / 2] ^= 1;
                assert!(keys.identify_chunk(&bad).map(|(found, _)| found) != Ok(id));
                assert!(encryption == Encryption::None || keys.identify_chunk(&bad).is_err());
                for n in 0..object.len().min(40) {
                    assert!(keys.identify_chunk(&object[..n]).map(|(found, _)| found) != Ok(id));
                }
                let other = ChunkId([9; 32]);
                assert!(keys.open_chunk_in(&other, object.clone(), &pool).is_err());
                for n in 0..object.len().min(40) {
                    assert!(keys.open_chunk_in(&id, object[..n].to_vec(), &pool).is_err());
                }
            }
        }
    }
}
