//! Sealing engines, key derivation and wrapping, chunk ids.

pub mod aead;
pub mod hash;
pub mod kdf;

pub use aead::{AeadEngine, Engine, PlaintextEngine, engine_for};
pub use hash::{ChunkHasher, pack_id};

use crate::error::CryptoError;

/// Fills `out` from the system's random source.
pub fn random_bytes(out: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(out)
        .map_err(|e| CryptoError::Internal { what: "random number generator", reason: e.to_string() })
}

/// `N` random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut out = [0; N];
    random_bytes(&mut out)?;
    Ok(out)
}
