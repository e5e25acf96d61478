//! Small repositories for tests, put together from the public parts of the core.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::{Compression, Compressor};
use crate::crypto::{pack_id, random};
use crate::format::pack::HEADER;
use crate::format::snapshot::encode_ext;
use crate::format::{
    ChunkRef, ChunkerParams, Encryption, IndexEntry, Item, ItemType, ObjectKind, Snapshot, SnapshotMeta,
    SnapshotStats, wire,
};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::repository::handle::open::InitOptions;
use crate::repository::{OpenOptions, Passphrase, Repository, pack_key, snapshot_key};
use crate::storage::{Backend, LocalBackend, MemoryBackend, PutMode};

#[path = "../../tests/random.rs"]
mod random;
pub(crate) use random::Dice;

/// A repository in memory that is filled by hand.
pub(crate) struct TestRepository {
    pub repository: Repository,
    pub backend: MemoryBackend,
    /// What [`TestRepository::publish`] writes as the index.
    pub index: BTreeMap<ChunkId, IndexEntry>,
    /// Plaintext bytes of a file's chunk.
    pub chunk_size: usize,
    /// Plaintext bytes of an item stream's chunk: small, so that items straddle them.
    pub stream_chunk_size: usize,
    pub compression: Compression,
    pack: Vec<u8>,
    pending: Vec<ChunkId>,
}

impl TestRepository {
    pub fn new() -> Self {
        Self::with(Encryption::None)
    }

    pub fn with(encryption: Encryption) -> Self {
        let backend = MemoryBackend::new();
        let options = InitOptions::new(encryption);
        let mut passphrase = || Ok(Passphrase::from("secret".to_owned()));
        let repository =
            Repository::init(Arc::new(backend.clone()), &options, &mut passphrase, &OpenOptions::default());
        TestRepository {
            repository: repository.unwrap(),
            backend,
            index: BTreeMap::new(),
            chunk_size: 64 << 10,
            stream_chunk_size: 300,
            compression: Compression::Lz4,
            pack: HEADER.to_vec(),
            pending: Vec::new(),
        }
    }

    /// Stores a chunk in the current pack, or counts another reference to it.
    pub fn chunk(&mut self, data: &[u8]) -> ChunkRef {
        let keys = self.repository.keys().clone();
        let id = keys.hasher().chunk_id(data).unwrap();
        let size = data.len() as u32;
        if let Some(entry) = self.index.get_mut(&id) {
            entry.refcount += 1;
            return ChunkRef { id, size, stored_size: entry.stored_size };
        }
        let mut payload = Vec::new();
        Compressor::new(self.compression).unwrap().compress(data, &mut payload).unwrap();
        let object = keys.seal(ObjectKind::Chunk, id.as_bytes(), &payload).unwrap();
        let stored_size = object.len() as u32;
        self.pack.extend_from_slice(&stored_size.to_le_bytes());
        let offset = self.pack.len() as u64;
        self.pack.extend_from_slice(&object);
        self.pending.push(id);
        let entry = IndexEntry { id, refcount: 1, stored_size, pack: PackId([0; 32]), offset };
        self.index.insert(id, entry);
        ChunkRef { id, size, stored_size }
    }

    /// Writes the current pack.
    pub fn close_pack(&mut self) -> Option<PackId> {
        if self.pending.is_empty() {
            return None;
        }
        let pack = std::mem::replace(&mut self.pack, HEADER.to_vec());
        let id = pack_id(&pack);
        for chunk in self.pending.drain(..) {
            self.index.get_mut(&chunk).unwrap().pack = id;
        }
        self.backend.put(&pack_key(&id), &pack, PutMode::Replace).unwrap();
        Some(id)
    }

    /// A regular file's item; its content is stored in chunks of [`TestRepository::chunk_size`].
    pub fn file(&mut self, path: &str, content: &[u8]) -> Item<'static> {
        let chunks = content.chunks(self.chunk_size).map(|data| self.chunk(data)).collect();
        let item = Item::new(path.to_owned(), ItemType::RegularFile);
        let (uid, gid) = me();
        Item { chunks, size: content.len() as u64, mode: 0o100_644, uid, gid, ..item }
    }

    /// Writes a snapshot of these items, in packs of its own, and then the index.
    pub fn snapshot(&mut self, name: &str, items: &[Item<'_>], root: Option<&Item<'_>>) -> Snapshot {
        self.close_pack();
        let mut stream = Vec::new();
        for item in items {
            stream.extend(wire::encode("item", item).unwrap());
        }
        let item_ptrs = stream.chunks(self.stream_chunk_size).map(|data| self.chunk(data).id).collect();
        self.close_pack();
        self.publish();
        let meta = SnapshotMeta {
            name: name.to_owned(),
            hostname: "host".into(),
            username: "user".into(),
            time: "2026-01-02T03:04:05Z".into(),
            time_end: "2026-01-02T03:04:06Z".into(),
            chunker: ChunkerParams::FILES,
            comment: String::new(),
            item_ptrs,
            stats: SnapshotStats::default(),
            source_label: String::new(),
            source_paths: vec!["/source".into()],
            label: String::new(),
            ext: encode_ext(root, &[], &[]).unwrap(),
            format_version: 1,
        };
        self.put_snapshot(&meta.encode().unwrap(), Some(meta)).unwrap()
    }

    /// Writes a snapshot object with this plaintext.
    pub fn put_snapshot(&self, plain: &[u8], meta: Option<SnapshotMeta>) -> Option<Snapshot> {
        let id = SnapshotId(random().unwrap());
        let object = self.repository.keys().seal(ObjectKind::Snapshot, id.as_bytes(), plain).unwrap();
        self.backend.put(&snapshot_key(&id), &object, PutMode::Replace).unwrap();
        meta.map(|meta| Snapshot::new(id, meta).unwrap())
    }

    /// Writes the index.
    pub fn publish(&self) {
        let entries = self.index.values().copied();
        let count = self.index.len() as u32;
        let generation = u64::from_le_bytes(random().unwrap());
        self.repository.write_index(generation, count, entries, Compression::Lz4).unwrap();
    }

    /// Flips a bit of a chunk where it is stored.
    pub fn damage(&self, chunk: &ChunkId) {
        let entry = self.index[chunk];
        let key = pack_key(&entry.pack);
        let mut pack = self.backend.get(&key, u64::MAX).unwrap();
        pack[entry.offset as usize + entry.stored_size as usize / 2] ^= 1;
        self.backend.put(&key, &pack, PutMode::Replace).unwrap();
    }
}

/// The effective user and group, so that tests run as anybody.
pub(crate) fn me() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

pub(crate) fn is_root() -> bool {
    me().0 == 0
}

/// A directory's item.
pub(crate) fn directory(path: &str) -> Item<'static> {
    let (uid, gid) = me();
    Item { mode: 0o040_755, uid, gid, ..Item::new(path.to_owned(), ItemType::Directory) }
}

/// A symlink's item.
pub(crate) fn symlink(path: &str, target: &str) -> Item<'static> {
    let (uid, gid) = me();
    let item = Item::new(path.to_owned(), ItemType::Symlink);
    Item { mode: 0o120_777, uid, gid, link_target: Some(target.to_owned().into()), ..item }
}

/// Bytes that do not compress and do not repeat, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    Dice::new(seed).bytes(len)
}

/// A repository that this project did not write, opened where it lies.
pub(crate) struct Fixture {
    pub name: &'static str,
    pub repository: Repository,
    /// One JSON object for each item.
    pub items: Vec<serde_json::Value>,
}

/// All fixtures.
pub(crate) fn fixtures() -> [Fixture; 3] {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    let open = |name: &'static str| {
        let backend = Arc::new(LocalBackend::new(dir.join(name).join("repo")));
        let mut passphrase = || Ok(Passphrase::from("correct horse".to_owned()));
        let repository = Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap();
        let text = std::fs::read_to_string(dir.join(name).join("items.jsonl")).unwrap();
        let items = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let fixture = Fixture { name, repository, items };
        assert!(!fixture.items.is_empty(), "{name}");
        fixture
    };
    let all = ["aes256gcm-lz4", "chacha20poly1305-zstd", "plain-stored"];
    let there = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let folders = there.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, all.len(), "{} has others", dir.display());
    all.map(open)
}

/// The bytes of a hexadecimal string.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}
