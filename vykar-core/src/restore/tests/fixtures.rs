use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::testing::{Fixture, fixtures, is_root, unhex};

#[test]
fn repositories_of_other_programs_are_restored_exactly() {
    for fixture in fixtures() {
        let manifest = fixture.repository.manifest().unwrap();
        assert!(manifest.unreadable.is_empty() && !manifest.snapshots.is_empty());
        let mut seen = 0;
        for snapshot in &manifest.snapshots {
            seen += compare(&fixture, snapshot);
        }
        assert_eq!(seen, fixture.items.len(), "{}", fixture.name);
    }
}

fn compare(fixture: &Fixture, snapshot: &Snapshot) -> usize {
    let options = RestoreOptions { numeric_ids: true, ..Default::default() };
    let restored = run_in(tempfile::tempdir().unwrap(), &fixture.repository, snapshot, &options);
    assert_eq!(restored.failed, [""; 0], "{}", fixture.name);
    let found = walk(&restored.dest());
    let wanted: Vec<_> =
        fixture.items.iter().filter(|i| i["snapshot"] == snapshot.meta.name.as_str()).collect();
    let mut links = BTreeMap::new();
    for item in &wanted {
        let path = unhex(item["path_bytes"].as_str().unwrap());
        let full = restored.dest().join(OsStr::from_bytes(&path));
        let what = format!("{} {} {}", fixture.name, snapshot.meta.name, full.display());
        let metadata = &found[&path];
        let mtime = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        assert_eq!(mtime, item["mtime"].as_i64().unwrap(), "{what}");
        if is_root() {
            let owner = [metadata.uid(), metadata.gid()].map(u64::from);
            assert_eq!(owner, [item["uid"].as_u64().unwrap(), item["gid"].as_u64().unwrap()], "{what}");
            assert_eq!(
                u64::from(metadata.mode() & 0o7777),
                item["mode"].as_u64().unwrap() & 0o7777,
                "{what}"
            );
        }
        for (name, value) in item["xattrs"].as_object().into_iter().flatten() {
            assert_eq!(xattr(&full, name), Some(unhex(value.as_str().unwrap())), "{what} {name}");
        }
        match item["type"].as_str().unwrap() {
            "RegularFile" => {
                open_to_owner(&full);
                let content = fs::read(&full).unwrap();
                assert_eq!(content.len() as u64, item["size"].as_u64().unwrap(), "{what}");
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
                assert_eq!(hash.as_ref(), unhex(item["sha256"].as_str().unwrap()), "{what}");
                if !item["hardlink"].is_null() {
                    let first = *links.entry(item["hardlink"].to_string()).or_insert(metadata.ino());
                    assert_eq!(first, metadata.ino(), "{what}");
                }
            }
            "Symlink" => {
                let target = fs::read_link(&full).unwrap();
                assert_eq!(
                    target.as_os_str().as_bytes(),
                    unhex(item["target_bytes"].as_str().unwrap()),
                    "{what}"
                );
            }
            _ => assert!(metadata.is_dir(), "{what}"),
        }
    }
    // Beyond the items there are only the directories above them.
    let extra = found
        .iter()
        .filter(|(path, _)| !wanted.iter().any(|item| unhex(item["path_bytes"].as_str().unwrap()) == **path));
    for (path, metadata) in extra {
        assert!(metadata.is_dir() && metadata.mode() & 0o7777 == 0o700, "{}", String::from_utf8_lossy(path));
    }
    wanted.len()
}

#[test]
fn holes_stay_holes() {
    let mut checked = 0;
    for fixture in fixtures() {
        let Some(item) = fixture.items.iter().find(|i| i["path_bytes"] == "737061727365") else { continue };
        let manifest = fixture.repository.manifest().unwrap();
        let snapshot = manifest.resolve(item["snapshot"].as_str().unwrap()).unwrap();
        let around = tempfile::tempdir().unwrap();
        let restored = run_in(around, &fixture.repository, snapshot, &only(&["sparse"]));
        let metadata = restored.metadata("sparse");
        assert!(
            metadata.blocks() * 512 < metadata.len() / 4,
            "{} of {}",
            metadata.blocks() * 512,
            metadata.len()
        );
        checked += 1;
    }
    assert_eq!(checked, 2, "all but plain-stored have a sparse file");
}
