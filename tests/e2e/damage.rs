//! What goes wrong is said once, with the right exit code, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vykar_core::format::wire::encode;
use vykar_core::format::{Item, ItemType};

use super::craft::Crafted;
use super::harness::{Run, World, exit, fingerprint, is_mounted};
use super::tree::noise;

/// A repository with a small snapshot.
fn with_snapshot(encryption: &str) -> World {
    let world = World::with_repository(encryption);
    let source = world.folder("source");
    fs::create_dir(source.join("folder")).unwrap();
    fs::write(source.join("folder/file"), noise(200_000, 1)).unwrap();
    fs::write(source.join("other"), b"other content").unwrap();
    world.backup(["source"]).ok();
    world
}

/// Commands that only read, with their arguments.
fn readers(world: &World) -> Vec<Vec<String>> {
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let mount = world.folder("mountpoint").display().to_string();
    vec![
        line(&["list"]),
        line(&["list", "--json"]),
        line(&["snapshot", "list", "latest"]),
        line(&["snapshot", "info", "latest"]),
        line(&["restore", "latest", "restored"]),
        line(&["check"]),
        line(&["mount", &mount, "--background"]),
        line(&["backup", "source"]),
    ]
}

/// Every command must fail with this code and one message, and leave the repository alone.
fn all_refuse(world: &World, code: i32) {
    let before = fingerprint(&world.repo);
    for args in readers(world) {
        world.run(&args).exits(code).one_message();
        assert_eq!(fingerprint(&world.repo), before, "{args:?} changed the repository");
        assert!(!world.path("restored").exists(), "{args:?} restored something");
    }
    assert!(!is_mounted(&world.path("mountpoint")));
}

#[test]
fn a_wrong_passphrase_opens_nothing() {
    for encryption in ["aes256gcm", "chacha20poly1305"] {
        let mut world = with_snapshot(encryption);
        world.passphrase = "guess".into();
        all_refuse(&world, exit::PASSPHRASE);
        world.passphrase = String::new();
        world.run(["list"]).exits(exit::PASSPHRASE).one_message();
    }
}

#[test]
fn no_passphrase_and_no_terminal_is_said() {
    let world = with_snapshot("aes256gcm");
    let mut command = world.command();
    command.env_remove("VYKAR_PASSPHRASE").arg("-R").arg(&world.repo).arg("list");
    world.finish(command).exits(exit::PASSPHRASE).one_message();
    let mut command = world.command();
    command.env("VYKAR_PASSCOMMAND", "exit 7").env_remove("VYKAR_PASSPHRASE");
    command.arg("-R").arg(&world.repo).arg("list");
    world.finish(command).exits(exit::PASSPHRASE).one_message();
}

#[test]
fn an_absent_folder_is_no_repository() {
    let world = World::new();
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    all_refuse(&world, exit::NO_REPOSITORY);
    assert!(!world.repo.exists(), "a command made the folder");
}

#[test]
fn a_foreign_folder_is_no_repository() {
    let world = World::new();
    fs::write(world.folder("source").join("file"), b"x").unwrap();
    fs::create_dir(&world.repo).unwrap();
    fs::write(world.repo.join("letter.txt"), b"Dear Sir").unwrap();
    all_refuse(&world, exit::NO_REPOSITORY);
    let before = fingerprint(&world.repo);
    let run = world.run(["init", "--encryption", "none"]).one_message();
    assert_ne!(run.code, 0, "{run}");
    assert_eq!(fingerprint(&world.repo), before);
    // A config that is some other program's.
    fs::write(world.repo.join("config"), b"[core]\n\tbare = false\n").unwrap();
    let run = world.run(["list"]).one_message();
    assert!([exit::NO_REPOSITORY, exit::DAMAGED].contains(&run.code), "{run}");
}

#[test]
fn init_never_touches_a_repository() {
    let world = with_snapshot("aes256gcm");
    let before = fingerprint(&world.repo);
    let run = world.run(["init", "--encryption", "none"]).one_message();
    assert_ne!(run.code, 0, "{run}");
    assert_eq!(fingerprint(&world.repo), before);
    world.run(["list"]).ok();
}

fn truncate(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// Cuts an object in several places; `test` runs after each.
fn with_truncations(world: &World, key: &Path, mut test: impl FnMut(u64)) {
    let path = world.repo.join(key);
    let whole = fs::read(&path).unwrap();
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        truncate(&path, len as u64);
        test(len as u64);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_truncated_config_key_or_index_stops_every_command() {
    for encryption in ["aes256gcm", "none"] {
        let world = with_snapshot(encryption);
        let keyed = ["config", "keys/repokey", "index"];
        for key in keyed.iter().filter(|k| **k != "keys/repokey" || encryption != "none") {
            with_truncations(&world, Path::new(key), |len| {
                let before = fingerprint(&world.repo);
                for args in readers(&world) {
                    let listing = args[0] == "list" || args.get(1).is_some_and(|a| a == "info");
                    if *key == "index" && (listing || args[0] == "mount") {
                        // These need no index, or not yet.
                        continue;
                    }
                    let run = world.run(&args).exits(exit::DAMAGED);
                    // What a check finds is its output, not its failure.
                    let run = if args[0] == "check" { run } else { run.one_message() };
                    let said = run.out() + &run.stderr;
                    assert!(said.contains(key.rsplit('/').next().unwrap()), "{run} should name {key}");
                    assert_eq!(fingerprint(&world.repo), before, "{key} cut to {len}: {args:?} wrote");
                }
            });
        }
        world.run(["check", "--verify-data"]).ok();
    }
}

fn snapshot_files(world: &World) -> Vec<PathBuf> {
    let names = fingerprint(&world.repo).into_keys();
    names.filter(|n| n.starts_with("snapshots") && n.components().count() == 2).collect()
}

#[test]
fn a_truncated_snapshot_is_named_and_costs_only_itself() {
    needs!(mounts);
    let world = with_snapshot("aes256gcm");
    let bad = snapshot_files(&world).remove(0);
    let bad_id = bad.file_name().unwrap().to_str().unwrap().to_owned();
    fs::write(world.path("source/more"), b"second snapshot").unwrap();
    world.backup(["source"]).ok();
    with_truncations(&world, &bad, |_| {
        let before = fingerprint(&world.repo);
        // The other one can be listed and restored; the bad one is named.
        let run = world.run(["list"]);
        assert!(run.stderr.contains(&bad_id[..8]), "{run} should name {bad_id}");
        world.run(["restore", "latest", "restored"]).ok();
        fs::remove_dir_all(world.path("restored")).unwrap();
        world.run(["snapshot", "list", &bad_id]).exits(exit::DAMAGED).one_message();
        world.run(["snapshot", "info", &bad_id[..10]]).exits(exit::DAMAGED).one_message();
        world.run(["restore", &bad_id, "restored"]).exits(exit::DAMAGED).one_message();
        let run = world.run(["check"]).exits(exit::DAMAGED);
        assert!(run.stderr.contains(&bad_id[..8]) || run.out().contains(&bad_id[..8]), "{run}");
        let mount = world.mount();
        assert_eq!(fs::read(mount.latest().join("more")).unwrap(), b"second snapshot");
        mount.unmount(&world);
        assert_eq!(fingerprint(&world.repo), before);
    });
    world.run(["check", "--verify-data"]).ok();
}

/// The pack of the large file, and that of the items.
fn packs(world: &World) -> (PathBuf, PathBuf) {
    let mut found: Vec<_> = fingerprint(&world.repo)
        .into_iter()
        .filter(|(name, (_, kind))| name.starts_with("packs") && kind != "directory")
        .map(|(name, (len, _))| (len, name))
        .collect();
    found.sort();
    assert_eq!(found.len(), 2, "{found:?}");
    let data = found.pop().unwrap().1;
    (data, found.pop().unwrap().1)
}

#[test]
fn a_truncated_data_pack_costs_its_files_and_is_found() {
    needs!(mounts);
    for encryption in ["aes256gcm", "none"] {
        let world = with_snapshot(encryption);
        let (data, _) = packs(&world);
        let pack = data.file_name().unwrap().to_str().unwrap()[..8].to_owned();
        with_truncations(&world, &data, |len| {
            let before = fingerprint(&world.repo);
            let named = |run: &Run| run.stderr.contains(&pack) || run.out().contains(&pack);
            let run = world.run(["check"]).exits(exit::DAMAGED);
            assert!(named(&run), "{run} should name pack {pack}, cut to {len}");
            world.run(["check", "--verify-data"]).exits(exit::DAMAGED);

            // What can be had is restored, what cannot is named; nothing half is left as if whole.
            let run = world.run(["restore", "latest", "restored"]).exits(exit::PARTIAL);
            assert!(run.stderr.contains("file") || run.stderr.contains("other"), "{run}");
            for (name, content) in [("folder/file", noise(200_000, 1)), ("other", b"other content".to_vec())]
            {
                if let Ok(found) = fs::read(world.path("restored").join(name)) {
                    let reported = run.stderr.contains(name);
                    assert!(found == content || reported, "{name} is wrong and not reported: {run}");
                }
            }
            let _ = fs::remove_dir_all(world.path("restored"));

            let mount = world.mount();
            let results: Vec<_> = ["folder/file", "other"].map(|n| fs::read(mount.latest().join(n))).into();
            let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
            assert!(!errors.is_empty(), "cut to {len}: both files were read");
            for e in errors {
                assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{e}");
            }
            mount.unmount(&world);
            assert_eq!(fingerprint(&world.repo), before);
        });
        world.run(["check", "--verify-data"]).ok();
    }
}

#[test]
fn a_truncated_tree_pack_is_found() {
    let world = with_snapshot("aes256gcm");
    let (_, tree) = packs(&world);
    with_truncations(&world, &tree, |_| {
        let before = fingerprint(&world.repo);
        world.run(["check"]).exits(exit::DAMAGED);
        let run = world.run(["snapshot", "list", "latest"]);
        assert!(run.code != 0 && !run.stderr.is_empty(), "{run}");
        let run = world.run(["restore", "latest", "restored"]);
        assert!(run.code != 0 && !run.stderr.is_empty(), "{run}");
        let _ = fs::remove_dir_all(world.path("restored"));
        assert_eq!(fingerprint(&world.repo), before);
    });
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let world = with_snapshot("aes256gcm");
    let files = fingerprint(&world.repo);
    for (name, (len, kind)) in files.iter().filter(|(_, (_, kind))| kind != "directory") {
        let path = world.repo.join(name);
        let whole = fs::read(&path).unwrap();
        for at in [0, len / 3, len - 1] {
            let mut bad = whole.clone();
            bad[at as usize] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let run = world.run(["check", "--verify-data"]);
            match name.to_str() {
                // A hint; nothing relies on it.
                Some("index.gen") => assert_eq!(run.code, 0, "{run}"),
                // A wrong wrapped key looks like a wrong passphrase.
                Some("keys/repokey") => {
                    assert!([exit::PASSPHRASE, exit::DAMAGED].contains(&run.code), "{run}");
                }
                // Not sealed: a changed date or pack size is as good as the one before.
                Some("config") => {}
                _ => assert_eq!(run.code, exit::DAMAGED, "byte {at} of {} ({kind}): {run}", name.display()),
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    world.run(["check", "--verify-data"]).ok();
}

#[test]
fn a_missing_index_or_pack_is_damage() {
    let world = with_snapshot("aes256gcm");
    let (data, _) = packs(&world);
    for key in [Path::new("index"), &data] {
        let path = world.repo.join(key);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let before = fingerprint(&world.repo);
        world.run(["check"]).exits(exit::DAMAGED);
        if key == Path::new("index") {
            world.backup(["source"]).exits(exit::DAMAGED).one_message();
        }
        assert_eq!(fingerprint(&world.repo), before);
        fs::write(&path, whole).unwrap();
    }
    world.run(["check", "--verify-data"]).ok();
}

#[test]
fn a_changed_identity_is_refused_until_trusted() {
    let world = with_snapshot("aes256gcm");
    // Somebody puts a repository without encryption in its place.
    fs::rename(&world.repo, world.path("real")).unwrap();
    let other = world.path("other-cache");
    let mut init = world.command();
    init.env("VYKAR_CACHE_DIR", other).arg("-R").arg(&world.repo).args(["init", "--encryption", "none"]);
    world.finish(init).ok();

    all_refuse(&world, exit::NO_REPOSITORY);
    world.run(["--trust-repo", "list"]).ok();
    // From then on that one is the known one.
    world.run(["list"]).ok();
    world.backup(["source"]).ok();
    fs::remove_dir_all(&world.repo).unwrap();
    fs::rename(world.path("real"), &world.repo).unwrap();
    world.run(["list"]).exits(exit::NO_REPOSITORY).one_message();
}

/// Restores a crafted snapshot beside a folder that it must not reach.
fn restore_crafted(crafted: Crafted) -> (World, Run) {
    let world = World::new();
    crafted.write(&world.repo);
    let outside = world.folder("outside");
    fs::write(outside.join("precious"), b"precious").unwrap();
    let run = world.run(["restore", "latest", "dest"]);
    let left: Vec<_> = fingerprint(&outside).into_iter().collect();
    assert_eq!(left.len(), 1, "written outside of DEST: {left:?}");
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    (world, run)
}

#[test]
fn items_that_point_outside_are_left_out() {
    needs!(mounts);
    let crafted = Crafted::new()
        .file("../outside/precious", b"overwritten")
        .file("/tmp/vykar-e2e-absolute", b"absolute")
        .file("good/../../outside/new", b"dots inside")
        .dir("..")
        .file("fine", b"fine");
    let (world, run) = restore_crafted(crafted);
    run.exits(exit::PARTIAL);
    assert_eq!(fs::read(world.path("dest/fine")).unwrap(), b"fine");
    assert!(!Path::new("/tmp/vykar-e2e-absolute").exists());
    assert_eq!(fs::read_dir(world.path("dest")).unwrap().count(), 1);
    let mount = world.mount();
    let names: Vec<_> = fs::read_dir(mount.latest()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["fine"]);
}

/// Linux asks a mount for at most 4096 bytes of a list, and refuses the file where there are more.
#[test]
fn a_file_with_a_list_of_more_rights_than_a_page_holds_can_be_opened() {
    needs!(root);
    needs!(mounts);
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let users = (0..600).flat_map(|n| entry(2, 4, 100_000 + n));
    let nobody = u32::MAX;
    let before = [2u32.to_le_bytes().to_vec(), entry(1, 6, nobody)].concat();
    let after = [entry(4, 4, nobody), entry(0x10, 4, nobody), entry(0x20, 0, nobody)].concat();
    let list: Vec<u8> = before.into_iter().chain(users).chain(after).collect();
    assert!(list.len() > 4096);
    let mut crafted = Crafted::new();
    let chunk = crafted.chunk(b"hello");
    let crafted = crafted.item(&Item {
        mode: 0o100_640,
        uid: 1001,
        size: 5,
        chunks: vec![chunk],
        xattrs: Some(vec![("system.posix_acl_access".into(), list.into())]),
        ..Item::new("shared", ItemType::RegularFile)
    });
    let world = World::new();
    crafted.write(&world.repo);
    let mount = world.mount_with(&["--allow-other"]);
    assert_eq!(fs::read(mount.latest().join("shared")).unwrap(), b"hello");
    // Not known in full is not given: nobody else may open it.
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .arg(mount.latest().join("shared"))
        .output()
        .unwrap();
    assert!(!stranger.status.success());
}

#[test]
fn restore_does_not_follow_the_snapshots_own_symlinks() {
    let crafted = Crafted::new()
        .symlink("door", "../outside")
        .file("door/precious", b"overwritten")
        .file("door/new", b"new")
        .dir("door/folder")
        .file("fine", b"fine");
    let (world, run) = restore_crafted(crafted);
    assert_ne!(run.code, 0, "{run}");
    assert_eq!(fs::read(world.path("dest/fine")).unwrap(), b"fine");
}

#[test]
fn restore_does_not_follow_symlinks_that_lie_in_the_destination() {
    let world = with_snapshot("aes256gcm");
    let outside = world.folder("outside");
    fs::write(outside.join("file"), b"precious").unwrap();
    let dest = world.folder("dest");
    std::os::unix::fs::symlink("../outside", dest.join("folder")).unwrap();
    let run = world.run(["restore", "latest", "dest"]);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious", "{run}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{run}");
}

#[test]
fn of_one_path_twice_a_restore_and_a_mount_take_the_first_and_name_the_others() {
    needs!(mounts);
    let crafted =
        Crafted::new().file("same", b"first").file("same", b"second").dir("same").file("fine", b"1");
    let (world, run) = restore_crafted(crafted);
    let run = run.exits(exit::PARTIAL);
    let named = |text: &str| text.matches("same").filter(|_| text.contains("the first one counts")).count();
    assert_eq!(named(&run.stderr), 2, "{run}");
    let mount = world.mount();
    for folder in [world.path("dest"), mount.latest()] {
        assert_eq!(fs::read(folder.join("fine")).unwrap(), b"1");
        assert_eq!(fs::read(folder.join("same")).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }
    assert_eq!(named(&world.mount_log()), 2, "{}", world.mount_log());
}

#[test]
fn what_a_newer_program_wrote_is_reported_and_the_rest_is_read() {
    let newer_item = encode("item", &vec!["x"; 20]).unwrap();
    let mut fifo = encode("item", &Item::new("pipe", ItemType::Directory)).unwrap();
    let at = fifo.windows(10).position(|w| w == b"\xa9Directory").unwrap();
    fifo.splice(at..at + 10, *b"\xa4Fifo");
    let (world, run) = restore_crafted(Crafted::new().raw(&newer_item).raw(&fifo).file("fine", b"fine"));
    run.exits(exit::PARTIAL).says("newer");
    assert_eq!(fs::read(world.path("dest/fine")).unwrap(), b"fine");

    let mut newer = Crafted::new().file("fine", b"fine");
    newer.format_version = 2;
    let world = World::new();
    let id = newer.write(&world.repo);
    let before = fingerprint(&world.repo);
    let run = world.run(["snapshot", "list", &id]).says("newer");
    assert_ne!(run.code, 0);
    world.run(["list"]).says("newer");
    let run = world.run(["check"]);
    assert!(!run.stderr.contains("damaged") && !run.stderr.contains("corrupt"), "{run}");
    assert_eq!(fingerprint(&world.repo), before);
}

#[test]
fn names_from_the_repository_cannot_shape_the_mount() {
    needs!(mounts);
    let mut crafted = Crafted::new().file("fine", b"fine");
    crafted.source_label = "../../evil".into();
    crafted.hostname = "..".into();
    let world = World::new();
    crafted.write(&world.repo);
    let mount = world.mount();
    let names = |dir: &str| {
        let entries = fs::read_dir(mount.path(dir)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    for dir in ["labels", "hosts"] {
        let found = names(dir);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains('%') && !found[0].contains('/'), "{found:?}");
        assert_eq!(fs::read(mount.path(dir).join(&found[0]).join("latest/fine")).unwrap(), b"fine");
    }
}
