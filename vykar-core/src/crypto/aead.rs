//! Engines that seal and open object bodies.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::nonce;
use crate::error::CryptoError;
use crate::format::Encryption;

const NONCE: usize = 12;
const TAG: usize = 16;

/// Seals and opens the body of an object (everything behind its tag byte), in place.
pub trait Engine: Send + Sync {
    /// Which encryption this is.
    fn encryption(&self) -> Encryption;
    /// Bytes to leave free in front of the plaintext.
    fn header_len(&self) -> usize;
    /// Bytes that sealing adds in all.
    fn overhead(&self) -> usize;
    /// Seals `buf[start..]`, whose first [`Engine::header_len`] bytes are free, and appends the tag.
    fn seal(&self, aad: &[u8], buf: &mut Vec<u8>, start: usize) -> Result<(), CryptoError>;
    /// Authenticates and opens a body; the plaintext is a part of it.
    fn open<'b>(&self, aad: &[u8], body: &'b mut [u8]) -> Result<&'b mut [u8], CryptoError>;
    /// Decrypts a copy of a body without looking at its tag, so that **nothing vouches for what it gives**: it is
    /// good for finding out what an object may be, and that must then be opened as what it seems to be.
    fn decrypt_unverified(&self, body: &[u8]) -> Result<Vec<u8>, CryptoError>;
}

/// AES-256-GCM or ChaCha20-Poly1305 with a random 96-bit nonce per object.
pub struct AeadEngine {
    encryption: Encryption,
    key: LessSafeKey,
}

impl AeadEngine {
    /// An engine with this key. Fails for [`Encryption::None`].
    pub fn new(encryption: Encryption, key: &[u8; 32]) -> Result<Self, CryptoError> {
        let failed = |reason: &str| CryptoError::Internal { what: "cipher set-up", reason: reason.into() };
        let algorithm = match encryption {
            Encryption::Aes256Gcm => &AES_256_GCM,
            Encryption::Chacha20Poly1305 => &CHACHA20_POLY1305,
            Encryption::None => return Err(failed("no cipher for encryption None")),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| failed("key refused"))?;
        Ok(AeadEngine { encryption, key: LessSafeKey::new(key) })
    }

    /// Seals with a given nonce; `buf[start..]` is the plaintext alone.
    pub(super) fn seal_with(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        plaintext: &mut [u8],
    ) -> Result<[u8; TAG], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext)
            .map_err(|_| CryptoError::Internal { what: "sealing", reason: "object too long".into() })?;
        let mut out = [0; TAG];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    pub(super) fn open_with<'b>(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        sealed: &'b mut [u8],
    ) -> Result<&'b mut [u8], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| CryptoError::Authentication)
    }
}

impl Engine for AeadEngine {
    fn encryption(&self) -> Encryption {
        self.encryption
    }

    fn header_len(&self) -> usize {
        NONCE
    }

    fn overhead(&self) -> usize {
        NONCE + TAG
    }

    fn seal(&self, aad: &[u8], buf: &mut Vec<u8>, start: usize) -> Result<(), CryptoError> {
        let nonce = nonce()?;
        let Some((head, plaintext)) = buf.get_mut(start..).and_then(|b| b.split_at_mut_checked(NONCE)) else {
            return Err(CryptoError::TooShort { len: buf.len() });
        };
        head.copy_from_slice(&nonce);
        let tag = self.seal_with(nonce, aad, plaintext)?;
        buf.extend_from_slice(&tag);
        Ok(())
    }

    fn open<'b>(&self, aad: &[u8], body: &'b mut [u8]) -> Result<&'b mut [u8], CryptoError> {
        let len = body.len();
        if len < NONCE + TAG {
            return Err(CryptoError::TooShort { len });
        }
        let (head, sealed) = body.split_at_mut(NONCE);
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(head);
        self.open_with(nonce, aad, sealed)
    }

    /// Both ciphers add a key stream, which depends on key and nonce alone, to the plaintext. Sealing a ciphertext
    /// with its own nonce adds the same stream again, which leaves the plaintext. A nonce must never be used for two
    /// ciphertexts; here none comes about, and the tag that belongs to it is thrown away.
    fn decrypt_unverified(&self, body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let parts = body.split_first_chunk::<NONCE>();
        let Some((nonce, (sealed, _))) =
            parts.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG>()?)))
        else {
            return Err(CryptoError::TooShort { len: body.len() });
        };
        let mut data = sealed.to_vec();
        self.seal_with(*nonce, b"", &mut data)?;
        Ok(data)
    }
}

/// No sealing: objects are stored as they are, and nothing is authenticated.
pub struct PlaintextEngine;

impl Engine for PlaintextEngine {
    fn encryption(&self) -> Encryption {
        Encryption::None
    }

    fn header_len(&self) -> usize {
        0
    }

    fn overhead(&self) -> usize {
        0
    }

    fn seal(&self, _aad: &[u8], _buf: &mut Vec<u8>, _start: usize) -> Result<(), CryptoError> {
        Ok(())
    }

    fn open<'b>(&self, _aad: &[u8], body: &'b mut [u8]) -> Result<&'b mut [u8], CryptoError> {
        Ok(body)
    }

    fn decrypt_unverified(&self, body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(body.to_vec())
    }
}

/// The engine for an encryption mode; the key is not used for [`Encryption::None`].
pub fn engine_for(encryption: Encryption, key: &[u8; 32]) -> Result<Box<dyn Engine>, CryptoError> {
    Ok(match encryption {
        Encryption::None => Box::new(PlaintextEngine),
        other => Box::new(AeadEngine::new(other, key)?),
    })
}

/// Times both ciphers on this machine for a few milliseconds and names the faster.
pub fn fastest_cipher() -> Result<Encryption, CryptoError> {
    let time = |encryption| {
        let engine = AeadEngine::new(encryption, &[7; 32])?;
        let mut data = vec![0u8; 1 << 20];
        engine.seal_with([0; NONCE], b"", &mut data)?; // warm up
        let start = std::time::Instant::now();
        for i in 0..8 {
            engine.seal_with([i; NONCE], b"", &mut data)?;
        }
        Ok::<_, CryptoError>(start.elapsed())
    };
    let aes = time(Encryption::Aes256Gcm)?;
    let chacha = time(Encryption::Chacha20Poly1305)?;
    Ok(if aes <= chacha { Encryption::Aes256Gcm } else { Encryption::Chacha20Poly1305 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, section 2.8.2.
    #[test]
    fn chacha20_poly1305_test_vector() {
        let mut key = [0u8; 32];
        (0x80..0xa0).zip(key.iter_mut()).for_each(|(v, k)| *k = v);
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".to_vec();
        let engine = AeadEngine::new(Encryption::Chacha20Poly1305, &key).unwrap();
        let tag = engine.seal_with(nonce, &aad, &mut text).unwrap();
        assert_eq!(&text[..8], &[0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb]);
        assert_eq!(tag[..4], [0x1a, 0xe1, 0x0b, 0x59]);
    }

    /// NIST GCM test case 13 (AES-256, empty) and 14 (one zero block).
    #[test]
    fn aes256_gcm_test_vector() {
        let engine = AeadEngine::new(Encryption::Aes256Gcm, &[0; 32]).unwrap();
        let tag = engine.seal_with([0; 12], b"", &mut []).unwrap();
        assert_eq!(tag[..4], [0x53, 0x0f, 0x8a, 0xfb]);
        let mut block = [0u8; 16];
        let tag = engine.seal_with([0; 12], b"", &mut block).unwrap();
        assert_eq!(block[..4], [0xce, 0xa7, 0x40, 0x3d]);
        assert_eq!(tag[..4], [0xd0, 0xd1, 0xc8, 0xa7]);
    }

    #[test]
    fn what_is_decrypted_without_its_tag_is_what_was_sealed() {
        for encryption in [Encryption::Aes256Gcm, Encryption::Chacha20Poly1305, Encryption::None] {
            let engine = engine_for(encryption, &[9; 32]).unwrap();
            for len in [0, 1, 15, 16, 17, 64, 100_000] {
                let plain: Vec<u8> = (0..len).map(|n: u32| (n.wrapping_mul(n) >> 3) as u8).collect();
                let mut body = vec![0; engine.header_len()];
                body.extend(&plain);
                engine.seal(b"what it is", &mut body, 0).unwrap();
                assert_eq!(engine.decrypt_unverified(&body).unwrap(), plain);
                // Neither the name it was sealed under nor the tag is needed, which is why it proves nothing.
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                let bent = engine.decrypt_unverified(&body).unwrap();
                assert!(encryption == Encryption::None || bent == plain);
            }
            for len in 0..engine.overhead() {
                assert!(engine.decrypt_unverified(&vec![0; len]).is_err());
            }
        }
    }
}
