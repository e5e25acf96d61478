//! Every kind of damage to every object of a repository.

use super::*;
use crate::format::Item;
use crate::storage::MemoryBackend;
use crate::torture::tell;

/// One object damaged in one way.
#[derive(Debug)]
pub struct Damage {
    pub key: String,
    pub kind: &'static str,
    /// What is there then; nothing when it is gone.
    content: Option<Vec<u8>>,
    whole: Vec<u8>,
}

impl Damage {
    pub fn apply(&self, t: &TestRepository) {
        self.apply_to(&t.backend);
    }

    pub fn apply_to(&self, backend: &MemoryBackend) {
        match &self.content {
            Some(content) => backend.put(&self.key, content, PutMode::Replace).unwrap(),
            None => backend.delete(&self.key).unwrap(),
        }
    }

    pub fn undo(&self, t: &TestRepository) {
        t.backend.put(&self.key, &self.whole, PutMode::Replace).unwrap();
    }

    /// Without a cipher nothing tells whose a snapshot is, or that a letter of its name is another one.
    pub fn shows(&self, encryption: Encryption) -> bool {
        let plain = encryption == Encryption::None && self.key.starts_with("snapshots/");
        !(plain && ["first byte but one", "swapped", "from another repository"].contains(&self.kind))
    }
}

/// The folder that an object is in, or its name.
fn kind_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(folder, _)| folder)
}

/// All damages of all objects but those whose key `skip`s.
pub fn all(t: &TestRepository, other: &TestRepository, skip: impl Fn(&str) -> bool) -> Vec<Damage> {
    let keys = |t: &TestRepository| -> Vec<_> {
        let listed = t.backend.list("").unwrap();
        listed.into_iter().map(|object| object.key).collect()
    };
    let mut damages = Vec::new();
    for key in keys(t).into_iter().filter(|key| !skip(key)) {
        let whole = t.backend.get(&key, u64::MAX).unwrap();
        let of_kind = |t: &TestRepository, not: &str| {
            let key = keys(t).into_iter().find(|k| kind_of(k) == kind_of(&key) && k != not)?;
            t.backend.get(&key, u64::MAX).ok()
        };
        let flipped = |at: usize| {
            let mut content = whole.clone();
            content[at] ^= 0x10;
            Some(content)
        };
        let mut add = |kind, content: Option<Vec<u8>>| {
            let (key, whole) = (key.clone(), whole.clone());
            // Without a cipher the same content makes the same pack anywhere.
            if content.as_ref() != Some(&whole) {
                damages.push(Damage { key, kind, content, whole });
            }
        };
        add("missing", None);
        add("empty", Some(Vec::new()));
        add("truncated", Some(whole[..whole.len() / 2].to_vec()));
        add("last byte cut", Some(whole[..whole.len() - 1].to_vec()));
        add("longer", Some([&whole[..], b"more"].concat()));
        add("first byte", flipped(0));
        add("first byte but one", flipped(5));
        add("last byte", flipped(whole.len() - 1));
        add("middle byte", flipped(whole.len() / 2));
        add("zeros", Some(vec![0; whole.len()]));
        if let Some(content) = of_kind(t, &key) {
            add("swapped", Some(content));
        }
        if let Some(content) = of_kind(other, "") {
            add("from another repository", Some(content));
        }
    }
    damages
}

/// A repository with one of every object.
pub fn full(encryption: Encryption) -> (TestRepository, Vec<Item<'static>>, [Snapshot; 2]) {
    let (t, items, snapshots) = sample(encryption);
    // A backup that was killed, twice.
    for id in ["ab", "cd"] {
        let journal = [0x91, 0x92, 0xdc, 0, 32].iter().copied().chain([7; 32]).chain([0x90]);
        let plain: Vec<u8> = [0].into_iter().chain(journal).collect();
        let context = crate::format::envelope::PENDING_CONTEXT;
        let object = t.repository.keys().seal(ObjectKind::PendingIndex, context, &plain).unwrap();
        t.backend.put(&format!("sessions/{}.index", id.repeat(16)), &object, PutMode::Replace).unwrap();
    }
    (t, items, snapshots)
}

#[test]
fn every_kind_of_damage_to_every_object_is_found_and_named() {
    let (mut done, mut found_and_named, mut found) = (0, 0, 0);
    let mut not_found = std::collections::BTreeMap::new();
    for encryption in [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305] {
        let (t, ..) = full(encryption);
        let (other, ..) = full(encryption);
        assert_eq!(checked(&t, &DATA).findings, []);
        let damages = all(&t, &other, |_| false);
        for kind in ["config", "index", "index.gen", "packs", "snapshots", "sessions"] {
            assert!(damages.iter().any(|d| kind_of(&d.key) == kind), "no {kind}");
        }
        for damage in damages {
            damage.apply(&t);
            let report = check(&t.repository, &DATA, None).unwrap();
            done += 1;
            let name = damage.key.rsplit('/').next().unwrap();
            let name = name.strip_suffix(".index").unwrap_or(name);
            let name = if name.len() == 64 { &name[..16] } else { name };
            // Where a snapshot or a journal is gone, only what it referred to is left to say so; a journal is
            // missing after any backup.
            let gone = damage.kind == "missing" && ["snapshots", "sessions"].contains(&kind_of(&damage.key));
            // Any journal is as good as another to the same keys, and nothing guards one without them.
            let journal = kind_of(&damage.key) == "sessions"
                && (damage.kind == "swapped" || encryption == Encryption::None);
            // Without a cipher an index may say anything; what it says wrong is found.
            let index = damage.key == "index" && encryption == Encryption::None;
            let named = report.findings.iter().any(|finding| finding.to_string().contains(name));
            found_and_named += u32::from(named);
            found += u32::from(!report.findings.is_empty());
            if report.findings.is_empty() {
                let what = format!("{} {}, {encryption}", kind_of(&damage.key), damage.kind);
                *not_found.entry(what).or_insert(0) += 1;
            }
            if index && damage.kind == "longer" {
                damage.undo(&t);
                continue; // what follows its end is read by nobody
            }
            let context = format!("{encryption} {} {}: {:?}", damage.key, damage.kind, report.findings);
            assert!(named || gone || journal || !damage.shows(encryption) || index, "{context}");
            if damage.key.starts_with("snapshots/") && gone || index {
                assert!(!report.findings.is_empty(), "{context}");
            }
            let harmless = damage.key.starts_with("sessions/") || damage.key == "index.gen";
            // Without a cipher a changed version number is what a newer program would write.
            let plain = encryption == Encryption::None && damage.key.starts_with("snapshots/");
            if named && !gone && !(plain && report.newer > 0) {
                assert_eq!(report.damage == 0, harmless, "{context}");
            }
            damage.undo(&t);
        }
        assert_eq!(checked(&t, &DATA).findings, []);
    }
    tell(&format!(
        "damage, check: {done} done, {found} found, {found_and_named} named; not found: {not_found:?}"
    ));
}

#[test]
fn what_others_left_behind_is_named_and_harmless() {
    let (mut t, ..) = sample(Encryption::None);
    t.snapshot("second", &[], None);
    let put = |key: &str, data: &[u8]| t.backend.put(key, data, PutMode::Replace).unwrap();
    let old = "2026-01-01T00:00:00Z";
    let lock = format!("locks/{}-{}.json", "0".repeat(20), "ab".repeat(16));
    put(&lock, format!(r#"{{"hostname":"old","pid":1,"time":"{old}","boot_id":null}}"#).as_bytes());
    put(&format!("locks/{}-{}.json", "1".repeat(20), "ab".repeat(16)), b"?");
    put(&format!("sessions/{}.json", "cd".repeat(16)), b"{}");
    put("letter.txt", b"Dear Sir");
    put("snapshots/README", b"");
    put("packs/00/ff", b"");
    put("damaged/snapshots/x", b"set aside by a repair");
    let report = checked(&t, &LISTS);
    let kinds = kinds(&report);
    let expected = ["lock left", "lock left", "name twice", "session left"];
    assert_eq!(kinds[..4], expected, "{:?}", report.findings);
    assert_eq!(kinds[4..], ["unknown object"; 3], "{:?}", report.findings);
    assert_eq!(report.damage, 0);
    let texts: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    for text in ["letter.txt", "snapshots/README", "packs/00/ff", &lock, "\"second\""] {
        assert!(texts.iter().any(|found| found.contains(text)), "{text}: {texts:#?}");
    }
}

#[test]
fn a_path_that_is_there_twice_is_named() {
    let mut t = TestRepository::new();
    let files = [t.file("f", b"one"), directory("d"), t.file("f", b"two")];
    t.snapshot("s", &files, None);
    t.snapshot("other", &[directory("f"), directory("g")], None);
    let report = checked(&t, &LISTS);
    assert_eq!(kinds(&report), ["path twice"]);
    assert!(report.findings[0].to_string().contains("\"f\""));
}

#[test]
fn later_snapshots_that_share_damage_are_named() {
    let (mut t, items, _) = sample(Encryption::None);
    t.snapshot("third", &items[..20], None);
    t.index.remove(&items[1].chunks[0].id);
    t.publish();
    let report = checked(&t, &LISTS);
    let affected: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| matches!(finding, Finding::SnapshotAffected { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(affected.len(), 2, "{:?}", report.findings);
    // The third one has only the first of the two files that lost the chunk.
    assert!(affected.iter().all(|text| text.contains("1 damaged items") || text.contains("2 damaged items")));
    let names = ["first", "second", "third"];
    let named = names.map(|name| affected.iter().filter(|text| text.contains(name)).count());
    assert_eq!(named.iter().sum::<usize>(), 2, "{affected:?}");
}

#[test]
fn a_pack_of_a_newer_version_is_not_called_damaged() {
    let (t, ..) = sample(Encryption::None);
    let pack = b"VGERPACK\x02something new";
    t.backend.put(&pack_key(&crate::crypto::pack_id(pack)), pack, PutMode::Replace).unwrap();
    assert_eq!(kinds(&checked(&t, &DATA)), ["pack newer", "unreferenced pack"]);
}

#[test]
fn parts_of_the_packs_are_all_packs_together_and_shares_change_with_the_seed() {
    let mut t = TestRepository::new();
    for n in 0..60 {
        t.file(&format!("f{n}"), &noise(n, 100));
        t.close_pack();
    }
    t.snapshot("s", &[], None);
    let verified = |subset| {
        let options = CheckOptions { verify_data: false, subset: Some(subset), threads: 1 };
        check(&t.repository, &options, None).unwrap().packs_verified
    };
    let parts: Vec<_> = (1..=7).map(|part| verified(Subset::Part { part, of: 7 })).collect();
    assert_eq!(parts.iter().sum::<u64>(), 60, "{parts:?}");
    assert!(parts.iter().all(|part| (1..25).contains(part)), "{parts:?}");
    assert_eq!(verified(Subset::Share { share: 1.0, seed: 3 }), 60);
    assert_eq!(verified(Subset::Share { share: 0.0, seed: 3 }), 0);
    let half = verified(Subset::Share { share: 0.5, seed: 1 });
    assert!((10..50).contains(&half), "{half}");

    // Over a few runs every pack is looked at: damage that one of them does not see another one does.
    let damaged = t.backend.list("packs/").unwrap()[30].key.clone();
    t.backend.put(&damaged, b"?", PutMode::Replace).unwrap();
    let found = |seed| {
        let subset = Some(Subset::Share { share: 0.5, seed });
        let options = CheckOptions { verify_data: false, subset, threads: 1 };
        check(&t.repository, &options, None).unwrap().findings.iter().any(|f| kind(f) == "pack damaged")
    };
    let found = (0..20).filter(|seed| found(*seed)).count();
    assert!((1..20).contains(&found), "{found}");
}
