//! The configuration file: the cycle, the daemon, what is chosen from it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::harness::{Run, World, exit, wait};

impl World {
    /// Runs the program without -R, so that the configuration in its folder holds.
    fn configured(&self, args: &[&str]) -> Run {
        let mut command = self.command();
        command.args(args);
        self.finish(command)
    }

    fn snapshots_of(&self, repository: &str) -> Vec<serde_json::Value> {
        let list = self.configured(&["-R", repository, "list", "--json"]).ok().json();
        list["snapshots"].as_array().unwrap().clone()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn labels(snapshots: &[serde_json::Value]) -> Vec<&str> {
    let mut labels: Vec<_> = snapshots.iter().map(|s| s["label"].as_str().unwrap()).collect();
    labels.sort_unstable();
    labels
}

/// Two repositories, four sources, hooks and dumps.
const CYCLE: &str = "\
repositories:
  - url: repos/one
    label: one
    hooks: {after_backup: 'echo one {repository} >> hooks.log'}
  - url: repos/two
    label: two
    encryption: {mode: none}
    retention: {keep_last: 1}
encryption: {passphrase: '${WORD:-sesame}'}
compression: {algorithm: lz4}
retention: {keep_last: 2}
exclude_patterns: ['*.o']
hooks:
  before: 'echo before {command} {label} >> hooks.log'
  finally_backup: ['echo end {error} >> hooks.log']
sources:
  - sources/plain
  - label: docs
    path: sources/docs
    exclude: [draft/]
    hooks: {before: 'echo source {source_label} {source_path} >> hooks.log'}
  - label: several
    paths: [sources/a, sources/b]
    repos: [two]
    retention: {keep_last: 3}
  - label: dumps
    repos: [one]
    command_dumps:
      - {name: db/all.sql, command: 'printf \"table %s;\" x'}
      - {name: numbers, command: 'seq 1 100000'}
";

fn cycle_world() -> World {
    let world = World::new();
    world.write("vykar.yaml", CYCLE);
    for (name, text) in [
        ("sources/plain/file", "plain"),
        ("sources/plain/object.o", "object"),
        ("sources/docs/letter", "dear"),
        ("sources/docs/draft/letter", "dar"),
        ("sources/a/x", "ax"),
        ("sources/b/x", "bx"),
    ] {
        world.write(name, text);
    }
    world
}

#[test]
fn the_cycle_of_two_repositories_four_sources_hooks_and_dumps() {
    let world = cycle_world();
    // The passphrase is the configuration's.
    let run = |args: &[&str]| {
        let mut command = world.command();
        command.env_remove("VYKAR_PASSPHRASE").args(args);
        world.finish(command)
    };
    let repo = |name: &str| run(&["-R", name, "list", "--json"]).ok().json()["snapshots"].clone();
    run(&["init"]).ok();
    for round in 0..4 {
        world.write("sources/docs/letter", &format!("dear {round}"));
        run(&[]).ok();
    }
    let (one, two) = (repo("one"), repo("repos/two"));
    assert_eq!(labels(one.as_array().unwrap()), ["docs", "docs", "dumps", "dumps", "plain", "plain"]);
    assert_eq!(labels(two.as_array().unwrap()), ["docs", "plain", "several", "several", "several"]);
    run(&["-R", "one", "check", "--verify-data"]).ok();
    run(&["-R", "two", "check", "--verify-data"]).ok();
    let log = fs::read_to_string(world.path("hooks.log")).unwrap();
    let absolute = world.path("sources/docs");
    let absolute = absolute.to_str().unwrap();
    for line in [
        "before backup one".to_owned(),
        "before prune two".to_owned(),
        "before compact one".to_owned(),
        "before check two".to_owned(),
        format!("one {}", world.path("repos/one").display()),
        "end".to_owned(),
    ] {
        assert!(log.lines().any(|l| l.trim_end() == line), "{line}\n{log}");
    }
    assert!(log.contains(&format!("source docs {absolute}")), "{log}");
    // What was stored is what there was.
    let name = |list: &serde_json::Value, label: &str| {
        let of = |s: &&serde_json::Value| s["label"] == label;
        list.as_array().unwrap().iter().rev().find(of).unwrap()["name"].as_str().unwrap().to_owned()
    };
    run(&["-R", "one", "restore", &name(&one, "dumps"), "out-dumps"]).ok();
    assert_eq!(fs::read_to_string(world.path("out-dumps/vykar-dumps/db/all.sql")).unwrap(), "table x;");
    let numbers = fs::read_to_string(world.path("out-dumps/vykar-dumps/numbers")).unwrap();
    assert_eq!(numbers.lines().count(), 100_000);
    run(&["-R", "one", "restore", &name(&one, "docs"), "out-docs"]).ok();
    assert_eq!(fs::read_to_string(world.path("out-docs/letter")).unwrap(), "dear 3");
    assert!(!world.path("out-docs/draft").exists());
    run(&["-R", "one", "restore", &name(&one, "plain"), "out-plain"]).ok();
    assert!(!world.path("out-plain/object.o").exists() && world.path("out-plain/file").exists());
}

#[test]
fn a_failing_dump_aborts_its_snapshot_and_the_other_sources_are_stored() {
    let world = World::new();
    world.write("data/x", "x");
    world.write(
        "vykar.yaml",
        "repositories: [{url: repo, encryption: {mode: none}}]
sources:
  - {label: db, command_dumps: [{name: half, command: 'echo half; exit 3'}]}
  - {label: data, path: data}
hooks: {failed: 'echo {error} > failed'}
",
    );
    world.configured(&["init"]).ok();
    let run = world.configured(&["backup"]).exits(exit::FAILURE);
    assert!(run.stderr.contains("vykar-dumps/half: the command failed (exit status: 3)"), "{run}");
    assert_eq!(labels(&world.snapshots_of("repo")), ["data"]);
    assert!(fs::read_to_string(world.path("failed")).unwrap().contains("vykar-dumps/half"));
    // The cycle goes no further.
    let run = world.configured(&[]).exits(exit::FAILURE);
    assert!(!run.out().contains("Checked"), "{run}");
    world.configured(&["backup", "--source", "data"]).ok();
    let run = world.configured(&["backup", "--source", "dada"]).exits(exit::USAGE);
    assert!(run.stderr.contains("there are: db, data"), "{run}");
}

#[test]
fn one_repository_that_fails_keeps_no_other_from_its_turn() {
    let world = cycle_world();
    world.configured(&["-R", "two", "init"]).ok();
    let run = world.configured(&["backup"]).exits(exit::NO_REPOSITORY);
    assert!(run.stderr.contains("one: ") && run.stderr.contains("no repository here"), "{run}");
    assert_eq!(labels(&world.snapshots_of("two")), ["docs", "plain", "several"]);
    // What is about one repository wants to know which.
    let run = world.configured(&["list"]).exits(exit::USAGE);
    assert!(run.stderr.contains("choose with -R: one, two"), "{run}");
}

#[test]
fn prune_leaves_the_snapshots_of_other_hosts_to_them() {
    let world = World::new();
    world.write("data/x", "x");
    let yaml = |host: &str| {
        format!(
            "repositories: [{{url: repo, encryption: {{mode: none}}}}]\nsources: [data]\n\
             retention: {{keep_last: 1}}\nhostname: {host}\n"
        )
    };
    world.write("vykar.yaml", &yaml("alpha"));
    world.configured(&["init"]).ok();
    world.configured(&["backup"]).ok();
    world.configured(&["backup"]).ok();
    world.write("vykar.yaml", &yaml("beta"));
    world.configured(&["backup"]).ok();
    world.configured(&["backup"]).ok();
    world.configured(&["prune"]).ok();
    let hosts: Vec<_> = world.snapshots_of("repo").iter().map(|s| s["hostname"].to_string()).collect();
    assert_eq!(hosts, ["\"alpha\"", "\"alpha\"", "\"beta\""]);
    world.configured(&["prune", "--keep-last", "1"]).ok();
    assert_eq!(world.snapshots_of("repo").len(), 2);
}

#[test]
fn the_starter_is_a_configuration_and_check_explains_one() {
    let world = World::new();
    let starter = world.configured(&["config"]).ok().stdout;
    fs::write(world.path("vykar.yaml"), &starter).unwrap();
    let explained = String::from_utf8(world.configured(&["config", "check"]).ok().stdout).unwrap();
    for part in
        ["Repository main", "/srv/backup/vykar", "7 daily, 4 weekly, 12 monthly", "path       /home", "*.tmp"]
    {
        assert!(explained.contains(part), "{part}\n{explained}");
    }
    let world = cycle_world();
    let json = world.configured(&["config", "check", "--json"]).ok().json();
    assert_eq!(json["repositories"][1]["label"], "two");
    assert_eq!(json["repositories"][0]["sources"][1]["exclude"], serde_json::json!(["*.o", "draft/"]));
    assert!(!json.to_string().contains("sesame"), "{json}");
    world.write("vykar.yaml", "repositories:\n  - url: x\n    lable: y\n");
    let run = world.configured(&["list"]).exits(exit::USAGE);
    assert_eq!(run.stderr, "vykar: vykar.yaml, line 3: unknown key `lable`\n       did you mean `label`?\n");
    let run = world.configured(&["--config", "nope.yaml", "list"]).exits(exit::USAGE);
    assert!(run.stderr.contains("nope.yaml: there is no such configuration"), "{run}");
    fs::remove_file(world.path("vykar.yaml")).unwrap();
    let run = world.configured(&["config", "check"]).exits(exit::USAGE);
    assert!(run.stderr.contains("no configuration: none of vykar.yaml"), "{run}");
    let run = world.configured(&[]).exits(exit::USAGE);
    assert!(run.stderr.contains("no repository given"), "{run}");
}

#[test]
fn mount_takes_what_is_configured_where_the_command_line_is_silent() {
    needs!(mounts);
    let world = World::new();
    world.write("data/x", "x");
    let yaml = "repositories: [{url: repo, encryption: {mode: none}}]\nsources: [data]\n";
    let with_mount =
        |mount: &str| world.write("vykar.yaml", &format!("{yaml}mount: {{mountpoint: at, {mount}}}\n"));
    with_mount("background: true, umask: '077', host: []");
    world.configured(&["init"]).ok();
    world.configured(&["backup"]).ok();
    world.folder("at");
    world.configured(&["mount"]).ok();
    let mode = |path: &str| fs::metadata(world.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("at/snapshots/latest/x") & 0o077, 0);
    world.configured(&["umount", "at"]).ok();
    world.folder("there");
    world.configured(&["mount", "there", "--umask", "0"]).ok();
    assert_eq!(mode("there/snapshots/latest/x"), mode("data/x"));
    world.configured(&["umount", "there"]).ok();
    for (mount, expected) in [
        ("cachesize: 3", "line 3: mount: unknown key `cachesize`\n       did you mean `cache_size`?"),
        ("cache_size: 3", "line 3: mount: invalid value '3' for '--cache-size <SIZE>'"),
        ("allow_other: maybe", "line 3: mount: `allow_other` must be true or false"),
    ] {
        with_mount(mount);
        let run = world.configured(&["mount"]).exits(exit::USAGE);
        assert!(run.stderr.contains(expected), "{run}");
    }
}

/// A daemon that is ended with the test.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_daemon_runs_at_its_start_on_a_signal_and_with_a_new_configuration() {
    use rustix::process::Signal;
    let world = World::new();
    world.write("data/x", "x");
    let yaml = |label: &str, more: &str| {
        format!(
            "repositories: [{{url: repo, encryption: {{mode: none}}}}]\n\
             sources: [{{label: {label}, path: data}}]\n\
             schedule: {{enabled: true, every: 1h, on_startup: true}}\n{more}"
        )
    };
    world.write("vykar.yaml", &yaml("first", ""));
    world.configured(&["init"]).ok();
    let mut command = world.command();
    let log = world.path("daemon.log");
    command.arg("daemon").stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut daemon = Daemon(command.spawn().unwrap());
    let said = |text: &str| fs::read_to_string(&log).unwrap().matches(text).count();
    until("the first run", || said("the cycle ended with exit code 0") == 1);
    assert_eq!(labels(&world.snapshots_of("repo")), ["first"]);
    daemon.signal(Signal::USR1);
    until("the second run", || said("the cycle ended with exit code 0") == 2);
    world.write("vykar.yaml", "nonsense: [");
    daemon.signal(Signal::HUP);
    until("a complaint", || said("goes on with the configuration it had") == 1);
    // A backup that waits for a command that says nothing.
    world.write(
        "vykar.yaml",
        &yaml("second", "")
            .replace("path: data", "command_dumps: [{name: x, command: 'echo; touch begun; sleep 300'}]"),
    );
    daemon.signal(Signal::HUP);
    until("a new configuration", || said("the configuration was read again") == 1);
    daemon.signal(Signal::USR1);
    until("a backup that runs", || world.path("begun").exists());
    daemon.signal(Signal::TERM);
    let status = wait(&mut daemon.0, Duration::from_secs(20)).expect("it should end");
    assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(&log).unwrap());
    world.write("vykar.yaml", &yaml("first", ""));
    assert_eq!(labels(&world.snapshots_of("repo")), ["first", "first"]);
    world.configured(&["check"]).ok();
}

#[test]
fn a_whole_repository_is_deleted_by_its_label_too() {
    let world = cycle_world();
    world.configured(&["-R", "two", "init"]).ok();
    let run = world.configured(&["-R", "two", "delete", "--confirm", "one"]).exits(exit::USAGE);
    assert!(world.path("repos/two/config").exists(), "{run}");
    world.configured(&["-R", "two", "delete", "--confirm", "two"]).ok();
    assert!(!world.path("repos/two").exists());
}

#[test]
fn a_daemon_without_a_schedule_says_so() {
    let world = cycle_world();
    let run = world.configured(&["daemon"]).exits(exit::USAGE);
    assert!(run.stderr.contains("nothing is scheduled"), "{run}");
}
