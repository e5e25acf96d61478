//! Finding things: which snapshots, what is in them, what changed.

use std::fs;

use super::harness::{World, exit};

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
