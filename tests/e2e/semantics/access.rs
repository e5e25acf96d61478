//! Who may read, and that nobody writes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::harness::{World, is_root, note, silent};
use crate::platform::truncate;
use crate::tree::set_mode;

/// The options of the mount at a path: its own, and those of its file system.
fn options(at: &Path) -> (Vec<String>, Vec<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = at.display().to_string();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(&at)).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    let split = |text: &str| text.split(',').map(str::to_owned).collect();
    (split(fields[5]), split(fields[fields.len() - 1]))
}

#[test]
fn mounts_are_ro_nosuid_nodev_and_checked_when_others_may_look() {
    needs!(mounts);
    let world = World::with_repository("none");
    let has = |options: &[String], name: &str| options.iter().any(|o| o == name);
    let mut mounts = vec![(world.mount(), false)];
    if is_root() {
        mounts.push((world.mount_with(&["--allow-other"]), true));
    } else {
        note("not root: --allow-other is not tried, /etc/fuse.conf may forbid it");
    }
    for (mount, others) in mounts {
        let (flags, fuse) = options(mount.path("").components().as_path());
        for flag in ["ro", "nosuid", "nodev"] {
            assert!(has(&flags, flag), "{flags:?}");
        }
        assert_eq!(has(&fuse, "allow_other"), others, "{fuse:?}");
        // For real root, whom permissions do not stop, the kernel checks anyway.
        assert!(has(&fuse, "default_permissions") || !others, "{fuse:?}");
    }
}

/// Whether nobody, in no group, can read a file.
fn nobody_reads(path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "cat"]).arg(path);
    command.output().unwrap().status.success()
}

#[test]
fn other_users_read_what_modes_and_lists_allow_them() {
    needs!(root);
    needs!(mounts);
    let world = World::with_repository("none");
    set_mode(&world.path(""), 0o755);
    let source = world.folder("source");
    let file = |name: &str, mode, acl: Option<&str>| {
        fs::write(source.join(name), name).unwrap();
        set_mode(&source.join(name), mode);
        if let Some(acl) = acl {
            silent(Command::new("setfacl").args(["-m", acl]).arg(source.join(name)));
        }
    };
    file("secret", 0o600, None);
    file("open", 0o644, None);
    file("allowed", 0o600, Some("u:65534:r--"));
    file("denied", 0o644, Some("u:65534:---"));
    file("group", 0o640, Some("u:1234:rw-"));
    world.backup(["source"]).ok();
    let expected =
        [("secret", false), ("open", true), ("allowed", true), ("denied", false), ("group", false)];

    let mount = world.mount_with(&["--allow-other"]);
    // Also when the kernel knows everything because root has looked.
    for _ in 0..2 {
        for (name, allowed) in expected {
            assert_eq!(nobody_reads(&mount.latest().join(name)), allowed, "{name}");
        }
        for (name, _) in expected {
            assert_eq!(fs::read(mount.latest().join(name)).unwrap(), name.as_bytes());
        }
    }
    let alone = world.mount();
    assert!(expected.iter().all(|(name, _)| !nobody_reads(&alone.latest().join(name))));

    // What is shown is what is checked.
    let theirs = world.mount_with(&["--allow-other", "--uid", "65534"]);
    assert!(nobody_reads(&theirs.latest().join("secret")));
    let hidden = world.mount_with(&["--allow-other", "--owner-root", "--umask", "077"]);
    assert!(!nobody_reads(&hidden.latest().join("open")));
}

#[test]
fn every_attempt_to_write_is_refused_as_on_a_read_only_file_system() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    world.backup(["source"]).ok();
    let mount = world.mount();
    let latest = mount.latest();
    for dir in [latest.clone(), latest.join("dir"), mount.path("ids"), mount.path("")] {
        refuses_new_entries(&dir);
    }
    let file = latest.join("file");
    let refused = |what: &str, result: rustix::io::Result<()>| {
        assert_eq!(result, Err(Errno::ROFS), "{what}");
    };
    let open = |path: &Path, flags| rustix::fs::openat(CWD, path, flags, Mode::empty()).map(drop);
    for flags in
        [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::APPEND, OFlags::RDONLY | OFlags::TRUNC]
    {
        refused(&format!("open {flags:?}"), open(&file, flags));
    }
    assert_eq!(truncate(&file, 3).unwrap_err().raw_os_error(), Some(Errno::ROFS.raw_os_error()), "truncate");
    for path in [&file, &latest.join("dir"), &mount.path("ids")] {
        refused("chmod", rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty()));
        let owner = Some(rustix::process::geteuid());
        refused("chown", rustix::fs::chownat(CWD, path, owner, None, AtFlags::empty()));
        let now = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: now, last_modification: now };
        refused("utimensat", rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()));
        refused("setxattr", rustix::fs::setxattr(path, "user.x", b"1", XattrFlags::empty()));
        refused("removexattr", rustix::fs::removexattr(path, "user.x"));
        refused("rename", rustix::fs::rename(path, latest.join("other")));
    }
    refused("unlink", rustix::fs::unlink(&file));
    refused("unlink", rustix::fs::unlink(latest.join("link")));
    refused("rmdir", rustix::fs::rmdir(latest.join("dir")));
    refused("link", rustix::fs::link(&file, latest.join("second")));
    // A descriptor for writing cannot be had, and one for reading does not do.
    let reading = fs::File::open(&file).unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    assert_eq!(rustix::fs::fallocate(&reading, flags, 0, 10), Err(Errno::BADF));
    assert_eq!(rustix::fs::ftruncate(&reading, 0), Err(Errno::INVAL));
    assert!(fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"content");
}

fn refuses_new_entries(dir: &Path) {
    let new = dir.join(OsStr::from_bytes(b"new"));
    let refused = |what: &str, result: rustix::io::Result<()>| {
        assert_eq!(result, Err(Errno::ROFS), "{what} in {}", dir.display());
    };
    let create = OFlags::WRONLY | OFlags::CREATE;
    refused("create", rustix::fs::openat(CWD, &new, create, Mode::RUSR).map(drop));
    refused("mkdir", rustix::fs::mkdir(&new, Mode::RWXU));
    refused("mknod", rustix::fs::mknodat(CWD, &new, FileType::Fifo, Mode::RUSR, 0));
    refused("symlink", rustix::fs::symlink("target", &new));
    let unnamed = OFlags::WRONLY | OFlags::TMPFILE;
    let unnamed = rustix::fs::openat(CWD, dir, unnamed, Mode::RUSR).map(drop);
    assert!([Err(Errno::ROFS), Err(Errno::OPNOTSUPP)].contains(&unnamed), "O_TMPFILE: {unnamed:?}");
}
