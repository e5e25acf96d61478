//! Several programs at one repository, and programs that end in the middle.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vykar_core::platform::ProcessIdentity;

use super::harness::{World, eventually, exit, fingerprint, wait};
use super::tree::noise;

pub fn spawn_backup(world: &World, source: &str, args: &[&str]) -> Child {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(["backup", source]).args(args);
    let log = |name: &str| fs::File::create(world.path(&format!("{source}.{name}"))).unwrap();
    command.stdout(log("out")).stderr(log("err")).spawn().unwrap()
}

/// Keys below a folder of the repository, which somebody may be writing to.
pub fn objects(world: &World, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(world.repo.join(&folder)).into_iter().flatten().flatten() {
            let key = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(key),
                _ if entry.file_name().as_encoded_bytes().starts_with(b".tmp") => {}
                _ => found.push(key),
            }
        }
    }
    found
}

fn put_lock(world: &World, host: &str, pid: u32, boot_id: Option<&str>) -> PathBuf {
    let time = vykar_core::repository::now_rfc3339();
    let text = serde_json::json!({"hostname": host, "pid": pid, "time": time, "boot_id": boot_id});
    let path = world.repo.join(format!("locks/{:020}-{}.json", 1_000_000, "ab".repeat(16)));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text.to_string()).unwrap();
    path
}

/// Ten backups at once, all of which must arrive; gives how many bytes of content they stored.
fn ten_at_once(world: &World) -> u64 {
    let sources: Vec<String> = (0..10).map(|n| format!("source-{n}")).collect();
    let children: Vec<_> =
        sources.iter().map(|source| spawn_backup(world, source, &["--json", "--quiet"])).collect();
    let mut added = 0;
    for (source, mut child) in sources.iter().zip(children) {
        let status = wait(&mut child, Duration::from_secs(120)).expect("backup should end");
        let said = fs::read_to_string(world.path(&format!("{source}.err"))).unwrap();
        assert!(status.success() && said.is_empty(), "{source}: {status}\n{said}");
        let summary = fs::read(world.path(&format!("{source}.out"))).unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
        added += summary["added"].as_u64().unwrap();
    }
    assert!(objects(world, "sessions").is_empty() && objects(world, "locks").is_empty());
    added
}

#[test]
fn ten_backups_at_once_all_arrive_and_share_what_they_have_in_common() {
    const OWN: u64 = 1 << 20;
    const COMMON: u64 = 2 << 20;
    let world = World::with_repository("none");
    for n in 0..10 {
        let source = world.folder(&format!("source-{n}"));
        fs::write(source.join("own"), noise(OWN as usize, n)).unwrap();
        fs::write(source.join("common"), noise(COMMON as usize, 99)).unwrap();
    }
    let added = ten_at_once(&world);
    assert!((OWN * 10 + COMMON..=(OWN + COMMON) * 10).contains(&added), "{added}");
    assert_eq!(ten_at_once(&world), 0, "all of it is known by now");
    assert_eq!(world.snapshots().len(), 20);
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify_but_for_high_counts();
}

#[test]
fn sealed_backups_side_by_side_arrive_too_and_count_exactly() {
    let world = World::with_repository("aes256gcm");
    let names = ["one", "two", "three"];
    for (name, seed) in names.iter().zip(0..) {
        fs::write(world.folder(name).join("own"), noise(1000, seed)).unwrap();
        fs::write(world.path(name).join("common"), noise(2 << 20, 99)).unwrap();
    }
    let children = names.map(|name| spawn_backup(&world, name, &[]));
    for mut child in children {
        assert!(wait(&mut child, Duration::from_secs(120)).expect("backup should end").success());
    }
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn a_held_lock_is_waited_for() {
    let world = World::with_repository("aes256gcm");
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    let lock = put_lock(&world, "another-machine", 1, None);
    let mut child = spawn_backup(&world, "source", &[]);
    eventually("registering", || !objects(&world, "sessions").is_empty());
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it should wait for the lock");
    assert!(objects(&world, "snapshots").is_empty());
    // Reading needs no lock.
    world.run(["list"]).ok();
    world.run(["check"]).ok();
    fs::remove_file(lock).unwrap();
    assert!(wait(&mut child, Duration::from_secs(60)).expect("backup should end").success());
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn no_command_waits_when_it_is_told_not_to() {
    let world = World::with_repository("none");
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    let commands = [
        &["backup", "source"][..],
        &["backup", "source"],
        &["snapshot", "delete", "latest"],
        &["prune", "--keep-last=1"],
    ];
    let run = |args: &[&str]| world.run(args.iter().chain(&["--lock-wait", "0"]));
    run(commands[0]).ok();
    let lock = put_lock(&world, "another-machine", 4711, None);
    for command in commands {
        let run = run(command).exits(exit::LOCKED).one_message().says("another-machine");
        assert!(run.took < Duration::from_secs(60), "{run}");
    }
    fs::remove_file(lock).unwrap();
    for command in commands {
        run(command).ok();
    }
}

#[test]
fn the_lock_of_a_dead_process_is_removed() {
    let world = World::with_repository("aes256gcm");
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    let me = ProcessIdentity::current();
    // No process has this number: pid_max is at most 2^22.
    let lock = put_lock(&world, &me.host, (1 << 22) + 1, me.boot_id.as_deref());
    world.backup(["source"]).ok();
    assert!(!lock.exists());
}

/// Starts a backup that takes a while and waits until packs are written.
fn backup_in_the_middle(world: &World) -> Child {
    let source = world.folder("source");
    for n in 0..4 {
        fs::write(source.join(format!("file-{n}")), noise(40 << 20, n)).unwrap();
    }
    let mut child = spawn_backup(world, "source", &[]);
    eventually("the first pack", || {
        assert!(child.try_wait().unwrap().is_none(), "the backup was over too soon");
        !objects(world, "packs").is_empty()
    });
    child
}

#[test]
fn a_killed_backup_leaves_a_whole_repository() {
    let world = World::with_repository("aes256gcm");
    let mut child = backup_in_the_middle(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(objects(&world, "snapshots").is_empty());
    world.run(["check", "--verify-data"]).ok();
    world.backup(["source"]).ok();
    assert_eq!(world.snapshots().len(), 1);
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "out"]).ok();
    assert!(fs::read(world.path("out/file-3")).unwrap() == noise(40 << 20, 3));
}

#[test]
fn an_interrupted_backup_cleans_up() {
    let world = World::with_repository("aes256gcm");
    let mut child = backup_in_the_middle(&world);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = wait(&mut child, Duration::from_secs(60)).expect("it should end on a signal");
    assert_eq!(status.code(), Some(exit::INTERRUPTED), "{status}");
    assert!(objects(&world, "snapshots").is_empty());
    let left = objects(&world, "sessions");
    assert!(left.len() == 1 && left[0].extension().unwrap() == "index", "more than a journal: {left:?}");
    assert!(objects(&world, "locks").is_empty());
    world.run(["check", "--verify-data"]).ok();
    world.backup(["source"]).ok().says("of an unfinished backup are taken up");
    assert!(objects(&world, "sessions").is_empty());
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn a_lock_that_stays_is_reported_and_left() {
    let world = World::with_repository("aes256gcm");
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    let lock = put_lock(&world, "another-machine", 4711, None);
    let before = fingerprint(&world.repo);
    let run = world.run(["backup", "source", "--lock-wait", "1"]).exits(exit::LOCKED).one_message();
    assert!(run.stderr.contains("another-machine") && run.stderr.contains("4711"), "{run}");
    // Nothing but the folder for session markers may have come.
    let mut after = fingerprint(&world.repo);
    after.remove(std::path::Path::new("sessions"));
    assert_eq!(after, before);

    // An unreadable one is for a person to remove, and waiting can be interrupted.
    fs::write(&lock, b"not json").unwrap();
    let mut child = spawn_backup(&world, "source", &[]);
    eventually("registering", || !objects(&world, "sessions").is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = wait(&mut child, Duration::from_secs(20)).expect("waiting for a lock can be interrupted");
    assert_eq!(status.code(), Some(exit::INTERRUPTED), "{status}");
    assert!(objects(&world, "sessions").is_empty(), "the session marker was left");
    assert!(lock.exists());
}
