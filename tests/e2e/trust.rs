//! Which configurations are used, and what their values mean.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::harness::{Run, World, exit};

/// A configuration that runs a command as soon as it is used.
const RUNS: &str = "repositories: [{url: repo, label: main}]\n\
                    encryption: {passcommand: 'touch RAN; echo word'}\n";

/// A world with a repository and a configuration beside it.
fn world_with(config: &str) -> World {
    let world = World::with_repository("aes256gcm");
    fs::write(world.path("vykar.yaml"), config).unwrap();
    world
}

fn run(world: &World, args: &[&str]) -> Run {
    let mut command = world.command();
    command.env_remove("VYKAR_PASSPHRASE").args(args);
    world.finish(command)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_configuration_that_others_can_write_runs_nothing() {
    let world = world_with(RUNS);
    let (folder, config) = (world.path(""), world.path("vykar.yaml"));
    for (of_file, of_folder, why) in [
        (0o666, 0o700, "vykar.yaml is not used: it can be written by others (chmod go-w)"),
        (0o644, 0o777, "vykar.yaml is not used: its folder can be written by others (chmod go-w)"),
        (0o644, 0o1777, "vykar.yaml is not used: its folder can be written by others (chmod go-w)"),
    ] {
        chmod(&config, of_file);
        chmod(&folder, of_folder);
        for args in [&["list"][..], &["mount", "m"], &[], &["config", "check"]] {
            let run = run(&world, args).exits(exit::USAGE).says(why);
            assert_eq!(run.stderr.matches(why).count(), 1, "{args:?}: {}", run.stderr);
        }
        assert!(!world.path("RAN").exists());
    }
    chmod(&folder, 0o700);
    chmod(&config, 0o666);
    run(&world, &["list", "--config", "vykar.yaml"]).exits(exit::PASSPHRASE);
    assert!(fs::remove_file(world.path("RAN")).is_ok(), "one that is named is used");
    chmod(&config, 0o644);
    run(&world, &["list"]).exits(exit::PASSPHRASE);
    assert!(world.path("RAN").exists(), "one's own is used");
}

#[test]
fn a_configuration_of_another_user_runs_nothing() {
    needs!(root);
    let world = world_with(RUNS);
    let [folder, config] = [world.path(""), world.path("vykar.yaml")];
    std::os::unix::fs::chown(&config, Some(12345), None).unwrap();
    run(&world, &["list"]).exits(exit::USAGE).says("vykar.yaml is not used: it belongs to user 12345");
    std::os::unix::fs::chown(&config, Some(0), None).unwrap();
    std::os::unix::fs::chown(&folder, Some(12345), None).unwrap();
    run(&world, &["list"]).exits(exit::USAGE).says("its folder belongs to user 12345");
    std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
    assert!(!world.path("RAN").exists());
    // A link to a file in somebody's folder is theirs to change.
    let other = world.folder("other");
    fs::rename(&config, other.join("vykar.yaml")).unwrap();
    std::os::unix::fs::symlink("other/vykar.yaml", &config).unwrap();
    std::os::unix::fs::chown(&other, Some(12345), None).unwrap();
    run(&world, &["list"]).exits(exit::USAGE).says("its folder belongs to user 12345");
    assert!(!world.path("RAN").exists());
}

#[test]
fn a_repository_given_as_a_path_needs_no_configuration() {
    let world = world_with("this is: [no configuration\n");
    let path = world.path("repo");
    let passed = |args: &[&str]| {
        let mut command = world.command();
        command.args(args);
        world.finish(command)
    };
    for repo in ["./repo", path.to_str().unwrap()] {
        passed(&["-R", repo, "list"]).ok();
        // Neither of the two is looked for: what is missing is the other passphrase.
        passed(&["-R", repo, "copy", "--to", repo]).exits(exit::PASSPHRASE);
    }
    // A word may be a label.
    passed(&["-R", "repo", "list"]).exits(exit::USAGE).says("vykar.yaml");
    passed(&["-R", "./repo", "list", "--config", "vykar.yaml"]).exits(exit::USAGE).says("vykar.yaml");
}

#[test]
fn a_configuration_that_cannot_be_read_is_named_where_it_is_needed() {
    // Root can read any file.
    needs!(user);
    let world = world_with("this is: [no configuration\n");
    chmod(&world.path("vykar.yaml"), 0o000);
    let passed = |args: &[&str]| {
        let mut command = world.command();
        command.args(args);
        world.finish(command)
    };
    passed(&["-R", "repo", "list"]).ok();
    passed(&["list"]).exits(exit::USAGE).says("vykar.yaml: cannot be read");
}

#[test]
fn intervals_and_dates_that_are_not_meant_are_refused() {
    let schedule = |text: &str| {
        format!("repositories: [{{url: repo, label: main}}]\nschedule: {{enabled: true, {text}}}\n")
    };
    let world = World::new();
    let check = |config: &str| {
        fs::write(world.path("vykar.yaml"), config).unwrap();
        run(&world, &["config", "check"])
    };
    let out = check(&schedule("every: 30m")).ok().out();
    assert!(out.contains("every 30m"), "{out}");
    check(&schedule("every: 0h")).exits(exit::USAGE).says("this must be a minute or more");
    check(&schedule("every: 59s")).exits(exit::USAGE).says("this must be a minute or more");
    check(&schedule("cron: '0 0 31 2 *'")).exits(exit::USAGE).says("this must be a time that comes");
    check("check: {full_every: null}\nrepositories: [{url: repo}]\n").ok();
}

#[test]
fn a_pass_command_that_never_stops_printing_is_stopped() {
    let world = World::with_repository("aes256gcm");
    let run = run(&world, &["-R", "./repo", "--passcommand", "yes", "list"]);
    run.exits(exit::PASSPHRASE).says("what the pass command prints: longer than 65536 bytes");
}
