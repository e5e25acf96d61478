//! What limits the program: priority and the speed of transfers.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, getpriority_process};

use super::harness::{World, eventually, exit, is_root, note, wait};
use super::tree::noise;

const MIB: usize = 1 << 20;

/// A repository, and a source of this many MiB that do not compress.
fn with_noise(mib: usize) -> World {
    let world = World::with_repository("none");
    fs::write(world.folder("source").join("noise"), noise(mib * MIB, 1)).unwrap();
    world
}

/// Transfers may run ahead by a quarter of a second; everything else takes time on a busy machine.
#[track_caller]
fn assert_took_about(took: Duration, seconds: f64) {
    let took = took.as_secs_f64();
    assert!(took >= seconds - 0.3, "{took} s, and the limit allows no less than {seconds}");
    assert!(took < seconds * 2.0 + 5.0, "{took} s, and the limit allows {seconds}");
}

#[test]
fn backup_and_restore_keep_to_the_limits_of_transfers() {
    let world = with_noise(3);
    assert_took_about(world.backup(["source", "--upload-limit", "1.5"]).ok().took, 2.0);
    let run = world.run(["restore", "latest", "out", "--download-limit", "1.5"]).ok();
    assert_took_about(run.took, 2.0);
    assert!(fs::read(world.path("out/noise")).unwrap() == noise(3 * MIB, 1));
    // Each limits one direction only.
    let other = world.run(["restore", "latest", "again", "--upload-limit", "0.001"]).ok();
    assert!(other.took < Duration::from_secs(60), "{other}");
}

#[test]
fn ctrl_c_ends_a_backup_that_waits_for_its_limit() {
    let world = with_noise(2);
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(["backup", "source", "--upload-limit", "0.001"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    eventually("the session's marker", || {
        fs::read_dir(world.repo.join("sessions")).is_ok_and(|mut dir| dir.next().is_some())
    });
    // At a kilobyte a second this would be half an hour.
    std::thread::sleep(Duration::from_millis(500));
    rustix::process::kill_process(Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let status = wait(&mut child, Duration::from_secs(20));
    if status.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(status.expect("still running").code(), Some(exit::INTERRUPTED));
    assert!(world.snapshots().is_empty());
}

/// The nice values of a backup's threads.
fn nice_values(world: &World, args: &[&str]) -> Vec<i32> {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(["backup", "source", "--upload-limit", "0.5"]).args(args);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let tasks = format!("/proc/{}/task", child.id());
    eventually("the threads of a backup", || fs::read_dir(&tasks).is_ok_and(|dir| dir.count() >= 4));
    let threads = fs::read_dir(&tasks).unwrap().flatten();
    let numbers = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let values = numbers.filter_map(|number| getpriority_process(Pid::from_raw(number)).ok()).collect();
    assert!(wait(&mut child, Duration::from_secs(100)).is_some_and(|status| status.success()));
    values
}

#[test]
fn all_threads_run_with_the_nice_value() {
    let own = getpriority_process(None).unwrap();
    let world = with_noise(1);
    let wanted = (own + 3).min(19);
    let values = nice_values(&world, &["--nice", &wanted.to_string()]);
    assert!(values.len() >= 4 && values.iter().all(|nice| *nice == wanted), "{values:?}");
    for (round, (args, expected)) in
        [(&[][..], own), (&["--nice", "0"], own), (&["--nice", "1"], own.max(1))].into_iter().enumerate()
    {
        // Something new to store, so that it takes a while.
        fs::write(world.path("source/noise"), noise(2 * MIB + round, 1)).unwrap();
        let values = nice_values(&world, args);
        assert!(!values.is_empty() && values.iter().all(|nice| *nice == expected), "{args:?}: {values:?}");
    }
}

#[test]
fn a_priority_that_is_not_allowed_is_an_error_before_anything_is_done() {
    let mut world = with_noise(1);
    if !is_root() {
        world.backup(["source", "--nice", "-5"]).exits(exit::FAILURE).one_message().says("nice");
        assert!(world.snapshots().is_empty());
        return;
    }
    world.run(["list", "--nice", "-5"]).ok();
    world.become_nobody();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nice).current;
    match limit {
        Some(0) => drop(world.run(["list", "--nice", "-5"]).exits(exit::FAILURE).one_message().says("nice")),
        other => note(&format!("everybody may raise priorities here (RLIMIT_NICE {other:?})")),
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let world = World::with_repository("none");
    for args in [
        ["--nice", "20"],
        ["--nice", "-21"],
        ["--nice", "low"],
        ["--upload-limit", "-1"],
        ["--upload-limit", "fast"],
        ["--download-limit", "1M"],
        ["--download-limit", "inf"],
    ] {
        world.run(["list"].into_iter().chain(args)).exits(exit::USAGE);
    }
}
