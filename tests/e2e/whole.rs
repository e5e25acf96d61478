//! `vykar info` and `vykar delete`: a repository as a whole.

use std::fs;
use std::process::Stdio;

use vykar_core::platform::ProcessIdentity;
use vykar_core::repository::now_rfc3339;

use super::harness::terminal::dialogue;
use super::harness::{FIXTURES, World, eventually, exit, fingerprint, fixture};
use super::tree::noise;

/// Two snapshots of a folder, the second of which adds a file.
fn two(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    let source = world.folder("source");
    fs::write(source.join("one"), noise(300_000, 1)).unwrap();
    world.backup(["source"]).ok();
    fs::write(source.join("two"), noise(200_000, 2)).unwrap();
    world.backup(["source", "--label", "other"]).ok();
    world
}

/// The path as the program shows it.
fn place(world: &World) -> String {
    fs::canonicalize(&world.repo).unwrap().into_os_string().into_string().unwrap()
}

fn files_below(world: &World) -> Vec<u64> {
    let all = fingerprint(&world.repo).into_values();
    all.filter(|(_, kind)| kind != "directory").map(|(size, _)| size).collect()
}

#[test]
fn a_repository_is_deleted_only_by_who_gives_its_path() {
    let world = two("aes256gcm");
    let path = place(&world);
    let before = fingerprint(&world.repo);
    let caches = |world: &World| fs::read_dir(&world.cache).unwrap().count();
    assert_eq!(caches(&world), 2, "its own, and what it is remembered by");
    world.run(["delete"]).exits(exit::USAGE).one_message().says("--confirm");
    world.run(["delete", "--json"]).exits(exit::USAGE).one_message().says(&path);
    for wrong in ["", "yes", "repo", &format!("{path}/"), &format!("{path}x")] {
        world.run(["delete", "--confirm", wrong]).exits(exit::USAGE).one_message().says(&path);
    }
    let plan = world.run(["delete", "--dry-run"]).ok().out();
    for word in [&*path, "Snapshots    2\n", "source", "other"] {
        assert!(plan.contains(word), "{word:?} in {plan}");
    }
    let json = world.run(["delete", "--dry-run", "--json"]).ok().json();
    assert_eq!((&json["snapshots"], &json["dry_run"]), (&2.into(), &true.into()));
    assert_eq!(json["bytes"], files_below(&world).iter().sum::<u64>());
    let no = dialogue(&world, &["delete"], &[("for good: ", "yes")]);
    assert!(no.code == exit::FAILURE && no.last.contains("nothing was deleted"), "{}", no.last);
    assert_eq!(fingerprint(&world.repo), before);

    let yes = dialogue(&world, &["delete"], &[("for good: ", &path)]);
    assert!(yes.code == 0 && yes.last.contains("2 snapshots"), "{}", yes.last);
    assert!(!world.repo.exists());
    assert_eq!(caches(&world), 1);
    world.run(["delete", "--confirm", &path]).exits(exit::NO_REPOSITORY).one_message();
    // The place is free for another one.
    world.run(["init", "--encryption", "none"]).ok();
    world.backup(["source"]).ok();
    world.oracle_verify();
}

#[test]
fn what_is_not_the_repositorys_stays_and_is_named() {
    let world = two("none");
    let path = place(&world);
    fs::create_dir_all(world.repo.join("photos")).unwrap();
    for name in ["photos/a", "notes\u{1b}[31m", "snapshots/readme"] {
        fs::write(world.repo.join(name), b"mine").unwrap();
    }
    let named = ["notes\\u{1b}[31m, photos/, snapshots/readme"];
    let plan = world.run(["delete", "--dry-run"]).ok().out();
    assert!(plan.contains(named[0]) && !plan.contains('\u{1b}'), "{plan}");
    let report = world.run(["delete", "--confirm", &path]).ok().out();
    assert!(report.contains("Left there: ") && report.contains(named[0]), "{report}");
    let left: Vec<_> = fingerprint(&world.repo).into_keys().map(|name| name.display().to_string()).collect();
    assert_eq!(left, ["notes\u{1b}[31m", "photos", "photos/a", "snapshots", "snapshots/readme"]);
    world.run(["list"]).exits(exit::NO_REPOSITORY);
}

#[test]
fn a_running_backup_keeps_its_repository() {
    let world = two("none");
    let now = now_rfc3339();
    let marker =
        serde_json::json!({"hostname": "far-away", "pid": 7, "registered_at": now, "last_refresh": now});
    fs::create_dir_all(world.repo.join("sessions")).unwrap();
    let session = world.repo.join(format!("sessions/{}.json", "ab".repeat(16)));
    fs::write(&session, marker.to_string()).unwrap();
    let info = world.run(["info"]).ok().out();
    let line = info.lines().find(|line| line.starts_with("Backup")).unwrap();
    assert!(line.contains("far-away (process 7") && line.contains("cannot be told"), "{line}");
    let before = fingerprint(&world.repo);
    let path = place(&world);
    world.run(["delete", "--confirm", &path]).exits(exit::LOCKED).one_message().says("far-away");
    assert!(fingerprint(&world.repo) == before);
    fs::remove_file(session).unwrap();
    world.run(["delete", "--confirm", &path, "--json"]).ok();
    assert!(!world.repo.exists());
}

#[test]
fn a_backup_that_waited_for_a_deletion_stores_nothing() {
    let world = two("none");
    let me = ProcessIdentity::current();
    let marker = serde_json::json!({
        "hostname": me.host, "pid": std::process::id(), "time": now_rfc3339(), "boot_id": me.boot_id,
    });
    let locks = world.folder("repo/locks");
    let lock = locks.join(format!("{:020}-{}.json", 1, "ab".repeat(16)));
    fs::write(&lock, marker.to_string()).unwrap();
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(["backup", "source"]);
    let mut backup = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sessions = world.repo.join("sessions");
    eventually("it waits", || {
        fs::read_dir(&sessions).is_ok_and(|mut all| {
            all.any(|e| e.unwrap().path().extension().is_some_and(|extension| extension == "json"))
        })
    });
    // What a deletion leaves to those who wait for it.
    let before = fingerprint(&world.repo.join("packs"));
    for name in ["config", "index"] {
        fs::remove_file(world.repo.join(name)).unwrap();
    }
    fs::remove_dir_all(world.repo.join("snapshots")).unwrap();
    fs::remove_file(lock).unwrap();
    assert_eq!(backup.wait().unwrap().code(), Some(exit::NO_REPOSITORY));
    assert!(fingerprint(&world.repo.join("packs")) == before);
    let files: Vec<_> = fingerprint(&world.repo)
        .into_iter()
        .filter(|(path, (_, kind))| kind != "directory" && !path.starts_with("packs"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(files, [std::path::PathBuf::from("index.gen")]);
}

#[test]
fn a_deletion_that_was_cut_off_before_its_end_needs_no_passphrase_to_be_ended() {
    let mut world = two("chacha20poly1305");
    let path = place(&world);
    for folder in ["packs", "snapshots", "keys"] {
        fs::remove_dir_all(world.repo.join(folder)).unwrap();
    }
    for name in ["index", "index.gen"] {
        fs::remove_file(world.repo.join(name)).unwrap();
    }
    world.passphrase = "another".into();
    world.run(["list"]).exits(exit::DAMAGED);
    world.run(["delete", "--confirm", &path]).ok();
    assert!(!world.repo.exists());
}

#[test]
fn info_says_what_is_there_and_changes_nothing() {
    let world = two("aes256gcm");
    // The index is copied to the local cache by now.
    world.run(["check"]).ok();
    let before = fingerprint(&world.repo);
    let json = world.run(["info", "--json"]).ok().json();
    assert_eq!(json["url"], place(&world));
    assert_eq!((&json["version"], &json["encryption"]), (&2.into(), &"Aes256Gcm".into()));
    assert_eq!(json["key"]["algorithm"], "argon2id");
    let snapshots = &json["snapshots"];
    assert_eq!((&snapshots["readable"], &snapshots["files"]), (&2.into(), &3.into()));
    assert_eq!(snapshots["size"], 300_000 * 2 + 200_000);
    assert_eq!(snapshots["labels"], serde_json::json!({"source": 1, "other": 1}));
    let listed = world.snapshots();
    assert_eq!((&snapshots["oldest"], &snapshots["newest"]), (&listed[0]["time"], &listed[1]["time"]));
    let stored = &json["stored"];
    let sizes = files_below(&world);
    assert_eq!(
        (&stored["bytes"], &stored["objects"]),
        (&sizes.iter().sum::<u64>().into(), &sizes.len().into())
    );
    assert_eq!(stored["unreferenced"], 0);
    // 800 000 bytes in two snapshots, of which 500 000 are stored.
    let ratio = json["deduplication_ratio"].as_f64().unwrap();
    assert!((1.5..1.61).contains(&ratio), "{json}");
    assert_eq!(
        fs::canonicalize(json["cache"]["path"].as_str().unwrap()).unwrap().parent().unwrap(),
        fs::canonicalize(&world.cache).unwrap()
    );
    let text = world.run(["info"]).ok().out();
    for line in
        ["Snapshots         2\n", "protected by a passphrase (argon2id, 3 passes over 64.0 MiB, 4 lanes)"]
    {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(fingerprint(&world.repo) == before);

    world.run(["snapshot", "delete", "latest"]).ok();
    let text = world.run(["info"]).ok().out();
    assert!(text.contains("vykar compact"), "{text}");
    let unreferenced =
        || world.run(["info", "--json"]).ok().json()["stored"]["unreferenced"].as_u64().unwrap();
    assert!(unreferenced() > 200_000);
    world.run(["compact", "--threshold", "0"]).ok();
    assert_eq!(unreferenced(), 0);
    world.oracle_verify();
    // One that is damaged is counted.
    let id = world.snapshots()[0]["id"].as_str().unwrap().to_owned();
    fs::write(world.repo.join("snapshots").join(id), b"no snapshot").unwrap();
    let run = world.run(["info", "--json"]).exits(exit::DAMAGED).one_message();
    assert_eq!(run.json()["snapshots"]["damaged"], 1);
}

#[test]
fn repositories_of_other_programs_are_described_and_deleted() {
    for name in FIXTURES {
        let world = World::with_copy_of(&fixture(name).join("repo"), "correct horse");
        let json = world.run(["info", "--json"]).ok().json();
        assert_eq!(json["snapshots"]["readable"], world.snapshots().len());
        assert_eq!(json["stored"]["bytes"], files_below(&world).iter().sum::<u64>(), "{name}");
        world.run(["delete", "--confirm", &place(&world)]).ok();
        assert!(!world.repo.exists(), "{name}: {:?}", fingerprint(&world.repo));
    }
}

#[test]
fn a_deletion_does_not_follow_links_out_of_the_repository_unasked() {
    let world = two("none");
    let path = place(&world);
    for folder in ["packs", "snapshots"] {
        let (inside, outside) = (world.repo.join(folder), world.path(&format!("{folder} elsewhere")));
        fs::rename(&inside, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &inside).unwrap();
        let before = fingerprint(&world.repo);
        for args in [&["--confirm", &path][..], &["--dry-run"]] {
            let run = world.run(["delete"].iter().chain(args)).exits(exit::FAILURE);
            assert!(run.stderr.contains("leads out") && run.stderr.contains("--trust-repo"), "{run}");
        }
        assert!(fingerprint(&world.repo) == before);
        if folder == "packs" {
            fs::remove_file(&inside).unwrap();
            fs::rename(&outside, &inside).unwrap();
        }
    }
    world.run(["delete", "--confirm", &path, "--trust-repo"]).ok();
    assert_eq!(fs::read_dir(world.path("snapshots elsewhere")).unwrap().count(), 0);
}
