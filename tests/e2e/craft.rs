//! Writes repositories that no honest program would, or not in a reasonable time: without encryption, byte
//! by byte.

use std::fs;
use std::path::Path;

use vykar_core::crypto::{ChunkHasher, pack_id};
use vykar_core::format::pack::HEADER;
use vykar_core::format::{
    ChunkRef, ChunkerParams, Encryption, IndexBlob, IndexEntry, Item, ItemType, RepoConfig, SnapshotMeta,
    SnapshotStats, wire::encode,
};
use vykar_core::{ChunkId, PackId, RepositoryId};

/// A repository with one snapshot, in the making.
pub struct Crafted {
    hasher: ChunkHasher,
    chunks: Vec<(ChunkId, Vec<u8>)>,
    stream: Vec<u8>,
    pub format_version: u32,
    pub source_label: String,
    pub hostname: String,
}

/// Bytes of the item stream in a chunk.
const ITEM_CHUNK: usize = 4 << 20;
const ID: RepositoryId = RepositoryId([0x42; 32]);

impl Crafted {
    pub fn new() -> Self {
        Crafted {
            hasher: ChunkHasher::unencrypted(&ID),
            chunks: Vec::new(),
            stream: Vec::new(),
            format_version: 1,
            source_label: "crafted".into(),
            hostname: "elsewhere".into(),
        }
    }

    /// Stores a chunk.
    pub fn chunk(&mut self, data: &[u8]) -> ChunkRef {
        let id = self.hasher.chunk_id(data).unwrap();
        self.chunks.push((id, data.to_vec()));
        let size = data.len() as u32;
        ChunkRef { id, size, stored_size: size + 2 }
    }

    /// Adds an item as it is, rules broken or not.
    pub fn item(mut self, item: &Item<'_>) -> Self {
        self.stream.extend(encode("item", item).unwrap());
        self
    }

    /// Adds anything to the item stream.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.stream.extend_from_slice(bytes);
        self
    }

    pub fn dir(self, path: &str) -> Self {
        self.item(&Item { mode: 0o40_755, ..Item::new(path, ItemType::Directory) })
    }

    pub fn file(mut self, path: &str, data: &[u8]) -> Self {
        let chunks = vec![self.chunk(data)];
        self.file_of(path, chunks)
    }

    /// Adds a file of chunks that are stored.
    pub fn file_of(self, path: &str, chunks: Vec<ChunkRef>) -> Self {
        let size = chunks.iter().map(|c| u64::from(c.size)).sum();
        self.item(&Item { mode: 0o100_644, size, chunks, ..Item::new(path, ItemType::RegularFile) })
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        let link_target = Some(target.to_owned().into());
        self.item(&Item { mode: 0o120_777, link_target, ..Item::new(path, ItemType::Symlink) })
    }

    /// Writes the repository into a new folder; returns the snapshot's id in hex.
    pub fn write(mut self, repo: &Path) -> String {
        let put = |name: &str, data: &[u8]| {
            let path = repo.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        };
        let config = RepoConfig {
            version: 2,
            id: ID,
            chunker: ChunkerParams::FILES,
            encryption: Encryption::None,
            created: "2026-01-01T00:00:00Z".into(),
            min_pack_size: RepoConfig::DEFAULT_MIN_PACK,
            max_pack_size: RepoConfig::DEFAULT_MAX_PACK,
        };
        put("config", &encode("config", &config).unwrap());

        // Data and items in packs of their own, as everywhere.
        let mut entries = Vec::new();
        let mut put_pack = |chunks: &[(ChunkId, Vec<u8>)]| {
            let (pack, placed) = pack(chunks);
            entries.extend(placed);
            let name = pack_id(&pack).to_string();
            put(&format!("packs/{}/{name}", &name[..2]), &pack);
        };
        if !self.chunks.is_empty() {
            put_pack(&std::mem::take(&mut self.chunks));
        }
        let stream = std::mem::take(&mut self.stream);
        let item_ptrs = stream.chunks(ITEM_CHUNK).map(|piece| self.chunk(piece).id).collect();
        put_pack(&self.chunks);
        entries.sort_by_key(|entry| entry.id);

        let mut index = vec![4, 0];
        IndexBlob::encode_to(&mut index, 7, entries.len() as u32, entries.into_iter()).unwrap();
        put("index", &index);

        let snapshot = "5a".repeat(32);
        let meta = SnapshotMeta {
            name: "crafted0".into(),
            hostname: self.hostname,
            username: "nobody".into(),
            time: "2026-01-02T03:04:05Z".into(),
            time_end: "2026-01-02T03:04:06Z".into(),
            chunker: ChunkerParams::FILES,
            comment: String::new(),
            item_ptrs,
            stats: SnapshotStats::default(),
            source_label: self.source_label,
            source_paths: vec!["/crafted".into()],
            label: String::new(),
            ext: None,
            format_version: self.format_version,
        };
        put(&format!("snapshots/{snapshot}"), &[vec![2], meta.encode().unwrap()].concat());
        snapshot
    }
}

fn pack(chunks: &[(ChunkId, Vec<u8>)]) -> (Vec<u8>, Vec<IndexEntry>) {
    let mut pack = HEADER.to_vec();
    let mut placed: Vec<(ChunkId, u32, u64, u32)> = Vec::new();
    for (id, data) in chunks {
        if let Some(known) = placed.iter_mut().find(|p| p.0 == *id) {
            known.3 += 1;
            continue;
        }
        let size = data.len() as u32 + 2;
        pack.extend(size.to_le_bytes());
        placed.push((*id, size, pack.len() as u64, 1));
        pack.extend([3, 0]);
        pack.extend_from_slice(data);
    }
    let id: PackId = pack_id(&pack);
    let entry = |(chunk, stored_size, offset, refcount)| IndexEntry {
        id: chunk,
        refcount,
        stored_size,
        pack: id,
        offset,
    };
    (pack, placed.into_iter().map(entry).collect())
}
