//! Restoring into what is there already.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::event::Restoring;
use crate::format::{Item, ItemType};
use crate::restore::Overwrite;
use crate::testing::TestRepository;

const SECOND: i64 = 1_000_000_000;

/// A folder `d` with two files, a symlink and a FIFO, all of 1970.
fn sample(t: &mut TestRepository) -> Snapshot {
    let at = |item: Item<'static>| Item { mtime: 5 * SECOND, ..item };
    let me = |item: Item<'static>| {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Item { uid, gid, ..item }
    };
    let items = [
        me(at(Item { mode: 0o040_750, ..Item::new("d", ItemType::Directory) })),
        at(t.file("d/a", b"content of a")),
        at(t.file("d/b", b"content of b")),
        me(at(Item { link_target: Some("a".into()), ..Item::new("d/link", ItemType::Symlink) })),
    ];
    t.snapshot("s", &items, None)
}

fn with(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions { overwrite, ..RestoreOptions::default() }
}

/// Restores again into what another restore made.
fn again(t: &TestRepository, snapshot: &Snapshot, first: Restored, options: &RestoreOptions) -> Restored {
    run_in(first.around, &t.repository, snapshot, options)
}

#[test]
fn what_is_right_already_is_left_alone_and_no_error() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    let inode = first.metadata("d/a").ino();
    let second = again(&t, &snapshot, first, &with(Overwrite::Never));
    assert!(second.failed.is_empty(), "{:?}", second.failed);
    assert_eq!((second.summary.files, second.summary.unchanged), (0, 3));
    assert_eq!(second.metadata("d/a").ino(), inode);
}

#[test]
fn what_differs_is_replaced_only_when_asked_for() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    let change = |dest: PathBuf| {
        fs::write(dest.join("d/a"), b"half").unwrap();
        fs::remove_file(dest.join("d/link")).unwrap();
        symlink("elsewhere", dest.join("d/link")).unwrap();
        fs::set_permissions(dest.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::set_permissions(dest.join("d/b"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    change(first.dest());
    let never = again(&t, &snapshot, first, &with(Overwrite::Never));
    assert_eq!(never.failed, ["d/a: exists already; left as it is", "d/link: exists already; left as it is"]);
    assert_eq!((never.read("d/a"), never.summary.unchanged), (b"half".to_vec(), 1));
    let changed = again(&t, &snapshot, never, &with(Overwrite::IfChanged));
    assert!(changed.failed.is_empty(), "{:?}", changed.failed);
    assert_eq!((changed.summary.files, changed.summary.symlinks, changed.summary.unchanged), (1, 1, 1));
    assert_eq!(changed.read("d/a"), b"content of a");
    assert_eq!(changed.metadata("d/a").mtime(), 5);
    assert_eq!(changed.metadata("d/b").mode() & 0o7777, 0o644, "metadata is corrected");
    assert_eq!((changed.metadata("d").mode() & 0o7777, changed.metadata("d").mtime()), (0o750, 5));
    assert_eq!(fs::read_link(changed.dest().join("d/link")).unwrap(), Path::new("a"));
    let names: Vec<_> = walk(&changed.dest()).into_keys().collect();
    assert_eq!(names.len(), 4, "nothing is left over: {names:?}");
    let inode = changed.metadata("d/b").ino();
    let always = again(&t, &snapshot, changed, &with(Overwrite::Always));
    assert_eq!((always.summary.files, always.summary.unchanged), (2, 0));
    assert_ne!(always.metadata("d/b").ino(), inode);
}

#[test]
fn what_is_newer_there_stays_when_only_older_ones_are_replaced() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    fs::write(first.dest().join("d/a"), b"newer").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::write(first.dest().join("d/b"), b"older").unwrap();
    fs::File::options().write(true).open(first.dest().join("d/b")).unwrap().set_modified(old).unwrap();
    let second = again(&t, &snapshot, first, &with(Overwrite::IfNewer));
    assert!(second.failed.is_empty(), "{:?}", second.failed);
    assert_eq!((second.read("d/a"), second.read("d/b")), (b"newer".to_vec(), b"content of b".to_vec()));
}

#[test]
fn content_that_only_looks_right_is_found_by_reading_it() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    let file = first.dest().join("d/a");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, b"CONTENT OF A").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let looks = again(&t, &snapshot, first, &with(Overwrite::IfChanged));
    assert_eq!(looks.summary.unchanged, 3);
    let options = RestoreOptions { verify: true, ..with(Overwrite::IfChanged) };
    let read = again(&t, &snapshot, looks, &options);
    assert_eq!((read.summary.files, read.summary.unchanged), (1, 2));
    assert_eq!(read.read("d/a"), b"content of a");
}

#[test]
fn hard_links_are_made_again_where_they_were_lost() {
    let mut t = TestRepository::new();
    let linked = |item: Item<'static>| Item { hardlink: Some((1, 2)), mtime: SECOND, ..item };
    let items = ["a", "b", "c"].map(|path| linked(t.file(path, b"same")));
    let snapshot = t.snapshot("s", &items, None);
    let first = run(&t.repository, &snapshot);
    let dest = first.dest();
    fs::copy(dest.join("a"), dest.join("x")).unwrap();
    let time = fs::metadata(dest.join("a")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(dest.join("x")).unwrap().set_modified(time).unwrap();
    fs::rename(dest.join("x"), dest.join("b")).unwrap();
    let second = again(&t, &snapshot, first, &with(Overwrite::IfChanged));
    assert!(second.failed.is_empty(), "{:?}", second.failed);
    assert_eq!(second.metadata("a").nlink(), 3);
    assert_eq!(walk(&second.dest()).len(), 3);
    let third = again(&t, &snapshot, second, &with(Overwrite::Always));
    assert_eq!((third.metadata("a").nlink(), walk(&third.dest()).len()), (3, 3));
}

#[test]
fn rules_choose_what_comes_back() {
    let mut t = TestRepository::new();
    let items =
        ["home/a.txt", "home/b.jpg", "home/deep/c.txt", "home/deep/tmp/d.txt"].map(|p| t.file(p, b"x"));
    let snapshot = t.snapshot("s", &items, None);
    let options = RestoreOptions {
        include: vec!["*.txt".into()],
        exclude: vec!["tmp/".into()],
        ..RestoreOptions::default()
    };
    let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
    let files: Vec<_> =
        walk(&restored.dest()).into_iter().filter(|(_, m)| m.is_file()).map(|(p, _)| p).collect();
    assert_eq!(files, [&b"home/a.txt"[..], b"home/deep/c.txt"]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let dry = |overwrite| RestoreOptions { dry_run: true, ..with(overwrite) };
    let said = |restored: &Restored| {
        let planned = restored.events.iter().filter_map(|event| match event {
            Event::PlannedRestore { path, what } => Some((path.display().to_string(), *what)),
            _ => None,
        });
        planned.collect::<BTreeMap<_, _>>()
    };
    let nothing = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &dry(Overwrite::Never));
    assert!(!nothing.dest().exists());
    assert_eq!(said(&nothing).values().collect::<Vec<_>>(), [&Restoring::Make; 5]);
    assert_eq!(said(&nothing)["."], Restoring::Make);
    assert_eq!((nothing.summary.files, nothing.summary.bytes), (2, 24));
    let first = run(&t.repository, &snapshot);
    fs::write(first.dest().join("d/a"), b"mine").unwrap();
    let never = again(&t, &snapshot, first, &dry(Overwrite::Never));
    assert_eq!(never.failed, ["d/a: exists already; left as it is"]);
    let changed = again(&t, &snapshot, never, &dry(Overwrite::IfChanged));
    assert_eq!(said(&changed)["d/a"], Restoring::Replace);
    assert_eq!(said(&changed)["d/b"], Restoring::Keep);
    assert_eq!(said(&changed)["."], Restoring::Keep, "the destination itself is left as it is");
    assert_eq!(changed.read("d/a"), b"mine");
}

#[test]
fn a_restore_that_is_cancelled_leaves_nothing_half_written_and_can_go_on() {
    let mut t = TestRepository::new();
    let items: Vec<_> =
        (0..200).map(|n| Item { mtime: SECOND, ..t.file(&format!("f{n}"), &[n as u8; 3000]) }).collect();
    let snapshot = t.snapshot("s", &items, None);
    let around = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(true));
    let options = RestoreOptions { cancel: cancel.clone(), ..with(Overwrite::Never) };
    let dest = around.path().join("dest");
    let result = restore(&t.repository, &snapshot, &dest, &options, None);
    assert!(matches!(result, Err(crate::VykarError::Interrupted)), "{result:?}");
    let right = |m: &fs::Metadata| m.len() == 3000 && m.mtime() == 1;
    assert!(walk(&dest).values().all(right));
    cancel.store(false, Ordering::Relaxed);
    let rest = run_in(around, &t.repository, &snapshot, &options);
    assert!(rest.failed.is_empty(), "{:?}", rest.failed);
    assert_eq!(walk(&rest.dest()).values().filter(|m| right(m)).count(), 200);
}
