//! What every back end must do: run it over an empty one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use super::{Backend, ObjectInfo, PutMode, holds_other_than};
use crate::error::StorageError;

/// What every back end must do. `b` is empty, and empty again at the end but for `packs/cd/cdef`.
///
/// # Panics
/// It does something else.
pub fn contract(b: &dyn Backend) {
    assert!(matches!(b.get("config", 10), Err(StorageError::NotFound { .. })));
    assert!(matches!(b.size("config"), Err(StorageError::NotFound { .. })));
    assert!(matches!(b.get_range("packs/00/x", 0, 1), Err(StorageError::NotFound { .. })));
    assert_eq!(b.list("snapshots/").unwrap(), []);
    b.put("config", b"one", PutMode::Exclusive).unwrap();
    assert!(matches!(b.put("config", b"two", PutMode::Exclusive), Err(StorageError::AlreadyExists { .. })));
    assert_eq!(b.get("config", 3).unwrap(), b"one");
    assert!(matches!(b.get("config", 2), Err(StorageError::TooLarge { size: 3, max: 2, .. })));
    b.put("config", b"three", PutMode::Replace).unwrap();
    assert_eq!(b.get("config", 10).unwrap(), b"three");
    assert_eq!(b.get_range("config", 1, 3).unwrap(), b"hre");
    assert_eq!(b.get_range("config", 5, 0).unwrap(), b"");
    for (len, data) in [(0, &b""[..]), (3, b"thr"), (9, b"three")] {
        let head = b.head("config", len).unwrap();
        assert_eq!((&head.data[..], head.size), (data, 5));
    }
    assert!(matches!(b.head("nope", 1), Err(StorageError::NotFound { .. })));
    let mut reused = b"longer than that".to_vec();
    b.get_range_into("config", 1, 3, &mut reused).unwrap();
    assert_eq!(reused, b"hre");
    assert!(matches!(b.get_range("config", 3, 3), Err(StorageError::Short { end: 6, .. })));
    assert!(matches!(b.get_range("config", u64::MAX, 3), Err(StorageError::Short { .. })));
    let mut asked = 0;
    for still in [false, true] {
        for (key, mode) in [("config", PutMode::Replace), ("index", PutMode::Exclusive)] {
            let mut answer = || {
                asked += 1;
                assert_eq!(b.get("config", 10).unwrap(), b"three", "not yet");
                assert!(!b.exists("index").unwrap());
                still
            };
            assert_eq!(b.put_if(key, b"three", mode, &mut answer).unwrap(), still);
        }
    }
    assert_eq!((asked, b.get("index", 10).unwrap()), (4, b"three".to_vec()));
    b.delete("index").unwrap();
    b.put("packs/ab/abcd", b"", PutMode::Replace).unwrap();
    let info = |key: &str, size| ObjectInfo { key: key.into(), size };
    assert_eq!(b.list("packs/").unwrap(), [info("packs/ab/abcd", 0)]);
    let mut all = b.list("").unwrap();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(all, [info("config", 5), info("packs/ab/abcd", 0)]);
    let (many, mut gone) = (["nope", "packs/ab/abcd"].map(str::to_owned), Vec::new());
    b.delete_many(&many, &mut |key| gone.push(key.to_owned())).unwrap();
    gone.sort();
    assert_eq!(gone, many);
    assert_eq!(b.list("packs/").unwrap(), []);
    for pieces in [&[b"one".as_slice(), b"", b"two"][..], &[], &[&[7; 10_000_000]]] {
        let mut upload = b.upload().unwrap();
        pieces.iter().for_each(|piece| upload.write(piece).unwrap());
        assert_eq!(b.list("packs/").unwrap().len(), usize::from(b.exists("packs/cd/cdef").unwrap()));
        let all = pieces.concat();
        let mut back = vec![9; all.len() / 2];
        upload.read_at((all.len() - back.len()) as u64, &mut back).unwrap();
        assert!(all.ends_with(&back) && upload.read_at(all.len() as u64, &mut [0]).is_err());
        upload.finish("packs/cd/cdef").unwrap();
        assert_eq!(b.get("packs/cd/cdef", 1 << 30).unwrap(), pieces.concat());
    }
    assert!(matches!(b.upload().unwrap().finish("../a"), Err(StorageError::InvalidKey { .. })));
    b.upload().unwrap().write(b"never finished").unwrap();
    assert_eq!(b.list("packs/").unwrap().len(), 1);
    assert!(holds_other_than(b, &["config"]).unwrap());
    assert!(b.exists("config").unwrap() && !b.exists("nope").unwrap());
    b.delete("config").unwrap();
    b.delete("config").unwrap();
    assert!(!b.exists("config").unwrap());
    for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".tmp-1", "a b", "a\0", "é"] {
        assert!(matches!(b.get(bad, 1), Err(StorageError::InvalidKey { .. })), "{bad:?}");
        assert!(matches!(b.put(bad, b"", PutMode::Replace), Err(StorageError::InvalidKey { .. })), "{bad:?}");
    }
}
