//! Repositories that this project did not write, and what must be read from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compare::{Name, join, read_tree};
use super::harness::{World, fingerprint, fixture, hex, is_root, sha256, unhex};

/// Of every repository in `fixtures/` and of the golden ones.
const PASSPHRASE: &str = "correct horse";

/// A line of `items.jsonl`.
#[derive(Debug, Clone)]
struct Wanted {
    kind: String,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i128,
    size: u64,
    sha256: Option<String>,
    target: Option<Vec<u8>>,
    xattrs: BTreeMap<String, Vec<u8>>,
    hardlink: Option<String>,
}

type Items = BTreeMap<Name, Wanted>;

fn number<T: TryFrom<i64>>(value: &Value) -> T {
    let n = value.as_i64().unwrap_or_else(|| panic!("{value} is not a number"));
    T::try_from(n).unwrap_or_else(|_| panic!("{n} is out of range"))
}

/// Reads `items.jsonl`: snapshot name to its items.
fn read_items(path: &Path) -> BTreeMap<String, Items> {
    let mut snapshots: BTreeMap<String, Items> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let v: Value = serde_json::from_str(line).unwrap();
        let bytes = |v: &Value| v.as_str().map(unhex);
        let xattrs = v["xattrs"].as_object().into_iter().flatten();
        let wanted = Wanted {
            kind: v["type"].as_str().unwrap().to_owned(),
            mode: number(&v["mode"]),
            uid: number(&v["uid"]),
            gid: number(&v["gid"]),
            mtime: i128::from(number::<i64>(&v["mtime"])),
            size: number(&v["size"]),
            sha256: v["sha256"].as_str().map(str::to_owned),
            target: bytes(&v["target_bytes"]),
            xattrs: xattrs.map(|(name, value)| (name.clone(), bytes(value).unwrap())).collect(),
            hardlink: (!v["hardlink"].is_null()).then(|| v["hardlink"].to_string()),
        };
        let snapshot = v["snapshot"].as_str().unwrap().to_owned();
        let path = bytes(&v["path_bytes"]).unwrap();
        assert!(snapshots.entry(snapshot).or_default().insert(path, wanted).is_none(), "{line} twice");
    }
    assert!(!snapshots.is_empty(), "{} is empty", path.display());
    snapshots
}

/// Every repository with an `items.jsonl` beside it: three or more.
fn repositories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = entries.filter(|p| p.join("items.jsonl").is_file()).collect();
    assert!(found.len() >= 3, "{}: {found:?}", dir.display());
    found.sort();
    found
}

/// Lists, restores and verifies every repository of a folder.
pub fn read_all(dir: &Path) {
    for fixture in repositories(dir) {
        let world = World::with_copy_of(&fixture.join("repo"), PASSPHRASE);
        let snapshots = read_items(&fixture.join("items.jsonl"));
        let before = fingerprint(&world.repo);
        listed(&world, &snapshots);
        restored(&world, &snapshots);
        assert_eq!(fingerprint(&world.repo), before, "reading {} changed it", fixture.display());
        world.run(["check", "--verify-data"]).ok();
    }
}

/// Mounts every repository of a folder and looks at all of it.
pub fn mount_all(dir: &Path) {
    for fixture in repositories(dir) {
        let world = World::with_copy_of(&fixture.join("repo"), PASSPHRASE);
        let before = fingerprint(&world.repo);
        mounted(&world, &read_items(&fixture.join("items.jsonl")));
        assert_eq!(fingerprint(&world.repo), before, "mounting {} changed it", fixture.display());
    }
}

fn listed(world: &World, snapshots: &BTreeMap<String, Items>) {
    let names: BTreeSet<_> =
        world.snapshots().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, snapshots.keys().cloned().collect());
    for (name, items) in snapshots {
        world.run(["snapshot", "list", name]).ok();
        let list = world.run(["snapshot", "list", name, "--json"]).ok().out();
        assert_eq!(list.lines().count(), items.len(), "snapshot {name}");
        for line in list.lines() {
            let item: Value = serde_json::from_str(line).unwrap();
            let path = match item["path_bytes"].as_str() {
                Some(raw) => unhex(raw),
                None => item["path"].as_str().unwrap().as_bytes().to_vec(),
            };
            let shown = String::from_utf8_lossy(&path).into_owned();
            let wanted = items.get(&path).unwrap_or_else(|| panic!("snapshot {name} lists {shown:?}"));
            assert_eq!(number::<u32>(&item["mode"]) & 0o7777, wanted.mode & 0o7777, "{shown}");
            assert_eq!(number::<u32>(&item["uid"]), wanted.uid, "{shown}");
            assert_eq!(number::<u32>(&item["gid"]), wanted.gid, "{shown}");
            assert_eq!(i128::from(number::<i64>(&item["mtime"])), wanted.mtime, "{shown}");
            let xattrs = item["xattrs"].as_object().into_iter().flatten();
            let xattrs = xattrs.map(|(name, value)| (name.clone(), unhex(value.as_str().unwrap())));
            assert_eq!(xattrs.collect::<BTreeMap<_, _>>(), wanted.xattrs, "{shown}");
            if wanted.kind == "RegularFile" {
                assert_eq!(number::<u64>(&item["size"]), wanted.size, "{shown}");
            }
            if let Some(target) = &wanted.target {
                let exact = item["target_bytes"].as_str().map(unhex);
                let found = exact.or_else(|| item["target"].as_str().map(|t| t.as_bytes().to_vec()));
                assert_eq!(found.as_ref(), Some(target), "{shown}");
            }
        }
    }
}

fn restored(world: &World, snapshots: &BTreeMap<String, Items>) {
    for (name, items) in snapshots {
        let to = world.path(&format!("restored-{name}"));
        let run = world.run(["restore".as_ref(), name.as_ref(), to.as_os_str()]);
        // Odd owners and security attributes are root's to set.
        if is_root() {
            run.ok();
        }
        compare(items, &to, is_root());
    }
}

fn mounted(world: &World, snapshots: &BTreeMap<String, Items>) {
    let mount = world.mount();
    for (name, items) in snapshots {
        compare(items, &mount.path(format!("ids/{name}")), true);
    }
    mount.unmount(world);
}

/// Lets its owner read what may be restored unreadable; the modes that were there before.
fn open_to_owner(items: &Items, root: &Path) -> BTreeMap<Name, u32> {
    let mut before = BTreeMap::new();
    // Directories come before what is in them.
    for (name, item) in items.iter().filter(|(_, item)| item.kind != "Symlink") {
        let path = join(root, name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let needed = if item.kind == "Directory" { 0o500 } else { 0o400 };
        if metadata.mode() & needed != needed {
            fs::set_permissions(&path, fs::Permissions::from_mode(metadata.mode() | needed)).unwrap();
            before.insert(name.clone(), metadata.mode());
        }
    }
    before
}

fn compare(items: &Items, root: &Path, owners: bool) {
    let opened = if owners { BTreeMap::new() } else { open_to_owner(items, root) };
    let found = read_tree(root);
    let mut wanted: BTreeSet<Name> = items.keys().cloned().collect();
    for name in items.keys() {
        let slashes = name.iter().enumerate().filter(|(_, b)| **b == b'/');
        wanted.extend(slashes.map(|(at, _)| name[..at].to_vec()));
    }
    let shown = |names: &BTreeSet<Name>| {
        names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect::<Vec<_>>()
    };
    let found_names: BTreeSet<Name> = found.keys().filter(|n| !n.is_empty()).cloned().collect();
    assert_eq!(shown(&found_names), shown(&wanted), "{}", root.display());

    let mut groups: BTreeMap<&String, BTreeSet<u64>> = BTreeMap::new();
    for (name, item) in items {
        let entry = &found[name];
        let path = join(root, name);
        let at = format!("{}", path.display());
        let kind = match entry.mode & 0o170_000 {
            0o100_000 => "RegularFile",
            0o040_000 => "Directory",
            0o120_000 => "Symlink",
            other => panic!("{at}: type {other:o}"),
        };
        assert_eq!(kind, item.kind, "{at}");
        // Set-id bits come only with their owner.
        let bits = if owners { 0o7777 } else { 0o1777 };
        let mode = opened.get(name).copied().unwrap_or(entry.mode);
        assert_eq!(mode & bits, item.mode & bits, "mode of {at}");
        assert_eq!(entry.mtime, item.mtime, "mtime of {at}");
        assert_eq!(entry.target, item.target, "target of {at}");
        if owners {
            assert_eq!((entry.uid, entry.gid), (item.uid, item.gid), "owner of {at}");
            assert_eq!(entry.xattrs, item.xattrs, "attributes of {at}");
        }
        if item.kind == "RegularFile" {
            assert_eq!(entry.size, item.size, "size of {at}");
            assert_eq!(item.sha256.as_ref(), Some(&sha256(&path)), "content of {at}");
        }
        if let Some(group) = &item.hardlink {
            groups.entry(group).or_default().insert(fs::symlink_metadata(&path).unwrap().ino());
        }
    }
    for (group, inodes) in groups {
        assert_eq!(inodes.len(), 1, "{}: hard link group {group}", root.display());
    }
}

#[test]
fn repositories_of_other_programs_are_read_in_full() {
    read_all(&fixture(""));
}

#[test]
fn repositories_of_other_programs_are_mounted() {
    needs!(mounts);
    mount_all(&fixture(""));
}

#[test]
fn a_backup_goes_on_top_of_another_programs_snapshots() {
    for fixture in repositories(&fixture("")) {
        let world = World::with_copy_of(&fixture.join("repo"), PASSPHRASE);
        let source = world.folder("source");
        fs::write(source.join("new"), b"written on top").unwrap();
        world.backup(["source"]).ok();
        world.run(["check", "--verify-data"]).ok();
        world.oracle_verify();
        for (name, items) in read_items(&fixture.join("items.jsonl")) {
            let to = world.path(&format!("again-{name}"));
            world.run(["restore".as_ref(), name.as_ref(), to.as_os_str()]);
            compare(&items, &to, is_root());
        }
    }
}

#[test]
fn hexadecimal_round_trips() {
    assert_eq!(unhex(&hex(b"\x00\xffab")), b"\x00\xffab");
}
