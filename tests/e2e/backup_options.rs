//! What a backup is told to store, and what to leave out.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::harness::{Run, World, exit};

fn world() -> World {
    let world = World::with_repository("none");
    let source = world.folder("source");
    for name in ["a", "b.o", "keep/c.o", "cache/CACHEDIR.TAG", "cache/x", "skip/.nobackup", "skip/x"] {
        let path = source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    }
    fs::write(source.join("large"), vec![0; 2 << 20]).unwrap();
    world
}

/// Paths of the newest snapshot.
fn stored(world: &World) -> Vec<String> {
    let list = world.run(["snapshot", "list", "latest", "--json"]).ok();
    let item = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let mut paths: Vec<_> =
        list.out().lines().map(|line| item(line)["path"].as_str().unwrap().to_owned()).collect();
    paths.sort();
    paths
}

fn with_stdin(world: &World, args: &[&str], input: &[u8]) -> Run {
    let input_path = world.path("input");
    fs::write(&input_path, input).unwrap();
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args).stdin(Stdio::from(fs::File::open(input_path).unwrap()));
    world.finish(command)
}

#[test]
fn what_is_left_out_and_what_a_dry_run_says_of_it() {
    let world = world();
    fs::write(world.path("rules"), "# objects\n*.o\n!keep/*.o\n").unwrap();
    let options = [
        "backup",
        "source",
        "--exclude-file",
        "rules",
        "--exclude-if-present",
        ".nobackup",
        "--exclude-caches",
        "--exclude-larger-than",
        "1M",
        "--exclude",
        "nothing/",
    ];
    let dry = world.run(options.into_iter().chain(["--dry-run"])).ok().out();
    let source = world.path("source");
    for line in [
        "+ SOURCE/a".to_owned(),
        "x SOURCE/b.o  (the rule `*.o`)".to_owned(),
        "+ SOURCE/keep/c.o".to_owned(),
        "x SOURCE/cache  (it is marked as a cache (CACHEDIR.TAG))".to_owned(),
        "x SOURCE/skip  (it holds `.nobackup`)".to_owned(),
        "x SOURCE/large  (too large (2097152 bytes))".to_owned(),
        "d SOURCE/keep".to_owned(),
    ] {
        let line = line.replace("SOURCE", source.to_str().unwrap());
        assert!(dry.lines().any(|l| l == line), "{line}\n{dry}");
    }
    assert!(dry.contains("Would store 2 files") && dry.contains("nothing was stored"), "{dry}");
    assert!(world.snapshots().is_empty());
    let run = world.run(options).ok();
    assert!(run.out().contains("Left out: 4"), "{run}");
    assert_eq!(stored(&world), ["a", "keep", "keep/c.o"]);
    world.run(["backup", "source", "--exclude", "a[z-a]"]).exits(exit::USAGE).says("invalid range");
    world.run(["backup", "source", "--exclude-file", "none"]).exits(exit::USAGE).says("none");
    world.run(["backup"]).exits(exit::USAGE).says("nothing to back up");
}

#[test]
fn a_dry_run_for_programs_is_a_line_of_json_a_path() {
    let world = world();
    let run = world.run(["backup", "source", "--dry-run", "--json", "--exclude", "cache/"]).ok();
    let lines: Vec<serde_json::Value> =
        run.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| lines.iter().find(|l| l["path"].as_str().unwrap().ends_with(name)).unwrap();
    assert_eq!(
        (of("/large")["action"].as_str(), of("/large")["size"].as_u64()),
        (Some("new"), Some(2 << 20))
    );
    assert_eq!(of("/cache")["action"], "excluded");
    assert_eq!(of("/cache")["reason"], "the rule `cache/`");
}

#[test]
fn standard_input_becomes_a_file() {
    let world = World::with_repository("none");
    let input: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ n >> 7) as u8).collect();
    with_stdin(&world, &["backup", "--stdin", "--stdin-name", "mail/all.mbox"], &input).ok();
    let snapshot = &world.snapshots()[0];
    assert_eq!(snapshot["label"], "mail/all.mbox");
    world.run(["restore", "latest", "out"]).ok();
    assert!(fs::read(world.path("out/mail/all.mbox")).unwrap() == input);
    // It is deduplicated against a file of that content.
    fs::write(world.folder("source").join("same"), &input).unwrap();
    let json = world.run(["backup", "source", "--json"]).ok().json();
    assert_eq!(json["added"], 0);
    for name in ["/etc/passwd", "../x", ""] {
        let run = with_stdin(&world, &["backup", "--stdin", "--stdin-name", name], b"");
        run.exits(exit::USAGE).says("relative path");
    }
    with_stdin(&world, &["backup", "--stdin", "source"], b"").exits(exit::USAGE);
    world.oracle_verify();
}

#[test]
fn paths_come_from_a_list_and_those_that_are_gone_are_said() {
    let world = world();
    let source = world.path("source");
    let source = source.to_str().unwrap();
    fs::write(world.path("list"), format!("{source}/a\n\n{source}/gone\r\n{source}/keep\n")).unwrap();
    let run = world.run(["backup", "--files-from", "list"]).exits(exit::PARTIAL);
    let run = run.says("gone: not stored: No such file");
    assert!(run.out().contains("Snapshot"), "{run}");
    let base = &source[1..];
    let below: Vec<_> =
        stored(&world).into_iter().filter(|path| path.starts_with(&format!("{base}/"))).collect();
    assert_eq!(below, [format!("{base}/a"), format!("{base}/keep"), format!("{base}/keep/c.o")]);
    let list = format!("{source}/keep\n");
    with_stdin(&world, &["backup", "--files-from", "-"], list.as_bytes()).ok();
    assert_eq!(stored(&world), ["c.o"]);
    fs::write(world.path("list"), "").unwrap();
    world.run(["backup", "--files-from", "list"]).exits(exit::USAGE).says("no path to back up");
    world.run(["backup", "--files-from", "nowhere"]).exits(exit::USAGE).says("nowhere");
}

#[test]
fn what_is_mounted_below_is_left_out_but_for_its_directory() {
    needs!(root);
    let world = world();
    let at = world.folder("source/disk");
    let run = |program: &str, args: &[&str]| {
        assert!(std::process::Command::new(program).args(args).status().unwrap().success(), "{program}");
    };
    run("mount", &["-t", "tmpfs", "none", at.to_str().unwrap()]);
    fs::File::create(at.join("inside")).unwrap().write_all(b"x").unwrap();
    let backup = world.run(["backup", "source", "--one-file-system"]);
    let all = world.run(["backup", "source/disk", "-x"]);
    run("umount", &[at.to_str().unwrap()]);
    backup.ok();
    all.ok();
    assert_eq!(stored(&world), ["inside"], "a source that is itself a mount point is wanted");
    let first = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    let list = world.run(["snapshot", "list", &first]).ok().out();
    assert!(list.contains("disk") && !list.contains("inside"), "{list}");
}

#[test]
fn everything_is_read_again_with_force() {
    let world = world();
    world.backup(["source"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let unchanged = |args: &[&str]| {
        let json = world.backup(["source", "--json"].iter().chain(args)).ok().json();
        json["files"]["unchanged"].as_u64().unwrap()
    };
    unchanged(&[]);
    let all = unchanged(&[]);
    assert!(all > 0);
    // Read again, and found to be what it was.
    let json = world.backup(["source", "--json", "--force", "--comment", "by hand"]).ok().json();
    assert_eq!(json["added"], 0);
    assert_eq!(world.snapshots().last().unwrap()["comment"], "by hand");
}
