//! Reading and writing the index, through a local copy where there is one.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::codec::{Compression, decompress_stream};
use crate::crypto::{ChunkHasher, pack_id};
use crate::error::{IndexError, ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::{INDEX_CONTEXT, ObjectKind};
use crate::format::{Encryption, IndexBlob, IndexEntry, MAX_METADATA_OBJECT, MAX_METADATA_PLAINTEXT};
use crate::id::PackId;
use crate::local_state::index_cache;
use crate::local_state::index_cache::{CopyWriter, IndexCache};
use crate::platform::map::ScratchMap;
use crate::repository::{BufferPool, ChunkReader, INDEX, INDEX_GENERATION, Repository};
use crate::storage::Head;

/// Bytes of a plain index in which its generation is: it is at the beginning of the first compressed block, which
/// takes at most 128 KiB.
const PLAIN_HEAD: usize = 192 << 10;

/// A larger index goes through a file of the cache directory on its way to a local copy, instead of memory, in bytes.
const LARGE: u64 = 64 << 20;
/// Bytes of it that are read at a time.
const SLICE: u64 = 8 << 20;

/// Tells one index object from another without reading it: its length, and the random number that every writer
/// draws for it, which is the nonce, or the generation where nothing is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStamp([u8; Self::LEN]);

impl IndexStamp {
    /// Bytes that it takes.
    pub const LEN: usize = 24;
    /// Object tag and nonce.
    const SEALED_HEAD: usize = 13;

    fn new(len: u64, head: &[u8]) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        let n = head.len().min(Self::LEN - 8);
        bytes[8..8 + n].copy_from_slice(&head[..n]);
        IndexStamp(bytes)
    }

    /// Of a whole object.
    fn of(object: &[u8], encryption: Encryption, generation: u64) -> Self {
        match encryption {
            Encryption::None => Self::new(object.len() as u64, &generation.to_le_bytes()),
            _ => Self::new(object.len() as u64, &object[..object.len().min(Self::SEALED_HEAD)]),
        }
    }

    /// Length of the object in bytes.
    pub fn object_len(&self) -> u64 {
        self.0.first_chunk().map_or(0, |len| u64::from_le_bytes(*len))
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// What [`IndexStamp::to_bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        IndexStamp(bytes)
    }
}

/// The index as it was at some time.
#[derive(Clone)]
pub struct OpenIndex {
    /// Of the object; `None` where there is none, as in a repository that never had a snapshot.
    pub stamp: Option<IndexStamp>,
    /// What it says: decoded, or a local copy.
    pub index: Arc<IndexBlob>,
    copy: Option<Arc<IndexCache>>,
}

impl OpenIndex {
    fn decoded(stamp: Option<IndexStamp>, index: IndexBlob) -> Self {
        OpenIndex { stamp, index: Arc::new(index), copy: None }
    }

    /// True unless this is a local copy that was damaged. Reads all of it.
    pub fn is_sound(&self, hasher: &ChunkHasher) -> bool {
        self.copy.as_ref().is_none_or(|copy| copy.is_sound(hasher))
    }
}

/// An index that is to be written.
pub(crate) struct EncodedIndex {
    object: Vec<u8>,
    generation: u64,
    stamp: IndexStamp,
    /// Plaintext bytes.
    len: u64,
    copy: Option<CopyWriter>,
}

impl Repository {
    /// Reads and decodes the index. An absent one beside any snapshot is damage, never an empty index.
    pub fn read_index(&self) -> Result<IndexBlob> {
        let Some((_, mut object)) = self.index_object()? else { return Ok(IndexBlob::default()) };
        decode_payload(self.index_payload(&mut object)?)
    }

    /// The same, and the hash of the object that it was read from, where there is one that is not too long.
    pub(crate) fn read_index_hashed(&self) -> (Result<IndexBlob>, Option<PackId>) {
        let mut object = match self.index_object() {
            Ok(Some((_, object))) => object,
            Ok(None) => return (Ok(IndexBlob::default()), None),
            Err(e) => return (Err(e), None),
        };
        let hash = pack_id(&object);
        (self.index_payload(&mut object).and_then(decode_payload), Some(hash))
    }

    /// The stamp of the index that is there now.
    pub fn index_stamp(&self) -> Result<Option<IndexStamp>> {
        let encryption = self.config().encryption;
        let wanted = if encryption == Encryption::None { PLAIN_HEAD } else { IndexStamp::SEALED_HEAD };
        let Head { data, size, .. } = match self.backend().head(INDEX, wanted) {
            Err(StorageError::NotFound { .. }) => return self.absent_index().map(|()| None),
            other => other?,
        };
        if encryption != Encryption::None {
            return Ok(Some(IndexStamp::new(size, &data)));
        }
        match data.get(1..).and_then(generation_at_head) {
            Some(generation) => Ok(Some(IndexStamp::new(size, &generation.to_le_bytes()))),
            // In a form that must be read as a whole.
            None => Ok(self.index_object()?.map(|(stamp, _)| stamp)),
        }
    }

    /// Nothing to say unless the index is missing beside snapshots, or with all of the repository.
    fn absent_index(&self) -> Result<()> {
        match self.backend().list("snapshots/")?.is_empty() {
            true => self.check_in_place(),
            false => Err(VykarError::IndexMissing),
        }
    }

    /// The object, and its stamp.
    fn index_object(&self) -> Result<Option<(IndexStamp, Vec<u8>)>> {
        let object = match self.backend().get(INDEX, MAX_METADATA_OBJECT) {
            Err(StorageError::NotFound { .. }) => return self.absent_index().map(|()| None),
            other => other?,
        };
        let encryption = self.config().encryption;
        let generation = match encryption {
            Encryption::None => object.get(1..).and_then(generation_at_head).unwrap_or(0),
            _ => 0,
        };
        Ok(Some((IndexStamp::of(&object, encryption, generation), object)))
    }

    /// Opens the index through a local copy, which costs little memory and is made when there is none. A copy may be
    /// damaged in ways that only show when a chunk is not found through it: who uses it must then read the index
    /// itself ([`Repository::read_index`]), and must never conclude from it that a chunk is missing, unless
    /// [`OpenIndex::is_sound`] says that it is not damaged. Without a cache directory this is the index itself.
    pub fn open_index(&self) -> Result<OpenIndex> {
        let Some(dir) = self.cache_dir() else { return self.decode_index() };
        let open = |stamp: &IndexStamp| {
            let copy = index_cache::open(&dir, self.keys().hasher(), stamp)?;
            Some(OpenIndex { stamp: Some(*stamp), index: copy.index.clone(), copy: Some(Arc::new(copy)) })
        };
        let Some(stamp) = self.index_stamp()? else {
            return Ok(OpenIndex::decoded(None, IndexBlob::default()));
        };
        if let Some(copy) = open(&stamp) {
            return Ok(copy);
        }
        // One that is too long is not copied; reading it says so.
        if (LARGE + 1..=MAX_METADATA_OBJECT).contains(&stamp.object_len())
            && self.copy_through_file(&dir, &stamp).is_ok()
            && let Some(copy) = open(&stamp)
        {
            return Ok(copy);
        }
        let Some((stamp, mut object)) = self.index_object()? else {
            return Ok(OpenIndex::decoded(None, IndexBlob::default()));
        };
        let payload = self.index_payload(&mut object)?;
        // A cache that cannot be written costs memory, nothing else.
        if let Ok(()) = copy_from(payload, &dir, self.keys().hasher(), &stamp)
            && let Some(copy) = open(&stamp)
        {
            return Ok(copy);
        }
        Ok(OpenIndex::decoded(Some(stamp), decode_payload(payload)?))
    }

    /// Makes the local copy of a large index without having that in memory. Whatever fails here is tried again, and
    /// said, by whoever reads it whole then.
    fn copy_through_file(&self, dir: &Path, stamp: &IndexStamp) -> Result<()> {
        let failed = |e: std::io::Error| VykarError::path(dir, e);
        let mut file = index_cache::scratch_file(dir).map_err(failed)?;
        let len = stamp.object_len();
        for offset in (0..len).step_by(SLICE as usize) {
            let slice = self.backend().get_range(INDEX, offset, (len - offset).min(SLICE) as usize)?;
            file.write_all(&slice).map_err(failed)?;
        }
        // Somebody may have replaced it between two slices.
        if self.index_stamp()? != Some(*stamp) {
            return Err(VykarError::LockLost { reason: "the index changed while it was read".into() });
        }
        // What is opened here is authenticated; without encryption the digest of the copy says what it is of.
        let mut object = ScratchMap::new(&file).map_err(failed)?;
        let payload = self.index_payload(&mut object)?;
        copy_from(payload, dir, self.keys().hasher(), stamp).map_err(failed)?;
        object.check().map_err(|e| {
            index_cache::remove(dir);
            failed(e)
        })
    }

    /// The index as [`Repository::open_index`] gives it, and nothing in it is damaged.
    pub fn open_sound_index(&self) -> Result<OpenIndex> {
        let open = self.open_index()?;
        if open.is_sound(self.keys().hasher()) {
            return Ok(open);
        }
        if let Some(dir) = self.cache_dir() {
            index_cache::remove(&dir);
        }
        let again = self.open_index()?;
        if again.is_sound(self.keys().hasher()) { Ok(again) } else { self.decode_index() }
    }

    fn decode_index(&self) -> Result<OpenIndex> {
        match self.index_object()? {
            Some((stamp, mut object)) => {
                let payload = self.index_payload(&mut object)?;
                Ok(OpenIndex::decoded(Some(stamp), decode_payload(payload)?))
            }
            None => Ok(OpenIndex::decoded(None, IndexBlob::default())),
        }
    }

    fn index_payload<'o>(&self, object: &'o mut [u8]) -> Result<&'o [u8]> {
        let opened = self.keys().open(ObjectKind::Index, INDEX_CONTEXT, object);
        Ok(opened.map_err(|e| VykarError::damaged(INDEX, e))?)
    }

    /// Writes the index as [`Repository::put_index`] does. Only for who needs no lock.
    pub(crate) fn write_index(
        &self,
        generation: u64,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
        compression: Compression,
    ) -> Result<(IndexStamp, u64)> {
        let index = self.encode_index(generation, count, entries, compression)?;
        let put = |object: &[u8]| Ok(self.backend().put(INDEX, object, crate::storage::PutMode::Replace)?);
        self.put_index(index, put)
    }

    /// Makes the object of an index, and writes the local copy (best effort). `count` must be the number of entries.
    pub(crate) fn encode_index(
        &self,
        generation: u64,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
        compression: Compression,
    ) -> Result<EncodedIndex> {
        let mut copy = self.cache_dir().and_then(|dir| CopyWriter::create(&dir).ok());
        let entries = entries.inspect(|entry| {
            if copy.as_mut().is_some_and(|copy| copy.add(entry).is_err()) {
                copy = None;
            }
        });
        let kind = (ObjectKind::Index, INDEX_CONTEXT);
        let (object, len) = self.keys().seal_metadata(kind, "index", compression, |mut out| {
            IndexBlob::encode_to(&mut out, generation, count, entries)
        })?;
        let stamp = IndexStamp::of(&object, self.config().encryption, generation);
        Ok(EncodedIndex { object, generation, stamp, len, copy })
    }

    /// Writes the index by `put`, then its generation's hint (best effort), and gives the local copy its name (likewise).
    /// Gives the stamp of what was written, and its plaintext's length in bytes.
    pub(crate) fn put_index(
        &self,
        index: EncodedIndex,
        put: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<(IndexStamp, u64)> {
        let EncodedIndex { object, generation, stamp, len, copy } = index;
        put(&object)?;
        let hint = generation.to_le_bytes();
        let _ = self.backend().put(INDEX_GENERATION, &hint, crate::storage::PutMode::Replace);
        drop(object);
        if let Some(copy) = copy {
            let _ = copy.finish(self.keys().hasher(), generation, &stamp);
        }
        Ok((stamp, len))
    }

    /// A reader of chunks over the current index.
    pub fn chunk_reader(&self) -> Result<ChunkReader> {
        Ok(ChunkReader::over(self, self.open_sound_index()?, BufferPool::default()))
    }
}

fn decode_payload(payload: &[u8]) -> Result<IndexBlob> {
    let damaged = |cause: ObjectError| VykarError::damaged(INDEX, cause);
    let mut plain = decompress_stream(payload, MAX_METADATA_PLAINTEXT).map_err(|e| damaged(e.into()))?;
    IndexBlob::decode_from(&mut plain).map_err(|e| damaged(e.into()))
}

/// Writes the local copy of a compressed index. What is wrong with it is found again by whoever decodes it then.
fn copy_from(payload: &[u8], dir: &Path, hasher: &ChunkHasher, stamp: &IndexStamp) -> std::io::Result<()> {
    let mut copy = CopyWriter::create(dir)?;
    let mut plain = decompress_stream(payload, MAX_METADATA_PLAINTEXT).map_err(std::io::Error::other)?;
    let add = &mut |entry: IndexEntry| copy.add(&entry).map_err(IndexError::Read);
    let generation = IndexBlob::decode_each(&mut plain, add).map_err(std::io::Error::other)?;
    copy.finish(hasher, generation, stamp)
}

/// The generation of a plain, compressed index of which at least the beginning is given; `None` when that is not
/// enough.
fn generation_at_head(payload: &[u8]) -> Option<u64> {
    let mut plain = decompress_stream(payload, MAX_METADATA_PLAINTEXT).ok()?;
    let mut head = [0; 32];
    let mut have = 0;
    while have < head.len() {
        match plain.read(&mut head[have..]) {
            Ok(0) | Err(_) => break,
            Ok(n) => have += n,
        }
    }
    IndexBlob::decode_generation(&head[..have]).ok()
}
