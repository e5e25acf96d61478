//! Passphrase to key-encryption key (Argon2id v1.3), and wrapping of the master keys.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::aead::AeadEngine;
use super::random;
use crate::error::{CryptoError, FormatError, VykarError};
use crate::format::{EncryptedKey, Encryption, KdfParams, MasterKeys};

/// What new keys are wrapped with: 3 passes over 64 MiB in 4 lanes, a 32-byte salt.
pub fn default_params() -> Result<KdfParams, CryptoError> {
    Ok(KdfParams {
        algorithm: crate::format::key::KDF_ALGORITHM.to_owned(),
        time_cost: 3,
        memory_cost: 65_536,
        parallelism: 4,
        salt: random::<32>()?.to_vec(),
    })
}

/// Derives the key-encryption key. The bounds were checked when `params` was decoded.
fn derive(params: &KdfParams, passphrase: &[u8]) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let failed = |e: argon2::Error| CryptoError::Internal { what: "argon2id", reason: e.to_string() };
    let cost =
        Params::new(params.memory_cost, params.time_cost, params.parallelism, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
        .hash_password_into(passphrase, &params.salt, &mut *key)
        .map_err(failed)?;
    Ok(key)
}

/// Wraps the master keys under a passphrase.
pub fn wrap(keys: &MasterKeys, passphrase: &[u8], kdf: KdfParams) -> Result<EncryptedKey, VykarError> {
    let kek = derive(&kdf, passphrase)?;
    let nonce = random::<12>()?;
    let mut body = keys.encode()?;
    let engine = AeadEngine::new(Encryption::Aes256Gcm, &kek)?;
    let tag = engine.seal_with(nonce, &kdf.associated_data(), &mut body)?;
    let mut wrapped = body.to_vec();
    wrapped.extend_from_slice(&tag);
    Ok(EncryptedKey { kdf, nonce, wrapped })
}

/// Why the master keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum UnwrapError {
    /// Wrong passphrase, or a damaged key object: the two cannot be told apart.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The unwrapped bytes are not keys.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Unwraps the master keys with a passphrase.
pub fn unwrap(key: &EncryptedKey, passphrase: &[u8]) -> Result<MasterKeys, UnwrapError> {
    let kek = derive(&key.kdf, passphrase)?;
    let engine = AeadEngine::new(Encryption::Aes256Gcm, &kek)?;
    let mut body = Zeroizing::new(key.wrapped.clone());
    let plain = engine
        .open_with(key.nonce, &key.kdf.associated_data(), &mut body)
        .map_err(|_| UnwrapError::WrongPassphrase)?;
    Ok(MasterKeys::decode(plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_round_trips_and_wrong_passphrases_fail() {
        let keys = MasterKeys { encryption_key: [5; 32], chunk_id_key: [200; 32] };
        let params = KdfParams { time_cost: 1, memory_cost: 64, ..default_params().unwrap() };
        let wrapped = wrap(&keys, b"secret", params).unwrap();
        let back = unwrap(&wrapped, b"secret").unwrap();
        assert_eq!((back.encryption_key, back.chunk_id_key), ([5; 32], [200; 32]));
        assert!(matches!(unwrap(&wrapped, b"Secret"), Err(UnwrapError::WrongPassphrase)));
        let mut changed = wrapped.clone();
        changed.kdf.time_cost = 2;
        assert!(matches!(unwrap(&changed, b"secret"), Err(UnwrapError::WrongPassphrase)));
    }
}
