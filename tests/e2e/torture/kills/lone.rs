//! Commands after which there is no repository to go on with, or which are no change of one.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::super::{Dice, Files, assert_holds, change, is_thorough, snapshots, world};
use super::{Window, said, spawn, words};
use crate::harness::{Mount, World, eventually, exit, fingerprint, is_mounted, note, silent};
use crate::processes::{WATCHDOG, children_of, name, runs, users};
use crate::tree::noise;

#[test]
fn a_killed_init_leaves_a_place_where_the_next_one_succeeds() {
    for (encryption, rounds) in [("none", 20), ("aes256gcm", 10)] {
        let world = World::new();
        let source = change(&world, "source", 0);
        let init = words(&format!("init --encryption {encryption}"));
        let began = Instant::now();
        world.run(&init).ok();
        let mut window = Window::of(began.elapsed());
        let mut dice = Dice::new(2);
        for round in 0..if is_thorough() { rounds * 20 } else { rounds } {
            for gone in [&world.repo, &world.cache, &world.path("out")] {
                let _ = fs::remove_dir_all(gone);
            }
            let when = format!("{encryption}, round {round}");
            let done = window.kill(&world, &init, &mut dice, &when);
            let again = world.run(&init);
            let there = again.code == exit::FAILURE && again.stderr.contains("already");
            assert!(there || again.code == 0 && !done, "{when}: {again}");
            world.backup(["source"]).ok();
            world.run(["restore", "latest", "out"]).ok();
            assert_holds(&world.path("out"), &source);
            world.run(["check", "--verify-data"]).ok();
        }
        window.tell(&format!("init, {encryption}"));
        world.oracle_verify();
    }
}

#[test]
fn a_killed_deletion_of_a_repository_is_ended_by_the_next() {
    let mut world = world();
    for round in 0..4 {
        change(&world, "source", round);
        world.backup(["source"]).ok();
    }
    let (template, before) = (world.repo.clone(), snapshots(&world));
    world.repo = world.path("victim");
    let copy = |world: &World| {
        for gone in [&world.repo, &world.cache] {
            let _ = fs::remove_dir_all(gone);
        }
        silent(Command::new("cp").arg("-a").arg(&template).arg(&world.repo));
    };
    copy(&world);
    let whole = fingerprint(&world.repo);
    let path = fs::canonicalize(&world.repo).unwrap().into_os_string().into_string().unwrap();
    let delete = ["delete", "--confirm", &path].map(str::to_owned);
    let began = Instant::now();
    world.run(&delete).ok();
    let mut window = Window::of(began.elapsed());
    let (mut dice, mut in_part, mut ended) = (Dice::new(3), 0, 0);
    for round in 0..if is_thorough() { 800 } else { 40 } {
        copy(&world);
        let when = format!("round {round}");
        let done = window.kill(&world, &delete, &mut dice, &when);
        let left = fingerprint(&world.repo);
        let has = |name: &str| world.repo.join(name).exists();
        if done {
            assert!(!world.repo.exists(), "{when}: said to be deleted");
            continue;
        }
        if has("index") {
            let after = snapshots(&world);
            assert!(after.iter().all(|(id, files)| before[id] == *files), "{when}");
        } else {
            let snapshots = fs::read_dir(world.repo.join("snapshots"));
            assert_eq!(snapshots.into_iter().flatten().count(), 0, "{when}: {left:?}");
        }
        in_part += u32::from(!whole.keys().all(|path| left.contains_key(path)));
        ended += u32::from(!has("config"));
        // An empty folder is no repository, and may be anybody's.
        match left.is_empty() {
            true => drop(world.run(&delete).exits(exit::NO_REPOSITORY)),
            false => {
                world.run(&delete).ok();
                assert!(!world.repo.exists(), "{when}: {:?}", fingerprint(&world.repo));
            }
        }
    }
    window.tell("delete");
    note(&format!("torture: kills, delete: {in_part} left a part, {ended} of them no config"));
    assert!(in_part > 5, "only {in_part} left a part");
}

#[test]
fn a_mount_that_is_killed_at_any_time_leaves_its_place_as_it_was() {
    needs!(mounts);
    for nobody in users() {
        let mut world = world();
        let mut files = Files::new();
        let source = world.folder("source");
        // Enough for a walk, which lets the mount give the kernel what it has not asked for yet.
        for n in 0..400 {
            let content = noise(2000, n);
            fs::write(source.join(format!("file {n:03}")), &content).unwrap();
            files.insert(format!("file {n:03}"), content);
        }
        world.backup(["source"]).ok();
        if nobody {
            world.become_nobody();
        }
        let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        let at = world.mountpoint("at");
        std::thread::scope(|scope| {
            scope.spawn(|| read_all_the_time(&at, &files, &stop, &reads));
            let _ending = Ending(&stop);
            kill_mounts(&world, &at, if is_thorough() { 1000 } else { 60 });
        });
        let reads = reads.into_inner();
        note(&format!("torture: kills, mount: {reads} files read meanwhile, as nobody: {nobody}"));
        // Not even root reads the mounts of others.
        assert!(nobody || reads > 100, "only {reads}");
    }
}

struct Ending<'s>(&'s AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whatever can be read is right.
fn read_all_the_time(at: &Path, files: &Files, stop: &AtomicBool, reads: &AtomicU64) {
    for (name, content) in files.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        match fs::read(at.join("snapshots/latest").join(name)) {
            Ok(read) => {
                assert!(read == *content, "{name} differs");
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Half of them are killed about when they appear, and half while they are read.
fn kill_mounts(world: &World, at: &Path, rounds: u32) {
    let mount = words(&format!("mount {}", at.display()));
    let _care = Mount::adopt(at.to_owned());
    let mut dice = Dice::new(4);
    let (mut window, mut slow) = (None::<Window>, 0);
    for round in 0..rounds {
        let began = Instant::now();
        let mut child = spawn(world, &mount);
        match &mut window {
            Some(window) if round % 2 == 0 => {
                window.sleep(&mut dice);
                window.count(!is_mounted(at));
            }
            _ => {
                eventually("mounting", || is_mounted(at));
                window.get_or_insert_with(|| Window::of(began.elapsed()));
                std::thread::sleep(Duration::from_micros(dice.below(50_000) as u64));
            }
        }
        let mut watchdogs = children_of(Pid::from_child(&child));
        watchdogs.retain(|pid| name(*pid) == WATCHDOG);
        child.kill().unwrap();
        let killed = Instant::now();
        let status = child.wait().unwrap();
        // Without root a helper mounts, which may still be at it.
        eventually("the end of the watchdog", || !watchdogs.iter().any(|pid| runs(*pid)));
        // What a mount before it left would have kept it from being made.
        assert_eq!(status.signal(), Some(9), "round {round}: {status}\n{}", said(world));
        eventually("unmounting after a kill", || !is_mounted(at));
        slow += u32::from(killed.elapsed() > Duration::from_secs(1));
        assert_eq!(fs::read_dir(at).unwrap().count(), 0, "round {round}");
    }
    let before = window.map_or(0, |window| window.killed);
    note(&format!(
        "torture: kills, mount: {rounds} tried, {before} before it was there, {slow} could not end by themselves"
    ));
}
