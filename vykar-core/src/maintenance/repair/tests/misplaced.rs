//! Objects under other names than their own: swapped, renamed, in a wrong folder, there twice.

use proptest::prelude::*;

use super::*;
use crate::maintenance::{CompactOptions, compact};

const CIPHERS: [Encryption; 3] = [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305];

/// Three snapshots, each with packs of its own.
fn three(encryption: Encryption) -> (TestRepository, Vec<Snapshot>) {
    let mut t = TestRepository::with(encryption);
    t.chunk_size = 2000;
    let mut snapshots = Vec::new();
    for n in 0..3 {
        let (a, b) = (noise(n, 5000), noise(100 + n, 3000));
        let items = [t.file(&format!("a{n}"), &a), t.file(&format!("b{n}"), &b)];
        snapshots.push(t.snapshot(&format!("s{n}"), &items, None));
    }
    (t, snapshots)
}

fn get(backend: &MemoryBackend, key: &str) -> Vec<u8> {
    backend.get(key, u64::MAX).unwrap()
}

fn put(backend: &MemoryBackend, key: &str, data: &[u8]) {
    backend.put(key, data, PutMode::Replace).unwrap();
}

fn swap(backend: &MemoryBackend, a: &str, b: &str) {
    let (of_a, of_b) = (get(backend, a), get(backend, b));
    put(backend, a, &of_b);
    put(backend, b, &of_a);
}

fn rename(backend: &MemoryBackend, from: &str, to: &str) {
    let data = get(backend, from);
    backend.delete(from).unwrap();
    put(backend, to, &data);
}

fn packs(backend: &MemoryBackend) -> Vec<String> {
    backend.list("packs/").unwrap().into_iter().map(|object| object.key).collect()
}

/// Those objects that never change.
fn lasting(backend: &MemoryBackend) -> BTreeMap<String, Vec<u8>> {
    let mut all = objects(backend);
    all.retain(|key, _| key.starts_with("packs/") || key.starts_with("snapshots/"));
    all
}

#[test]
fn packs_in_each_others_place_go_back() {
    for encryption in CIPHERS {
        let (t, _) = three(encryption);
        let (before, written) = (contents(&t.repository), objects(&t.backend));
        let keys = packs(&t.backend);
        // Two, and then a longer round.
        for round in [2, 3, keys.len()] {
            for at in 0..round {
                put(&t.backend, &keys[at], &written[&keys[(at + 1) % round]]);
            }
            let (plan, report) = repair(&t);
            assert!(!plan.loses_data(), "{encryption} {round}");
            assert_eq!((report.packs_put_back.len(), report.packs_set_aside.len()), (round, 0));
            // Everything is where it was, byte for byte, and nothing else is left.
            assert!(objects(&t.backend) == written, "{encryption} {round}");
            assert!(contents(&t.repository) == before);
            assert_clean(&t.repository, &format!("{encryption} {round}"));
        }
    }
}

#[test]
fn a_pack_is_found_wherever_it_lies() {
    for encryption in CIPHERS {
        let (t, _) = three(encryption);
        let (before, written) = (contents(&t.repository), objects(&t.backend));
        for key in packs(&t.backend) {
            let name = key.rsplit('/').next().unwrap();
            for place in [
                format!("packs/{name}"),
                format!("packs/{}/{name}", if name.starts_with("00") { "01" } else { "00" }),
                format!("packs/{}/{name}.part", &name[..2]),
                "packs/lost".to_owned(),
                format!("packs/ff/{}", "ff".repeat(32)),
                "found/file-7".to_owned(),
                format!("damaged/packs/{name}"),
            ] {
                rename(&t.backend, &key, &place);
                let (plan, report) = repair(&t);
                let context = format!("{encryption} {place}");
                assert!(!plan.loses_data() && plan.packs_missing.is_empty(), "{context}");
                assert_eq!(report.packs_put_back.len(), 1, "{context}");
                // What somebody keeps elsewhere is not removed.
                assert_eq!(t.backend.exists(&place).unwrap(), place.starts_with("found/"), "{context}");
                t.backend.delete(&place).unwrap();
                assert!(objects(&t.backend) == written, "{context}");
                assert!(contents(&t.repository) == before, "{context}");
                assert_clean(&t.repository, &context);
            }
        }
    }
}

#[test]
fn of_two_copies_the_whole_one_is_used_and_of_two_damaged_ones_what_is_whole() {
    for encryption in CIPHERS {
        let (t, _) = three(encryption);
        let (before, written) = (contents(&t.repository), objects(&t.backend));
        for key in packs(&t.backend) {
            let name = key.rsplit('/').next().unwrap().to_owned();
            let whole = get(&t.backend, &key);
            put(&t.backend, &format!("packs/{name}.old"), &whole);
            put(&t.backend, &key, &whole[..whole.len() - 10]);
            let (plan, report) = repair(&t);
            assert!(!plan.loses_data() && report.packs_put_back.len() == 1, "{encryption}");
            assert!(get(&t.backend, &key) == whole && contents(&t.repository) == before);
            assert_clean(&t.repository, "the whole copy");
            put_back(&t.backend, &written);
            // All but the first chunk is whole in the one, all but the last in the other.
            let mut chunks: Vec<_> = t.index.values().filter(|entry| pack_key(&entry.pack) == key).collect();
            chunks.sort_by_key(|entry| entry.offset);
            let mut copies = [whole.clone(), whole.clone()];
            copies[0][chunks[0].offset as usize + 1] ^= 1;
            copies[1][chunks[chunks.len() - 1].offset as usize + 1] ^= 1;
            put(&t.backend, &key, &copies[0]);
            put(&t.backend, &format!("damaged/packs/{name}"), &copies[1]);
            if chunks.len() > 1 {
                let (plan, _) = repair(&t);
                assert!(!plan.loses_data(), "{encryption}: {:?}", plan.dropped);
                assert!(contents(&t.repository) == before);
                assert_clean(&t.repository, "two damaged copies");
            }
            put_back(&t.backend, &written);
        }
    }
}

#[test]
fn snapshots_under_each_others_names_go_back() {
    for encryption in [Encryption::Aes256Gcm, Encryption::Chacha20Poly1305] {
        let (t, snapshots) = three(encryption);
        let (before, written) = (contents(&t.repository), lasting(&t.backend));
        let keys: Vec<_> = snapshots.iter().map(|s| snapshot_key(&s.id)).collect();
        let repaired = |put_back: usize, context: &str| {
            let (plan, report) = repair(&t);
            assert!(!plan.loses_data() && report.set_aside.is_empty(), "{context}");
            assert_eq!(report.snapshots_put_back.len(), put_back, "{context}");
            assert!(lasting(&t.backend) == written && contents(&t.repository) == before, "{context}");
            assert_clean(&t.repository, context);
        };
        swap(&t.backend, &keys[0], &keys[1]);
        repaired(2, "two");
        swap(&t.backend, &keys[0], &keys[1]);
        swap(&t.backend, &keys[1], &keys[2]);
        repaired(3, "all in a round");
        for name in [format!("{}.bak", snapshots[0].id), format!("old/{}", snapshots[0].id)] {
            rename(&t.backend, &keys[0], &format!("snapshots/{name}"));
            repaired(1, &name);
        }
        // What an earlier program set aside, since each was under the other's name.
        for (from, to) in [(0, 1), (1, 0)] {
            let key = format!("damaged/{}", keys[to]);
            put(&t.backend, &key, &written[&keys[from]]);
            let (object, time, reason) = (&keys[to], "2026-01-01T00:00:00Z", "the object cannot be read");
            let note = format!(r#"{{"object":"{object}","set_aside":"{time}","reason":"{reason}"}}"#);
            put(&t.backend, &format!("{key}.json"), note.as_bytes());
        }
        keys[..2].iter().for_each(|key| t.backend.delete(key).unwrap());
        repaired(2, "set aside before");
        // Else one that is deleted would come back.
        assert!(t.backend.list("damaged/").unwrap().is_empty());
    }
}

#[test]
fn a_snapshot_whose_id_nobody_knows_stops_what_deletes() {
    for encryption in CIPHERS {
        let (t, snapshots) = three(encryption);
        let key = snapshot_key(&snapshots[0].id);
        let repository = t.repository.on(Arc::new(t.backend.clone()));
        rename(&t.backend, &key, "snapshots/renamed");
        let before = objects(&t.backend);
        let compacted = compact(&repository, &CompactOptions::default(), None).map(drop);
        for result in [compacted, plan(&repository).map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, VykarError::SnapshotsMissing { .. }), "{error}");
            assert!(error.to_string().contains("snapshots/renamed"), "{error}");
        }
        assert!(objects(&t.backend) == before);
        rename(&t.backend, "snapshots/renamed", &key);
        // A copy of one that is there says nothing.
        put(&t.backend, "snapshots/copy", &get(&t.backend, &snapshot_key(&snapshots[1].id)));
        put(&t.backend, "snapshots/README", b"\x02 read me");
        compact(&repository, &CompactOptions::default(), None).unwrap();
        assert!(!plan(&repository).unwrap().has_work());
    }
}

#[test]
fn a_dead_pack_that_is_a_living_one_is_not_deleted() {
    for named in [true, false] {
        let mut t = TestRepository::with(Encryption::Aes256Gcm);
        let mut packs = Vec::new();
        let mut ids = Vec::new();
        for n in 0..2 {
            let file = t.file(&format!("f{n}"), &noise(n, 5000));
            ids.push(t.snapshot(&format!("s{n}"), std::slice::from_ref(&file), None).id);
            packs.push(pack_key(&t.index[&file.chunks[0].id].pack));
        }
        let delete = crate::maintenance::DeleteOptions::default();
        crate::maintenance::delete_snapshots(&t.repository, &ids[..1], &delete, None).unwrap();
        if named {
            // The deletion was cut off before the index.
            t.publish();
        }
        let before = contents(&t.repository);
        swap(&t.backend, &packs[0], &packs[1]);
        let report = compact(&t.repository, &CompactOptions::default(), None).unwrap();
        assert_eq!(report.damaged.len(), 1, "{named}");
        let (plan, _) = repair(&t);
        assert!(!plan.loses_data() && contents(&t.repository) == before, "{named}");
        assert_clean(&t.repository, "put back");
    }
}

#[test]
fn a_repair_of_swapped_objects_that_is_cut_off_is_finished_by_the_next() {
    let (t, snapshots) = three(Encryption::Aes256Gcm);
    let before = contents(&t.repository);
    let keys = packs(&t.backend);
    swap(&t.backend, &keys[0], &keys[1]);
    swap(&t.backend, &keys[1], &keys[2]);
    let name = keys[3].rsplit('/').next().unwrap();
    rename(&t.backend, &keys[3], &format!("packs/{name}"));
    swap(&t.backend, &snapshot_key(&snapshots[0].id), &snapshot_key(&snapshots[1].id));
    let steps = cut_off_anywhere(&t, &before);
    assert!(steps > 40, "{steps}");
}

#[test]
fn wrong_parameters_are_not_taken_for_damage() {
    for lost_index in [false, true] {
        let (t, _) = three(Encryption::None);
        let right = get(&t.backend, "config");
        let mut config = t.repository.config().clone();
        config.id.0[7] ^= 1;
        put(&t.backend, "config", &crate::format::wire::encode("config", &config).unwrap());
        if lost_index {
            t.backend.delete(INDEX).unwrap();
        }
        let before = objects(&t.backend);
        let wrong = open(Arc::new(t.backend.clone()), "");
        let ids: Vec<_> = wrong.manifest().unwrap().snapshots.iter().map(|s| s.id).collect();
        let rules = crate::maintenance::KeepRules { last: 1, ..Default::default() };
        let (prune, delete) = (crate::maintenance::PruneOptions::new(rules), Default::default());
        for result in [
            plan(&wrong).map(drop),
            compact(&wrong, &CompactOptions::default(), None).map(drop),
            crate::maintenance::prune(&wrong, &prune, None).map(drop),
            crate::maintenance::delete_snapshots(&wrong, &ids[..1], &delete, None).map(drop),
            crate::maintenance::delete_snapshots(&wrong, &ids, &delete, None).map(drop),
        ] {
            let error = result.unwrap_err();
            let said = matches!(error, VykarError::KeysDoubtful { .. });
            assert!(said || (lost_index && matches!(error, VykarError::IndexMissing)), "{error}");
        }
        assert!(objects(&t.backend) == before);
        put(&t.backend, "config", &right);
        assert_eq!(plan(&t.repository).unwrap().has_work(), lost_index);
    }
}

#[test]
fn another_cipher_in_the_parameters_is_not_taken_for_damage() {
    let (t, _) = three(Encryption::Aes256Gcm);
    let mut config = t.repository.config().clone();
    config.encryption = Encryption::Chacha20Poly1305;
    put(&t.backend, "config", &crate::format::wire::encode("config", &config).unwrap());
    let before = objects(&t.backend);
    let error = plan(&open(Arc::new(t.backend.clone()), "secret")).err().unwrap();
    assert!(matches!(error, VykarError::KeysDoubtful { .. }), "{error}");
    assert!(objects(&t.backend) == before);
}

/// Something that happens to a repository's files, by numbers of objects.
#[derive(Debug, Clone)]
enum Accident {
    Swap(usize, usize),
    Move(usize, u8),
    Copy(usize, usize),
    Truncate(usize, u8),
}

fn accident() -> impl Strategy<Value = Accident> {
    let n = || 0usize..100;
    prop_oneof![
        (n(), n()).prop_map(|(a, b)| Accident::Swap(a, b)),
        (n(), 0u8..4).prop_map(|(a, to)| Accident::Move(a, to)),
        (n(), n()).prop_map(|(a, b)| Accident::Copy(a, b)),
        (n(), 0u8..100).prop_map(|(a, percent)| Accident::Truncate(a, percent)),
    ]
}

impl Accident {
    /// What is written over or cut short has a copy elsewhere before, so that all of it is somewhere.
    fn happen(&self, backend: &MemoryBackend, number: usize) {
        let keys = packs(backend);
        if keys.is_empty() {
            return;
        }
        let key = |at: usize| &keys[at % keys.len()];
        let keep = |key: &str| put(backend, &format!("packs/kept-{number}"), &get(backend, key));
        match *self {
            Accident::Swap(a, b) => swap(backend, key(a), key(b)),
            Accident::Move(a, to) => {
                let places = ["packs/moved", "elsewhere/moved", "damaged/packs/moved", "packs/00/moved"];
                rename(backend, key(a), &format!("{}-{number}", places[usize::from(to)]));
            }
            Accident::Copy(a, b) => {
                keep(key(b));
                put(backend, key(b), &get(backend, key(a)));
            }
            Accident::Truncate(a, percent) => {
                keep(key(a));
                let data = get(backend, key(a));
                put(backend, key(a), &data[..data.len() * usize::from(percent) / 100]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_is_whole_anywhere_is_used(
        accidents in prop::collection::vec(accident(), 1..6),
        sealed: bool,
        lose_index: bool,
    ) {
        let (t, _) = three(if sealed { Encryption::Chacha20Poly1305 } else { Encryption::None });
        let before = contents(&t.repository);
        accidents.iter().enumerate().for_each(|(number, accident)| accident.happen(&t.backend, number));
        if lose_index {
            t.backend.delete(INDEX).unwrap();
        }
        let first = plan(&t.repository).unwrap();
        prop_assert!(!first.loses_data(), "{:?}", first.dropped);
        apply_repair(&t.repository, &first, &options()).unwrap();
        prop_assert!(contents(&t.repository) == before);
        let again = plan(&t.repository).unwrap();
        prop_assert!(!again.has_work(), "there is always more to do");
        compact(&t.repository, &CompactOptions::default(), None).unwrap();
        prop_assert!(contents(&t.repository) == before);
    }
}
