//! Snapshots that ask for more than there is, or for what nobody should be given.

use std::sync::atomic::{AtomicBool, Ordering};

use super::hostile::{guarded, untouched};
use super::*;
use crate::format::{ChunkRef, Item, ItemType};
use crate::id::ChunkId;
use crate::testing::{TestRepository, directory, symlink};
use std::os::unix::fs::{MetadataExt, symlink as link_to};

/// Everything about what lies outside of the destination; a change of any attribute changes the last one.
fn surroundings(around: &Path) -> Vec<(Vec<u8>, u32, u64, i64, i64)> {
    let found = walk(&around.join("outside")).into_iter();
    let of = |m: &fs::Metadata| (m.mode(), m.nlink(), m.ctime(), m.ctime_nsec());
    found
        .map(|(path, m)| {
            let (mode, links, seconds, nanos) = of(&m);
            (path, mode, links, seconds, nanos)
        })
        .collect()
}

fn run_watched(t: &TestRepository, snapshot: &Snapshot) -> Restored {
    let around = guarded();
    let before = surroundings(around.path());
    let restored = run_in(around, &t.repository, snapshot, &RestoreOptions::default());
    untouched(&restored);
    assert_eq!(surroundings(restored.around.path()), before);
    restored
}

#[test]
fn claimed_sizes_cost_their_files_and_no_memory() {
    let mut t = TestRepository::new();
    let real = t.chunk(b"five!");
    let claim = |path: &str, size: u64, chunks: Vec<ChunkRef>| Item {
        size,
        chunks,
        ..Item::new(path.to_owned(), ItemType::RegularFile)
    };
    let four_gib = ChunkRef { size: u32::MAX, ..real };
    let items = [
        claim("no-chunks", 1 << 63, vec![]),
        claim("no-chunks-either", u64::MAX, vec![]),
        claim("one", u32::MAX.into(), vec![four_gib]),
        claim("many", u64::from(u32::MAX) * 1000, vec![four_gib; 1000]),
        t.file("good", b"good"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_watched(&t, &snapshot);
    assert_eq!(walk(&restored.dest()).len(), 1);
    assert_eq!((restored.read("good"), restored.failed.len()), (b"good".to_vec(), 4));
}

#[test]
fn a_hundred_thousand_entries_of_one_name_are_one() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 1 << 20;
    let mut items = vec![t.file("same", b"first")];
    items.resize(100_000, directory("same"));
    items.push(t.file("good", b"good"));
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_watched(&t, &snapshot);
    assert_eq!(walk(&restored.dest()).len(), 2);
    assert_eq!((restored.read("same"), restored.failed.len()), (b"first".to_vec(), 99_999));
}

#[test]
fn a_hundred_thousand_links_to_nothing_make_nothing() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 1 << 20;
    let gone = ChunkRef { id: ChunkId([7; 32]), size: 5, stored_size: 7 };
    let link = |n: u64| Item {
        size: 5,
        chunks: vec![gone],
        hardlink: Some((1, 2 + n % 2)),
        ..Item::new(format!("l{n}"), ItemType::RegularFile)
    };
    let mut items: Vec<_> = (0..100_000).map(link).collect();
    items.push(t.file("good", b"good"));
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_watched(&t, &snapshot);
    assert_eq!(walk(&restored.dest()).len(), 1);
    assert_eq!((restored.read("good"), restored.failed.len()), (b"good".to_vec(), 100_000));
}

#[test]
fn paths_that_are_their_own_ancestors_stay_in_their_place() {
    let mut t = TestRepository::new();
    let items = [
        t.file("a", b"file"),
        t.file("a/a", b"below itself"),
        directory("a/a/a"),
        directory("b/b/b"),
        t.file("b/b", b"was a directory"),
        symlink("b", "b/b"),
        symlink("s", "s"),
        t.file("s/s", b"through a loop"),
        symlink("t", "t/../../outside"),
        t.file("t/precious", b"evil"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_watched(&t, &snapshot);
    let names: Vec<_> = walk(&restored.dest()).into_keys().map(|n| String::from_utf8(n).unwrap()).collect();
    assert_eq!(names, ["a", "b", "b/b", "b/b/b", "s", "t"]);
    assert_eq!((restored.read("a"), restored.failed.len()), (b"file".to_vec(), 6));
}

#[test]
fn too_many_attributes_cost_their_item_and_too_large_ones_only_themselves() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 1 << 20;
    let with = |item: Item<'static>, xattrs| Item { xattrs: Some(xattrs), ..item };
    let (many, large, odd) = (t.file("many", b"m"), t.file("large", b"l"), t.file("odd", b"o"));
    let items = [
        with(many, (0..70_000).map(|n| (format!("user.{n}").into(), vec![].into())).collect()),
        with(large, vec![("user.large".into(), vec![1; 10 << 20].into())]),
        with(odd, vec![("".into(), vec![1].into()), ("user.nul\0".into(), vec![1].into())]),
        t.file("good", b"good"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_watched(&t, &snapshot);
    assert_eq!((restored.read("large"), restored.read("odd")), (b"l".to_vec(), b"o".to_vec()));
    assert!(!restored.exists("many") && restored.read("good") == b"good");
    assert_eq!(restored.failed.len(), 1, "{:?}", restored.failed);
}

#[test]
fn nothing_is_a_device_and_nobodys_rights_are_lent() {
    let mut t = TestRepository::new();
    let around = guarded();
    let precious = fs::metadata(around.path().join("outside/precious")).unwrap();
    let key = Some((precious.dev(), precious.ino()));
    let nobody = |item: Item<'static>, mode| Item { uid: u32::MAX, mode, ..item };
    let items = [
        // A regular file, whatever the other bits of its mode say.
        Item { mode: 0o060_644, ..t.file("block", b"b") },
        Item { mode: 0o010_644, ..t.file("fifo", b"f") },
        // An owner that cannot be: set-id bits would lend the rights of who restores.
        nobody(t.file("setuid", b"s"), 0o106_755),
        nobody(directory("setgid"), 0o042_755),
        // The identity of a file that is on this machine.
        Item { hardlink: key, mode: 0o104_755, ..t.file("linked", b"precious") },
        Item { hardlink: key, mode: 0o104_755, ..t.file("linked-too", b"precious") },
    ];
    let snapshot = t.snapshot("s", &items, None);
    let before = surroundings(around.path());
    let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    untouched(&restored);
    assert_eq!(surroundings(restored.around.path()), before);
    assert!(restored.metadata("block").is_file() && restored.metadata("fifo").is_file());
    assert_eq!(restored.metadata("setuid").mode() & 0o7777, 0o755);
    assert_eq!(restored.metadata("setgid").mode() & 0o7777, 0o755);
    assert_ne!(restored.metadata("linked").ino(), precious.ino());
    assert_eq!(restored.metadata("linked").ino(), restored.metadata("linked-too").ino());
}

#[test]
fn directories_that_become_symlinks_meanwhile_lead_nowhere() {
    let mut t = TestRepository::new();
    let mut items = Vec::new();
    for n in 0..400 {
        items.push(directory(&format!("d/sub/d{n}")));
        items.push(t.file(&format!("d/sub/f{n}"), b"evil"));
        items.push(symlink(&format!("d/sub/s{n}"), "evil"));
    }
    items.push(t.file("d/precious", b"evil"));
    t.stream_chunk_size = 1 << 20;
    let snapshot = t.snapshot("s", &items, None);
    for _ in 0..5 {
        let around = guarded();
        let dest = around.path().join("dest");
        fs::create_dir(dest.join("d")).unwrap();
        let before = surroundings(around.path());
        let stop = AtomicBool::new(false);
        let restored = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(dest.join("d"), dest.join("away")).unwrap();
                    // The restore may have made a directory of its own there.
                    if link_to("../outside", dest.join("d")).is_ok() {
                        fs::remove_file(dest.join("d")).unwrap();
                        let _ = fs::rename(dest.join("away"), dest.join("d"));
                    }
                    if !dest.join("d").exists() || dest.join("away").exists() {
                        return;
                    }
                }
            });
            let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
            stop.store(true, Ordering::Relaxed);
            restored
        });
        untouched(&restored);
        assert_eq!(surroundings(restored.around.path()), before);
    }
}
