use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::format::{Encryption, Item, ItemType, Snapshot};
use crate::id::ChunkId;
use crate::maintenance::tests::damage::{self, Damage};
use crate::maintenance::{CheckOptions, CheckReport, check};
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::repository::{INDEX, OpenOptions, Passphrase, Repository, pack_key, snapshot_key};
use crate::storage::testing::{Call, Fault, Op, TestBackend};
use crate::storage::{Backend, MemoryBackend, PutMode};
use crate::testing::{TestRepository, directory, fixtures, noise};
use crate::torture::tell;

mod misplaced;

/// Paths and contents of a snapshot; `None` for what cannot be read in full.
type Content = BTreeMap<String, Option<Vec<u8>>>;

/// Every snapshot that can be read, by name.
fn contents(repository: &Repository) -> BTreeMap<String, Content> {
    let mut all = BTreeMap::new();
    let Ok(reader) = repository.chunk_reader() else { return all };
    for snapshot in repository.manifest().unwrap().snapshots {
        let mut content = Content::new();
        for_each_item(&reader, &snapshot, &mut |found| {
            if let FoundItem::Item(item) = found {
                let read = |item: &Item<'_>| -> Option<Vec<u8>> {
                    let chunks = item.chunks.iter().map(|c| reader.read_sized(&c.id, c.size).ok());
                    Some(chunks.collect::<Option<Vec<_>>>()?.concat())
                };
                content.insert(item.path.to_string(), read(&item));
            }
            Ok(true)
        })
        .unwrap();
        // Of two with the same name, as in the middle of a repair, the one with more.
        let best = all.entry(snapshot.meta.name.clone()).or_insert_with(Content::new);
        if whole(&content) > whole(best) {
            *best = content;
        }
    }
    all
}

fn whole(content: &Content) -> usize {
    content.values().flatten().count()
}

fn options() -> RepairOptions {
    RepairOptions { threads: 2, ..RepairOptions::default() }
}

fn plan(repository: &Repository) -> crate::Result<RepairPlan> {
    plan_repair(repository, &options(), None)
}

/// Plans, which must write nothing, and applies.
fn repair(t: &TestRepository) -> (RepairPlan, RepairReport) {
    let before = objects(&t.backend);
    let plan = plan(&t.repository).unwrap();
    assert!(objects(&t.backend) == before, "a plan writes nothing");
    let report = apply_repair(&t.repository, &plan, &options()).unwrap();
    (plan, report)
}

fn objects(backend: &MemoryBackend) -> BTreeMap<String, Vec<u8>> {
    let keys = backend.list("").unwrap().into_iter().map(|object| object.key);
    keys.map(|key| (key.clone(), backend.get(&key, u64::MAX).unwrap())).collect()
}

fn put_back(backend: &MemoryBackend, to: &BTreeMap<String, Vec<u8>>) {
    backend.list("").unwrap().iter().for_each(|object| backend.delete(&object.key).unwrap());
    to.iter().for_each(|(key, data)| backend.put(key, data, PutMode::Replace).unwrap());
}

fn checked(repository: &Repository) -> CheckReport {
    check(repository, &CheckOptions { verify_data: true, ..CheckOptions::default() }, None).unwrap()
}

/// Nothing is damaged or counted wrong; what nobody uses may lie about, and what is somebody else's.
#[track_caller]
fn assert_clean(repository: &Repository, context: &str) {
    let report = checked(repository);
    let harmless = |text: &str| {
        ["does not name", "no object of"].iter().any(|part| text.contains(part))
            || text.starts_with("journal")
    };
    let bad: Vec<_> = report.findings.iter().map(ToString::to_string).filter(|t| !harmless(t)).collect();
    assert_eq!(bad, [] as [String; 0], "{context}");
    let again = plan(repository).unwrap();
    assert!(!again.has_work(), "{context}: there is always more to do");
}

/// The chunks whose bytes are as they were written, wherever that is.
fn whole_chunks(t: &TestRepository, written: &BTreeMap<String, Vec<u8>>) -> HashSet<ChunkId> {
    let bytes = |pack: &[u8], entry: &crate::format::IndexEntry| {
        let from = entry.offset as usize;
        pack.get(from..from + entry.stored_size as usize).map(<[u8]>::to_vec)
    };
    let now = objects(&t.backend);
    let is_whole = |entry: &&crate::format::IndexEntry| {
        let key = pack_key(&entry.pack);
        let right = bytes(&written[&key], entry);
        now.get(&key).is_some_and(|pack| bytes(pack, entry) == right)
    };
    t.index.values().filter(is_whole).map(|entry| entry.id).collect()
}

/// What must be left of each snapshot, and whether exactly that, or at most, is.
fn expected(
    t: &TestRepository,
    snapshots: &[(&Snapshot, &[Item<'_>])],
    written: &BTreeMap<String, Vec<u8>>,
    damage: &Damage,
) -> BTreeMap<String, (BTreeSet<String>, bool)> {
    let whole = whole_chunks(t, written);
    let mut all = BTreeMap::new();
    for (snapshot, items) in snapshots {
        if damage.key == snapshot_key(&snapshot.id) {
            continue;
        }
        let has_all = |item: &&Item<'_>| item.chunks.iter().all(|chunk| whole.contains(&chunk.id));
        let paths = items.iter().filter(has_all).map(|item| item.path.to_string()).collect();
        let exact = snapshot.meta.item_ptrs.iter().all(|pointer| whole.contains(pointer));
        all.insert(snapshot.meta.name.clone(), (paths, exact));
    }
    all
}

#[test]
fn after_any_damage_all_that_is_whole_is_kept_and_nothing_else_is_left() {
    let skip = |key: &str| key == "config" || key.starts_with("keys/") || key.starts_with("sessions/");
    let mut kinds = BTreeSet::new();
    let (mut done, mut unseen, mut refused, mut clean, mut whole_after, mut items_lost) = (0, 0, 0, 0, 0, 0);
    for encryption in [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305] {
        let (t, items, [first, second]) = damage::full(encryption);
        let (other, ..) = damage::full(encryption);
        let written = objects(&t.backend);
        let original = contents(&t.repository);
        for damage in damage::all(&t, &other, skip) {
            damage.apply(&t);
            let context = format!("{encryption} {} {}", damage.key, damage.kind);
            done += 1;
            let shows = damage.shows(encryption);
            if !shows || refuses(&t) {
                unseen += u32::from(!shows);
                refused += u32::from(shows);
                put_back(&t.backend, &written);
                continue;
            }
            kinds.insert(damage.kind);
            let of = [(&first, &items[..items.len() - 1]), (&second, &items[..])];
            let expected = expected(&t, &of, &written, &damage);
            let (plan, report) = repair(&t);
            assert_clean(&t.repository, &context);
            let left = contents(&t.repository);
            clean += 1;
            whole_after += u32::from(left == original);
            items_lost += plan.dropped_total;
            for (name, content) in &left {
                // Without a cipher a flipped bit may have changed a name.
                let Some(was) = original.get(name) else { continue };
                assert!(content.iter().all(|(path, bytes)| was.get(path) == Some(bytes)), "{context}");
            }
            for (name, (paths, exact)) in &expected {
                let found: BTreeSet<String> =
                    left.get(name).map(|c| c.keys().cloned().collect()).unwrap_or_default();
                match exact {
                    true => assert_eq!(&found, paths, "{context} {name}"),
                    false => assert!(found.is_subset(paths), "{context} {name}"),
                }
            }
            let lost: u64 = plan.snapshots.iter().map(|fate| fate.dropped).sum();
            assert_eq!(lost, plan.dropped_total, "{context}");
            assert_eq!(report.set_aside.len(), plan.snapshots.len(), "{context}");
            // What was replaced is kept, and notes tell nothing of what is sealed.
            let kept = objects(&t.backend);
            let notes = kept.iter().filter(|(key, _)| key.starts_with("damaged/") && key.ends_with(".json"));
            for (_, note) in notes {
                let note = String::from_utf8_lossy(note);
                assert!(
                    !["d/f", "\"new\"", "first", "second"].iter().any(|name| note.contains(name)),
                    "{note}"
                );
            }
            let was_replaced = kept.get(&damage.key) != damage_content(&damage, &written).as_ref();
            let is_kept = kept.iter().any(|(key, data)| {
                key.starts_with("damaged/") && Some(data) == damage_content(&damage, &written).as_ref()
            });
            let hint = damage.key == "index.gen";
            assert!(!was_replaced || hint || is_kept || damage.kind == "missing", "{context}");
            put_back(&t.backend, &written);
        }
    }
    tell(&format!(
        "damage, repair: {done} done, {unseen} that nobody can tell, {refused} refused as newer, {clean} clean \
         afterwards, {whole_after} of them without any loss, {items_lost} items lost"
    ));
    assert!(kinds.len() >= 12, "{kinds:?}");
}

fn damage_content(damage: &Damage, written: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let backend = MemoryBackend::new();
    put_back(&backend, written);
    damage.apply_to(&backend);
    backend.get(&damage.key, u64::MAX).ok()
}

/// True when the repair refuses, because without a cipher the damage looks like a newer version.
fn refuses(t: &TestRepository) -> bool {
    match plan(&t.repository) {
        Ok(_) => false,
        Err(e) => {
            assert!(e.to_string().contains("newer"), "{e}");
            assert_eq!(t.repository.config().encryption, Encryption::None);
            true
        }
    }
}

#[test]
fn an_index_rebuilt_from_packs_alone_is_the_one_that_was_lost() {
    let (mut rebuilt, mut entries) = (0, 0);
    for fixture in fixtures() {
        let backend = MemoryBackend::new();
        for object in fixture.repository.backend().list("").unwrap() {
            let data = fixture.repository.backend().get(&object.key, u64::MAX).unwrap();
            backend.put(&object.key, &data, PutMode::Replace).unwrap();
        }
        let repository = open(Arc::new(backend.clone()), "correct horse");
        let was: Vec<_> = repository.read_index().unwrap().chunks.iter().collect();
        let before = contents(&repository);
        assert!(!plan(&repository).unwrap().has_work(), "{}", fixture.name);
        for garbage in [None, Some(b"garbage".to_vec())] {
            backend.delete(INDEX).unwrap();
            if let Some(garbage) = garbage {
                backend.put(INDEX, &garbage, PutMode::Replace).unwrap();
            }
            let plan = plan(&repository).unwrap();
            assert!(plan.index_unusable.is_some() && !plan.loses_data(), "{}", fixture.name);
            apply_repair(&repository, &plan, &options()).unwrap();
            let is: Vec<_> = repository.read_index().unwrap().chunks.iter().collect();
            assert_eq!(is, was, "{}", fixture.name);
            assert!(contents(&repository) == before);
            assert_clean(&repository, fixture.name);
            rebuilt += 1;
            entries += was.len();
        }
    }
    assert!(rebuilt == 6 && entries > 0, "{rebuilt} indexes, {entries} entries");
    tell(&format!("damage, repair: {rebuilt} indexes rebuilt from the packs alone, {entries} entries"));
}

fn open(backend: Arc<dyn Backend>, passphrase: &str) -> Repository {
    let mut passphrase = || Ok(Passphrase::from(passphrase.to_owned()));
    Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap()
}

#[test]
fn what_other_packs_hold_replaces_what_is_lost() {
    let mut t = TestRepository::new();
    let content = noise(1, 300_000);
    let file = t.file("f", &content);
    let snapshot = t.snapshot("s", &[file], None);
    let before = contents(&t.repository);
    // Another backup stored the same at the same time, and lost.
    let data = t.index.values().find(|e| !snapshot.meta.item_ptrs.contains(&e.id)).unwrap().pack;
    let mut copy = t.backend.get(&pack_key(&data), u64::MAX).unwrap();
    copy.extend(1u32.to_le_bytes());
    copy.push(b'!');
    t.backend.put(&pack_key(&crate::crypto::pack_id(&copy)), &copy, PutMode::Replace).unwrap();
    t.backend.delete(&pack_key(&data)).unwrap();
    let plan = plan(&t.repository).unwrap();
    assert!(!plan.loses_data() && plan.chunks_redirected == 5 && plan.packs_missing == [data]);
    apply_repair(&t.repository, &plan, &options()).unwrap();
    assert!(contents(&t.repository) == before);
    assert_clean(&t.repository, "");
}

#[test]
fn nothing_is_done_where_nothing_is_wrong_or_a_newer_program_wrote() {
    let (t, _, [first, _]) = damage::full(Encryption::None);
    assert!(!plan(&t.repository).unwrap().has_work());
    let before = objects(&t.backend);
    let refused = |what: &str| {
        let error = plan(&t.repository).err().unwrap();
        assert!(matches!(error, VykarError::RepairRefused { .. }), "{what}: {error}");
        assert!(error.to_string().contains("newer"), "{what}: {error}");
        put_back(&t.backend, &before);
    };
    t.damage(&first.meta.item_ptrs[0]);
    let mut newer = first.meta.clone();
    newer.format_version = 2;
    t.put_snapshot(&newer.encode().unwrap(), None);
    refused("snapshot");
    let pack = b"VGERPACK\x02something new";
    t.backend.put(&pack_key(&crate::crypto::pack_id(pack)), pack, PutMode::Replace).unwrap();
    refused("pack");
    let mut t = TestRepository::new();
    let mut item = crate::format::wire::encode("item", &directory("d")).unwrap();
    let at = item.windows(9).position(|w| w == b"Directory").unwrap();
    item[at..at + 9].copy_from_slice(b"Wormhole!");
    let pointer = t.chunk(&item).id;
    let snapshot = t.snapshot("s", &[], None);
    let mut meta = snapshot.meta;
    meta.item_ptrs = vec![pointer];
    t.close_pack();
    t.publish();
    t.put_snapshot(&meta.encode().unwrap(), None);
    let error = plan(&t.repository).err().unwrap();
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn what_a_disk_keeps_back_is_not_taken_for_lost() {
    let (t, ..) = damage::full(Encryption::None);
    t.backend.delete(INDEX).unwrap();
    let before = objects(&t.backend);
    let mut failed = 0;
    for at in 0.. {
        let backend = Arc::new(TestBackend::failing(t.backend.clone(), at, Fault::Error));
        let mut none = || Ok(Passphrase::from(String::new()));
        let opened = Repository::open(backend.clone(), &mut none, &OpenOptions::default());
        match opened.and_then(|repository| plan(&repository)) {
            Ok(plan) if backend.calls() <= at => {
                assert!(plan.has_work());
                break;
            }
            Ok(plan) => assert!(!plan.loses_data() && plan.chunks_lost == 0, "read {at}"),
            Err(e) => {
                assert!(e.to_string().contains("broken on purpose"), "read {at}: {e}");
                failed += 1;
            }
        }
    }
    assert!(failed > 5 && objects(&t.backend) == before);
}

#[test]
fn damaged_parameters_are_said_and_left() {
    let (t, ..) = damage::full(Encryption::Aes256Gcm);
    for key in ["config", "keys/repokey"] {
        let whole = t.backend.get(key, u64::MAX).unwrap();
        t.backend.put(key, &whole[..20], PutMode::Replace).unwrap();
        let before = objects(&t.backend);
        let error = plan(&t.repository).err().unwrap().to_string();
        assert!(error.contains(key) && error.contains("copy of the repository"), "{error}");
        assert!(objects(&t.backend) == before);
        t.backend.put(key, &whole, PutMode::Replace).unwrap();
    }
}

#[test]
fn a_plan_that_is_out_of_date_is_not_applied() {
    let (mut t, ..) = damage::full(Encryption::None);
    t.backend.delete(INDEX).unwrap();
    let old = plan(&t.repository).unwrap();
    t.snapshot("third", &[directory("d")], None);
    let before = objects(&t.backend);
    let error = apply_repair(&t.repository, &old, &options()).err().unwrap();
    assert!(error.to_string().contains("changed since"), "{error}");
    assert!(objects(&t.backend) == before);
}

#[test]
fn items_behind_a_lost_part_of_a_stream_are_found_again() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 700;
    let mut items = vec![directory("d")];
    for n in 0..60 {
        items.push(t.file(&format!("d/f{n:02}"), &noise(n, 3000)));
    }
    let snapshot = t.snapshot("s", &items, None);
    let lost = snapshot.meta.item_ptrs[snapshot.meta.item_ptrs.len() / 2];
    t.damage(&lost);
    let (plan, report) = repair(&t);
    let fate = &plan.snapshots[0];
    // The chunk that is lost has a few items, and one or two that straddle its ends go with it.
    assert!(fate.replaced && fate.gaps >= 1 && (50..60).contains(&fate.kept), "{fate:?}");
    assert_clean(&t.repository, "");
    let left = contents(&t.repository);
    assert_eq!(left["s"].len() as u64, fate.kept);
    for (n, item) in (0u64..60).zip(&items[1..]) {
        assert!(left["s"].get(&*item.path).is_none_or(|c| *c == Some(noise(n, 3000))));
    }
    assert!(left["s"].contains_key("d/f59") && left["s"].contains_key("d/f00"));
    let (old, new) = report.replaced[0];
    let new = t.repository.manifest().unwrap().resolve(&new.to_string()).unwrap().clone();
    assert_eq!(repair_note::repaired_from(&new.meta), Some(old));
    assert_eq!((new.meta.stats.nfiles, &new.meta.time), (fate.kept - 1, &snapshot.meta.time));
    let aside = SetAside::list(&t.repository).unwrap();
    let of_snapshot = aside.iter().find(|a| a.object == snapshot_key(&old)).unwrap();
    assert_eq!(of_snapshot.snapshot.as_ref().unwrap().name, "s");
    assert!(of_snapshot.reason.contains("items are damaged") && !of_snapshot.time.is_empty());
}

#[test]
fn a_damaged_ext_costs_itself_and_not_its_snapshot() {
    use crate::format::snapshot::encode_ext;
    use crate::format::special;
    let fifo = special::encode(&Item::new("fifo", ItemType::Fifo)).unwrap();
    let root = Item { path: "".into(), ..directory("d") };
    let ext = encode_ext(Some(&root), &[fifo.clone(), fifo.clone()], &[]).unwrap().unwrap().into_vec();
    let with = |special: &[u8]| [b"\x81\xa7special", special].concat();
    let cases: [(Vec<u8>, usize); 6] = [
        (ext[..ext.len() - 5].to_vec(), 1),
        (with(b"\xc0"), 0),
        (with(b"\x91\xc1"), 0),
        (with(&[&[0xdd, 0xff, 0xff, 0xff, 0xff], &fifo[..]].concat()), 1),
        (with(&[&[0x91], &special::encode(&Item::new("../up", ItemType::Fifo)).unwrap()[..]].concat()), 0),
        ([&[0x82, 0xa7][..], b"special", &[0x91], &fifo[..3], b"\xa1x"].concat(), 0),
    ];
    for (ext, specials) in cases {
        for items in [vec![], vec![directory("d")]] {
            let mut t = TestRepository::new();
            let snapshot = t.snapshot("s", &items, None);
            t.backend.delete(&snapshot_key(&snapshot.id)).unwrap();
            let meta = crate::format::SnapshotMeta {
                ext: Some(serde_bytes::ByteBuf::from(ext.clone())),
                ..snapshot.meta
            };
            t.put_snapshot(&meta.encode().unwrap(), None);
            let (plan, report) = repair(&t);
            assert!(plan.snapshots.len() == 1 && report.replaced.len() == 1, "{ext:02x?}");
            let left = t.repository.manifest().unwrap().snapshots;
            assert_eq!((left.len(), &*left[0].meta.name), (1, "s"));
            assert_eq!(left[0].meta.special_items().len(), specials, "{ext:02x?}");
            assert_eq!(contents(&t.repository)["s"].contains_key("d"), !items.is_empty());
            assert_clean(&t.repository, &format!("{ext:02x?}"));
        }
    }
}

#[test]
fn items_that_break_a_rule_and_sizes_that_are_wrong_are_dropped() {
    let mut t = TestRepository::new();
    let good = t.file("good", b"x");
    let mut wrong = t.file("wrong", b"12345");
    (wrong.size, wrong.chunks[0].size) = (6, 6);
    let bad = Item { size: 7, ..Item::new("lies", ItemType::RegularFile) };
    t.snapshot("s", &[good, directory("../up"), bad, wrong], None);
    let (plan, _) = repair(&t);
    let paths: Vec<_> = plan.dropped.iter().map(|dropped| dropped.path.as_str()).collect();
    assert_eq!(paths, ["../up", "lies", "wrong"]);
    assert_eq!(contents(&t.repository)["s"].keys().collect::<Vec<_>>(), ["good"]);
    assert_clean(&t.repository, "");
}

#[test]
fn a_repair_that_is_cut_off_anywhere_loses_nothing_more_and_is_finished_by_the_next() {
    let mut t = TestRepository::new();
    t.stream_chunk_size = 700;
    let mut items: Vec<_> = (0..16).map(|n| t.file(&format!("f{n}"), &noise(n, 3000))).collect();
    let first = t.snapshot("first", &items, None);
    items.iter().flat_map(|item| &item.chunks).for_each(|chunk| {
        t.index.get_mut(&chunk.id).unwrap().refcount += 1;
    });
    items.insert(0, t.file("new", &noise(99, 3000)));
    items.push(t.file("last", &noise(98, 3000)));
    let second = t.snapshot("second", &items, None);
    // One of everything: a snapshot object, a stream, a file, a pack's header.
    t.damage(&items[2].chunks[0].id);
    t.damage(&second.meta.item_ptrs[second.meta.item_ptrs.len() / 2]);
    let mut object = t.backend.get(&snapshot_key(&first.id), u64::MAX).unwrap();
    object.truncate(40);
    t.put_snapshot(&first.meta.encode().unwrap(), None);
    t.backend.put(&snapshot_key(&first.id), &object, PutMode::Replace).unwrap();
    let new = pack_key(&t.index[&items.last().unwrap().chunks[0].id].pack);
    let mut pack = t.backend.get(&new, u64::MAX).unwrap();
    pack[0] ^= 1;
    t.backend.put(&new, &pack, PutMode::Replace).unwrap();

    let damaged = objects(&t.backend);
    let before = contents(&t.repository);
    repair(&t);
    let repaired = contents(&t.repository);
    assert!(whole(&repaired["first"]) == 15 && whole(&repaired["second"]) >= 3);
    // In a damaged pack, and listed behind what is lost of the list.
    assert!(repaired["second"].contains_key("new") && repaired["second"].contains_key("last"));
    put_back(&t.backend, &damaged);
    assert!(before.keys().all(|name| repaired.contains_key(name)));
    let steps = cut_off_anywhere(&t, &repaired);
    tell(&format!("damage, repair: cut off in {steps} places, and finished by the next"));
    assert!(steps > 60, "{steps}");
}

/// Repairs the repository as it is, cut off at each operation in turn, and again without that: what could be read before
/// can be read at every moment, and in the end there is what is `repaired`. Gives the number of places.
fn cut_off_anywhere(t: &TestRepository, repaired: &BTreeMap<String, Content>) -> u32 {
    let (damaged, before) = (objects(&t.backend), contents(&t.repository));
    let mut steps = 0;
    for fault in [Fault::LostConnection, Fault::LostReply] {
        for at in 0.. {
            put_back(&t.backend, &damaged);
            let failing = Arc::new(TestBackend::failing(t.backend.clone(), at, fault));
            let repository = t.repository.on(failing.clone());
            let done = plan(&repository).and_then(|plan| apply_repair(&repository, &plan, &options()));
            let context = format!("{fault:?} at {at}: {:?}", done.as_ref().err());
            // The next one on this machine finds that its process is gone.
            let locks = t.backend.list("locks/").unwrap();
            locks.iter().for_each(|lock| t.backend.delete(&lock.key).unwrap());
            let now = contents(&t.repository);
            for (name, content) in &before {
                let kept = |(path, bytes): (&String, &Option<Vec<u8>>)| {
                    bytes.is_none() || now.get(name).and_then(|c| c.get(path)) == Some(bytes)
                };
                assert!(content.iter().all(kept), "{context} {name}");
            }
            // Whatever is counted is not counted too low for what can be read.
            let low = |f: &crate::maintenance::Finding| {
                matches!(f, crate::maintenance::Finding::RefcountTooLow { .. })
            };
            assert!(!checked(&t.repository).findings.iter().any(low), "{context}");
            let rest = plan(&t.repository).unwrap();
            if rest.has_work() {
                apply_repair(&t.repository, &rest, &options()).unwrap();
            }
            assert_clean(&t.repository, &context);
            assert!(contents(&t.repository) == *repaired, "{context}");
            assert_eq!(t.repository.manifest().unwrap().snapshots.len(), repaired.len(), "{context}");
            if failing.calls() <= at {
                assert!(done.is_ok(), "{context}");
                break;
            }
            steps += 1;
        }
    }
    steps
}

/// Lets the call number `at` of this kind on an object see a flipped bit, and nothing after it.
fn wrong_once(backend: &TestBackend<MemoryBackend>, call: Call, key: &str, at: usize) {
    let (key, count) = (key.to_owned(), AtomicUsize::new(0));
    let right = parking_lot::Mutex::new(None::<Vec<u8>>);
    backend.before(move |Op { call: this, key: of, .. }, inner| {
        let mut right = right.lock();
        if let Some(right) = right.take() {
            inner.put(&key, &right, PutMode::Replace)?;
        }
        if this == call && of == key && count.fetch_add(1, Ordering::Relaxed) == at {
            let mut object = inner.get(&key, u64::MAX)?;
            *right = Some(object.clone());
            let middle = object.len() / 2;
            object[middle] ^= 1;
            inner.put(&key, &object, PutMode::Replace)?;
        }
        Ok(())
    });
}

#[test]
fn what_was_read_wrongly_once_is_not_replaced() {
    for encryption in [Encryption::None, Encryption::Aes256Gcm] {
        let (t, items, [first, _]) = damage::full(encryption);
        let backend = Arc::new(TestBackend::new(t.backend.clone()));
        let repository = open(backend.clone(), "secret");
        let before = objects(&t.backend);
        let pack = t.index[&items.iter().find(|item| !item.chunks.is_empty()).unwrap().chunks[0].id].pack;
        for key in [pack_key(&pack), snapshot_key(&first.id), INDEX.to_owned()] {
            wrong_once(&backend, Call::Get, &key, 0);
            let wrong = plan(&repository).unwrap();
            // Without a cipher it may be a letter of a name.
            assert!(wrong.has_work() || encryption == Encryption::None, "{encryption} {key}");
            let error = apply_repair(&repository, &wrong, &options()).unwrap_err();
            assert!(error.to_string().contains("not read the same each time"), "{encryption} {key}: {error}");
            backend.unhook();
            assert!(objects(&t.backend) == before, "{encryption} {key}");
        }
        assert!(!plan(&repository).unwrap().has_work());
    }
}

#[test]
fn what_is_set_aside_is_what_was_there() {
    let (t, items, _) = damage::full(Encryption::Aes256Gcm);
    let chunk = items.iter().find(|item| !item.chunks.is_empty()).unwrap().chunks[0].id;
    t.damage(&chunk);
    let key = pack_key(&t.index[&chunk].pack);
    let backend = Arc::new(TestBackend::new(t.backend.clone()));
    let repository = open(backend.clone(), "secret");
    let before = objects(&t.backend);
    let damaged = plan(&repository).unwrap();
    wrong_once(&backend, Call::GetRange, &key, 0);
    let error = apply_repair(&repository, &damaged, &options()).unwrap_err();
    assert!(error.to_string().contains("not read the same each time"), "{error}");
    backend.unhook();
    assert!(objects(&t.backend) == before);
    apply_repair(&repository, &damaged, &options()).unwrap();
    assert_clean(&repository, "");
}

/// A signal: wherever it comes, the lock is given back, nothing that could be read is lost, and the next repair goes on.
#[test]
fn a_repair_that_is_interrupted_gives_the_lock_back_and_can_be_done_again() {
    let (t, items, _) = damage::full(Encryption::Aes256Gcm);
    let damaged = items.iter().filter(|item| !item.chunks.is_empty()).map(|item| item.chunks[0].id);
    damaged.take(2).for_each(|chunk| t.damage(&chunk));
    let start = objects(&t.backend);
    let readable: usize = contents(&t.repository).values().map(whole).sum();
    let mut interrupted = 0;
    for writes in 0.. {
        put_back(&t.backend, &start);
        let backend = Arc::new(TestBackend::new(t.backend.clone()));
        let repository = open(backend.clone(), "secret");
        let options = options();
        let (cancel, left) = (options.lock.cancel.clone(), AtomicUsize::new(writes));
        let planned = plan(&repository).unwrap();
        backend.before(move |Op { call, .. }, _| {
            let writes = matches!(call, Call::Put | Call::Delete);
            if writes
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
            {
                cancel.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        let done = apply_repair(&repository, &planned, &options);
        backend.unhook();
        assert!(t.backend.list("locks/").unwrap().is_empty(), "after {writes} writes");
        if done.is_ok() && !options.lock.cancel.load(Ordering::Relaxed) {
            break;
        }
        assert!(matches!(done, Ok(_) | Err(VykarError::Interrupted)), "{done:?}");
        interrupted += usize::from(done.is_err());
        assert_eq!(
            contents(&repository).values().map(whole).sum::<usize>(),
            readable,
            "after {writes} writes"
        );
        repair(&t);
        assert_clean(&t.repository, &format!("after {writes} writes"));
    }
    assert!(interrupted > 5, "{interrupted}");
}
