//! Archives (`cat --tar`) as GNU tar, bsdtar and Python extract them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use super::compare::{Name, join, read_tree, xattrs};
use super::harness::{World, silent};
use super::tree::{noise, set_mode, set_times};

/// Extracts `archive.tar` in a new folder with each of the three.
fn extracted(world: &World) -> BTreeMap<&'static str, PathBuf> {
    const PYTHON: &str = "import sys, tarfile
options = {'filter': 'fully_trusted'} if hasattr(tarfile, 'fully_trusted_filter') else {}
tarfile.open(sys.argv[1]).extractall(sys.argv[2], **options)";
    let archive = world.path("archive.tar");
    let mut made = BTreeMap::new();
    for program in ["tar", "bsdtar", "python3"] {
        let to = world.folder(program);
        let mut command = Command::new(program);
        match program {
            "python3" => command.args(["-c", PYTHON]).arg(&archive).arg(&to),
            "tar" => command
                .args(["--acls", "--xattrs", "--xattrs-include=*", "-xpf"])
                .arg(&archive)
                .arg("-C")
                .arg(&to),
            _ => command.args(["-xpf"]).arg(&archive).arg("-C").arg(&to),
        };
        silent(&mut command);
        made.insert(program, to);
    }
    made
}

fn archive(world: &World, place: &str) {
    let run = world.run(["cat", place, "--tar"]).ok();
    fs::write(world.path("archive.tar"), run.stdout).unwrap();
}

fn mkfifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
}

/// A tree that chance makes: folders in folders, with special files before, between and behind what else is in them.
fn grow(dir: &Path, random: &mut dyn Iterator<Item = u8>, depth: usize) {
    fs::create_dir(dir).unwrap();
    let mut next = |below: u8| random.next().unwrap() % below;
    let kinds: Vec<_> = (0..next(6)).map(|_| (next(5), next(26))).collect();
    for (kind, letter) in kinds {
        let path = dir.join(char::from(b'a' + letter).to_string());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match kind {
            0 | 1 if depth > 0 => grow(&path, random, depth - 1),
            0 | 2 => mkfifo(&path),
            3 => symlink("nowhere", &path).unwrap(),
            _ => fs::write(&path, b"content").unwrap(),
        }
    }
    set_mode(dir, 0o750);
}

fn set_old_times(root: &Path) {
    let names: Vec<Name> = read_tree(root).into_keys().collect();
    for (name, second) in names.iter().rev().zip(1_000_000_000..) {
        set_times(&join(root, name), (second, 5_000), (second, 7_000));
    }
}

#[test]
fn every_time_is_right_whichever_program_extracts() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    let mut random = noise(1 << 16, 33).into_iter();
    for number in 0..60 {
        grow(&source.join(format!("tree{number}")), &mut random, 4);
    }
    set_old_times(&source);
    let before = read_tree(&source);
    assert!(before.len() > 200, "{}", before.len());
    world.backup(["source"]).ok();
    archive(&world, "latest");
    for (program, to) in extracted(&world) {
        let after = read_tree(&to);
        assert!(before.keys().eq(after.keys()), "{program}");
        for (name, entry) in &before {
            let found = &after[name];
            let shown = String::from_utf8_lossy(name);
            // Python keeps no nanoseconds, and no time of symlinks.
            let unit = if program == "python3" { 1_000_000_000 } else { 1 };
            if program != "python3" || entry.target.is_none() {
                assert_eq!(found.mtime / unit, entry.mtime / unit, "{program}: {shown}");
            }
            assert_eq!(found.mode, entry.mode, "{program}: {shown}");
        }
    }
}

fn set_acl(path: &Path, entries: &str) {
    silent(Command::new("setfacl").args(["-m", entries]).arg(path));
}

#[test]
fn acls_are_extracted_and_without_them_the_group_gets_its_own_rights() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    let shared = source.join("shared");
    fs::create_dir(source.join("inherits")).unwrap();
    for path in [&shared, &source.join("inherits/plain")] {
        fs::write(path, b"content").unwrap();
        set_mode(path, 0o640);
    }
    set_acl(&shared, "u:5001:rw,g:0:r");
    set_acl(&source.join("inherits"), "d:u:5001:rwx");
    assert_eq!(shared.metadata().unwrap().mode() & 0o777, 0o660, "the mask");
    world.backup(["source"]).ok();
    archive(&world, "latest");
    for (program, to) in extracted(&world) {
        let mode = to.join("shared").metadata().unwrap().mode() & 0o777;
        if program == "python3" {
            assert_eq!(mode, 0o640);
            continue;
        }
        assert_eq!(mode, 0o660, "{program}");
        for name in ["shared", "inherits", "inherits/plain"] {
            let acls = |root: &Path| {
                let mut found = xattrs(&root.join(name));
                found.retain(|name, _| name.starts_with("system.posix_acl_"));
                found
            };
            assert_eq!(acls(&to), acls(&source), "{program}: {name}");
        }
    }
    // Without `--acls`, with and without everything else.
    for (number, args) in [&["-xpf"][..], &["--xattrs", "--xattrs-include=*", "-xpf"]].into_iter().enumerate()
    {
        let to = world.folder(&format!("without{number}"));
        silent(Command::new("tar").args(args).arg(world.path("archive.tar")).arg("-C").arg(&to));
        assert_eq!(to.join("shared").metadata().unwrap().mode() & 0o777, 0o640);
        assert!(xattrs(&to.join("shared")).is_empty());
    }
}
