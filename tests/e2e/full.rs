//! Repositories on a disk without room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::harness::{World, exit, silent};
use super::tree::noise;

/// A small file system, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf, size: &str) -> Self {
        silent(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={size}"))
                .arg("none")
                .arg(&at),
        );
        SmallDisk(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_cycle_on_a_full_repository_goes_on_to_make_room() {
    needs!(root);
    let world = World::new();
    let disk = SmallDisk::new(world.folder("disk"), "24M");
    let source = world.folder("source");
    fs::write(
        world.path("vykar.yaml"),
        "repositories: [{url: disk/repo, label: main, encryption: {mode: none}, min_pack_size: 1M, max_pack_size: 2M}]\n\
         sources: [source]\nretention: {keep_last: 1}\n",
    )
    .unwrap();
    let run = |args: &[&str]| {
        let mut command = world.command();
        command.args(args);
        world.finish(command)
    };
    run(&["init"]).ok();
    for seed in 1..=2 {
        fs::write(source.join("file"), noise(8 << 20, seed)).unwrap();
        run(&["backup"]).ok();
    }
    fs::write(source.join("file"), noise(12 << 20, 3)).unwrap();
    let cycle = run(&[]).exits(exit::STORAGE).says("going on with prune and compact");
    assert!(cycle.out().contains("is free for") || cycle.out().contains("freed"), "{cycle}");
    // What it had stored is taken up, and there is room now.
    run(&[]).ok();
    let list = run(&["list", "--json"]).ok().json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    run(&["check", "--verify-data"]).ok();
    drop(disk);
}

#[test]
fn deleting_works_where_there_is_no_free_block() {
    needs!(root);
    let world = World::new();
    let disk = SmallDisk::new(world.folder("disk"), "24M");
    let repo = world.path("disk/repo");
    let run = |args: &[&str]| {
        let mut command = world.command();
        command.arg("-R").arg(&repo).args(args);
        world.finish(command)
    };
    run(&["init", "--encryption", "none", "--min-pack-size", "1M", "--max-pack-size", "2M"]).ok();
    for seed in 1..=3 {
        fs::write(world.path("file"), noise(2 << 20, seed)).unwrap();
        run(&["backup", "file"]).ok();
    }
    fill(&disk.0);
    run(&["backup", "file"]).exits(exit::STORAGE);
    for command in [&["snapshot", "delete", "latest"][..], &["prune", "--keep-last", "1"], &["compact"]] {
        run(command).ok();
    }
    fs::remove_file(disk.0.join("filler")).unwrap();
    run(&["backup", "file"]).ok();
    run(&["check", "--verify-data"]).ok();
    assert!(repo.join(".tmp-reserve").exists(), "it is made again when there is room");
    run(&["delete", "--confirm", repo.to_str().unwrap()]).ok();
    assert!(!repo.exists());
}

/// Leaves not a single free block.
fn fill(disk: &std::path::Path) {
    use std::io::Write;
    let mut filler = fs::File::options().create(true).append(true).open(disk.join("filler")).unwrap();
    for size in [1 << 20, 4096, 1] {
        while filler.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
    }
}
