//! Every command is killed (SIGKILL) at random times.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{Dice, Files, assert_holds, assert_sound, change, is_thorough, snapshots, world};
use crate::harness::{World, note};

/// A command, and which snapshots it may delete.
struct Command {
    name: &'static str,
    args: fn(&World) -> Vec<String>,
    /// Of the ids there were, oldest first.
    deletes: fn(&[String]) -> &[String],
    adds: bool,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const COMMANDS: [Command; 7] = [
    Command { name: "backup", args: |_| words("backup source"), deletes: |_| &[], adds: true },
    Command { name: "check", args: |_| words("check --verify-data"), deletes: |_| &[], adds: false },
    Command {
        name: "snapshot delete",
        args: |world| {
            let oldest = world.snapshots().first().map(|s| s["id"].as_str().unwrap().to_owned());
            ["snapshot".to_owned(), "delete".to_owned()].into_iter().chain(oldest).collect()
        },
        deletes: |ids| &ids[..ids.len().min(1)],
        adds: false,
    },
    Command { name: "backup", args: |_| words("backup source"), deletes: |_| &[], adds: true },
    Command {
        name: "prune",
        args: |_| words("prune --keep-last 3"),
        deletes: |ids| &ids[..ids.len().saturating_sub(3)],
        adds: false,
    },
    Command { name: "compact", args: |_| words("compact --threshold 1"), deletes: |_| &[], adds: false },
    Command {
        name: "restore",
        args: |_| words("restore latest killed-restore"),
        deletes: |_| &[],
        adds: false,
    },
];

fn spawn(world: &World, args: &[String]) -> Child {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// How long each command takes when nobody kills it, found by running it.
fn durations(world: &World) -> BTreeMap<&'static str, Duration> {
    let mut longest = BTreeMap::new();
    for command in &COMMANDS {
        change(world, "source", 0);
        let began = Instant::now();
        let status = spawn(world, &(command.args)(world)).wait().unwrap();
        assert!(status.success(), "{}: {status}", command.name);
        let _ = std::fs::remove_dir_all(world.path("killed-restore"));
        let took: &mut Duration = longest.entry(command.name).or_default();
        *took = (*took).max(began.elapsed());
    }
    longest
}

#[test]
fn every_command_may_be_killed_at_any_time() {
    let world = world();
    for round in 0..2 {
        change(&world, "source", round);
        world.backup(["source"]).ok();
    }
    let durations = durations(&world);
    let mut dice = Dice(1);
    let mut kills: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let rounds = if is_thorough() { 4000 } else { 210 };
    for round in 0..rounds {
        let command = &COMMANDS[round % COMMANDS.len()];
        let source = change(&world, "source", round as u64 + 10);
        let (before, ids) = (snapshots(&world), by_age(&world));
        let args = (command.args)(&world);
        let micros = durations[command.name].as_micros() as u64 * 3 / 2;
        let mut child = spawn(&world, &args);
        std::thread::sleep(Duration::from_micros(dice.below(micros)));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        let count = kills.entry(command.name).or_default();
        count.0 += 1;
        count.1 += u32::from(!done);
        let when = format!("round {round}, {}", command.name);
        compare(&world, command, (&before, &ids), (&source, done), &when);
        if round % 30 == 29 {
            whole(&world, &source, &when);
        }
    }
    for (name, (tried, killed)) in kills {
        note(&format!("torture: kills, {name}: {tried} tried, {killed} ended it"));
        assert!(killed * 10 > tried, "{name}: only {killed} of {tried} were in time");
    }
    world.oracle_verify_but_for_high_counts();
}

fn by_age(world: &World) -> Vec<String> {
    let all = super::open(world).manifest().unwrap().snapshots;
    all.iter().map(|s| s.id.to_string()).collect()
}

/// What was there is there still, and what is new is what was to be stored.
fn compare(
    world: &World,
    command: &Command,
    (before, ids): (&BTreeMap<String, Files>, &[String]),
    (source, done): (&Files, bool),
    when: &str,
) {
    let after = snapshots(world);
    let doomed = (command.deletes)(ids);
    for (id, files) in before {
        match after.get(id) {
            Some(found) => assert!(found == files, "{when}: snapshot {id} changed"),
            None => assert!(doomed.contains(id), "{when}: snapshot {id} is gone"),
        }
    }
    let added: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).collect();
    assert!(added.iter().all(|(_, files)| command.adds && *files == source), "{when}: what is this?");
    if done {
        assert!(!command.adds || added.len() == 1, "{when}: said to be stored");
        assert!(doomed.iter().all(|id| !after.contains_key(id)), "{when}: said to be deleted");
    }
    assert_sound(world, when);
}

/// A full backup and restore, and a check of everything by the program.
fn whole(world: &World, source: &Files, when: &str) {
    world.backup(["source"]).ok();
    world.run(["check", "--verify-data"]).ok();
    // Otherwise what killed backups leave grows, and with it the time that everything takes.
    world.run(["prune", "--keep-last", "3"]).ok();
    world.run(["compact"]).ok();
    let _ = std::fs::remove_dir_all(world.path("out"));
    world.run(["restore", "latest", "out"]).ok();
    assert_holds(&world.path("out"), source);
    assert_sound(world, when);
    let left = ["locks", "sessions"].map(|folder| {
        let entries = std::fs::read_dir(world.repo.join(folder));
        entries.map_or(0, |entries| entries.filter(|e| is_marker(e.as_ref().unwrap())).count())
    });
    assert_eq!(left, [0, 0], "{when}: markers of the dead are left");
}

fn is_marker(entry: &std::fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|extension| extension == "json")
}
