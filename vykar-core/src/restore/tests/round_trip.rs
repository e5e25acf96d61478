use std::borrow::Cow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::format::{Encryption, Item, ItemType};
use crate::testing::{TestRepository, directory, me, noise, symlink};

fn nanos(metadata: &fs::Metadata) -> (i64, i64) {
    let join = |s: i64, n: i64| s * 1_000_000_000 + n;
    (join(metadata.mtime(), metadata.mtime_nsec()), join(metadata.atime(), metadata.atime_nsec()))
}

#[test]
fn content_of_any_size_comes_back() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        let mut t = TestRepository::with(encryption);
        t.chunk_size = 1000;
        let sizes = [0, 1, 999, 1000, 1001, 4096, 50_000, 3_000_000];
        let contents: Vec<_> = sizes.iter().map(|n| noise(*n as u64, *n)).collect();
        let items: Vec<_> =
            contents.iter().enumerate().map(|(n, content)| t.file(&format!("d/f{n}"), content)).collect();
        let snapshot = t.snapshot("s", &items, None);
        for threads in [1, 3] {
            let options = RestoreOptions { threads, ..Default::default() };
            let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
            for (n, content) in contents.iter().enumerate() {
                assert!(restored.read(&format!("d/f{n}")) == *content, "size {}", content.len());
            }
            let bytes = sizes.iter().map(|n| *n as u64).sum();
            let summary = RestoreSummary { files: 8, directories: 1, bytes, ..Default::default() };
            assert_eq!(restored.summary, summary);
        }
    }
}

#[test]
fn a_file_in_many_tasks_is_put_together_and_its_holes_are_kept() {
    let mut t = TestRepository::new();
    t.chunk_size = 512 << 10;
    let mut content = noise(1, 40 << 20);
    content[9 << 20..21 << 20].fill(0);
    content[37 << 20..].fill(0);
    let item = t.file("big", &content);
    let snapshot = t.snapshot("s", &[item], None);
    for threads in [1, 4] {
        let options = RestoreOptions { threads, ..Default::default() };
        let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
        assert!(restored.read("big") == content);
        let stored = restored.metadata("big").blocks() * 512;
        assert!((24 << 20..=26 << 20).contains(&stored), "{stored}");
    }
}

#[test]
fn metadata_of_every_kind_comes_back() {
    let mut t = TestRepository::new();
    let attribute = |value: &'static [u8]| Some(vec![("user.k".into(), Cow::Borrowed(value))]);
    let dir = Item { mode: 0o040_555, mtime: -1_500_000_001, atime: Some(7), ..directory("ro") };
    let deep =
        Item { mtime: 4_102_444_800_123_456_789, xattrs: attribute(b"\0\xff"), ..directory("ro/deep") };
    let locked = Item { mode: 0o000, ..directory("ro/deep/locked") };
    let file = t.file("ro/deep/locked/f", b"hello");
    let file = Item { mode: 0o106_751, mtime: 123_456_789, atime: Some(-5), xattrs: attribute(b"v"), ..file };
    let link = Item { mtime: -7, atime: Some(9), ..symlink("ro/l", "no/where") };
    // Children before their parents, as no writer does.
    let snapshot = t.snapshot("s", &[file, link, locked, dir, deep], None);
    let restored = run(&t.repository, &snapshot);
    assert_eq!((restored.summary.errors, restored.summary.incomplete), (0, 0), "{:?}", restored.events);

    let at = |path: &str| restored.metadata(path);
    assert_eq!((at("ro").mode() & 0o7777, nanos(&at("ro"))), (0o555, (-1_500_000_001, 7)));
    assert_eq!(at("ro/deep").mtime(), 4_102_444_800);
    assert_eq!(xattr(&restored.dest().join("ro/deep"), "user.k"), Some(b"\0\xff".to_vec()));
    assert_eq!(nanos(&at("ro/l")), (-7, 9));
    assert_eq!(fs::read_link(restored.dest().join("ro/l")).unwrap(), Path::new("no/where"));
    assert_eq!(at("ro/deep/locked").mode() & 0o7777, 0);
    fs::set_permissions(restored.dest().join("ro/deep/locked"), fs::Permissions::from_mode(0o700)).unwrap();
    let file = at("ro/deep/locked/f");
    assert_eq!((file.mode() & 0o7777, nanos(&file)), (0o6751, (123_456_789, -5)));
    assert_eq!(xattr(&restored.dest().join("ro/deep/locked/f"), "user.k"), Some(b"v".to_vec()));
    fs::set_permissions(restored.dest().join("ro"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn owners_are_set_and_set_id_bits_survive_that() {
    needs!(root);
    let mut t = TestRepository::new();
    let owned = |item: Item<'static>| Item { uid: 1234, gid: 5678, ..item };
    let items = [
        owned(Item { mode: 0o106_755, ..t.file("f", b"x") }),
        owned(Item { mode: 0o043_777, ..directory("d") }),
        owned(symlink("l", "t")),
        Item { user: Some("root".into()), uid: 77, gid: u32::MAX, mode: 0o104_755, ..t.file("odd", b"y") },
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run(&t.repository, &snapshot);
    for (path, mode) in [("f", Some(0o6755)), ("d", Some(0o3777)), ("l", None)] {
        let m = restored.metadata(path);
        assert_eq!((m.uid(), m.gid()), (1234, 5678), "{path}");
        assert!(mode.is_none_or(|mode| m.mode() & 0o7777 == mode), "{path}: {:o}", m.mode());
    }
    // An owner that cannot be set takes the set-id bits with it.
    assert_eq!(restored.metadata("odd").mode() & 0o7777, 0o755);
    assert_eq!(restored.summary.incomplete, 1);
}

#[test]
fn without_the_right_to_give_files_away_one_line_says_so() {
    needs!(root);
    let mut t = TestRepository::new();
    let items =
        [Item { mode: 0o104_755, ..t.file("a", b"x") }, t.file("b", b"y"), directory("d"), symlink("l", "t")];
    let snapshot = t.snapshot("s", &items, None);
    let around = tempfile::tempdir().unwrap();
    fs::set_permissions(around.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Only this thread, and those it starts, become nobody.
    let (t, restored) = std::thread::spawn(move || {
        let nobody = 65534;
        let (uid, gid) = (rustix::fs::Uid::from_raw(nobody), rustix::fs::Gid::from_raw(nobody));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
        (t, restored)
    })
    .join()
    .unwrap();
    drop(t);
    assert_eq!((restored.summary.errors, restored.summary.incomplete), (0, 4));
    let notes: Vec<_> = restored.events.iter().filter(|e| matches!(e, Event::Note(_))).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(restored.metadata("a").mode() & 0o7777, 0o755, "no setuid for the wrong owner");
    assert_eq!(restored.metadata("a").uid(), 65534);
}

#[test]
fn hard_links_are_links_again() {
    let mut t = TestRepository::new();
    let linked = |item: Item<'static>| Item { hardlink: Some((1, 2)), ..item };
    let items = [
        linked(t.file("a/one", b"same")),
        linked(t.file("b/two", b"same")),
        linked(t.file("three", b"same")),
        linked(t.file("other", b"not the same content")),
        t.file("alone", b"same"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run(&t.repository, &snapshot);
    let ino = |path: &str| restored.metadata(path).ino();
    assert_eq!((ino("a/one"), ino("a/one")), (ino("b/two"), ino("three")));
    assert_eq!(restored.metadata("three").nlink(), 3);
    assert!(ino("alone") != ino("three") && ino("other") != ino("three"));
    assert_eq!(restored.read("other"), b"not the same content");
    assert_eq!((restored.summary.files, restored.summary.hardlinks), (3, 2));
}

#[test]
fn where_a_first_name_fails_the_others_are_one_file_still() {
    let mut t = TestRepository::new();
    let linked = |item: Item<'static>| Item { hardlink: Some((1, 2)), ..item };
    let items = ["a", "b", "c"].map(|path| linked(t.file(path, b"same")));
    let snapshot = t.snapshot("s", &items, None);
    let around = tempfile::tempdir().unwrap();
    fs::create_dir(around.path().join("dest")).unwrap();
    fs::write(around.path().join("dest/a"), b"mine").unwrap();
    let restored = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!(restored.failed, ["a: exists already; left as it is"]);
    assert_eq!((restored.read("a"), restored.read("b")), (b"mine".to_vec(), b"same".to_vec()));
    assert_eq!(restored.metadata("b").ino(), restored.metadata("c").ino());
    assert_eq!((restored.summary.files, restored.summary.hardlinks), (1, 1));
}

#[test]
fn names_are_bytes() {
    let mut t = TestRepository::new();
    let mut file = t.file("", b"x");
    file.set_names(Cow::Borrowed(b"d\xfe/\xff \n*"), None);
    let mut link = symlink("", "");
    link.set_names(Cow::Borrowed(b"l\xfe"), Some(Cow::Borrowed(b"\xff\xfe")));
    let snapshot = t.snapshot("s", &[file, link], None);
    let restored = run(&t.repository, &snapshot);
    let found: Vec<_> = walk(&restored.dest()).into_keys().collect();
    assert_eq!(found, [&b"d\xfe"[..], b"d\xfe/\xff \n*", b"l\xfe"]);
}

#[test]
fn only_the_paths_asked_for_come_back() {
    let mut t = TestRepository::new();
    let items = [
        Item { mode: 0o040_750, mtime: 5, ..directory("a") },
        Item { mode: 0o040_711, mtime: 6, ..directory("a/b") },
        t.file("a/b/f", b"1"),
        t.file("a/bb", b"2"),
        t.file("x/y/z", b"3"),
        t.file("x/w", b"4"),
        t.file("c", b"5"),
        directory("empty"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let options = only(&["/a/b/", "./x/y", "nothing/here"]);
    let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
    let found: Vec<_> = walk(&restored.dest()).into_keys().map(|p| String::from_utf8(p).unwrap()).collect();
    assert_eq!(found, ["a", "a/b", "a/b/f", "x", "x/y", "x/y/z"]);
    assert_eq!(restored.failed, ["nothing/here: not in the snapshot"]);
    // The parent has an item, the made-up one has not.
    let (a, x) = (restored.metadata("a"), restored.metadata("x"));
    assert_eq!((a.mode() & 0o7777, nanos(&a).0, x.mode() & 0o7777), (0o750, 5, 0o700));
}

#[test]
fn the_destination_takes_the_roots_metadata_only_when_it_is_new() {
    let mut t = TestRepository::new();
    let (uid, gid) = me();
    let root = Item { mode: 0o040_510, mtime: 77, uid, gid, ..Item::new("", ItemType::Directory) };
    let file = t.file("f", b"x");
    let snapshot = t.snapshot("s", &[file], Some(&root));
    let prepared = |make: fn(&Path)| {
        let around = tempfile::tempdir().unwrap();
        make(&around.path().join("dest"));
        around
    };
    let all = RestoreOptions::default();
    let restored = run_in(prepared(|_| {}), &t.repository, &snapshot, &all);
    let dest = restored.metadata("");
    assert_eq!((dest.mode() & 0o7777, nanos(&dest).0), (0o510, 77));
    let empty = prepared(|dest| fs::create_dir(dest).unwrap());
    let before = fs::metadata(empty.path().join("dest")).unwrap();
    let restored = run_in(empty, &t.repository, &snapshot, &all);
    let dest = restored.metadata("");
    assert_eq!((dest.mode(), nanos(&dest).0), (before.mode(), nanos(&before).0), "as before");
    let used = |dest: &Path| {
        fs::create_dir(dest).unwrap();
        fs::write(dest.join("mine"), b"").unwrap();
    };
    let restored = run_in(prepared(used), &t.repository, &snapshot, &all);
    assert_ne!(restored.metadata("").mode() & 0o7777, 0o510);
    let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &only(&["f"]));
    assert_ne!(restored.metadata("").mode() & 0o7777, 0o510);
}

#[test]
fn missing_parents_of_the_destination_are_made() {
    let mut t = TestRepository::new();
    let file = t.file("f", b"x");
    let snapshot = t.snapshot("s", &[file], None);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("x/y/z");
    restore(&t.repository, &snapshot, &dest, &RestoreOptions::default(), None).unwrap();
    assert_eq!(fs::read(dest.join("f")).unwrap(), b"x");
    let file = around.path().join("x/y/z/f");
    assert!(restore(&t.repository, &snapshot, &file, &RestoreOptions::default(), None).is_err());
}
