//! What was read from anywhere reaches a terminal as text, never as a command.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::harness::World;

/// Commands to a terminal: its title, a line over another, the bell, C1, and text that is shown in another order.
const EVIL: &str = "a\x1b]0;owned\x07\rb\u{9b}31m\u{7f}\u{202e}c\u{2066}\nvykar: d";

/// Demands that nothing of it is in an output.
#[track_caller]
fn harmless(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bad = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.chars().any(bad), "{what}: {text:?}");
    assert!(!text.contains("\nvykar: d"), "{what}: a line of its own: {text:?}");
    assert!(std::str::from_utf8(bytes).is_ok(), "{what}: {text:?}");
}

/// A document that is read as YAML, too, which has no place for control characters.
fn ascii(value: &serde_json::Value) -> String {
    let escaped =
        |c: char| if (' '..='~').contains(&c) { c.to_string() } else { format!("\\u{:04x}", c as u32) };
    value.to_string().chars().map(escaped).collect()
}

/// A repository with it in every field that somebody can choose: paths, targets, labels, comments, host names, attributes.
fn world() -> World {
    let world = World::with_repository("none");
    let source = world.folder("source");
    let name = PathBuf::from(std::ffi::OsString::from_vec([EVIL.as_bytes(), b"\xff"].concat()));
    fs::create_dir(source.join(&name)).unwrap();
    fs::write(source.join(&name).join("file"), b"x").unwrap();
    std::os::unix::fs::symlink(&name, source.join("link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let attribute = format!("user.{}", EVIL.replace('\n', ""));
    rustix::fs::lsetxattr(source.join(&name).join("file"), attribute.as_str(), b"1", flags).unwrap();
    let config = serde_json::json!({
        "repositories": [{ "url": world.repo, "label": "r" }],
        "hostname": EVIL,
        "sources": [{ "label": EVIL, "path": source }],
    });
    fs::write(world.path("c.yaml"), ascii(&config)).unwrap();
    world.run(["--config", "c.yaml", "backup", "--comment", EVIL]).ok();
    world.backup(["source"]).ok();
    world
}

/// Plants a session and a lock, for which nobody needs a key.
fn plant(world: &World) {
    let marker = serde_json::json!({
        "hostname": EVIL, "pid": 1, "time": EVIL, "registered_at": EVIL, "last_refresh": EVIL,
    });
    for (folder, name) in [
        ("sessions", "0123456789abcdef0123456789abcdef.json"),
        ("locks", "00001764547200000000-0123456789abcdef0123456789abcdef.json"),
    ] {
        fs::create_dir_all(world.repo.join(folder)).unwrap();
        fs::write(world.repo.join(folder).join(name), marker.to_string()).unwrap();
    }
}

#[test]
fn no_command_prints_what_a_terminal_would_obey() {
    let world = world();
    let snapshots = world.snapshots();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    let first = snapshots[0]["id"].as_str().unwrap().to_owned();
    let all: Vec<Vec<&str>> = vec![
        vec!["list"],
        vec!["info"],
        vec!["snapshot", "info", &first],
        vec!["snapshot", "list", &first],
        vec!["snapshot", "list", &first, "--long"],
        vec!["snapshot", "find", "--name", "*"],
        vec!["snapshot", "diff", &first, "latest"],
        vec!["snapshot", "find", EVIL],
        vec!["cat", "latest"],
        vec!["cat", EVIL],
        vec!["restore", "latest", "out", "--dry-run"],
        vec!["restore", "latest", "out", "--verify"],
        vec!["restore", "latest", "/proc/nowhere"],
        vec!["check"],
        vec!["rewrite", &first, "--exclude", "file", "--dry-run"],
        vec!["prune", "--keep-last", "1", "--dry-run", "--list"],
        vec!["backup", "-vv", "source", "--exclude", "file", "--label", EVIL],
        vec!["backup", "--dry-run", "source"],
        vec!["--config", "c.yaml", "config", "check"],
        vec!["--config", "c.yaml", "-vv", "backup"],
    ];
    for args in &all {
        let run = world.run(args);
        harmless(&format!("{args:?}: stdout"), &run.stdout);
        harmless(&format!("{args:?}: stderr"), run.stderr.as_bytes());
    }
    plant(&world);
    for args in [
        vec!["info"],
        vec!["break-lock", "--sessions", "--dry-run"],
        vec!["compact"],
        vec!["prune", "--keep-last", "1"],
        vec!["snapshot", "delete", "latest"],
        vec!["delete", "--dry-run"],
        vec!["check", "--repair", "--dry-run"],
    ] {
        let run = world.run(["--lock-wait", "0"].iter().chain(&args));
        harmless(&format!("{args:?}: stdout"), &run.stdout);
        harmless(&format!("{args:?}: stderr"), run.stderr.as_bytes());
    }
}

#[test]
fn damaged_objects_are_named_without_commands() {
    let world = world();
    for entry in fs::read_dir(world.repo.join("packs")).unwrap() {
        for pack in fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    for args in [
        &["check", "--verify-data"][..],
        &["restore", "latest", "out"],
        &["snapshot", "list", "latest"],
        &["check", "--repair", "--dry-run"],
        &["compact"],
        &["rewrite", "latest", "--exclude", "file"],
    ] {
        let run = world.run(args);
        harmless(&format!("{args:?}: stdout"), &run.stdout);
        harmless(&format!("{args:?}: stderr"), run.stderr.as_bytes());
    }
}

#[test]
fn a_lock_of_somebody_else_runs_nothing_in_a_hook() {
    let world = World::with_repository("none");
    fs::write(world.path("file"), b"x").unwrap();
    world.backup(["file"]).ok();
    let hook = format!("printf '%s' {{error}} > {}", world.path("said").display());
    let config = serde_json::json!({
        "repositories": [{ "url": world.repo, "label": "r" }],
        "hooks": { "failed": hook },
    });
    fs::write(world.path("c.yaml"), ascii(&config)).unwrap();
    let marker = world.repo.join("sessions/0123456789abcdef0123456789abcdef.json");
    fs::create_dir_all(marker.parent().unwrap()).unwrap();
    let now = world.snapshots()[0]["time"].clone();
    let host = "x'\"; touch owned; $(touch owned)`touch owned`\x1b]0;t\x07";
    let content =
        serde_json::json!({ "hostname": host, "pid": 1, "registered_at": now, "last_refresh": now });
    fs::write(marker, content.to_string()).unwrap();
    world.run(["--config", "c.yaml", "--lock-wait", "0", "compact"]).exits(super::harness::exit::LOCKED);
    let said = fs::read_to_string(world.path("said")).unwrap();
    assert!(said.contains("touch owned") && !said.contains('\x1b'), "{said:?}");
    assert!(!world.path("owned").exists());
}

/// Runs something whose stderr nobody reads any more.
fn without_reader(world: &World, args: &[&str]) -> i32 {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
    status.code().unwrap_or(-1)
}

#[test]
fn a_message_that_nobody_reads_stops_nothing() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    for number in 0..50 {
        fs::write(source.join(format!("file-{number}")), format!("{number}")).unwrap();
    }
    assert_eq!(without_reader(&world, &["backup", "-vv", "source", "--exclude", "file-1"]), 0);
    assert_eq!(world.snapshots().len(), 1);
    // One that is missing is a message, too.
    fs::write(world.path("list"), "source\nnowhere\n").unwrap();
    assert_eq!(without_reader(&world, &["backup", "--files-from", "list"]), 3);
    assert_eq!(without_reader(&world, &["rewrite", "-vv", "latest", "--exclude", "file-*", "--forget"]), 0);
    assert_eq!(without_reader(&world, &["backup", "--json", "source"]), 0);
    assert_eq!(without_reader(&world, &["prune", "--keep-last", "1"]), 0);
    assert_eq!(without_reader(&world, &["check"]), 0);
    assert_eq!(without_reader(&world, &["list", "--since", "nonsense"]), 2);
    assert_eq!(without_reader(&world, &["restore", "nowhere", "out"]), 1);
    world.run(["check", "--verify-data"]).ok();
}

#[test]
fn a_hook_that_prints_to_nobody_does_not_stop_a_backup() {
    let world = World::with_repository("none");
    fs::write(world.path("file"), b"x").unwrap();
    let config = serde_json::json!({
        "repositories": [{ "url": world.repo, "label": "r" }],
        "sources": [world.path("file")],
        "hooks": { "before": "echo begins; echo begins >&2" },
    });
    fs::write(world.path("c.yaml"), ascii(&config)).unwrap();
    assert_eq!(without_reader(&world, &["--config", "c.yaml", "backup"]), 0);
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn tables_take_snapshots_of_any_number_of_paths() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    let mut list = String::new();
    for number in 0..1000 {
        let name = format!("a-folder-whose-name-is-long-so-that-a-thousand-of-them-fill-a-cell-{number}");
        fs::create_dir(source.join(&name)).unwrap();
        list.push_str(&format!("{}\n", source.join(name).display()));
    }
    fs::write(world.path("list"), list).unwrap();
    world.backup(["--files-from", "list", "--label", "many"]).ok();
    let table = world.run(["list"]).ok().out();
    assert!(table.lines().any(|line| line.len() > 65_535), "{}", table.len());
    world.run(["prune", "--keep-last", "1", "--list"]).ok();
    world.run(["info"]).ok();
    world.run(["snapshot", "info", "latest"]).ok();
}

/// A library that sets the clock of what it is loaded into.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    int r = syscall(SYS_clock_gettime, id, t);
    if (r == 0 && id == CLOCK_REALTIME) t->tv_sec = SECONDS;
    return r;
}
"#;

#[test]
fn a_clock_beyond_the_last_year_stops_nothing() {
    let world = World::with_repository("none");
    fs::write(world.path("file"), b"x").unwrap();
    // The last hours of what a time can be, and after it.
    for (number, seconds) in [253_402_207_100_i64, 253_402_300_800, 400_000_000_000].into_iter().enumerate() {
        let (source, library) = (world.path("clock.c"), world.path(&format!("clock-{number}.so")));
        fs::write(&source, CLOCK.replace("SECONDS", &format!("{seconds}LL"))).unwrap();
        let cc =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
        assert!(cc.success());
        let run = |args: &[&str]| {
            let mut command = world.command();
            command.env("LD_PRELOAD", &library).arg("-R").arg(&world.repo).args(args);
            world.finish(command).ok()
        };
        run(&["backup", "file"]);
        let list = run(&["list"]).out();
        assert!(list.contains("9998-12-3"), "{list}");
        run(&["list", "--since", "1d"]);
        run(&["prune", "--keep-within", "2d", "--dry-run"]);
        run(&["break-lock", "--sessions", "--dry-run"]);
        run(&["check"]);
        run(&["info"]);
        run(&["restore", "latest", &format!("out-{number}")]);
    }
}
