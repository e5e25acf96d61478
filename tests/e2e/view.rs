//! What a mount can be told to show: one snapshot, some of them, other folders, other owners.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::harness::{World, exit, is_mounted, is_root, note, silent};
use super::tree::{noise, set_mode};

/// Two snapshots labelled `photos`, one labelled `mail`.
fn with_snapshots() -> World {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::create_dir_all(source.join("a/b:c")).unwrap();
    fs::write(source.join("a/b:c/deep"), b"deep").unwrap();
    fs::write(source.join("file"), b"first").unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    fs::write(source.join("file"), b"second").unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    fs::write(source.join("file"), b"third").unwrap();
    world.backup(["source", "--label", "mail"]).ok();
    world
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `vykar mount` with arguments that it must refuse.
fn refused(world: &World, args: &[&str], code: i32) -> super::harness::Run {
    let at = world.folder("refused").display().to_string();
    let run = world.run(["mount", &at, "--background"].iter().chain(args)).exits(code);
    assert!(!is_mounted(Path::new(&at)));
    run
}

#[test]
fn one_snapshot_or_a_folder_of_it_is_the_root() {
    needs!(mounts);
    let world = with_snapshots();
    let first = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    let all = world.mount();
    let mount = world.mount_with(&["--snapshot", &first[..7]]);
    assert_eq!(names(&mount.path("")), ["a", "file"]);
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"first");
    let (root, there) = (fs::metadata(mount.path("")).unwrap(), fs::metadata(world.path("source")).unwrap());
    assert_eq!((root.ino(), root.mode(), root.mtime()), (1, there.mode(), there.mtime()));
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(ino(&mount.path("a/..")), 1);
    assert_eq!(ino(&mount.path("file")), ino(&all.path(format!("ids/{first}/file"))));

    // A file of the folder at the root; the path may hold a colon.
    let mount = world.mount_with(&["--snapshot", "latest:/a/b:c/"]);
    assert_eq!(names(&mount.path("")), ["deep"]);
    assert_eq!(fs::read(mount.path("deep")).unwrap(), b"deep");
    assert_eq!(ino(&mount.path("")), 1);
    let listed = std::process::Command::new("ls").arg("-fi").arg(mount.path("")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let inode_of = |name: &str| {
        let mut words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.find(|words| words[1] == name).unwrap()[0].to_owned()
    };
    assert_eq!(inode_of("."), "1");

    let run = refused(&world, &["--snapshot", "latest:a/x"], exit::FAILURE).one_message();
    run.says(r#"no folder "a/x": "a" has "b:c""#);
    let run = refused(&world, &["--snapshot", "latest:file"], exit::FAILURE).one_message();
    run.says("\"file\" is not a folder");
    refused(&world, &["--snapshot", "nothing"], exit::FAILURE).one_message().says("not found");
    refused(&world, &["--snapshot", "latest", "--path-template", "{id}"], exit::USAGE);
}

#[test]
fn the_snapshot_at_the_root_stays_the_one_it_was() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount_with(&["--snapshot", "latest", "--label", "photos"]);
    let large = noise(3 << 20, 7);
    fs::write(world.path("source/file"), &large).unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    let newest = world.mount_with(&["--snapshot", "latest"]);
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"second", "the newest of the label, then");

    // It is deleted: what is read is right or an error.
    let id = world.snapshots()[3]["id"].as_str().unwrap().to_owned();
    let file = fs::File::open(newest.path("file")).unwrap();
    fs::remove_file(world.repo.join("snapshots").join(id)).unwrap();
    let mut found = Vec::new();
    let read = std::io::Read::read_to_end(&mut &file, &mut found);
    assert!(found[..] == large[..found.len()]);
    match read {
        Ok(_) => assert!(found.len() == large.len()),
        Err(e) => assert!([5, 116].contains(&e.raw_os_error().unwrap()), "{e}"),
    }
}

#[test]
fn filters_choose_among_snapshots_that_are_there_and_that_come() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount_with(&["--label", "photos", "--since", "1d"]);
    assert_eq!(names(&mount.path("labels")), ["photos"]);
    assert_eq!(names(&mount.path("ids")).len(), 2);
    assert_eq!(fs::read(mount.path("snapshots/latest/file")).unwrap(), b"second");
    world.backup(["source", "--label", "mail"]).ok();
    fs::write(world.path("source/file"), b"fourth").unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    super::harness::eventually("the new one appearing", || names(&mount.path("ids")).len() == 3);
    assert_eq!(names(&mount.path("labels")), ["photos"]);
    assert_eq!(fs::read(mount.path("snapshots/latest/file")).unwrap(), b"fourth");

    let at = world.folder("nothing").display().to_string();
    let run = world.run(["mount", &at, "--background", "--host", "nowhere", "--label", "photos"]).ok();
    let mount = super::harness::Mount::adopt(at.into());
    run.says("no snapshot matches");
    assert_eq!(names(&mount.path("ids")), [""; 0]);
    for when in ["yesterday", "2026-13-01", "30"] {
        refused(&world, &["--since", when], exit::USAGE).says(when);
    }
}

#[test]
fn path_templates_say_what_the_folders_are() {
    needs!(mounts);
    let world = with_snapshots();
    let by = ["--path-template", "by/{label}/%Y", "--path-template", "{id}"];
    let mount = world.mount_with(&by);
    let ids = world.snapshots();
    let mut expected: Vec<_> = ids.iter().map(|s| s["id"].as_str().unwrap()[..8].to_owned()).collect();
    expected.extend(["by".to_owned(), "latest".to_owned()]);
    expected.sort();
    assert_eq!(names(&mount.path("")), expected);
    let photos = names(&mount.path("by/photos"));
    assert!(photos.len() == 3 && photos[1] == format!("{}-2", photos[0]) && photos[2] == "latest");
    assert_eq!(fs::read(mount.path("by/photos").join(&photos[0]).join("file")).unwrap(), b"first");
    assert_eq!(fs::read(mount.path("by/photos/latest/file")).unwrap(), b"second");
    assert_eq!(fs::read(mount.path("latest/file")).unwrap(), b"third");
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    let inodes = ["by", "by/photos", "by/photos/latest/a"].map(|path| ino(&mount.path(path)));
    mount.unmount(&world);
    let mount = world.mount_with(&by);
    assert_eq!(inodes, ["by", "by/photos", "by/photos/latest/a"].map(|path| ino(&mount.path(path))));

    for (template, piece) in [("a//b", "empty"), ("..", ".."), ("x{user}", "{user}"), ("%!", "%!")] {
        refused(&world, &["--path-template", template], exit::USAGE).says(piece);
    }
    let five: Vec<_> = (0..5).flat_map(|n| ["--path-template".to_owned(), format!("{n}/{{id}}")]).collect();
    let five: Vec<_> = five.iter().map(String::as_str).collect();
    refused(&world, &five, exit::USAGE).says("at most 4");
    refused(&world, &[by, by].concat(), exit::USAGE).says("given twice");
}

#[test]
fn owners_and_permissions_are_shown_as_told() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::write(source.join("file"), b"x").unwrap();
    set_mode(&source.join("file"), 0o664);
    fs::create_dir(source.join("dir")).unwrap();
    set_mode(&source.join("dir"), 0o2775);
    fs::write(source.join("listed"), b"x").unwrap();
    silent(std::process::Command::new("setfacl").args(["-m", "u:1234:rw-"]).arg(source.join("listed")));
    world.backup(["source"]).ok();
    let look = |mount: &super::harness::Mount, path: &str| {
        let meta = fs::metadata(mount.path(path)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let mount = world.mount_with(&["--uid", "1234", "--gid", "root", "--umask", "027"]);
    assert_eq!(look(&mount, ""), (1234, 0, 0o550));
    assert_eq!(look(&mount, "snapshots/latest"), (1234, 0, 0o750));
    assert_eq!(look(&mount, "snapshots/latest/file"), (1234, 0, 0o640));
    assert_eq!(look(&mount, "snapshots/latest/dir"), (1234, 0, 0o2750));
    let listed = mount.latest().join("listed");
    assert!(super::compare::xattrs(&listed).is_empty());
    assert_eq!(look(&mount, "snapshots/latest/listed").2, 0o640, "the group's own, not the mask");
    let mount = world.mount_with(&["--owner-root"]);
    assert_eq!(look(&mount, "hosts"), (0, 0, 0o555));
    assert_eq!(look(&mount, "snapshots/latest/file"), (0, 0, 0o664));
    let mount = world.mount();
    assert!(!super::compare::xattrs(&mount.latest().join("listed")).is_empty());
    for args in [
        &["--owner-root", "--uid", "1"][..],
        &["--owner-root", "--gid", "1"],
        &["--uid", "no such user"],
        &["--umask", "9"],
        &["--umask", "1000"],
    ] {
        refused(&world, args, exit::USAGE);
    }
}

/// Of the kernel, in KiB.
const DEFAULT_READ_AHEAD: u32 = 128;

/// How far the kernel reads ahead in a file system, in KiB.
fn read_ahead(at: &Path) -> u32 {
    let device = fs::metadata(at).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().parse().unwrap()
}

#[test]
fn sizes_and_numbers_are_checked() {
    needs!(mounts);
    let world = with_snapshots();
    for (args, word) in [
        (["--cache-size", "0"], "at least 16M"),
        (["--cache-size", "15M"], "at least 16M"),
        (["--cache-size", "many"], "512M"),
        (["--readahead", "some"], "--readahead"),
        (["--readahead", "1000000"], "0 to 65536"),
        (["--threads", "100000"], "0 to 512"),
        (["--on-damage", "guess"], "zero"),
    ] {
        refused(&world, &args, exit::USAGE).says(word);
    }
    for (size, ahead) in [("16", "0"), ("64M", "2048"), ("1G", "1024")] {
        let mount = world.mount_with(&["--cache-size", size, "--readahead", ahead, "--threads", "1"]);
        assert_eq!(fs::read(mount.path("snapshots/latest/file")).unwrap(), b"third");
        if is_root() {
            let wanted = ahead.parse::<u32>().unwrap().max(DEFAULT_READ_AHEAD);
            assert_eq!(read_ahead(&mount.path("")), wanted, "{}", world.mount_log());
        } else {
            note("not root: the read-ahead cannot be set");
        }
        mount.unmount(&world);
    }
}
