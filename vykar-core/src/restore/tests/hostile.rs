use std::os::unix::fs::{MetadataExt, symlink as link_to};

use super::*;
use crate::format::{Item, ItemType};
use crate::testing::{TestRepository, directory, symlink};

/// A directory around the destination with things in it that must stay as they are.
pub(super) fn guarded() -> tempfile::TempDir {
    let around = tempfile::tempdir().unwrap();
    fs::create_dir_all(around.path().join("outside/sub")).unwrap();
    fs::write(around.path().join("outside/precious"), b"precious").unwrap();
    fs::create_dir(around.path().join("dest")).unwrap();
    around
}

pub(super) fn untouched(restored: &Restored) {
    let found = walk(&restored.around.path().join("outside"));
    assert_eq!(found.keys().collect::<Vec<_>>(), [&b"precious"[..], b"sub"]);
    let precious = restored.around.path().join("outside/precious");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(fs::metadata(precious).unwrap().nlink(), 1);
    let beside: Vec<_> =
        fs::read_dir(restored.around.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

fn run_guarded(t: &TestRepository, snapshot: &Snapshot) -> Restored {
    let restored = run_in(guarded(), &t.repository, snapshot, &RestoreOptions::default());
    untouched(&restored);
    restored
}

#[test]
fn names_that_lead_out_are_refused() {
    let mut t = TestRepository::new();
    let outside = std::env::temp_dir().join("vykar-absolute-path-test");
    let absolute = outside.to_str().unwrap().to_owned();
    let paths =
        ["../outside/a", "x/../../outside/b", "..", "/", ".", "./c", "d/", "e//f", "nul\0", "", &absolute];
    let mut items: Vec<_> = paths.iter().map(|path| t.file(path, b"evil")).collect();
    items.extend(paths.iter().map(|path| directory(path)));
    items.extend(paths.iter().map(|path| symlink(path, "../outside")));
    items.push(t.file("good", b"good"));
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_guarded(&t, &snapshot);
    assert_eq!(walk(&restored.dest()).len(), 1);
    assert_eq!(restored.read("good"), b"good");
    assert_eq!(restored.summary.errors, 3 * paths.len() as u64);
    assert!(!outside.exists());
}

#[test]
fn nothing_is_written_through_the_snapshots_own_symlinks() {
    let mut t = TestRepository::new();
    let items = [
        symlink("l", "../outside"),
        t.file("l/a", b"evil"),
        directory("l/dir"),
        t.file("l/sub/b", b"evil"),
        // The other order: the directory is there when the link comes.
        t.file("m/a", b"inside"),
        symlink("m", "../outside"),
        // And as a directory with its own item.
        directory("n"),
        symlink("n", "../outside"),
        t.file("n/a", b"inside"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_guarded(&t, &snapshot);
    assert_eq!((restored.read("m/a"), restored.read("n/a")), (b"inside".to_vec(), b"inside".to_vec()));
    assert!(restored.metadata("l").is_symlink());
    assert_eq!(restored.failed.len(), 5, "{:?}", restored.failed);
}

#[test]
fn nothing_is_written_through_symlinks_that_were_there_before() {
    let mut t = TestRepository::new();
    let items = [
        directory("l"),
        t.file("l/a", b"evil"),
        directory("l/sub/deeper"),
        symlink("l/s", "x"),
        Item { hardlink: Some((1, 1)), ..t.file("h1", b"linked") },
        Item { hardlink: Some((1, 1)), ..t.file("l/h2", b"linked") },
        t.file("precious", b"evil"),
        symlink("link", "evil"),
        t.file("good", b"good"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let around = guarded();
    let dest = around.path().join("dest");
    link_to("../outside", dest.join("l")).unwrap();
    link_to("../outside/precious", dest.join("precious")).unwrap();
    link_to("../outside/nothing", dest.join("link")).unwrap();
    let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    untouched(&restored);
    assert_eq!(restored.read("good"), b"good");
    assert_eq!(restored.failed.len(), 8, "{:?}", restored.failed);
}

#[test]
fn what_exists_is_left_alone() {
    let mut t = TestRepository::new();
    let items = [
        Item { mode: 0o040_777, mtime: 3, ..directory("d") },
        t.file("d/f", b"theirs"),
        symlink("d/l", "theirs"),
        t.file("d/new", b"new"),
        directory("file"),
        t.file("file/below", b"x"),
        t.file("dir", b"theirs"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let around = guarded();
    let dest = around.path().join("dest");
    fs::create_dir_all(dest.join("d")).unwrap();
    fs::create_dir_all(dest.join("dir")).unwrap();
    for path in ["d/f", "d/l", "file"] {
        fs::write(dest.join(path), b"mine").unwrap();
    }
    let before = fs::metadata(dest.join("d")).unwrap().mode();
    let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    untouched(&restored);
    for path in ["d/f", "d/l", "file"] {
        assert_eq!(restored.read(path), b"mine", "{path}");
    }
    assert_eq!(restored.read("d/new"), b"new");
    assert_eq!(restored.metadata("d").mode(), before);
    let expected = [
        "d/f: exists already; left as it is",
        "d/l: exists already; left as it is",
        "dir: is a directory there, which is not replaced by something else",
        "file/below: its directory could not be restored",
        "file: is there already and is not a directory",
    ];
    assert_eq!(restored.failed, expected);
}

#[test]
fn a_path_counts_once_and_nothing_lies_below_a_file() {
    let mut t = TestRepository::new();
    let items = [
        t.file("f", b"first"),
        t.file("f", b"second"),
        directory("f"),
        t.file("f/below", b"x"),
        directory("d"),
        directory("d"),
        symlink("s", "one"),
        symlink("s", "two"),
        // Until an item tells of it, a directory is there for what is in it.
        t.file("m/x", b"in m"),
        t.file("m", b"no directory"),
        directory("m"),
        directory("m"),
        Item { size: 5, ..Item::new("lying", ItemType::RegularFile) },
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_guarded(&t, &snapshot);
    assert_eq!(restored.read("f"), b"first");
    assert_eq!(fs::read_link(restored.dest().join("s")).unwrap(), Path::new("one"));
    assert_eq!(restored.read("m/x"), b"in m");
    assert_eq!(restored.failed.len(), 8, "{:?}", restored.failed);
    let again = restored.failed.iter().filter(|text| text.ends_with("the first one counts"));
    assert_eq!(again.count(), 5, "{:?}", restored.failed);
}

#[test]
fn names_no_file_system_takes_cost_only_themselves() {
    let mut t = TestRepository::new();
    let items = [
        t.file(&"n".repeat(256), b"x"),
        t.file(&"n".repeat(70_000), b"x"),
        directory(&"d".repeat(5000)),
        t.file("good", b"good"),
    ];
    t.stream_chunk_size = 10_000;
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_guarded(&t, &snapshot);
    assert_eq!((restored.read("good"), restored.failed.len()), (b"good".to_vec(), 3));
}

#[test]
fn ten_thousand_levels() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 1 << 20;
    let mut items = Vec::new();
    let mut path = String::new();
    // Every level has an item near the top; below that only every hundredth, as the rest is implied.
    for level in 0..10_000 {
        path.push_str(if level == 0 { "d" } else { "/d" });
        if level < 1000 || level % 100 == 99 {
            items.push(Item { mode: 0o040_500, mtime: level, ..directory(&path) });
        }
    }
    items.push(t.file(&format!("{path}/f"), b"deep"));
    items.push(Item { hardlink: Some((1, 1)), ..t.file("top", b"linked") });
    items.push(Item { hardlink: Some((1, 1)), ..t.file(&format!("{path}/g"), b"linked") });
    items.push(symlink(&format!("{path}/s"), "x"));
    let snapshot = t.snapshot("s", &items, None);
    let restored = run_guarded(&t, &snapshot);
    let _remover = Remover(restored.dest());
    assert_eq!(restored.failed, [""; 0]);
    let summary = RestoreSummary {
        files: 2,
        directories: 10_000,
        symlinks: 1,
        hardlinks: 1,
        bytes: 10,
        ..Default::default()
    };
    assert_eq!(restored.summary, summary);
    assert_eq!(restored.metadata("d/d/d").mtime_nsec(), 2);
    assert_eq!(restored.metadata("top").nlink(), 2);
}

/// Removing so deep a tree needs a program that is made for it.
struct Remover(PathBuf);

impl Drop for Remover {
    fn drop(&mut self) {
        let _ = std::process::Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}
