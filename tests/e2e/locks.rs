//! `vykar break-lock`: what programs left behind, and what it must not touch unasked.

use std::fs;
use std::path::PathBuf;

use vykar_core::platform::ProcessIdentity;
use vykar_core::repository::now_rfc3339;

use super::harness::terminal::dialogue;
use super::harness::{World, exit};

/// No process has this number: pid_max is at most 2^22.
const NOBODY: u32 = (1 << 22) + 1;

fn put(world: &World, key: &str, marker: serde_json::Value) -> PathBuf {
    let path = world.repo.join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, marker.to_string()).unwrap();
    path
}

pub fn put_lock(world: &World, number: u64, host: &str, pid: u32) -> PathBuf {
    let boot_id = ProcessIdentity::current().boot_id;
    let marker = serde_json::json!({"hostname": host, "pid": pid, "time": now_rfc3339(), "boot_id": boot_id});
    put(world, &format!("locks/{number:020}-{}.json", "ab".repeat(16)), marker)
}

fn put_session(world: &World, id: u8, host: &str, pid: u32) -> PathBuf {
    let now = now_rfc3339();
    let marker = serde_json::json!({"hostname": host, "pid": pid, "registered_at": now, "last_refresh": now});
    put(world, &format!("sessions/{}.json", format!("{id:02x}").repeat(16)), marker)
}

#[test]
fn locks_are_shown_with_their_holders_and_removed_when_that_is_confirmed() {
    let world = World::with_repository("none");
    let me = ProcessIdentity::current().host;
    let locks = [
        put_lock(&world, 1, &me, std::process::id()),
        put_lock(&world, 2, &me, NOBODY),
        put_lock(&world, 3, "elsewhere\u{1b}[31m", 4711),
        put(&world, &format!("locks/{:020}-{}.json", 4, "cd".repeat(16)), serde_json::json!("?")),
    ];
    let session = put_session(&world, 7, &me, NOBODY);
    let all_there = || locks.iter().all(|lock| lock.exists());

    let shown = world.run(["break-lock", "--dry-run"]).ok().out();
    for words in [
        &[me.as_str(), "running"][..],
        &[me.as_str(), "gone", "s ago"],
        &["elsewhere\\u{1b}", "4711", "cannot be told"],
        &["unreadable"],
    ] {
        let line = shown.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "{words:?} in\n{shown}");
    }
    assert!(!shown.contains("session") && all_there(), "{shown}");

    // Nobody to ask: nothing is done.
    world.run(["break-lock"]).exits(exit::USAGE).one_message().says("--yes");
    assert!(all_there());
    let no = dialogue(&world, &["break-lock"], &[("[y/N]", "")]);
    assert!(no.code == 0 && no.last.contains("Nothing removed") && all_there(), "{}", no.last);
    no.showed(&["Remove 4?", "3 of them may belong to a program that is running"]);
    let yes = dialogue(&world, &["break-lock"], &[("[y/N]", "yes")]);
    assert!(yes.code == 0 && yes.last.contains("Removed"), "{}", yes.last);
    assert!(locks.iter().all(|lock| !lock.exists()), "{}", yes.last);
    assert!(session.exists(), "sessions are left unless they are asked for");
    assert_eq!(world.run(["break-lock", "--yes"]).ok().out(), "No locks\n");
}

#[test]
fn sessions_are_removed_when_they_are_asked_for() {
    let world = World::with_repository("none");
    let me = ProcessIdentity::current().host;
    let sessions = [put_session(&world, 1, &me, std::process::id()), put_session(&world, 2, "elsewhere", 7)];
    let shown = world.run(["break-lock", "--sessions", "--json", "--yes"]).ok().json();
    assert_eq!(shown["removed"], true);
    let states: Vec<_> = shown["markers"].as_array().unwrap().iter().map(|m| m["state"].clone()).collect();
    assert_eq!(states, ["alive", "unknown"]);
    assert_eq!(shown["markers"][1]["hostname"], "elsewhere");
    assert!(sessions.iter().all(|session| !session.exists()));
    assert_eq!(world.run(["break-lock", "--sessions"]).ok().out(), "No locks and no sessions\n");
}
