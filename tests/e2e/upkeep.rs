//! Deleting snapshots, one by one and by rules.

use std::fs;

use super::harness::{FIXTURES, Run, World, exit, fingerprint, fixture};
use super::tree::noise;

/// Five snapshots of a folder of which a part changes, the last one with another label.
fn five() -> World {
    five_with("none")
}

fn five_with(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    let source = world.folder("source");
    fs::write(source.join("stays"), noise(300_000, 99)).unwrap();
    for n in 0..5u64 {
        fs::write(source.join("changes"), noise(200_000, n)).unwrap();
        let label = if n < 4 { "common" } else { "other" };
        world.backup(["source", "--label", label]).ok();
    }
    world
}

fn names(world: &World) -> Vec<String> {
    world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

fn assert_whole(world: &World) {
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
    for name in names(world) {
        world.run(["restore", &name, &format!("out-{name}")]).ok();
        assert!(fs::read(world.path(&format!("out-{name}/stays"))).unwrap() == noise(300_000, 99));
        fs::remove_dir_all(world.path(&format!("out-{name}"))).unwrap();
    }
}

/// Runs with `--dry-run`, which must change nothing.
fn dry(world: &World, args: &[&str]) -> Run {
    let before = fingerprint(&world.repo);
    let run = world.run(args.iter().copied().chain(["--dry-run"])).ok();
    assert_eq!(fingerprint(&world.repo), before, "a dry run changed something");
    run
}

#[test]
fn snapshots_are_deleted_by_name_and_the_others_stay_whole() {
    let world = five();
    let all = names(&world);
    world.run(["snapshot", "delete", "nonesuch"]).exits(exit::FAILURE).one_message().says("nonesuch");
    assert_eq!(names(&world), all);
    let planned = dry(&world, &["snapshot", "delete", &all[1], "latest"]).out();
    assert!(planned.contains(&format!("Would delete {}", all[1])) && planned.contains(&all[4]), "{planned}");
    let done = world.run(["snapshot", "delete", &all[1], "latest"]).ok().out();
    assert_eq!(planned.replace("Would delete", "Deleted").replace("would be", "is"), done);
    assert_eq!(names(&world), [&all[0][..], &all[2], &all[3]]);
    assert_whole(&world);
    let json = world.run(["snapshot", "delete", &all[0], "--json"]).ok().json();
    assert_eq!(json["deleted"][0]["name"], all[0]);
    assert!(json["bytes_freed"].as_u64().unwrap() > 200_000, "{json}");
    // A damaged one goes by its id.
    let id = world.snapshots()[0]["id"].as_str().unwrap().to_owned();
    fs::write(world.repo.join("snapshots").join(&id), b"no snapshot").unwrap();
    world.run(["prune", "--keep-last", "1"]).exits(exit::DAMAGED).says(&id[..8]);
    world.run(["snapshot", "delete", &id[..8]]).ok();
    assert_eq!(names(&world), [&all[3][..]]);
    world.run(["check", "--verify-data"]).ok();
    // Everything that is left behind is too much, nothing is missing.
    world.oracle_verify_but_for_high_counts();
}

#[test]
fn prune_keeps_what_its_rules_say_and_says_why() {
    let world = five();
    let all = names(&world);
    world.run(["prune"]).exits(exit::USAGE).one_message().says("--keep-daily");
    world.run(["prune", "--keep-last", "x"]).exits(exit::USAGE);
    let planned = dry(&world, &["prune", "--keep-last", "2", "--list"]).out();
    for (name, verdict) in [(&all[0], "delete"), (&all[2], "keep    last"), (&all[4], "keep    last")] {
        let line = planned.lines().find(|line| line.starts_with(&**name)).unwrap();
        assert!(line.contains(verdict), "{planned}");
    }
    let json = world.run(["prune", "--keep-last", "2", "--json"]).ok().json();
    assert_eq!(json["deleted"].as_array().unwrap().len(), 2);
    assert_eq!(json["kept"].as_array().unwrap().len(), 3);
    assert_eq!(json["kept"][0]["rules"], serde_json::json!(["last"]));
    assert_eq!(names(&world), all[2..]);
    let again = world.run(["prune", "--keep-last", "2"]).ok().out();
    assert_eq!(again, "Nothing to delete\n3 snapshots stay\n");
    world.run(["prune", "--keep-daily", "1", "--group-by", "none"]).ok();
    assert_eq!(names(&world), all[4..]);
    assert_whole(&world);
}

#[test]
fn maintenance_does_not_run_beside_a_backup() {
    let world = five();
    let now = vykar_core::repository::now_rfc3339();
    let marker =
        serde_json::json!({"hostname": "far-away", "pid": 7, "registered_at": now, "last_refresh": now});
    fs::create_dir_all(world.repo.join("sessions")).unwrap();
    let path = world.repo.join(format!("sessions/{}.json", "ab".repeat(16)));
    fs::write(&path, marker.to_string()).unwrap();
    let before = fingerprint(&world.repo);
    for command in [&["prune", "--keep-last", "1"][..], &["snapshot", "delete", "latest"]] {
        let run = world.run(command).exits(exit::LOCKED).one_message();
        assert!(run.stderr.contains("far-away") && run.stderr.contains("break-lock"), "{run}");
    }
    assert!(fingerprint(&world.repo) == before);
    fs::remove_file(path).unwrap();
    world.run(["prune", "--keep-last", "1"]).ok();
}

#[test]
fn what_is_open_in_a_mount_is_read_to_its_end() {
    needs!(mounts);
    let world = five();
    let all = names(&world);
    let mount = world.mount();
    let file = mount.path(format!("ids/{}/changes", all[0]));
    let open = fs::File::open(&file).unwrap();
    world.run(["snapshot", "delete", &all[0]]).ok();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut content).unwrap();
    assert!(content == noise(200_000, 0));
    assert!(fs::read(mount.path(format!("ids/{}/changes", all[1]))).unwrap() == noise(200_000, 1));
    drop(open);
    mount.unmount(&world);
}

#[test]
fn repositories_of_other_programs_are_pruned() {
    for name in FIXTURES {
        let world = World::with_copy_of(&fixture(name).join("repo"), "correct horse");
        let all = names(&world);
        world.run(["snapshot", "delete", &all[0]]).ok();
        assert_eq!(names(&world), all[1..]);
        world.run(["check", "--verify-data"]).ok();
        world.oracle_verify();
        world.run(["prune", "--keep-last", "1", "--group-by", "none"]).ok();
        assert_eq!(names(&world).len(), 1.min(all.len() - 1));
        world.oracle_verify();
    }
}

fn pack_bytes(world: &World) -> u64 {
    let packs = fingerprint(&world.repo.join("packs")).into_values();
    packs.filter(|(_, kind)| kind != "directory").map(|(size, _)| size).sum()
}

#[test]
fn compact_gives_back_what_deleted_snapshots_held() {
    let world = five();
    world.run(["prune", "--keep-last", "1", "--group-by", "none"]).ok();
    let leftover = world.repo.join(format!("packs/.tmp-{}", "0f".repeat(16)));
    fs::write(&leftover, b"half").unwrap();
    // A younger one may be a running backup's that was taken for dead.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    fs::File::options().append(true).open(&leftover).unwrap().set_modified(old).unwrap();
    // In a folder of somebody else it is not the repository's.
    let theirs = world.repo.join(format!("notes/.tmp-{}", "0f".repeat(16)));
    fs::create_dir(world.repo.join("notes")).unwrap();
    fs::write(&theirs, b"theirs").unwrap();
    world.run(["check"]).ok();
    let before = pack_bytes(&world);
    let plan = dry(&world, &["compact", "--json"]).json();
    let text = dry(&world, &["compact"]).out();
    assert!(
        text.contains("1 unfinished writes would be removed") && text.contains("would be freed"),
        "{text}"
    );
    let report = world.run(["compact", "--json"]).ok().json();
    assert_eq!(report["plan"], plan["plan"]);
    let freed = report["bytes_freed"].as_u64().unwrap();
    // Both files are in one pack of the first snapshot, of which the larger lives on.
    assert_eq!(before - freed - 4, pack_bytes(&world), "{report}");
    assert!(freed > 800_000 && pack_bytes(&world) < 510_000, "{report}");
    assert!(!leftover.exists() && theirs.exists());
    fs::remove_dir_all(world.repo.join("notes")).unwrap();
    assert_eq!(world.run(["compact"]).ok().out(), "Nothing to compact\n");
    assert_eq!(world.run(["check", "--verify-data"]).ok().out().lines().count(), 1);
    assert_whole(&world);
}

#[test]
fn a_mount_goes_on_while_the_repository_is_compacted() {
    needs!(mounts);
    let world = five();
    let kept = names(&world)[4].clone();
    let mount = world.mount();
    let folder = mount.path(format!("ids/{kept}"));
    // The snapshot is known, its contents are not read yet.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    world.run(["prune", "--keep-last", "1", "--group-by", "none"]).ok();
    let report = world.run(["compact", "--threshold", "0", "--json"]).ok().json();
    assert!(report["packs_written"].as_u64().unwrap() > 0, "{report}");
    assert!(fs::read(folder.join("stays")).unwrap() == noise(300_000, 99));
    assert!(fs::read(folder.join("changes")).unwrap() == noise(200_000, 4));
    mount.unmount(&world);
}

#[test]
fn a_damaged_pack_is_left_and_named_by_compact() {
    let world = five();
    world.run(["prune", "--keep-last", "1", "--group-by", "none"]).ok();
    let plan = world.run(["compact", "--dry-run", "--json"]).ok().json();
    let pack = plan["plan"]["repack"][0]["pack"].as_str().unwrap().to_owned();
    let path = world.repo.join(format!("packs/{}/{pack}", &pack[..2]));
    let mut data = fs::read(&path).unwrap();
    let last = data.len() - 1;
    data[last] ^= 1;
    fs::write(&path, &data).unwrap();
    world.run(["compact"]).exits(exit::DAMAGED).says(&pack);
    assert!(fs::read(&path).unwrap() == data);
    // A pack that is needed and gone stops it.
    fs::remove_file(&path).unwrap();
    let before = fingerprint(&world.repo);
    world.run(["compact"]).exits(exit::DAMAGED).one_message().says("check --verify-data");
    assert!(fingerprint(&world.repo) == before);
}

#[test]
fn nothing_is_taken_away_while_snapshots_are_out_of_reach() {
    let world = five();
    world.run(["snapshot", "delete", &names(&world)[0]]).ok();
    let (place, away) = (world.repo.join("snapshots"), world.path("other disk"));
    let refused = |args: &[&str], says: &str| {
        let state = || (fingerprint(&world.repo.join("packs")), fs::read(world.repo.join("index")).unwrap());
        let before = state();
        for command in [&["compact"][..], &["compact", "--dry-run"], &["prune", "--keep-last", "1"]] {
            world.run(command.iter().chain(args)).exits(exit::DAMAGED).says(says);
        }
        assert!(state() == before);
    };
    fs::rename(&place, &away).unwrap();
    refused(&[], "--trust-repo");
    // Where it is to be mounted.
    fs::create_dir(&place).unwrap();
    refused(&[], "--trust-repo");
    fs::remove_dir(&place).unwrap();
    // A link is no accident, whatever somebody trusts.
    std::os::unix::fs::symlink(world.path("unmounted"), &place).unwrap();
    refused(&["--trust-repo"], "snapshots is not a file");
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(&away, &place).unwrap();
    let one = fs::read_dir(&away).unwrap().next().unwrap().unwrap().path();
    fs::rename(&one, world.path("one")).unwrap();
    std::os::unix::fs::symlink(world.path("one"), &one).unwrap();
    refused(&["--trust-repo"], "is not a file");
    fs::rename(world.path("one"), &one).unwrap();
    world.run(["compact"]).ok();
    assert_whole(&world);
}

#[test]
fn packs_that_may_be_somebody_elses_are_not_removed_behind_a_link() {
    for encryption in ["none", "aes256gcm"] {
        let world = five_with(encryption);
        let (place, away) = (world.repo.join("packs"), world.path("other disk"));
        fs::rename(&place, &away).unwrap();
        std::os::unix::fs::symlink(&away, &place).unwrap();
        // What the index names is moved and removed there as anywhere.
        world.run(["compact", "--threshold", "0"]).ok();
        world.run(["snapshot", "delete", &names(&world)[0]]).ok();
        let refused = || {
            let before = fingerprint(&away);
            for dry_run in [&[][..], &["--dry-run"]] {
                let run = world.run(["compact"].iter().chain(dry_run)).exits(exit::FAILURE).one_message();
                assert!(
                    run.stderr.contains("packs is a link") && run.stderr.contains("--trust-repo"),
                    "{run}"
                );
            }
            assert!(fingerprint(&away) == before);
        };
        // It does not name what that one alone had; the key tells whose that is.
        match encryption {
            "none" => refused(),
            _ => drop(world.run(["compact"]).ok()),
        }
        let theirs = away.join("ab").join("ab".repeat(32));
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, noise(100_000, 77)).unwrap();
        refused();
        world.run(["compact", "--trust-repo"]).ok();
        assert!(!theirs.exists());
        assert_whole(&world);
    }
}
