use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::{Encryption, Snapshot};
use crate::maintenance::{CheckOptions, DeleteOptions, check, delete_snapshots};
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::storage::{Backend, PutMode};
use crate::testing::{TestRepository, noise};

fn options() -> CompactOptions {
    CompactOptions::default()
}

fn run(test: &TestRepository, options: &CompactOptions) -> Result<CompactReport> {
    compact(&test.repository, options, None)
}

/// Every file's content, by snapshot and path.
fn contents(test: &TestRepository) -> BTreeMap<(String, String), Vec<u8>> {
    let reader = test.repository.chunk_reader().unwrap();
    let mut all = BTreeMap::new();
    for snapshot in test.repository.manifest().unwrap().snapshots {
        for_each_item(&reader, &snapshot, &mut |found| {
            let FoundItem::Item(item) = found else { panic!("{found:?}") };
            let content =
                item.chunks.iter().flat_map(|c| reader.read_sized(&c.id, c.size).unwrap()).collect();
            all.insert((snapshot.meta.name.clone(), item.path.clone().into_owned()), content);
            Ok(true)
        })
        .unwrap();
    }
    all
}

fn pack_bytes(test: &TestRepository) -> u64 {
    test.backend.list("packs/").unwrap().iter().map(|object| object.size).sum()
}

fn objects(test: &TestRepository) -> BTreeMap<String, Vec<u8>> {
    let all = test.backend.list("").unwrap();
    all.into_iter().map(|o| (o.key.clone(), test.backend.get(&o.key, u64::MAX).unwrap())).collect()
}

/// No damage, nothing unused.
fn assert_spotless(test: &TestRepository) {
    let options = CheckOptions { verify_data: true, ..CheckOptions::default() };
    let report = check(&test.repository, &options, None).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

fn delete(test: &TestRepository, snapshot: &Snapshot) {
    delete_snapshots(&test.repository, &[snapshot.id], &DeleteOptions::default(), None).unwrap();
}

/// Files 0 to 9 in one pack; the first snapshot has all, the second only the first two.
fn two() -> (TestRepository, [Snapshot; 2]) {
    let mut test = TestRepository::with(Encryption::Chacha20Poly1305);
    let files: Vec<_> = (0..10).map(|n| test.file(&format!("file {n}"), &noise(n, 50_000))).collect();
    let all = test.snapshot("all", &files, None);
    let few: Vec<_> = (0..2).map(|n| test.file(&format!("file {n}"), &noise(n, 50_000))).collect();
    let few = test.snapshot("few", &few, None);
    (test, [all, few])
}

#[test]
fn what_is_dead_goes_and_what_lives_is_moved_as_it_is() {
    let (test, [all, few]) = two();
    assert!(run(&test, &options()).unwrap().plan.is_empty());
    delete(&test, &all);
    let before = (contents(&test), pack_bytes(&test));
    let planned = plan_compact(&test.repository, &options(), None).unwrap();
    let report = run(&test, &options()).unwrap();
    assert_eq!((report.packs_written, report.plan.repack.len()), (1, 1), "{report:?}");
    assert_eq!(planned.bytes_freed(), report.bytes_freed());
    assert_eq!(before.1 - pack_bytes(&test), report.bytes_freed());
    assert!(report.bytes_freed() > 400_000);
    assert_eq!(contents(&test), before.0);
    assert_spotless(&test);
    delete(&test, &few);
    run(&test, &options()).unwrap();
    assert_eq!(pack_bytes(&test), 0);
    assert_spotless(&test);
}

#[test]
fn only_packs_that_are_dead_enough_are_rewritten_and_only_so_many_bytes() {
    let (test, [all, _]) = two();
    delete(&test, &all);
    let high = CompactOptions { threshold: 90, ..options() };
    assert_eq!(plan_compact(&test.repository, &high, None).unwrap().repack, []);
    let little = CompactOptions { max_repack_size: Some(1000), ..options() };
    assert_eq!(plan_compact(&test.repository, &little, None).unwrap().repack, []);
    let plan = plan_compact(&test.repository, &CompactOptions { threshold: 80, ..options() }, None).unwrap();
    assert_eq!(plan.repack.len(), 1);
}

#[test]
fn what_interrupted_writers_left_goes() {
    let (mut test, _) = two();
    test.file("never published", &noise(77, 10_000));
    let before = contents(&test);
    test.close_pack();
    // Counts that are too high, as after a commit that was cut off.
    test.index.retain(|_, entry| entry.pack != crate::PackId([0; 32]));
    test.index.values_mut().for_each(|entry| entry.refcount += 3);
    test.publish();
    let journal = format!("sessions/{}.index", "ab".repeat(16));
    test.backend.put(&journal, b"?", PutMode::Replace).unwrap();
    let report = run(&test, &options()).unwrap();
    assert_eq!((report.packs_deleted, report.plan.chunks_dropped), (1, 1), "{report:?}");
    assert!(report.plan.counts_lowered > 10 && !test.backend.exists(&journal).unwrap());
    assert_eq!(contents(&test), before);
    assert_spotless(&test);
}

#[test]
fn many_small_packs_become_one() {
    let mut test = TestRepository::new();
    for n in 0..10 {
        let file = test.file("file", &noise(n, 10_000));
        test.snapshot(&format!("s{n}"), &[file], None);
    }
    let before = contents(&test);
    assert_eq!(test.backend.list("packs/").unwrap().len(), 20);
    let report = run(&test, &options()).unwrap();
    // File contents and item streams are kept apart.
    assert_eq!((report.packs_written, test.backend.list("packs/").unwrap().len()), (2, 2));
    assert_eq!(contents(&test), before);
    assert_spotless(&test);
    assert!(run(&test, &options()).unwrap().plan.is_empty(), "and that is all");
}

/// Nothing is changed while `break_it` is in force.
fn stops(break_it: impl Fn(&mut TestRepository, &Snapshot), says: &str) {
    let (mut test, [all, few]) = two();
    delete(&test, &all);
    let index = test.repository.read_index().unwrap();
    test.index = index.chunks.iter().map(|entry| (entry.id, entry)).collect();
    break_it(&mut test, &few);
    let before = objects(&test);
    let error = run(&test, &options()).unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
    assert!(objects(&test) == before, "{says}");
}

#[test]
fn nothing_is_taken_away_while_anything_is_wrong() {
    stops(
        |test, few| {
            let pointer = few.meta.item_ptrs[0];
            test.index.get_mut(&pointer).unwrap().refcount = 0;
            test.publish();
        },
        "the index counts 0",
    );
    stops(
        |test, few| {
            test.index.remove(&few.meta.item_ptrs[0]);
            test.publish();
        },
        "not in the index",
    );
    stops(
        |test, few| {
            let streams = &few.meta.item_ptrs;
            let file = *test.index.keys().find(|id| !streams.contains(id)).unwrap();
            test.index.remove(&file);
            test.publish();
        },
        "a chunk of it is not in the index",
    );
    stops(
        |test, few| {
            let pack = test.index[&few.meta.item_ptrs[0]].pack;
            let key = pack_key(&pack);
            let data = test.backend.get(&key, u64::MAX).unwrap();
            test.backend.put(&key, &data[..data.len() - 1], PutMode::Replace).unwrap();
        },
        "cannot be used",
    );
    stops(
        |test, few| {
            let streams = &few.meta.item_ptrs;
            let (_, entry) = test.index.iter().find(|(id, _)| !streams.contains(id)).unwrap();
            test.backend.delete(&pack_key(&entry.pack)).unwrap();
        },
        "is missing",
    );
    stops(|test, _| drop(test.put_snapshot(b"?", None)), "snapshot");
    stops(|test, _| drop(test.put_snapshot(&[0xdc, 0, 15, 0xc0], None)), "newer");
}

#[test]
fn nothing_is_taken_from_a_damaged_pack_and_it_stays() {
    let (test, [all, _]) = two();
    let pack = test.index.values().find(|entry| entry.stored_size > 20_000).unwrap().pack;
    delete(&test, &all);
    let key = pack_key(&pack);
    let mut data = test.backend.get(&key, u64::MAX).unwrap();
    // In a chunk that is dead.
    let last = data.len() - 1;
    data[last] ^= 1;
    test.backend.put(&key, &data, PutMode::Replace).unwrap();
    let before = contents(&test);
    let report = run(&test, &options()).unwrap();
    assert_eq!((report.damaged.len(), report.damaged[0].0), (1, pack));
    assert!(test.backend.exists(&key).unwrap());
    assert_eq!(contents(&test), before);
}

#[test]
fn a_cancelled_run_stops_between_packs_and_the_next_one_goes_on() {
    let (test, [all, _]) = two();
    delete(&test, &all);
    let cancelled = CompactOptions { cancel: Arc::new(true.into()), ..options() };
    assert!(matches!(run(&test, &cancelled), Err(VykarError::Interrupted)));
    let before = contents(&test);
    assert!(run(&test, &options()).unwrap().bytes_freed() > 0);
    assert_eq!(contents(&test), before);
    assert_spotless(&test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_deleted_the_rest_stays_as_it_was(
        files in prop::collection::vec(prop::collection::vec(0u64..12, 1..5), 1..8),
        doomed: u8,
        threshold in 0u8..=100,
    ) {
        let mut test = TestRepository::new();
        test.chunk_size = 3000;
        let mut snapshots = Vec::new();
        for (n, seeds) in files.iter().enumerate() {
            let mut items = Vec::new();
            for seed in seeds.iter().collect::<std::collections::BTreeSet<_>>() {
                items.push(test.file(&format!("file {seed}"), &noise(*seed, 2000 + 700 * *seed as usize)));
            }
            snapshots.push(test.snapshot(&format!("s{n}"), &items, None));
        }
        for (n, snapshot) in snapshots.iter().enumerate() {
            if doomed >> n & 1 == 1 {
                delete(&test, snapshot);
            }
        }
        let before = (contents(&test), pack_bytes(&test));
        let options = CompactOptions { threshold, ..options() };
        let report = run(&test, &options).unwrap();
        prop_assert_eq!(&contents(&test), &before.0);
        prop_assert_eq!(before.1 - pack_bytes(&test), report.bytes_freed());
        let check_options = CheckOptions { verify_data: true, ..CheckOptions::default() };
        let checked = check(&test.repository, &check_options, None).unwrap();
        prop_assert!(checked.findings.is_empty(), "{:?}", checked.findings);
        prop_assert!(run(&test, &options).unwrap().plan.repack.is_empty(), "once is enough");
    }
}
