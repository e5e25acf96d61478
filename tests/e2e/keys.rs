//! The key: changing its passphrase, writing it down, putting it back.

use std::fs;
use std::process::Command;

use super::harness::terminal::OnTerminal;
use super::harness::{Run, World, exit};

/// A repository with one snapshot.
fn world() -> World {
    let world = World::with_repository("aes256gcm");
    world.folder("source");
    fs::write(world.path("source/file"), "content").unwrap();
    world.backup(["source"]).ok();
    world
}

impl World {
    /// Runs a command with another passphrase, or none, in its environment.
    fn with_passphrase(&self, passphrase: Option<&str>, args: &[&str]) -> Run {
        let mut command = self.command();
        command.env_remove("VYKAR_PASSPHRASE").arg("-R").arg(&self.repo).args(args);
        if let Some(passphrase) = passphrase {
            command.env("VYKAR_PASSPHRASE", passphrase);
        }
        self.finish(command)
    }

    /// The same on a terminal of its own, which rpassword asks for, with nothing in the environment.
    fn asked(&self, args: &[&str], answers: &[(&str, &str)]) -> super::harness::terminal::Seen {
        let mut command = self.with_environment(Command::new("setsid"));
        command.arg("--ctty").arg(super::harness::VYKAR).arg("-R").arg(&self.repo).args(args);
        command.env_remove("VYKAR_PASSPHRASE").env("TERM", "xterm-256color");
        OnTerminal::start_answering(command, answers).finish()
    }
}

#[test]
fn the_passphrase_is_changed_on_a_terminal() {
    let mut world = world();
    let old = world.passphrase.clone();
    let change = ["key", "change-passphrase"];
    let (first, again) = ("New passphrase: ", "The same again: ");
    let seen = world.asked(&change, &[("Passphrase: ", &old), (first, "one thing"), (again, "another")]);
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
    seen.showed(&["nothing was changed: the two were not the same"]);
    world.run(["list"]).ok();
    let seen = world.asked(&change, &[("Passphrase: ", "wrong")]);
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
    let new = "leaden umbrella tea harbour";
    let seen = world.asked(&change, &[("Passphrase: ", &old), (first, new), (again, new)]);
    assert_eq!(seen.code, 0, "{}", seen.last);
    seen.showed(&["Changed the passphrase of", "still open with the old passphrase"])
        ;
    // Every machine that knew the repository knows it still.
    world.with_passphrase(Some(&old), &["list"]).exits(exit::PASSPHRASE).one_message();
    world.passphrase = new.to_owned();
    world.run(["check", "--verify-data"]).ok();
    world.backup(["source"]).ok();
    fs::remove_dir_all(&world.cache).unwrap();
    world.run(["restore", "latest", "out"]).ok();
    assert_eq!(fs::read_to_string(world.path("out/file")).unwrap(), "content");
    world.oracle_verify();
}

#[test]
fn the_new_passphrase_comes_from_where_the_old_one_may() {
    let mut world = world();
    fs::write(world.path("new"), "from a file\n").unwrap();
    for (args, variable, new) in [
        (&["--new-passphrase-file", "new"][..], None, "from a file"),
        (&["--new-passcommand", "echo from a command"], None, "from a command"),
        (&["--new-passphrase-file", "new"], Some("from the environment"), "from the environment"),
    ] {
        let mut command = world.command();
        command.arg("-R").arg(&world.repo).args(["key", "change-passphrase"]).args(args);
        if let Some(value) = variable {
            command.env("VYKAR_NEW_PASSPHRASE", value);
        }
        world.finish(command).ok();
        world.run(["list"]).exits(exit::PASSPHRASE);
        world.passphrase = new.to_owned();
        world.run(["list"]).ok();
    }
    for (args, why) in [
        (&["--new-passcommand", "exit 3"][..], "the pass command failed"),
        (&["--new-passphrase-file", "nope"], "No such file"),
        (&[], "there is no terminal to ask on"),
    ] {
        let run = world.run(["key", "change-passphrase"].iter().chain(args));
        run.exits(exit::PASSPHRASE).says(why).says("nothing was changed").one_message();
        world.run(["list"]).ok();
    }
    let plain = World::with_repository("none");
    let run = plain.run(["key", "change-passphrase", "--new-passcommand", "echo x"]);
    run.exits(exit::USAGE).says("not encrypted").one_message();
}

#[test]
fn a_weak_passphrase_is_warned_of_in_one_sentence() {
    for (passphrase, why) in
        [("", "is empty"), ("password1", "is weak, since"), ("2 Lb of unripe quinces", "")]
    {
        let mut world = World::new();
        world.passphrase = passphrase.to_owned();
        let run = world.run(["init"]).ok();
        let warned = run.stderr.lines().filter(|line| line.contains("the passphrase is ")).count();
        assert_eq!(warned, usize::from(!why.is_empty()), "{run}");
        assert!(run.stderr.contains(why), "{run}");
    }
    let world = world();
    let run = world.run(["key", "change-passphrase", "--new-passcommand", "echo 12345678"]).ok();
    assert!(run.stderr.contains("the passphrase is weak, since"), "{run}");
}
