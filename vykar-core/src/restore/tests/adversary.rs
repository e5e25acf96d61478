//! Whoever holds the storage changes it in every way: what is restored is right, or is not there and is named.

use std::sync::Arc;

use super::*;
use crate::format::{ChunkerParams, Encryption, RepoConfig, wire};
use crate::id::SnapshotId;
use crate::repository::{CONFIG, INDEX, Manifest, OpenOptions, Passphrase, REPOKEY, pack_key};
use crate::storage::{Backend, PutMode};
use crate::testing::{TestRepository, noise};

const ALL: [Encryption; 3] = [Encryption::None, Encryption::Aes256Gcm, Encryption::Chacha20Poly1305];

type Files = BTreeMap<String, Vec<u8>>;

/// A repository of two snapshots that share files, and have one of the same path and length that differs.
struct Scene {
    t: TestRepository,
    files: BTreeMap<SnapshotId, Files>,
    /// The index from before the second snapshot.
    old_index: Vec<u8>,
}

impl Scene {
    fn new(encryption: Encryption, seed: u64) -> Self {
        let mut t = TestRepository::with(encryption);
        t.chunk_size = 5000;
        let (mut all, mut old_index) = (BTreeMap::new(), Vec::new());
        for (at, name) in ["first", "second"].into_iter().enumerate() {
            let mut files: Files = (0..4).map(|n| (format!("d/f{n}"), noise(seed + 2 * n, 12_000))).collect();
            files.insert("changed".into(), noise(seed + 20 + 2 * at as u64, 10_000));
            let items: Vec<_> = files.iter().map(|(path, content)| t.file(path, content)).collect();
            let snapshot = t.snapshot(name, &items, None);
            all.insert(snapshot.id, files);
            if at == 0 {
                old_index = get(&t, INDEX);
            }
        }
        Scene { t, files: all, old_index }
    }

    fn encryption(&self) -> Encryption {
        self.t.repository.config().encryption
    }

    /// Restores all that can be opened. Panics when anything is wrong, or missing and not named; true when
    /// everything is there.
    fn restore_all(&self, repository: &Repository, what: &str) -> bool {
        let Ok(manifest) = Manifest::load(repository) else { return false };
        let mut whole = manifest.unreadable.is_empty() && manifest.snapshots.len() == self.files.len();
        for snapshot in &manifest.snapshots {
            whole &= self.restore_one(repository, snapshot, what);
        }
        whole
    }

    fn restore_one(&self, repository: &Repository, snapshot: &Snapshot, what: &str) -> bool {
        let around = tempfile::tempdir().unwrap();
        let dest = around.path().join("dest");
        let result = restore(repository, snapshot, &dest, &RestoreOptions::default(), None);
        let found = match dest.exists() {
            true => walk(&dest),
            false => BTreeMap::new(),
        };
        let content: Files = found
            .into_iter()
            .filter(|(_, metadata)| metadata.is_file())
            .map(|(path, _)| String::from_utf8(path).unwrap())
            .map(|path| (path.clone(), fs::read(dest.join(path)).unwrap()))
            .collect();
        // Without a cipher nothing tells whose a snapshot is, so it may be any of them, and that one must be right.
        let own = |id: &SnapshotId| *id == snapshot.id || self.encryption() == Encryption::None;
        let expected = self.files.iter().filter(|(id, _)| own(id)).map(|(_, files)| files);
        let expected = expected.max_by_key(|files| matching(files, &content));
        let expected = expected.unwrap_or_else(|| panic!("{what}: a snapshot that nobody made was opened"));
        assert_eq!(matching(expected, &content), content.len(), "{what}: wrong bytes were given out");
        let all = content.len() == expected.len();
        assert!(
            all || !matches!(result, Ok(summary) if summary.errors == 0),
            "{what}: missing, and not said"
        );
        all && result.is_ok()
    }

    fn open(&self) -> crate::Result<Repository> {
        let mut passphrase = || Ok(Passphrase::from("secret".to_owned()));
        Repository::open(Arc::new(self.t.backend.clone()), &mut passphrase, &OpenOptions::default())
    }

    /// Puts other bytes in an object's place for a while; returns whether everything could be restored.
    fn with(&self, key: &str, content: &[u8], what: &str) -> bool {
        let whole = get(&self.t, key);
        self.t.backend.put(key, content, PutMode::Replace).unwrap();
        let what = format!("{} {key}: {what}", self.encryption());
        // Only these two are read when a repository is opened, and that takes a while.
        let complete = match key {
            CONFIG | REPOKEY => self.open().is_ok_and(|repository| self.restore_all(&repository, &what)),
            _ => self.restore_all(&self.t.repository, &what),
        };
        self.t.backend.put(key, &whole, PutMode::Replace).unwrap();
        complete
    }

    fn keys(&self) -> Vec<String> {
        self.t.backend.list("").unwrap().into_iter().map(|object| object.key).collect()
    }
}

fn get(t: &TestRepository, key: &str) -> Vec<u8> {
    t.backend.get(key, u64::MAX).unwrap()
}

/// How many of these files are as they should be.
fn matching(expected: &Files, found: &Files) -> usize {
    found.iter().filter(|(path, content)| expected.get(*path) == Some(content)).count()
}

fn folder(key: &str) -> &str {
    key.split_once('/').map_or(key, |(folder, _)| folder)
}

#[test]
fn damaged_objects_never_give_wrong_bytes() {
    for encryption in ALL {
        let scene = Scene::new(encryption, 100);
        assert!(scene.restore_all(&scene.t.repository, "as it is"));
        for key in scene.keys() {
            let whole = get(&scene.t, &key);
            let places = if [CONFIG, REPOKEY].contains(&&*key) { 4 } else { 6 };
            for at in (0..places).map(|n| n * (whole.len() - 1) / (places - 1)) {
                let mut bad = whole.clone();
                bad[at] ^= 0x04;
                scene.with(&key, &bad, &format!("byte {at}"));
                let cut = scene.with(&key, &whole[..at], &format!("cut at {at}"));
                assert!(!cut || key == "index.gen", "{encryption} {key} cut at {at}, and nothing is missing");
            }
            let zeros = scene.with(&key, &vec![0; whole.len()], "zeros");
            assert!(!zeros || key == "index.gen", "{encryption} {key}");
        }
        assert!(scene.restore_all(&scene.t.repository, "put back"));
    }
}

#[test]
fn objects_in_each_others_place_never_give_wrong_bytes() {
    for encryption in ALL {
        let (scene, other) = (Scene::new(encryption, 100), Scene::new(encryption, 200));
        for key in scene.keys() {
            let whole = get(&scene.t, &key);
            let same = |keys: Vec<String>| keys.into_iter().filter(|k| folder(k) == folder(&key));
            let own = same(scene.keys()).filter(|k| *k != key).map(|k| (get(&scene.t, &k), k));
            // The passphrase is the same there.
            let foreign = same(other.keys()).map(|k| (get(&other.t, &k), format!("{k} of another")));
            for (content, from) in own.chain(foreign).filter(|(content, _)| *content != whole) {
                let complete = scene.with(&key, &content, &from);
                let kind = folder(&key);
                // What is made of a repository's id is in chunk ids, so they tell even without a cipher, except where
                // one of its own snapshots has another one's name.
                let tells = ["keys", "packs", "snapshots", "index"].contains(&kind);
                let plain_snapshot = encryption == Encryption::None && kind == "snapshots";
                assert!(!complete || !tells || plain_snapshot, "{encryption} {key} is {from}");
            }
        }
        let complete = scene.with(INDEX, &scene.old_index, "of another time");
        assert!(!complete, "the second snapshot's chunks are not in it");
        assert!(scene.restore_all(&scene.t.repository, "put back"));
    }
}

#[test]
fn another_cipher_in_the_parameters_opens_nothing() {
    for encryption in ALL {
        let scene = Scene::new(encryption, 100);
        let config = scene.t.repository.config();
        for claimed in ALL.into_iter().filter(|claimed| *claimed != encryption) {
            let forged = RepoConfig { encryption: claimed, ..config.clone() };
            let complete = scene.with(CONFIG, &wire::encode("config", &forged).unwrap(), claimed.name());
            assert!(!complete, "{encryption} as {claimed}");
        }
        // What the rest of it says is about writing alone.
        let chunker = ChunkerParams { min: 64 << 10, avg: 256 << 10, max: 1 << 20 };
        let forged = RepoConfig { chunker, ..config.clone() };
        assert!(scene.with(CONFIG, &wire::encode("config", &forged).unwrap(), "other sizes"));
    }
}

#[test]
fn chunks_in_each_others_place_cost_their_files() {
    for encryption in ALL {
        let (scene, other) = (Scene::new(encryption, 100), Scene::new(encryption, 200));
        let mut large: Vec<_> = scene.t.index.values().filter(|e| e.stored_size > 5000).copied().collect();
        large.sort_by_key(|entry| (entry.pack, entry.offset));
        let (a, b) = (large[0], large[1]);
        assert_eq!((a.stored_size, a.pack), (b.stored_size, b.pack), "noise does not compress");
        let place = |entry: &crate::format::IndexEntry| {
            entry.offset as usize..entry.offset as usize + entry.stored_size as usize
        };
        let pack = get(&scene.t, &pack_key(&a.pack));
        let mut swapped = pack.clone();
        swapped[place(&a)].copy_from_slice(&pack[place(&b)]);
        swapped[place(&b)].copy_from_slice(&pack[place(&a)]);
        let stranger = other.t.index.values().find(|e| e.stored_size == a.stored_size).unwrap();
        let mut foreign = pack.clone();
        foreign[place(&a)].copy_from_slice(&get(&other.t, &pack_key(&stranger.pack))[place(stranger)]);
        for (content, what) in [(swapped, "two chunks swapped"), (foreign, "a chunk of another repository")] {
            assert!(!scene.with(&pack_key(&a.pack), &content, what), "{encryption}: {what}");
        }
    }
}
