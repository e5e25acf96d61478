//! What a mount shows while a part of the repository is away, damaged or moved: never less than there is, as if that
//! were all.

use std::collections::BTreeMap;
use std::time::Instant;

use vykar_core::format::{Encryption, Item};
use vykar_core::repository::objects::manifest::read_snapshot;
use vykar_core::repository::{OpenOptions, snapshot_key};
use vykar_core::storage::Backend;

use super::*;
use crate::testing::{Fault, Mounted, Repo, meta};
use crate::view::inode::ROOT;

const TIMES: [&str; 3] = ["2026-01-02T03:04:05Z", "2026-01-03T03:04:05Z", "2026-01-04T03:04:05Z"];

fn name(n: usize) -> String {
    format!("s{n}")
}

/// Some snapshots of 40 files each, whose items take several chunks and are in packs of their own.
fn repo(cache: Option<&std::path::Path>) -> Repo {
    let open = OpenOptions { cache_dir: cache.map(Into::into), trust: false };
    let mut repo = Repo::with(Encryption::None, &open);
    repo.stream_chunk = 400;
    for n in 0..2 {
        add(&mut repo, n);
    }
    repo
}

fn add(repo: &mut Repo, n: usize) -> vykar_core::SnapshotId {
    let items: Vec<Item<'_>> =
        (0..40u8).map(|f| repo.file(&format!("f{f:02}"), &[&[f, n as u8, 1], &[f, n as u8, 2]])).collect();
    repo.snapshot(n as u8 + 1, meta(&name(n), "h", "l", TIMES[n]), &items)
}

fn content(n: usize, f: u8) -> [u8; 6] {
    [f, n as u8, 1, f, n as u8, 2]
}

/// A listing to its end, as the kernel reads it.
fn listing(m: &Mounted, ino: u64) -> Result<BTreeMap<Vec<u8>, Attr>> {
    let (mut found, mut offset) = (BTreeMap::new(), 2);
    loop {
        let before = offset;
        m.fs.readdir(ino, offset, &mut |child, next| {
            found.insert(child.name.to_vec(), child.attr);
            offset = next;
            false
        })?;
        if offset == before {
            return Ok(found);
        }
    }
}

/// Looks at everything: what is shown is whole, or an error. True when nothing was an error.
fn look(m: &Mounted, snapshots: usize) -> bool {
    look_with(m, snapshots, &[FsError::Io, FsError::Damaged])
}

fn look_with(m: &Mounted, snapshots: usize, errors: &[FsError]) -> bool {
    let mut whole = true;
    let mut note = |error: FsError| {
        assert!(errors.contains(&error), "{error:?}");
        whole = false;
    };
    let ids = m.ino("ids");
    match listing(m, ids) {
        Ok(found) => assert_eq!(found.len(), snapshots, "{:?}", found.keys()),
        Err(e) => note(e),
    }
    for n in 0..snapshots {
        let root = match m.fs.lookup(ids, name(n).as_bytes()) {
            Ok(LookupEntry::Found(attr, _)) => attr.ino,
            Ok(LookupEntry::Absent(_)) => panic!("no {n}"),
            Err(e) => {
                note(e);
                continue;
            }
        };
        let files = match listing(m, root) {
            Ok(found) => found,
            Err(e) => {
                note(e);
                continue;
            }
        };
        assert_eq!(files.len(), 40, "snapshot {n}");
        for (f, attr) in (0..).zip(files.values()) {
            match m.fs.read(attr.ino, 0, 100) {
                Ok(data) => assert_eq!(*data, content(n, f)),
                Err(e) => note(e),
            }
        }
    }
    match m.fs.lookup(ROOT, b"versions").map(|entry| match entry {
        LookupEntry::Found(attr, _) => listing(m, attr.ino),
        LookupEntry::Absent(_) => panic!("no versions"),
    }) {
        Ok(Ok(found)) => assert_eq!(found.len(), 40),
        Ok(Err(e)) | Err(e) => note(e),
    }
    whole
}

/// Looks until everything is there again.
fn heals(m: &mut Mounted, snapshots: usize) {
    let began = Instant::now();
    // Once, where a tree is another one than before.
    while !look_with(m, snapshots, &[FsError::Io, FsError::Damaged, FsError::Stale]) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:#?}", m.log());
        std::thread::sleep(Duration::from_millis(50));
        m.fs.expire();
    }
}

#[test]
fn a_live_snapshot_whose_items_were_moved_a_moment_after_the_index_was_read_is_shown_whole() {
    let mut repo = repo(None);
    let m = repo.mount();
    assert_eq!(m.fs.read(m.ino("ids/s1/f00"), 0, 9).unwrap()[..], content(1, 0), "the index is read");
    add(&mut repo, 2);
    m.fs.expire();
    assert_eq!(m.fs.read(m.ino("ids/s2/f00"), 0, 9).unwrap()[..], content(2, 0), "and again");
    let before = m.ino("ids/s2/f01");
    for _ in 0..3 {
        repo.move_chunks();
        assert_eq!(m.fs.read(before, 0, 9).unwrap()[..], content(2, 1));
    }
    repo.move_chunks();
    assert!(look(&m, 3), "{:#?}", m.log());
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn versions_are_whole_a_moment_after_their_items_were_moved() {
    let mut repo = repo(None);
    let mut m = repo.mount();
    assert_eq!(m.list("versions").len(), 40);
    m.fs.forget_trees();
    repo.move_chunks();
    m.ino("versions/f00");
    m.fs.forget_trees();
    repo.move_chunks();
    assert_eq!(m.list("versions/f01"), ["2026-01-02T03-04-05", "2026-01-03T03-04-05", "latest"]);
    assert_eq!(m.log(), [""; 0]);
}

#[test]
fn whatever_part_is_away_nothing_is_shown_as_empty_or_zero_and_all_comes_back() {
    let shown = || Shown { on_damage: OnDamage::Zero, ..Shown::default() };
    for part in ["", "packs/", "snapshots/", "index"] {
        for missing in [true, false] {
            for seen in [false, true] {
                let repo = repo(None);
                // Chunks and trees are not kept, so that each is looked for again.
                let mut m = repo.mount_shown((0, 0), shown()).unwrap();
                if seen {
                    assert!(look(&m, 2), "{part:?}");
                }
                repo.line.set_fault(Some(Fault { part: part.to_owned(), missing }));
                m.fs.expire();
                m.fs.forget_trees();
                let whole = look(&m, 2);
                // Of a chunk index that was read before, and of snapshots that are known, nothing is missed.
                let is_needed = match part {
                    "index" => !seen,
                    _ => true,
                };
                assert_eq!(whole, !is_needed, "{part:?} missing {missing} seen {seen}");
                assert!(!m.log().iter().any(|line| line.contains("zeros")), "{:#?}", m.log());
                repo.line.set_fault(None);
                heals(&mut m, 2);
            }
        }
    }
}

#[test]
fn a_repository_that_is_away_is_said_to_be_and_to_be_back() {
    let repo = repo(None);
    let mut m = repo.mount();
    repo.line.set_fault(Some(Fault { part: String::new(), missing: true }));
    for _ in 0..3 {
        m.fs.expire();
        assert_eq!(m.list("ids").len(), 2);
    }
    assert_eq!(m.log().len(), 1, "{:#?}", m.log());
    assert!(m.log()[0].starts_with("the repository is out of reach: "), "{:#?}", m.log());
    repo.line.set_fault(None);
    m.fs.expire();
    heals(&mut m, 2);
    assert!(m.log().contains(&"the repository is in reach again".to_owned()), "{:#?}", m.log());
}

#[test]
fn a_snapshot_that_cannot_be_read_yet_makes_folders_end_with_an_error() {
    let mut repo = repo(None);
    let mut m = repo.mount();
    let id = add(&mut repo, 2);
    repo.line.set_fault(Some(Fault { part: snapshot_key(&id), missing: false }));
    m.fs.expire();
    for folder in ["ids", "snapshots", "labels/l"] {
        let ino = m.ino(folder);
        assert_eq!(listing(&m, ino).err(), Some(FsError::Io), "{folder}");
        assert_eq!(m.fs.lookup(ino, b"s2"), Err(FsError::Io), "{folder}");
        assert!(m.list(folder).len() >= 2, "what is known is there");
    }
    repo.line.set_fault(None);
    heals(&mut m, 3);
}

#[test]
fn snapshots_that_were_all_deleted_are_gone_and_those_out_of_reach_are_not_mounted_as_none() {
    let mut repo = repo(None);
    let m = repo.mount();
    repo.line.set_fault(Some(Fault { part: "snapshots/".to_owned(), missing: true }));
    let refused = repo.mount_shown((0, 0), Shown::default()).err().unwrap().to_string();
    assert!(refused.contains("snapshots/ is out of reach"), "{refused}");
    repo.line.set_fault(None);
    for n in 1..3 {
        repo.backend.delete(&snapshot_key(&vykar_core::SnapshotId([n; 32]))).unwrap();
    }
    m.fs.expire();
    assert_eq!(m.list("ids").len(), 2, "the index still counts what they have");
    repo.forget_chunks();
    m.fs.expire();
    assert_eq!(m.list("ids"), [""; 0]);
}

#[test]
fn a_snapshot_that_lost_a_part_of_its_items_never_looks_whole() {
    let mut repo = repo(None);
    let id = add(&mut repo, 2);
    let pointers = read_snapshot(&repo.repository, &id).unwrap().meta.item_ptrs;
    let repair = repo.damage(&pointers[2]);
    let mut m = repo.mount();
    let root = m.ino("ids/s2");
    let mut known = 0;
    m.fs.readdir(root, 2, &mut |child, _| {
        assert_eq!(child.ttl, MOMENT, "the kernel must ask again");
        known += 1;
        false
    })
    .unwrap();
    assert!(known > 0 && known < 40, "{known}");
    assert_eq!(listing(&m, root).err(), Some(FsError::Damaged));
    assert_eq!(m.fs.lookup(root, b"f39"), Err(FsError::Damaged), "it may be there");
    assert_eq!(&*m.fs.read(m.ino("ids/s2/f00"), 0, 9).unwrap(), content(2, 0), "what is known is right");
    let versions = m.ino("versions");
    assert_eq!(listing(&m, versions).err(), Some(FsError::Damaged));
    assert_eq!(m.fs.lookup(versions, b"nothing"), Err(FsError::Damaged));
    repair();
    m.fs.forget_trees();
    m.fs.expire();
    heals(&mut m, 3);
}

#[test]
fn a_local_copy_of_the_index_that_is_written_to_while_it_is_used_costs_time_only() {
    for cache_size in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo(Some(dir.path()));
        let copy = repo.repository.cache_dir().unwrap().join("index");
        let shown = || Shown { on_damage: OnDamage::Zero, ..Shown::default() };
        type Harm<'h> = &'h dyn Fn(&std::fs::File, u64);
        let write = |file: &std::fs::File, bytes: &[u8]| {
            std::os::unix::fs::FileExt::write_all_at(file, bytes, 0).unwrap()
        };
        let harms: [Harm<'_>; 6] = [
            &|file, _| file.set_len(0).unwrap(),
            &|file, len| file.set_len(len / 2).unwrap(),
            // In the last page: what is behind the end is zeros at once, without any signal.
            &|file, len| file.set_len(len - 300).unwrap(),
            // Only touched.
            &|file, _| file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
            &|file, len| write(file, &vec![0; len as usize]),
            &|file, len| write(file, &vec![0x5a; len as usize]),
        ];
        for harm in harms {
            let mut m = repo.mount_shown((cache_size, 1 << 20), shown()).unwrap();
            let (one, _) = (m.ino("ids/s0/f00"), m.ino("ids/s1"));
            assert_eq!(&*m.fs.read(one, 0, 9).unwrap(), content(0, 0));
            let file = std::fs::File::options().write(true).open(&copy).unwrap();
            let len = file.metadata().unwrap().len();
            harm(&file, len);
            assert!(look(&m, 2), "{:#?}", m.log());
            m.fs.forget_trees();
            assert!(look(&m, 2), "{:#?}", m.log());
            assert_eq!(m.log(), [""; 0]);
        }
    }
}
