//! What can be backed up, and what is said about what cannot.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::compare::{Leave, read_tree, same};
use super::harness::{World, exit, is_root, silent};
use super::tree::{generate_special, noise, prose, set_mode, set_times};

#[test]
fn a_source_that_is_one_file_is_stored_under_its_name() {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("folder").join("only this");
    fs::write(&source, b"one file").unwrap();
    fs::write(world.path("folder/not this"), b"no").unwrap();
    world.backup([source.as_os_str()]).ok();
    world.run(["restore", "latest", "restored"]).ok();
    let names: Vec<_> =
        fs::read_dir(world.path("restored")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["only this"]);
    assert_eq!(fs::read(world.path("restored/only this")).unwrap(), b"one file");
    world.oracle_verify();
}

#[test]
fn several_sources_keep_their_absolute_paths() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let (one, two) = (world.folder("one"), world.folder("two/below"));
    fs::write(one.join("a"), b"a").unwrap();
    fs::write(two.join("b"), b"b").unwrap();
    fs::write(world.path("single"), b"c").unwrap();
    set_mode(&one, 0o750);
    set_times(&one, (1, 2), (3, 4));
    // Relative and absolute, with and without a slash behind.
    let mut first = one.clone().into_os_string();
    first.push("/");
    world.backup([first.as_os_str(), "two/below".as_ref(), world.path("single").as_os_str()]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "restored"]).ok();
    let real = fs::canonicalize(world.path("")).unwrap();
    let below = world.path("restored").join(real.strip_prefix("/").unwrap());
    assert_eq!(fs::read(below.join("one/a")).unwrap(), b"a");
    assert_eq!(fs::read(below.join("two/below/b")).unwrap(), b"b");
    assert_eq!(fs::read(below.join("single")).unwrap(), b"c");
    let meta = fs::metadata(below.join("one")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o750, 3, 4));

    let mount = world.mount();
    let mounted = mount.latest().join(real.strip_prefix("/").unwrap());
    same(&read_tree(&two), &two, &mounted.join("two/below"), Leave { owner: false, ..Leave::default() });
    assert!(fs::metadata(mounted.parent().unwrap()).unwrap().is_dir(), "folders above are made up");
    mount.unmount(&world);
}

#[test]
fn a_source_folders_own_metadata_is_kept() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), b"x").unwrap();
    rustix::fs::lsetxattr(&source, "user.own", b"root of it", rustix::fs::XattrFlags::empty()).unwrap();
    set_mode(&source, 0o1751);
    if is_root() {
        std::os::unix::fs::chown(&source, Some(77), Some(78)).unwrap();
    }
    set_times(&source, (5, 6), (-7, 8));
    let before = read_tree(&source);
    world.backup(["source"]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "restored"]).ok();
    same(&before, &source, &world.path("restored"), Leave::default());
    let mount = world.mount();
    same(&before, &source, &mount.latest(), Leave { owner: false, ..Leave::default() });
    mount.unmount(&world);
}

#[test]
fn a_source_may_be_given_in_odd_ways() {
    let world = World::with_repository("none");
    let source = world.folder("folder");
    fs::write(source.join("file"), b"x").unwrap();
    std::os::unix::fs::symlink("folder", world.path("link")).unwrap();
    for path in ["folder", "./folder", "folder/.", "folder//", "folder/../folder", "link/"] {
        world.backup([path]).ok();
        let to = format!("restored-{}", path.bytes().map(|b| format!("{b:02x}")).collect::<String>());
        world.run(["restore", "latest", &to]).ok();
        assert_eq!(fs::read(world.path(&to).join("file")).unwrap(), b"x", "{path}");
    }
    let mut inside = world.command();
    inside.current_dir(&source).arg("-R").arg(&world.repo).args(["backup", "."]);
    world.finish(inside).ok();
    let raw = world.path("").join(std::ffi::OsStr::from_bytes(b"raw-\xff"));
    fs::create_dir(&raw).unwrap();
    fs::write(raw.join("file"), b"raw").unwrap();
    world.backup([raw.as_os_str()]).ok();
    world.run(["restore", "latest", "restored-raw"]).ok();
    assert_eq!(fs::read(world.path("restored-raw/file")).unwrap(), b"raw");
    world.oracle_verify();
}

#[test]
fn an_empty_folder_is_a_fine_source() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    world.folder("source");
    world.backup(["source"]).ok();
    world.run(["check", "--verify-data"]).ok();
    world.run(["restore", "latest", "restored"]).ok();
    assert_eq!(fs::read_dir(world.path("restored")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.mount().latest()).unwrap().count(), 0);
    world.oracle_verify();
}

#[test]
fn an_absent_source_is_an_error_and_stores_nothing() {
    let world = World::with_repository("aes256gcm");
    let run = world.backup(["no such folder"]).says("no such folder");
    assert!([exit::FAILURE, exit::USAGE, exit::PARTIAL].contains(&run.code), "{run}");
    assert!(world.snapshots().is_empty(), "a snapshot of nothing was made");
}

#[test]
fn sockets_fifos_and_devices_are_kept_restored_and_mounted() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    let below = world.folder("source/below");
    let special: Vec<_> = [generate_special(&source), generate_special(&below)].concat();
    fs::write(source.join("file"), b"stored").unwrap();
    set_mode(&special[0], 0o4640);
    let run = world.backup(["source"]).ok();
    assert!(run.out().contains(&format!("{} special", special.len())), "{run}");
    world.run(["restore", "latest", "restored"]).ok();
    let mount = world.mount();
    for path in &special {
        let name = path.strip_prefix(&source).unwrap();
        let facts = |path: &Path| {
            let m = fs::symlink_metadata(path).unwrap();
            (m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec(), m.rdev(), m.size())
        };
        assert_eq!(facts(&world.path("restored").join(name)), facts(path), "restored {name:?}");
        assert_eq!(facts(&mount.latest().join(name)), facts(path), "mounted {name:?}");
    }
    let list = world.run(["snapshot", "list", "latest", "--json"]).ok().out();
    assert_eq!(list.matches("\"type\":\"fifo\"").count(), 2, "{list}");
    let filtered = world.run(["restore", "latest", "one", "below/fifo"]).ok();
    assert_eq!(fs::read_dir(world.path("one/below")).unwrap().count(), 1, "{filtered}");
    // Other programs see everything else.
    world.oracle_verify();
    world.run(["check", "--verify-data"]).ok();
    // And repeating it changes nothing.
    let again = world.backup(["source", "--json"]).ok().json();
    assert_eq!((again["special"].as_u64(), again["added"].as_u64()), (Some(special.len() as u64), Some(0)));
}

#[test]
fn names_of_one_symlink_or_special_file_stay_names_of_one() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    world.folder("source/below");
    let special = generate_special(&source);
    std::os::unix::fs::symlink("anywhere", source.join("symlink")).unwrap();
    for first in special.into_iter().chain([source.join("symlink")]) {
        let name = first.file_name().unwrap().to_owned();
        fs::hard_link(&first, source.join("below").join(name)).unwrap();
    }
    // As alike as can be, and another one.
    std::os::unix::fs::symlink("anywhere", source.join("symlink 2")).unwrap();
    world.backup(["source"]).ok();
    let tree = read_tree(&source);
    let leave = Leave { root: true, ..Leave::default() };
    for round in ["nothing was there", "all was there"] {
        world.run(["restore", "latest", "restored"]).ok();
        same(&tree, &source, &world.path("restored"), leave);
        assert!(read_tree(&world.path("restored"))[&b"below/fifo"[..]].same_as.is_some(), "{round}");
    }
    // What was one and is two is one again, if it may be replaced.
    let restored = world.path("restored");
    fs::remove_file(restored.join("symlink")).unwrap();
    std::os::unix::fs::symlink("anywhere", restored.join("symlink")).unwrap();
    world.run(["restore", "--overwrite", "always", "latest", "restored"]).ok();
    same(&tree, &source, &restored, leave);
    same(&tree, &source, &world.mount().latest(), Leave::default());
    // An archive has no sockets.
    fs::remove_file(source.join("socket")).unwrap();
    fs::remove_file(source.join("below/socket")).unwrap();
    world.backup(["source"]).ok();
    let archive = world.run(["cat", "latest", "--tar"]).ok().stdout;
    fs::write(world.path("archive.tar"), archive).unwrap();
    for program in ["tar", "bsdtar"] {
        let to = world.folder(program);
        silent(Command::new(program).arg("-xpf").arg(world.path("archive.tar")).arg("-C").arg(&to));
        same(&read_tree(&source), &source, &to, leave);
    }
    // Some of them can be left out of a snapshot.
    world.run(["rewrite", "latest", "--exclude", "/below/fifo", "--forget"]).ok();
    world.run(["restore", "latest", "fewer"]).ok();
    assert_eq!(read_tree(&world.path("fewer"))[&b"fifo"[..]].same_as, None);
    assert!(read_tree(&world.path("fewer"))[&b"symlink"[..]].same_as.is_some());
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_stored() {
    let mut world = World::new();
    let source = world.folder("source");
    fs::write(source.join("readable"), b"stored").unwrap();
    fs::write(source.join("secret"), b"not for you").unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    fs::write(source.join("closed/inside"), b"nor this").unwrap();
    set_mode(&source.join("secret"), 0);
    set_mode(&source.join("closed"), 0);
    if is_root() {
        world.as_nobody = true;
        set_mode(&source, 0o755);
        let ground = world.folder("ground");
        set_mode(&ground, 0o777);
        (world.repo, world.cache) = (ground.join("repo"), ground.join("cache"));
    }
    world.run(["init", "--encryption", "aes256gcm"]).ok();
    world.backup(["source"]).exits(exit::PARTIAL).says("secret").says("closed");
    assert_eq!(world.snapshots().len(), 1);
    let info = world.run(["snapshot", "info", "latest", "--json"]).ok().json().to_string();
    assert!(info.contains("\"errors\":2"), "{info}");
    world.as_nobody = false;
    world.run(["--trust-repo", "restore", "latest", "restored"]).ok();
    assert_eq!(fs::read(world.path("restored/readable")).unwrap(), b"stored");
    assert!(!world.path("restored/secret").exists());
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

/// Appends without a pause until told to stop.
fn while_appending<T>(path: &Path, test: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"one more line\n").unwrap();
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
        let result = test();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn a_file_that_changes_while_it_is_read_is_stored_as_read_and_reported() {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    let growing = source.join("growing");
    // Large enough that reading takes longer than the pause between two lines.
    fs::write(&growing, prose(80 << 20)).unwrap();
    fs::write(source.join("still"), b"still").unwrap();
    while_appending(&growing, || world.backup(["source"]).exits(exit::PARTIAL).says("growing"));
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "restored"]).ok();
    let (stored, now) = (fs::read(world.path("restored/growing")).unwrap(), fs::read(&growing).unwrap());
    assert!(stored.len() >= 80 << 20 && now.starts_with(&stored), "{} of {}", stored.len(), now.len());
    assert_eq!(fs::read(world.path("restored/still")).unwrap(), b"still");

    // It was not taken for unchanged.
    world.backup(["source"]).ok();
    world.run(["restore", "latest", "again"]).ok();
    assert!(fs::read(world.path("again/growing")).unwrap() == now);
}

#[test]
fn the_repository_and_its_cache_are_not_backed_up_into_themselves() {
    let world = World::with_repository("aes256gcm");
    fs::write(world.path("mine"), noise(1000, 1)).unwrap();
    world.backup([world.path("").as_os_str()]).ok();
    let paths = world.run(["snapshot", "list", "latest"]).ok().out();
    assert!(paths.contains("mine"), "{paths}");
    assert!(!paths.contains("repo/packs") && !paths.contains("/files-"), "{paths}");
}
