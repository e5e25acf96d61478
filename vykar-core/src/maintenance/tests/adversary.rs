//! What an adversary puts in another's place inside packs and time; whole objects are in `damage`.

use super::*;
use crate::format::IndexEntry;

const ALL: [Encryption; 3] = [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305];

fn place(entry: &IndexEntry) -> std::ops::Range<usize> {
    entry.offset as usize..entry.offset as usize + entry.stored_size as usize
}

fn get(t: &TestRepository, key: &str) -> Vec<u8> {
    t.backend.get(key, u64::MAX).unwrap()
}

#[test]
fn chunks_in_each_others_place_are_found_and_their_files_named() {
    for encryption in ALL {
        let (t, items, _) = sample(encryption);
        let (other, ..) = sample(encryption);
        // The first chunks of two files, of one length and in one pack.
        let [a, b] = [1, 2].map(|n| t.index[&items[n].chunks[0].id]);
        assert_eq!((a.stored_size, a.pack), (b.stored_size, b.pack));
        let pack = get(&t, &pack_key(&a.pack));
        let mut swapped = pack.clone();
        swapped[place(&a)].copy_from_slice(&pack[place(&b)]);
        swapped[place(&b)].copy_from_slice(&pack[place(&a)]);
        // Another repository with the same passphrase, and the same file in it.
        let stranger = other.index.values().find(|entry| entry.stored_size == a.stored_size).unwrap();
        let mut foreign = pack.clone();
        foreign[place(&a)].copy_from_slice(&get(&other, &pack_key(&stranger.pack))[place(stranger)]);
        for content in [swapped, foreign] {
            // Without a cipher the same content is the same chunk, wherever it comes from.
            if content == pack {
                continue;
            }
            t.backend.put(&pack_key(&a.pack), &content, PutMode::Replace).unwrap();
            let report = checked(&t, &DATA);
            let kinds = kinds(&report);
            for kind in ["chunk damaged", "file", "pack damaged"] {
                assert!(kinds.contains(&kind), "{encryption}: {kinds:?}");
            }
            assert!(report.findings.iter().any(|f| f.to_string().contains("\"d/f00\"")), "{encryption}");
        }
        t.backend.put(&pack_key(&a.pack), &pack, PutMode::Replace).unwrap();
        clean(&t);
    }
}

#[test]
fn a_forged_pack_under_its_right_name_is_found() {
    for encryption in ALL {
        let (t, items, _) = sample(encryption);
        let [a, b] = [1, 2].map(|n| t.index[&items[n].chunks[0].id]);
        let pack = get(&t, &pack_key(&a.pack));
        let mut forged = pack.clone();
        forged[place(&a)].copy_from_slice(&pack[place(&b)]);
        // Its name is the hash of what is in it, which anybody can compute; but the index names the other one.
        t.backend.delete(&pack_key(&a.pack)).unwrap();
        t.backend.put(&pack_key(&crate::crypto::pack_id(&forged)), &forged, PutMode::Replace).unwrap();
        for options in [LISTS, DATA] {
            let found = kinds(&checked(&t, &options));
            assert!(found.contains(&"pack missing") && found.contains(&"file"), "{encryption}: {found:?}");
        }
    }
}

#[test]
fn an_index_of_another_time_costs_what_came_after_it_and_that_is_named() {
    for encryption in ALL {
        let mut t = TestRepository::with(encryption);
        let old_file = t.file("old", &noise(1, 9000));
        t.snapshot("first", std::slice::from_ref(&old_file), None);
        let old = get(&t, INDEX);
        let new_file = t.file("new", &noise(3, 9000));
        t.snapshot("second", &[new_file], None);
        clean(&t);
        t.backend.put(INDEX, &old, PutMode::Replace).unwrap();
        let report = checked(&t, &LISTS);
        assert!(report.damage > 0);
        let texts: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|text| text.contains("second")), "{encryption}: {texts:?}");
        assert!(!texts.iter().any(|text| text.contains("snapshot first (")), "{encryption}: {texts:?}");
    }
}
