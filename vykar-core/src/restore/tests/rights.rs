//! Access control lists and attributes: what the snapshot has, and nothing else.

use std::os::unix::fs::MetadataExt;

use rustix::fs::XattrFlags;

use super::*;
use crate::event::Event;
use crate::format::Item;
use crate::restore::Overwrite;
use crate::restore::acl::{ACCESS, DEFAULT, tests::named};
use crate::testing::{TestRepository, directory, symlink};

fn sample(t: &mut TestRepository) -> Snapshot {
    let items = [
        Item { mode: 0o040_770, mtime: 1, ..directory("d") },
        Item { mode: 0o100_660, mtime: 1, ..t.file("d/f", b"secret") },
        Item { mode: 0o100_660, mtime: 1, hardlink: Some((1, 1)), ..t.file("d/g", b"secret too") },
        Item { mode: 0o100_660, mtime: 1, hardlink: Some((1, 1)), ..t.file("h", b"secret too") },
        Item { mtime: 1, ..symlink("d/l", "f") },
    ];
    t.snapshot("s", &items, None)
}

/// False where lists are not kept.
fn set_list(path: &Path, name: &str, list: &[u8]) -> bool {
    rustix::fs::setxattr(path, name, list, XattrFlags::empty()).is_ok()
}

fn lists(dest: &Path) -> Vec<String> {
    let has = |path: &Path| xattr(path, ACCESS).is_some() || xattr(path, DEFAULT).is_some();
    let all = walk(dest).into_keys().map(|name| String::from_utf8(name).unwrap());
    all.filter(|name| has(&dest.join(name))).collect()
}

fn kept(restored: &Restored) -> Vec<String> {
    let shown = restored.events.iter().filter_map(|event| match event {
        Event::RestoreKept { path, reason } => Some(format!("{}: {reason}", path.display())),
        _ => None,
    });
    shown.collect()
}

#[test]
fn nothing_that_is_restored_inherits_rights() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("dest");
    fs::create_dir(&dest).unwrap();
    needs!(access_lists: set_list(&dest, DEFAULT, &named(1234, 7, 7, 7)));
    let first = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!((first.summary.incomplete, lists(&first.dest())), (0, vec![]));
    assert_eq!(first.metadata("d/f").mode() & 0o7777, 0o660);
    let always = RestoreOptions { overwrite: Overwrite::Always, verify: true, ..Default::default() };
    let second = run_in(first.around, &t.repository, &snapshot, &always);
    assert_eq!((second.summary.incomplete, lists(&second.dest())), (0, vec![]));
}

#[test]
fn rights_and_attributes_that_the_snapshot_does_not_have_are_found_and_removed() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    let (f, d) = (first.dest().join("d/f"), first.dest().join("d"));
    needs!(access_lists: set_list(&f, ACCESS, &named(1234, 6, 6, 6)));
    assert!(set_list(&d, DEFAULT, &named(1234, 7, 7, 7)));
    fs::set_permissions(&f, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
    rustix::fs::setxattr(first.dest().join("h"), "user.extra", b"", XattrFlags::empty()).unwrap();
    for (overwrite, verify) in [(Overwrite::Never, false), (Overwrite::IfNewer, true)] {
        let options = RestoreOptions { overwrite, verify, ..Default::default() };
        let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
        assert_eq!(kept(&restored), [""; 0]);
        let mut events = Vec::new();
        let mut keep = |event| events.push(event);
        let summary = restore(&t.repository, &snapshot, &first.dest(), &options, Some(&mut keep)).unwrap();
        let names: Vec<_> = events
            .iter()
            .filter_map(|e| match e {
                Event::RestoreKept { path, reason } => Some(format!("{}: {reason}", path.display())),
                _ => None,
            })
            .collect();
        let other = "attribute user.extra";
        assert_eq!(names, ["d/f: access control list", &format!("d/g: {other}"), &format!("h: {other}")]);
        assert_eq!((summary.named, summary.errors, summary.unchanged), (3, 0, 4));
        assert_eq!(lists(&first.dest()), ["d", "d/f"]);
    }
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, ..Default::default() };
    let changed = run_in(first.around, &t.repository, &snapshot, &options);
    assert_eq!((changed.summary.incomplete, changed.summary.unchanged), (0, 4), "{:?}", changed.events);
    assert_eq!((lists(&changed.dest()), xattr(&changed.dest().join("h"), "user.extra")), (vec![], None));
}

#[test]
fn a_list_comes_back_as_it_was() {
    let mut t = TestRepository::new();
    let list = named(5001, 6, 4, 6);
    let xattrs = Some(vec![(ACCESS.into(), list.clone().into())]);
    let items = [Item { mode: 0o100_760, xattrs, ..t.file("f", b"x") }];
    let snapshot = t.snapshot("s", &items, None);
    let restored = run(&t.repository, &snapshot);
    needs!(access_lists: restored.summary.incomplete == 0);
    let is = xattr(&restored.dest().join("f"), ACCESS);
    assert_eq!((is, restored.metadata("f").mode() & 0o7777), (Some(list), 0o760));
    let again = run_in(restored.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!((again.summary.unchanged, again.failed.len()), (1, 0));
}

#[test]
fn where_lists_are_not_kept_the_mask_is_nobodys_right() {
    needs!(root);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("dest");
    fs::create_dir(&dest).unwrap();
    let mount = std::process::Command::new("mount").args(["-t", "ramfs", "none"]).arg(&dest).status();
    assert!(mount.is_ok_and(|status| status.success()));
    let mut t = TestRepository::new();
    let xattrs = |name: &'static str| Some(vec![(name.into(), named(5001, 6, 4, 6).into())]);
    let items = [
        Item { mode: 0o100_660, mtime: 1, xattrs: xattrs(ACCESS), ..t.file("f", b"x") },
        Item { mode: 0o040_770, mtime: 1, xattrs: xattrs(DEFAULT), ..directory("d") },
        Item { mode: 0o100_660, mtime: 1, ..t.file("plain", b"x") },
    ];
    let snapshot = t.snapshot("s", &items, None);
    let first = run_in(around, &t.repository, &snapshot, &RestoreOptions::default());
    let modes = ["f", "d", "plain"].map(|path| first.metadata(path).mode() & 0o7777);
    let (named_first, incomplete) = (first.summary.named, first.summary.incomplete);
    let again = run_in(first.around, &t.repository, &snapshot, &RestoreOptions::default());
    let found = kept(&again);
    let _ = std::process::Command::new("umount").arg(again.dest()).status();
    assert_eq!((modes, named_first, incomplete), ([0o640, 0o770, 0o660], 2, 2), "{modes:?}");
    assert_eq!(found, ["f: mode, access control list"]);
}
