//! Doing again what was cut off, and objects that are no files.

use std::fs;
use std::path::PathBuf;

use super::harness::{World, exit};

/// A world with snapshots of `file`, and their names.
fn world_with_snapshots(count: usize) -> (World, Vec<String>) {
    let world = World::with_repository("aes256gcm");
    for number in 0..count {
        fs::write(world.path("file"), format!("{number}")).unwrap();
        world.backup(["file"]).ok();
    }
    let names = world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    (world, names)
}

#[test]
fn a_deletion_that_was_cut_off_can_be_run_again() {
    let (world, names) = world_with_snapshots(4);
    let [a, b, c, d] = &names[..] else { panic!("{names:?}") };
    // What a kill between the two leaves.
    world.run(["snapshot", "delete", a]).ok();
    world.run(["snapshot", "delete", a, b]).ok().says(&format!("snapshot {a} was deleted before"));
    assert_eq!(world.snapshots().len(), 2);
    // A machine that remembers nothing deletes what is there, and says what is not.
    fs::remove_dir_all(world.path("cache")).unwrap();
    world.run(["snapshot", "delete", a, c]).exits(exit::FAILURE).says(a);
    let left: Vec<_> = world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, [d.as_str()]);
    world.run(["snapshot", "delete", "nothing"]).exits(exit::FAILURE);
    world.run(["check", "--verify-data"]).ok();
}

#[test]
fn a_fifo_in_the_place_of_an_object_keeps_nobody_waiting() {
    let (world, _) = world_with_snapshots(1);
    let pack = fs::read_dir(world.path("repo/packs")).unwrap().flatten();
    let pack = pack.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten()).next().unwrap().path();
    let objects: Vec<PathBuf> = ["config", "keys/repokey", "index", "index.gen"]
        .iter()
        .map(|name| world.path("repo").join(name))
        .chain([pack])
        .collect();
    for object in objects {
        let aside = world.path("aside");
        fs::rename(&object, &aside).unwrap();
        super::harness::silent(std::process::Command::new("mkfifo").arg(&object));
        let _ = fs::remove_dir_all(world.path("cache"));
        // They end, whatever they say.
        let shown = object.display();
        for args in
            [&["list"][..], &["restore", "latest", "out"], &["backup", "file"], &["check", "--verify-data"]]
        {
            let run = world.run(args);
            let needs_it = !object.ends_with("index.gen") && args[0] == "restore";
            assert!(!needs_it || run.code != 0, "{shown}: {args:?}: {}", run.stderr);
        }
        let _ = fs::remove_dir_all(world.path("out"));
        fs::remove_file(&object).unwrap();
        fs::rename(&aside, &object).unwrap();
    }
    world.run(["check", "--verify-data"]).ok();
}
