//! Restoring into what is there, in part, on trial, and again after an interruption.

use std::fs;
use std::time::Duration;

use super::harness::{World, exit};
use super::tree::noise;

fn world() -> World {
    let world = World::with_repository("none");
    let source = world.folder("source");
    for n in 0..300u64 {
        let folder = source.join(format!("d{}", n % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("f{n}.bin")), noise(40_000 + n as usize, n)).unwrap();
    }
    fs::write(source.join("letter.txt"), b"dear").unwrap();
    world.backup(["source"]).ok();
    world
}

fn assert_same(world: &World, restored: &str) {
    let differences = std::process::Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        .arg(world.path("source/"))
        .arg(world.path(restored).join(""))
        .output()
        .unwrap();
    assert!(differences.status.success());
    assert_eq!(String::from_utf8_lossy(&differences.stdout), "");
}

#[test]
fn a_restore_that_was_killed_goes_on_where_it_was() {
    let world = world();
    let mut killed = 0;
    for delay in [5, 15, 30, 60] {
        let mut command = world.command();
        command.arg("-R").arg(&world.repo).args(["restore", "latest", "out", "--overwrite", "if-changed"]);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
    }
    assert!(killed > 0, "none was killed in time");
    let run = world.run(["restore", "latest", "out", "--overwrite", "if-changed", "--verify", "--json"]).ok();
    assert_eq!(run.json()["errors"], 0);
    assert_same(&world, "out");
    let again = world.run(["restore", "latest", "out", "--json"]).ok().json();
    assert_eq!((again["files"].as_u64(), again["unchanged"].as_u64()), (Some(0), Some(301)));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_exists_is_replaced_as_asked_and_a_trial_says_so_first() {
    let world = world();
    world.run(["restore", "latest", "out"]).ok();
    fs::write(world.path("out/letter.txt"), b"mine").unwrap();
    let never = world.run(["restore", "latest", "out"]).exits(exit::PARTIAL);
    never.says("letter.txt: not restored: exists already");
    let dry = world.run(["restore", "latest", "out", "--dry-run", "--overwrite", "if-changed"]).ok().out();
    assert!(dry.lines().any(|line| line == "M letter.txt"), "{dry}");
    assert!(dry.contains("Would restore 1 files"), "{dry}");
    let json = world.run(["restore", "latest", "new", "-n", "--json", "-i", "*.txt"]).ok().out();
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let made = |path| serde_json::json!({ "path": path, "action": "make" });
    assert_eq!(lines, [made("."), made("letter.txt")]);
    assert!(!world.path("new").exists());
    let newer = world.run(["restore", "latest", "out", "--overwrite", "if-newer"]).ok();
    assert!(newer.out().contains("301 were there already"), "{newer}");
    assert_eq!(fs::read(world.path("out/letter.txt")).unwrap(), b"mine");
    world.run(["restore", "latest", "out", "--overwrite", "always", "--verify"]).ok();
    assert_same(&world, "out");
}

#[test]
fn rules_choose_what_comes_back() {
    let world = world();
    world.run(["restore", "latest", "some", "d1", "d2", "--exclude", "f?.bin"]).ok();
    let names = walk(&world.path("some"));
    assert!(!names.is_empty() && names.iter().all(|n| n.to_str().unwrap().len() > 4));
    let all = 43 + 43;
    assert_eq!(names.len(), all - 4);
    world.run(["restore", "latest", "x", "--include", "a[z-a]"]).exits(exit::USAGE).says("invalid range");
}
