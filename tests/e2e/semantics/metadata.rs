//! What `stat`, `statfs` and attributes say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use crate::compare::{Leave, Name, join, read_tree, same};
use crate::harness::{World, fingerprint, is_root, note, silent};
use crate::tree::{Parts, generate, noise, prose};

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sets a file's length and writes pieces into it.
fn sparse(path: &Path, len: u64, pieces: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, data) in pieces {
        file.write_all_at(data, *at).unwrap();
    }
}

#[test]
fn blocks_are_the_plaintext_without_its_holes() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("text"), prose(3 << 20)).unwrap();
    fs::write(source.join("small"), b"1").unwrap();
    fs::write(source.join("empty"), b"").unwrap();
    let data = noise(1 << 20, 1);
    sparse(&source.join("sparse"), 100 << 20, &[(0, &data), (99 << 20, &data)]);
    world.backup(["source"]).ok();
    let mount = world.mount();
    let blocks = |name: &str| fs::metadata(mount.latest().join(name)).unwrap().blocks();
    assert_eq!((blocks("text"), blocks("small"), blocks("empty")), ((3 << 20) / 512, 1, 0));
    // Chunks at the edges of the data hold some zeros.
    let megabytes = (blocks("sparse") * 512) >> 20;
    assert!((2..=2 + 2 * 8 + 2).contains(&megabytes), "{megabytes} MiB");
    let du = |args: &[&str]| {
        let said = output(Command::new("du").args(args).arg(mount.latest().join("text")));
        said.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(du(&["--block-size=1"]), 3 << 20);
    assert_eq!(du(&["--block-size=1", "--apparent-size"]), 3 << 20);
}

#[test]
fn holes_are_found_and_sparse_files_copy_sparse() {
    needs!(mounts);
    use rustix::fs::{SeekFrom, seek};
    const M: u64 = 1 << 20;
    let world = World::with_repository("none");
    let source = world.folder("source");
    let data = noise(M as usize, 2);
    sparse(&source.join("middle"), 80 * M, &[(0, &data), (79 * M, &data)]);
    sparse(&source.join("all"), 60 * M, &[]);
    fs::write(source.join("dense"), &data).unwrap();
    world.backup(["source"]).ok();
    let mount = world.mount();

    let file = fs::File::open(mount.latest().join("middle")).unwrap();
    let hole = seek(&file, SeekFrom::Hole(0)).unwrap();
    let data_again = seek(&file, SeekFrom::Data(hole)).unwrap();
    assert!((M..=M + 8 * M).contains(&hole), "{hole}");
    assert!((71 * M..=79 * M).contains(&data_again), "{data_again}");
    assert_eq!(seek(&file, SeekFrom::Data(5)), Ok(5));
    assert_eq!(seek(&file, SeekFrom::Hole(data_again)), Ok(80 * M), "the end is a hole");
    assert_eq!(seek(&file, SeekFrom::Data(80 * M)), Err(Errno::NXIO));
    let file = fs::File::open(mount.latest().join("all")).unwrap();
    assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(0));
    assert_eq!(seek(&file, SeekFrom::Data(0)), Err(Errno::NXIO));
    let file = fs::File::open(mount.latest().join("dense")).unwrap();
    assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(M));

    let copy = world.folder("copy");
    for name in ["middle", "all", "dense"] {
        let (from, to) = (mount.latest().join(name), copy.join(name));
        silent(Command::new("cp").arg("--sparse=auto").args([&from, &to]));
        silent(Command::new("cmp").args([&source.join(name), &to]));
        let meta = fs::metadata(&to).unwrap();
        let (stored, size) = (meta.blocks() * 512, meta.len());
        assert!(name == "dense" || stored < size / 3, "{name}: {stored} of {size} bytes");
    }
}

#[test]
fn statfs_reports_what_the_repository_stores() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("noise"), noise(6 << 20, 1)).unwrap();
    fs::write(source.join("more"), noise(1 << 20, 2)).unwrap();
    world.backup(["source"]).ok();
    let mount = world.mount();
    let files = fingerprint(&world.repo);
    let packs = files.iter().filter(|(name, _)| name.starts_with("packs"));
    let stored: u64 = packs.map(|(_, (size, _))| size).sum();
    let said = rustix::fs::statvfs(mount.path("ids")).unwrap();
    let size = said.f_blocks * said.f_frsize;
    assert!(size.abs_diff(stored) < 64 << 10, "{size} of {stored}");
    assert_eq!((said.f_bfree, said.f_bavail, said.f_ffree), (0, 0, 0));
    assert_eq!((said.f_files, said.f_namemax), (2, 255));
    let df = output(Command::new("df").arg(mount.path("")));
    assert!(df.contains("100%") && df.contains("vykar:"), "{df}");
}

/// Inode number and link count of everything below a folder, by path.
fn inodes(root: &Path) -> BTreeMap<Name, (u64, u64)> {
    let tree = read_tree(root);
    let meta = |name: &Name| fs::symlink_metadata(join(root, name)).unwrap();
    tree.into_keys().map(|name| (meta(&name), name)).map(|(m, name)| (name, (m.ino(), m.nlink()))).collect()
}

#[test]
fn inode_numbers_tell_hard_links_and_nothing_else_and_stay() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::create_dir(source.join("dir")).unwrap();
    for (name, links) in [("one", 1), ("three", 3)] {
        fs::write(source.join(name), name).unwrap();
        for n in 1..links {
            fs::hard_link(source.join(name), source.join(format!("dir/{name}-{n}"))).unwrap();
        }
    }
    world.backup(["source"]).ok();
    world.backup(["source"]).ok();
    let mount = world.mount();
    let roots = |mount: &crate::harness::Mount| -> Vec<PathBuf> {
        world.snapshots().iter().map(|s| mount.path("ids").join(s["name"].as_str().unwrap())).collect()
    };
    let found: Vec<_> = roots(&mount).iter().map(|root| inodes(root)).collect();
    for tree in &found {
        let of = |name: &str| tree[name.as_bytes()];
        assert_eq!((of("three").1, of("one").1), (3, 1));
        assert!(of("three") == of("dir/three-1") && of("three") == of("dir/three-2"));
        let all: std::collections::BTreeSet<_> = tree.values().map(|(ino, _)| ino).collect();
        assert_eq!(all.len(), tree.len() - 2, "only the links share one");
    }
    let second: std::collections::BTreeSet<_> = found[1].values().map(|(ino, _)| ino).collect();
    assert!(found[0].values().all(|(ino, _)| !second.contains(ino)), "two snapshots share an inode");
    mount.unmount(&world);
    let mount = world.mount();
    let again: Vec<_> = roots(&mount).iter().map(|root| inodes(root)).collect();
    assert_eq!(again, found);
}

#[test]
fn tools_see_the_attributes_and_lists_of_the_source() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.path("source");
    generate(&source, Parts::default());
    world.backup(["source"]).ok();
    let mount = world.mount();
    let latest = mount.latest();
    let run = |program: &str, args: &[&str], at: &Path| {
        output(Command::new(program).args(args).arg(".").current_dir(at))
    };
    let attributes = ["-R", "-h", "-d", "-m", "-", "-e", "hex"];
    for part in
        ["attributes", "owners", "privileged", "modes"].into_iter().filter(|p| source.join(p).exists())
    {
        for (program, args) in [("getfattr", &attributes[..]), ("getfacl", &["-R", "-n"])] {
            let (wanted, found) =
                (run(program, args, &source.join(part)), run(program, args, &latest.join(part)));
            assert_eq!(sorted(&found), sorted(&wanted), "{program} {part}");
        }
    }
    let copy = world.path("copy");
    silent(Command::new("cp").arg("-a").args([&latest, &copy]));
    let leave = Leave { atime: true, ..Leave::default() };
    same(&read_tree(&source), &source, &copy, leave);
    let slash = |path: &Path| format!("{}/", path.display());
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--delete", "--itemize-changes", &slash(&latest), &slash(&source)]);
    if !is_root() {
        note("not root: owners are not compared");
        rsync.args(["--no-owner", "--no-group"]);
    }
    silent(&mut rsync);
}

/// The blocks of a listing, which come in the order of the folder.
fn sorted(text: &str) -> Vec<&str> {
    let mut blocks: Vec<_> = text.split("\n\n").collect();
    blocks.sort_unstable();
    blocks
}

#[test]
fn an_absent_attribute_is_said_to_be_absent_and_the_next_file_still_answers() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    let set = |name: &str, key: &str| {
        fs::write(source.join(name), name).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(source.join(name), key, name.as_bytes(), flags).unwrap();
    };
    fs::write(source.join("without"), b"").unwrap();
    set("a", "user.a");
    set("b", "user.b");
    world.backup(["source"]).ok();
    let mount = world.mount();
    let mut value = [0; 100];
    let mut get = |name: &str, key: &str| {
        rustix::fs::lgetxattr(mount.latest().join(name), key, &mut value[..]).map(|n| value[..n].to_vec())
    };
    for _ in 0..2 {
        for (name, key) in [("without", "user.a"), ("a", "user.b"), ("b", "user.a")] {
            assert_eq!(get(name, key), Err(Errno::NODATA), "{name} {key}");
        }
        for absent in ["system.posix_acl_access", "security.capability", "security.selinux"] {
            assert!([Err(Errno::NODATA), Err(Errno::OPNOTSUPP)].contains(&get("a", absent)), "{absent}");
        }
        assert_eq!((get("a", "user.a"), get("b", "user.b")), (Ok(b"a".to_vec()), Ok(b"b".to_vec())));
    }
    let names = output(Command::new("getfattr").arg("-d").arg(mount.latest().join("without")));
    assert_eq!(names, "");
}
