//! Damaged repositories made whole again.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{FIXTURES, World, exit, fingerprint, fixture};
use super::tree::noise;

const FILES: u64 = 6;

fn content(n: u64) -> Vec<u8> {
    noise(120_000, n)
}

/// A repository whose packs hold files as they are, so that one of them can be found there.
fn world(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    let source = world.folder("source");
    for n in 0..FILES {
        fs::write(source.join(format!("f{n}")), content(n)).unwrap();
    }
    world.backup(["source", "--compression", "none"]).ok();
    world
}

fn packs(world: &World) -> Vec<PathBuf> {
    let names = fingerprint(&world.repo).into_iter().filter(|(_, (_, kind))| kind != "directory");
    names.map(|(name, _)| world.repo.join(name)).filter(|p| p.starts_with(world.repo.join("packs"))).collect()
}

/// Changes a byte of a file where its pack has it.
fn damage_file(world: &World, n: u64) {
    let needle = &content(n)[50_000..50_100];
    for pack in packs(world) {
        let mut bytes = fs::read(&pack).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            fs::write(&pack, &bytes).unwrap();
            return;
        }
    }
    panic!("no pack holds file {n}");
}

fn assert_sound(world: &World) {
    let check = world.run(["check", "--verify-data"]).ok();
    assert!(check.out().contains("no damage") && !check.out().contains("problem"), "{check}");
    world.oracle_verify();
}

/// Restores the newest snapshot, and demands exactly these files.
fn assert_files(world: &World, files: impl IntoIterator<Item = u64>) {
    world.run(["restore", "latest", "restored"]).ok();
    let mut left: Vec<_> = fs::read_dir(world.path("restored"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let files: Vec<_> = files.into_iter().collect();
    assert_eq!(left, files.iter().map(|n| format!("f{n}")).collect::<Vec<_>>());
    for n in files {
        assert!(fs::read(world.path(&format!("restored/f{n}"))).unwrap() == content(n), "f{n}");
    }
    fs::remove_dir_all(world.path("restored")).unwrap();
}

#[test]
fn nothing_is_changed_before_the_plan_is_confirmed() {
    let world = world("none");
    fs::write(world.repo.join("index"), b"garbage").unwrap();
    let before = fingerprint(&world.repo);
    let run = world.run(["check", "--repair"]).exits(exit::USAGE).one_message().says("--yes");
    assert!(run.out().contains("rebuild the index"), "{run}");
    let run = world.run(["check", "--repair", "--dry-run"]).exits(exit::DAMAGED);
    assert!(run.out().contains("rebuild the index") && run.out().contains("Nothing was changed"), "{run}");
    assert_eq!(fingerprint(&world.repo), before);

    world.run(["check", "--repair", "--yes"]).ok();
    assert_sound(&world);
    assert_files(&world, 0..FILES);
    let json = world.run(["list", "--damaged", "--json"]).ok().json();
    let kept = json["damaged"][0]["key"].as_str().unwrap();
    assert_eq!(
        (&json["damaged"][0]["object"], json["damaged"].as_array().unwrap().len()),
        (&"index".into(), 1)
    );
    assert_eq!(fs::read(world.repo.join(kept)).unwrap(), b"garbage");

    let before = fingerprint(&world.repo);
    let run = world.run(["check", "--repair"]).ok();
    assert!(run.out().contains("Nothing to repair"), "{run}");
    assert_eq!(fingerprint(&world.repo), before);
    world.run(["check", "--yes"]).exits(exit::USAGE);
}

#[test]
fn a_file_that_is_lost_is_named_and_the_next_backup_heals_it() {
    let world = world("none");
    let name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    damage_file(&world, 3);
    world.run(["check", "--verify-data"]).exits(exit::DAMAGED);
    let run = world.run(["check", "--repair", "--yes"]).exits(exit::PARTIAL);
    let dropped: Vec<_> =
        run.out().lines().filter(|line| line.starts_with("drop:")).map(str::to_owned).collect();
    assert!(dropped.len() == 1 && dropped[0].contains("f3") && dropped[0].contains(&name), "{run}");
    assert_sound(&world);
    assert_files(&world, (0..FILES).filter(|n| *n != 3));
    let snapshots = world.snapshots();
    assert_eq!((snapshots.len(), snapshots[0]["name"].as_str()), (1, Some(&*name)));
    assert_eq!(snapshots[0]["files"], FILES - 1);

    let aside = world.run(["list", "--damaged"]).ok();
    for text in ["damaged/snapshots/", "damaged/packs/", "damaged/index-", &name] {
        assert!(aside.out().contains(text), "{aside} should name {text}");
    }
    // What is set aside disturbs nothing.
    world.run(["compact"]).ok();
    assert_sound(&world);

    // Its source is as it was, and yet it is read again.
    let json = world.backup(["source", "--json"]).ok().json();
    assert!(json["added"].as_u64().unwrap() >= 120_000, "{json}");
    assert_files(&world, 0..FILES);
    assert_sound(&world);
    fs::remove_dir_all(world.repo.join("damaged")).unwrap();
    assert_sound(&world);
    assert!(world.run(["list", "--damaged"]).ok().out().contains("Nothing was set aside"));
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_never_deleted() {
    let world = world("aes256gcm");
    fs::write(world.path("source/f6"), content(6)).unwrap();
    world.backup(["source"]).ok();
    let first = world.snapshots()[0]["id"].as_str().unwrap().to_owned();
    let path = world.repo.join("snapshots").join(&first);
    let half = fs::read(&path).unwrap()[..60].to_vec();
    fs::write(&path, &half).unwrap();
    let run = world.run(["check", "--repair", "--yes"]).exits(exit::PARTIAL);
    assert!(run.out().contains(&first[..16]), "{run}");
    assert_eq!(fs::read(world.repo.join("damaged/snapshots").join(&first)).unwrap(), half);
    let json = world.run(["list", "--damaged", "--json"]).ok().json();
    assert_eq!(json["damaged"][0]["object"], format!("snapshots/{first}"));
    assert!(!json["damaged"][0]["reason"].as_str().unwrap().is_empty());
    assert_eq!(world.snapshots().len(), 1);
    assert_sound(&world);
    assert_files(&world, 0..=FILES);
    // It belongs to the repository all the same.
    let path = world.repo.to_str().unwrap().to_owned();
    world.run(["delete", "--confirm", &path]).ok();
    assert!(!world.repo.exists());
}

#[test]
fn repositories_of_other_programs_get_their_index_back() {
    for name in FIXTURES {
        let world = World::with_copy_of(&fixture(name).join("repo"), "correct horse");
        let before = world.run(["snapshot", "list", "latest", "--json"]).ok().out();
        for garbage in [None, Some(b"\x04garbage".as_slice())] {
            let index = world.repo.join("index");
            match garbage {
                None => fs::remove_file(&index).unwrap(),
                Some(garbage) => fs::write(&index, garbage).unwrap(),
            }
            world.run(["check"]).exits(exit::DAMAGED);
            world.run(["check", "--repair", "--yes"]).ok();
            assert_sound(&world);
            assert_eq!(world.run(["snapshot", "list", "latest", "--json"]).ok().out(), before, "{name}");
        }
    }
}

#[test]
fn packs_in_the_wrong_place_and_junk_are_sorted_out() {
    let world = world("chacha20poly1305");
    let all = packs(&world);
    assert_eq!(all.len(), 2);
    // Somebody mixed them up, and put a letter beside them.
    let (a, b) = (fs::read(&all[0]).unwrap(), fs::read(&all[1]).unwrap());
    fs::write(&all[0], &b).unwrap();
    fs::write(&all[1], &a).unwrap();
    fs::write(all[1].parent().unwrap().join("letter"), b"Dear Sir").unwrap();
    let run = world.run(["check", "--repair", "--yes"]).ok();
    assert!(run.out().contains("letter") && run.out().contains("put back pack"), "{run}");
    assert_sound(&world);
    assert_files(&world, 0..FILES);
    assert!(Path::new(&all[1]).parent().unwrap().join("letter").exists());
}

#[test]
fn a_part_of_the_data_is_read_when_that_is_asked_for() {
    let world = world("none");
    damage_file(&world, 0);
    world.run(["check"]).ok();
    let codes = ["1/2", "2/2"].map(|part| world.run(["check", "--read-data-subset", part]).code);
    assert!(codes.contains(&exit::DAMAGED), "{codes:?}");
    let run = world.run(["check", "--read-data-subset", "100%"]).exits(exit::DAMAGED);
    assert!(run.out().contains("2 of them"), "{run}");
    for bad in ["0%", "3/2", "many"] {
        world.run(["check", "--read-data-subset", bad]).exits(exit::USAGE);
    }
    world.run(["check", "--read-data-subset", "5%", "--repair"]).exits(exit::USAGE);
}
