//! Arguments and output.

use std::fs;

use super::harness::terminal::asked;
use super::harness::{World, exit};

fn with_snapshots() -> World {
    let world = World::with_repository("chacha20poly1305");
    let source = world.folder("source");
    fs::create_dir(source.join("folder")).unwrap();
    fs::write(source.join("folder/file"), b"first").unwrap();
    fs::write(source.join("top"), b"top").unwrap();
    world.backup(["source", "--label", "mine"]).ok();
    fs::write(source.join("folder/file"), b"second").unwrap();
    world.backup(["source"]).ok();
    world
}

#[test]
fn the_repository_may_be_named_before_and_after_the_command() {
    let world = with_snapshots();
    let repo = world.repo.to_str().unwrap();
    for args in [
        vec!["-R", repo, "list"],
        vec!["list", "-R", repo],
        vec!["snapshot", "-R", repo, "info", "latest"],
        vec!["snapshot", "info", "latest", "-R", repo],
    ] {
        let mut command = world.command();
        command.args(args);
        world.finish(command).ok();
    }
    let mut command = world.command();
    command.args(["restore", "latest", "out", "-R", repo]);
    world.finish(command).ok();
    assert_eq!(fs::read(world.path("out/top")).unwrap(), b"top");
}

#[test]
fn a_snapshot_is_named_by_name_prefix_id_or_latest() {
    let world = with_snapshots();
    let list = world.snapshots();
    assert_eq!(list.len(), 2);
    let text = |n: usize, key: &str| list[n][key].as_str().unwrap().to_owned();
    let (first_name, first_id) = (text(0, "name"), text(0, "id"));
    assert_eq!((first_name.len(), first_id.len()), (8, 64));
    assert!(text(0, "time") < text(1, "time"), "oldest first: {list:?}");
    for (n, wanted) in [
        (0, first_name.clone()),
        (0, first_name[..6].to_owned()),
        (0, first_id.clone()),
        (0, first_id[..12].to_owned()),
        (0, first_id.to_uppercase()),
        (1, "latest".to_owned()),
    ] {
        let info = world.run(["snapshot", "info", &wanted, "--json"]).ok().json().to_string();
        assert!(info.contains(&text(n, "id")), "{wanted}: {info}");
    }
    for wanted in ["", "nothing", "../x", "zzzz"] {
        world.run(["snapshot", "info", wanted]).exits(exit::FAILURE).one_message();
        world.run(["restore", wanted, "nowhere"]).exits(exit::FAILURE).one_message();
    }
    assert!(!world.path("nowhere").exists());
}

#[test]
fn restore_takes_paths_and_puts_them_under_the_destination() {
    let world = with_snapshots();
    world.run(["restore", "latest", "one", "folder/file"]).ok();
    assert_eq!(fs::read(world.path("one/folder/file")).unwrap(), b"second");
    assert!(!world.path("one/top").exists());
    world.run(["restore", "latest", "two", "folder"]).ok();
    assert_eq!(fs::read(world.path("two/folder/file")).unwrap(), b"second");
    assert!(!world.path("two/top").exists());
    let run = world.run(["restore", "latest", "three", "no/such/path"]).says("no/such/path");
    assert_ne!(run.code, 0);
}

#[test]
fn listing_shows_what_there_is() {
    let world = with_snapshots();
    let out = world.run(["list"]).ok().out();
    for snapshot in world.snapshots() {
        assert!(out.contains(snapshot["name"].as_str().unwrap()), "{out}");
    }
    assert!(out.contains("mine"), "{out}");
    let out = world.run(["snapshot", "list", "latest"]).ok().out();
    for path in ["folder", "folder/file", "top"] {
        assert!(out.contains(path), "{out}");
    }
    world.run(["snapshot", "info", "latest"]).ok();
}

#[test]
fn a_backup_gives_its_snapshot_the_name_and_id_that_the_list_has() {
    let world = with_snapshots();
    let made = world.backup(["source", "--json"]).ok().json();
    let newest = world.snapshots().pop().unwrap();
    assert!(newest["id"].is_string());
    assert_eq!((&made["name"], &made["id"]), (&newest["name"], &newest["id"]));
}

#[test]
fn an_empty_repository_lists_nothing() {
    let world = World::with_repository("none");
    assert!(world.snapshots().is_empty());
    world.run(["list"]).ok();
    world.run(["check", "--verify-data"]).ok();
    world.run(["restore", "latest", "out"]).exits(exit::FAILURE).one_message();
    world.oracle_verify();
}

#[test]
fn the_passphrase_comes_from_a_command_too() {
    let world = with_snapshots();
    fs::write(world.path("secret"), format!("{}\n", world.passphrase)).unwrap();
    let repo = world.repo.to_str().unwrap();
    let mut by_option = world.command();
    by_option.env_remove("VYKAR_PASSPHRASE").args(["-R", repo, "--passcommand", "cat secret", "list"]);
    world.finish(by_option).ok();
    let mut by_environment = world.command();
    by_environment.env_remove("VYKAR_PASSPHRASE").env("VYKAR_PASSCOMMAND", "cat secret");
    world
        .finish({
            by_environment.args(["-R", repo, "list"]);
            by_environment
        })
        .ok();
}

#[test]
fn the_passphrase_is_asked_for_on_a_terminal() {
    let mut world = World::new();
    let init = |first: &str, again: &str| {
        let answers = [("New passphrase: ", first), ("The same again: ", again)];
        asked(&world, &["init", "--encryption", "aes256gcm"], &answers)
    };
    let seen = init("open", "close");
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
    assert!(!world.repo.join("config").exists(), "two different passphrases made a repository");

    let seen = init("typed by hand", "typed by hand");
    assert_eq!(seen.code, 0, "{}", seen.last);
    seen.never_showed("typed by hand");
    world.passphrase = "typed by hand".into();
    world.run(["list"]).ok();
    let seen = asked(&world, &["list"], &[("Passphrase: ", "typed by hand")]);
    assert_eq!(seen.code, 0, "{}", seen.last);
    let seen = asked(&world, &["list"], &[("Passphrase: ", "mistyped")]);
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let world = World::with_repository("none");
    for args in [
        vec!["frobnicate"],
        vec!["backup"],
        vec!["list", "--no-such-option"],
        vec!["backup", ".", "--compression", "gzip"],
        vec!["backup", ".", "--compression", "zstd:99"],
        vec!["init", "--encryption", "rot13"],
    ] {
        world.run(args).exits(exit::USAGE);
    }
    let mut nothing = world.command();
    nothing.arg("list");
    world.finish(nothing).exits(exit::USAGE);
}

#[test]
fn a_closed_pipe_is_no_crash() {
    let world = with_snapshots();
    let mut shell = std::process::Command::new("sh");
    let vykar = super::harness::VYKAR;
    let line = format!("'{vykar}' -R '{}' snapshot list latest 2>err | true", world.repo.display());
    shell.args(["-c", &line]).current_dir(world.path(""));
    shell.env("VYKAR_PASSPHRASE", &world.passphrase).env("VYKAR_CACHE_DIR", &world.cache);
    assert!(shell.status().unwrap().success());
    let said = fs::read_to_string(world.path("err")).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}
