use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use vykar_core::format::{Item, ItemType};

use crate::errno::FsError;
use crate::testing::{Mounted, Repo, eventually, meta};

/// What was stored into a kernel's page cache, by inode.
type Pages = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// A snapshot of `n` small files in folders of ten, and what is stored ahead of its readers into the pages of
/// files that the kernel `knows`.
fn walked(n: usize, knows: impl Fn(u64) -> bool + Send + Sync + 'static) -> (Mounted, Vec<String>, Pages) {
    let mut repo = Repo::new();
    let mut items: Vec<_> = (0..n.div_ceil(10)).map(|d| dir_owned(format!("d{d:03}"))).collect();
    let mut paths = Vec::new();
    for n in 0..n {
        let path = format!("d{:03}/f{n:04}", n / 10);
        items.push(repo.file(&path, &[format!("content of {n}").as_bytes()]));
        paths.push(format!("ids/one/{path}"));
    }
    repo.snapshot(0x11, meta("one", "web", "docs", "2026-01-02T03:04:05Z"), &items);
    let mounted = repo.mount();
    let pages = Pages::default();
    let to = pages.clone();
    mounted.fs.set_store(Box::new(move |ino, offset, data| {
        assert_eq!(offset, 0, "files of one chunk");
        if knows(ino) {
            to.lock().insert(ino, data.to_vec());
        }
    }));
    (mounted, paths, pages)
}

fn dir_owned(path: String) -> Item<'static> {
    Item { mode: 0o700, ..Item::new(path, ItemType::Directory) }
}

/// Waits until nothing more is stored, and counts what was.
fn settle(m: &Mounted, pages: &Pages) -> usize {
    eventually(|| m.fs.is_idle());
    pages.lock().len()
}

#[test]
fn a_walk_is_recognised_and_most_files_are_stored_before_they_are_asked_for() {
    let (m, paths, pages) = walked(1000, |_| true);
    let mut asked = 0;
    for (n, path) in paths.iter().enumerate() {
        let ino = m.ino(path);
        let expected = format!("content of {n}");
        // Like the kernel: what is in the page cache is not asked for.
        settle(&m, &pages);
        match pages.lock().get(&ino) {
            Some(data) => assert_eq!(data, expected.as_bytes()),
            None => asked += 1,
        }
        if !pages.lock().contains_key(&ino) {
            assert_eq!(m.fs.read(ino, 0, 100).unwrap(), expected.as_bytes());
        }
    }
    assert!(asked < 60, "{asked} of 1000 were asked for");
    assert_eq!(m.log(), [""; 0]);
}

/// Reads files as the kernel does that keeps pages only of files it knows; counts what it asks for.
fn asked_by_a_walk_that_lists(m: &Mounted, pages: &Pages, known: &Mutex<BTreeSet<u64>>) -> usize {
    let mut asked = 0;
    for dir in m.list("ids/one") {
        let ino = m.ino(&format!("ids/one/{dir}"));
        let mut entries = Vec::new();
        let mut end = 0;
        m.fs.readdir(ino, 0, &mut |child, next| {
            end = next;
            entries.push(child.attr);
            false
        })
        .unwrap();
        known.lock().extend(entries.iter().map(|attr| attr.ino));
        m.fs.readdir(ino, end, &mut |_, _| false).unwrap();
        settle(m, pages);
        for file in entries.iter().filter(|attr| !attr.meta.is_dir()) {
            if !pages.lock().contains_key(&file.ino) {
                asked += 1;
                m.fs.read(file.ino, 0, 100).unwrap();
            }
            settle(m, pages);
        }
    }
    asked
}

#[test]
fn files_become_known_by_listings_and_are_stored_then() {
    let known = Arc::new(Mutex::new(BTreeSet::new()));
    let knows = known.clone();
    let (m, _, pages) = walked(1000, move |ino| knows.lock().contains(&ino));
    let asked = asked_by_a_walk_that_lists(&m, &pages, &known);
    assert!(asked < 100, "{asked} of 1000 were asked for");
}

#[test]
fn a_walk_that_only_lists_is_not_decoded_for() {
    let (m, paths, pages) = walked(1000, |_| true);
    for path in &paths[..4] {
        m.fs.read(m.ino(path), 0, 100).unwrap();
    }
    for dir in m.list("ids/one") {
        m.fs.readdir(m.ino(&format!("ids/one/{dir}")), 12, &mut |_, _| false).unwrap();
    }
    let stored = settle(&m, &pages);
    assert!(stored < 800, "{stored} were stored; it stops after some files without a read");
}

#[test]
fn files_read_here_and_there_are_no_walk() {
    let (m, paths, pages) = walked(1000, |_| true);
    for n in [5, 900, 3, 700, 100, 500, 2, 999] {
        m.fs.read(m.ino(&paths[n]), 0, 100).unwrap();
    }
    assert_eq!(settle(&m, &pages), 0);
}

#[test]
fn only_what_was_decoded_right_is_stored() {
    let mut repo = Repo::new();
    let items: Vec<_> =
        (0..100).map(|n| repo.file(&format!("f{n:03}"), &[format!("content of {n}").as_bytes()])).collect();
    let _undo = repo.damage(&items[20].chunks[0].id);
    repo.snapshot(0x11, meta("one", "web", "docs", "2026-01-02T03:04:05Z"), &items);
    let m = repo.mount();
    let pages = Pages::default();
    let to = pages.clone();
    m.fs.set_store(Box::new(move |ino, _, data| drop(to.lock().insert(ino, data.to_vec()))));
    for n in 0..6 {
        m.fs.read(m.ino(&format!("ids/one/f{n:03}")), 0, 100).unwrap();
        settle(&m, &pages);
    }
    assert!(settle(&m, &pages) > 15);
    let bad = m.ino("ids/one/f020");
    assert!(!pages.lock().contains_key(&bad));
    assert!(matches!(m.fs.read(bad, 0, 100), Err(FsError::Io)));
    assert!(m.log()[0].contains("f020"));
}
