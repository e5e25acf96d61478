//! Finding things: which snapshots, what is in them, what changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::compare::{Leave, read_tree, same, same_to_others};
use super::harness::{VYKAR, World, exit, fingerprint, silent};
use super::tree::{Parts, generate, noise, set_mode, set_times};

/// Two snapshots labelled `photos`, then one labelled `mail`.
fn with_snapshots() -> World {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    for (label, content) in [("photos", "first"), ("photos", "second"), ("mail", "third")] {
        fs::write(source.join("file"), content).unwrap();
        world.backup(["source", "--label", label]).ok();
    }
    world
}

#[test]
fn the_list_can_be_narrowed() {
    let world = with_snapshots();
    let all = world.snapshots();
    let host = all[0]["hostname"].as_str().unwrap().to_owned();
    let listed = |args: &[&str]| {
        let json = world.run(["list", "--json"].iter().chain(args)).ok().json();
        assert_eq!(json["unreadable"].as_array().unwrap().len(), 0);
        let position = |s: &serde_json::Value| all.iter().position(|other| other["id"] == s["id"]).unwrap();
        json["snapshots"].as_array().unwrap().iter().map(position).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [0, 1, 2]);
    assert_eq!(listed(&["--label", "photos"]), [0, 1]);
    assert_eq!(listed(&["--label", "photos", "--label", "mail", "--host", &host]), [0, 1, 2]);
    assert_eq!(listed(&["--label", "photos", "--last", "1"]), [1]);
    assert_eq!(listed(&["--last", "7", "--since", "1h"]), [0, 1, 2]);
    assert_eq!(listed(&["--since", all[1]["time"].as_str().unwrap()]), [1, 2]);
    assert_eq!(listed(&["--since", "2000-01-01 12:00", "--host", "another"]), [] as [usize; 0]);

    let text = world.run(["list", "--label", "mail"]).ok().out();
    assert_eq!(text.lines().count(), 2, "{text}");
    let none = world.run(["list", "--label", "neither"]).ok().out();
    assert_eq!(none, "None of the 3 snapshots fits\n");
    for wrong in [["--last", "0"], ["--since", "soon"]] {
        world.run(["list"].iter().chain(&wrong)).exits(exit::USAGE);
    }
    world.run(["list", "--damaged", "--last", "1"]).exits(exit::USAGE);
}

/// One snapshot of a few kinds of items.
fn with_items() -> World {
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::create_dir_all(source.join("a/deep")).unwrap();
    fs::write(source.join("a/deep/small"), b"12345").unwrap();
    fs::write(source.join("a.txt"), vec![b'x'; 5000]).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"raw-\xff\n")), b"").unwrap();
    symlink("a/deep", source.join("link")).unwrap();
    set_mode(&source.join("a/deep/small"), 0o4750);
    for (n, path) in ["a/deep/small", "a.txt", "link"].into_iter().enumerate() {
        set_times(&source.join(path), (0, 0), (1_700_000_000 + n as i64, 123_456_789));
    }
    world.backup(["source"]).ok();
    world
}

#[test]
fn items_are_listed_as_ls_does_it() {
    let world = with_items();
    let list = |args: &[&str]| world.run(["snapshot", "list", "latest"].iter().chain(args)).ok().out();
    let long = list(&["--long", "--sort", "name"]);
    let lines: Vec<_> = long.lines().collect();
    assert_eq!(lines.len(), 6, "{long}");
    assert!(lines[0].starts_with("drwx") && lines[0].ends_with(" a"), "{long}");
    assert!(lines[1].starts_with("-rw-") && lines[1].contains(" 5000 2023-11-14 22:13:21 a.txt"), "{long}");
    assert!(lines[3].starts_with("-rwsr-x--- ") && lines[3].contains(" 5 2023-11-14 22:13:20 a/deep/small"));
    assert!(lines[4].starts_with("lrwxrwxrwx ") && lines[4].ends_with(" link -> a/deep"), "{long}");
    assert!(lines[5].ends_with(" raw-\\xff\\n"), "{long}");

    assert_eq!(list(&["--path", "/a/deep/"]), "a/deep\na/deep/small\n");
    assert_eq!(list(&["--path", "a.txt"]), "a.txt\n");
    assert_eq!(list(&["--sort", "size", "--path", "a/deep/small"]), "a/deep/small\n");
    assert!(list(&["--sort", "size"]).starts_with("a.txt\n"));
    let newest = list(&["--sort", "mtime"]);
    assert!(newest.ends_with("link\na.txt\na/deep/small\n"), "{newest}");
    let missing = world.run(["snapshot", "list", "latest", "--path", "a/dee"]).exits(exit::FAILURE);
    missing.one_message().says("a/dee: not in the snapshot");

    for args in [&["--json"][..], &["--json", "--long", "--sort", "name"]] {
        let out = list(args);
        let lines: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let small = lines.iter().find(|item| item["path"] == "a/deep/small").unwrap();
        assert_eq!(
            (&small["mode"], &small["mtime"]),
            (&0o4750.into(), &1_700_000_000_123_456_789_i64.into())
        );
        assert!(lines.iter().any(|item| item["path_bytes"] == "7261772dff0a"), "{out}");
    }
}

/// Four snapshots in which `d/notes` changes, `d/old` goes, and `d/new` comes.
fn with_history() -> World {
    let world = World::with_repository("chacha20poly1305");
    let source = world.folder("source");
    fs::create_dir(source.join("d")).unwrap();
    let write = |name: &str, content: &[u8], time: i64| {
        fs::write(source.join(name), content).unwrap();
        set_times(&source.join(name), (0, 0), (time, 5));
    };
    write("d/notes", b"first", 1_600_000_000);
    write("d/old", b"old", 1_500_000_000);
    write("stays", b"as it is", 1_500_000_000);
    world.backup(["source"]).ok();
    world.backup(["source"]).ok();
    write("d/notes", &[b'x'; 2000], 1_600_000_001);
    fs::remove_file(source.join("d/old")).unwrap();
    write("d/new", b"new", 1_700_000_000);
    world.backup(["source"]).ok();
    set_mode(&source.join("d/new"), 0o600);
    write("d/raw-", b"", 0);
    fs::rename(source.join("d/raw-"), source.join(OsStr::from_bytes(b"d/raw-\xff"))).unwrap();
    world.backup(["source"]).ok();
    world
}

#[test]
fn a_file_is_followed_through_the_snapshots() {
    let world = with_history();
    let find = |args: &[&str]| world.run(["snapshot", "find"].iter().chain(args)).ok();
    let names: Vec<_> = world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    let text = find(&["d", "--type", "f"]).out();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 14, "{text}");
    let row = |at: usize, name: &str, words: &[&str]| {
        assert!(lines[at].trim_start().starts_with(name), "{at}: {text}");
        assert!(words.iter().all(|word| lines[at].contains(word)), "{at}: {text}");
    };
    row(0, "d/new", &[]);
    row(1, &names[2], &["added", "3 B", "2023-11-14 22:13:20"]);
    row(2, &names[3], &["changed (mode)", "3 B"]);
    row(3, "d/notes", &[]);
    row(4, &names[0], &["added", "5 B", "2020-09-13 12:26:40"]);
    row(5, &names[1], &["unchanged"]);
    row(6, &names[2], &["changed (content, mtime)", "2.0 KiB"]);
    row(7, &names[3], &["unchanged"]);
    row(8, "d/old", &[]);
    row(9, &names[0], &["added"]);
    row(10, &names[1], &["unchanged"]);
    assert!(lines[11].contains("removed") && lines[11].contains(&names[2]), "{text}");
    let stays = find(&["stays"]).out();
    assert!(stays.contains(&format!("unchanged, and in 2 more up to {}", names[3])), "{stays}");

    let json = find(&["--name", "old", "--json"]).json();
    let versions = json["files"][0]["versions"].as_array().unwrap();
    let status: Vec<_> = versions.iter().map(|v| v["status"].as_str().unwrap()).collect();
    assert_eq!(
        (&json["files"][0]["path"], &status[..]),
        (&"d/old".into(), &["added", "unchanged", "removed"][..])
    );
    assert_eq!((&versions[0]["size"], &versions[2]["mtime"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!(
        (&versions[1]["snapshot"], versions[1]["id"].as_str().unwrap().len()),
        (&names[1].clone().into(), 64)
    );
    let raw = find(&["raw-*", "--json"]).json();
    assert_eq!(raw["files"][0]["path_bytes"], "642f7261772dff");
}

#[test]
fn what_is_found_can_be_narrowed() {
    let world = with_history();
    let find = |args: &[&str]| {
        let json = world.run(["snapshot", "find", "--json"].iter().chain(args)).ok().json();
        let path = |file: &serde_json::Value| file["path"].as_str().unwrap().to_owned();
        json["files"].as_array().unwrap().iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!(find(&["*", "--larger", "1K"]), ["d/notes"]);
    assert_eq!(find(&["--name", "s*", "--iname", "OLD"]), ["d/old", "stays"]);
    assert_eq!(find(&["d/*", "--since", "2020-09-13 12:00"]), ["d/new", "d/notes"]);
    assert_eq!(
        find(&["--smaller", "1K", "--last", "1", "--type", "f"]),
        ["d/new", "d/raw-\u{fffd}", "stays"]
    );
    assert_eq!(find(&["--type", "d"]), ["d"]);
    assert_eq!(find(&["--label", "other"]), [""; 0]);
    let none = world.run(["snapshot", "find", "no/such"]).ok();
    assert_eq!((none.out().as_str(), none.stderr.as_str()), ("", "vykar: nothing found\n"));
    world.run(["snapshot", "find", "notes"]).ok().says("--name notes");
    world.run(["snapshot", "find", "[x"]).exits(exit::USAGE).one_message().says("pattern");
    world.run(["snapshot", "find", "--type", "x"]).exits(exit::USAGE);
}

#[test]
fn two_snapshots_are_compared() {
    let world = with_history();
    let source = world.path("source");
    fs::remove_file(source.join("stays")).unwrap();
    symlink("d", source.join("stays")).unwrap();
    world.backup(["source"]).ok();
    let names: Vec<_> = world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    let diff = |args: &[&str]| world.run(["snapshot", "diff"].iter().chain(args)).ok().out();
    let text = diff(&[&names[0], "latest"]);
    assert_eq!(
        text,
        "m . (mtime)\nm d (mtime)\n+ d/new\nM d/notes (5 B -> 2.0 KiB)\n- d/old\n+ d/raw-\\xff\n\
         T stays (file -> symlink)\n\
         2 added (3 B), 1 removed (3 B), 1 of another type (8 B -> 0 B)\n\
         1 with other content (5 B -> 2.0 KiB), 2 with other metadata only, 0 unchanged\n"
    );
    let none = diff(&[&names[0], &names[1]]);
    assert_eq!(none.lines().count(), 2, "{none}");
    assert!(none.ends_with(" 5 unchanged\n"), "{none}");
    assert!(diff(&[&names[2], &names[3], "/d/new/"]).starts_with("m d/new (mode)\n0 added"));

    let json = world.run(["snapshot", "diff", &names[3], &names[0], "d", "--json"]).ok().json();
    let changes = json["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 5);
    let of = |path: &str| changes.iter().find(|change| change["path"] == path).unwrap();
    assert_eq!((&of("d/old")["change"], &of("d/old")["before"]), (&"added".into(), &serde_json::Value::Null));
    assert_eq!(of("d/notes")["differs"], serde_json::json!(["content", "mtime"]));
    assert_eq!(
        (&of("d/notes")["before"]["size"], &of("d/notes")["after"]["size"]),
        (&2000.into(), &5.into())
    );
    assert_eq!(of("d/raw-\u{fffd}")["path_bytes"], "642f7261772dff");
    assert_eq!((&json["summary"]["removed"], &json["summary"]["removed_bytes"]), (&2.into(), &3.into()));

    world.run(["snapshot", "diff", &names[0], "zzzz"]).exits(exit::FAILURE).one_message();
    let missing = world.run(["snapshot", "diff", &names[0], "latest", "no/such"]).exits(exit::FAILURE);
    missing.one_message().says("no/such: in neither snapshot");
}

#[test]
fn a_file_is_written_to_stdout() {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    let large = noise(20 << 20, 1);
    fs::create_dir(source.join("a:b")).unwrap();
    fs::write(source.join("a:b/large"), &large).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"raw-\xff")), b"raw").unwrap();
    symlink("a:b/large", source.join("link")).unwrap();
    world.backup(["source"]).ok();
    let name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    let cat = |place: &str| world.run(["cat", place]);
    assert!(cat("latest:a:b/large").ok().stdout == large);
    assert!(cat(&format!("{}:/a:b//large", &name[..6])).ok().stdout == large);
    let raw = world.run([OsStr::new("cat"), OsStr::from_bytes(b"latest:raw-\xff")]).ok();
    assert_eq!(raw.stdout, b"raw");

    for (place, reason) in [
        ("latest:a:b", format!("{name}:a:b: a directory\n       --tar")),
        ("latest", format!("{name}: a directory")),
        ("latest:link", format!("{name}:link: a symlink to a:b/large")),
        ("latest:a:b/larg", format!("{name}:a:b/larg: not in the snapshot")),
        ("nothing:x", "snapshot \"nothing\": not found".to_owned()),
    ] {
        let run = cat(place).exits(exit::FAILURE).one_message().says(&reason);
        assert_eq!(run.stdout, b"", "{place}");
    }
    // What reads it ends early.
    let head = "head -c 10 >/dev/null; echo ${PIPESTATUS[0]}";
    for args in ["latest:a:b/large", "latest --tar"] {
        let line = format!("'{VYKAR}' -R '{}' cat {args} | {head}", world.repo.display());
        let mut shell = world.with_environment(Command::new("bash"));
        shell.args(["-c", &line]);
        let run = world.finish(shell);
        assert_eq!((run.out().as_str(), run.stderr.as_str()), ("0\n", ""));
    }
}

/// Extracts an archive of this place with GNU tar.
fn extract(world: &World, place: &str, to: &str) -> std::path::PathBuf {
    let archive = world.run(["cat", place, "--tar"]).ok();
    let (file, to) = (world.path("archive.tar"), world.folder(to));
    fs::write(&file, archive.stdout).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--acls", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "-x", "-p", "-f"])
        .arg(&file)
        .arg("-C")
        .arg(&to);
    silent(&mut tar);
    to
}

#[test]
fn a_folder_as_an_archive_gives_what_a_restore_gives() {
    let world = World::with_repository("aes256gcm");
    let source = world.path("source");
    generate(&source, Parts::default());
    let before = read_tree(&source);
    world.backup(["source"]).ok();
    world.run(["restore", "latest", "restored"]).ok();
    let extracted = extract(&world, "latest:", "extracted");
    same(&before, &source, &extracted, Leave { atime: true, ..Leave::default() });
    same_to_others(&world.path("restored"), &extracted);

    world.run(["restore", "latest", "part", "a/b"]).ok();
    let part = extract(&world, "latest:a/b", "extracted-part");
    // Both are new, and the time of neither is of the snapshot.
    [&world.path("part"), &part].into_iter().for_each(|path| set_times(path, (1, 0), (1, 0)));
    same_to_others(&world.path("part"), &part);
    let listed = Command::new("tar").arg("-tf").arg(world.path("archive.tar")).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).starts_with("a/\na/b/\n"), "{listed:?}");
    let run = world.run(["cat", "latest:no/such", "--tar"]).exits(exit::FAILURE);
    run.one_message().says("no/such: not in the snapshot");
}

#[test]
fn what_is_damaged_ends_a_file_and_is_left_out_of_an_archive() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    let data = noise(12 << 20, 1);
    fs::write(source.join("damaged"), &data).unwrap();
    fs::write(source.join("whole"), b"whole").unwrap();
    world.backup(["source", "--compression", "none"]).ok();
    let name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    // The data is stored as it is.
    let packs = fingerprint(&world.repo.join("packs"));
    let (largest, _) = packs.into_iter().max_by_key(|(_, (len, _))| *len).unwrap();
    let pack = world.repo.join("packs").join(largest);
    let mut bytes = fs::read(&pack).unwrap();
    let needle = &data[11 << 20..][..64];
    let at = bytes.windows(64).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(&pack, bytes).unwrap();

    let run = world.run(["cat", "latest:damaged"]).exits(exit::DAMAGED).one_message();
    let run = run.says(&format!("{name}:damaged: chunk "));
    assert!(run.stdout.len() < data.len() && data.starts_with(&run.stdout), "{}", run.stdout.len());
    assert_eq!(world.run(["cat", "latest:whole"]).ok().stdout, b"whole");
    let run = world.run(["cat", "latest", "--tar"]).exits(exit::PARTIAL);
    let run = run.says("damaged: left out: chunk ").says("1 path(s) were left out");
    fs::write(world.path("archive.tar"), run.stdout).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(world.path("archive.tar")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "whole\n./\n");
}
