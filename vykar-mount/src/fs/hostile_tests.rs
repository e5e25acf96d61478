//! Snapshots that no honest program writes are mounted, listed and read without harm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use vykar_core::ChunkId;
use vykar_core::export::archive;
use vykar_core::format::{ChunkRef, Item, ItemType};
use vykar_core::restore::{RestoreOptions, restore};

use super::*;
use crate::testing::{Mounted, Repo, meta};

fn dir(path: impl Into<String>) -> Item<'static> {
    Item { mode: 0o040_755, ..Item::new(path.into(), ItemType::Directory) }
}

fn link(path: &str, target: &str) -> Item<'static> {
    Item { link_target: Some(target.to_owned().into()), ..Item::new(path.to_owned(), ItemType::Symlink) }
}

fn mount(repo: &mut Repo, items: &[Item<'_>]) -> Mounted {
    repo.stream_chunk = 1 << 20;
    repo.snapshot(0x11, meta("one", "h", "l", "2026-01-02T03:04:05Z"), items);
    repo.mount()
}

/// Everything below an inode, each name with the type bits of its mode, after every call was tried on it.
fn walk(m: &Mounted, ino: u64) -> Vec<(String, u32)> {
    let (mut found, mut todo) = (Vec::new(), vec![(ino, String::new())]);
    while let Some((at, path)) = todo.pop() {
        let mut children = Vec::new();
        m.fs.readdir(at, 0, &mut |child, _| {
            children.push((child.name.to_vec(), child.attr.ino));
            false
        })
        .unwrap();
        for (name, ino) in children.into_iter().filter(|(name, _)| name != b"." && name != b"..") {
            assert!(!name.is_empty() && name.len() <= 255, "{} bytes", name.len());
            assert!(!name.contains(&b'/') && !name.contains(&0));
            assert!(matches!(m.fs.lookup(at, &name), Ok(LookupEntry::Found(attr, _)) if attr.ino == ino));
            let attr = m.fs.getattr(ino).unwrap().0;
            let name = format!("{path}{}", String::from_utf8_lossy(&name));
            let kind = u32::from(attr.meta.mode) & libc::S_IFMT;
            for offset in [0, 1, attr.meta.size / 2, attr.meta.size.saturating_sub(1), u64::MAX] {
                let read = m.fs.read(ino, offset, 128 << 10);
                // What is longer than that here is a lie.
                let honest = kind == libc::S_IFREG && attr.meta.size <= 5;
                assert!(read.map_or(!honest, |data| data.len() <= 128 << 10), "{name}");
            }
            for (offset, whence) in [(0, Seek::Data), (i64::MAX, Seek::Hole), (i64::MIN, Seek::Data)] {
                let _ = m.fs.seek(ino, offset, whence);
            }
            let names = m.fs.listxattr(ino, || true).unwrap();
            assert!(names.len() <= 64 << 10, "{} bytes of names", names.len());
            let _ = m.fs.readlink(ino);
            if kind == libc::S_IFDIR {
                todo.push((ino, format!("{name}/")));
            }
            found.push((name, kind));
        }
    }
    found.sort();
    found
}

fn names(m: &Mounted) -> Vec<String> {
    walk(m, m.ino("ids/one")).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn names_that_are_none_are_left_out_and_logged() {
    let mut repo = Repo::new();
    let bad = ["..", ".", "", "/", "/etc/passwd", "../x", "a/../x", "a//b", "./a", "a/", "nul\0", "a/\0"];
    let long = ["n".repeat(256), format!("d/{}/f", "n".repeat(300))];
    let mut items: Vec<_> = bad.into_iter().chain(long.iter().map(|n| &**n)).map(dir).collect();
    items.push(dir("n".repeat(255)));
    items.push(repo.file("good", &[b"good!"]));
    let m = mount(&mut repo, &items);
    assert_eq!(names(&m), ["good".to_owned(), "n".repeat(255)]);
    assert_eq!(m.log().len(), bad.len() + long.len(), "{:#?}", m.log());
    let long = "n".repeat(255);
    let versions = walk(&m, m.ino("versions"));
    assert!(versions.len() >= 3, "the good one, its version, and the longest name");
    assert!(
        versions.iter().all(|(name, _)| name.starts_with("good") || name.starts_with(&long)),
        "{versions:?}"
    );
}

#[test]
fn paths_that_are_their_own_ancestors_end() {
    let mut repo = Repo::new();
    let items = [
        repo.file("a", &[b"file"]),
        repo.file("a/a", &[b"below"]),
        dir("a/a/a"),
        dir("b/b/b"),
        repo.file("b/b", &[b"was a"]),
        link("b", "b/b"),
        link("s", "s"),
        repo.file("s/s", &[b"loop"]),
        link("t", "t/../../.."),
    ];
    let m = mount(&mut repo, &items);
    let found = walk(&m, m.ino("ids/one"));
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "b/b", "b/b/b", "s", "t"]);
    assert_eq!(found.iter().filter(|(_, kind)| *kind == libc::S_IFDIR).count(), 3);
    assert_eq!(m.fs.read(m.ino("ids/one/a"), 0, 10).unwrap(), &b"file"[..]);
}

#[test]
fn a_hundred_thousand_entries_of_one_name_are_one() {
    let mut repo = Repo::new();
    let mut items = vec![dir("same"); 100_000];
    items.push(repo.file("same/f", &[b"good!"]));
    items.extend(vec![link("same", "elsewhere"); 1000]);
    let m = mount(&mut repo, &items);
    assert_eq!(names(&m), ["same", "same/f"]);
    assert!(m.log().len() < 200, "{}", m.log().len());
}

#[test]
fn ten_thousand_levels_are_walked_and_said_where_they_lead() {
    let mut repo = Repo::new();
    let deep = vec!["d"; 10_000].join("/");
    let items = [dir(deep.clone()), repo.file(&format!("{deep}/f"), &[b"deep!"])];
    let m = mount(&mut repo, &items);
    let ino = m.ino(&format!("ids/one/{deep}/f"));
    assert_eq!(m.fs.read(ino, 0, 10).unwrap(), &b"deep!"[..]);
    let mut at = m.ino("ids/one");
    for _ in 0..10_000 {
        match m.fs.lookup(at, b"d").unwrap() {
            LookupEntry::Found(attr, _) => at = attr.ino,
            LookupEntry::Absent(_) => panic!("a level is missing"),
        }
    }
    assert!(m.find(&format!("versions/{deep}/f")).is_some());
}

#[test]
fn claimed_sizes_are_errors_and_no_memory() {
    for on_damage in [OnDamage::Error, OnDamage::Zero] {
        let mut repo = Repo::new();
        let real = repo.file("real", &[b"five!"]).chunks[0];
        let four_gib = ChunkRef { size: u32::MAX, ..real };
        let gone = ChunkRef { id: ChunkId([9; 32]), ..four_gib };
        let claim = |path: &str, size: u64, chunks: Vec<ChunkRef>| Item {
            size,
            chunks,
            mode: 0o100_644,
            ..Item::new(path.to_owned(), ItemType::RegularFile)
        };
        let items = [
            claim("nothing", 1 << 63, vec![]),
            claim("nothing-either", u64::MAX, vec![]),
            claim("one", u32::MAX.into(), vec![four_gib]),
            claim("gone", u32::MAX.into(), vec![gone]),
            claim("many", u64::from(u32::MAX) * 1000, vec![four_gib; 1000]),
        ];
        repo.snapshot(0x11, meta("one", "h", "l", "2026-01-02T03:04:05Z"), &items);
        let shown = Shown { on_damage, ..Shown::default() };
        let m = repo.mount_shown((1 << 20, 1 << 20), shown).unwrap();
        assert_eq!(names(&m), ["gone", "many", "one"]);
        for name in ["gone", "many", "one"] {
            let ino = m.ino(&format!("ids/one/{name}"));
            assert_eq!(m.fs.read(ino, 1 << 20, 4096), Err(FsError::Io), "{name}");
        }
    }
}

#[test]
fn attributes_that_are_too_many_cost_their_item_and_odd_ones_only_themselves() {
    let mut repo = Repo::new();
    let many = (0..70_000).map(|n| (format!("user.{n}").into(), vec![].into())).collect();
    let odd = vec![("".into(), vec![1].into()), ("user.large".into(), vec![1; 100_000].into())];
    let items = [
        Item { xattrs: Some(many), ..repo.file("many", &[b"many!"]) },
        Item { xattrs: Some(odd), ..repo.file("odd", &[b"odd!!"]) },
    ];
    let m = mount(&mut repo, &items);
    assert_eq!(names(&m), ["odd"]);
    assert_eq!(m.fs.listxattr(m.ino("ids/one/odd"), || true).unwrap(), b"");
}

#[test]
fn nothing_is_a_device_whatever_its_mode_says() {
    let mut repo = Repo::new();
    let items = [
        Item { mode: 0o060_644, ..repo.file("block", &[b"block"]) },
        Item { mode: 0o104_755, ..repo.file("setuid", &[b"suid!"]) },
        Item { mode: 0o020_755, ..dir("char") },
    ];
    let m = mount(&mut repo, &items);
    let kinds: Vec<_> = walk(&m, m.ino("ids/one")).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [libc::S_IFREG, libc::S_IFDIR, libc::S_IFREG]);
}

/// What is below an inode: what a file holds, or where a symlink points, and nothing for a directory.
fn shown(m: &Mounted, ino: u64) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for (path, kind) in walk(m, ino) {
        let at = m.ino(&format!("ids/one/{path}"));
        let content = match kind {
            libc::S_IFREG => Some(m.fs.read(at, 0, 10).unwrap().to_vec()),
            libc::S_IFLNK => Some(m.fs.readlink(at).unwrap().to_vec()),
            _ => None,
        };
        all.insert(path, content);
    }
    all
}

/// What is below a folder.
fn restored(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let (mut all, mut todo) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if kind.is_dir() {
                all.insert(name, None);
                todo.push(path);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                all.insert(name, Some(target.into_os_string().into_encoded_bytes()));
            } else {
                all.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// The names in an archive of short names and files of 5 bytes.
fn archived(tar: &[u8]) -> BTreeSet<String> {
    let headers = tar.chunks(512).filter(|block| block[257..].starts_with(b"ustar"));
    let names = headers.map(|block| {
        let end = block[..100].iter().position(|c| *c == 0).unwrap();
        String::from_utf8(block[..end].to_vec()).unwrap()
    });
    // The root's own entry has no counterpart in a list of what is in it.
    let inside = names.filter(|name| !["./", "PaxHeaders/."].contains(&&**name));
    inside.map(|name| name.trim_end_matches('/').to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_mount_shows_what_a_restore_and_an_archive_give_whatever_is_there_twice(
        items in prop::collection::vec(("([ab]|n{256})(/[ab]){0,3}", 0..3u8), 0..20),
    ) {
        let mut repo = Repo::new();
        let items: Vec<_> = items.iter().zip(0u8..).map(|((path, kind), n)| match kind {
            0 => dir(path.clone()),
            1 => repo.file(path, &[&[n; 5]]),
            _ => link(path, &format!("to {n:02}")),
        }).collect();
        let m = mount(&mut repo, &items);
        let found = shown(&m, m.ino("ids/one"));
        let manifest = repo.repository.manifest().unwrap();
        let dest = tempfile::tempdir().unwrap();
        let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
        let summary = restore(&repo.repository, &manifest.snapshots[0], dest.path(), &options, None).unwrap();
        prop_assert_eq!(&restored(dest.path()), &found);
        prop_assert_eq!(m.log().len() as u64, summary.errors, "{:#?}", m.log());
        let mut tar = Vec::new();
        let written = archive(&repo.repository, &manifest.snapshots[0], b"", &mut tar, None).unwrap();
        prop_assert_eq!(archived(&tar), found.keys().cloned().collect::<BTreeSet<_>>());
        prop_assert_eq!(written.left_out, summary.errors);
    }
}
