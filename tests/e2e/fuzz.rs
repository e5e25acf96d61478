//! Every seed of every fuzz target, with each run of the tests (docs/fuzzing.md).

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use vykar_core::format::wire::Reader;
use vykar_core::format::{EncryptedKey, IndexBlob, Item, KeyExport, RepoConfig, SnapshotMeta, pack, pending};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::TARGETS;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_seed_passes_its_target() {
    let mut failed = Vec::new();
    for (target, body) in TARGETS {
        let dir = project().join("fuzz/seeds").join(target);
        let seeds = names(&dir);
        assert!(!seeds.is_empty(), "{} has no seeds", dir.display());
        for seed in seeds {
            let data = fs::read(dir.join(&seed)).unwrap();
            assert!(data.len() <= 16 << 10, "{target}/{seed} is large");
            if catch_unwind(|| body(&data)).is_err() {
                failed.push(format!("{target}/{seed}"));
            }
        }
    }
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
}

#[test]
fn every_fuzz_target_is_known_everywhere() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known.len(), TARGETS.len());
    assert_eq!(names(&project().join("fuzz/seeds")), known);
    let files: BTreeSet<String> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&project().join("fuzz/fuzz_targets")), files);
    let manifest = fs::read_to_string(project().join("fuzz/Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in fuzz/Cargo.toml");
        let file = fs::read_to_string(project().join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(file.contains(&format!("vykar_fuzz::{name}(data)")), "{name} calls another target");
    }
}

/// Seeds that are of no use to their parser try nothing but its first check.
#[test]
fn good_seeds_are_good() {
    let mut tried = BTreeSet::new();
    for (target, _) in TARGETS {
        let dir = project().join("fuzz/seeds").join(target);
        let good = |name: &String| name.starts_with("made-fixture-") || name == "made-good";
        for seed in names(&dir).into_iter().filter(good) {
            let data = fs::read(dir.join(&seed)).unwrap();
            let is_read = match *target {
                "config" => RepoConfig::decode(&data).is_ok(),
                "index" => IndexBlob::decode(&data).is_ok_and(|index| !index.chunks.is_empty()),
                "item" => {
                    matches!(Item::decode(&mut Reader::new(&data)), Ok(Ok(item)) if item.check().is_ok())
                }
                "key" => EncryptedKey::decode(&data).is_ok(),
                "key_text" => std::str::from_utf8(&data).is_ok_and(|text| KeyExport::parse(text).is_ok()),
                "pack" => pack::blobs(&data).is_ok_and(|mut blobs| blobs.next().is_some_and(|b| b.is_ok())),
                "pending" => pending::decode(&data).is_ok_and(|packs| packs.len() == 3),
                "snapshot" => SnapshotMeta::decode(&data).is_ok(),
                _ => continue,
            };
            assert!(is_read, "{target}/{seed}");
            tried.insert(*target);
        }
    }
    assert_eq!(tried.len(), 8, "{tried:?}");
}
