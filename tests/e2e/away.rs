//! A repository of which a part goes away and comes back, and local files that somebody spoils.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{Mount, World, eventually, exit, fingerprint, is_root, note, silent};
use super::tree::noise;

/// Files of the source; each is read once only, since the kernel keeps what was read.
const FILES: u64 = 60;

fn content(n: u64) -> Vec<u8> {
    noise(20_000, n)
}

/// A repository of several packs, with two snapshots of many files.
fn world() -> World {
    let world = World::with_packs_of("512K", "aes256gcm");
    let source = world.folder("source");
    for n in 0..FILES {
        fs::write(source.join(format!("f{n:02}")), content(n)).unwrap();
    }
    world.backup(["source"]).ok();
    fs::write(source.join("more"), b"more").unwrap();
    world.backup(["source"]).ok();
    world
}

/// A part of the repository, as people lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Renamed,
    Unreadable,
}

/// A part that is away until this is dropped.
struct Away {
    part: PathBuf,
    how: How,
    mode: fs::Permissions,
}

impl Away {
    fn new(part: PathBuf, how: How) -> Self {
        let mode = fs::metadata(&part).unwrap().permissions();
        match how {
            How::Renamed => fs::rename(&part, elsewhere(&part)).unwrap(),
            How::Unreadable => fs::set_permissions(&part, fs::Permissions::from_mode(0o000)).unwrap(),
        }
        Away { part, how, mode }
    }
}

fn elsewhere(part: &Path) -> PathBuf {
    part.with_file_name(format!("{}-elsewhere", part.file_name().unwrap().display()))
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = match self.how {
            How::Renamed => fs::rename(elsewhere(&self.part), &self.part),
            How::Unreadable => fs::set_permissions(&self.part, self.mode.clone()),
        };
    }
}

fn is_eio<T>(result: &io::Result<T>) -> bool {
    result.as_ref().err().and_then(io::Error::raw_os_error) == Some(5)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    Ok(names)
}

/// What a mount shows of a repository that is away, and of which nothing was cached beyond the first file.
fn looks_right(mount: &Mount, ids: &[String], read: &mut std::ops::Range<u64>, seen: bool) {
    assert_eq!(names(&mount.path("ids")).unwrap(), ids);
    for id in ids {
        let folder = mount.path("ids").join(id);
        match names(&folder) {
            Ok(found) => assert!(found.len() as u64 >= FILES, "{found:?}"),
            other => assert!(!seen && is_eio(&other), "{other:?}"),
        }
    }
    let n = read.next().unwrap();
    match fs::read(mount.path("ids").join(&ids[0]).join(format!("f{n:02}"))) {
        Ok(data) => assert!(data == content(n)),
        other => assert!(is_eio(&other), "{other:?}"),
    }
    match names(&mount.path("versions")) {
        Ok(found) => assert_eq!(found.len() as u64, FILES + 1),
        other => assert!(is_eio(&other), "{other:?}"),
    }
}

fn comes_back(mount: &Mount, ids: &[String], read: &mut std::ops::Range<u64>) {
    let n = read.next().unwrap();
    for id in ids {
        let file = mount.path("ids").join(id).join(format!("f{n:02}"));
        eventually("the file again", || fs::read(&file).is_ok_and(|data| data == content(n)));
        assert!(names(&mount.path("ids").join(id)).unwrap().len() as u64 >= FILES);
    }
    eventually("all versions again", || {
        names(&mount.path("versions")).is_ok_and(|found| found.len() as u64 == FILES + 1)
    });
}

#[test]
fn a_part_that_goes_away_under_a_mount_is_never_empty_and_comes_back() {
    needs!(mounts);
    let world = world();
    let mut ways = vec![How::Renamed];
    match is_root() {
        true => note("permissions stop everybody but root: as root, parts are renamed only"),
        false => ways.push(How::Unreadable),
    }
    let ids = {
        let mount = world.mount();
        let ids = names(&mount.path("ids")).unwrap();
        mount.unmount(&world);
        ids
    };
    for seen in [false, true] {
        let mount = world.mount_with(&["--on-damage", "zero"]);
        let mut read = 0..FILES;
        if seen {
            comes_back(&mount, &ids, &mut read);
        } else {
            names(&mount.path("ids")).unwrap();
        }
        for part in ["", "packs", "snapshots", "index"] {
            for how in ways.iter().copied() {
                let away = Away::new(world.repo.join(part), how);
                looks_right(&mount, &ids, &mut read, seen);
                drop(away);
                comes_back(&mount, &ids, &mut read);
            }
        }
        mount.unmount(&world);
    }
    assert!(!world.mount_log().contains("zeros"), "{}", world.mount_log());
}

#[test]
fn a_disk_that_is_unmounted_under_a_mount_is_said_to_be_away_and_comes_back() {
    needs!(root);
    needs!(mounts);
    let world = World::new();
    let (disk, keep) = (world.folder("disk"), world.folder("keep"));
    let mount_at = |args: &[&str], at: &Path| silent(Command::new("mount").args(args).arg(at));
    mount_at(&["-t", "tmpfs", "none"], &disk);
    // Keeps what is on it while it is away.
    mount_at(&["--bind", disk.to_str().unwrap()], &keep);
    let result = std::panic::catch_unwind(|| {
        let mut inner = World::new();
        inner.repo = disk.join("repository");
        inner.run(["init"]).ok();
        let source = inner.folder("source");
        (0..FILES).for_each(|n| fs::write(source.join(format!("f{n:02}")), content(n)).unwrap());
        fs::write(source.join("more"), b"more").unwrap();
        inner.backup(["source"]).ok();
        let mount = inner.mount();
        let (ids, mut read) = (names(&mount.path("ids")).unwrap(), 0..FILES);
        comes_back(&mount, &ids, &mut read);
        silent(Command::new("umount").arg(&disk));
        eventually("a word about it", || {
            looks_right(&mount, &ids, &mut (FILES - 1..FILES), true);
            inner.mount_log().contains("out of reach")
        });
        mount_at(&["--bind", keep.to_str().unwrap()], &disk);
        comes_back(&mount, &ids, &mut read);
        eventually("a word about that too", || {
            let _ = names(&mount.path("ids"));
            inner.mount_log().contains("in reach again")
        });
        mount.unmount(&inner);
    });
    for at in [&disk, &keep] {
        let _ = Command::new("umount").arg("-l").arg(at).stderr(std::process::Stdio::null()).status();
    }
    if let Err(cause) = result {
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn packs_that_are_away_are_no_damage_for_any_command_that_reads() {
    let world = world();
    let away = Away::new(world.repo.join("packs"), How::Renamed);
    for args in [
        &["cat", "latest:f00"][..],
        &["snapshot", "list", "latest"],
        &["snapshot", "find", "*"],
        &["snapshot", "find", "--larger", "1", "*"],
    ] {
        world.run(args).exits(exit::STORAGE).says("so are other packs");
    }
    let ids: Vec<_> = world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    world.run(["snapshot", "diff", &ids[0], &ids[1]]).exits(exit::STORAGE).says("so are other packs");
    world.run(["cat", "--tar", "latest"]).exits(exit::PARTIAL).says("so are other packs");
    world.run(["restore", "latest", "out"]).exits(exit::PARTIAL).says("so are other packs");
    drop(away);
    world.run(["restore", "latest", "out"]).ok();
    assert!(fs::read(world.path("out/f07")).unwrap() == content(7));
    // One that is missing while others are there is damage.
    let packs =
        fingerprint(&world.repo.join("packs")).into_keys().map(|name| world.repo.join("packs").join(name));
    let largest =
        packs.filter(|path| path.is_file()).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let _lost = Away::new(largest, How::Renamed);
    let code = world.run(["restore", "latest", "again"]).exits(exit::PARTIAL);
    assert!(!code.stderr.contains("so are other"), "{code}");
}

/// What becomes of a file.
type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 6] = [
    ("empty", |file| fs::write(file, b"").unwrap()),
    ("cut", |file| {
        let len = fs::metadata(file).unwrap().len();
        File::options().write(true).open(file).unwrap().set_len(len / 2).unwrap();
    }),
    ("zeroed", |file| fs::write(file, vec![0; fs::metadata(file).unwrap().len() as usize]).unwrap()),
    ("garbage", |file| fs::write(file, noise(fs::metadata(file).unwrap().len() as usize, 5)).unwrap()),
    ("a FIFO", |file| {
        fs::remove_file(file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, file, 0o666.into()).unwrap();
    }),
    ("a folder", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
];

#[test]
fn local_files_of_any_kind_cost_time_only() {
    needs!(mounts);
    let world = world();
    let mount = world.mount();
    names(&mount.path("versions")).unwrap();
    mount.unmount(&world);
    let files: Vec<_> = fingerprint(&world.cache)
        .into_iter()
        .filter(|(_, (_, kind))| kind != "directory")
        .map(|(name, _)| world.cache.join(name))
        .collect();
    for wanted in ["pins/", "/index", "/seen", "/versions", "/files", "mount.log"] {
        let is_there = files.iter().any(|file| file.to_str().unwrap().contains(wanted));
        assert!(is_there, "{wanted} in {files:?}");
    }
    for (name, harm) in HARMS {
        let spoil = || files.iter().filter(|file| file.is_file()).for_each(|file| harm(file));
        spoil();
        world.run(["list"]).ok();
        spoil();
        world.backup(["source"]).ok();
        spoil();
        let to = format!("restored {name}");
        world.run(["restore", "latest", &to]).ok();
        assert!(
            (0..FILES).all(|n| fs::read(world.path(&to).join(format!("f{n:02}"))).unwrap() == content(n)),
            "{name}"
        );
        spoil();
        let mount = world.mount();
        assert!(fs::read(mount.latest().join("f01")).unwrap() == content(1), "{name}");
        assert_eq!(names(&mount.path("versions")).unwrap().len() as u64, FILES + 1, "{name}");
        mount.unmount(&world);
        for file in files.iter().filter(|file| !file.is_file()) {
            // What was not made again was not needed.
            let _ = fs::remove_file(file).or_else(|_| fs::remove_dir(file));
        }
    }
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn a_copy_of_the_index_that_is_cut_off_under_a_mount_costs_nothing() {
    needs!(mounts);
    let world = world();
    for len in [0, 4096] {
        let mount = world.mount_with(&["--cache-size", "16M"]);
        assert!(fs::read(mount.latest().join("f00")).unwrap() == content(0));
        let copies: Vec<_> =
            fingerprint(&world.cache).into_keys().filter(|name| name.ends_with("index")).collect();
        assert_eq!(copies.len(), 1, "{copies:?}");
        File::options().write(true).open(world.cache.join(&copies[0])).unwrap().set_len(len).unwrap();
        for n in 1..FILES {
            assert!(fs::read(mount.latest().join(format!("f{n:02}"))).unwrap() == content(n), "{n}");
        }
        let other = mount.path("ids");
        for id in names(&other).unwrap() {
            assert!(names(&other.join(id)).unwrap().len() as u64 >= FILES);
        }
        mount.unmount(&world);
    }
}
