//! Objects in each other's place, under wrong names, or not there as files; and parameters that fit nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{World, exit, fingerprint};
use super::tree::noise;

/// Two snapshots of different files.
fn world(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    for n in 0..2 {
        let source = world.folder("source");
        fs::write(source.join(format!("f{n}")), noise(90_000, n)).unwrap();
        world.backup(["source"]).ok();
    }
    world
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let found = fingerprint(dir).into_iter().filter(|(_, (_, kind))| kind != "directory");
    found.map(|(name, _)| dir.join(name)).collect()
}

fn swap(a: &Path, b: &Path) {
    let (of_a, of_b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, of_b).unwrap();
    fs::write(b, of_a).unwrap();
}

#[test]
fn what_is_in_each_others_place_is_put_back_without_loss() {
    let world = world("aes256gcm");
    let lasting = || ["packs", "snapshots"].map(|folder| fingerprint(&world.repo.join(folder)));
    let before = lasting();
    for folder in ["packs", "snapshots"] {
        let found = files(&world.repo.join(folder));
        swap(&found[0], &found[1]);
    }
    world.run(["check", "--verify-data"]).exits(exit::DAMAGED);
    let run = world.run(["check", "--repair", "--yes"]).ok();
    assert!(run.out().contains("Put back 2 snapshots and 2 packs"), "{run}");
    assert!(lasting() == before);
    assert!(!world.run(["check", "--repair"]).ok().out().contains("would"));
    world.run(["compact"]).ok();
    world.run(["restore", "latest", "restored"]).ok();
    for n in 0..2 {
        assert!(fs::read(world.path(&format!("restored/f{n}"))).unwrap() == noise(90_000, n));
    }
    world.oracle_verify();
}

#[test]
fn a_flipped_bit_in_config_costs_nothing_whatever_is_done() {
    let world = world("none");
    let config = world.repo.join("config");
    let whole = fs::read(&config).unwrap();
    let mut flipped = whole.clone();
    // A byte of the id, as a number below 128 that follows another.
    let at = (6..30).find(|at| whole[*at] < 0x7e && whole[*at - 1] < 0x7e).unwrap();
    flipped[at] ^= 1;
    fs::write(&config, &flipped).unwrap();
    let before = fingerprint(&world.repo);
    // This machine knows better.
    world.run(["check", "--repair", "--yes"]).exits(exit::NO_REPOSITORY);
    // Another one is told by the chunks.
    let cold = |args: &[&str]| {
        fs::remove_dir_all(world.path("elsewhere")).ok();
        let cache = world.path("elsewhere");
        world.run([&["--cache-dir", cache.to_str().unwrap()], args].concat())
    };
    for args in [
        &["check", "--repair", "--yes"][..],
        &["compact"],
        &["prune", "--keep-last", "1"],
        &["snapshot", "delete", "latest"],
    ] {
        cold(args).exits(exit::DAMAGED).says("`config` or the key is wrong");
        assert!(fingerprint(&world.repo) == before, "{args:?}");
    }
    assert!(cold(&["check"]).exits(exit::DAMAGED).out().contains("damage: config:"));
    fs::write(&config, &whole).unwrap();
    world.run(["check", "--verify-data"]).ok();
}

#[test]
fn a_folder_in_the_place_of_a_snapshot_is_named_by_list() {
    let world = world("aes256gcm");
    let first = files(&world.repo.join("snapshots")).remove(0);
    let whole = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    let name = first.file_name().unwrap().to_str().unwrap().to_owned();
    world.run(["list"]).exits(exit::DAMAGED).says(&name);
    assert!(world.run(["check"]).exits(exit::DAMAGED).out().contains(&name));
    // On a machine that never saw it, too.
    let cache = world.path("elsewhere");
    let before = fingerprint(&world.repo.join("packs"));
    world.run(["--cache-dir", cache.to_str().unwrap(), "compact"]).exits(exit::DAMAGED).says(&name);
    assert!(fingerprint(&world.repo.join("packs")) == before);
    fs::remove_dir(&first).unwrap();
    fs::write(&first, whole).unwrap();
    world.run(["list"]).ok();
}
