//! Objects longer than any real one are refused by their length, not read. The files here are sparse: to read one
//! would take all memory, or all of a disk.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::error::{StorageError, VykarError};
use crate::format::{MAX_METADATA_OBJECT, MAX_SMALL_OBJECT, MAX_SNAPSHOT_OBJECT};
use crate::repository::{
    CONFIG, InitOptions, Manifest, OpenOptions, Passphrase, REPOKEY, Repository, SessionInfo,
};
use crate::storage::LocalBackend;

struct Place {
    dir: tempfile::TempDir,
    repository: Repository,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { cache_dir: Some(dir.path().join("cache")), ..OpenOptions::default() };
        let backend = Arc::new(LocalBackend::new(dir.path().join("repo")));
        let mut passphrase = || Ok(Passphrase::from("secret".to_owned()));
        let init = InitOptions::new(Encryption::Aes256Gcm);
        let repository = Repository::init(backend, &init, &mut passphrase, &options).unwrap();
        Place { dir, repository }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join("repo").join(key)
    }

    /// Makes an object this long, or makes one.
    fn lengthen(&self, key: &str, len: u64) {
        fs::create_dir_all(self.path(key).parent().unwrap()).unwrap();
        let file = File::options().create(true).write(true).truncate(false).open(self.path(key)).unwrap();
        file.set_len(len).unwrap();
    }

    fn reopen(&self) -> crate::Result<Repository> {
        let mut passphrase = || Ok(Passphrase::from("secret".to_owned()));
        Repository::open(self.repository.backend().clone(), &mut passphrase, &OpenOptions::default())
    }

    fn findings(&self) -> Vec<String> {
        let report = check(&self.repository, &DATA, None).unwrap();
        report.findings.iter().map(ToString::to_string).collect()
    }
}

fn too_large<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(VykarError::Storage(StorageError::TooLarge { .. })))
}

#[test]
fn parameters_and_keys_that_are_too_long_open_nothing() {
    let place = Place::new();
    place.lengthen(REPOKEY, MAX_SMALL_OBJECT + 1);
    assert!(too_large(place.reopen()));
    place.lengthen(CONFIG, 1 << 40);
    assert!(matches!(place.reopen(), Err(VykarError::NotARepository { .. })));
}

#[test]
fn an_index_that_is_too_long_is_not_even_copied() {
    let place = Place::new();
    for len in [MAX_METADATA_OBJECT + 1, 1 << 40] {
        place.lengthen(INDEX, len);
        assert!(too_large(place.repository.read_index()));
        assert!(too_large(place.repository.open_index()));
        assert!(too_large(place.repository.open_sound_index()));
        assert!(place.findings().iter().any(|text| text.contains("index")), "{:?}", place.findings());
    }
}

#[test]
fn other_objects_that_are_too_long_are_named() {
    let place = Place::new();
    let snapshot = "ab".repeat(32);
    place.lengthen(&format!("snapshots/{snapshot}"), MAX_SNAPSHOT_OBJECT + 1);
    let manifest = Manifest::load(&place.repository).unwrap();
    assert_eq!((manifest.snapshots.len(), manifest.unreadable.len()), (0, 1));
    let session = "cd".repeat(16);
    place.lengthen(&format!("sessions/{session}.json"), MAX_SMALL_OBJECT + 1);
    assert_eq!(SessionInfo::list(&place.repository).unwrap().len(), 1);
    place.lengthen(&format!("sessions/{session}.index"), MAX_METADATA_OBJECT + 1);
    let pack = PackId([7; 32]);
    place.lengthen(&pack_key(&pack), 1 << 40);
    place.lengthen("index.gen", 1 << 40);
    let findings = place.findings();
    let pack = pack.to_string();
    for name in [&snapshot[..16], &session[..16], &pack[..16], "index.gen"] {
        assert!(findings.iter().any(|text| text.contains(name)), "{name}: {findings:#?}");
    }
}
