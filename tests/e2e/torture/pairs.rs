//! Every two commands at once, beside a mount that is read all the time.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{assert_holds, assert_sound, change, is_thorough, world};
use crate::harness::{World, exit, note, wait};

const COMMANDS: [&[&str]; 9] = [
    &["backup", "one"],
    &["backup", "two"],
    &["snapshot", "delete", "latest"],
    &["prune", "--keep-last", "2", "--label", "one"],
    &["prune", "--keep-last", "1", "--label", "two"],
    &["compact", "--threshold", "1"],
    &["check", "--verify-data"],
    &["restore", "PINNED", "OUT"],
    REPAIR,
];

const REPAIR: &[&str] = &["check", "--repair", "--yes"];

fn spawn(world: &World, args: &[&str], log: &str) -> Child {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args);
    command.stdout(std::process::Stdio::null()).stderr(File::create(world.path(log)).unwrap());
    command.spawn().unwrap()
}

#[test]
fn any_two_commands_at_once_and_a_mount_do_each_other_no_harm() {
    needs!(mounts);
    let world = world();
    let pinned = change(&world, "pinned", 0);
    world.backup(["pinned"]).ok();
    let name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    let mount = world.mount();
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut pairs, mut answers) = (0, BTreeMap::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = mount.path(format!("ids/{name}"));
            while !stop.load(Ordering::Relaxed) {
                assert_holds(&folder, &pinned);
                // Not from the page cache the next time.
                let file = File::open(folder.join("file 11")).unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The reader ends also when this fails.
        let ending = Ending(&stop);
        for round in 0..if is_thorough() { 30 } else { 1 } {
            for (first, a) in COMMANDS.iter().enumerate() {
                for b in &COMMANDS[first..] {
                    pairs += 1;
                    both(&world, &name, [a, b], (round * 100 + pairs, "index.gen"), &mut answers);
                }
                // With more to do, which keeps others from their work meanwhile.
                pairs += 1;
                both(&world, &name, [a, REPAIR], (round * 100 + pairs, "index"), &mut answers);
            }
        }
        drop(ending);
    });
    mount.unmount(&world);
    note(&format!("torture: pairs, {pairs} tried beside {} rounds of reading", reads.into_inner()));
    note(&format!("torture: pairs, answers by exit code: {answers:?}"));
    world.run(["check", "--verify-data"]).ok();
    world.run(["compact", "--threshold", "0"]).ok();
    world.run(["restore", &name, "last"]).ok();
    assert_holds(&world.path("last"), &pinned);
    world.oracle_verify_but_for_high_counts();
}

struct Ending<'s>(&'s AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs two commands at once; each succeeds, or says that the other is in its way.
///
/// Beside a repair, an object is `missing`.
fn both(
    world: &World,
    pinned: &str,
    pair: [&[&str]; 2],
    (round, missing): (u64, &str),
    answers: &mut BTreeMap<i32, u64>,
) {
    for source in ["one", "two"] {
        change(world, source, round);
    }
    // Something for `latest` to be that is not the pinned one.
    if world.snapshots().len() < 3 {
        world.backup(["one"]).ok();
        world.backup(["two"]).ok();
    }
    let is_damaged = missing == "index";
    if pair.contains(&REPAIR) {
        std::fs::remove_file(world.repo.join(missing)).unwrap();
    }
    let mut children: Vec<_> = pair
        .iter()
        .enumerate()
        .map(|(number, args)| {
            let out = format!("out-{number}");
            let _ = std::fs::remove_dir_all(world.path(&out));
            let word = |word: &&str| match *word {
                "PINNED" => pinned.to_owned(),
                "OUT" => out.clone(),
                other => other.to_owned(),
            };
            let args: Vec<String> = args.iter().map(word).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            spawn(world, &args, &format!("log-{number}"))
        })
        .collect();
    for (number, child) in children.iter_mut().enumerate() {
        let status = wait(child, Duration::from_secs(100)).expect("it should end");
        let said = std::fs::read_to_string(world.path(&format!("log-{number}"))).unwrap();
        let code = status.code().unwrap_or(-1);
        *answers.entry(code).or_default() += 1;
        let deletes = pair[number][0] == "snapshot";
        let repairs = pair[number] == REPAIR;
        let allowed = code == 0
            || code == exit::LOCKED
            || (is_damaged && code == exit::DAMAGED)
            // What both were to delete was deleted by the other one.
            || (deletes && code == exit::FAILURE && said.contains("not found"))
            // What it has planned is of another repository by now.
            || (repairs && code == exit::CHANGED && said.contains("changed since") && said.contains("nothing was changed"));
        assert!(allowed, "{pair:?}, round {round}: {:?} exits with {code}\n{said}", pair[number]);
    }
    if is_damaged {
        world.run(REPAIR).ok();
    }
    assert_sound(world, &format!("{pair:?}, round {round}"));
}
