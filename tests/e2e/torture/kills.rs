//! Every command is killed (SIGKILL) at random times.

mod lone;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Dice, Files, assert_holds, assert_sound, change, is_thorough, snapshots, world};
use crate::harness::{World, note};
use crate::locks;

/// A command, and which snapshots it may delete.
struct Command {
    name: &'static str,
    /// What must be so before it runs.
    prepare: fn(&World),
    args: fn(&World) -> Vec<String>,
    /// Of the ids there were, oldest first.
    deletes: fn(&[String]) -> &[String],
    adds: bool,
    /// Nothing else can be done before it has ended once, so it runs again when it was killed.
    again: bool,
}

const PLAIN: Command =
    Command { name: "", prepare: |_| (), args: |_| Vec::new(), deletes: |_| &[], adds: false, again: false };

pub fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const COMMANDS: [Command; 9] = [
    Command { name: "backup", args: |_| words("backup source"), adds: true, ..PLAIN },
    Command { name: "check", args: |_| words("check --verify-data"), ..PLAIN },
    Command {
        name: "snapshot delete",
        args: |world| {
            let oldest = world.snapshots().first().map(|s| s["id"].as_str().unwrap().to_owned());
            ["snapshot".to_owned(), "delete".to_owned()].into_iter().chain(oldest).collect()
        },
        deletes: |ids| &ids[..ids.len().min(1)],
        ..PLAIN
    },
    Command {
        name: "check --repair",
        prepare: |world| fs::remove_file(world.repo.join("index")).unwrap(),
        args: |_| words("check --repair --yes"),
        again: true,
        ..PLAIN
    },
    Command { name: "backup", args: |_| words("backup source"), adds: true, ..PLAIN },
    Command {
        name: "prune",
        args: |_| words("prune --keep-last 3"),
        deletes: |ids| &ids[..ids.len().saturating_sub(3)],
        ..PLAIN
    },
    Command {
        name: "break-lock",
        // Of another machine, so that nobody removes it unasked.
        prepare: |world| drop(locks::put_lock(world, 1, "elsewhere", 4711)),
        args: |_| words("break-lock --yes"),
        again: true,
        ..PLAIN
    },
    Command { name: "compact", args: |_| words("compact --threshold 1"), ..PLAIN },
    Command {
        name: "restore",
        prepare: |world| drop(fs::remove_dir_all(world.path("killed-restore"))),
        args: |_| words("restore latest killed-restore"),
        ..PLAIN
    },
];

/// When a command is killed: at random below a time that follows the load of the machine, so that about half of the
/// kills come before its end.
pub struct Window {
    micros: u64,
    pub tried: u32,
    pub killed: u32,
}

impl Window {
    /// For a command that took this long when nobody killed it.
    pub fn of(took: Duration) -> Self {
        Window { micros: took.as_micros() as u64, tried: 0, killed: 0 }
    }

    /// Sleeps for a time below it.
    pub fn sleep(&self, dice: &mut Dice) {
        std::thread::sleep(Duration::from_micros(dice.below(self.micros as usize) as u64));
    }

    /// Counts a kill that came in time, or too late.
    pub fn count(&mut self, in_time: bool) {
        self.tried += 1;
        self.killed += u32::from(in_time);
        let tenth = self.micros / 10;
        self.micros = if in_time { self.micros + tenth } else { (self.micros - tenth).max(5000) };
    }

    /// Starts a command and kills it; says whether it was done before.
    pub fn kill(&mut self, world: &World, args: &[String], dice: &mut Dice, when: &str) -> bool {
        let mut child = spawn(world, args);
        self.sleep(dice);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(killed || status.success(), "{when}: {status}\n{}", said(world));
        self.count(killed);
        !killed
    }

    /// Tells how many kills came in time, which must be enough to mean something.
    pub fn tell(&self, name: &str) {
        let Window { micros, tried, killed } = self;
        note(&format!(
            "torture: kills, {name}: {tried} tried, {killed} ended it, the last within {micros} us"
        ));
        assert!(killed * 5 > *tried, "{name}: only {killed} of {tried} were in time");
    }
}

/// Starts a command; what it says is kept until the next one.
pub fn spawn(world: &World, args: &[String]) -> Child {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args).stdout(Stdio::null());
    command.stderr(File::create(world.path("said")).unwrap()).spawn().unwrap()
}

/// What the last command has said.
fn said(world: &World) -> String {
    fs::read_to_string(world.path("said")).unwrap()
}

/// Runs each command, to know how long it takes.
fn windows(world: &World) -> BTreeMap<&'static str, Window> {
    let mut longest: BTreeMap<_, Duration> = BTreeMap::new();
    for command in &COMMANDS {
        change(world, "source", 0);
        (command.prepare)(world);
        let args = (command.args)(world);
        let began = Instant::now();
        let status = spawn(world, &args).wait().unwrap();
        assert!(status.success(), "{}: {status}\n{}", command.name, said(world));
        let took = longest.entry(command.name).or_default();
        *took = (*took).max(began.elapsed());
    }
    longest.into_iter().map(|(name, took)| (name, Window::of(took))).collect()
}

#[test]
fn every_command_may_be_killed_at_any_time() {
    let world = world();
    for round in 0..2 {
        change(&world, "source", round);
        world.backup(["source"]).ok();
    }
    let mut windows = windows(&world);
    let mut dice = Dice::new(1);
    let rounds = if is_thorough() { 4500 } else { 216 };
    for round in 0..rounds {
        let command = &COMMANDS[round % COMMANDS.len()];
        let source = change(&world, "source", round as u64 + 10);
        let (before, ids) = (snapshots(&world), by_age(&world));
        let args = (command.args)(&world);
        (command.prepare)(&world);
        let when = format!("round {round}, {}", command.name);
        let done = windows.get_mut(command.name).unwrap().kill(&world, &args, &mut dice, &when);
        if command.again {
            world.run(&args).ok();
            // A repair that has nothing left to do takes no lock, and so leaves one of the dead.
            assert!(command.name != "break-lock" || markers(&world, "locks") == 0, "{when}");
        }
        compare(&world, command, (&before, &ids), (&source, done), &when);
        if round % 27 == 26 {
            whole(&world, &source, &when);
        }
    }
    windows.iter().for_each(|(name, window)| window.tell(name));
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
    let _ = fs::remove_dir_all(world.path("out"));
    world.run(["restore", "latest", "out"]).ok();
    assert_holds(&world.path("out"), source);
    assert_sound(world, when);
    let left = ["locks", "sessions"].map(|folder| markers(world, folder));
    assert_eq!(left, [0, 0], "{when}: markers of the dead are left");
}

/// How many locks or session markers there are.
fn markers(world: &World, folder: &str) -> usize {
    let is_marker = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|end| end == "json");
    let entries = fs::read_dir(world.repo.join(folder)).into_iter().flatten();
    entries.filter(|entry| is_marker(entry.as_ref().unwrap())).count()
}
