//! What is restored lets in nobody whom the source kept out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::harness::{World, exit};
use super::tree::{set_mode, set_times};

/// Mode and modification time of a folder.
fn of(path: &Path) -> (u32, i64) {
    let found = path.metadata().unwrap();
    (found.mode() & 0o7777, found.mtime())
}

#[test]
fn folders_above_several_sources_keep_their_mode_and_time() {
    needs!(mounts);
    let world = World::with_repository("none");
    let ada = world.folder("ada");
    for name in ["docs", "pics"] {
        fs::create_dir(ada.join(name)).unwrap();
        fs::write(ada.join(name).join("letter"), b"private").unwrap();
    }
    set_mode(&ada, 0o700);
    set_times(&ada, (5, 0), (1_000_000_000, 0));
    world.backup(["ada/docs", "ada/pics"]).ok();
    world.run(["restore", "latest", "restored"]).ok();
    let below = ada.strip_prefix("/").unwrap();
    assert_eq!(of(&world.path("restored").join(below)), (0o700, 1_000_000_000));
    let mount = world.mount();
    assert_eq!(of(&mount.latest().join(below)), (0o700, 1_000_000_000));
    mount.unmount(&world);
    world.oracle_verify();
}

#[test]
fn names_that_no_file_system_takes_are_refused_before_anything_is_stored() {
    let world = World::with_repository("none");
    let name = "n".repeat(256);
    let run = world.run(["backup", "--stdin", "--stdin-name", &name]).exits(exit::USAGE);
    run.says("255");
    assert!(world.snapshots().is_empty());
}
