//! Backups that are killed, stopped, or robbed while they run, and what the next one makes of what they left.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::concurrent::{objects, spawn_backup};
use super::harness::{World, eventually, exit, wait};
use super::processes::kill;
use super::tree::noise;

const FILES: usize = 40;
/// One chunk each.
const FILE: usize = 300 << 10;
/// One file each.
const PACKS: &str = "256K";
/// The journal names packs in portions of so many.
const PORTION: usize = 8;

/// A backup that does not outlive its test, not even stopped.
struct Running(Child);

impl Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A backup that writes slowly, some packs after its journal was written for the first time.
fn in_the_middle(world: &World) -> Running {
    let source = world.folder("source");
    for n in 0..FILES {
        fs::write(source.join(format!("file-{n}")), noise(FILE, n as u64)).unwrap();
    }
    let mut child = Running(spawn_backup(world, "source", &["--upload-limit", "3"]));
    let has_journal = || objects(world, "sessions").iter().any(|key| is_journal(key));
    eventually("the journal", || {
        assert!(child.try_wait().unwrap().is_none(), "the backup was over too soon");
        has_journal() && objects(world, "packs").len() > PORTION + 2
    });
    child
}

fn is_journal(key: &Path) -> bool {
    key.extension().is_some_and(|kind| kind == "index")
}

fn remove(world: &World, keys: &[PathBuf]) {
    keys.iter().for_each(|key| fs::remove_file(world.repo.join(key)).unwrap());
}

fn assert_whole(world: &World) {
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "out"]).ok();
    for n in 0..FILES {
        let restored = fs::read(world.path(&format!("out/file-{n}"))).unwrap();
        assert!(restored == noise(FILE, n as u64), "file-{n}");
    }
    assert!(objects(world, "sessions").is_empty() && objects(world, "locks").is_empty());
}

#[test]
fn the_next_backup_stores_only_what_a_killed_one_had_not_noted() {
    let world = World::with_packs_of(PACKS, "aes256gcm");
    let mut child = in_the_middle(&world);
    kill(Pid::from_child(&child));
    child.wait().unwrap();
    let left = objects(&world, "packs").len();
    assert_eq!(objects(&world, "sessions").len(), 2);
    let run = world.backup(["source", "--json"]).ok();
    let added = run.json()["added"].as_u64().unwrap() as usize;
    let taken = FILES - added / FILE;
    // The last portion may have been noted in part, or not at all.
    assert!(added.is_multiple_of(FILE) && taken >= PORTION && taken <= left, "{taken} of {left}");
    let run = run.says(&format!("{taken} pack(s) of an unfinished backup are taken up"));
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
    // And one of items.
    assert_eq!(objects(&world, "packs").len(), left + FILES - taken + 1);
    assert_whole(&world);
}

#[test]
fn a_stopped_backup_whose_session_was_ended_stores_again_what_was_removed() {
    for with_packs in [false, true] {
        let world = World::with_packs_of(PACKS, "none");
        let mut child = in_the_middle(&world);
        let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
        signal(Signal::STOP);
        let left = objects(&world, "packs");
        world.run(["break-lock", "--sessions", "--yes"]).ok();
        if with_packs {
            remove(&world, &left);
            let journals = objects(&world, "sessions");
            remove(&world, &journals);
        }
        signal(Signal::CONT);
        let status = wait(&mut child, Duration::from_secs(120)).expect("backup should end");
        let said = fs::read_to_string(world.path("source.err")).unwrap();
        assert!(status.success(), "{status}\n{said}");
        assert!(said.contains("storing again what is gone"), "{said}");
        assert_eq!(world.snapshots().len(), 1);
        assert_eq!(objects(&world, "packs").len(), FILES + 1);
        assert_whole(&world);
    }
}

#[test]
fn a_stopped_backup_whose_source_is_gone_too_stores_what_is_there() {
    let world = World::with_packs_of(PACKS, "none");
    let mut child = in_the_middle(&world);
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    signal(Signal::STOP);
    let left = objects(&world, "packs");
    world.run(["break-lock", "--sessions", "--yes"]).ok();
    remove(&world, &left);
    fs::remove_dir_all(world.path("source")).unwrap();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/new"), b"new").unwrap();
    signal(Signal::CONT);
    let status = wait(&mut child, Duration::from_secs(120)).expect("backup should end");
    let said = fs::read_to_string(world.path("source.err")).unwrap();
    assert!([Some(0), Some(exit::PARTIAL)].contains(&status.code()), "{status}\n{said}");
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
    world.run(["restore", "latest", "out"]).ok();
    let restored: Vec<_> = fs::read_dir(world.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(restored, ["new"]);
}
