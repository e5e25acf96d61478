mod adversary;
mod bounds;
pub(super) mod damage;

use super::*;
use crate::format::envelope::INDEX_CONTEXT;
use crate::format::{Encryption, Item, ItemType, ObjectKind, Snapshot};
use crate::id::PackId;
use crate::repository::{INDEX, pack_key, snapshot_key};
use crate::storage::{Backend, PutMode};
use crate::testing::{TestRepository, directory, fixtures, noise};

const LISTS: CheckOptions = CheckOptions { verify_data: false, subset: None, threads: 0 };
const DATA: CheckOptions = CheckOptions { verify_data: true, subset: None, threads: 2 };

fn checked(t: &TestRepository, options: &CheckOptions) -> CheckReport {
    let before = t.backend.list("").unwrap();
    let report = check(&t.repository, options, None).unwrap();
    assert_eq!(t.backend.list("").unwrap(), before, "a check writes nothing");
    assert_eq!(report.unlisted(), 0);
    report
}

fn clean(t: &TestRepository) {
    for options in [LISTS, DATA] {
        let report = checked(t, &options);
        assert_eq!(report.findings, []);
    }
}

/// What was found, sorted.
fn kinds(report: &CheckReport) -> Vec<&'static str> {
    let mut kinds: Vec<_> = report.findings.iter().map(kind).collect();
    kinds.sort();
    kinds
}

fn kind(finding: &Finding) -> &'static str {
    match finding {
        Finding::ConfigUnusable { .. } => "config",
        Finding::KeyUnusable { .. } => "key",
        Finding::IndexHintWrong { .. } => "hint",
        Finding::OddEntry { .. } => "odd entry",
        Finding::ChunkSizesDiffer { .. } => "chunk sizes",
        Finding::UnknownObject { .. } => "unknown object",
        Finding::LockLeft { .. } => "lock left",
        Finding::SessionLeft { .. } => "session left",
        Finding::JournalUnusable { .. } => "journal",
        Finding::NameTwice { .. } => "name twice",
        Finding::PathTwice { .. } => "path twice",
        Finding::SnapshotAffected { .. } => "snapshot affected",
        Finding::PackNewer { .. } => "pack newer",
        Finding::SnapshotUnreadable { .. } => "snapshot unreadable",
        Finding::SnapshotNewer { .. } => "snapshot newer",
        Finding::IndexUnusable { .. } => "index",
        Finding::ItemsLost { .. } => "items lost",
        Finding::ItemInvalid { .. } => "item invalid",
        Finding::ItemNewer { .. } => "item newer",
        Finding::FileDamaged { .. } => "file",
        Finding::PackMissing { .. } => "pack missing",
        Finding::PackTooShort { .. } => "pack short",
        Finding::PackUnreadable { .. } => "pack unreadable",
        Finding::PackDamaged { .. } => "pack damaged",
        Finding::ChunkDamaged { .. } => "chunk damaged",
        Finding::RefcountTooLow { .. } => "too low",
        Finding::RefcountTooHigh { .. } => "too high",
        Finding::ChunkUnreferenced { .. } => "unreferenced chunk",
        Finding::PackUnreferenced { .. } => "unreferenced pack",
        Finding::Leftover { .. } => "leftover",
    }
}

/// Two snapshots that share most of their stream, of files with shared and repeated chunks.
fn sample(encryption: Encryption) -> (TestRepository, Vec<Item<'static>>, [Snapshot; 2]) {
    let mut t = TestRepository::with(encryption);
    t.chunk_size = 5000;
    let mut items = vec![directory("d")];
    for n in 0..40 {
        let content = [noise(n % 30, 12_000), vec![0; 10_000], noise(7, 100)].concat();
        items.push(t.file(&format!("d/f{n:02}"), &content));
    }
    let first = t.snapshot("first", &items, None);
    // The second one's references to the same content.
    for item in &items {
        for chunk in &item.chunks {
            t.index.get_mut(&chunk.id).unwrap().refcount += 1;
        }
    }
    let new = t.file("new", &noise(99, 3000));
    let all: Vec<_> = items.iter().cloned().chain([new]).collect();
    let second = t.snapshot("second", &all, None);
    (t, all, [first, second])
}

#[test]
fn a_sound_repository_has_no_findings() {
    clean(&TestRepository::new());
    for encryption in [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305] {
        let (t, items, _) = sample(encryption);
        clean(&t);
        let report = checked(&t, &DATA);
        assert_eq!((report.snapshots, report.items), (2, 2 * items.len() as u64 - 1));
        let size: u64 = t.backend.list("packs/").unwrap().iter().map(|object| object.size).sum();
        assert_eq!((report.bytes_verified, report.chunks), (size, t.index.len() as u64));
    }
}

#[test]
fn repositories_of_other_programs_have_no_findings() {
    for fixture in fixtures() {
        for options in [LISTS, DATA] {
            let report = check(&fixture.repository, &options, None).unwrap();
            assert_eq!(report.findings, [], "{}", fixture.name);
            assert_eq!(report.items, fixture.items.len() as u64, "{}", fixture.name);
            assert!(report.snapshots > 1 && !report.changed_meanwhile);
        }
    }
}

#[test]
fn chunk_sizes_that_no_snapshot_was_made_with_are_named() {
    let (t, ..) = sample(Encryption::None);
    let mut config = t.repository.config().clone();
    config.chunker.avg ^= 1 << 20;
    t.backend
        .put("config", &crate::format::wire::encode("config", &config).unwrap(), PutMode::Replace)
        .unwrap();
    let options = crate::repository::OpenOptions::default();
    let backend = std::sync::Arc::new(t.backend.clone());
    let other = crate::repository::Repository::open(backend, &mut || unreachable!(), &options).unwrap();
    assert_eq!(kinds(&check(&other, &LISTS, None).unwrap()), ["chunk sizes"]);
}

#[test]
fn an_id_that_names_no_chunk_is_not_taken_for_damage_and_not_written_to() {
    let (t, ..) = sample(Encryption::None);
    let mut config = t.repository.config().clone();
    config.id.0[3] ^= 4;
    t.backend
        .put("config", &crate::format::wire::encode("config", &config).unwrap(), PutMode::Replace)
        .unwrap();
    let options = crate::repository::OpenOptions::default();
    let backend = std::sync::Arc::new(t.backend.clone());
    let other = crate::repository::Repository::open(backend, &mut || unreachable!(), &options).unwrap();
    let report = check(&other, &DATA, None).unwrap();
    assert!(kinds(&report).contains(&"config"), "{:?}", report.findings);
    let before = t.backend.list("").unwrap();
    let error = crate::repository::WriteGuard::acquire(&other, &Default::default()).map(drop).unwrap_err();
    assert!(matches!(error, crate::VykarError::KeysDoubtful { .. }), "{error}");
    assert_eq!(t.backend.list("").unwrap(), before);
}

#[test]
fn what_another_program_takes_away_meanwhile_is_no_damage() {
    use crate::maintenance::{CompactOptions, DeleteOptions, compact, delete_snapshots};
    use crate::storage::testing::{Call, Op, TestBackend};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    for options in [LISTS, DATA] {
        let (t, _, [first, _]) = sample(Encryption::Aes256Gcm);
        let backend = Arc::new(TestBackend::new(t.backend.clone()));
        let (done, other) = (AtomicBool::new(false), t.repository.on(Arc::new(t.backend.clone())));
        backend.before(move |Op { call, key, .. }, _| {
            if call == Call::List && key == "packs/" && !done.swap(true, Ordering::SeqCst) {
                delete_snapshots(&other, &[first.id], &DeleteOptions::default(), None).unwrap();
                let options = CompactOptions { threshold: 0, ..CompactOptions::default() };
                compact(&other, &options, None).unwrap();
            }
            Ok(())
        });
        let report = check(&t.repository.on(backend), &options, None).unwrap();
        assert_eq!((report.findings, report.changed_meanwhile), (vec![], false));
    }
    // One that never stops changing, and is damaged.
    let (t, items, _) = sample(Encryption::Aes256Gcm);
    t.damage(&items[1].chunks[0].id);
    let backend = Arc::new(TestBackend::new(t.backend.clone()));
    let repository = t.repository.on(backend.clone());
    let looks = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = looks.clone();
    let other = t.repository.on(Arc::new(t.backend.clone()));
    let index: Vec<_> = t.index.values().copied().collect();
    backend.before(move |Op { call, key, .. }, _| {
        if call == Call::List && key == "packs/" {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            let level = crate::codec::Compression::Lz4;
            other.write_index(n.into(), index.len() as u32, index.iter().copied(), level).unwrap();
        }
        Ok(())
    });
    let report = check(&repository, &DATA, None).unwrap();
    assert!(report.changed_meanwhile && report.damage > 0);
    assert!(looks.load(Ordering::SeqCst) >= 3);
}

#[test]
fn what_is_no_file_in_an_objects_place_is_named_and_stops_what_deletes() {
    use crate::maintenance::{
        CompactOptions, DeleteOptions, KeepRules, PruneOptions, RepairOptions, compact, delete_snapshots,
        plan_repair, prune,
    };
    use crate::storage::LocalBackend;
    let (t, _, [first, second]) = sample(Encryption::None);
    let dir = tempfile::tempdir().unwrap();
    let local = LocalBackend::new(dir.path());
    for object in t.backend.list("").unwrap() {
        local.put(&object.key, &t.backend.get(&object.key, u64::MAX).unwrap(), PutMode::Replace).unwrap();
    }
    let repository = t.repository.on(std::sync::Arc::new(local));
    let pack = t.backend.list("packs/").unwrap().remove(0).key;
    let id = "ab".repeat(32);
    let nothing: [&str; 8] = [
        &snapshot_key(&first.id),
        &format!("snapshots/{id}"),
        &pack,
        &format!("packs/ab/{id}"),
        "index",
        "keys/repokey",
        &format!("sessions/{}.json", "cd".repeat(16)),
        "index.gen",
    ];
    type Make = fn(&std::path::Path);
    let folder: Make = |path| std::fs::create_dir_all(path).unwrap();
    let link: Make = |path| std::os::unix::fs::symlink("nowhere", path).unwrap();
    let linked_folder: Make = |path| std::os::unix::fs::symlink("/", path).unwrap();
    let fifo: Make = |path| {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    for key in nothing {
        for (make, is_fifo) in [(folder, false), (link, false), (linked_folder, false), (fifo, true)] {
            let path = dir.path().join(key);
            let whole = std::fs::read(&path).ok();
            // A FIFO in the place of what is read to open a repository would be waited for.
            if is_fifo && key.starts_with("index") {
                continue;
            }
            whole.is_some().then(|| std::fs::remove_file(&path).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            make(&path);
            let report = check(&repository, &LISTS, None).unwrap();
            let named = Finding::OddEntry { key: key.to_owned() };
            assert!(report.findings.contains(&named) && report.damage > 0, "{key}: {:?}", report.findings);
            let rules = PruneOptions::new(KeepRules { last: 1, ..KeepRules::default() });
            for result in [
                compact(&repository, &CompactOptions::default(), None).map(drop),
                prune(&repository, &rules, None).map(drop),
                delete_snapshots(&repository, &[second.id], &DeleteOptions::default(), None).map(drop),
                plan_repair(&repository, &RepairOptions::default(), None).map(drop),
            ] {
                result.unwrap_err();
            }
            match path.is_dir() && !path.is_symlink() {
                true => std::fs::remove_dir(&path).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
            if let Some(whole) = whole {
                std::fs::write(&path, whole).unwrap();
            }
        }
    }
    assert_eq!(check(&repository, &DATA, None).unwrap().findings, []);
    compact(&repository, &CompactOptions::default(), None).unwrap();
}

#[test]
fn unreadable_and_newer_snapshots_are_told_apart() {
    let (t, _, [first, _]) = sample(Encryption::None);
    let mut newer = first.meta.clone();
    newer.format_version = 2;
    t.put_snapshot(&newer.encode().unwrap(), None);
    t.put_snapshot(b"\x93nothing", None);
    let report = checked(&t, &LISTS);
    assert_eq!(kinds(&report), ["snapshot newer", "snapshot unreadable"]);
    assert_eq!((report.damage, report.newer, report.harmless), (1, 1, 0));
}

#[test]
fn a_missing_or_damaged_index_is_a_finding() {
    let (t, _, _) = sample(Encryption::Aes256Gcm);
    let mut index = t.backend.get(INDEX, u64::MAX).unwrap();
    t.backend.delete(INDEX).unwrap();
    assert_eq!(kinds(&checked(&t, &LISTS)), ["index"]);
    index[40] ^= 1;
    t.backend.put(INDEX, &index, PutMode::Replace).unwrap();
    assert_eq!(kinds(&checked(&t, &LISTS)), ["index"]);
    let garbage = t.repository.keys().seal(ObjectKind::Index, INDEX_CONTEXT, b"\0garbage").unwrap();
    t.backend.put(INDEX, &garbage, PutMode::Replace).unwrap();
    let report = checked(&t, &DATA);
    assert_eq!(kinds(&report), ["index"]);
    assert_eq!((report.damage, report.snapshots), (1, 2));
    assert!(report.bytes_verified > 0, "packs are verified without an index too");
}

#[test]
fn a_broken_item_stream_is_found_and_counts_nothing_as_unused() {
    let (mut t, _, [first, second]) = sample(Encryption::None);
    t.damage(&first.meta.item_ptrs[3]);
    let report = checked(&t, &LISTS);
    assert_eq!(kinds(&report), ["items lost", "items lost"]);
    assert!(report.findings[0].to_string().contains(&first.meta.item_ptrs[3].to_string()));
    assert_eq!(kinds(&checked(&t, &DATA)), ["chunk damaged", "items lost", "items lost", "pack damaged"]);

    t.damage(&first.meta.item_ptrs[3]); // and back
    let gone = *second.meta.item_ptrs.last().unwrap();
    t.index.remove(&gone);
    t.publish();
    let report = checked(&t, &LISTS);
    assert!(report.findings.iter().any(|f| f.to_string().contains("not in the index")), "{report:?}");
}

#[test]
fn an_item_stream_that_ends_inside_an_item_is_found() {
    let mut t = TestRepository::new();
    let items: Vec<_> = (0..30).map(|n| directory(&format!("d{n}"))).collect();
    let snapshot = t.snapshot("s", &items, None);
    let mut meta = snapshot.meta;
    let last = meta.item_ptrs.pop().unwrap();
    t.index.remove(&last);
    t.publish();
    t.backend.delete(&snapshot_key(&snapshot.id)).unwrap();
    t.put_snapshot(&meta.encode().unwrap(), None);
    assert_eq!(kinds(&checked(&t, &LISTS)), ["items lost"]);
}

#[test]
fn items_that_break_a_rule_are_named() {
    let mut t = TestRepository::new();
    let file = t.file("good", b"x");
    let bad = Item { size: 7, ..Item::new("lies", ItemType::RegularFile) };
    t.snapshot("s", &[file, directory("../up"), bad], None);
    let report = checked(&t, &LISTS);
    assert_eq!(kinds(&report), ["item invalid", "item invalid"]);
    let text = report.findings[0].to_string();
    assert!(text.contains("snapshot s (") && text.contains("\"../up\""), "{text}");
}

#[test]
fn a_file_chunk_that_is_not_in_the_index_names_snapshot_and_path() {
    let (mut t, items, _) = sample(Encryption::None);
    let gone = items.last().unwrap().chunks[0].id;
    t.index.remove(&gone);
    t.publish();
    let report = checked(&t, &LISTS);
    assert_eq!(kinds(&report), ["file", "unreferenced pack"]);
    let text = report.findings[1].to_string();
    assert!(text.contains("snapshot second (") && text.contains("\"new\""), "{text}");
    assert!(text.contains(&gone.to_string()), "{text}");
}

fn file_pack(t: &TestRepository, items: &[Item<'_>]) -> PackId {
    t.index[&items[1].chunks[0].id].pack
}

#[test]
fn missing_and_short_packs_are_found_with_the_files_they_cost() {
    let (t, items, _) = sample(Encryption::None);
    let key = pack_key(&file_pack(&t, &items));
    let pack = t.backend.get(&key, u64::MAX).unwrap();
    let last = t.index[&items[40].chunks[2].id];
    t.backend.put(&key, &pack[..last.offset as usize + 3], PutMode::Replace).unwrap();
    let short = checked(&t, &LISTS);
    assert_eq!(short.findings.iter().filter(|f| kind(f) == "pack short").count(), 1);
    assert!(
        short
            .findings
            .iter()
            .any(|f| matches!(f, Finding::FileDamaged { path, .. } if path.starts_with("d/f")))
    );
    let verified = checked(&t, &DATA);
    assert_eq!(verified.findings.len(), short.findings.len() + 1, "the pack's hash in addition");

    t.backend.delete(&key).unwrap();
    for options in [LISTS, DATA] {
        let report = checked(&t, &options);
        assert_eq!(report.findings.iter().filter(|f| kind(f) == "pack missing").count(), 1);
        let files: std::collections::BTreeSet<_> = report
            .findings
            .iter()
            .filter_map(|f| match f {
                Finding::FileDamaged { path, .. } => Some(path),
                _ => None,
            })
            .collect();
        assert_eq!(files.len(), 40);
    }
}

#[test]
fn counts_that_are_too_low_are_damage_and_too_high_are_harmless() {
    let (mut t, items, _) = sample(Encryption::None);
    let (low, high) = (items[1].chunks[0].id, items[2].chunks[0].id);
    t.index.get_mut(&low).unwrap().refcount -= 1;
    t.index.get_mut(&high).unwrap().refcount += 1;
    let unused = t.chunk(b"nobody wants this").id;
    t.close_pack();
    t.publish();
    let report = checked(&t, &DATA);
    assert_eq!(kinds(&report), ["too high", "too low", "unreferenced chunk"]);
    assert_eq!((report.damage, report.harmless), (1, 2));
    let texts: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    for id in [low, high, unused] {
        assert!(texts.iter().any(|text| text.contains(&id.to_string())));
    }
}

#[test]
fn packs_that_nothing_names_are_harmless_even_when_damaged() {
    let (t, _, _) = sample(Encryption::None);
    t.backend.put(&pack_key(&PackId([7; 32])), b"half a pack", PutMode::Replace).unwrap();
    t.backend.put("packs/zz/not-a-pack", b"", PutMode::Replace).unwrap();
    let report = checked(&t, &DATA);
    assert_eq!(kinds(&report), ["pack damaged", "pack damaged", "unknown object", "unreferenced pack"]);
    assert_eq!((report.damage, report.harmless), (0, 4));
}

#[test]
fn damaged_data_is_found_only_by_reading_it_and_names_the_files() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        let (t, items, _) = sample(encryption);
        let bad = items[41].chunks[0].id;
        t.damage(&bad);
        assert_eq!(checked(&t, &LISTS).findings, []);
        let report = checked(&t, &DATA);
        assert_eq!(kinds(&report), ["chunk damaged", "file", "pack damaged"]);
        assert!(report.findings.iter().any(|f| f.to_string().contains("\"new\"")));
    }
}

#[test]
fn a_pack_is_checked_down_to_its_header_lengths_and_ids() {
    let (mut t, items, _) = sample(Encryption::Aes256Gcm);
    let entry = t.index[&items[1].chunks[0].id];
    let key = pack_key(&entry.pack);
    let sound = t.backend.get(&key, u64::MAX).unwrap();
    for (at, expected) in [
        (3, vec!["pack damaged", "pack damaged"]),
        (
            entry.offset as usize - 4,
            vec!["chunk damaged", "file", "file", "pack damaged", "snapshot affected"],
        ),
    ] {
        let mut pack = sound.clone();
        pack[at] ^= 1;
        t.backend.put(&key, &pack, PutMode::Replace).unwrap();
        assert_eq!(kinds(&checked(&t, &DATA)), expected, "byte {at}");
    }
    t.backend.put(&key, &sound, PutMode::Replace).unwrap();

    // Authentic, and yet not what its id says.
    let id = t.chunk(b"right").id;
    let file = Item {
        size: 5,
        chunks: vec![crate::format::ChunkRef { id, size: 5, stored_size: 0 }],
        ..Item::new("w", ItemType::RegularFile)
    };
    t.close_pack();
    let keys = t.repository.keys().clone();
    let wrong = keys.seal(ObjectKind::Chunk, id.as_bytes(), b"\0wrong").unwrap();
    let mut pack = crate::format::pack::HEADER.to_vec();
    pack.extend((wrong.len() as u32).to_le_bytes());
    pack.extend(&wrong);
    let old = std::mem::replace(&mut t.index.get_mut(&id).unwrap().pack, crate::crypto::pack_id(&pack));
    t.index.get_mut(&id).unwrap().stored_size = wrong.len() as u32;
    t.backend.delete(&pack_key(&old)).unwrap();
    t.backend.put(&pack_key(&crate::crypto::pack_id(&pack)), &pack, PutMode::Replace).unwrap();
    t.snapshot("third", &[file], None);
    assert_eq!(checked(&t, &LISTS).findings, []);
    assert_eq!(kinds(&checked(&t, &DATA)), ["chunk damaged", "file"]);
}

#[test]
fn a_size_that_the_chunk_does_not_have_is_found_when_data_is_read() {
    let mut t = TestRepository::new();
    let mut file = t.file("f", b"12345");
    (file.size, file.chunks[0].size) = (6, 6);
    t.snapshot("s", &[file], None);
    assert_eq!(checked(&t, &LISTS).findings, []);
    assert_eq!(kinds(&checked(&t, &DATA)), ["file"]);
}

#[test]
fn many_findings_of_a_kind_are_counted_and_not_all_listed() {
    let mut t = TestRepository::new();
    t.chunk_size = 10;
    let file = t.file("f", &noise(1, 5000));
    t.snapshot("s", &[directory("d")], None);
    drop(file);
    let report = check(&t.repository, &LISTS, None).unwrap();
    assert_eq!((report.harmless, report.findings.len(), report.unlisted()), (500, 100, 400));
}
