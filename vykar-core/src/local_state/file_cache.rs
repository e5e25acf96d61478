//! Which chunks a file had when it was last read, so that an unchanged one is not read again.
//!
//! A local file, replaced by rename and read through a memory map:
//!
//! ```text
//! header   "VYKARFC2" | repository id 32 | records u64 | index offset u64 | check 8
//! records  body length u32 | check 8 | size u64 | mtime i64 | ctime i64 | inode u64 | flags u8
//!          | chunk count u32 | (chunk id 32 | size u32 | stored size u32)...
//! index    (path hash 16 | record offset u64)..., sorted
//! ```
//!
//! Checks and path hashes are keyed with the repository's chunk id key, so the file tells nobody
//! else which paths exist, and a record that was damaged or forged is not used. Whatever looks wrong
//! means "not cached": the file is then read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::backup::source::entry::Stat;
use crate::crypto::ChunkHasher;
use crate::error::CryptoError;
use crate::format::ChunkRef;
use crate::id::{ChunkId, RepositoryId};
use crate::local_state::cache_file;
use crate::local_state::cache_file::{Fields, temporary};
use crate::platform::map::ReadOnlyMap;

pub(crate) mod fuzz;

const MAGIC: &[u8; 8] = b"VYKARFC2";
const HEADER: usize = 8 + 32 + 8 + 8 + 8;
const INDEX_ENTRY: usize = 24;
const FIXED_BODY: usize = 8 * 4 + 1 + 4;
const CHUNK: usize = 40;
const HAS_XATTRS: u8 = 1;
/// The record comes from a snapshot, which does not keep inode numbers.
const NO_INODE: u8 = 2;
/// The file may have changed since without a trace.
const UNSETTLED: u8 = 4;
/// A file whose ctime is closer than this to the start of the read that was recorded may have been
/// rewritten within the clock's granularity: it is read again.
const SETTLED: i64 = 2_000_000_000;
/// Steps of a search that guess; most searches need no more.
const MAX_GUESSES: u32 = 6;

/// A path's key in the cache.
pub type PathHash = [u8; 16];

/// What is remembered of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its path's key.
    pub path: PathHash,
    /// Size in bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i64,
    /// Likewise.
    pub ctime: i64,
    /// `None` when only a snapshot is known.
    pub inode: Option<u64>,
    /// It had extended attributes, which are then read anew.
    pub has_xattrs: bool,
    /// Its content.
    pub chunks: Vec<ChunkRef>,
    /// False when the file may have changed since without a trace, so that it must be read.
    pub settled: bool,
}

impl Record {
    /// Of a file whose read began at `read_start`, nanoseconds since the epoch.
    pub fn new(
        path: PathHash,
        stat: &Stat,
        has_xattrs: bool,
        chunks: Vec<ChunkRef>,
        read_start: i64,
    ) -> Self {
        let Stat { size, mtime, ctime, ino, .. } = *stat;
        let settled = is_settled(ctime, read_start);
        Record { path, size, mtime, ctime, inode: Some(ino), has_xattrs, chunks, settled }
    }

    /// True when the file is as it was.
    pub fn matches(&self, stat: &Stat) -> bool {
        self.settled
            && (self.size, self.mtime, self.ctime) == (stat.size, stat.mtime, stat.ctime)
            && self.inode.is_none_or(|inode| inode == stat.ino)
    }

    fn encode(&self, hasher: &ChunkHasher, out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let mut body = Vec::with_capacity(FIXED_BODY + CHUNK * self.chunks.len());
        body.extend(self.size.to_le_bytes());
        body.extend(self.mtime.to_le_bytes());
        body.extend(self.ctime.to_le_bytes());
        body.extend(self.inode.unwrap_or(0).to_le_bytes());
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.has_xattrs, HAS_XATTRS) | flag(self.inode.is_none(), NO_INODE);
        body.push(flags | flag(!self.settled, UNSETTLED));
        body.extend((self.chunks.len() as u32).to_le_bytes());
        for chunk in &self.chunks {
            body.extend(chunk.id.as_bytes());
            body.extend(chunk.size.to_le_bytes());
            body.extend(chunk.stored_size.to_le_bytes());
        }
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(check(hasher, &[&self.path, &body])?);
        out.extend(body);
        Ok(())
    }

    fn decode(path: PathHash, body: &[u8]) -> Option<Self> {
        let (fixed, chunks) = body.split_at_checked(FIXED_BODY)?;
        let mut fields = Fields(fixed);
        let (size, mtime) = (fields.u64()?, fields.u64()? as i64);
        let (ctime, inode) = (fields.u64()? as i64, fields.u64()?);
        let flags = fields.take::<1>()?[0];
        let count = fields.u32()? as usize;
        if chunks.len() != count.checked_mul(CHUNK)? {
            return None;
        }
        let chunks = chunks.chunks_exact(CHUNK).map(|bytes| {
            let mut fields = Fields(bytes);
            let id = ChunkId(fields.take()?);
            let size = fields.u32()?;
            Some(ChunkRef { id, size, stored_size: fields.u32()? })
        });
        Some(Record {
            path,
            size,
            mtime,
            ctime,
            inode: (flags & NO_INODE == 0).then_some(inode),
            has_xattrs: flags & HAS_XATTRS != 0,
            settled: flags & UNSETTLED == 0,
            chunks: chunks.collect::<Option<_>>()?,
        })
    }
}

/// True when a file with this ctime cannot have changed unnoticed since a read that began then.
pub fn is_settled(ctime: i64, read_start: i64) -> bool {
    ctime.saturating_add(SETTLED) <= read_start
}

fn check(hasher: &ChunkHasher, parts: &[&[u8]]) -> Result<[u8; 8], CryptoError> {
    let hash = hasher.local(b"vykarfcc", parts)?;
    let mut out = [0; 8];
    out.copy_from_slice(&hash[..8]);
    Ok(out)
}

/// The first bytes of a path's key, as a number.
fn prefix(path: &PathHash) -> u64 {
    u64::from_be_bytes([path[0], path[1], path[2], path[3], path[4], path[5], path[6], path[7]])
}

/// The key of a path.
pub fn path_hash(hasher: &ChunkHasher, path: &[u8]) -> Result<PathHash, CryptoError> {
    let hash = hasher.local(b"vykarfcp", &[path])?;
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    Ok(out)
}

/// What is known of a path, and the record as it stands in the cache, to be kept as it is.
pub struct KnownFile<'c> {
    /// Decoded.
    pub record: Record,
    /// Checked.
    pub raw: &'c [u8],
}

/// RecordWriter for the next cache, encoded.
#[derive(Default)]
pub struct RecordWriter {
    bytes: Vec<u8>,
    /// Paths, and where the record of each ends.
    ends: Vec<(PathHash, usize)>,
}

impl RecordWriter {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record, hasher: &ChunkHasher) -> Result<(), CryptoError> {
        record.encode(hasher, &mut self.bytes)?;
        self.ends.push((record.path, self.bytes.len()));
        Ok(())
    }

    /// Adds one that is encoded.
    pub fn push(&mut self, path: PathHash, raw: &[u8]) {
        self.bytes.extend_from_slice(raw);
        self.ends.push((path, self.bytes.len()));
    }

    /// Puts others behind these.
    pub fn append(&mut self, other: &RecordWriter) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|(path, end)| (*path, start + end)));
    }
}

/// The cache of the last backup, read-only.
pub struct FileCache {
    data: Bytes,
    index: std::ops::Range<usize>,
    hasher: ChunkHasher,
}

impl FileCache {
    /// A cache that knows nothing.
    pub fn empty(hasher: ChunkHasher) -> Self {
        FileCache { data: Bytes::new(), index: 0..0, hasher }
    }

    /// Opens a cache file; `None` when there is none, or it is not one of this repository's.
    pub fn open(path: &Path, repository: &RepositoryId, hasher: &ChunkHasher) -> Option<Self> {
        let map = ReadOnlyMap::open(path).ok()?;
        Self::parse(Bytes::from_owner(map), repository, hasher)
    }

    fn parse(data: Bytes, repository: &RepositoryId, hasher: &ChunkHasher) -> Option<Self> {
        let index = Self::read_header(&data, repository, hasher)?;
        Some(FileCache { data, index, hasher: hasher.clone() })
    }

    fn read_header(
        data: &[u8],
        repository: &RepositoryId,
        hasher: &ChunkHasher,
    ) -> Option<std::ops::Range<usize>> {
        let header = data.get(..HEADER)?;
        let (signed, sum) = header.split_at(HEADER - 8);
        if check(hasher, &[signed]).ok()? != sum {
            return None;
        }
        let mut fields = Fields(signed);
        if &fields.take::<8>()? != MAGIC || fields.take::<32>()? != repository.0 {
            return None;
        }
        let (count, start) = (usize::try_from(fields.u64()?).ok()?, usize::try_from(fields.u64()?).ok()?);
        let end = start.checked_add(count.checked_mul(INDEX_ENTRY)?)?;
        (end == data.len()).then_some(start..end)
    }

    /// What is remembered of a path.
    pub fn find(&self, path: &PathHash) -> Option<KnownFile<'_>> {
        let data: &[u8] = &self.data;
        let entries = data.get(self.index.clone())?;
        let count = entries.len() / INDEX_ENTRY;
        let hash = |at: usize| entries.get(at * INDEX_ENTRY..).and_then(<[u8]>::first_chunk::<16>);
        let key = prefix(path);
        let (mut low, mut high, mut low_key, mut high_key) = (0, count, 0, u64::MAX);
        let mut guesses = 0;
        while low < high {
            // Hashes are even, so that where this one is can be told from its neighbours nearly as well as from
            // itself. (In a damaged file not, and halving ends for sure.)
            let middle = if guesses < MAX_GUESSES {
                guesses += 1;
                let part = u128::from(key.saturating_sub(low_key)) * (high - low) as u128;
                let part = part / (u128::from(high_key.saturating_sub(low_key)) + 1);
                low + usize::try_from(part).unwrap_or(0).min(high - low - 1)
            } else {
                low + (high - low) / 2
            };
            let found = hash(middle)?;
            match found.cmp(path) {
                std::cmp::Ordering::Less => (low, low_key) = (middle + 1, prefix(found)),
                std::cmp::Ordering::Greater => (high, high_key) = (middle, prefix(found)),
                std::cmp::Ordering::Equal => {
                    let offset = entries.get(middle * INDEX_ENTRY + 16..)?.first_chunk::<8>()?;
                    return self.record(data, *path, usize::try_from(u64::from_le_bytes(*offset)).ok()?);
                }
            }
        }
        None
    }

    fn record<'c>(&self, data: &'c [u8], path: PathHash, offset: usize) -> Option<KnownFile<'c>> {
        let rest = data.get(offset..self.index.start)?;
        let mut fields = Fields(rest);
        let len = fields.u32()? as usize;
        let sum: [u8; 8] = fields.take()?;
        let body = fields.0.get(..len)?;
        if check(&self.hasher, &[&path, body]).ok()? != sum {
            return None;
        }
        Some(KnownFile { record: Record::decode(path, body)?, raw: rest.get(..12 + len)? })
    }
}

/// Writes the cache of a running backup. Dropped without [`FileCacheWriter::finish`], it leaves
/// nothing.
pub struct FileCacheWriter {
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    offset: u64,
    index: Vec<(PathHash, u64)>,
    repository: RepositoryId,
    hasher: ChunkHasher,
}

impl FileCacheWriter {
    /// Begins a file that will replace `path`.
    pub fn create(path: &Path, repository: RepositoryId, hasher: &ChunkHasher) -> io::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("."));
        crate::platform::private::make_dirs(dir)?;
        let temporary = temporary(dir)?;
        let mut out = BufWriter::with_capacity(256 << 10, crate::platform::private::create_new(&temporary)?);
        out.write_all(&[0; HEADER])?;
        Ok(FileCacheWriter {
            path: path.to_owned(),
            temporary,
            out,
            offset: HEADER as u64,
            index: Vec::new(),
            repository,
            hasher: hasher.clone(),
        })
    }

    /// Adds records; of two for one path the later is lost.
    pub fn add(&mut self, records: &RecordWriter) -> io::Result<()> {
        self.out.write_all(&records.bytes)?;
        let start = self.offset;
        self.offset += records.bytes.len() as u64;
        let mut at = start;
        for (path, end) in &records.ends {
            self.index.push((*path, at));
            at = start + *end as u64;
        }
        Ok(())
    }

    /// Puts the file into place.
    pub fn finish(mut self) -> io::Result<()> {
        self.index.sort_unstable();
        self.index.dedup_by_key(|entry| entry.0);
        for (path, offset) in &self.index {
            self.out.write_all(path)?;
            self.out.write_all(&offset.to_le_bytes())?;
        }
        let mut header = MAGIC.to_vec();
        header.extend(self.repository.0);
        header.extend((self.index.len() as u64).to_le_bytes());
        header.extend(self.offset.to_le_bytes());
        let sum = check(&self.hasher, &[&header]).map_err(io::Error::other)?;
        header.extend(sum);
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        cache_file::replace(&self.temporary, &self.path)
    }
}

impl Drop for FileCacheWriter {
    fn drop(&mut self) {
        // Gone already after finish().
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType;

    fn stat() -> Stat {
        Stat {
            kind: FileType::RegularFile,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            size: 300,
            mtime: -5,
            atime: 0,
            ctime: 1_000_000_000,
            dev: 1,
            ino: 77,
            nlink: 1,
            rdev: 0,
            blocks: 8,
        }
    }

    fn write(dir: &Path, records: &[Record]) -> (PathBuf, ChunkHasher, RepositoryId) {
        let (hasher, id) = (ChunkHasher::new([4; 32]), RepositoryId([5; 32]));
        let path = dir.join("files");
        let mut writer = FileCacheWriter::create(&path, id, &hasher).unwrap();
        for part in records.chunks(7) {
            let (mut first, mut second) = (RecordWriter::default(), RecordWriter::default());
            part[..part.len() / 2].iter().for_each(|r| first.add(r, &hasher).unwrap());
            part[part.len() / 2..].iter().for_each(|r| second.add(r, &hasher).unwrap());
            first.append(&second);
            writer.add(&first).unwrap();
        }
        writer.finish().unwrap();
        (path, hasher, id)
    }

    fn records() -> Vec<Record> {
        let hasher = ChunkHasher::new([4; 32]);
        let record = |n: u32| {
            let chunks = (0..n % 4)
                .map(|c| ChunkRef { id: ChunkId([n as u8; 32]), size: c, stored_size: 9 })
                .collect();
            let path = path_hash(&hasher, &n.to_le_bytes()).unwrap();
            Record::new(path, &stat(), n.is_multiple_of(2), chunks, 2_000_000_000 + i64::from(n) * 10_000_000)
        };
        (0..500).map(record).collect()
    }

    #[test]
    fn records_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, hasher, id) = write(dir.path(), &records());
        let cache = FileCache::open(&path, &id, &hasher).unwrap();
        for record in records() {
            let known = cache.find(&record.path).unwrap();
            let mut again = RecordWriter::default();
            again.push(record.path, known.raw);
            let mut encoded = RecordWriter::default();
            encoded.add(&record, &hasher).unwrap();
            assert_eq!((known.record, again.bytes), (record, encoded.bytes));
        }
        for absent in [[0; 16], [255; 16], [100; 16]] {
            assert!(cache.find(&absent).is_none());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn any_damage_means_not_cached() {
        let dir = tempfile::tempdir().unwrap();
        let (path, hasher, id) = write(dir.path(), &records());
        assert!(FileCache::open(&path, &RepositoryId([6; 32]), &hasher).is_none());
        assert!(FileCache::open(&path, &id, &ChunkHasher::new([9; 32])).is_none());
        let whole = fs::read(&path).unwrap();
        let known = records();
        for at in (0..whole.len()).step_by(97) {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let Some(cache) = FileCache::open(&path, &id, &hasher) else { continue };
            for record in &known {
                assert!(cache.find(&record.path).is_none_or(|found| found.record == *record));
            }
        }
        for len in [0, 1, HEADER - 1, HEADER, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(FileCache::open(&path, &id, &hasher).is_none(), "{len}");
        }
    }

    #[test]
    fn files_touched_just_before_the_read_never_match() {
        let at = |start| Record::new([0; 16], &stat(), false, vec![], start);
        assert!(!at(2_999_999_999).matches(&stat()));
        let record = at(3_000_000_000);
        assert!(record.matches(&stat()));
        for other in [
            Stat { size: 301, ..stat() },
            Stat { mtime: -4, ..stat() },
            Stat { ctime: 1_000_000_001, ..stat() },
            Stat { ino: 78, ..stat() },
        ] {
            assert!(!record.matches(&other));
        }
        assert!(Record { inode: None, ..record }.matches(&Stat { ino: 78, ..stat() }));
    }
}
