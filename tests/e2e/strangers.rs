//! Other users of the machine, and what they may see.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::harness::{World, silent};
use super::tree::set_mode;

const NOBODY: &str = "65534";

/// Runs something as nobody, in no group; what it printed, or `None` when it failed.
fn as_nobody(program: &str, arguments: &[&Path]) -> Option<String> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", program]).args(arguments);
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn versions_are_kept_from_those_whom_the_snapshots_keep_out() {
    needs!(root);
    needs!(mounts);
    let world = World::with_repository("none");
    set_mode(&world.path(""), 0o755);
    let source = world.folder("source");
    for (name, mode) in [("closed", 0o700), ("open", 0o755), ("allowed", 0o700), ("was-closed", 0o700)] {
        fs::create_dir(source.join(name)).unwrap();
        fs::write(source.join(name).join("diary"), name).unwrap();
        set_mode(&source.join(name).join("diary"), 0o644);
        set_mode(&source.join(name), mode);
    }
    set_mode(&source, 0o755);
    silent(Command::new("setfacl").args(["-m", "u:65534:r-x"]).arg(source.join("allowed")));
    world.backup(["source"]).ok();
    set_mode(&source.join("was-closed"), 0o755);
    world.backup(["source"]).ok();
    let mount = world.mount_with(&["--allow-other"]);
    for round in 0..2 {
        for (name, may) in [("closed", false), ("open", true), ("allowed", true), ("was-closed", false)] {
            let folder = mount.path("versions").join(name);
            let read = as_nobody("cat", &[&folder.join("diary/latest")]);
            assert_eq!(read, may.then(|| name.to_owned()), "{name} {round}");
            assert_eq!(as_nobody("ls", &[&folder]).is_some(), may, "{name} {round}");
            assert_eq!(fs::read_to_string(folder.join("diary/latest")).unwrap(), name);
        }
    }
    set_mode(&source, 0o700);
    world.backup(["source"]).ok();
    let mount = world.mount_with(&["--allow-other"]);
    assert_eq!(as_nobody("ls", &[&mount.path("versions")]), None, "as the snapshot's own top");
}

#[test]
fn the_cache_and_the_repository_are_closed_whatever_the_umask_says() {
    needs!(mounts);
    let world = World::new();
    fs::write(world.path("file"), "x").unwrap();
    let run = |arguments: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask 000; exec \"$@\" {arguments}"), "sh", super::harness::VYKAR, "-R"]);
        shell.arg(&world.repo);
        world.finish(world.with_environment(shell)).ok();
    };
    run("init --encryption none");
    run("backup file --metrics-file metrics.prom");
    run("check");
    let found =
        Command::new("find").args([&world.repo, &world.cache]).args(["-perm", "/077"]).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    assert!(
        fs::read_dir(&world.cache).unwrap().count() > 0 && fs::read_dir(&world.repo).unwrap().count() > 3
    );
    assert_eq!(mode(&world.path("metrics.prom")), 0o644, "it is there to be collected");
    fs::create_dir(world.path("at")).unwrap();
    run("mount at --background");
    let log = mode(&world.cache.join("mount.log"));
    let mut umount = world.command();
    umount.args(["umount", "at"]);
    world.finish(umount).ok();
    assert_eq!(log, 0o600);
}
