//! Names, paths, symlinks, large folders.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use vykar_core::format::{Item, ItemType};

use crate::craft::Crafted;
use crate::harness::World;

fn crafted(crafted: Crafted) -> World {
    let world = World::new();
    crafted.write(&world.repo);
    world
}

#[test]
fn names_are_any_bytes() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|c| *c != b'/' && *c != b'.').map(|c| vec![c]).collect();
    names.extend([
        vec![0xff; 255],
        b"...".to_vec(),
        b"a\n\t\\\"' $(x)".to_vec(),
        "ü".repeat(127).into_bytes(),
    ]);
    for name in &names {
        fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
    }
    world.backup(["source"]).ok();
    let mount = world.mount();
    let found: HashSet<OsString> =
        fs::read_dir(mount.latest()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(found, names.iter().map(|name| OsString::from_vec(name.clone())).collect());
    for name in &names {
        assert_eq!(&fs::read(mount.latest().join(OsStr::from_bytes(name))).unwrap(), name);
    }
    let long = mount.latest().join("n".repeat(256));
    assert_eq!(fs::metadata(long).unwrap_err().raw_os_error(), Some(36), "ENAMETOOLONG");
}

#[test]
fn symlinks_are_verbatim_up_to_4095_bytes() {
    needs!(mounts);
    let targets: Vec<String> =
        vec!["x".into(), "../..//a/./b/".into(), "/absolute".into(), "\n ü\\".into(), "t".repeat(4095)];
    let mut repository = Crafted::new().symlink("too-long", &"t".repeat(4096));
    for (n, target) in targets.iter().enumerate() {
        repository = repository.symlink(&format!("link-{n}"), target);
    }
    let world = crafted(repository);
    let mount = world.mount();
    for _ in 0..2 {
        for (n, target) in targets.iter().enumerate() {
            let link = mount.latest().join(format!("link-{n}"));
            assert_eq!(fs::read_link(&link).unwrap(), std::path::Path::new(target));
            assert_eq!(fs::symlink_metadata(&link).unwrap().len(), target.len() as u64);
        }
        assert!(fs::read_link(mount.latest().join("too-long")).is_err(), "never cut");
    }
}

/// Entries of the folder that is listed.
const MANY: usize = 200_000;

#[test]
fn a_folder_of_200_000_entries_is_listed_completely_while_it_is_sought_in() {
    needs!(mounts);
    let mut repository = Crafted::new().dir("many");
    for n in 0..MANY {
        let path = format!("many/entry number {n}");
        repository = repository.item(&Item { mode: 0o100_644, ..Item::new(path, ItemType::RegularFile) });
    }
    let world = crafted(repository);
    let mount = world.mount();
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Dir::new(openat(CWD, mount.latest().join("many"), flags, Mode::empty()).unwrap()).unwrap()
    };
    let mut dir = open();
    let mut seen: Vec<(Vec<u8>, i64)> = Vec::with_capacity(MANY + 2);
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        seen.push((entry.file_name().to_bytes().to_vec(), entry.offset()));
    }
    let unique: HashSet<&[u8]> = seen.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!((seen.len(), unique.len()), (MANY + 2, MANY + 2));
    assert!((0..MANY).all(|n| unique.contains(format!("entry number {n}").as_bytes())));

    // Back and forth: behind each position stands what stood there before.
    for jump in 0..500 {
        let at = (jump * 7919 * 31) % (MANY + 1);
        dir.seek(seen[at].1).unwrap();
        for (name, _) in &seen[at + 1..(at + 4).min(seen.len())] {
            assert_eq!(dir.read().unwrap().unwrap().file_name().to_bytes(), &name[..], "behind {at}");
        }
        if jump % 50 == 0 {
            dir.rewind();
            assert_eq!(dir.read().unwrap().unwrap().file_name().to_bytes(), &seen[0].0[..]);
        }
    }
    // From the kernel's cache it is the same.
    let mut again = open();
    let names = std::iter::from_fn(|| again.read()).map(|e| e.unwrap().file_name().to_bytes().to_vec());
    assert!(names.eq(seen.into_iter().map(|(name, _)| name)));
    let listed = Command::new("ls").arg("-f").arg(mount.latest().join("many")).output().unwrap();
    assert_eq!(listed.stdout.iter().filter(|c| **c == b'\n').count(), MANY + 2);
}

#[test]
fn paths_may_be_longer_than_a_path_may_be() {
    needs!(mounts);
    // 40 folders of 255 bytes: 10 KiB in all, and 4095 bytes after 16.
    let part = |n: usize| format!("{n:03}{}", "d".repeat(252));
    let mut repository = Crafted::new();
    let mut path = String::new();
    for n in 0..40 {
        path += &part(n);
        repository = repository.dir(&path).file(&format!("{path}/f"), format!("at {n}").as_bytes());
        path.push('/');
    }
    let world = crafted(repository);
    let mount = world.mount();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let top: OwnedFd = openat(CWD, mount.latest(), flags, Mode::empty()).unwrap();
    // The longest path that a system call takes: 4095 bytes and the end.
    let longest = (0..16).map(part).collect::<Vec<_>>().join("/");
    assert_eq!(longest.len(), 4095);
    assert!(openat(&top, longest.as_str(), flags, Mode::empty()).is_ok());
    let mut at = top;
    for n in 0..40 {
        at = openat(&at, part(n).as_str(), flags, Mode::empty()).unwrap();
        let file = openat(&at, "f", flags, Mode::empty()).unwrap();
        let mut found = String::new();
        std::io::Read::read_to_string(&mut fs::File::from(file), &mut found).unwrap();
        assert_eq!(found, format!("at {n}"));
    }
    // A walk by chdir, as programs do.
    let found = Command::new("find").arg(mount.latest()).args(["-name", "f", "-printf", "%d\\n"]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    assert_eq!(found.lines().count(), 40);
    assert!(found.lines().any(|depth| depth == "41"));
}
