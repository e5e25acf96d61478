//! One kind of thing in the place of another.

use super::*;
use crate::format::{Item, ItemType};
use crate::restore::Overwrite;
use crate::testing::{TestRepository, directory, symlink};

const KINDS: [&str; 5] = ["file", "symlink", "fifo", "empty directory", "full directory"];

fn put(path: &Path, kind: &str) {
    match kind {
        "file" => fs::write(path, b"theirs").unwrap(),
        "symlink" => std::os::unix::fs::symlink("theirs", path).unwrap(),
        "fifo" => {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        "empty directory" => fs::create_dir(path).unwrap(),
        _ => fs::create_dir_all(path.join("theirs/deeper")).unwrap(),
    }
}

/// Items of 2100, so that they are newer than what is there.
fn items(t: &mut TestRepository, kind: &str) -> Vec<Item<'static>> {
    let (uid, gid) = crate::testing::me();
    let list = match kind {
        "file" => vec![t.file("x", b"content")],
        "symlink" => vec![symlink("x", "target")],
        "fifo" => vec![Item { mode: 0o644, uid, gid, ..Item::new("x", ItemType::Fifo) }],
        "empty directory" => vec![directory("x")],
        _ => vec![directory("x"), t.file("x/f", b"content")],
    };
    list.into_iter().map(|item| Item { mtime: 4_102_444_800_000_000_000, ..item }).collect()
}

fn is(dest: &Path, kind: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let path = dest.join("x");
    let found = fs::symlink_metadata(&path).unwrap().file_type();
    match kind {
        "file" => found.is_file() && fs::read(&path).unwrap() == b"content",
        "symlink" => found.is_symlink() && fs::read_link(&path).unwrap() == Path::new("target"),
        "fifo" => found.is_fifo(),
        "empty directory" => found.is_dir(),
        _ => found.is_dir() && fs::read(path.join("f")).unwrap() == b"content",
    }
}

/// Fifos are special items of a snapshot; in the stream they are left out.
fn snapshot(t: &mut TestRepository, kind: &str) -> Snapshot {
    let items = items(t, kind);
    t.snapshot("s", &items, None)
}

fn replaced(there: &str, wanted: &str, options: &RestoreOptions) -> (bool, Vec<String>) {
    let mut t = TestRepository::new();
    let snapshot = snapshot(&mut t, wanted);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("dest");
    fs::create_dir(&dest).unwrap();
    put(&dest.join("x"), there);
    let dry = RestoreOptions { dry_run: true, ..options.clone() };
    let planned = run_in(around, &t.repository, &snapshot, &dry);
    let restored = run_in(planned.around, &t.repository, &snapshot, options);
    let top = |failed: &[String]| failed.iter().any(|line| line.starts_with("x:"));
    assert_eq!(top(&planned.failed), top(&restored.failed), "a trial says what is done: {there}, {wanted}");
    let names: Vec<_> = walk(&restored.dest()).into_keys().map(|n| String::from_utf8(n).unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with('x')), "nothing is left beside it: {names:?}");
    (is(&restored.dest(), wanted), restored.failed)
}

#[test]
fn anything_takes_the_place_of_anything_when_that_is_asked_for() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer] {
        for there in KINDS {
            for wanted in KINDS.into_iter().filter(|kind| *kind != "fifo") {
                for delete_conflicting in [false, true] {
                    let options = RestoreOptions { overwrite, delete_conflicting, ..Default::default() };
                    let what = format!("{wanted} over {there}, {overwrite:?}, {delete_conflicting}");
                    let is_dir = |kind: &str| kind.ends_with("directory");
                    let stays = there == "full directory" && !is_dir(wanted) && !delete_conflicting;
                    match stays {
                        true => {
                            let (_, failed) = replaced_or_kept(there, wanted, &options);
                            assert_eq!(failed.len(), 1, "{what}");
                            assert!(failed[0].contains("--delete-conflicting"), "{what}: {failed:?}");
                        }
                        false => {
                            let (done, failed) = replaced(there, wanted, &options);
                            assert!(done && failed.is_empty(), "{what}: {failed:?}");
                        }
                    }
                }
            }
        }
    }
}

/// Where it may stay, what is there need not be of the kind that was wanted.
fn replaced_or_kept(there: &str, wanted: &str, options: &RestoreOptions) -> (bool, Vec<String>) {
    let (done, failed) = replaced(there, wanted, options);
    assert!(!done, "{there} must stay");
    (done, failed)
}

#[test]
fn what_is_there_stays_unless_asked_for() {
    for there in KINDS {
        for wanted in KINDS.into_iter().filter(|kind| *kind != "fifo") {
            let is_dir = |kind: &str| kind.ends_with("directory");
            if is_dir(there) && is_dir(wanted) {
                continue;
            }
            let options = RestoreOptions { delete_conflicting: true, ..Default::default() };
            let (_, failed) = replaced(there, wanted, &options);
            assert!(!failed.is_empty(), "{wanted} over {there}");
        }
    }
}

#[test]
fn what_is_newer_stays_whatever_it_is() {
    let mut t = TestRepository::new();
    let items = [Item { mtime: 5, ..t.file("x", b"older") }];
    let snapshot = t.snapshot("s", &items, None);
    let around = tempfile::tempdir().unwrap();
    fs::create_dir_all(around.path().join("dest/x/deeper")).unwrap();
    let options =
        RestoreOptions { overwrite: Overwrite::IfNewer, delete_conflicting: true, ..Default::default() };
    let restored = run_in(around, &t.repository, &snapshot, &options);
    assert!(restored.failed.is_empty() && restored.exists("x/deeper"));
    assert_eq!(restored.summary.unchanged, 1);
}
