//! An earlier state of a repository that is put back is noticed.

use std::fs;

use super::harness::{World, copy_tree, exit};

#[test]
fn an_earlier_state_that_is_put_back_is_read_with_a_warning_and_not_written_to() {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), b"one").unwrap();
    world.backup(["source"]).ok();
    let copy = world.path("copy");
    copy_tree(&world.repo, &copy);
    fs::write(source.join("file"), b"two").unwrap();
    world.backup(["source"]).ok();
    let quiet = |run: super::harness::Run| assert_eq!(run.ok().stderr, "");
    quiet(world.run(["list"]));

    fs::remove_dir_all(&world.repo).unwrap();
    copy_tree(&copy, &world.repo);
    let list = world.run(["list"]).ok();
    assert!(list.stderr.contains("earlier state") && list.stderr.contains("1 snapshot(s)"), "{list}");
    world.run(["restore", "latest", "out"]).ok().says("earlier state");
    for command in [&["backup", "source"][..], &["snapshot", "delete", "latest"], &["compact"]] {
        let run = world.run(command).exits(exit::NO_REPOSITORY);
        assert!(run.stderr.contains("earlier state") && run.stderr.contains("--trust-repo"), "{run}");
    }
    assert_eq!(world.snapshots().len(), 1);
    world.run(["list", "--trust-repo"]).ok();
    quiet(world.run(["list"]));
    world.backup(["source"]).ok();
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();

    // Another machine prunes: told once.
    let mut elsewhere = world.command();
    elsewhere.env("VYKAR_CACHE_DIR", world.path("elsewhere")).arg("-R").arg(&world.repo);
    elsewhere.args(["snapshot", "delete", "latest"]);
    world.finish(elsewhere).ok();
    world.run(["list"]).ok().says("not deleted from this machine");
    quiet(world.run(["list"]));
    world.run(["snapshot", "delete", "latest"]).ok();
    quiet(world.run(["list"]));
}
