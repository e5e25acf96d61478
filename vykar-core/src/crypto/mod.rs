//! Sealing engines, key derivation and wrapping, chunk ids.

pub mod aead;
pub mod hash;
pub mod kdf;

pub use aead::{AeadEngine, Engine, PlaintextEngine, engine_for};
pub use hash::{ChunkHasher, pack_id, pack_ids};

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

/// Random bytes that a thread has and has not used yet: asking the system for each nonce by itself takes longer
/// than encrypting a small chunk with it.
struct Nonces {
    bytes: [u8; 12 * 128],
    used: usize,
}

thread_local! {
    static NONCES: std::cell::RefCell<Nonces> =
        const { std::cell::RefCell::new(Nonces { bytes: [0; 12 * 128], used: 12 * 128 }) };
}

/// A random nonce, never given twice.
///
/// The process must not fork and go on in both copies with the same thread, which would then share nonces. Nothing
/// here does: what is forked runs another program, or goes on alone while its parent ends.
pub(crate) fn nonce() -> Result<[u8; 12], CryptoError> {
    NONCES.with_borrow_mut(|nonces| {
        if nonces.used == nonces.bytes.len() {
            random_bytes(&mut nonces.bytes)?;
            nonces.used = 0;
        }
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&nonces.bytes[nonces.used..nonces.used + 12]);
        nonces.used += 12;
        Ok(nonce)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_differ_in_all_threads() {
        let some = || (0..1000).map(|_| nonce().unwrap()).collect::<Vec<_>>();
        let mut all: Vec<_> =
            [(); 4].map(|()| std::thread::spawn(some)).into_iter().flat_map(|t| t.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
    }
}
