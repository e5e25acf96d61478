use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::format::Encryption;
use crate::maintenance::delete_repository::*;
use crate::repository::{CONFIG, INDEX, InitOptions, OpenOptions, Passphrase, REPOKEY, pack_key};
use crate::storage::testing::{Fault, TestBackend};
use crate::storage::{Backend, LocalBackend, MemoryBackend, PutMode};
use crate::testing::{TestRepository, noise};

fn lock() -> LockOptions {
    LockOptions { wait: Duration::from_millis(50), ..LockOptions::default() }
}

/// Two snapshots, and the journal of a backup that never ended.
fn filled(encryption: Encryption) -> TestRepository {
    let mut test = TestRepository::with(encryption);
    for n in 0..2 {
        let items = [test.file("file", &noise(n, 100_000))];
        test.snapshot(&format!("s{n}"), &items, None);
    }
    let journal = format!("sessions/{}.index", "0f".repeat(16));
    test.backend.put(&journal, b"journal", PutMode::Replace).unwrap();
    test
}

fn keys(backend: &dyn Backend) -> Vec<String> {
    backend.list("").unwrap().into_iter().map(|object| object.key).collect()
}

fn open(backend: Arc<dyn Backend>) -> Result<Repository> {
    Repository::open(backend, &mut || Ok(Passphrase::from("secret".to_owned())), &OpenOptions::default())
}

fn delete(repository: &Repository) -> Result<WholeReport> {
    delete_repository(repository, &RepositoryContents::of(repository)?, &lock(), None)
}

fn copy_of(test: &TestRepository) -> MemoryBackend {
    let copy = MemoryBackend::new();
    for key in keys(&test.backend) {
        copy.put(&key, &test.backend.get(&key, u64::MAX).unwrap(), PutMode::Replace).unwrap();
    }
    copy
}

#[test]
fn every_object_goes_and_nothing_else() {
    let test = filled(Encryption::Aes256Gcm);
    let others = ["notes", "snapshots/readme", "packs/ab/mine", "photos/a"];
    let all = keys(&test.backend).len();
    others.iter().for_each(|key| test.backend.put(key, b"mine", PutMode::Replace).unwrap());
    let contents = RepositoryContents::of(&test.repository).unwrap();
    assert_eq!((contents.snapshots.len(), contents.objects.len()), (2, all));
    assert_eq!(contents.objects.last().unwrap().key, CONFIG);
    let (mut told, mut events) = (0, Vec::new());
    let mut listen = |event| {
        if let Event::Progress { files, bytes, expected, .. } = event {
            told = files;
            events.push((bytes, expected.unwrap().bytes));
        }
    };
    let report = delete_repository(&test.repository, &contents, &lock(), Some(&mut listen)).unwrap();
    assert_eq!((report.snapshots, report.objects as usize, told as usize), (2, all, all));
    assert!(events.last().is_some_and(|(done, all)| done == all && *done == report.bytes), "{events:?}");
    let mut left = keys(&test.backend);
    left.sort_unstable();
    let mut expected = others;
    expected.sort_unstable();
    assert_eq!(left, expected);
    let mut named = report.left;
    named.sort_unstable();
    assert_eq!(named, expected);
}

/// Wherever it is cut off, what is left is a repository whose snapshots have an index, and the next time ends it.
#[test]
fn what_is_cut_off_is_still_a_repository_and_can_be_deleted_again() {
    let template = filled(Encryption::None);
    for fault in [Fault::Error, Fault::LostReply, Fault::LostConnection] {
        let (mut at, mut in_part) = (0, 0);
        loop {
            let copy = copy_of(&template);
            let backend = Arc::new(TestBackend::failing(copy.clone(), at, fault));
            let result = open(backend.clone()).and_then(|repository| delete(&repository));
            if backend.calls() <= at {
                assert!(result.is_ok() && keys(&copy).is_empty(), "{fault:?}: {result:?}");
                break;
            }
            // The process that held it is gone.
            for object in copy.list("locks/").unwrap() {
                copy.delete(&object.key).unwrap();
            }
            let left = keys(&copy);
            let when = format!("{fault:?} at {at}: {left:?}");
            let has = |prefix: &str| left.iter().any(|key| key.starts_with(prefix));
            assert!(left.is_empty() || has("config"), "{when}");
            assert!(!has("snapshots/") || (left.iter().any(|key| key == "index") && has("packs/")), "{when}");
            if let Err(VykarError::Unfinished { done, .. }) = &result {
                in_part += 1;
                let all = keys(&template.backend).len();
                let gone = all - left.iter().filter(|key| !key.starts_with("locks/")).count();
                let counted = done.contains(&format!("in part ({gone} of {all} objects)"));
                // Where the reply was lost it is one more than anybody knows.
                assert!(counted || fault == Fault::LostReply, "{when}: {done}");
            }
            if has("config") {
                assert!(result.is_err(), "{when}");
                delete(&open(Arc::new(copy.clone())).unwrap()).unwrap();
                assert!(keys(&copy).is_empty(), "{when}");
            }
            at += 1;
        }
        assert!(at > 20 && in_part > 5, "{fault:?}: only {at} operations, {in_part} of them in part");
    }
}

#[test]
fn an_encrypted_one_whose_key_is_gone_already_is_deleted_to_its_end() {
    let test = filled(Encryption::Aes256Gcm);
    let remains =
        || Repository::open_remains(Arc::new(test.backend.clone()), &OpenOptions::default()).unwrap();
    assert!(remains().is_none(), "it has a key");
    test.backend.delete(REPOKEY).unwrap();
    let contents = RepositoryContents::of(&test.repository).unwrap();
    // As long as anything is there that the key would open, it may come back from a copy of it.
    let order: Vec<_> = contents.objects.iter().map(|object| object.key.clone()).collect();
    for key in order.iter().filter(|key| *key != CONFIG && !key.starts_with("sessions/")) {
        assert!(remains().is_none(), "{key} is still there");
        test.backend.delete(key).unwrap();
    }
    assert!(open(Arc::new(test.backend.clone())).is_err());
    delete(&remains().unwrap()).unwrap();
    assert!(keys(&test.backend).is_empty());
    assert!(remains().is_none(), "nothing is there");
}

#[test]
fn what_was_not_shown_is_not_deleted() {
    let mut test = filled(Encryption::None);
    let seen = RepositoryContents::of(&test.repository).unwrap();
    let new = test.snapshot("new", &[], None);
    let before = keys(&test.backend);
    let error = delete_repository(&test.repository, &seen, &lock(), None).unwrap_err();
    assert!(matches!(&error, VykarError::Changed { reason } if reason.contains(&new.id.short())), "{error}");
    assert_eq!(keys(&test.backend), before);
}

#[test]
fn damage_does_not_keep_a_repository_from_being_deleted() {
    let test = filled(Encryption::None);
    test.backend.put(INDEX, b"no index", PutMode::Replace).unwrap();
    test.put_snapshot(b"no snapshot", None);
    assert_eq!(delete(&test.repository).unwrap().snapshots, 3);
    assert!(keys(&test.backend).is_empty());
    let test = filled(Encryption::None);
    test.backend.delete(INDEX).unwrap();
    delete(&test.repository).unwrap();
    assert!(keys(&test.backend).is_empty());
}

fn local(place: &Path, cache: &Path) -> Repository {
    let options = OpenOptions { cache_dir: Some(cache.to_owned()), trust: false };
    let backend = Arc::new(LocalBackend::new(place));
    Repository::init(backend, &InitOptions::new(Encryption::None), &mut || unreachable!(), &options).unwrap()
}

#[test]
fn folders_and_local_caches_go_too_where_nothing_else_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let (place, cache) = (dir.path().join("repo"), dir.path().join("cache"));
    let temporary = |folder: &str| format!("{folder}.tmp-{}", "0f".repeat(16));
    for stranger in [None, Some("photos/.tmp-0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"), Some("snapshots/.hidden")] {
        let repository = local(&place, &cache);
        let own_cache = repository.cache_dir().unwrap();
        fs::create_dir_all(own_cache.join("sessions")).unwrap();
        fs::write(own_cache.join("files-x"), b"cache").unwrap();
        let pack = pack_key(&crate::PackId([0xab; 32]));
        repository.backend().put(&pack, b"pack", PutMode::Replace).unwrap();
        for folder in ["", "packs/", "packs/ab/", "locks/", "sessions/"] {
            fs::create_dir_all(place.join(folder)).unwrap();
            fs::write(place.join(temporary(folder)), b"half").unwrap();
        }
        if let Some(stranger) = stranger {
            fs::create_dir_all(place.join(stranger).parent().unwrap()).unwrap();
            fs::write(place.join(stranger), b"mine").unwrap();
        }
        let report = delete(&repository).unwrap();
        assert!(!own_cache.exists() && cache.join("pins").exists());
        let Some(stranger) = stranger else {
            assert!(report.place_is_gone && report.left.is_empty() && !place.exists());
            continue;
        };
        assert_eq!(fs::read(place.join(stranger)).unwrap(), b"mine");
        let named = if stranger.starts_with("photos") { "photos/" } else { stranger };
        assert!(!report.place_is_gone && report.left == [named], "{report:?}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "{stranger}");
        fs::remove_dir_all(&place).unwrap();
    }
}

/// A lock of this machine, held by this process, or by one that never was.
fn lock_of(process: u32) -> Vec<u8> {
    let me = crate::platform::ProcessIdentity::current();
    let time = crate::repository::now_rfc3339();
    let marker = crate::format::LockMarker { hostname: me.host, pid: process, time, boot_id: me.boot_id };
    serde_json::to_vec(&marker).unwrap()
}

#[test]
fn what_a_deletion_leaves_that_is_cut_off_at_its_end_is_deleted_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("repo");
    let backend = LocalBackend::new(&place);
    let remains = || Remains::of(&backend).unwrap();
    let lock = format!("locks/{:020}-{}.json", 7, "ab".repeat(16));
    assert!(remains().is_none(), "there is not even a folder");
    let pack = pack_key(&crate::PackId([1; 32]));
    for what in ["", "notes", "locks/notes", CONFIG, &pack] {
        fs::create_dir(&place).unwrap();
        assert!(remains().is_none(), "an empty folder may be anybody's");
        backend.put(&lock, &lock_of(1 << 30), PutMode::Replace).unwrap();
        fs::create_dir_all(place.join("sessions")).unwrap();
        fs::write(place.join(format!("locks/.tmp-{}", "0f".repeat(16))), b"half").unwrap();
        if !what.is_empty() {
            backend.put(what, b"mine", PutMode::Replace).unwrap();
            assert!(remains().is_none(), "{what} is there");
            backend.delete(what).unwrap();
        }
        let report = remains().unwrap().delete(&backend).unwrap();
        assert!(report.place_is_gone && report.objects == 2 && !place.exists(), "{what}: {report:?}");
    }
    fs::create_dir(&place).unwrap();
    backend.put(&lock, &lock_of(std::process::id()), PutMode::Replace).unwrap();
    assert!(matches!(Remains::of(&backend), Err(VykarError::Locked { .. })));
    assert!(place.join(&lock).exists());
}

#[test]
fn a_deletion_that_is_interrupted_gives_the_lock_back_and_can_be_done_again() {
    let test = filled(Encryption::Aes256Gcm);
    let contents = RepositoryContents::of(&test.repository).unwrap();
    let lock = lock();
    let cancel = lock.cancel.clone();
    let mut listen = |event| {
        if let Event::Progress { .. } = event {
            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let error = delete_repository(&test.repository, &contents, &lock, Some(&mut listen)).unwrap_err();
    assert!(
        matches!(&error, VykarError::Unfinished { source, .. } if matches!(**source, VykarError::Interrupted)),
        "{error}"
    );
    let left = keys(&test.backend);
    assert!(
        left.iter().any(|key| key == CONFIG) && !left.iter().any(|key| key.starts_with("locks/")),
        "{left:?}"
    );
    let backend = Arc::new(test.backend.clone());
    delete(&open(backend).unwrap()).unwrap();
    assert!(keys(&test.backend).is_empty());
}
