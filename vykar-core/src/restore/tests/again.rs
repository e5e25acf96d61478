//! Going on where a restore was cut off, and what directories that were there are like afterwards.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::*;
use crate::format::{Item, ItemType};
use crate::restore::Overwrite;
use crate::testing::{TestRepository, directory, me, symlink};

const SECOND: i64 = 1_000_000_000;
const LEFT: &str = ".vykar-restore-0123456789abcdef-7";

/// A root, and in it a directory `d` with a file and a symlink, and a directory that no item tells of.
fn sample(t: &mut TestRepository) -> Snapshot {
    let (uid, gid) = me();
    let root = Item { mode: 0o040_751, mtime: SECOND, uid, gid, ..Item::new("", ItemType::Directory) };
    let attribute = Some(vec![("user.k".into(), b"v".as_slice().into())]);
    let d = Item { mode: 0o042_750, mtime: 5 * SECOND, xattrs: attribute, ..directory("d") };
    let items = [
        d,
        Item { mtime: SECOND, ..t.file("d/a", b"content of a") },
        Item { mtime: SECOND, ..symlink("d/link", "a") },
        Item { mtime: SECOND, ..t.file("implied/b", b"content of b") },
    ];
    t.snapshot("s", &items, Some(&root))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn mode(restored: &Restored, path: &str) -> u32 {
    restored.metadata(path).mode() & 0o7777
}

/// Makes a restored tree what a restore leaves that was killed before it finished its directories.
fn cut_off(dest: &Path) {
    for dir in ["", "d", "implied"] {
        set_mode(&dest.join(dir), 0o1700);
        set_time(&dest.join(dir), 1_000_000);
    }
    rustix::fs::removexattr(dest.join("d"), "user.k").unwrap();
    fs::remove_file(dest.join("d/a")).unwrap();
    fs::write(dest.join("d").join(LEFT), b"content").unwrap();
    std::os::unix::fs::symlink("a", dest.join("d").join(LEFT.replace("-7", "-8"))).unwrap();
}

#[test]
fn what_a_killed_restore_made_is_finished_by_the_next() {
    for overwrite in [Overwrite::Never, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Always] {
        let mut t = TestRepository::new();
        let snapshot = sample(&mut t);
        let first = run(&t.repository, &snapshot);
        cut_off(&first.dest());
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let second = run_in(first.around, &t.repository, &snapshot, &options);
        assert_eq!((second.failed.as_slice(), second.summary.incomplete), (&[][..], 0), "{overwrite:?}");
        let modes = ["", "d", "implied"].map(|path| mode(&second, path));
        assert_eq!(modes, [0o751, 0o2750, 0o700], "{overwrite:?}: {modes:?}");
        assert_eq!((second.metadata("").mtime(), second.metadata("d").mtime()), (1, 5));
        assert_eq!(xattr(&second.dest().join("d"), "user.k"), Some(b"v".to_vec()));
        assert_eq!(second.read("d/a"), b"content of a");
        assert_eq!(walk(&second.dest()).len(), 5, "nothing is left over");
    }
}

#[test]
fn a_directory_that_somebody_made_keeps_what_it_has() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("dest");
    fs::create_dir_all(dest.join("d")).unwrap();
    set_mode(&dest.join("d"), 0o700);
    set_mode(&dest, 0o711);
    [dest.join("d"), dest.clone()].iter().for_each(|dir| set_time(dir, 77));
    for turn in ["first", "again, with nothing to do"] {
        restore(&t.repository, &snapshot, &dest, &RestoreOptions::default(), None).unwrap();
        for (dir, mode) in [(dest.join("d"), 0o700), (dest.clone(), 0o711)] {
            let m = fs::metadata(&dir).unwrap();
            assert_eq!((m.mode() & 0o7777, m.mtime()), (mode, 77), "{turn}: {}", dir.display());
        }
    }
    // What is overwritten gets the snapshot's metadata, but the destination itself is somebody's.
    let options = RestoreOptions { overwrite: Overwrite::Always, ..RestoreOptions::default() };
    restore(&t.repository, &snapshot, &dest, &options, None).unwrap();
    let is = |path: &Path| fs::metadata(path).map(|m| (m.mode() & 0o7777, m.mtime())).unwrap();
    assert_eq!((is(&dest.join("d")), is(&dest)), ((0o2750, 5), (0o711, 77)));
}

#[test]
fn what_is_missing_comes_back_without_changing_its_directory() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    fs::remove_file(first.dest().join("d/a")).unwrap();
    set_time(&first.dest().join("d"), 5);
    let second = run_in(first.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!((second.summary.files, second.metadata("d").mtime()), (1, 5));
}

#[test]
fn what_another_restore_is_writing_or_a_snapshot_has_is_no_leftover() {
    let mut t = TestRepository::new();
    let mine = ".vykar-restore-0123456789abcdef-1";
    let items = [t.file(mine, b"stored"), t.file("f", b"x")];
    let snapshot = t.snapshot("s", &items, None);
    let first = run(&t.repository, &snapshot);
    let (busy, similar) = (first.dest().join(LEFT), first.dest().join(".vykar-restore-note"));
    fs::write(&similar, b"a person's").unwrap();
    let writer = fs::File::create(&busy).unwrap();
    rustix::fs::flock(&writer, FlockOperation::LockShared).unwrap();
    let second = run_in(first.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert!(second.failed.is_empty() && busy.exists() && similar.exists());
    assert_eq!(second.read(mine), b"stored");
    drop(writer);
    let third = run_in(second.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert!(!busy.exists() && similar.exists() && third.exists(mine));
}

/// Runs as an ordinary user: this thread, and those it starts.
fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let user = || {
            if crate::testing::is_root() {
                let (uid, gid) = (rustix::fs::Uid::from_raw(65534), rustix::fs::Gid::from_raw(65534));
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            work()
        };
        scope.spawn(user).join().unwrap()
    })
}

#[test]
fn read_only_directories_of_a_user_are_filled_and_stay_read_only() {
    let mut t = TestRepository::new();
    let items = [
        Item { mode: 0o040_500, mtime: SECOND, ..directory("d") },
        Item { mode: 0o040_000, mtime: SECOND, ..directory("d/closed") },
        t.file("d/a", b"a"),
        t.file("d/closed/b", b"b"),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let around = tempfile::tempdir().unwrap();
    set_mode(around.path(), 0o777);
    let dest = around.path().join("dest");
    as_user(|| {
        let options = RestoreOptions::default();
        restore(&t.repository, &snapshot, &dest, &options, None).unwrap();
        for (path, mode) in [("d", 0o700), ("d/closed", 0o700)] {
            set_mode(&dest.join(path), mode);
        }
        fs::remove_file(dest.join("d/a")).unwrap();
        fs::remove_file(dest.join("d/closed/b")).unwrap();
        set_mode(&dest.join("d/closed"), 0o000);
        set_mode(&dest.join("d"), 0o500);
        let summary = restore(&t.repository, &snapshot, &dest, &options, None).unwrap();
        assert_eq!((summary.files, summary.errors), (2, 0));
        let mode = |path: &str| fs::metadata(dest.join(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode("d"), 0o500);
        assert_eq!(mode("d/closed"), 0o000);
        set_mode(&dest.join("d"), 0o700);
        set_mode(&dest.join("d/closed"), 0o700);
        assert_eq!(fs::read(dest.join("d/closed/b")).unwrap(), b"b");
    });
}

#[test]
fn a_directory_that_is_as_stored_gets_its_time_when_something_is_put_into_it() {
    let mut t = TestRepository::new();
    let snapshot = sample(&mut t);
    let first = run(&t.repository, &snapshot);
    fs::remove_file(first.dest().join("d/a")).unwrap();
    let second = run_in(first.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!((second.metadata("d").mtime(), second.read("d/a")), (5, b"content of a".to_vec()));
    // One whose owner has changed it since keeps what it had.
    fs::remove_file(second.dest().join("d/a")).unwrap();
    set_mode(&second.dest().join("d"), 0o700);
    set_time(&second.dest().join("d"), 2_000_000);
    let third = run_in(second.around, &t.repository, &snapshot, &RestoreOptions::default());
    assert_eq!((third.metadata("d").mtime(), mode(&third, "d")), (2_000_000, 0o700));
}
