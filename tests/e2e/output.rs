//! What commands say beside their results: for programs, for collectors, and for who wants to know more.

use std::fs;

use super::harness::{World, exit};
use super::tree::noise;

fn world() -> World {
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::write(source.join("a"), noise(2_500_000, 1)).unwrap();
    fs::write(source.join("b.o"), b"object").unwrap();
    world
}

/// The value of a series, if there is one.
fn series(world: &World, start: &str) -> Option<f64> {
    let text = fs::read_to_string(world.path("vykar.prom")).unwrap();
    let line = text.lines().find(|line| line.starts_with(start))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_metrics_file_has_what_happened_last() {
    let world = world();
    let metrics = ["--metrics-file", "vykar.prom"];
    world.run(["backup", "source", "--label", "mine", "-e", "*.o"].into_iter().chain(metrics)).ok();
    world.run(["check"].into_iter().chain(metrics)).ok();
    let repository = world.repo.to_str().unwrap();
    let of = |name: &str, command: &str| {
        series(&world, &format!("{name}{{repository=\"{repository}\",command=\"{command}\"}}"))
    };
    assert_eq!(of("vykar_last_exit_code", "backup"), Some(0.0));
    assert_eq!(of("vykar_last_exit_code", "check"), Some(0.0));
    let source =
        |name: &str| series(&world, &format!("{name}{{repository=\"{repository}\",source=\"mine\"}}"));
    assert_eq!(
        (source("vykar_backup_bytes"), source("vykar_backup_excluded")),
        (Some(2_500_000.0), Some(1.0))
    );
    let succeeded = of("vykar_last_success_timestamp_seconds", "backup").unwrap();
    assert!(succeeded > 1.7e9);
    // A failure keeps the time of the last success.
    world.run(["backup", "nowhere"].into_iter().chain(metrics)).exits(exit::FAILURE);
    assert_eq!(of("vykar_last_exit_code", "backup"), Some(1.0));
    assert_eq!(of("vykar_last_success_timestamp_seconds", "backup"), Some(succeeded));
    // What cannot be written is said, and fails nothing.
    let run = world.run(["check", "--metrics-file", "no/such/folder/x.prom"]).ok();
    run.says("--metrics-file no/such/folder/x.prom: No such file");
}

#[test]
fn more_is_said_when_asked_for() {
    let world = world();
    let run = world.backup(["source", "-e", "*.o", "-v"]).ok().says("b.o  (the rule `*.o`)");
    assert!(!run.stderr.contains("source/a"), "{run}");
    fs::write(world.path("source/new"), b"1").unwrap();
    let run = world.backup(["source", "-vv", "-e", "*.o"]).ok().says("+ ").says("source/new  1 B");
    assert!(run.stderr.contains("x "), "{run}");
    world.backup(["source", "-v", "--quiet"]).exits(exit::USAGE);
}

#[test]
fn progress_for_programs_is_an_object_a_line_on_stderr() {
    let world = world();
    world.backup(["source"]).ok();
    let args = ["restore", "latest", "out", "--json", "--download-limit", "1"];
    let run = world.run(args).ok();
    let lines: Vec<serde_json::Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "2.5 MB at 1 MiB a second take more than a second");
    assert!(lines.iter().all(|line| line["event"] == "progress" && line["bytes"].is_u64()), "{lines:?}");
    assert_eq!(run.json()["bytes"], 2_500_006);
    let quiet = world.run(args.into_iter().chain(["--quiet"])).ok();
    assert_eq!(quiet.stderr, "");
}
