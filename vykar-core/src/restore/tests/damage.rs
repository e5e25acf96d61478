use super::*;
use crate::format::Item;
use crate::repository::{RefreshingReader, pack_key};
use crate::storage::{Backend, PutMode};
use crate::testing::{TestRepository, directory, noise};

fn three_files(t: &mut TestRepository) -> (Vec<Item<'static>>, Vec<Vec<u8>>) {
    t.chunk_size = 10_000;
    let contents: Vec<_> = (1..4).map(|n| noise(n, 45_000)).collect();
    let items = contents.iter().enumerate().map(|(n, content)| t.file(&format!("d/f{n}"), content)).collect();
    (items, contents)
}

#[test]
fn a_damaged_chunk_costs_its_file_alone() {
    let mut t = TestRepository::new();
    let (items, contents) = three_files(&mut t);
    let snapshot = t.snapshot("s", &items, None);
    let bad = items[1].chunks[2].id;
    t.damage(&bad);
    let restored = run(&t.repository, &snapshot);
    assert!(restored.read("d/f0") == contents[0] && restored.read("d/f2") == contents[2]);
    assert!(!restored.exists("d/f1"), "no partial file is left");
    let pack = t.index[&bad].pack;
    assert_eq!(restored.failed.len(), 1);
    let line = &restored.failed[0];
    assert!(line.starts_with("d/f1: "), "{line}");
    assert!(line.contains(&bad.to_string()) && line.contains(&pack.to_string()), "{line}");
    assert_eq!((restored.summary.files, restored.summary.bytes), (2, 90_000));
}

#[test]
fn a_damaged_file_in_many_tasks_is_removed_as_well() {
    let mut t = TestRepository::new();
    t.chunk_size = 1 << 20;
    let item = t.file("big", &noise(5, 30 << 20));
    let snapshot = t.snapshot("s", std::slice::from_ref(&item), None);
    for bad in [0, 15, 29] {
        t.damage(&item.chunks[bad].id);
        let restored = run(&t.repository, &snapshot);
        assert!(!restored.exists("big"));
        assert_eq!(restored.failed.len(), 1);
    }
}

#[test]
fn a_pack_that_ends_early_costs_what_it_lost() {
    let mut t = TestRepository::new();
    let (items, contents) = three_files(&mut t);
    let snapshot = t.snapshot("s", &items, None);
    let last = t.index[&items[2].chunks[4].id];
    let key = pack_key(&last.pack);
    let mut pack = t.backend.get(&key, u64::MAX).unwrap();
    pack.truncate(last.offset as usize + 5);
    t.backend.put(&key, &pack, PutMode::Replace).unwrap();
    let restored = run(&t.repository, &snapshot);
    assert!(restored.read("d/f0") == contents[0] && restored.read("d/f1") == contents[1]);
    assert!(!restored.exists("d/f2") && restored.failed.len() == 1, "{:?}", restored.failed);
}

#[test]
fn a_chunk_the_index_does_not_have_costs_its_file() {
    let mut t = TestRepository::new();
    let (items, _) = three_files(&mut t);
    let snapshot = t.snapshot("s", &items, None);
    t.index.remove(&items[0].chunks[0].id);
    t.publish();
    let restored = run(&t.repository, &snapshot);
    assert_eq!(restored.failed.len(), 1);
    assert!(restored.failed[0].contains("not in the index"), "{:?}", restored.failed);
    assert_eq!((restored.summary.files, restored.exists("d/f0")), (2, false));
}

#[test]
fn a_chunk_of_another_length_than_its_item_says_costs_its_file() {
    let mut t = TestRepository::new();
    let (mut items, _) = three_files(&mut t);
    items[0].chunks[0].size += 1;
    items[0].size += 1;
    let snapshot = t.snapshot("s", &items, None);
    let restored = run(&t.repository, &snapshot);
    assert_eq!((restored.failed.len(), restored.summary.files), (1, 2), "{:?}", restored.failed);
    assert!(restored.failed[0].contains("its item says"), "{:?}", restored.failed);
}

#[test]
fn a_lost_part_of_the_item_stream_is_told() {
    let mut t = TestRepository::new();
    let items: Vec<_> = (0..50).map(|n| directory(&format!("d{n:02}"))).collect();
    let snapshot = t.snapshot("s", &items, None);
    t.damage(&snapshot.meta.item_ptrs[2]);
    let restored = run(&t.repository, &snapshot);
    assert!(restored.exists("d00") && !restored.exists("d49"));
    assert_eq!(restored.failed.len(), 1);
}

/// A compaction that runs meanwhile moves chunks and deletes their old pack.
#[test]
fn chunks_that_were_moved_meanwhile_are_found_again() {
    let mut t = TestRepository::new();
    let (items, contents) = three_files(&mut t);
    let snapshot = t.snapshot("s", &items, None);
    let reader = t.repository.chunk_reader().unwrap();
    let before: std::collections::BTreeMap<_, _> = t.index.clone();
    for item in &items {
        for chunk in &item.chunks {
            t.index.remove(&chunk.id);
        }
    }
    t.chunk(b"something else first");
    for content in &contents {
        t.file("again", content);
    }
    t.close_pack();
    t.publish();
    let old = before[&items[0].chunks[0].id].pack;
    t.backend.delete(&pack_key(&old)).unwrap();

    let options = RestoreOptions::default();
    let reader = RefreshingReader::over(&t.repository, reader);
    let mut reporter = super::super::Reporter::new(None);
    let plan = super::super::RestorePlan::read(&reader, &snapshot, &options, &mut reporter).unwrap();
    let source = super::super::ChunkOrigin {
        repository: &t.repository,
        reader: &reader,
        table: &plan.index.chunks,
        spare: Default::default(),
    };
    let mut fetcher = super::super::fetch::Fetcher::new(&source, 1 << 20);
    fetcher.begin(&plan.pieces);
    let mut data = Vec::new();
    for (at, piece) in plan.pieces.iter().enumerate() {
        data.extend_from_slice(fetcher.chunk(at, *piece).unwrap());
    }
    assert!(data == contents.concat());
}

#[test]
fn a_full_destination_ends_the_restore_and_leaves_nothing_half_written() {
    needs!(root);
    let around = tempfile::tempdir().unwrap();
    let dest = around.path().join("dest");
    fs::create_dir(&dest).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&dest)
        .status();
    assert!(mount.is_ok_and(|status| status.success()));
    let mut t = TestRepository::new();
    let items: Vec<_> = (1..40).map(|n| t.file(&format!("f{n}"), &noise(n, 100_000))).collect();
    let snapshot = t.snapshot("s", &items, None);
    let result = restore(&t.repository, &snapshot, &dest, &RestoreOptions::default(), None);
    let sizes: Vec<u64> = walk(&dest).values().map(fs::Metadata::len).collect();
    let _ = std::process::Command::new("umount").arg(&dest).status();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == 100_000), "{sizes:?}");
}
