//! Programs that are killed, storage that fails, and everything at once.
//!
//! In the normal suite some hundred kills; with `VYKAR_TORTURE=1` (`make torture`) some thousand.

mod kills;
mod pairs;
mod storage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use vykar_core::maintenance::{CheckOptions, Severity, check};
use vykar_core::repository::read::items::{FoundItem, for_each_item};
use vykar_core::repository::{OpenOptions, Repository};
use vykar_core::storage::LocalBackend;

use super::harness::World;
use super::random::Dice;
use super::tree::noise;

/// True when there is time for everything.
fn is_thorough() -> bool {
    std::env::var_os("VYKAR_TORTURE").is_some()
}

/// Files of a snapshot, with their contents.
type Files = BTreeMap<String, Vec<u8>>;

/// Without a cipher, so that no key is derived each time, and with small packs.
fn world() -> World {
    let world = World::new();
    world.run(["init", "--encryption", "none", "--min-pack-size", "64K", "--max-pack-size", "64K"]).ok();
    world
}

/// Writes a source of some files, of which every other one changes from round to round.
fn change(world: &World, source: &str, round: u64) -> Files {
    let folder = world.folder(source);
    let mut files = Files::new();
    for n in 0..12 {
        let seed = if n % 2 == 0 { n } else { n + 1000 * (round + 1) };
        let content = noise(3000 + 4000 * n as usize, seed);
        fs::write(folder.join(format!("file {n}")), &content).unwrap();
        files.insert(format!("file {n}"), content);
    }
    files
}

fn open(world: &World) -> Repository {
    let backend = Arc::new(LocalBackend::new(&world.repo));
    Repository::open(backend, &mut || unreachable!(), &OpenOptions::default()).unwrap()
}

/// Contents of every snapshot, by its id, read without the program.
fn snapshots(world: &World) -> BTreeMap<String, Files> {
    let repository = open(world);
    let reader = repository.chunk_reader().unwrap();
    let mut all = BTreeMap::new();
    let manifest = repository.manifest().unwrap();
    assert!(manifest.unreadable.is_empty(), "{:?}", manifest.unreadable);
    for snapshot in manifest.snapshots {
        let mut files = Files::new();
        for_each_item(&reader, &snapshot, &mut |found| {
            let FoundItem::Item(item) = found else { panic!("{found:?}") };
            let content = item.chunks.iter().flat_map(|c| reader.read_sized(&c.id, c.size).unwrap());
            files.insert(item.path.clone().into_owned(), content.collect());
            Ok(true)
        })
        .unwrap();
        all.insert(snapshot.id.to_string(), files);
    }
    all
}

/// Nothing in it is damaged; what is too much is harmless.
fn assert_sound(world: &World, when: &str) {
    let options = CheckOptions { verify_data: true, threads: 1, ..CheckOptions::default() };
    let report = check(&open(world), &options, None).unwrap();
    let damage = report.findings.iter().filter(|finding| finding.severity() == Severity::Damage);
    let damage: Vec<_> = damage.map(ToString::to_string).collect();
    assert!(damage.is_empty(), "{when}: {damage:#?}");
}

/// What is below a folder is exactly this.
fn assert_holds(folder: &Path, files: &Files) {
    assert_eq!(fs::read_dir(folder).unwrap().count(), files.len(), "{}", folder.display());
    for (name, content) in files {
        assert!(fs::read(folder.join(name)).unwrap() == *content, "{name} differs");
    }
}
