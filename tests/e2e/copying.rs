//! Snapshots made of snapshots: rewritten, and copied into another repository.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::harness::{World, exit, fingerprint, silent};
use super::tree::noise;

/// A repository with two snapshots of a folder that changes.
fn world(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    let source = world.folder("source");
    fs::create_dir_all(source.join("docs/deep")).unwrap();
    fs::write(source.join("docs/letter.txt"), noise(30_000, 1)).unwrap();
    fs::write(source.join("docs/deep/secret.key"), noise(50_000, 2)).unwrap();
    fs::write(source.join("large"), noise(3_000_000, 3)).unwrap();
    fs::hard_link(source.join("large"), source.join("same")).unwrap();
    symlink("docs", source.join("link")).unwrap();
    silent(Command::new("mkfifo").arg(source.join("docs/deep/fifo")));
    world.backup(["source", "--label", "docs", "--comment", "one"]).ok();
    fs::write(source.join("docs/new"), noise(10_000, 4)).unwrap();
    world.backup(["source", "--label", "docs", "--comment", "two"]).ok();
    world
}

fn names(world: &World) -> Vec<String> {
    world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

fn assert_sound(world: &World) {
    let check = world.run(["check", "--verify-data"]).ok();
    assert!(check.out().contains("no damage"), "{check}");
    world.oracle_verify();
}

fn restore(world: &World, snapshot: &str, at: &str) {
    let _ = fs::remove_dir_all(world.path(at));
    world.run(["restore", snapshot, at]).ok();
}

/// What is different, as rsync sees it: nothing.
fn same(one: &Path, other: &Path) {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXni", "--checksum", "--specials", "--delete"]).arg(one.join("")).arg(other.join(""));
    let output = rsync.output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), ""));
}

#[test]
fn a_snapshot_is_rewritten_without_what_rules_match() {
    for encryption in ["none", "aes256gcm"] {
        let world = world(encryption);
        let before = world.snapshots();
        let old = before[1]["name"].as_str().unwrap().to_owned();
        let unchanged = fingerprint(&world.repo);
        let run = world.run(["rewrite", "latest", "--exclude", "*.key", "-e", "/docs/deep/", "-n"]).ok();
        assert!(run.out().contains("x docs/deep  (the rule `/docs/deep/`)"), "{run}");
        assert!(run.out().contains("would leave out 3 paths, 1 of them files"), "{run}");
        let run = world.run(["rewrite", "latest", "--exclude", "no such"]).ok();
        assert!(run.out().contains("nothing matches"), "{run}");
        world.run(["rewrite", "latest"]).exits(exit::USAGE);
        world.run(["rewrite", "nobody", "--exclude", "a"]).exits(exit::FAILURE).one_message();
        assert_eq!(fingerprint(&world.repo), unchanged);

        fs::write(world.path("rules"), "*.key\nfifo\n").unwrap();
        let json = world.run(["rewrite", &old, "--exclude-file", "rules", "--json"]).ok().json();
        let made = &json["snapshots"][0]["made"];
        assert_eq!((&json["snapshots"][0]["left_out"], &json["removal"]), (&2.into(), &().into()));
        let new = made["name"].as_str().unwrap();
        for field in ["time", "time_end", "hostname", "username", "label", "comment", "paths"] {
            assert_eq!(made[field], before[1][field], "{field}");
        }
        assert_eq!(made["files"].as_u64().unwrap() + 1, before[1]["files"].as_u64().unwrap());
        assert_eq!(world.snapshots().len(), 3);
        assert_sound(&world);
        restore(&world, new, "out");
        restore(&world, &old, "whole");
        same(&world.path("source"), &world.path("whole"));
        // Everything else is as it was, down to the times of the folders.
        fs::remove_file(world.path("whole/docs/deep/secret.key")).unwrap();
        fs::remove_file(world.path("whole/docs/deep/fifo")).unwrap();
        silent(
            Command::new("touch")
                .arg("-r")
                .arg(world.path("source/docs/deep"))
                .arg(world.path("whole/docs/deep")),
        );
        same(&world.path("whole"), &world.path("out"));
    }
}

#[test]
fn the_originals_go_when_they_are_to_be_forgotten_and_their_content_with_a_compaction() {
    let world = world("none");
    let old = names(&world);
    let run = world.run(["rewrite", &old[0], &old[1], &old[0], "--exclude", "*.key", "--forget"]).ok();
    assert!(run.out().contains(&format!("Deleted {}", old[0])), "{run}");
    let new = names(&world);
    assert!(new.len() == 2 && new.iter().all(|name| !old.contains(name)), "{new:?}");
    assert_sound(&world);
    world.run(["compact", "--threshold", "0"]).ok();
    assert_sound(&world);
    let info = world.run(["snapshot", "list", "latest"]).ok().out();
    assert!(info.contains("docs/deep") && !info.contains("secret.key"), "{info}");
    // The next backup stores it again: the file is not what it was.
    world.backup(["source", "--label", "docs"]).ok();
    restore(&world, "latest", "out");
    same(&world.path("source"), &world.path("out"));
    assert_sound(&world);
}

#[test]
fn snapshots_are_copied_into_another_repository() {
    for (ours, theirs) in [("aes256gcm", "none"), ("none", "aes256gcm")] {
        let from = world(ours);
        let to = World::with_repository(theirs);
        let secret = to.passphrase.clone();
        let copy = |args: &[&str]| {
            let mut command = from.command();
            command.env("VYKAR_TO_PASSPHRASE", &secret).arg("-R").arg(&from.repo);
            command.args(["copy", "--to"]).arg(&to.repo).args(args);
            from.finish(command)
        };
        let run = copy(&["--dry-run"]).ok();
        assert!(run.out().contains("2 would be copied"), "{run}");
        copy(&["--last", "1"]).ok();
        assert_eq!(names(&to), names(&from)[1..]);
        copy(&[]).ok();
        assert_eq!(names(&to), names(&from));
        let packs = fingerprint(&to.repo.join("packs"));
        let run = copy(&[]).ok();
        assert!(run.out().contains("0 copied, 2 were there"), "{run}");
        assert_eq!(fingerprint(&to.repo.join("packs")), packs);
        assert_sound(&from);
        assert_sound(&to);
        restore(&to, "latest", "out");
        same(&from.path("source"), &to.path("out"));
    }
}
