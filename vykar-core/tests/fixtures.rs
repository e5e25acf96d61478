//! Repositories in the published format, by another program and by earlier versions of this one: what is read from them must be
//! what their `items.jsonl` says, and cutting their files again must give the chunks they have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use vykar_core::codec::Chunker;
use vykar_core::codec::chunker::SEGMENT;
use vykar_core::format::{Item, ItemType};
use vykar_core::repository::read::items::{FoundItem, for_each_item};
use vykar_core::repository::{ChunkReader, OpenOptions, Repository};
use vykar_core::storage::LocalBackend;

/// The folders of the fixtures and of the golden repositories that this project wrote: three of each.
fn fixtures() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let list = |name: &str| {
        let entries = std::fs::read_dir(tests.join(name)).unwrap_or_else(|e| panic!("tests/{name}: {e}"));
        let found: Vec<_> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
        assert!(found.len() >= 3, "{found:?}");
        found
    };
    [list("golden"), list("fixtures")].concat()
}

fn open(fixture: &Path) -> Repository {
    let backend = Arc::new(LocalBackend::new(fixture.join("repo")));
    let mut passphrase = || Ok("correct horse".to_owned().into());
    Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").unwrap();
        s
    })
}

fn content(reader: &ChunkReader, item: &Item<'_>) -> Vec<u8> {
    item.chunks.iter().flat_map(|c| reader.read_sized(&c.id, c.size).unwrap()).collect()
}

/// An item as a line of `items.jsonl`.
fn line(reader: &ChunkReader, snapshot: &str, item: &Item<'_>) -> Value {
    let kind = match item.kind {
        ItemType::RegularFile => "RegularFile",
        ItemType::Directory => "Directory",
        ItemType::Symlink => "Symlink",
        other => panic!("{other:?} in a stream"),
    };
    let xattrs = item.xattrs.as_ref().map(|list| -> BTreeMap<_, _> {
        list.iter().map(|(name, value)| (name.to_string(), hex(value))).collect()
    });
    let mut line = serde_json::json!({
        "snapshot": snapshot,
        "path_bytes": hex(item.path_bytes()),
        "type": kind,
        "mode": item.mode,
        "uid": item.uid,
        "gid": item.gid,
        "mtime": item.mtime,
        "size": item.size,
        "hardlink": item.hardlink,
        "xattrs": xattrs,
    });
    if item.kind == ItemType::RegularFile {
        line["sha256"] = hex(&Sha256::digest(content(reader, item))).into();
    }
    if let Some(target) = item.target_bytes() {
        line["target_bytes"] = hex(target).into();
    }
    line
}

fn for_each(fixture: &Path, mut check: impl FnMut(&Repository, &ChunkReader, &str, Item<'_>)) {
    let repository = open(fixture);
    let reader = repository.chunk_reader().unwrap();
    let manifest = repository.manifest().unwrap();
    assert!(manifest.unreadable.is_empty());
    for snapshot in &manifest.snapshots {
        for_each_item(&reader, snapshot, &mut |found| match found {
            FoundItem::Item(item) => {
                check(&repository, &reader, &snapshot.meta.name, item);
                Ok(true)
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    }
}

#[test]
fn every_item_reads_as_its_fixture_says() {
    for fixture in fixtures() {
        let text = std::fs::read_to_string(fixture.join("items.jsonl")).unwrap();
        let mut expected: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let named: BTreeSet<_> =
            expected.iter().map(|v| v["snapshot"].as_str().unwrap().to_owned()).collect();
        let mut found = Vec::new();
        for_each(&fixture, |_, reader, name, item| {
            if named.contains(name) {
                found.push(line(reader, name, &item));
            }
        });
        expected.sort_by_key(Value::to_string);
        found.sort_by_key(Value::to_string);
        assert!(!expected.is_empty(), "{}", fixture.display());
        assert_eq!(found.len(), expected.len(), "{}", fixture.display());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{}", fixture.display());
        }
    }
}

#[test]
fn cutting_their_files_gives_their_chunks() {
    for fixture in fixtures() {
        let mut chunks = 0;
        for_each(&fixture, |repository, reader, _, item| {
            let chunker = Chunker::new(repository.config().chunker);
            let data = content(reader, &item);
            let cut: Vec<_> = data
                .chunks(SEGMENT as usize)
                .flat_map(|segment| chunker.cut(segment))
                .map(|chunk| repository.keys().hasher().chunk_id(chunk).unwrap())
                .collect();
            let stored: Vec<_> = item.chunks.iter().map(|c| c.id).collect();
            assert_eq!(cut, stored, "{}: {}", fixture.display(), item.path);
            chunks += cut.len();
        });
        assert!(chunks > 0, "{}", fixture.display());
    }
}

#[test]
fn a_wrong_passphrase_is_told_apart() {
    let sealed = |fixture: &PathBuf| !fixture.ends_with("plain-stored") && !fixture.ends_with("none-none");
    let sealed: Vec<_> = fixtures().into_iter().filter(sealed).collect();
    assert!(sealed.len() >= 4, "{sealed:?}");
    for fixture in sealed {
        let backend = Arc::new(LocalBackend::new(fixture.join("repo")));
        let opened =
            Repository::open(backend, &mut || Ok("incorrect".to_owned().into()), &OpenOptions::default());
        assert!(matches!(opened.err(), Some(vykar_core::VykarError::WrongPassphrase { .. })));
    }
}
