//! Mounting and unmounting.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::harness::{Mount, World, exit, is_mounted, wait};
use super::processes::Foreground;
use super::tree::noise;

fn with_snapshots() -> World {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), b"first").unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    fs::write(source.join("file"), b"second one").unwrap();
    fs::write(source.join("large"), noise(5 << 20, 1)).unwrap();
    world.backup(["source", "--label", "photos"]).ok();
    world
}

#[test]
fn the_mount_shows_snapshots_by_id_time_host_and_label() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount();
    let list = |dir: &str| {
        let entries = fs::read_dir(mount.path(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(list(""), ["hosts", "ids", "labels", "snapshots", "versions"]);
    let mut names: Vec<_> =
        world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(list("ids"), names);
    assert_eq!(list("labels"), ["photos"]);
    let host = list("hosts").remove(0);
    for dir in ["snapshots", "labels/photos", &format!("hosts/{host}")] {
        let found = list(dir);
        assert_eq!(found.len(), 3, "{dir}: {found:?}");
        assert_eq!(found[2], "latest");
        assert!(found[0].starts_with("20") && found[0].as_bytes()[10] == b'T', "{found:?}");
        assert!(!found[0].contains(':'), "{found:?}");
        assert_eq!(fs::read(mount.path(dir).join("latest/file")).unwrap(), b"second one");
        assert_eq!(fs::read(mount.path(dir).join(&found[0]).join("file")).unwrap(), b"first");
    }
    mount.unmount(&world);
}

#[test]
fn inodes_of_two_snapshots_are_never_the_same() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount();
    let ids = fs::read_dir(mount.path("ids")).unwrap().map(|e| e.unwrap().path());
    let inodes: Vec<_> = ids.map(|p| fs::metadata(p.join("file")).unwrap().ino()).collect();
    assert_ne!(inodes[0], inodes[1]);
}

#[test]
fn nothing_in_a_mount_can_be_changed() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount();
    let latest = mount.latest();
    let read_only = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    };
    read_only(fs::write(latest.join("file"), b"x"));
    read_only(fs::write(latest.join("new"), b"x"));
    read_only(fs::remove_file(latest.join("file")));
    read_only(fs::create_dir(latest.join("dir")));
    read_only(fs::rename(latest.join("file"), latest.join("other")));
    read_only(fs::create_dir(mount.path("mine")));
    assert_eq!(fs::read(latest.join("nothing")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn files_are_read_at_any_place() {
    needs!(mounts);
    use std::os::unix::fs::FileExt;
    let world = with_snapshots();
    let mount = world.mount();
    let file = fs::File::open(mount.latest().join("large")).unwrap();
    let whole = noise(5 << 20, 1);
    for (at, len) in [(4 << 20, 1 << 20), (0, 1), (5 << 20, 10), ((5 << 20) - 3, 10), (1_234_567, 654_321)] {
        let mut buf = vec![0; len];
        let n = file.read_at(&mut buf, at as u64).unwrap();
        let wanted = &whole[at.min(whole.len())..(at + len).min(whole.len())];
        assert!(n <= wanted.len() && (n > 0 || wanted.is_empty()), "{n} of {} at {at}", wanted.len());
        assert_eq!(&buf[..n], &wanted[..n], "at {at}");
    }
}

#[test]
fn a_foreground_mount_says_where_and_ends_on_a_signal() {
    needs!(mounts);
    for signal in [Signal::INT, Signal::TERM] {
        let world = with_snapshots();
        let mut front = Foreground::start(&world, "foreground", &[]);
        assert_eq!(fs::read(front.mount.path("snapshots/latest/file")).unwrap(), b"second one");
        kill_process(front.pid(), signal).unwrap();
        let status = wait(&mut front.child, Duration::from_secs(20)).expect("it should end on a signal");
        assert!(!is_mounted(&front.at), "ended without unmounting");
        assert!([Some(0), Some(exit::INTERRUPTED)].contains(&status.code()), "{status}");
        let said = fs::read_to_string(world.path("foreground.out")).unwrap();
        assert!(said.contains(front.at.to_str().unwrap()), "it should say where it is mounted: {said:?}");
    }
}

#[test]
fn a_background_mount_lets_go_of_the_terminal() {
    needs!(mounts);
    let world = with_snapshots();
    let at = world.folder("background");
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args([OsStr::new("mount"), at.as_os_str(), "--background".as_ref()]);
    // A pipe as `$(vykar mount ...)` has: a process that keeps it open would hold up the shell.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mount = Mount::adopt(at.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(Duration::from_secs(60)).expect("the pipe stayed open").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(mount.path("snapshots/latest/file")).unwrap(), b"second one");
    // Unmounting the usual way works as well.
    let tool = if Command::new("fusermount3").arg("-V").output().is_ok() { "fusermount3" } else { "umount" };
    let args: &[&str] = if tool == "umount" { &[] } else { &["-u"] };
    assert!(Command::new(tool).args(args).arg(&at).status().unwrap().success());
    assert!(!is_mounted(&at));
}

#[test]
fn bad_mountpoints_are_refused() {
    let world = with_snapshots();
    fs::write(world.path("a file"), b"").unwrap();
    fs::create_dir(world.repo.join("empty")).unwrap();
    std::os::unix::fs::symlink("repo/empty", world.path("a way in")).unwrap();
    let before = super::harness::fingerprint(&world.repo);
    let inside = ["packs", "empty", "../a way in"].map(|name| world.repo.join(name));
    for at in [world.path("absent"), world.path("a file"), world.repo.clone()].into_iter().chain(inside) {
        let run = world.run([OsStr::new("mount"), at.as_os_str(), "--background".as_ref()]).one_message();
        assert!([exit::FAILURE, exit::USAGE].contains(&run.code), "{run}");
        assert!(!is_mounted(&at));
    }
    assert_eq!(super::harness::fingerprint(&world.repo), before);
    let mut umount = world.command();
    umount.arg("umount").arg(world.folder("not mounted"));
    let run = world.finish(umount).one_message();
    assert_ne!(run.code, 0, "{run}");
}

#[test]
fn a_mount_of_an_empty_repository_is_empty() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let mount = world.mount();
    for dir in ["ids", "snapshots", "hosts", "labels"] {
        assert_eq!(fs::read_dir(mount.path(dir)).unwrap().count(), 0, "{dir}");
    }
    mount.unmount(&world);
}

#[test]
fn many_readers_at_once_get_the_same_bytes() {
    needs!(mounts);
    let world = with_snapshots();
    let mount = world.mount();
    let path = mount.latest().join("large");
    let whole = noise(5 << 20, 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(fs::read(&path).unwrap() == whole));
        }
    });
}
