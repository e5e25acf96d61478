//! What can be chosen: one snapshot, filters, templates, owners, zeros.

use std::sync::atomic::Ordering::Relaxed;

use vykar_core::SnapshotId;
use vykar_core::format::{Item, ItemType};
use vykar_core::repository::{CONFIG, INDEX_GENERATION, snapshot_key};
use vykar_core::storage::{Backend, PutMode};

use super::*;
use crate::testing::{Mounted, Repo, eventually, meta};
use crate::view::attr_mapping::{Look, SnapshotQuery, Top};

const SIZES: (u64, u64) = (1 << 20, 1 << 20);

fn dir(path: &str) -> Item<'_> {
    Item { mode: 0o700, uid: 1, gid: 2, mtime: 3, ..Item::new(path, ItemType::Directory) }
}

/// Three snapshots: 0x11 and 0x22 alike, 0x33 of another host and label.
fn repo() -> Repo {
    let mut repo = Repo::new();
    let a = Item { hardlink: Some((1, 2)), ..repo.file("d/e/a", &[b"hello ", b"world"]) };
    let b = Item { hardlink: Some((1, 2)), ..repo.file("b", &[b"hello ", b"world"]) };
    let items = [dir("d"), dir("d/e"), dir("d/empty"), a, b, repo.file("d/f", &[b"f"])];
    repo.snapshot(0x11, meta("one", "web", "docs", "2026-01-02T03:04:05Z"), &items);
    repo.snapshot(0x22, meta("two", "web", "docs", "2026-01-02T04:00:00Z"), &items);
    repo.snapshot(0x33, meta("three", "db", "sql", "2026-02-03T03:04:05Z"), &items[..1]);
    repo
}

fn at(path: &str) -> Shown {
    let top = Top { snapshot: SnapshotId([0x11; 32]), path: path.as_bytes().to_vec() };
    Shown { top: Some(top), ..Shown::default() }
}

fn attr(m: &Mounted, path: &str) -> Attr {
    m.fs.getattr(m.ino(path)).unwrap().0
}

fn parent(m: &Mounted, ino: u64) -> u64 {
    match m.fs.lookup(ino, b"..").unwrap() {
        LookupEntry::Found(attr, _) => attr.ino,
        LookupEntry::Absent(_) => 0,
    }
}

/// The numbers of `.` and `..` in a listing.
fn dots(m: &Mounted, ino: u64) -> Vec<u64> {
    let mut found = Vec::new();
    m.fs.readdir(ino, 0, &mut |child, next| {
        found.push(child.attr.ino);
        next == 2
    })
    .unwrap();
    found.truncate(2);
    found
}

#[test]
fn a_snapshot_can_be_the_root() {
    let repo = repo();
    let (all, m) = (repo.mount(), repo.mount_shown(SIZES, at("")).unwrap());
    assert_eq!(m.list(""), ["b", "d"]);
    let root = attr(&m, "");
    assert_eq!((root.ino, root.meta), (ROOT, attr(&all, "ids/one").meta));
    assert_eq!(parent(&m, ROOT), ROOT);
    assert_eq!(parent(&m, m.ino("d")), ROOT);
    assert_eq!((dots(&m, ROOT), dots(&m, m.ino("d"))), (vec![ROOT, ROOT], vec![m.ino("d"), ROOT]));
    for path in ["d", "d/e", "d/e/a", "b"] {
        assert_eq!(attr(&m, path), attr(&all, &format!("ids/one/{path}")), "{path}");
    }
    assert_eq!(&*m.fs.read(m.ino("d/e/a"), 3, 5).unwrap(), b"lo wo");
    assert_eq!((m.ino("b"), attr(&m, "b").nlink), (m.ino("d/e/a"), 2));
    assert_eq!(m.fs.statfs().files, 2, "of this snapshot");
}

#[test]
fn a_folder_of_a_snapshot_can_be_the_root() {
    let repo = repo();
    let all = repo.mount();
    for path in ["d/e", "/d/e/", "./d//e"] {
        let m = repo.mount_shown(SIZES, at(path)).unwrap();
        assert_eq!(m.list(""), ["a"]);
        let (root, there) = (attr(&m, ""), attr(&all, "ids/one/d/e"));
        assert_eq!(root, Attr { ino: ROOT, ..there });
        assert_eq!((parent(&m, ROOT), dots(&m, ROOT)), (ROOT, vec![ROOT, ROOT]));
        assert_eq!(attr(&m, "a"), attr(&all, "ids/one/d/e/a"));
        assert_eq!(&*m.fs.read(m.ino("a"), 0, 50).unwrap(), b"hello world");
    }
}

#[test]
fn a_folder_that_is_not_there_is_said_with_what_is() {
    let repo = repo();
    for (path, expected) in [
        ("nope", r#"snapshot "one": no folder "nope": it has "b", "d""#),
        ("d/nope/x", r#"snapshot "one": no folder "d/nope/x": "d" has "e", "empty", "f""#),
        ("d/empty/x", r#"snapshot "one": no folder "d/empty/x": "d/empty" is empty"#),
        ("d/f", r#"snapshot "one": no folder "d/f": "d/f" is not a folder"#),
        ("d/../b", r#"snapshot "one": no folder "d/../b": "d" has "e", "empty", "f""#),
    ] {
        let said = repo.mount_shown(SIZES, at(path)).err().unwrap().to_string();
        assert_eq!(said, expected);
    }
    let gone = Top { snapshot: SnapshotId([0x99; 32]), path: Vec::new() };
    let shown = Shown { top: Some(gone), ..Shown::default() };
    assert!(repo.mount_shown(SIZES, shown).err().unwrap().to_string().contains("not found"));
}

#[test]
fn a_root_whose_snapshot_is_deleted_is_stale_when_it_is_forgotten() {
    let repo = repo();
    let mut m = repo.mount_shown(SIZES, at("d")).unwrap();
    let file = m.ino("e/a");
    repo.backend.delete(&snapshot_key(&SnapshotId([0x11; 32]))).unwrap();
    assert_eq!(&*m.fs.read(file, 0, 50).unwrap(), b"hello world");
    m.fs.forget_trees();
    assert_eq!(m.fs.read(file, 0, 50), Err(FsError::Stale));
    assert_eq!(m.fs.readdir(ROOT, 0, &mut |_, _| false), Err(FsError::Stale));
    assert!(repo.mount_shown(SIZES, at("d")).is_err());
}

#[test]
fn a_root_is_found_again_when_its_items_read_differently() {
    let mut repo = Repo::new();
    let mut items: Vec<Item<'_>> = (0..40).map(|n| repo.file(&format!("f{n:02}"), &[&[n]])).collect();
    items.insert(0, dir("z"));
    items.push(repo.file("z/last", &[b"last"]));
    items.push(repo.file("other", &[b"x"]));
    let id = repo.snapshot(0x11, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    let read = vykar_core::repository::objects::manifest::read_snapshot(&repo.repository, &id).unwrap();
    let repair = repo.damage(&read.meta.item_ptrs[1]);
    let mut m = repo.mount_shown(SIZES, at("z")).unwrap();
    assert_eq!(m.list(""), [""; 0], "what was there is lost");
    assert_eq!(m.fs.readdir(ROOT, 2, &mut |_, _| false), Err(FsError::Damaged), "and that is said");
    assert_eq!(m.fs.lookup(ROOT, b"last"), Err(FsError::Damaged));
    assert!(Fs::changes(ROOT));
    repair();
    m.fs.forget_trees();
    assert_eq!(m.fs.readdir(ROOT, 0, &mut |_, _| false), Err(FsError::Stale));
    assert_eq!(m.list(""), ["last"]);
    assert_eq!(&*m.fs.read(m.ino("last"), 0, 9).unwrap(), b"last");
    assert_eq!(parent(&m, ROOT), ROOT);
}

#[test]
fn filters_leave_snapshots_out_of_all_folders_and_new_ones_too() {
    let mut repo = repo();
    let filter = |labels: &[&str], hosts: &[&str], since: Option<&str>| {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let since = since.map(|time| time.parse().unwrap());
        let filter = SnapshotQuery { labels: owned(labels), hosts: owned(hosts), since };
        repo_filter(filter)
    };
    let ids = |shown: Shown| repo.mount_shown(SIZES, shown).unwrap().list("ids");
    assert_eq!(ids(filter(&["docs"], &[], None)), ["one", "two"]);
    assert_eq!(ids(filter(&["docs", "sql"], &[], None)), ["one", "three", "two"]);
    assert_eq!(ids(filter(&["docs", "sql"], &["db"], None)), ["three"]);
    assert_eq!(ids(filter(&[], &[], Some("2026-01-02T04:00:00Z"))), ["three", "two"]);

    let m = repo.mount_shown(SIZES, filter(&["docs"], &["web"], Some("2026-01-02T03:30:00Z"))).unwrap();
    assert_eq!((m.list("hosts"), m.list("labels")), (vec!["web".to_owned()], vec!["docs".to_owned()]));
    assert_eq!(m.list("snapshots"), ["2026-01-02T04-00-00", "latest"]);
    assert_eq!(m.fs.statfs().files, 2, "of what is shown");
    repo.snapshot(0x44, meta("four", "web", "docs", "2026-03-01T00:00:00Z"), &[dir("d")]);
    repo.snapshot(0x55, meta("five", "db", "docs", "2026-03-02T00:00:00Z"), &[dir("d")]);
    m.fs.expire();
    assert_eq!(m.list("ids"), ["four", "two"]);
    assert_eq!(m.fs.readlink(m.ino("snapshots/latest")).unwrap(), b"2026-03-01T00-00-00");
    assert_eq!(m.log(), [""; 0]);
}

fn repo_filter(filter: SnapshotQuery) -> Shown {
    Shown { filter, ..Shown::default() }
}

#[test]
fn a_filter_that_nothing_fits_is_said_and_waits() {
    let mut repo = repo();
    let filter = SnapshotQuery { labels: vec!["new".into()], ..SnapshotQuery::default() };
    let m = repo.mount_shown(SIZES, repo_filter(filter)).unwrap();
    assert_eq!(m.log(), ["no snapshot matches the filter: the mount is empty until one does"]);
    assert_eq!(m.list("ids"), [""; 0]);
    repo.snapshot(0x44, meta("four", "web", "new", "2026-03-01T00:00:00Z"), &[dir("d")]);
    m.fs.expire();
    assert_eq!(m.list("ids"), ["four"]);
}

#[test]
fn templates_make_the_folders_and_a_directory_has_one_place_in_each() {
    let mut repo = repo();
    let templates = ["ids/{id}", "%Y/%m/%d-{host}", "{label}/x"].map(|t| t.parse().unwrap()).to_vec();
    let m = repo.mount_shown(SIZES, Shown { templates, ..Shown::default() }).unwrap();
    assert_eq!(m.list(""), ["2026", "docs", "ids", "sql"]);
    assert_eq!(m.list("2026/01"), ["02-web", "02-web-2", "latest"]);
    assert_eq!(m.list("docs"), ["latest", "x", "x-2"]);
    let places = ["ids/22222222", "2026/01/02-web-2", "docs/x-2"];
    let inodes = places.map(|place| [m.ino(place), m.ino(&format!("{place}/d"))]);
    assert_eq!(inodes.concat().iter().collect::<std::collections::HashSet<_>>().len(), 6);
    for (place, [root, below]) in places.iter().zip(inodes) {
        assert_eq!(parent(&m, below), root);
        assert_eq!(parent(&m, root), m.ino(place.rsplit_once('/').unwrap().0));
        assert_eq!(m.ino(&format!("{place}/b")), m.ino("ids/22222222/b"));
    }
    assert_eq!(m.fs.readlink(m.ino("2026/01/latest")).unwrap(), b"02-web-2");
    let before = ["ids", "2026", "2026/01", "docs", "ids/22222222"].map(|path| m.ino(path));
    repo.snapshot(0x44, meta("four", "web", "docs", "2026-01-02T23:00:00Z"), &[dir("d")]);
    m.fs.expire();
    assert_eq!(m.list("2026/01"), ["02-web", "02-web-2", "02-web-3", "latest"]);
    assert_eq!(before, ["ids", "2026", "2026/01", "docs", "ids/22222222"].map(|path| m.ino(path)));
    let five = vec!["{id}".parse().unwrap(); 5];
    assert!(repo.mount_shown(SIZES, Shown { templates: five, ..Shown::default() }).is_err());
}

#[test]
fn owners_permissions_and_lists_are_shown_as_chosen() {
    let acl = [2u8, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255];
    let mut repo = Repo::new();
    let xattrs = Some(vec![
        ("user.k".into(), b"v".to_vec().into()),
        ("system.posix_acl_access".into(), acl.to_vec().into()),
    ]);
    let file = Item { xattrs, uid: 9, gid: 8, mode: libc::S_IFREG | 0o676, ..repo.file("f", &[b"x"]) };
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &[file, dir("d")]);
    let look = Look { uid: Some(5), gid: Some(6), umask: 0o007 };
    let m = repo.mount_shown(SIZES, Shown { look, ..Shown::default() }).unwrap();
    for (path, mode) in [
        ("", 0o40550),
        ("ids", 0o40550),
        ("snapshots/latest", 0o120_777),
        ("ids/one", 0o40750),
        ("ids/one/d", 0o40700),
        ("ids/one/f", 0o100_640),
    ] {
        let meta = attr(&m, path).meta;
        assert_eq!((meta.uid, meta.gid, meta.mode), (5, 6, mode as u16), "{path}");
    }
    let f = m.ino("ids/one/f");
    assert_eq!(m.fs.listxattr(f, || true).unwrap(), b"user.k\0");
    assert_eq!(m.fs.getxattr(f, b"system.posix_acl_access"), Err(FsError::NoAttribute));
    assert_eq!(m.fs.getxattr(f, b"user.k").unwrap(), b"v");

    let m = repo.mount();
    let f = m.ino("ids/one/f");
    assert_eq!(m.fs.getattr(f).unwrap().0.meta.mode, 0o100_676);
    assert_eq!(m.fs.getxattr(f, b"system.posix_acl_access").unwrap(), acl);
}

fn zeros() -> Shown {
    Shown { on_damage: OnDamage::Zero, ..Shown::default() }
}

/// A snapshot with a file of three chunks, and the second one's id.
fn with_chunks() -> (Repo, vykar_core::ChunkId) {
    let mut repo = Repo::new();
    let items = [repo.file("f", &[b"first", b"second", b"third"]), repo.file("g", &[b"fine"])];
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    (repo, items[0].chunks[1].id)
}

#[test]
fn zeros_are_given_for_what_is_damaged_or_gone_and_logged() {
    for gone in [false, true] {
        let (repo, bad) = with_chunks();
        if gone {
            repo.lose(&bad);
        } else {
            drop(repo.damage(&bad));
        }
        let m = repo.mount_shown(SIZES, zeros()).unwrap();
        let f = m.ino("ids/one/f");
        assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"first\0\0\0\0\0\0third");
        assert_eq!(&*m.fs.read(f, 6, 2).unwrap(), b"\0\0");
        assert_eq!(&*m.fs.read(m.ino("ids/one/g"), 0, 9).unwrap(), b"fine");
        let log = m.log();
        assert_eq!(log.len(), 1, "{log:?}");
        let begin = format!("snapshot \"one\": \"f\": cannot read chunk {bad} in pack ");
        assert!(log[0].starts_with(&begin) && log[0].ends_with("; zeros were given for it"), "{log:?}");
        let m = repo.mount();
        assert_eq!(m.fs.read(m.ino("ids/one/f"), 0, 50), Err(FsError::Io));
        assert!(!m.log()[0].contains("zeros"));
    }
}

#[test]
fn zeros_are_not_given_while_the_repository_is_out_of_reach() {
    let (repo, bad) = with_chunks();
    let m = repo.mount_shown(SIZES, zeros()).unwrap();
    let f = m.ino("ids/one/f");
    repo.line.down.store(true, Relaxed);
    assert_eq!(m.fs.read(f, 0, 50), Err(FsError::Io));
    repo.line.down.store(false, Relaxed);
    eventually(|| m.fs.read(f, 0, 50).is_ok());
    assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"firstsecondthird");

    // All files are gone, as those of a disk that is not mounted.
    let m = repo.mount_shown((0, 1 << 20), zeros()).unwrap();
    let f = m.ino("ids/one/f");
    m.fs.read(f, 0, 1).unwrap();
    repo.lose(&bad);
    let config = repo.backend.get(CONFIG, u64::MAX).unwrap();
    repo.backend.delete(CONFIG).unwrap();
    assert_eq!(m.fs.read(f, 0, 50), Err(FsError::Io));
    repo.backend.put(CONFIG, &config, PutMode::Replace).unwrap();
    eventually(|| m.fs.read(f, 0, 50).is_ok());
    assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"first\0\0\0\0\0\0third");
}

#[test]
fn zeros_are_not_given_for_what_a_compaction_moved() {
    for hint in ["right", "old", "missing"] {
        let (mut repo, bad) = with_chunks();
        let repair = repo.damage(&bad);
        let m = repo.mount_shown((0, 1 << 20), zeros()).unwrap();
        let f = m.ino("ids/one/f");
        // The index was just read, and is not read again for a while.
        assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"first\0\0\0\0\0\0third");
        repair();
        let before = repo.backend.get(INDEX_GENERATION, 8).unwrap();
        repo.move_chunks();
        match hint {
            "missing" => repo.backend.delete(INDEX_GENERATION).unwrap(),
            "old" => repo.backend.put(INDEX_GENERATION, &[7; 8], PutMode::Replace).unwrap(),
            _ => assert_ne!(repo.backend.get(INDEX_GENERATION, 8).unwrap(), before),
        }
        for _ in 0..3 {
            if let Ok(data) = m.fs.read(f, 0, 50) {
                assert_eq!(&*data, b"firstsecondthird", "{hint}");
            }
        }
        assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"firstsecondthird", "{hint}");
    }
}
