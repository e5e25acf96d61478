//! What of the paths a backup takes: rules, links, mounts, lists, and what programs print.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use super::harness::{World, exit, note};

/// Paths of a snapshot, as they are printed.
fn stored(world: &World, snapshot: &str) -> Vec<String> {
    let list = world.run(["snapshot", "list", snapshot]).ok().out();
    let mut paths: Vec<_> = list.lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

fn write(world: &World, names: &[&str]) {
    for name in names {
        let path = world.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, *name).unwrap();
    }
}

fn mount(args: &[&OsStr]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}");
}

fn unmount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().unwrap().success(), "umount {}", at.display());
}

#[test]
fn braces_are_plain_characters_wherever_rules_are_taken() {
    let world = World::with_repository("none");
    write(&world, &["src/{GUID-1}", "src/GUID-1", "src/{a,b}", "src/a", "src/{{x}}/f", "src/x/f"]);
    let rules = "{GUID-1}\n{{x}}/\n{a,b}\n";
    let kept = ["GUID-1", "a", "x", "x/f"];
    fs::write(world.path("rules"), rules).unwrap();
    world.backup(["src", "--exclude-file", "rules"]).ok();
    assert_eq!(stored(&world, "latest"), kept);
    fs::write(world.path("src/.gitignore"), rules).unwrap();
    world.backup(["src", "--git-ignore", "--exclude", ".gitignore"]).ok();
    assert_eq!(stored(&world, "latest"), kept);
    world.backup(["src", "--exclude", ".gitignore"]).ok();
    world.run(["restore", "latest", "one", "--include", "{GUID-1}"]).ok();
    assert!(world.path("one/{GUID-1}").exists() && !world.path("one/GUID-1").exists());
    world.run(["rewrite", "latest", "--exclude", "{GUID-1}", "--forget"]).ok();
    let left = stored(&world, "latest");
    assert!(left.contains(&"GUID-1".to_owned()) && !left.contains(&"{GUID-1}".to_owned()), "{left:?}");
}

#[test]
fn files_of_rules_and_lists_are_bytes_and_may_begin_with_a_byte_order_mark() {
    let world = World::with_repository("none");
    write(&world, &["src/secret", "src/keep"]);
    let latin = world.path("src").join(OsStr::from_bytes(b"b\xe4r"));
    fs::write(&latin, "x").unwrap();
    fs::write(world.path("rules"), b"\xef\xbb\xbfsecret\r\nb\xe4r\n").unwrap();
    world.backup(["src", "--exclude-file", "rules"]).ok();
    assert_eq!(stored(&world, "latest"), ["keep"]);
    let rule = OsStr::from_bytes(b"b\xe4r");
    world.backup([OsStr::new("src"), "--exclude".as_ref(), rule, "-e".as_ref(), "secret".as_ref()]).ok();
    assert_eq!(stored(&world, "latest"), ["keep"]);
    fs::write(world.path("list"), "\u{feff}src/keep\n").unwrap();
    world.backup(["--files-from", "list"]).ok();
    assert_eq!(stored(&world, "latest"), ["keep"]);
    fs::write(world.path("list"), b"src/keep\0src/b\xe4r\0").unwrap();
    world.backup(["--files-from", "list", "--null"]).ok();
    let files = stored(&world, "latest").into_iter().filter(|path| path.contains("/src/"));
    assert_eq!(files.count(), 2);
    // What cannot be followed is named with its line.
    fs::write(world.path("rules"), "ok\n\n# comment\n[a\n").unwrap();
    let run = world.backup(["src", "--exclude-file", "rules"]).exits(exit::USAGE);
    run.says("rules: line 4").says("[a: a [ without its ]");
    fs::copy(world.path("rules"), world.path("src/.gitignore")).unwrap();
    world.backup(["src", "--git-ignore"]).ok().says("src/.gitignore, line 4");
    for rule in ["#auto#", "", "/", "a\\"] {
        world.backup(["src", "--exclude", rule]).exits(exit::USAGE);
    }
    for name in ["a/b", "*.skip", ".", ""] {
        world.backup(["src", "--exclude-if-present", name]).exits(exit::USAGE);
    }
}

#[test]
fn an_absolute_rule_is_about_the_absolute_path() {
    let world = World::with_repository("none");
    write(&world, &["src/cache/x", "src/d/cache/x"]);
    let rule = world.path("src").canonicalize().unwrap().join("cache");
    world
        .backup([
            world.path("src").canonicalize().unwrap().as_os_str(),
            "--exclude".as_ref(),
            rule.as_os_str(),
        ])
        .ok();
    assert_eq!(stored(&world, "latest"), ["d", "d/cache", "d/cache/x"]);
}

#[test]
fn symlinks_among_the_paths_are_stored_as_such() {
    let world = World::with_repository("none");
    write(&world, &["proj/tool-1.2", "other/tree/f"]);
    symlink("tool-1.2", world.path("proj/tool")).unwrap();
    symlink("../other", world.path("proj/data")).unwrap();
    let base = world.path("proj").canonicalize().unwrap();
    let base = base.to_str().unwrap().strip_prefix('/').unwrap();
    let below = |name: &str| format!("{base}/{name}");
    // Without the folders above.
    let inside = |snapshot: &str| -> Vec<String> {
        stored(&world, snapshot).into_iter().filter(|path| path.starts_with(&below(""))).collect()
    };
    let paths = ["proj/tool-1.2", "proj/tool", "proj/data"];
    world.backup(paths).ok().says("proj/data: stored as symlinks, without what they lead to");
    assert_eq!(inside("latest"), [below("data"), below("tool"), below("tool-1.2")]);
    let long = world.run(["snapshot", "list", "latest", "--long"]).ok().out();
    assert!(long.contains("tool -> tool-1.2") && long.contains("data -> ../other"), "{long}");
    let followed =
        [below("data"), below("data/tree"), below("data/tree/f"), below("tool"), below("tool-1.2")];
    world.backup(paths.iter().chain(&["--follow-paths"])).ok();
    assert_eq!(inside("latest"), followed);
    let long = world.run(["snapshot", "list", "latest", "--long"]).ok().out();
    assert!(!long.contains("->"), "{long}");
    world.backup(["proj/tool-1.2", "proj/tool-1.2", "proj/data/"]).ok();
    assert_eq!(
        inside("latest"),
        [below("data"), below("data/tree"), below("data/tree/f"), below("tool-1.2")]
    );
    // One alone, and a list.
    world.backup(["proj/data"]).ok().says("stored as symlinks");
    assert_eq!(stored(&world, "latest"), ["data"]);
    world.backup(["proj/data/"]).ok();
    assert_eq!(stored(&world, "latest"), ["tree", "tree/f"]);
    fs::write(world.path("list"), "proj/tool\nproj/data/\n").unwrap();
    world.backup(["--files-from", "list"]).ok();
    assert_eq!(inside("latest"), [below("data"), below("data/tree"), below("data/tree/f"), below("tool")]);
    world.oracle_verify();
}

#[test]
fn a_mounted_repository_is_no_part_of_a_backup() {
    needs!(mounts);
    let world = World::with_repository("none");
    write(&world, &["home/doc"]);
    world.backup(["home"]).ok();
    fs::create_dir(world.path("home/mnt")).unwrap();
    world.run(["mount", "home/mnt", "--background"]).ok();
    let mount = super::harness::Mount::adopt(world.path("home/mnt"));
    let backup = world.backup(["home"]);
    let preview = world.backup(["home", "--dry-run"]);
    let beside = world.backup(["home/mnt", "home/doc"]);
    let alone = world.backup(["home/mnt"]);
    let inside = world.backup([mount.path("snapshots/latest/")]);
    mount.unmount(&world);
    backup.ok().says("home/mnt").says("a repository is mounted there");
    assert!(preview.ok().out().contains("home/mnt  (a repository is mounted there"));
    beside.ok().says("a repository is mounted there");
    alone.exits(exit::USAGE).says("name a folder inside it");
    inside.ok();
    let snapshots = world.snapshots();
    let names: Vec<_> = snapshots.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(stored(&world, names[1]), ["doc"]);
    let beside = stored(&world, names[2]);
    assert!(beside.iter().any(|path| path.ends_with("/home/doc")));
    assert!(!beside.iter().any(|path| path.contains("/home/mnt/")), "{beside:?}");
    assert_eq!(stored(&world, names[3]), ["doc"]);
}

#[test]
fn what_a_rule_leaves_out_need_not_be_readable() {
    needs!(root);
    needs!(mounts);
    let mut world = World::with_repository("none");
    write(&world, &["home/doc"]);
    world.backup(["home"]).ok();
    world.become_nobody();
    let at = world.path("home/.gvfs");
    fs::create_dir(&at).unwrap();
    for path in [&at, &world.path("home")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    world.run([OsStr::new("mount"), at.as_os_str(), OsStr::new("--background")]).ok();
    let mount = super::harness::Mount::adopt(at.clone());
    let mut command = world.command();
    command.args(["umount"]).arg(&at);
    // As root again, who may not look into another user's mount.
    world.as_nobody = false;
    let hidden = fs::symlink_metadata(&at).is_err();
    let by_rule = world.backup(["home", "--exclude", ".gvfs"]);
    let by_folder_rule = world.backup(["home", "--exclude", ".gvfs/"]);
    let same_file_system = world.backup(["home", "-x"]);
    let none = world.backup(["home"]);
    world.finish(command).ok();
    drop(mount);
    if !hidden {
        note("another user's mount can be looked at here: less is shown than could be");
    }
    by_rule.ok();
    by_folder_rule.ok();
    let run = same_file_system.ok();
    assert!(run.out().contains("Left out: 1") || !hidden, "{run}");
    none.ok().says("a repository is mounted there");
}

#[test]
fn what_is_mounted_from_the_same_device_is_another_mount() {
    needs!(root);
    let world = World::with_repository("none");
    write(&world, &["src/a", "src/file", "elsewhere/b"]);
    let (at, file) = (world.folder("src/bound"), world.path("src/file"));
    mount(&["--bind".as_ref(), world.path("elsewhere").as_os_str(), at.as_os_str()]);
    mount(&["--bind".as_ref(), world.path("elsewhere/b").as_os_str(), file.as_os_str()]);
    let one = world.backup(["src", "-x"]);
    let all = world.backup(["src"]);
    unmount(&file);
    unmount(&at);
    one.ok();
    all.ok();
    let snapshots = world.snapshots();
    let name = |at: usize| snapshots[at]["name"].as_str().unwrap();
    assert_eq!(stored(&world, name(0)), ["a", "bound"]);
    assert_eq!(stored(&world, name(1)), ["a", "bound", "bound/b", "file"]);
}

#[test]
fn a_command_decides_by_its_exit_code_whether_what_it_prints_is_stored() {
    let world = World::with_repository("none");
    let from = ["--stdin-from-command", "--stdin-name", "dump.sql"];
    let run = |words: &[&str]| world.backup(from.iter().chain(&["--"]).chain(words));
    run(&["printf", "table %s", "--x y"]).ok();
    world.run(["restore", "latest", "out"]).ok();
    assert_eq!(fs::read(world.path("out/dump.sql")).unwrap(), b"table --x y");
    assert_eq!(world.snapshots()[0]["label"], "dump.sql");
    run(&["sh", "-c", "echo half; exit 3"]).exits(exit::FAILURE).says("dump.sql").says("exit status: 3");
    run(&["no-such-program-here"]).exits(exit::FAILURE).says("cannot be run");
    assert_eq!(world.snapshots().len(), 1, "nothing of a command that failed is published");
    run(&["true"]).ok().says("dump.sql: nothing came, and an empty file is stored");
    run(&[]).exits(exit::USAGE);
    world.backup(["--stdin"]).ok().says("stdin: nothing came");
    world.backup(["--stdin", "--stdin-from-command", "--", "true"]).exits(exit::USAGE);
    let secret = "test -z \"${VYKAR_PASSPHRASE+x}\" && echo none";
    run(&["sh", "-c", secret]).ok();
}

#[test]
fn snapshots_that_no_source_continues_are_named() {
    let world = World::new();
    write(&world, &["a/x", "b/x"]);
    let config = |sources: &str| {
        let text =
            "repositories: [{url: repo}]\nencryption: {mode: none}\nretention: {keep_last: 5}\nsources: ";
        fs::write(world.path("vykar.yaml"), format!("{text}{sources}\n")).unwrap();
    };
    let run = |args: &[&str]| {
        let mut command = world.command();
        command.args(args);
        world.finish(command)
    };
    config("[a]");
    run(&["init"]).ok();
    run(&["backup"]).ok();
    let run_prune = run(&["prune"]).ok();
    assert!(!run_prune.stderr.contains("no source"), "{run_prune}");
    // Another path, and the series is called otherwise.
    config("[a, b]");
    run(&["backup"]).ok();
    let said = "no source is called `a`, as 1 snapshot(s) of this machine are";
    run(&["prune"]).ok().says(said).says("`label: a`");
    run(&["config", "check"]).ok().says(said);
    run(&["config", "check", "--json"]).ok().says(said);
    config("[{label: a, paths: [a, b]}, {label: default, path: b}]");
    let run_check = run(&["config", "check"]).ok();
    assert!(!run_check.stderr.contains("no source"), "{run_check}");
}

#[test]
fn a_path_that_is_not_there_brings_up_the_one_that_is() {
    let world = World::with_repository("none");
    write(&world, &["src/u\u{308}ber/f"]);
    let source = world.path("src").canonicalize().unwrap();
    world.backup([&source]).ok();
    let there = "u\u{308}ber/f";
    let absolute = source.join(there);
    let absolute = absolute.to_str().unwrap();
    for wanted in ["\u{fc}ber/f", absolute] {
        let restore = world.run(["restore", "latest", "out", wanted]).exits(exit::PARTIAL);
        restore.says(&format!("not in the snapshot; it has {there}"));
        world
            .run(["cat", &format!("latest:{wanted}")])
            .exits(exit::FAILURE)
            .says(&format!("did you mean {there}?"));
        world.run(["snapshot", "find", wanted]).ok().says(&format!("did you mean {there}?"));
    }
}

#[test]
fn a_long_list_of_paths_is_stored() {
    let world = World::with_repository("none");
    let mut list = String::new();
    for folder in 0..40 {
        let path = world.folder(&format!("src/{folder}"));
        for file in 0..100 {
            fs::write(path.join(file.to_string()), "").unwrap();
            list.push_str(&format!("src/{folder}/{file}\n"));
        }
    }
    fs::write(world.path("list"), list).unwrap();
    // Fewer files may be open than there are folders in the list.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", super::harness::VYKAR, "-R"]).arg(&world.repo);
    let mut command = world.with_environment(command);
    command.args(["backup", "--files-from", "list", "--json"]);
    let json = world.finish(command).ok().json();
    assert_eq!(json["files"]["total"], 4000);
}
