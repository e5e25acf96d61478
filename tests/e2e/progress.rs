//! The status line on a terminal, and that it is nowhere else.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use vykar_core::format::Encryption;
use vykar_core::repository::{InitOptions, OpenOptions, Repository};
use vykar_core::storage::LocalBackend;

use super::harness::terminal::{OnTerminal, command, on_terminal};
use super::harness::{World, exit};
use super::tree::noise;

/// A name with a red word and a line break in it.
const ODD: &[u8] = b"odd \x1b[31mred\n";
const FILES: usize = 30;

/// A repository whose packs are small, so that a few MiB are many transfers, and 30 files of 100 kB.
fn small_packs() -> World {
    let world = World::new();
    let mut options = InitOptions::new(Encryption::None);
    options.pack_sizes = (256 << 10, 256 << 10);
    let backend = Arc::new(LocalBackend::new(&world.repo));
    let mut none = || Err("not needed".to_owned());
    Repository::init(backend, &options, &mut none, &OpenOptions::default()).unwrap();
    write_files(&world, 0);
    world
}

/// Fills the source with content that differs from round to round.
fn write_files(world: &World, round: usize) {
    let folder = world.folder("source").join(std::ffi::OsStr::from_bytes(ODD));
    fs::create_dir_all(&folder).unwrap();
    let content = noise((round + 1) * FILES * 100_000, 1);
    for (number, part) in content.chunks(100_000).skip(round * FILES).enumerate() {
        fs::write(folder.join(format!("file {number}")), part).unwrap();
    }
}

fn has_sgr(raw: &[u8]) -> bool {
    let sequences = raw.split(|byte| *byte == 0x1b).skip(1);
    let end = |s: &&[u8]| s.iter().skip(1).find(|byte| byte.is_ascii_alphabetic()) == Some(&b'm');
    sequences.filter(|s| s.first() == Some(&b'[')).any(|s| end(&s))
}

#[test]
fn a_backup_shows_how_far_it_is_and_takes_the_line_back() {
    let world = small_packs();
    let first = on_terminal(&world, &["backup", "source", "--upload-limit", "1"]);
    assert_eq!(first.code, 0, "{}", first.last);
    first.showed(&[" files  ", "MiB", "/s", "\\u{1b}[31mred\\n/file "]).left_nothing();
    first.never_showed("%  ").never_showed(" left  ");
    let order = |word: &str| first.frames.iter().position(|frame| frame.contains(word));
    assert!(order("finishing").is_none_or(|at| order("/file ") < Some(at)), "{:#?}", first.frames);
    assert!(!has_sgr(&first.raw), "a path, or anything, is coloured: {:?}", first.frames);
    assert!(first.last.starts_with("Snapshot "), "{}", first.last);

    write_files(&world, 1);
    let second = on_terminal(&world, &["backup", "source", "--upload-limit", "0.7"]);
    assert_eq!(second.code, 0, "{}", second.last);
    second.showed(&["%  ", " files  ", " left  ", "file "]).left_nothing();
    assert_eq!(second.last.lines().count(), 5, "only the summary is left: {}", second.last);
}

#[test]
fn a_restore_shows_how_far_it_is_and_warnings_above_that() {
    let world = small_packs();
    world.backup(["source"]).ok();
    let odd = world.folder("out").join(std::ffi::OsStr::from_bytes(ODD));
    fs::create_dir(&odd).unwrap();
    for number in [8, 16, 24] {
        fs::write(odd.join(format!("file {number}")), b"mine").unwrap();
    }
    let seen = on_terminal(&world, &["restore", "latest", "out", "--download-limit", "0.8"]);
    assert_eq!(seen.code, exit::PARTIAL, "{}", seen.last);
    seen.showed(&["%  ", " files  ", " left  "]).left_nothing();
    let complaint = |number| {
        format!("vykar: odd \\u{{1b}}[31mred\\n/file {number}: not restored: exists already; left as it is")
    };
    let lines: Vec<_> = seen.last.lines().map(str::trim_end).collect();
    for number in [8, 16, 24] {
        assert!(lines.contains(&complaint(number).as_str()), "{number} in {lines:?}");
    }
    // The line stays below what is said meanwhile.
    let below = |frame: &String| {
        let mut lines = frame.lines().skip_while(|line| !line.starts_with("vykar: "));
        lines.next().is_some() && lines.any(|line| line.contains("%  ") && line.contains(" files  "))
    };
    assert!(seen.frames.iter().any(below), "{:#?}", seen.frames);
    assert_eq!(lines.len(), 5, "three complaints, the summary and what was not restored: {lines:?}");
}

#[test]
fn an_interrupted_backup_takes_its_line_back() {
    let world = small_packs();
    let running = OnTerminal::start(command(&world, &["backup", "source", "--upload-limit", "0.01"]));
    running.wait_for(" files  ");
    kill_process(Pid::from_child(&running.child), Signal::INT).unwrap();
    let seen = running.finish();
    assert_eq!(seen.code, exit::INTERRUPTED, "{}", seen.last);
    seen.showed(&[" files  "]).left_nothing();
    assert_eq!(seen.last.lines().count(), 1, "{}", seen.last);
}

#[test]
fn there_is_no_line_where_nobody_wants_one() {
    let world = small_packs();
    // Long enough that a line would have been drawn.
    let slow = ["backup", "source", "--upload-limit", "2"];
    let run = world.run(slow).ok();
    assert_eq!(run.stderr, "", "stderr is a file");
    for (round, args) in [&["--quiet"][..], &["--json"], &[]].into_iter().enumerate() {
        write_files(&world, round + 1);
        let mut command = command(&world, &slow);
        if args.is_empty() {
            command.env("TERM", "dumb");
        }
        command.args(args);
        let seen = OnTerminal::start(command).finish();
        assert_eq!(seen.code, 0, "{}", seen.last);
        seen.never_showed(" files  ").never_showed("finishing");
        assert!(!seen.raw.contains(&0x1b), "{args:?}: {:?}", seen.last);
        assert_eq!(seen.raw.is_empty(), args == ["--quiet"], "{:?}", seen.last);
    }
}

#[test]
fn the_summary_says_what_was_new_and_what_it_takes() {
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::write(source.join("text"), "All work and no play. ".repeat(5000)).unwrap();
    fs::write(source.join("noise"), noise(100_000, 1)).unwrap();
    let json = world.backup(["source", "--json"]).ok().json();
    assert_eq!((json["files"]["new"].as_u64(), json["deduplicated"].as_u64()), (Some(2), Some(0)));
    let number = |name: &str| json[name].as_f64().unwrap();
    assert_eq!((number("size"), number("added")), (210_000.0, 210_000.0));
    assert_eq!(number("ratio"), number("added_stored") / 210_000.0);
    assert!((0.45..0.6).contains(&number("ratio")), "one half does not compress: {json}");
    assert!((0.0..60.0).contains(&number("seconds")), "{json}");

    fs::write(source.join("new"), noise(350_000, 1).split_off(100_000)).unwrap();
    let said = world.backup(["source"]).ok().out();
    assert!(said.contains("Files: 3 (1 new, 0 changed, 2 unchanged), 0 directories, 0 symlinks\n"), "{said}");
    assert!(said.contains("Size:  449.2 KiB, 205.1 KiB (45.7%) deduplicated\n"), "{said}");
    assert!(said.contains("Added: 244.1 KiB, stored as 244.1 KiB (100.0%)\n"), "{said}");

    let said = world.backup(["source"]).ok().out();
    assert!(said.contains("Size:  449.2 KiB, 449.2 KiB (100.0%) deduplicated\n"), "{said}");
    assert!(said.contains("Added: 0 B, stored as 0 B\n"), "{said}");
    let json = world.backup(["source", "--json"]).ok().json();
    assert_eq!((json["added"].as_u64(), json["ratio"].is_null()), (Some(0), true));
}
