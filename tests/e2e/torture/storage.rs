//! Disks that are full, read-only or failing: the source's fault and the repository's fault are told apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_holds, change};
use crate::harness::platform::own_mounts;
use crate::harness::{World, exit, note, silent};
use crate::tree::noise;

/// A world whose repository's folder is a file system of its own, of so many bytes. For root.
fn on_own_file_system(bytes: u64) -> World {
    own_mounts().unwrap();
    silent(Command::new("mount").args(["--make-rprivate", "/"]));
    let world = World::new();
    let repo = world.folder("repo");
    silent(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(repo));
    world.run(["init", "--encryption", "none", "--min-pack-size", "256K"]).ok();
    world
}

fn remount(world: &World, how: &str) {
    silent(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&world.repo));
}

/// The mount goes with the world's folder.
fn unmount(world: &World) {
    silent(Command::new("umount").arg("-l").arg(&world.repo));
}

#[test]
fn a_full_repository_is_named_and_nothing_half_written_is_left() {
    needs!(root);
    let world = on_own_file_system(6 << 20);
    let small = change(&world, "small", 0);
    world.backup(["small"]).ok();
    fs::write(world.folder("large").join("file"), noise(8 << 20, 1)).unwrap();
    let run = world.backup(["large"]).exits(exit::STORAGE).one_message();
    assert!(run.stderr.contains("no space left") && run.stderr.contains("compact"), "{run}");
    assert_eq!(world.snapshots().len(), 1);
    world.run(["check", "--verify-data"]).ok();
    // What it had stored can be given back, and then there is room again.
    world.run(["compact"]).ok();
    fs::remove_dir_all(world.path("large")).unwrap();
    change(&world, "small", 1);
    world.backup(["small"]).ok();
    let first = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    world.run(["restore", &first, "out"]).ok();
    assert_holds(&world.path("out"), &small);
    world.run(["check", "--verify-data"]).ok();
    unmount(&world);
}

#[test]
fn a_full_disk_does_not_keep_snapshots_from_being_deleted() {
    needs!(root);
    let world = on_own_file_system(4 << 20);
    fs::write(world.folder("source").join("file"), noise(2 << 20, 1)).unwrap();
    world.backup(["source"]).ok();
    fs::write(world.folder("source").join("file"), noise(1 << 20, 2)).unwrap();
    world.backup(["source"]).ok();
    // To the last page but some.
    let free = rustix::fs::statvfs(&world.repo).unwrap();
    let left = (free.f_bavail * free.f_bsize) as usize;
    fs::write(world.repo.join(".tmp-filler"), vec![1; left - (64 << 10)]).unwrap();
    fs::write(world.folder("source").join("file"), noise(1 << 20, 3)).unwrap();
    world.backup(["source"]).exits(exit::STORAGE);
    world.run(["prune", "--keep-last", "1"]).ok();
    world.run(["compact"]).ok();
    world.backup(["source"]).ok();
    world.run(["check", "--verify-data"]).ok();
    unmount(&world);
}

#[test]
fn a_repository_that_cannot_be_written_is_read_and_says_so_to_writers() {
    needs!(root);
    let world = on_own_file_system(8 << 20);
    let files = change(&world, "source", 0);
    world.backup(["source"]).ok();
    remount(&world, "ro");
    for command in [
        &["backup", "source"][..],
        &["snapshot", "delete", "latest"],
        &["prune", "--keep-last", "1"],
        &["compact"],
    ] {
        world.run(command).exits(exit::STORAGE).one_message().says("Read-only file system");
    }
    world.run(["list"]).ok();
    world.run(["check", "--verify-data"]).ok();
    world.run(["restore", "latest", "out"]).ok();
    assert_holds(&world.path("out"), &files);
    remount(&world, "rw");
    world.backup(["source"]).ok();
    unmount(&world);
}

/// A library that makes fsync(2) fail from the n-th call on, as a disk does that cannot write.
fn failing_sync(world: &World) -> PathBuf {
    let (source, library) = (world.path("fsync.c"), world.path("fsync.so"));
    fs::write(
        &source,
        "#include <errno.h>\n#include <stdlib.h>\nstatic int calls;\n\
         int fsync(int fd) {\n  (void)fd;\n  const char *n = getenv(\"FSYNC_FAILS_AT\");\n\
         if (n && __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) > atoi(n)) { errno = EIO; return -1; }\n  return 0;\n}\n",
    )
    .unwrap();
    silent(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source));
    library
}

fn with_failing_sync(world: &World, library: &Path, at: u32, args: &[&str]) -> crate::harness::Run {
    let mut command = world.command();
    command.env("LD_PRELOAD", library).env("FSYNC_FAILS_AT", at.to_string());
    command.arg("-R").arg(&world.repo).args(args);
    world.finish(command)
}

#[test]
fn a_disk_that_begins_to_fail_is_the_repositorys_fault_and_publishes_nothing() {
    let world = super::world();
    let library = failing_sync(&world);
    let files = change(&world, "source", 0);
    world.backup(["source"]).ok();
    change(&world, "source", 1);
    let mut failed = 0;
    for at in 0.. {
        let before = world.snapshots().len();
        let run = with_failing_sync(&world, &library, at, &["backup", "source"]);
        if run.code == 0 {
            assert_eq!(world.snapshots().len(), before + 1);
            break;
        }
        let run = run.exits(exit::STORAGE).one_message();
        assert!(run.stderr.contains("Input/output error") && run.stderr.contains("not the source"), "{run}");
        // Its name may be there, when what failed is making that durable; then it is whole.
        assert!(world.snapshots().len() <= before + 1);
        failed += 1;
        assert!(at < 200, "it should succeed when nothing fails");
    }
    note(&format!("torture: failing syncs, backup: {failed} places"));
    assert!(failed > 10, "{failed}");
    world.run(["check", "--verify-data"]).ok();
    let first = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    world.run(["restore", &first, "out"]).ok();
    assert_holds(&world.path("out"), &files);
}

#[test]
fn a_source_that_cannot_be_read_is_the_sources_fault_and_costs_only_that_file() {
    needs!(mounts);
    // A mount of a damaged repository answers EIO where it is damaged.
    let damaged = super::world();
    let files = change(&damaged, "source", 0);
    damaged.backup(["source"]).ok();
    let packs = crate::harness::fingerprint(&damaged.repo.join("packs"));
    let (largest, _) = packs.iter().max_by_key(|(_, (size, _))| *size).unwrap();
    let path = damaged.repo.join("packs").join(largest);
    let mut pack = fs::read(&path).unwrap();
    let middle = pack.len() / 2;
    pack[middle] ^= 1;
    fs::write(&path, pack).unwrap();
    let mount = damaged.mount();

    let world = super::world();
    let source = mount.latest();
    let run = world.run(["backup".as_ref(), source.as_os_str()]).exits(exit::PARTIAL);
    assert!(run.stderr.contains("Input/output error") && !run.stderr.contains("the repository's"), "{run}");
    world.run(["check", "--verify-data"]).ok();
    world.run(["restore", "latest", "out"]).ok();
    let restored = fs::read_dir(world.path("out")).unwrap().count();
    assert!(restored > 0 && restored < files.len(), "{restored} of {}", files.len());
    for entry in fs::read_dir(world.path("out")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(fs::read(&path).unwrap() == files[name], "{name}");
    }
    mount.unmount(&damaged);
}
