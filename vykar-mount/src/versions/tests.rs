use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use vykar_core::SnapshotId;
use vykar_core::format::{Encryption, Item, ItemType};
use vykar_core::repository::objects::manifest::read_snapshot;
use vykar_core::repository::{OpenOptions, snapshot_key};
use vykar_core::storage::Backend;

use super::copy;
use crate::errno::FsError;
use crate::fs::{Attr, Child, FOREVER, Fs, LookupEntry, MOMENT, Seek};
use crate::testing::{LARGEST, Mounted, Repo, meta};
use crate::view::attr_mapping::{Look, Shown, SnapshotQuery, Top};
use crate::view::inode::{Inode, ROOT};
use crate::xattr::ACCESS_LIST;

const SIZES: (u64, u64) = (1 << 20, 1 << 20);

fn dir(path: &str) -> Item<'_> {
    Item { mode: 0o700, ..Item::new(path, ItemType::Directory) }
}

fn link(path: &str, target: &str) -> Item<'static> {
    Item { link_target: Some(target.to_owned().into()), ..Item::new(path.to_owned(), ItemType::Symlink) }
}

fn time(n: u8) -> String {
    format!("2026-01-{n:02}T00:00:00Z")
}

fn name(n: u8) -> String {
    format!("2026-01-{n:02}T00-00-00")
}

fn attr(m: &Mounted, path: &str) -> Attr {
    m.fs.getattr(m.ino(path)).unwrap().0
}

fn content(m: &Mounted, path: &str) -> Vec<u8> {
    m.fs.read(m.ino(path), 0, 1 << 20).unwrap().to_vec()
}

/// A repository with a local cache in `dir`.
fn with_cache(dir: &Path, encryption: Encryption) -> Repo {
    Repo::with(encryption, &OpenOptions { cache_dir: Some(dir.to_owned()), ..OpenOptions::default() })
}

fn snapshot(repo: &mut Repo, n: u8, items: &[Item<'_>]) -> SnapshotId {
    repo.snapshot(n, meta(&format!("s{n}"), "h", "l", &time(n)), items)
}

/// Three snapshots: `f` changes in the second and back in the third; `gone` is in the first alone; `x` is a file,
/// then a directory.
fn small(repo: &mut Repo) {
    let f = [repo.file("d/f", &[b"one"]), repo.file("d/f", &[b"two"])];
    let (gone, x) = (repo.file("d/gone", &[b"gone"]), repo.file("x", &[b"file"]));
    let below = repo.file("x/y", &[b"below"]);
    snapshot(repo, 1, &[dir("d"), f[0].clone(), gone, link("l", "d/f"), x]);
    snapshot(repo, 2, &[dir("d"), f[1].clone(), link("l", "d/f"), dir("x"), below.clone()]);
    snapshot(repo, 3, &[dir("d"), f[0].clone(), link("l", "else"), dir("x"), below]);
}

#[test]
fn a_file_is_a_folder_of_its_versions() {
    let mut repo = Repo::new();
    small(&mut repo);
    let m = repo.mount();
    assert_eq!(m.list("versions"), ["d", "l", "x"]);
    assert_eq!(m.list("versions/d"), ["f", "gone"]);
    assert_eq!(m.list("versions/d/f"), [name(1), name(2), "latest".into()]);
    assert_eq!(content(&m, &format!("versions/d/f/{}", name(1))), b"one");
    assert_eq!(content(&m, &format!("versions/d/f/{}", name(2))), b"two");
    let latest = |path: &str| m.fs.readlink(m.ino(&format!("{path}/latest"))).unwrap();
    assert_eq!(latest("versions/d/f"), name(1).as_bytes(), "what the newest snapshot has");
    assert_eq!(m.list("versions/l"), [name(1), name(3), "latest".into()]);
    assert_eq!(m.fs.readlink(m.ino(&format!("versions/l/{}", name(3)))).unwrap(), b"else");
    assert_eq!(m.list("versions/x"), ["y".to_owned(), name(1), "latest".into()]);
    assert_eq!(content(&m, &format!("versions/x/y/{}", name(2))), b"below");
    assert_eq!((latest("versions/x"), latest("versions/d/gone")), (name(1).into(), name(1).into()));
    for path in ["versions/nope", "versions/d/nope", "versions/d/gone/2026-01-02T00-00-00"] {
        assert_eq!(m.find(path), None);
    }
    assert_eq!(m.fs.lookup(m.ino("versions/d"), &[b'n'; 256]), Err(FsError::NameTooLong));
    assert_eq!(m.log(), [""; 0]);
}

/// A directory of these rights, with an access control list where there are entries.
fn owned(path: &str, uid: u32, mode: u32, list: &[u8]) -> Item<'static> {
    let mut item = Item { uid, gid: 9, mode, ..Item::new(path.to_owned(), ItemType::Directory) };
    item.xattrs = (!list.is_empty())
        .then(|| vec![(String::from_utf8_lossy(ACCESS_LIST).into_owned().into(), list.to_vec().into())]);
    item
}

#[test]
fn folders_have_the_rights_of_the_directories_that_they_stand_for() {
    let cache = tempfile::tempdir().unwrap();
    let mut repo = with_cache(cache.path(), Encryption::None);
    let file = |repo: &mut Repo, path: &str| repo.file(path, &[path.as_bytes()]);
    let list = [[2, 0, 0, 0].as_slice(), &[4, 0, 5, 0], &[255; 4], &[16, 0, 7, 0], &[255; 4]].concat();
    let items = |repo: &mut Repo, mode| {
        let files =
            ["private/f", "listed/f", "changed/f", "other/f", "made/up/f"].map(|path| file(repo, path));
        let dirs = [owned("private", 7, 0o700, &[]), owned("listed", 7, 0o775, &list)];
        let changed = [owned("changed", 7, mode, &[]), owned("other", mode & 7, 0o700, &[])];
        [&dirs[..], &changed, &files].concat()
    };
    let (first, second) = (items(&mut repo, 0o705), items(&mut repo, 0o750));
    snapshot(&mut repo, 1, &first);
    snapshot(&mut repo, 2, &second);
    let m = repo.mount();
    let shown = |m: &Mounted, path: &str| {
        let (found, meta) = (attr(m, path), attr(m, path).meta);
        let listed = m.fs.readdir(m.ino(path), 0, &mut |child, _| {
            assert_eq!(child.attr.meta, meta, "the same in a listing");
            true
        });
        assert_eq!(listed, Ok(()));
        (found.meta.uid, found.meta.gid, found.meta.mode & 0o7777)
    };
    assert_eq!(shown(&m, "versions"), (5, 0, 0o750), "those of the snapshots' tops");
    assert_eq!(shown(&m, "versions/private"), (7, 9, 0o700));
    assert_eq!(shown(&m, "versions/private/f"), (77, 88, 0o555), "made up");
    assert_eq!(shown(&m, "versions/made"), (77, 88, 0o555), "no snapshot says anything of it");
    assert_eq!(shown(&m, "versions/listed"), (7, 9, 0o775));
    let ino = m.ino("versions/listed");
    assert_eq!(m.fs.getxattr(ino, ACCESS_LIST), Ok(list.clone()));
    assert_eq!(m.fs.getxattr(m.ino("versions/private"), ACCESS_LIST), Err(FsError::NoAttribute));
    assert_eq!(shown(&m, "versions/changed"), (7, 9, 0o700), "what both allow");
    assert_eq!(shown(&m, "versions/other"), (0, 9, 0), "who may enter one may not enter the other");
    // A snapshot that comes later counts at once, and after a remount as well.
    let shut = [owned("listed", 7, 0o700, &[]), file(&mut repo, "listed/f")];
    snapshot(&mut repo, 3, &shut);
    m.fs.expire();
    for m in [m, repo.mount()] {
        assert_eq!(shown(&m, "versions/listed"), (7, 9, 0o700));
        assert_eq!(m.fs.getxattr(m.ino("versions/listed"), ACCESS_LIST), Err(FsError::NoAttribute));
        assert_eq!(shown(&m, "versions/changed"), (7, 9, 0o700));
    }
    let look = Look { uid: Some(1), gid: None, umask: 0o077 };
    let m = repo.mount_shown(SIZES, Shown { look, ..Shown::default() }).unwrap();
    assert_eq!(shown(&m, "versions/changed"), (1, 9, 0o700));
}

#[test]
fn nothing_is_read_before_somebody_looks_and_then_each_chunk_once() {
    let mut repo = Repo::new();
    repo.stream_chunk = 150;
    small(&mut repo);
    let m = repo.mount();
    let reads = || repo.line.pack_reads.load(Relaxed);
    m.list("");
    let before = attr(&m, "versions");
    assert_eq!((before.nlink, before.meta.mtime), (1, attr(&m, "ids").meta.mtime));
    assert_eq!(reads(), 0);
    let streams =
        [1, 2, 3].map(|n| read_snapshot(&repo.repository, &SnapshotId([n; 32])).unwrap().meta.item_ptrs);
    let distinct: BTreeSet<_> = streams.iter().flatten().collect();
    // Ids are of random lengths in items, so a chunk may come behind another unfinished item in another
    // snapshot: then it is another section.
    let behind: BTreeSet<_> =
        streams.iter().flat_map(|s| s.iter().zip([None].into_iter().chain(s.iter().map(Some)))).collect();
    m.fs.learn_versions();
    let read = reads();
    assert!(
        (distinct.len()..=behind.len()).contains(&read),
        "{read} of {} and {}",
        distinct.len(),
        behind.len()
    );
    assert_eq!(attr(&m, "versions"), before);
    m.fs.learn_versions();
    assert_eq!(reads(), read);
}

#[test]
fn versions_are_there_for_the_usual_folders_only_and_of_what_is_shown() {
    let mut repo = Repo::new();
    let f = |repo: &mut Repo, n| repo.file("f", &[&[n]]);
    for n in 1..=3 {
        let item = f(&mut repo, n);
        let label = if n == 2 { "b" } else { "a" };
        repo.snapshot(n, meta("n", "h", label, &time(n)), &[item]);
    }
    let labels = SnapshotQuery { labels: vec!["a".into()], ..SnapshotQuery::default() };
    let m = repo.mount_shown(SIZES, Shown { filter: labels, ..Shown::default() }).unwrap();
    assert_eq!(m.list("versions/f"), [name(1), name(3), "latest".into()]);
    let templates = vec!["{id}".parse().unwrap()];
    let m = repo.mount_shown(SIZES, Shown { templates, ..Shown::default() }).unwrap();
    assert_eq!(m.find("versions"), None);
    let top = Some(Top { snapshot: SnapshotId([1; 32]), path: Vec::new() });
    let m = repo.mount_shown(SIZES, Shown { top, ..Shown::default() }).unwrap();
    assert_eq!(m.find("versions"), None);
    let m = Repo::new().mount();
    assert_eq!((m.list("versions"), attr(&m, "versions").meta.mtime > 0), (vec![], true));
}

#[test]
fn versions_come_and_go_with_their_snapshots() {
    let mut repo = Repo::new();
    small(&mut repo);
    let m = repo.mount();
    let (folder, first) = (m.ino("versions/d/f"), m.ino(&format!("versions/d/f/{}", name(1))));
    let (latest, mtime) = (m.ino("versions/d/f/latest"), attr(&m, "versions/d").meta.mtime);
    assert!(Fs::changes(folder) && !Fs::changes(first));
    let items = [dir("d"), repo.file("d/f", &[b"four"])];
    snapshot(&mut repo, 4, &items);
    assert_eq!(m.list("versions/d/f").len(), 3, "not yet");
    m.fs.expire();
    assert_eq!(m.list("versions/d/f"), [name(1), name(2), name(4), "latest".into()]);
    assert_eq!(content(&m, &format!("versions/d/f/{}", name(4))), b"four");
    assert_eq!((m.ino("versions/d/f"), m.ino(&format!("versions/d/f/{}", name(1)))), (folder, first));
    let moved = m.ino("versions/d/f/latest");
    assert_ne!(moved, latest, "the kernel never asks twice where a symlink points");
    assert_eq!((m.fs.readlink(latest), m.fs.readlink(moved)), (Err(FsError::Stale), Ok(name(4).into())));
    assert!(attr(&m, "versions/d").meta.mtime > mtime, "by which the kernel knows of it");
    repo.backend.delete(&snapshot_key(&SnapshotId([1; 32]))).unwrap();
    m.fs.expire();
    assert_eq!(m.list("versions/d"), ["f"]);
    assert_eq!(m.list("versions/d/f"), [name(2), name(3), name(4), "latest".into()]);
    assert_eq!(m.list("versions/x"), ["y"]);
    assert_eq!(&*m.fs.read(first, 0, 9).unwrap(), b"one", "what is open reads on");
    assert_eq!(m.ino("versions/d/f"), folder);
}

#[test]
fn numbers_stay_and_are_the_same_after_a_remount() {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = with_cache(dir.path(), Encryption::None);
    repo.stream_chunk = 100;
    small(&mut repo);
    let numbers = |m: &Mounted| {
        let paths = ["", "/d", "/d/f", "/x", "/x/y"].map(|path| m.ino(&format!("versions{path}")));
        let files = ["d/f", "x", "l"].map(|path| m.ino(&format!("versions/{path}/{}", name(1))));
        [&paths[..], &files].concat()
    };
    let mut m = repo.mount();
    let first = numbers(&m);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len());
    m.fs.forget_trees();
    assert_eq!(numbers(&m), first);
    assert_eq!(numbers(&repo.mount()), first);
    for nonsense in
        [Inode::Folder(5), Inode::Version { section: 5, node: 1 }, Inode::Latest { place: 900, target: 5 }]
    {
        assert_eq!(m.fs.getattr(nonsense.encode()), Err(FsError::Stale), "{nonsense:?}");
    }
    let Some(Inode::Version { section, .. }) = Inode::decode(first[5]) else { panic!() };
    let beyond = Inode::Version { section, node: 99 }.encode();
    assert_eq!(m.fs.getattr(beyond), Err(FsError::Stale));
}

#[test]
fn folders_know_their_place() {
    let mut repo = Repo::new();
    small(&mut repo);
    let m = repo.mount();
    let up = |path: &str| match m.fs.lookup(m.ino(path), b"..") {
        Ok(LookupEntry::Found(attr, _)) => attr.ino,
        other => panic!("{other:?}"),
    };
    assert_eq!((up("versions"), up("versions/d")), (ROOT, m.ino("versions")));
    assert_eq!(up("versions/d/f"), m.ino("versions/d"));
    let mut dots = Vec::new();
    let mut emit = |child: Child<'_>, _| {
        dots.push(child.attr.ino);
        false
    };
    m.fs.readdir(m.ino("versions/d/f"), 0, &mut emit).unwrap();
    assert_eq!(dots[..2], [m.ino("versions/d/f"), m.ino("versions/d")]);
    let own = m.fs.lookup(m.ino("versions/d"), b".");
    assert_eq!(own, Ok(LookupEntry::Found(attr(&m, "versions/d"), MOMENT)));
    let file = m.ino(&format!("versions/d/f/{}", name(1)));
    for file in [file, m.ino("versions/d/f/latest")] {
        assert_eq!(m.fs.lookup(file, b"x"), Err(FsError::NotADirectory));
        assert_eq!(m.fs.readdir(file, 0, &mut |_, _| false), Err(FsError::NotADirectory));
    }
    assert_eq!(m.fs.read(m.ino("versions/d"), 0, 1), Err(FsError::IsADirectory));
    assert_eq!(m.fs.readlink(file), Err(FsError::Invalid));
    assert_eq!(m.fs.readlink(m.ino("versions/d")), Err(FsError::Invalid));
    assert_eq!(m.fs.listxattr(m.ino("versions/d"), || true).unwrap(), b"");
}

#[test]
fn a_version_has_the_attributes_that_its_first_snapshot_says() {
    let mut repo = Repo::new();
    let zeros = vec![0; LARGEST as usize];
    let xattrs = Some(vec![("user.k".into(), b"v".to_vec().into())]);
    let plain = repo.file("a", &[b"same"]);
    let a = Item { hardlink: Some((1, 2)), mtime: -5, uid: 7, xattrs, ..plain.clone() };
    let b = Item { path: "b".into(), ..a.clone() };
    let sparse = repo.file("sparse", &[b"x", &zeros, b"y"]);
    snapshot(&mut repo, 1, &[a.clone(), b, sparse]);
    snapshot(&mut repo, 2, &[Item { mtime: 9, hardlink: None, xattrs: None, ..plain }]);
    let m = repo.mount();
    assert_eq!(m.list("versions/a"), [name(1), "latest".into()], "other metadata is no other version");
    let path = format!("versions/a/{}", name(1));
    let (found, there) = (attr(&m, &path), attr(&m, "ids/s1/a"));
    assert_eq!(found, Attr { ino: found.ino, ..there });
    assert_eq!((found.meta.mtime, found.meta.uid, found.nlink), (-5, 7, 2));
    assert_eq!(m.ino(&format!("versions/b/{}", name(1))), found.ino, "of one file");
    assert_eq!(m.fs.getattr(found.ino).unwrap().1, FOREVER);
    assert_eq!(m.fs.getxattr(found.ino, b"user.k").unwrap(), b"v");
    let sparse = attr(&m, &format!("versions/sparse/{}", name(1)));
    assert_eq!((sparse.blocks, m.fs.seek(sparse.ino, 0, Seek::Hole)), (1, Ok(1)));
}

#[test]
fn names_of_children_come_before_those_of_versions() {
    let mut repo = Repo::new();
    let file = repo.file("p", &[b"p"]);
    let below = [repo.file(&format!("p/{}", name(1)), &[b"below"]), repo.file("p/latest", &[b"below"])];
    snapshot(&mut repo, 1, &[file]);
    snapshot(&mut repo, 2, &below);
    let m = repo.mount();
    assert_eq!(m.list("versions/p"), [name(1), "latest".into(), format!("{}-2", name(1))]);
    assert_eq!(content(&m, &format!("versions/p/{}-2", name(1))), b"p");
    assert_eq!(content(&m, &format!("versions/p/latest/{}", name(2))), b"below");
}

#[test]
fn a_listing_goes_on_as_it_began() {
    let mut repo = Repo::new();
    let items: Vec<_> = (0..20).map(|n| repo.file(&format!("f{n:02}"), &[])).collect();
    snapshot(&mut repo, 1, &items);
    let m = repo.mount();
    let ino = m.ino("versions");
    let (mut seen, mut offset) = (Vec::new(), 0);
    loop {
        let (mut room, before) = (3, seen.len());
        m.fs.readdir(ino, offset, &mut |child, next| {
            room -= 1;
            if room >= 0 {
                seen.push(child.name.to_vec());
                offset = next;
            }
            room < 0
        })
        .unwrap();
        if seen.len() == before {
            break;
        }
        if seen.len() == 6 {
            let more = repo.file("a", &[]);
            snapshot(&mut repo, 2, &[more]);
            m.fs.expire();
            assert_eq!(m.list("versions").len(), 21);
        }
    }
    assert_eq!(seen.len(), 22);
    assert!(seen[2..].is_sorted_by(|a, b| a < b));
}

#[test]
fn damage_costs_what_it_describes_until_it_is_gone() {
    let mut repo = Repo::new();
    repo.stream_chunk = 400;
    let items: Vec<_> = (0..40).map(|n| repo.file(&format!("f{n:02}"), &[&[n]])).collect();
    let first = snapshot(&mut repo, 1, &items);
    let more: Vec<_> = [repo.file("a", &[b"a"])].into_iter().chain(items).collect();
    snapshot(&mut repo, 2, &more);
    let chunks = read_snapshot(&repo.repository, &first).unwrap().meta.item_ptrs;
    let repair = repo.damage(&chunks[1]);
    let m = repo.mount();
    // The stream of the second snapshot has other chunks.
    assert_eq!(m.list("versions").len(), 41);
    assert_eq!(m.list("versions/f00"), [name(1), "latest".into()]);
    assert_eq!(m.list("versions/f39"), [name(2), "latest".into()]);
    assert_eq!(m.log().len(), 1, "{:?}", m.log());
    assert!(m.log()[0].starts_with("snapshot \"s1\": "), "{:?}", m.log());
    repair();
    assert_eq!(m.list("versions/f39"), [name(2), "latest".into()], "kept for a while");
    m.fs.expire();
    assert_eq!(m.list("versions/f39"), [name(1), "latest".into()]);
}

#[test]
fn items_that_cannot_be_read_later_are_left_out_and_looked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = with_cache(dir.path(), Encryption::None);
    let [a, b] = [b"1", b"2"].map(|content| repo.file("d/f", &[content]));
    let first = snapshot(&mut repo, 1, &[a]);
    snapshot(&mut repo, 2, &[b]);
    repo.mount().fs.learn_versions();
    let m = repo.mount();
    let chunk = read_snapshot(&repo.repository, &first).unwrap().meta.item_ptrs[0];
    let repair = repo.damage(&chunk);
    let mtime = attr(&m, "versions").meta.mtime;
    assert_eq!(m.list("versions/d/f"), [name(2), "latest".into()]);
    assert!(m.log()[0].contains("\"s1\""), "{:?}", m.log());
    repair();
    m.fs.expire();
    assert_eq!(m.list("versions/d/f"), [name(1), name(2), "latest".into()]);
    assert!(attr(&m, "versions").meta.mtime > mtime);
}

#[test]
fn a_compaction_under_the_mount_goes_unnoticed() {
    let mut repo = Repo::new();
    small(&mut repo);
    let mut m = repo.mount();
    let file = m.ino(&format!("versions/d/f/{}", name(2)));
    m.fs.forget_trees();
    repo.move_chunks();
    assert_eq!(m.list("versions/d"), ["f", "gone"]);
    assert_eq!(&*m.fs.read(file, 0, 9).unwrap(), b"two");
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn a_stream_that_ends_in_the_middle_of_an_item_shows_what_is_before() {
    let mut repo = Repo::new();
    let items = [repo.file("a", &[b"a"]), repo.file("b", &[b"b"])];
    let mut bytes: Vec<u8> =
        items.iter().flat_map(|item| vykar_core::format::wire::encode("item", item).unwrap()).collect();
    bytes.pop();
    let id = repo.raw_snapshot(1, meta("s1", "h", "l", &time(1)), &[&bytes]);
    let m = repo.mount();
    assert_eq!(m.list("versions"), ["a"]);
    assert!(m.log()[0].contains("rest of its items cannot be read"), "{id} {:?}", m.log());
    bytes[0] = 0xc1;
    repo.raw_snapshot(2, meta("s2", "h", "l", &time(2)), &[&bytes]);
    m.fs.expire();
    assert_eq!(m.list("versions"), ["a"]);
    assert!(m.log()[1].starts_with("snapshot \"s2\""), "{:?}", m.log());
}

#[test]
fn the_local_file_saves_decoding_and_is_made_again_when_it_is_no_good() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        let dir = tempfile::tempdir().unwrap();
        let mut repo = with_cache(dir.path(), encryption);
        small(&mut repo);
        let reads = |m: &Mounted| {
            let before = repo.line.pack_reads.load(Relaxed);
            m.fs.learn_versions();
            repo.line.pack_reads.load(Relaxed) - before
        };
        assert!(reads(&repo.mount()) > 0);
        assert_eq!(reads(&repo.mount()), 0);
        let file = copy::path(&repo.repository.cache_dir().unwrap());
        let good = std::fs::read(&file).unwrap();
        assert_eq!(encryption == Encryption::None, good.windows(4).any(|w| w == b"\x01\0\0\0"));
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 4;
        for bad in [&good[..good.len() - 1], &flipped, b"", &good[..1]] {
            std::fs::write(&file, bad).unwrap();
            let m = repo.mount();
            assert!(reads(&m) > 0);
            assert_eq!(m.list("versions/d/f").len(), 3);
            assert_eq!(reads(&repo.mount()), 0, "it was made again");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!(repo.mount().list("versions/d/f").len(), 3, "a file that cannot be written costs nothing");
    }
}

/// What a path is in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Dir,
    /// Contents are numbers; large ones have item records of many chunks.
    File(u8),
    Large(u8),
    Link(u8),
}

type State = BTreeMap<String, Kind>;

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => Just(Kind::Dir),
        5 => (0..3u8).prop_map(Kind::File),
        1 => (0..3u8).prop_map(Kind::Large),
        2 => (0..3u8).prop_map(Kind::Link),
    ]
}

/// Steps from one snapshot to the next.
fn any_edits() -> impl Strategy<Value = Vec<(String, Option<Kind>)>> {
    prop::collection::vec(("[ab]{1,2}(/[ab]{1,2}){0,2}", prop::option::weighted(0.8, any_kind())), 0..12)
}

fn apply(state: &mut State, edits: &[(String, Option<Kind>)]) {
    for (path, kind) in edits {
        let below = format!("{path}/");
        if *kind != Some(Kind::Dir) {
            state.retain(|known, _| known != path && !known.starts_with(&below));
        }
        let Some(kind) = kind else { continue };
        for (at, _) in path.match_indices('/') {
            state.insert(path[..at].to_owned(), Kind::Dir);
        }
        if state.get(path) != Some(&Kind::Dir) {
            state.insert(path.clone(), kind.clone());
        }
    }
}

/// The items of a snapshot, some directories without one, in an order that `seed` says. Some files have a second
/// item, before or behind the other.
fn items(repo: &mut Repo, state: &State, seed: u64) -> Vec<(String, Kind, Item<'static>)> {
    let mut made = Vec::new();
    let hash = |text: &str, salt: u64| {
        crate::view::names::fnv1a(&[text.as_bytes(), &(seed ^ salt).to_le_bytes()].concat())
    };
    let mut all: Vec<(String, Kind)> = Vec::new();
    for (path, kind) in state {
        if *kind == Kind::Dir && hash(path, 1).is_multiple_of(3) {
            continue;
        }
        all.push((path.clone(), kind.clone()));
        if matches!(kind, Kind::File(_)) && hash(path, 2).is_multiple_of(4) {
            all.push((path.clone(), Kind::File(7)));
        }
    }
    if seed % 2 == 1 {
        all.sort_by_key(|(path, kind)| hash(&format!("{path}{kind:?}"), 3));
    }
    for (path, kind) in all {
        let item = match &kind {
            Kind::Dir => Item { mode: 0o700, ..Item::new(path.clone(), ItemType::Directory) },
            Kind::File(n) => repo.file(&path, &[&[*n]]),
            Kind::Large(n) => repo.file(&path, &[&[*n, 1][..]; 150]),
            Kind::Link(n) => link(&path, &n.to_string()),
        };
        made.push((path, kind, item));
    }
    made
}

/// What is below `versions`: of a path its subfolders, the names of its versions with what they hold, and where
/// `latest` points.
type Shape = BTreeMap<String, (BTreeSet<String>, Vec<(String, Kind)>, Option<String>)>;

fn expected(snapshots: &[Vec<(String, Kind)>], names: &[String]) -> Shape {
    let mut shape = Shape::from([(String::new(), Default::default())]);
    for (items, name) in snapshots.iter().zip(names) {
        let first: BTreeMap<_, _> = items.iter().rev().map(|(path, kind)| (path, kind)).collect();
        for (path, kind) in first {
            let mut above = String::new();
            for part in path.split('/') {
                shape.entry(above.clone()).or_default().0.insert(part.to_owned());
                above = format!("{above}/{part}").trim_start_matches('/').to_owned();
            }
            let (_, versions, latest) = shape.entry(path.clone()).or_default();
            if *kind == Kind::Dir {
                continue;
            }
            let known = versions.iter().find(|(_, known)| known == kind).cloned();
            if known.is_none() {
                versions.push((name.clone(), kind.clone()));
            }
            *latest = Some(known.map_or(name.clone(), |(name, _)| name));
        }
    }
    shape
}

fn found(m: &Mounted, path: &str, shape: &mut Shape) {
    let full = format!("versions/{path}");
    let ino = m.ino(&full);
    let mut children = Vec::new();
    m.fs.readdir(ino, 2, &mut |child, _| {
        children.push((String::from_utf8(child.name.to_vec()).unwrap(), child.attr, child.ttl));
        false
    })
    .unwrap();
    let (mut folders, mut versions, mut latest) = (BTreeSet::new(), Vec::new(), None);
    for (name, attr, ttl) in children {
        assert_eq!(m.fs.lookup(ino, name.as_bytes()), Ok(LookupEntry::Found(attr, ttl)));
        assert_eq!(m.fs.getattr(attr.ino).unwrap().0, attr);
        let target = || String::from_utf8(m.fs.readlink(attr.ino).unwrap()).unwrap();
        let kind = match attr.meta.kind() {
            libc::S_IFDIR => {
                found(m, format!("{path}/{name}").trim_start_matches('/'), shape);
                folders.insert(name);
                continue;
            }
            libc::S_IFLNK if name == "latest" => {
                latest = Some(target());
                continue;
            }
            libc::S_IFLNK => Kind::Link(target().parse().unwrap()),
            _ => {
                let data = m.fs.read(attr.ino, 0, 1 << 20).unwrap();
                assert_eq!(data.len() as u64, attr.meta.size);
                if data.len() == 1 { Kind::File(data[0]) } else { Kind::Large(data[0]) }
            }
        };
        versions.push((name, kind));
    }
    shape.insert(path.to_owned(), (folders, versions, latest));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_shown_is_what_the_snapshots_have(
        // One is deleted: a list with none left is taken for a repository that is out of reach.
        edits in prop::collection::vec((any_edits(), any::<u64>()), 2..7),
        stream_chunk in prop_oneof![Just(60usize), Just(150), Just(1000), Just(10_000)],
        deleted in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut repo = with_cache(dir.path(), Encryption::None);
        repo.stream_chunk = stream_chunk;
        let (mut state, mut snapshots, mut names) = (State::new(), Vec::new(), Vec::new());
        let m = repo.mount();
        for (n, (edits, seed)) in (1..).zip(&edits) {
            apply(&mut state, edits);
            let made = items(&mut repo, &state, *seed);
            // Two in each second.
            let time = format!("2026-01-{:02}T00:00:00Z", n / 2 + 1);
            let stored: Vec<_> = made.iter().map(|(_, _, item)| item.clone()).collect();
            repo.snapshot(n, meta("n", "h", "l", &time), &stored);
            let suffix = if n > 1 && n % 2 == 1 { "-2" } else { "" };
            names.push(format!("{}{suffix}", time.replace(':', "-").trim_end_matches('Z')));
            snapshots.push(made.into_iter().map(|(path, kind, _)| (path, kind)).collect::<Vec<_>>());
            m.fs.expire();
            if n == 2 {
                m.fs.learn_versions();
            }
        }
        let shape = |m: &Mounted| {
            let mut shape = Shape::new();
            found(m, "", &mut shape);
            shape
        };
        prop_assert_eq!(shape(&m), expected(&snapshots, &names));
        let before = repo.line.pack_reads.load(Relaxed);
        let mut again = repo.mount();
        again.fs.learn_versions();
        prop_assert_eq!(repo.line.pack_reads.load(Relaxed), before, "the local file knows all");
        again.fs.forget_trees();
        prop_assert_eq!(shape(&again), expected(&snapshots, &names));
        let at = deleted.index(snapshots.len());
        repo.backend.delete(&snapshot_key(&SnapshotId([at as u8 + 1; 32]))).unwrap();
        snapshots.remove(at);
        // The other one of its second keeps the name that it has.
        names.remove(at);
        m.fs.expire();
        again.fs.expire();
        prop_assert_eq!(shape(&m), expected(&snapshots, &names));
        prop_assert_eq!(shape(&again), expected(&snapshots, &names));
        // Some files have a second item.
        prop_assert!(m.log().iter().all(|line| line.ends_with("the first one counts")), "{:?}", m.log());
    }
}
