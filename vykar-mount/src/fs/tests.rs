use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use vykar_core::format::{ChunkerParams, Encryption, Item, ItemType, SnapshotMeta};
use vykar_core::repository::{OpenOptions, snapshot_key};
use vykar_core::storage::Backend;

use super::*;
use crate::testing::{LARGEST, Mounted, Repo, eventually, meta};
use crate::view::inode::ROOT;

fn dir(path: &str) -> Item<'_> {
    Item { mode: 0o700, uid: 1, gid: 2, mtime: 3, ..Item::new(path, ItemType::Directory) }
}

fn link<'a>(path: &'a str, target: &'a str) -> Item<'a> {
    Item { link_target: Some(target.into()), ..Item::new(path, ItemType::Symlink) }
}

fn attr(m: &Mounted, path: &str) -> Attr {
    m.fs.getattr(m.ino(path)).unwrap().0
}

fn small() -> (Repo, Mounted) {
    let mut repo = Repo::new();
    let items =
        [dir("d"), repo.file("d/f", &[b"hello ", b"world"]), repo.file("g", &[b"!"]), link("l", "d/f")];
    repo.snapshot(0x11, meta("one", "web", "docs", "2026-01-02T03:04:05Z"), &items);
    repo.snapshot(0x22, meta("two", "db", "docs", "2026-01-03T03:04:05Z"), &items[..2]);
    let mounted = repo.mount();
    (repo, mounted)
}

#[test]
fn every_view_leads_to_the_files() {
    let (_, m) = small();
    assert_eq!(m.list(""), ["hosts", "ids", "labels", "snapshots", "versions"]);
    assert_eq!(m.list("ids"), ["one", "two"]);
    assert_eq!(m.list("labels/docs"), ["2026-01-02T03-04-05", "2026-01-03T03-04-05", "latest"]);
    for path in ["ids/one", "snapshots/2026-01-02T03-04-05", "hosts/web/2026-01-02T03-04-05"] {
        assert_eq!(m.list(path), ["d", "g", "l"]);
        let ino = m.ino(&format!("{path}/d/f"));
        assert_eq!(&*m.fs.read(ino, 0, 100).unwrap(), b"hello world");
        assert_eq!(&*m.fs.read(ino, 4, 3).unwrap(), b"o w");
        assert_eq!(&*m.fs.read(ino, 11, 3).unwrap(), b"");
        assert_eq!(m.fs.readlink(m.ino(&format!("{path}/l"))).unwrap(), b"d/f");
    }
    assert_eq!(m.fs.readlink(m.ino("hosts/web/latest")).unwrap(), b"2026-01-02T03-04-05");
    assert_eq!(m.fs.readlink(m.ino("snapshots/latest")).unwrap(), b"2026-01-03T03-04-05");
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn a_directory_has_one_place_and_a_file_one_inode() {
    let (_, m) = small();
    let views = ["ids/one", "snapshots/2026-01-02T03-04-05", "hosts/web/2026-01-02T03-04-05"];
    let [a, b, c] = views.map(|v| [m.ino(v), m.ino(&format!("{v}/d")), m.ino(&format!("{v}/d/f"))]);
    assert!(a[0] != b[0] && b[0] != c[0] && a[1] != b[1] && b[1] != c[1]);
    assert!(a[2] == b[2] && b[2] == c[2]);
    for (view, [root, dir, _]) in views.iter().zip([a, b, c]) {
        let parent = |ino| match m.fs.lookup(ino, b"..").unwrap() {
            LookupEntry::Found(attr, _) => attr.ino,
            LookupEntry::Absent(_) => 0,
        };
        assert_eq!(parent(dir), root);
        assert_eq!(parent(root), m.ino(view.rsplit_once('/').unwrap().0));
    }
    assert_ne!(m.ino("ids/one/d/f"), m.ino("ids/two/d/f"), "two snapshots share no inode");
}

#[test]
fn nothing_is_loaded_before_somebody_looks_inside() {
    let (repo, m) = small();
    let reads = || repo.line.pack_reads.load(Relaxed);
    m.list("ids");
    assert_eq!(attr(&m, "ids/one").meta.mode, 0o40750);
    assert_eq!((attr(&m, "ids/one").nlink, attr(&m, "ids/one").meta.uid), (1, 5));
    assert_eq!(m.fs.listxattr(m.ino("ids/one"), || true).unwrap(), b"");
    assert_eq!(reads(), 0);
    m.list("ids/one");
    assert!(reads() > 0);
    assert_eq!(attr(&m, "snapshots/2026-01-02T03-04-05").nlink, 1, "the same after looking");
}

#[test]
fn snapshots_come_and_go_and_latest_follows() {
    let (mut repo, m) = small();
    let (old_root, old_file) = (m.ino("ids/two"), m.ino("ids/two/d/f"));
    let latest = m.ino("snapshots/latest");
    let open = m.ino("ids");
    assert!(Fs::changes(open) && !Fs::changes(old_root));
    let (mut names, mut offset) = (Vec::new(), 0);
    m.fs.readdir(open, 0, &mut |c, next| {
        let full = names.len() == 3;
        if !full {
            names.push(c.name.to_vec());
            offset = next;
        }
        full
    })
    .unwrap();
    let time = m.fs.getattr(open).unwrap().0.meta.mtime;
    repo.snapshot(0x33, meta("three", "new", "", "2026-01-04T00:00:00Z"), &[dir("d")]);
    assert_eq!(m.list("ids"), ["one", "two"], "not yet");
    m.fs.expire();
    assert_eq!(m.list("ids"), ["one", "three", "two"]);
    assert_eq!(m.list("hosts"), ["db", "new", "web"]);
    assert_eq!(m.fs.readlink(m.ino("snapshots/latest")).unwrap(), b"2026-01-04T00-00-00");
    assert_ne!(m.ino("snapshots/latest"), latest, "the kernel never asks twice where a symlink points");
    assert_eq!(m.ino("ids/two"), old_root);
    m.fs.readdir(open, offset, &mut |c, _| {
        names.push(c.name.to_vec());
        false
    })
    .unwrap();
    assert_eq!(names[2..], [b"one", b"two"], "a listing goes on in the folder as it was");
    assert!(m.fs.getattr(open).unwrap().0.meta.mtime > time, "by which the kernel knows of it");
    repo.backend.delete(&snapshot_key(&vykar_core::SnapshotId([0x22; 32]))).unwrap();
    m.fs.expire();
    assert_eq!((m.list("ids"), m.find("ids/two")), (vec!["one".to_owned(), "three".into()], None));
    assert_eq!(m.list("hosts"), ["new", "web"]);
    // What is open in a vanished snapshot reads on while its tree is there.
    assert_eq!(&*m.fs.read(old_file, 0, 5).unwrap(), b"hello");
}

#[test]
fn a_vanished_snapshot_whose_tree_is_gone_is_stale() {
    let (repo, _) = small();
    let m = repo.mount_with(1 << 20, 0);
    let ino = m.ino("ids/two/d/f");
    m.ino("ids/one/d/f");
    repo.backend.delete(&snapshot_key(&vykar_core::SnapshotId([0x22; 32]))).unwrap();
    assert_eq!(m.fs.getattr(ino), Err(FsError::Stale));
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn inode_numbers_outlive_their_tree() {
    let (repo, _) = small();
    let m = repo.mount_with(1 << 20, 0);
    let (a, b) = (m.ino("ids/one/d/f"), m.ino("ids/two/d/f"));
    for _ in 0..3 {
        assert_eq!(&*m.fs.read(a, 6, 5).unwrap(), b"world");
        assert_eq!(&*m.fs.read(b, 0, 5).unwrap(), b"hello");
        assert_eq!((m.ino("ids/one/d/f"), m.ino("ids/two/d/f")), (a, b));
    }
    assert_eq!(repo.mount().ino("ids/one/d/f"), a, "and the mount");
}

#[test]
fn damage_costs_only_what_it_touches() {
    let mut repo = Repo::new();
    let items = [repo.file("d/f", &[b"first", b"second", b"third"]), repo.file("g", &[b"fine"])];
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    let bad = items[0].chunks[1].id;
    let repair = repo.damage(&bad);
    let m = repo.mount();
    let f = m.ino("ids/one/d/f");
    for _ in 0..3 {
        assert_eq!(m.fs.read(f, 0, 6), Err(FsError::Io), "never short");
        assert_eq!(m.fs.read(f, 5, 1), Err(FsError::Io));
    }
    assert_eq!(&*m.fs.read(f, 0, 5).unwrap(), b"first");
    assert_eq!(&*m.fs.read(f, 11, 50).unwrap(), b"third");
    assert_eq!(&*m.fs.read(m.ino("ids/one/g"), 0, 9).unwrap(), b"fine");
    let log = m.log();
    assert_eq!(log.len(), 1, "{log:?}");
    let expected = format!("snapshot \"one\": \"d/f\": cannot read chunk {bad} in pack ");
    assert!(log[0].starts_with(&expected), "{log:?}");
    repair();
    // Failures are not kept for long.
    eventually(|| m.fs.read(f, 0, 50).is_ok());
    assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"firstsecondthird");
}

#[test]
fn a_chunk_of_another_size_than_its_item_says_is_an_error() {
    let mut repo = Repo::new();
    let honest = repo.file("honest", &[b"12345"]);
    let mut lying = repo.file("lying", &[b"12345"]);
    (lying.size, lying.chunks[0].size) = (4, 4);
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &[lying, honest]);
    let m = repo.mount();
    assert_eq!(m.fs.read(m.ino("ids/one/lying"), 0, 9), Err(FsError::Io));
    assert_eq!(&*m.fs.read(m.ino("ids/one/honest"), 0, 9).unwrap(), b"12345");
}

#[test]
fn a_compaction_under_the_mount_goes_unnoticed() {
    let (mut repo, m) = small();
    let f = m.ino("ids/one/d/f");
    repo.move_chunks();
    assert_eq!(&*m.fs.read(f, 0, 50).unwrap(), b"hello world");
    assert_eq!(m.list("ids/two"), ["d"], "items move as well");
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn a_local_copy_of_the_index_that_is_wrong_costs_a_look_at_the_index_and_nothing_else() {
    let cache = tempfile::tempdir().unwrap();
    let open = OpenOptions { cache_dir: Some(cache.path().to_owned()), trust: false };
    let mut repo = Repo::with(Encryption::None, &open);
    let items: Vec<_> = (0..50).map(|n: u8| repo.file(&format!("f{n:02}"), &[&[n; 100]])).collect();
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    let read_all = || {
        let m = repo.mount();
        let contents = (0..50u8).map(|n| m.fs.read(m.ino(&format!("ids/one/f{n:02}")), 0, 200));
        assert!(contents.zip(0..50u8).all(|(found, n)| found.unwrap() == [n; 100][..]));
        assert_eq!(m.log(), [""; 0]);
    };
    read_all();
    let copy = repo.repository.cache_dir().unwrap().join("index");
    let good = std::fs::read(&copy).unwrap();
    // Replaced by rename, as the program does: the old one may still be mapped.
    let put = |bytes: &[u8]| {
        std::fs::write(copy.with_extension("new"), bytes).unwrap();
        std::fs::rename(copy.with_extension("new"), &copy).unwrap();
    };
    for wrong in [0, 0xff] {
        let mut bytes = good.clone();
        // The slots are at its end, 48 bytes each.
        let slots = bytes.len() - 40 * 48;
        bytes[slots..].fill(wrong);
        put(&bytes);
        read_all();
    }
    put(b"short");
    read_all();
    assert_eq!(std::fs::read(&copy).unwrap(), good, "it was made again");
}

#[test]
fn items_that_read_differently_later_get_other_inodes() {
    let mut repo = Repo::new();
    let mut items: Vec<Item<'_>> = (0..40).map(|n| repo.file(&format!("f{n:02}"), &[&[n]])).collect();
    let id = repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    let other = repo.file("other", &[b"x"]);
    items.truncate(1);
    items.push(other);
    repo.snapshot(2, meta("two", "h", "", "2026-01-02T03:04:05Z"), &items);
    let pointers = vykar_core::repository::objects::manifest::read_snapshot(&repo.repository, &id)
        .unwrap()
        .meta
        .item_ptrs;
    let repair = repo.damage(&pointers[1]);
    let m = repo.mount_with(1 << 20, 0);
    let before = m.list("ids/one");
    assert!(before.len() < 40 && !before.is_empty());
    assert!(m.log()[0].contains("item chunks cannot be used"), "{:?}", m.log());
    let old = m.ino("ids/one/f00");
    m.list("ids/two");
    repair();
    assert_eq!(m.fs.getattr(old), Err(FsError::Stale));
    assert_eq!(m.list("ids/one").len(), 40);
    assert_ne!(m.ino("ids/one/f00"), old);
    assert_eq!(&*m.fs.read(m.ino("ids/one/f07"), 0, 9).unwrap(), [7]);
}

#[test]
fn attributes_links_and_holes() {
    let mut repo = Repo::new();
    let zeros = vec![0; LARGEST as usize];
    let xattr = |name: &str, value: &[u8]| (name.to_owned().into(), value.to_vec().into());
    let xattrs = Some(vec![xattr("user.k", b"v"), xattr("security.x", b""), xattr("trusted.y", b"1")]);
    let run = Item { mode: libc::S_IFREG | 0o010, ..repo.file("run", &[b"#!"]) };
    let a = Item { hardlink: Some((1, 2)), mtime: -1_500_000_000, xattrs, ..repo.file("a", &[b"same"]) };
    let b = Item { hardlink: Some((1, 2)), ..repo.file("b", &[b"same"]) };
    let sparse = repo.file("sparse", &[b"x", &zeros, &zeros, &zeros[..100], b"y"]);
    repo.snapshot(
        1,
        meta("one", "h", "", "2026-01-02T03:04:05Z"),
        &[a, b, sparse, link("l", "t"), dir("d"), run],
    );
    let m = repo.mount();
    assert_eq!(attr(&m, "ids/one/a"), attr(&m, "ids/one/b"));
    assert_eq!((attr(&m, "ids/one/a").nlink, attr(&m, "ids/one/a").meta.mtime), (2, -1_500_000_000));
    assert_eq!(attr(&m, "ids/one/a").blocks, 1);
    let sparse = attr(&m, "ids/one/sparse");
    assert_eq!((sparse.meta.size, sparse.blocks), (2 * 4096 + 102, 1));
    let seek = |offset, whence| m.fs.seek(sparse.ino, offset, whence);
    assert_eq!((seek(0, Seek::Hole), seek(1, Seek::Data)), (Ok(1), Ok(8293)));
    assert_eq!(
        (seek(8294, Seek::Data), seek(-1, Seek::Hole)),
        (Err(FsError::BeyondEnd), Err(FsError::BeyondEnd))
    );
    assert_eq!(attr(&m, "ids/one/l").meta.size, 1);
    let names = m.fs.listxattr(m.ino("ids/one/b"), || true).unwrap();
    assert_eq!(names, b"user.k\0security.x\0trusted.y\0");
    let names = m.fs.listxattr(m.ino("ids/one/b"), || false).unwrap();
    assert_eq!(names, b"user.k\0security.x\0", "what the caller cannot read is not listed");
    assert_eq!(m.fs.listxattr(m.ino("ids/one/sparse"), || panic!("nobody need look")), Ok(vec![]));
    let may = |path| m.fs.may_execute(m.ino(path)).unwrap();
    assert_eq!(
        [may("ids/one/a"), may("ids/one/run"), may("ids/one/d"), may("ids")],
        [false, true, true, true]
    );
    assert_eq!(m.fs.getxattr(m.ino("ids/one/a"), b"user.k").unwrap(), b"v");
    assert_eq!(m.fs.getxattr(m.ino("ids/one/a"), b"user.z"), Err(FsError::NoAttribute));
    assert_eq!(m.fs.getxattr(ROOT, b"user.z"), Err(FsError::NoAttribute));
    assert_eq!(m.fs.statfs().files, 2);
    assert!(m.fs.statfs().blocks > 0);
}

#[test]
fn holes_are_found_in_chunks_that_have_data_too() {
    let mut repo = Repo::new();
    let mut mixed = vec![0; 200_000];
    mixed[70_000..70_003].copy_from_slice(b"abc");
    let last = vec![0; 150_000];
    let dense: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let items = [repo.file("sparse", &[&mixed, &last]), repo.file("dense", &[&dense])];
    let lost = items[0].chunks[0].id;
    let like = meta("one", "h", "", "2026-01-02T03:04:05Z");
    let chunker = ChunkerParams { max: 1 << 20, ..like.chunker };
    repo.snapshot(1, SnapshotMeta { chunker, ..like }, &items);
    let m = repo.mount();
    let reads = || repo.line.pack_reads.load(Relaxed);
    let (sparse, dense) = (attr(&m, "ids/one/sparse"), attr(&m, "ids/one/dense"));
    assert_eq!((sparse.meta.size, dense.blocks), (350_000, 391));
    assert!(sparse.blocks <= 8, "{}", sparse.blocks);
    let before = reads();
    assert_eq!(m.fs.seek(dense.ino, 0, Seek::Hole), Ok(200_000));
    assert_eq!((m.fs.seek(sparse.ino, 200_000, Seek::Data), reads()), (Err(FsError::BeyondEnd), before));
    let seek = |offset, whence| m.fs.seek(sparse.ino, offset, whence).unwrap();
    assert_eq!((seek(0, Seek::Hole), seek(0, Seek::Data)), (0, 17 * 4096));
    assert_eq!((seek(70_001, Seek::Data), seek(70_001, Seek::Hole)), (70_001, 18 * 4096));
    assert_eq!(m.fs.seek(sparse.ino, 18 * 4096, Seek::Data), Err(FsError::BeyondEnd));
    assert_eq!(reads(), before + 1);
    // What cannot be read is no hole.
    repo.lose(&lost);
    let m = repo.mount();
    let ino = m.ino("ids/one/sparse");
    assert_eq!((m.fs.seek(ino, 0, Seek::Data), m.fs.seek(ino, 0, Seek::Hole)), (Ok(0), Ok(200_000)));
}

#[test]
fn what_was_given_back_is_read_again() {
    let (repo, m) = small();
    let read = || (m.list("ids/one"), m.list("versions"), m.fs.getattr(m.ino("ids/one")));
    let (before, reads) = (read(), repo.line.pack_reads.load(Relaxed));
    assert_eq!((read(), repo.line.pack_reads.load(Relaxed)), (before.clone(), reads), "kept");
    m.fs.give_back();
    assert_eq!(read(), before);
    assert!(repo.line.pack_reads.load(Relaxed) > reads);
}

#[test]
fn calls_on_the_wrong_kind_of_file_fail_as_they_should() {
    let (_, m) = small();
    let [f, d, l] = ["g", "d", "l"].map(|name| m.ino(&format!("ids/one/{name}")));
    assert_eq!(m.fs.read(d, 0, 1), Err(FsError::IsADirectory));
    assert_eq!(m.fs.read(ROOT, 0, 1), Err(FsError::IsADirectory));
    assert_eq!(m.fs.read(l, 0, 1), Err(FsError::Invalid));
    assert_eq!(m.fs.readlink(f), Err(FsError::Invalid));
    assert_eq!(m.fs.readlink(ROOT), Err(FsError::Invalid));
    assert_eq!(m.fs.lookup(f, b"x"), Err(FsError::NotADirectory));
    assert_eq!(m.fs.lookup(m.ino("snapshots/latest"), b"x"), Err(FsError::NotADirectory));
    assert_eq!(m.fs.lookup(d, &[b'n'; 256]), Err(FsError::NameTooLong));
    assert_eq!(m.fs.lookup(d, b"nope"), Ok(LookupEntry::Absent(FOREVER)));
    assert_eq!(m.fs.lookup(ROOT, b"nope"), Err(FsError::NotFound));
    assert_eq!(m.fs.readdir(f, 0, &mut |_, _| false), Err(FsError::NotADirectory));
    for nonsense in [0, 7, u64::MAX, 1 << 62, f | 0x3fff_0000] {
        assert_eq!(m.fs.getattr(nonsense).map(|(a, _)| a.ino), Err(FsError::Stale), "{nonsense:x}");
    }
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let mut repo = Repo::new();
    let items: Vec<_> = (0..25).map(|n| repo.file(&format!("f{n:02}"), &[])).collect();
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
    let m = repo.mount();
    for path in ["ids/one", ""] {
        let (mut seen, mut offset) = (Vec::new(), 0);
        loop {
            let mut room = 3;
            let before = seen.len();
            m.fs.readdir(m.ino(path), offset, &mut |child, next| {
                if room == 0 {
                    return true;
                }
                room -= 1;
                seen.push(child.name.to_vec());
                offset = next;
                false
            })
            .unwrap();
            if seen.len() == before {
                break;
            }
        }
        assert_eq!(seen.len(), if path.is_empty() { 7 } else { 27 });
        assert_eq!(seen[..2], [b".".to_vec(), b"..".to_vec()]);
        assert!(seen[2..].is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn sequential_reads_are_decoded_ahead_and_right() {
    let mut repo = Repo::new();
    let pieces: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 1000]).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let file = repo.file("f", &slices);
    repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &[file]);
    let m = repo.mount_with(64 << 20, 1 << 20);
    let ino = m.ino("ids/one/f");
    let before = repo.line.pack_reads.load(Relaxed);
    for step in 0..100u64 {
        let data = m.fs.read(ino, step * 500, 500).unwrap();
        assert!(data.len() == 500 && data.iter().all(|b| u64::from(*b) == step / 2));
    }
    assert_eq!(repo.line.pack_reads.load(Relaxed) - before, 50, "each chunk was read once");
}

#[derive(Debug, Clone)]
enum Kind {
    Dir,
    File(Vec<Vec<u8>>),
    Link(String),
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let piece = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        2 => Just(Kind::Dir),
        4 => prop::collection::vec(piece, 0..5).prop_map(Kind::File),
        1 => "[a-z/.]{1,20}".prop_map(Kind::Link),
    ]
}

/// Names tell kinds apart, so that no item contradicts another.
fn any_tree() -> impl Strategy<Value = BTreeMap<String, Kind>> {
    let entry = ("([ab]/){0,4}", "[c-f]{1,2}", any_kind());
    prop::collection::vec(entry, 0..30).prop_map(|entries| {
        let mut tree = BTreeMap::new();
        for (dirs, name, kind) in entries {
            for (at, _) in dirs.match_indices('/') {
                tree.insert(dirs[..at].to_owned(), Kind::Dir);
            }
            tree.insert(dirs + &name, kind);
        }
        tree
    })
}

fn walk(m: &Mounted, path: &str, found: &mut BTreeMap<String, Attr>) {
    let ino = m.ino(path);
    let mut children = Vec::new();
    m.fs.readdir(ino, 2, &mut |child, _| {
        children.push((String::from_utf8(child.name.to_vec()).unwrap(), child.attr));
        false
    })
    .unwrap();
    for (name, attr) in children {
        let path = format!("{path}/{name}");
        assert_eq!(m.fs.lookup(ino, name.as_bytes()), Ok(LookupEntry::Found(attr, FOREVER)));
        assert_eq!(m.fs.getattr(attr.ino), Ok((attr, FOREVER)));
        if attr.meta.is_dir() {
            walk(m, &path, found);
        }
        found.insert(path, attr);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_mounted_is_what_was_stored(
        tree in any_tree(), seed: u64, reads in prop::collection::vec((0u64..200, 0u32..200), 8),
    ) {
        let mut repo = Repo::new();
        let mut items: Vec<Item<'_>> = tree.iter().map(|(path, kind)| match kind {
            Kind::Dir => dir(path),
            Kind::File(pieces) => repo.file(path, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>()),
            Kind::Link(target) => link(path, target),
        }).collect();
        items.sort_by_key(|item| fnv1a(&[&seed.to_le_bytes(), item.path.as_bytes()].concat()));
        repo.snapshot(1, meta("one", "h", "", "2026-01-02T03:04:05Z"), &items);
        let m = repo.mount();
        let mut found = BTreeMap::new();
        walk(&m, "ids/one", &mut found);
        let paths: Vec<_> = found.keys().map(|p| p.strip_prefix("ids/one/").unwrap()).collect();
        prop_assert_eq!(paths, tree.keys().collect::<Vec<_>>());
        for (attr, kind) in found.values().zip(tree.values()) {
            match kind {
                Kind::Dir => prop_assert!(attr.meta.is_dir() && attr.meta.mode == 0o40700),
                Kind::Link(target) => prop_assert_eq!(m.fs.readlink(attr.ino).unwrap(), target.as_bytes()),
                Kind::File(pieces) => {
                    let content = pieces.concat();
                    prop_assert_eq!(attr.meta.size, content.len() as u64);
                    for (offset, size) in &reads {
                        let from = content.len().min(*offset as usize);
                        let to = content.len().min(from + *size as usize);
                        prop_assert_eq!(&*m.fs.read(attr.ino, *offset, *size).unwrap(), &content[from..to]);
                    }
                }
            }
        }
        prop_assert_eq!(m.log(), [""; 0]);
    }
}
