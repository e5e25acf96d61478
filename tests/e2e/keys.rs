//! The key: changing its passphrase, writing it down, putting it back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::terminal::asked;
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
}

#[test]
fn the_passphrase_is_changed_on_a_terminal() {
    let mut world = world();
    let old = world.passphrase.clone();
    let change = ["key", "change-passphrase"];
    let (first, again) = ("New passphrase: ", "The same again: ");
    let seen = asked(&world, &change, &[("Passphrase: ", &old), (first, "one thing"), (again, "another")]);
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
    seen.showed(&["nothing was changed: the two were not the same"]);
    world.run(["list"]).ok();
    let seen = asked(&world, &change, &[("Passphrase: ", "wrong")]);
    assert_eq!(seen.code, exit::PASSPHRASE, "{}", seen.last);
    let new = "leaden umbrella tea harbour";
    let seen = asked(&world, &change, &[("Passphrase: ", &old), (first, new), (again, new)]);
    assert_eq!(seen.code, 0, "{}", seen.last);
    seen.showed(&["Changed the passphrase of", "still open with the old passphrase"])
        .never_showed("umbrella");
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
fn the_key_is_written_down_and_typed_back() {
    let world = world();
    let text = world.run(["key", "export"]).ok().out();
    assert!(text.starts_with("vykar key export\nRepository "), "{text}");
    assert!(text.contains("still protected by the passphrase"), "{text}");
    let said = world.run(["key", "export", "--output", "paper"]).ok().out();
    assert!(said.contains("Wrote the key to paper"), "{said}");
    assert_eq!(fs::read_to_string(world.path("paper")).unwrap(), text);
    assert_eq!(fs::metadata(world.path("paper")).unwrap().permissions().mode() & 0o777, 0o600);
    world.run(["key", "export", "-o", "paper"]).exits(exit::FAILURE).says("exists").one_message();
    assert_eq!(fs::read_to_string(world.path("paper")).unwrap(), text);
    // As somebody types it.
    let typed: Vec<String> = text
        .lines()
        .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| {
            let (number, digits) = line.split_once(':').unwrap();
            format!("{number} {}", digits.replace(' ', "  ").to_lowercase().replace('0', "o"))
        })
        .collect();
    fs::write(world.path("typed"), typed.join("\n")).unwrap();
    let whole = ["keys/repokey", "config"].map(|key| fs::read(world.repo.join(key)).unwrap());
    for lost in [&["keys/repokey"][..], &["config"], &["keys/repokey", "config"]] {
        lost.iter().for_each(|key| fs::remove_file(world.repo.join(key)).unwrap());
        assert_ne!(world.run(["list"]).says("vykar key import").code, 0);
        world
            .with_passphrase(Some("wrong"), &["key", "import", "paper"])
            .exits(exit::PASSPHRASE)
            .one_message();
        let run = world.run(["key", "import", "typed"]).ok();
        lost.iter().for_each(|key| assert!(run.out().contains(key), "{run}"));
        world.run(["check", "--verify-data"]).ok();
    }
    assert_eq!(["keys/repokey", "config"].map(|key| fs::read(world.repo.join(key)).unwrap()), whole);
    assert!(world.run(["key", "import", "paper"]).ok().out().contains("has this key already"));
    // A mistake is named by its line.
    let wrong = text.replacen("  3: ", "  3: 0", 1).replacen("\n  5: ", "\n  55: ", 1);
    fs::write(world.path("typed"), wrong).unwrap();
    let run = world.run(["key", "import", "typed"]).exits(exit::FAILURE).one_message();
    assert!(run.stderr.contains("line 3: ") && run.stderr.contains("line 5: missing"), "{run}");
    let plain = World::with_repository("none");
    plain.run(["key", "export"]).exits(exit::USAGE).says("not encrypted").one_message();
    // Another repository.
    fs::write(plain.path("paper"), &text).unwrap();
    plain.run(["key", "import", "paper"]).exits(exit::USAGE).says("the export is of").one_message();
    world.oracle_verify();
}

#[test]
fn a_key_that_looks_right_is_replaced_only_when_that_is_confirmed() {
    let mut world = world();
    world.run(["key", "export", "-o", "paper"]).ok();
    let old = world.passphrase.clone();
    world.run(["key", "change-passphrase", "--new-passcommand", "echo forgotten"]).ok();
    let refused = world.run(["key", "import", "paper"]).exits(exit::FAILURE);
    refused.says("nothing seems to be wrong").one_message();
    world.run(["key", "import", "paper", "--replace"]).exits(exit::USAGE).says("no terminal").one_message();
    let before = fs::read(world.repo.join("keys/repokey")).unwrap();
    let import = ["key", "import", "paper", "--replace"];
    let question = "[y/N]";
    let seen = asked(&world, &import, &[("Passphrase: ", &old), (question, "n")]);
    assert_eq!(seen.code, exit::FAILURE, "{}", seen.last);
    assert_eq!(fs::read(world.repo.join("keys/repokey")).unwrap(), before);
    let seen = asked(&world, &import, &[("Passphrase: ", &old), (question, "y")]);
    assert_eq!(seen.code, 0, "{}", seen.last);
    world.run(["list"]).ok();
    // What it took the place of is kept, and can be put back.
    let out = world.run(["list", "--damaged"]).ok().out();
    assert!(out.contains("keys/repokey"), "{out}");
    fs::write(world.repo.join("keys/repokey"), &before).unwrap();
    world.passphrase = "forgotten".into();
    world.run(["check"]).ok();
}

#[test]
fn a_wrong_passphrase_is_one_sentence_for_every_command() {
    let world = world();
    world.run(["key", "export", "-o", "paper"]).ok();
    let at = world.mountpoint("at");
    let at = at.to_str().unwrap();
    for args in [
        &["list"][..],
        &["list", "--damaged"],
        &["backup", "source"],
        &["snapshot", "list", "latest"],
        &["snapshot", "info", "latest"],
        &["snapshot", "delete", "latest"],
        &["restore", "latest", "out"],
        &["prune", "--keep-last", "1"],
        &["compact"],
        &["check"],
        &["check", "--repair", "--yes"],
        &["info"],
        &["delete", "--confirm", world.repo.to_str().unwrap()],
        &["break-lock", "--yes"],
        &["mount", at],
        &["mount", at, "--background"],
        &["key", "export"],
        &["key", "import", "paper"],
        &["key", "change-passphrase", "--new-passcommand", "echo x"],
    ] {
        let run = world.with_passphrase(Some("wrong"), args).exits(exit::PASSPHRASE);
        let first = run.stderr.lines().next().unwrap_or_default().to_owned();
        let sentence = first.starts_with("vykar: wrong passphrase for ") && !first.contains(". ");
        assert!(sentence, "{run}");
        run.one_message();
        let run = world.with_passphrase(None, args).exits(exit::PASSPHRASE);
        run.says("vykar: no passphrase: none is set, and there is no terminal to ask on").one_message();
    }
    assert!(!world.path("out").exists());
    world.run(["check", "--verify-data"]).ok();
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
