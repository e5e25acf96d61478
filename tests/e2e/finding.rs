//! Finding things: which snapshots, what is in them, what changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::harness::{World, exit};
use super::tree::{set_mode, set_times};

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
