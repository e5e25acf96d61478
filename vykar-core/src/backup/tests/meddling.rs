//! What others do to the repository, or to the source, while a backup runs.

use super::*;
use crate::storage::testing::{Call, TestBackend};

/// Sees the key about to be written and the storage below.
type Meddle = Box<dyn Fn(&str, &MemoryBackend) -> Result<(), StorageError> + Send + Sync>;

type Meddling = TestBackend<MemoryBackend>;

/// Runs the hook before each write: somebody else's doing, or a failure.
fn before_writes(backend: &Meddling, hook: Meddle) {
    backend.before(move |op, inner| match op.call {
        Call::PutAsked => hook(op.key, inner),
        _ => Ok(()),
    });
}

/// Backs up once, then again with a changed file and the hook in place.
fn meddled(hook: Meddle) -> (Fixture, Result<BackupSummary>) {
    meddled_with(Encryption::None, Duration::from_millis(300), hook)
}

fn meddled_with(encryption: Encryption, wait: Duration, hook: Meddle) -> (Fixture, Result<BackupSummary>) {
    let backend = Arc::new(Meddling::new(MemoryBackend::new()));
    let f = Fixture::with(backend.clone(), &InitOptions::new(encryption));
    f.write("kept", b"kept");
    f.write("x", b"one");
    f.backup();
    f.write("x", b"two");
    before_writes(&backend, hook);
    let lock = LockOptions { wait, ..LockOptions::default() };
    let result = backup(&f.repository(), &BackupOptions { lock, ..f.options() }, None);
    backend.unhook();
    (f, result)
}

/// At the commit's lock, the first `times`, removes what this backup has put below these prefixes.
fn removing(prefixes: &'static [&'static str], times: usize) -> Meddle {
    let (before, count) = (Mutex::new(None), AtomicUsize::new(0));
    Box::new(move |key, storage| {
        let mut before = before.lock();
        let before = before.get_or_insert_with(|| storage.list("packs/").unwrap());
        if key.starts_with("locks/") && count.fetch_add(1, Ordering::Relaxed) < times {
            let mut objects: Vec<_> = prefixes.iter().flat_map(|p| storage.list(p).unwrap()).collect();
            objects.retain(|object| !before.contains(object));
            assert!(!objects.is_empty());
            objects.iter().for_each(|object| storage.delete(&object.key).unwrap());
        }
        Ok(())
    })
}

#[test]
fn a_backup_whose_packs_or_markers_go_again_and_again_is_refused() {
    for prefixes in [&["packs/"][..], &["sessions/"], &["packs/", "sessions/"]] {
        let (f, result) = meddled(removing(prefixes, usize::MAX));
        assert!(matches!(result, Err(VykarError::CommitRefused { .. })), "{prefixes:?}: {result:?}");
        assert_eq!(f.repository().manifest().unwrap().snapshots.len(), 1);
    }
}

#[test]
fn what_was_removed_while_the_backup_slept_is_stored_again() {
    for prefixes in [&["packs/"][..], &["sessions/"], &["packs/", "sessions/"]] {
        let (f, result) = meddled(removing(prefixes, 1));
        assert!(result.unwrap().is_complete(), "{prefixes:?}");
        assert_eq!(f.items()[&b"x"[..]].1, b"two");
        f.assert_counts();
    }
}

#[test]
fn a_reused_chunk_that_is_gone_is_stored_again() {
    let once = AtomicUsize::new(0);
    let (f, result) = meddled(Box::new(move |key, storage| {
        if key.starts_with("locks/") && once.fetch_add(1, Ordering::Relaxed) == 0 {
            // Somebody deleted the only snapshot and compacted: an empty index of a new generation.
            let mut plain = Vec::new();
            crate::format::IndexBlob::encode_to(&mut plain, 99, 0, std::iter::empty()).unwrap();
            let object = [&[4u8, 0][..], &plain].concat();
            for old in storage.list("snapshots/").unwrap() {
                storage.delete(&old.key).unwrap();
            }
            storage.put("index", &object, PutMode::Replace).unwrap();
        }
        Ok(())
    }));
    assert!(result.unwrap().is_complete());
    assert_eq!(f.items()[&b"kept"[..]].1, b"kept");
    f.assert_counts();
}

#[test]
fn an_earlier_lock_that_appears_under_ours_stops_the_commit() {
    let (f, result) = meddled(Box::new(|key, storage| {
        if key == "index.gen" {
            let name = crate::format::marker::lock_name(1, [0; 16]);
            let now = now_rfc3339();
            let text = format!(r#"{{"hostname":"elsewhere","pid":1,"time":"{now}","boot_id":null}}"#);
            storage.put(&format!("locks/{name}"), text.as_bytes(), PutMode::Replace).unwrap();
        }
        Ok(())
    }));
    assert!(matches!(result, Err(VykarError::Locked { .. })), "{result:?}");
    assert_eq!(f.repository().manifest().unwrap().snapshots.len(), 1);
}

/// The index that somebody writes between a commit's index and its snapshot.
#[derive(Clone, Copy, PartialEq)]
enum Other {
    /// None.
    Nothing,
    /// One made from that before the commit.
    FromOld,
    /// One made from the commit's.
    FromOurs,
}

/// Between a commit's index and its snapshot, an earlier lock appears and goes. Its owner writes an index.
fn lock_lost_for_a_moment(encryption: Encryption, other: Other) -> Fixture {
    let (seen, old) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let name = format!("locks/{}", crate::format::marker::lock_name(1, [0; 16]));
    let hook = move |key: &str, storage: &MemoryBackend| {
        if key == "index" && old.lock().is_empty() {
            *old.lock() = storage.get("index", u64::MAX).unwrap();
        }
        if key != "index.gen" || seen.fetch_add(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        if other == Other::FromOld {
            storage.put("index", &old.lock(), PutMode::Replace).unwrap();
        }
        if other != Other::Nothing {
            let backend = Arc::new(storage.clone());
            let repository = Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap();
            let entries: Vec<_> = repository.read_index().unwrap().chunks.iter().collect();
            let count = entries.len() as u32;
            repository.write_index(98, count, entries.into_iter(), Compression::None).unwrap();
        }
        let now = now_rfc3339();
        let text = format!(r#"{{"hostname":"elsewhere","pid":1,"time":"{now}","boot_id":null}}"#);
        storage.put(&name, text.as_bytes(), PutMode::Replace).unwrap();
        let (storage, name) = (storage.clone(), name.clone());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            storage.delete(&name).unwrap();
        });
        Ok(())
    };
    let (f, result) = meddled_with(encryption, Duration::from_secs(60), Box::new(hook));
    assert!(result.unwrap().is_complete());
    f
}

#[test]
fn a_lock_lost_for_a_moment_costs_a_second_look_and_no_wrong_counts() {
    lock_lost_for_a_moment(Encryption::None, Other::Nothing).assert_counts();
}

#[test]
fn an_index_that_replaced_ours_gets_our_references_again() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        lock_lost_for_a_moment(encryption, Other::FromOld).assert_counts();
    }
}

#[test]
fn an_index_that_was_made_from_ours_has_our_references_where_packs_have_names_of_their_own() {
    lock_lost_for_a_moment(Encryption::Aes256Gcm, Other::FromOurs).assert_counts();
    // Here it may as well be of somebody who stored the same: rather too high than too low.
    let (index, counted) = lock_lost_for_a_moment(Encryption::None, Other::FromOurs).counts();
    assert!(counted.iter().all(|(id, counted)| index[id] >= *counted));
    assert_ne!(index, counted);
}

#[test]
fn an_index_that_was_written_over_anothers_is_noticed_before_anything_is_published_on_it() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("theirs"), b"theirs").unwrap();
        let (path, once) = (other.path().to_owned(), AtomicUsize::new(0));
        // Behind the last look at the lock this machine sleeps, for so long that the lock is taken for stale.
        let hook = move |key: &str, storage: &MemoryBackend| {
            if key == "index" && once.fetch_add(1, Ordering::Relaxed) == 0 {
                for lock in storage.list("locks/").unwrap() {
                    storage.delete(&lock.key).unwrap();
                }
                let backend = Arc::new(storage.clone());
                let repository = Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap();
                backup(&repository, &BackupOptions::new(vec![path.clone()]), None).unwrap();
            }
            Ok(())
        };
        let (f, result) = meddled_with(encryption, Duration::from_secs(20), Box::new(hook));
        let error = result.unwrap_err();
        assert!(matches!(error, VykarError::Unsound { .. }), "{error}");
        let repository = f.repository();
        assert_eq!(repository.manifest().unwrap().snapshots.len(), 2, "the first one and theirs");
        // What they stored is there, and a repair counts it again.
        let options = crate::maintenance::RepairOptions::default();
        let plan = crate::maintenance::plan_repair(&repository, &options, None).unwrap();
        assert!(!plan.loses_data());
        crate::maintenance::apply_repair(&repository, &plan, &options).unwrap();
        let (index, counted) = f.counts();
        assert_eq!(index, counted);
        assert_eq!(f.items()[&b"theirs"[..]].1, b"theirs");
    }
}

const MANY: u64 = 500;

/// Several hundred files, then what `make` adds; when the first pack is written, long before those are
/// read, `change` is done to the source.
fn changed_before_it_is_read(
    make: impl Fn(&Path),
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> (Fixture, BackupSummary) {
    let backend = Arc::new(Meddling::new(MemoryBackend::new()));
    // Each chunk closes a pack.
    let f = Fixture::with_packs(backend.clone(), (1, 1));
    // More than are read at once.
    for n in 0..MANY {
        f.write(&format!("f{n:03}"), format!("{n}").as_bytes());
    }
    make(&f.source());
    let (source, first) = (f.source(), AtomicUsize::new(0));
    let hook = Box::new(move |key: &str, _: &MemoryBackend| {
        if key.starts_with("packs/") && first.fetch_add(1, Ordering::Relaxed) == 0 {
            change(&source);
        }
        Ok(())
    });
    before_writes(&backend, hook);
    let options = BackupOptions { threads: 1, ..f.options() };
    let summary = backup(&f.repository(), &options, None).unwrap();
    backend.unhook();
    f.assert_counts();
    (f, summary)
}

#[test]
fn another_name_of_a_replaced_file_keeps_its_own_content() {
    let make = |dir: &Path| {
        fs::write(dir.join("g1"), b"old content").unwrap();
        fs::hard_link(dir.join("g1"), dir.join("g2")).unwrap();
    };
    let (f, _) = changed_before_it_is_read(make, |dir| {
        fs::write(dir.join(".new"), b"new content, and longer").unwrap();
        fs::rename(dir.join(".new"), dir.join("g1")).unwrap();
    });
    let items = f.items();
    assert_eq!(items[&b"g1"[..]].1, b"new content, and longer");
    assert_eq!(items[&b"g2"[..]].1, b"old content");
}

#[test]
fn another_name_of_a_vanished_file_is_stored_all_the_same() {
    let make = |dir: &Path| {
        fs::write(dir.join("g1"), b"content").unwrap();
        fs::hard_link(dir.join("g1"), dir.join("g2")).unwrap();
    };
    let (f, summary) = changed_before_it_is_read(make, |dir| fs::remove_file(dir.join("g1")).unwrap());
    assert_eq!(summary.meta.stats.errors, 1);
    assert_eq!(f.items()[&b"g2"[..]].1, b"content");
}

#[test]
fn a_file_that_vanishes_is_reported_and_counted_and_the_rest_is_stored() {
    let make = |dir: &Path| fs::write(dir.join("g1"), b"content").unwrap();
    let (f, summary) = changed_before_it_is_read(make, |dir| fs::remove_file(dir.join("g1")).unwrap());
    assert!(!summary.is_complete());
    assert_eq!((summary.meta.stats.errors, summary.meta.stats.nfiles), (1, MANY));
    assert!(!f.items().contains_key(&b"g1"[..]));
}

#[test]
fn attributes_that_cannot_be_read_are_reported_each_time() {
    let f = Fixture::new();
    f.write("x", b"data");
    let flags = rustix::fs::XattrFlags::empty();
    for name in [&b"user.good"[..], b"user.\xff"] {
        rustix::fs::setxattr(f.source().join("x"), name, b"value", flags).unwrap();
    }
    std::thread::sleep(Duration::from_millis(2100));
    for run in 0..2 {
        let summary = f.backup();
        assert_eq!(summary.meta.stats.errors, 1, "run {run}");
        let xattrs = f.items()[&b"x"[..]].0.xattrs.clone().unwrap();
        assert_eq!(xattrs, [("user.good".into(), b"value".to_vec().into())], "run {run}");
    }
}

#[test]
fn any_failing_write_fails_the_backup_and_leaves_the_repository_usable() {
    // The number of writes of one such backup is small; each of them fails once.
    for nth in 0..12 {
        let count = AtomicUsize::new(0);
        let (f, result) = meddled(Box::new(move |key, _| {
            if count.fetch_add(1, Ordering::Relaxed) == nth && key != "index.gen" {
                let source = std::io::Error::other("made up");
                return Err(StorageError::Io { operation: "write", key: key.into(), source });
            }
            Ok(())
        }));
        let snapshots = f.repository().manifest().unwrap().snapshots.len();
        assert_eq!(snapshots, 1 + usize::from(result.is_ok()), "write {nth}: {result:?}");
        let again = f.backup();
        assert!(again.is_complete());
        assert_eq!(f.items()[&b"x"[..]].1, b"two");
        assert_eq!(f.items()[&b"kept"[..]].1, b"kept");
    }
}
