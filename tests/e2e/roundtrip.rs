//! What goes in comes out: by restore, by mount, and by an independent reader.

use std::fs;
use std::path::Path;

use super::compare::{Leave, read_tree, same, same_to_others};
use super::harness::{World, fingerprint, is_root};
use super::tree::{Parts, generate, noise, prose, set_mode};

/// Backs the source up and compares everything that can be had of it.
fn round_trip(encryption: &str, compression: &str, parts: Parts) {
    let world = World::with_repository(encryption);
    let source = world.path("source");
    generate(&source, parts);
    let before = read_tree(&source);

    world.backup(["source", "--compression", compression, "--label", "generated"]).ok();
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();

    world.run(["restore", "latest", "restored"]).ok();
    same(&before, &source, &world.path("restored"), Leave::default());
    same_to_others(&source, &world.path("restored"));
    holes_are_kept(&source, &world.path("restored"));

    let mount = world.mount();
    same(&before, &source, &mount.latest(), Leave { owner: false, ..Leave::default() });
    same_to_others(&source, &mount.latest());
    let name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    let by_id = mount.path(format!("ids/{name}"));
    same(&before, &source, &by_id, Leave { owner: false, contents: true, ..Leave::default() });
    mount.unmount(&world);
}

/// A restored file must not take more room than its source, give or take a block.
fn holes_are_kept(source: &Path, restored: &Path) {
    use std::os::unix::fs::MetadataExt;
    for name in ["begin", "middle", "end", "all", "combs"] {
        let blocks = |root: &Path| fs::metadata(root.join("sparse").join(name)).unwrap().blocks() * 512;
        let (was, is) = (blocks(source), blocks(restored));
        assert!(is <= was + (64 << 10), "sparse/{name} took {was} bytes on disk and takes {is} restored");
    }
}

#[test]
fn everything_comes_back_with_aes256gcm_and_zstd() {
    needs!(mounts);
    round_trip("aes256gcm", "zstd", Parts { big: true });
}

#[test]
fn everything_comes_back_with_chacha20poly1305_and_lz4() {
    needs!(mounts);
    round_trip("chacha20poly1305", "lz4", Parts { big: true });
}

#[test]
fn everything_comes_back_without_encryption_and_compression() {
    needs!(mounts);
    round_trip("none", "none", Parts { big: true });
}

#[test]
fn everything_comes_back_with_zstd_1() {
    needs!(mounts);
    round_trip("auto", "zstd:1", Parts::default());
}

#[test]
fn every_cipher_goes_with_every_codec() {
    for encryption in ["aes256gcm", "chacha20poly1305", "none"] {
        let world = World::with_repository(encryption);
        let source = world.folder("source");
        for compression in ["zstd", "zstd:19", "lz4", "none"] {
            fs::write(source.join("prose"), prose(300_000)).unwrap();
            fs::write(source.join("noise"), noise(300_000, compression.len() as u64)).unwrap();
            fs::write(source.join("codec"), compression).unwrap();
            let before = read_tree(&source);
            world.backup(["source", "--compression", compression]).ok();
            let restored = world.path(&format!("restored-{compression}"));
            world.run(["restore".as_ref(), "latest".as_ref(), restored.as_os_str()]).ok();
            same(&before, &source, &restored, Leave::default());
        }
        world.run(["check", "--verify-data"]).ok();
        world.oracle_verify();
    }
}

fn stored_bytes(world: &World) -> u64 {
    fingerprint(&world.repo.join("packs")).values().map(|(len, _)| len).sum()
}

#[test]
fn an_unchanged_tree_costs_nothing_and_a_change_costs_itself() {
    const MIB: u64 = 1 << 20;
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    for n in 0..6 {
        fs::write(source.join(format!("file-{n}")), noise(3 * MIB as usize, n)).unwrap();
    }
    world.backup(["source"]).ok();
    let first = stored_bytes(&world);
    assert!(first > 18 * MIB, "{first}");

    world.backup(["source"]).ok();
    let second = stored_bytes(&world) - first;
    assert!(second < 64 << 10, "nothing changed and {second} bytes were added");

    fs::write(source.join("file-3"), noise(2 * MIB as usize, 77)).unwrap();
    world.backup(["source"]).ok();
    let third = stored_bytes(&world) - first - second;
    assert!((2 * MIB..2 * MIB + (128 << 10)).contains(&third), "2 MiB changed, {third} bytes added");

    let info = world.run(["snapshot", "info", "latest", "--json"]).ok().json();
    let text = info.to_string();
    assert!(text.contains("deduplicated_size"), "{text}");

    // The first snapshot still is what it was.
    let first_name = world.snapshots()[0]["name"].as_str().unwrap().to_owned();
    world.run(["restore", &first_name, "old"]).ok();
    assert_eq!(fs::read(world.path("old/file-3")).unwrap(), noise(3 * MIB as usize, 3));
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn the_local_caches_may_be_lost() {
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), noise(3 << 20, 1)).unwrap();
    world.backup(["source"]).ok();
    let first = stored_bytes(&world);
    fs::remove_dir_all(&world.cache).unwrap();
    world.backup(["source"]).ok();
    assert!(stored_bytes(&world) - first < 64 << 10);
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn damaged_local_caches_do_no_harm() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), noise(3 << 20, 1)).unwrap();
    world.backup(["source"]).ok();
    let spoil = |how: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        for (name, (_, kind)) in fingerprint(&world.cache) {
            if kind != "directory" {
                let path = world.cache.join(name);
                fs::write(&path, how(fs::read(&path).unwrap())).unwrap();
            }
        }
    };
    let flip = |mut data: Vec<u8>| {
        let middle = data.len() / 2;
        if let Some(byte) = data.get_mut(middle) {
            *byte ^= 0x55;
        }
        data
    };
    let before = read_tree(&source);
    // Comparing reads the source, and so moves its access times.
    let leave = Leave { atime: true, ..Leave::default() };
    for (n, how) in [&flip as &dyn Fn(Vec<u8>) -> Vec<u8>, &|d| d[..d.len() / 2].to_vec(), &|_| vec![]]
        .into_iter()
        .enumerate()
    {
        spoil(how);
        world.backup(["source"]).ok();
        spoil(how);
        world.run(["list"]).ok();
        let to = format!("restored-{n}");
        world.run(["restore", "latest", &to]).ok();
        same(&before, &source, &world.path(&to), leave);
        spoil(how);
        let mount = world.mount();
        same(&before, &source, &mount.latest(), leave);
        mount.unmount(&world);
    }
    world.run(["check", "--verify-data"]).ok();
    world.oracle_verify();
}

#[test]
fn a_repository_that_cannot_be_written_is_read() {
    let mut world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::write(source.join("file"), b"kept").unwrap();
    world.backup(["source"]).ok();
    silent_chmod(&["-R", "a-w,a+rX"], &world.repo);
    if is_root() {
        world.as_nobody = true;
        world.cache = world.path("no-cache-either");
        set_mode(&world.folder("for-nobody"), 0o777);
    } else {
        world.folder("for-nobody");
    }
    world.run(["list"]).ok();
    world.run(["check"]).ok();
    world.run(["restore", "latest", "for-nobody/out"]).ok();
    assert_eq!(fs::read(world.path("for-nobody/out/file")).unwrap(), b"kept");
    silent_chmod(&["-R", "u+w"], &world.repo);
}

fn silent_chmod(args: &[&str], path: &Path) {
    super::harness::silent(std::process::Command::new("chmod").args(args).arg(path));
}
