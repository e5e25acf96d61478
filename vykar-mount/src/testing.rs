//! Repositories for tests, written object by object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use vykar_core::codec::Compression;
use vykar_core::codec::compress::Compressor;
use vykar_core::crypto::pack_id;
use vykar_core::format::envelope::INDEX_CONTEXT;
use vykar_core::format::pack::HEADER;
use vykar_core::format::snapshot::encode_ext;
use vykar_core::format::wire::encode;
use vykar_core::format::*;
use vykar_core::repository::{
    INDEX, INDEX_GENERATION, InitOptions, OpenOptions, Passphrase, Repository, pack_key, snapshot_key,
};
use vykar_core::storage::testing::{Call, Op, TestBackend};
use vykar_core::storage::{Backend, MemoryBackend, PutMode};
use vykar_core::{ChunkId, SnapshotId, StorageError};

use crate::fs::{Fs, FsOptions, LookupEntry};
use crate::log::LogLine;
use crate::view::attr_mapping::Shown;
use crate::view::inode::ROOT;
use crate::view::subtree_root::SetupError;

/// Largest chunk of the files in these repositories, in bytes.
pub const LARGEST: u32 = 4096;

/// What tests see and do between a mount and its repository.
#[derive(Clone, Default)]
pub struct Line {
    /// Ranges of packs that were read.
    pub pack_reads: Arc<AtomicUsize>,
    /// Reads of packs fail, as those of a network that is down.
    pub down: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// A part of a repository that cannot be read.
pub struct Fault {
    /// Keys that begin with this.
    pub part: String,
    /// They are not there; otherwise reading them fails.
    pub missing: bool,
}

impl Line {
    /// From now on; `None` for nothing.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
    }

    /// A storage behind it.
    fn backend(&self) -> TestBackend<MemoryBackend> {
        let (backend, line) = (TestBackend::new(MemoryBackend::new()), self.clone());
        backend.before(move |op, _| match op.call {
            Call::Put | Call::Delete => Ok(()),
            _ => line.check(op),
        });
        backend
    }

    /// How reading a key fails, or listing a folder that is away.
    fn check(&self, op: Op<'_>) -> Result<(), StorageError> {
        let failed = |kind: std::io::ErrorKind| {
            Err(StorageError::Io { operation: "read", key: op.key.into(), source: kind.into() })
        };
        if op.call == Call::GetRange {
            self.pack_reads.fetch_add(1, Relaxed);
            if self.down.load(Relaxed) {
                return failed(std::io::ErrorKind::TimedOut);
            }
        }
        match &*self.fault.lock() {
            Some(fault) if op.key.starts_with(&fault.part) => match fault.missing {
                true => Err(StorageError::NotFound { key: op.key.into() }),
                false => failed(std::io::ErrorKind::PermissionDenied),
            },
            _ => Ok(()),
        }
    }
}

/// A repository in memory and its writer.
pub struct Repo {
    pub backend: Arc<TestBackend<MemoryBackend>>,
    pub line: Line,
    pub repository: Arc<Repository>,
    chunks: BTreeMap<ChunkId, IndexEntry>,
    /// Sealed chunks, to put them into other packs.
    objects: BTreeMap<ChunkId, Vec<u8>>,
    generation: u64,
    /// Item streams are cut into chunks of so many bytes.
    pub stream_chunk: usize,
    pub compression: Compression,
}

impl Repo {
    pub fn new() -> Self {
        Self::with(Encryption::None, &OpenOptions::default())
    }

    pub fn with(encryption: Encryption, open: &OpenOptions) -> Self {
        let line = Line::default();
        let backend = Arc::new(line.backend());
        let options = InitOptions::new(encryption);
        let mut passphrase = || Ok(Passphrase::from("secret".to_owned()));
        let repository = Repository::init(backend.clone(), &options, &mut passphrase, open);
        Repo {
            backend,
            line,
            repository: Arc::new(repository.unwrap()),
            chunks: BTreeMap::new(),
            objects: BTreeMap::new(),
            generation: 1,
            stream_chunk: 1000,
            compression: Compression::Lz4,
        }
    }

    /// Stores a chunk in a pack of its own.
    pub fn chunk(&mut self, data: &[u8]) -> ChunkRef {
        let keys = self.repository.keys();
        let id = keys.hasher().chunk_id(data).unwrap();
        let mut payload = Vec::new();
        Compressor::new(self.compression).unwrap().compress(data, &mut payload).unwrap();
        let object = keys.seal(ObjectKind::Chunk, id.as_bytes(), &payload).unwrap();
        let size = object.len() as u32;
        if self.objects.insert(id, object).is_none() {
            self.pack(id, b"");
        }
        ChunkRef { id, size: data.len() as u32, stored_size: size }
    }

    /// Writes a chunk's pack; `salt` behind it gives it another name.
    fn pack(&mut self, id: ChunkId, salt: &[u8]) {
        let object = &self.objects[&id];
        let stored_size = object.len() as u32;
        let pack = [HEADER, &stored_size.to_le_bytes()[..], object, salt].concat();
        let entry = IndexEntry { id, refcount: 1, stored_size, pack: pack_id(&pack), offset: 13 };
        self.backend.put(&pack_key(&entry.pack), &pack, PutMode::Replace).unwrap();
        self.chunks.insert(id, entry);
    }

    /// Moves every chunk to another pack and deletes the old ones, as a compaction does.
    pub fn move_chunks(&mut self) {
        let old: Vec<_> = self.chunks.values().copied().collect();
        let salt = self.generation.to_le_bytes();
        old.iter().for_each(|entry| self.pack(entry.id, &salt));
        self.write_index();
        old.iter().for_each(|entry| self.backend.delete(&pack_key(&entry.pack)).unwrap());
    }

    /// Turns a bit of a stored chunk; returns what undoes it.
    pub fn damage(&self, id: &ChunkId) -> impl FnOnce() + use<> {
        let key = pack_key(&self.chunks[id].pack);
        let good = self.backend.get(&key, u64::MAX).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        self.backend.put(&key, &bad, PutMode::Replace).unwrap();
        let backend = self.backend.clone();
        move || backend.put(&key, &good, PutMode::Replace).unwrap()
    }

    /// Deletes a chunk's pack.
    pub fn lose(&self, id: &ChunkId) {
        self.backend.delete(&pack_key(&self.chunks[id].pack)).unwrap();
    }

    /// Writes an index that counts nothing any more, as whoever deletes the last snapshot does.
    pub fn forget_chunks(&mut self) {
        self.chunks.clear();
        self.write_index();
    }

    pub fn write_index(&mut self) {
        self.generation += 1;
        let mut plain = Vec::new();
        let entries = self.chunks.values().copied();
        IndexBlob::encode_to(&mut plain, self.generation, self.chunks.len() as u32, entries).unwrap();
        let mut payload = Vec::new();
        Compressor::new(Compression::Zstd(1)).unwrap().compress(&plain, &mut payload).unwrap();
        let object = self.repository.keys().seal(ObjectKind::Index, INDEX_CONTEXT, &payload).unwrap();
        self.backend.put(INDEX, &object, PutMode::Replace).unwrap();
        self.backend.put(INDEX_GENERATION, &self.generation.to_le_bytes(), PutMode::Replace).unwrap();
    }

    /// A file of the given chunks.
    pub fn file(&mut self, path: &str, chunks: &[&[u8]]) -> Item<'static> {
        let chunks: Vec<_> = chunks.iter().map(|data| self.chunk(data)).collect();
        let size = chunks.iter().map(|c| u64::from(c.size)).sum();
        let mode = libc::S_IFREG | 0o644;
        Item { chunks, size, mode, ..Item::new(path.to_owned(), ItemType::RegularFile) }
    }

    /// Writes a snapshot, whose id begins with `n`.
    pub fn snapshot(&mut self, n: u8, like: SnapshotMeta, items: &[Item<'_>]) -> SnapshotId {
        let stream: Vec<u8> = items.iter().flat_map(|item| encode("item", item).unwrap()).collect();
        let chunks: Vec<_> = stream.chunks(self.stream_chunk).collect();
        self.raw_snapshot(n, like, &chunks)
    }

    /// The same with these chunks as its item stream.
    pub fn raw_snapshot(&mut self, n: u8, like: SnapshotMeta, chunks: &[&[u8]]) -> SnapshotId {
        let item_ptrs = chunks.iter().map(|piece| self.chunk(piece).id).collect();
        self.write_index();
        let meta = SnapshotMeta { item_ptrs, ..like };
        let id = SnapshotId([n; 32]);
        let keys = self.repository.keys();
        let object = keys.seal(ObjectKind::Snapshot, id.as_bytes(), &meta.encode().unwrap()).unwrap();
        self.backend.put(&snapshot_key(&id), &object, PutMode::Exclusive).unwrap();
        id
    }

    pub fn mount(&self) -> Mounted {
        self.mount_with(1 << 20, 1 << 20)
    }

    pub fn mount_with(&self, cache_size: u64, tree_cache_size: u64) -> Mounted {
        self.mount_shown((cache_size, tree_cache_size), Shown::default()).unwrap()
    }

    /// Shows what was chosen; the sizes are those of the caches of chunks and of trees.
    pub fn mount_shown(
        &self,
        (cache_size, tree_cache_size): (u64, u64),
        shown: Shown,
    ) -> Result<Mounted, SetupError> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = lines.clone();
        let options = FsOptions {
            cache_size,
            tree_cache_size,
            prefetch_threads: 1,
            owner: (77, 88),
            zone: TimeZone::UTC,
            shown,
            freed: None,
        };
        let log = Arc::new(move |line| log.lock().push(line));
        Ok(Mounted { fs: Fs::new(self.repository.clone(), options, log)?, lines })
    }
}

/// Metadata of a snapshot.
pub fn meta(name: &str, host: &str, label: &str, time: &str) -> SnapshotMeta {
    let root = Item { mode: 0o750, uid: 5, mtime: -1, ..Item::new("", ItemType::Directory) };
    SnapshotMeta {
        name: name.into(),
        hostname: host.into(),
        username: "u".into(),
        time: time.into(),
        time_end: time.into(),
        chunker: ChunkerParams { min: 1, avg: 2, max: LARGEST },
        comment: String::new(),
        item_ptrs: Vec::new(),
        stats: SnapshotStats { nfiles: 2, ..SnapshotStats::default() },
        source_label: label.into(),
        source_paths: Vec::new(),
        label: String::new(),
        ext: encode_ext(Some(&root), &[], &[]).unwrap(),
        format_version: 1,
    }
}

/// The file system over such a repository.
pub struct Mounted {
    pub fs: Fs,
    pub lines: Arc<Mutex<Vec<LogLine>>>,
}

impl Mounted {
    /// The inode of a path; panics where there is none.
    pub fn ino(&self, path: &str) -> u64 {
        self.find(path).unwrap_or_else(|| panic!("no {path}"))
    }

    pub fn find(&self, path: &str) -> Option<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.fs.lookup(at, name.as_bytes()) {
                Ok(LookupEntry::Found(attr, _)) => at = attr.ino,
                Ok(LookupEntry::Absent(_)) | Err(_) => return None,
            }
        }
        Some(at)
    }

    /// Names in a directory, without the dots.
    pub fn list(&self, path: &str) -> Vec<String> {
        let ino = self.ino(path);
        let mut names = Vec::new();
        let mut emit = |child: crate::fs::Child<'_>, _| {
            names.push(String::from_utf8(child.name.to_vec()).unwrap());
            false
        };
        self.fs.readdir(ino, 0, &mut emit).unwrap();
        names.split_off(2)
    }

    pub fn log(&self) -> Vec<String> {
        self.lines.lock().iter().map(ToString::to_string).collect()
    }
}

/// Waits until something is true.
pub fn eventually(mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}
