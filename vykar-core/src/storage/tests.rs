use super::contract::contract;
use super::disk::log::{DiskCall, DiskLog, Model, Survives};
use super::*;

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryBackend::new());
}

#[test]
fn throttled_keeps_the_contract() {
    contract(&throttle::tests::throttled(MemoryBackend::new()));
}

#[test]
fn local_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&LocalBackend::new(dir.path()));
}

#[test]
fn local_asks_when_only_the_name_is_missing_and_leaves_nothing_when_it_must_not_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let b = LocalBackend::new(dir.path());
    let unfinished = || b.leftovers(Duration::ZERO).unwrap();
    let mut stop = || {
        assert_eq!(unfinished()[0].size, 5, "all of it is there");
        false
    };
    assert!(!b.put_if("index", b"whole", PutMode::Replace, &mut stop).unwrap());
    assert!(unfinished().is_empty() && !b.exists("index").unwrap());
}

#[test]
fn an_upload_whose_unfinished_file_was_removed_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let b = LocalBackend::new(dir.path());
    let mut upload = b.upload().unwrap();
    let data = vec![5; (1 << 20) + 7];
    upload.write(&data).unwrap();
    for (left, _) in b.leftovers(Duration::ZERO).unwrap().into_iter().map(|info| (info.key, info.size)) {
        std::fs::remove_file(dir.path().join(left)).unwrap();
    }
    upload.finish("packs/ab/abcd").unwrap();
    assert_eq!(b.get("packs/ab/abcd", 2 << 20).unwrap(), data);
    assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
}

#[test]
fn the_folder_itself_is_made_only_for_a_new_repository() {
    let dir = tempfile::tempdir().unwrap();
    let b = LocalBackend::new(dir.path().join("above/repo"));
    let error = b.put("packs/ab/x", b"", PutMode::Exclusive).unwrap_err();
    assert!(error.to_string().contains("folder is gone"), "{error}");
    assert!(!dir.path().join("above").exists());
    b.prepare().unwrap();
    b.put("packs/ab/x", b"", PutMode::Exclusive).unwrap();
    std::fs::remove_dir_all(dir.path().join("above/repo")).unwrap();
    assert!(b.put("packs/ab/x", b"", PutMode::Replace).is_err());
    assert!(!dir.path().join("above/repo").exists());
}

#[test]
fn unfinished_writes_are_found_and_removed_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let b = LocalBackend::new(dir.path());
    assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
    b.put("packs/ab/abcd", b"x", PutMode::Replace).unwrap();
    let name = |folder: &str| format!("{folder}.tmp-{}", "0f".repeat(16));
    let left = ["", "packs/", "packs/ab/"].map(name);
    for name in &left {
        std::fs::write(dir.path().join(name), b"half").unwrap();
    }
    for other in [".tmp-mine", "packs/.temporary"] {
        std::fs::write(dir.path().join(other), b"").unwrap();
    }
    let found: Vec<_> =
        b.leftovers(Duration::ZERO).unwrap().into_iter().map(|info| (info.key, info.size)).collect();
    let mut expected = left.clone().map(|name| (name, 4));
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(b.leftovers(Duration::from_secs(3600)).unwrap(), []);
    let hours_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    std::fs::File::options()
        .write(true)
        .open(dir.path().join(&left[1]))
        .unwrap()
        .set_modified(hours_ago)
        .unwrap();
    assert_eq!(b.leftovers(Duration::from_secs(3600)).unwrap()[0].key, left[1]);
    for bad in ["packs/ab/abcd", "../.tmp-0f", ".tmp-mine", &format!("../{}", left[0])] {
        assert!(matches!(b.remove_leftover(bad), Err(StorageError::InvalidKey { .. })), "{bad}");
    }
    for name in &left {
        b.remove_leftover(name).unwrap();
        b.remove_leftover(name).unwrap();
    }
    assert_eq!(b.leftovers(Duration::ZERO).unwrap(), []);
    assert!(b.exists("packs/ab/abcd").unwrap() && dir.path().join(".tmp-mine").exists());
}

#[test]
fn a_deletion_is_durable_also_where_another_program_was_killed_in_the_middle_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (root, left) = (dir.path().join("repo"), dir.path().join("left"));
    let log = std::sync::Arc::new(DiskLog::default());
    let b = LocalBackend::logging(&root, log.clone());
    b.prepare().unwrap();
    b.put("snapshots/a", b"x", PutMode::Replace).unwrap();
    let mut disk = Model::of(&root).unwrap();
    let before = log.entries().len();
    std::fs::remove_file(root.join("snapshots/a")).unwrap();
    disk.apply(&DiskCall::Remove(root.join("snapshots/a")));
    b.delete("snapshots/a").unwrap();
    b.delete("packs/ab/not-even-the-folder").unwrap();
    log.entries()[before..].iter().for_each(|entry| disk.apply(entry));
    disk.cut(&root, &left, Survives::Nothing).unwrap();
    assert!(left.join("snapshots").exists() && !left.join("snapshots/a").exists());
}

#[test]
fn objects_are_their_owners_alone_unless_the_repository_is_shared() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("above/repo");
    let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
    let store = |key: &str| {
        let backend = LocalBackend::new(&root);
        backend.prepare().unwrap();
        backend.put(key, b"x", PutMode::Replace).unwrap();
    };
    store("config");
    store("packs/00/a");
    assert_eq!(
        ["", "config", "packs", "packs/00", "packs/00/a"].map(mode),
        [0o700, 0o600, 0o700, 0o700, 0o600]
    );
    for (config, folder, file) in [(0o640, 0o750, 0o640), (0o660, 0o770, 0o660), (0o604, 0o700, 0o600)] {
        std::fs::set_permissions(root.join("config"), PermissionsExt::from_mode(config)).unwrap();
        let key = |name: &str| format!("packs/{file:o}{name}");
        store(&key("/a"));
        assert_eq!((mode(&key("")), mode(&key("/a"))), (folder, file), "{config:o}");
    }
}

#[test]
fn local_listing_ignores_unfinished_writes_and_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    let b = LocalBackend::new(dir.path());
    b.put("snapshots/a", b"x", PutMode::Replace).unwrap();
    std::fs::write(dir.path().join("snapshots/.tmp-123"), b"half").unwrap();
    std::fs::write(dir.path().join("snapshots/bad name"), b"").unwrap();
    assert_eq!(b.list("snapshots/").unwrap().len(), 1);
}
