//! Sealed objects.

use vykar_core::crypto::{AeadEngine, Engine, PlaintextEngine};
use vykar_core::format::envelope::{open, seal};
use vykar_core::format::{Encryption, ObjectKind};

/// What the seeds are sealed with.
const KEY: [u8; 32] = [7; 32];
const KINDS: [ObjectKind; 6] = [
    ObjectKind::Snapshot,
    ObjectKind::Chunk,
    ObjectKind::Index,
    ObjectKind::FileCache,
    ObjectKind::PendingIndex,
    ObjectKind::SnapshotCache,
];

fn engine(number: u8) -> Box<dyn Engine> {
    let encryption = match number % 3 {
        0 => return Box::new(PlaintextEngine),
        1 => Encryption::Aes256Gcm,
        _ => Encryption::Chacha20Poly1305,
    };
    match AeadEngine::new(encryption, &KEY) {
        Ok(engine) => Box::new(engine),
        Err(error) => panic!("{error}"),
    }
}

/// An object: a byte for the cipher, one for its kind, one for the length of its context, the context, the object.
pub fn envelope(data: &[u8]) {
    let Some(([cipher, kind, len], rest)) = data.split_first_chunk::<3>() else { return };
    let Some((context, object)) = rest.split_at_checked(usize::from(*len)) else { return };
    let engine = engine(*cipher);
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let is_open = engine.encryption() == Encryption::None;
    let opened = open(&*engine, kind, context, &mut object.to_vec()).map(|plain| plain.to_vec());
    if let Ok(plain) = &opened {
        assert_eq!(plain.len() + 1 + engine.overhead(), object.len());
        if !is_open {
            // Nothing but this very object opens, and as nothing else.
            for at in [0, 1, object.len() / 2, object.len() - 1] {
                let mut changed = object.to_vec();
                changed[at] ^= 1;
                assert!(open(&*engine, kind, context, &mut changed).is_err());
            }
            let longer = [context, b"x"].concat();
            assert!(open(&*engine, kind, &longer, &mut object.to_vec()).is_err());
            assert!(open(&*engine, kind, context, &mut object[..object.len() - 1].to_vec()).is_err());
        }
    }
    let plain = opened.unwrap_or_else(|_| object.to_vec());
    let Ok(mut sealed) = seal(&*engine, kind, context, &plain) else { panic!("cannot be sealed") };
    let back = open(&*engine, kind, context, &mut sealed).map(|back| back.to_vec());
    assert_eq!(back, Ok(plain));
}
