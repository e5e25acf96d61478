//! Restores that are cut off, and restores to odd places.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::XattrFlags;

use super::harness::{World, exit, note, silent};
use super::tree::noise;

/// A folder `d` with a large and a small file, whose metadata is like nothing that a restore makes on its way.
fn world() -> World {
    let world = World::with_repository("none");
    let d = world.folder("source/d");
    fs::write(d.join("big"), noise(12 << 20, 1)).unwrap();
    fs::write(d.join("small"), b"1").unwrap();
    rustix::fs::setxattr(&d, "user.k", b"1", XattrFlags::empty()).unwrap();
    fs::set_permissions(&d, fs::Permissions::from_mode(0o2750)).unwrap();
    silent(Command::new("touch").args(["-d", "2001-01-01"]).arg(&d));
    world.backup(["source"]).ok();
    world
}

fn what(dir: &Path) -> (u32, i64, bool) {
    let m = fs::metadata(dir).unwrap();
    let mut value = [0; 8];
    let has = rustix::fs::getxattr(dir, "user.k", &mut value).is_ok();
    (m.mode() & 0o7777, m.mtime(), has)
}

#[test]
fn a_restore_that_was_cut_off_is_finished_and_no_file_is_ever_half_there() {
    let world = world();
    for signal in ["KILL", "HUP", "INT", "TERM"] {
        let out = world.path(signal);
        let mut command = world.command();
        command.arg("-R").arg(&world.repo).args(["restore", "latest", signal, "--download-limit", "4"]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        super::harness::eventually("the folder is made", || out.join("d").exists());
        assert!(child.try_wait().unwrap().is_none(), "12 MiB at 4 MiB/s take a while");
        assert!(!out.join("d/big").exists(), "it has no name before it is complete");
        silent(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()));
        assert!(!child.wait().unwrap().success());
        // Where the restore could say goodbye, it may have ended the file.
        if let Ok(big) = fs::read(out.join("d/big")) {
            assert!(signal != "KILL" && big == noise(12 << 20, 1), "{signal}");
        }
        world.run(["restore", "latest", signal]).ok();
        assert_eq!(what(&out.join("d")), what(&world.path("source/d")), "{signal}");
        assert_eq!(what(&out), what(&world.path("source")), "{signal}");
        assert!(fs::read(out.join("d/big")).unwrap() == noise(12 << 20, 1), "{signal}");
        assert_eq!(fs::read_dir(out.join("d")).unwrap().count(), 2, "{signal}: nothing is left over");
    }
}

#[test]
fn nothing_is_restored_into_the_repository_or_the_cache() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    for folder in ["repo", "cache", "other"] {
        fs::create_dir(source.join(folder)).unwrap();
        fs::write(source.join(folder).join("config"), b"not a configuration").unwrap();
    }
    world.backup(["source"]).ok();
    fs::create_dir_all(&world.cache).unwrap();
    std::os::unix::fs::symlink(&world.repo, world.path("link")).unwrap();
    let config = fs::read(world.repo.join("config")).unwrap();
    for inside in ["repo", "repo/new/deeper", "repo/packs", "cache/new", "link/new"] {
        for more in [&[][..], &["--dry-run"]] {
            let run = world.run([&["restore", "latest", inside][..], more].concat());
            run.exits(exit::FAILURE).one_message().says("inside the repository or the local cache");
        }
    }
    // And from above: what has their place in the snapshot.
    let above = world.path("").to_str().unwrap().to_owned();
    let options = ["--overwrite", "always", "--delete-conflicting"];
    let run = world.run([&["restore", "latest", &above][..], &options].concat());
    run.exits(exit::PARTIAL).says("repo: not restored: is the repository or its local cache");
    assert!(world.path("other/config").exists());
    assert_eq!(fs::read(world.repo.join("config")).unwrap(), config);
    assert!(!world.repo.join("new").exists() && !world.cache.join("config").exists());
    world.run(["check"]).ok();
}

/// A mounted image of a file system; `None`, and a line about it, where this kernel does not know it.
struct Disk(PathBuf);

impl Disk {
    fn new(world: &World, make: &[&str]) -> Option<Self> {
        let (image, at) = (world.path(&format!("{}.img", make[0])), world.folder(make[0]));
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let made = Command::new(make[0]).args(&make[1..]).arg(&image).output();
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output();
        let worked = |output: &std::io::Result<std::process::Output>| {
            output.as_ref().is_ok_and(|output| output.status.success())
        };
        if worked(&made) && worked(&mounted) {
            return Some(Disk(at));
        }
        note(&format!("{} cannot be made or mounted here: nothing is restored to it", make[0]));
        None
    }

    /// Reads everything from the disk again.
    fn again(&self, world: &World, make: &str) {
        silent(Command::new("umount").arg(&self.0));
        let image = world.path(&format!("{make}.img"));
        silent(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Keeps whole seconds, until 2038.
const COARSE: &[&str] = &["mkfs.ext2", "-q", "-F", "-I", "128"];

#[test]
fn what_a_file_system_rounds_is_no_change() {
    needs!(root);
    let world = World::with_repository("none");
    let source = world.folder("source");
    for n in 0..3 {
        fs::write(source.join(format!("f{n}")), noise(1000, n)).unwrap();
    }
    // Odd nanoseconds in an odd second.
    silent(Command::new("touch").args(["-d", "2020-01-01 10:00:01.234567891"]).arg(source.join("f0")));
    world.backup(["source"]).ok();
    let mut tried = 0;
    for make in [COARSE, &["mkfs.vfat"], &["mkfs.exfat"]] {
        let Some(disk) = Disk::new(&world, make) else { continue };
        tried += 1;
        let dest = disk.0.join("out");
        let restore = |more: &[&str]| {
            let dest = dest.to_str().unwrap();
            world.run([&["restore", "latest", dest, "--json"][..], more].concat())
        };
        let first = restore(&[]).json();
        assert_eq!((first["files"].as_u64(), first["errors"].as_u64()), (Some(3), Some(0)), "{make:?}");
        for n in 0..3 {
            assert!(fs::read(dest.join(format!("f{n}"))).unwrap() == noise(1000, n));
        }
        disk.again(&world, make[0]);
        for options in [&[][..], &["--overwrite", "if-changed"], &["--overwrite", "if-newer"]] {
            let again = restore(options).json();
            let counts = (again["files"].as_u64(), again["errors"].as_u64(), again["unchanged"].as_u64());
            assert_eq!(counts, (Some(0), Some(0), Some(3)), "{make:?} {options:?}: {again}");
        }
        assert_eq!(fs::read_dir(&dest).unwrap().count(), 3, "{make:?}: nothing is left over");
    }
    needs!(mounted_images: tried > 0);
}

#[test]
fn a_time_that_the_file_system_cannot_keep_is_named() {
    needs!(root);
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::write(source.join("late"), b"late").unwrap();
    // Later than any of them can say.
    silent(Command::new("touch").args(["-d", "2200-01-01"]).arg(source.join("late")));
    world.backup(["source"]).ok();
    let mut tried = 0;
    for make in [COARSE, &["mkfs.vfat"]] {
        let Some(disk) = Disk::new(&world, make) else { continue };
        tried += 1;
        let dest = disk.0.join("out");
        let run = world.run(["restore", "latest", dest.to_str().unwrap()]).exits(exit::PARTIAL);
        run.says("late: restored, but").says("the file system cannot keep its time 2200-01-01");
        let again = world.run(["restore", "latest", dest.to_str().unwrap(), "--json"]).json();
        let counts = (again["errors"].as_u64(), again["unchanged"].as_u64());
        assert_eq!(counts, (Some(0), Some(1)), "{make:?}: {again}");
    }
    needs!(mounted_images: tried > 0);
}
