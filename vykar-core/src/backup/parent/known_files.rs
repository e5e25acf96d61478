//! What a backup finds: the files that earlier ones knew, and places that are not to be stored.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::backup::BackupOptions;
use crate::backup::parent::selection::SourceIdentity;
use crate::backup::source::command::{DUMPS, Stream};
use crate::backup::source::exclude::ExcludeFilter;
use crate::error::{Result, VykarError};
use crate::format::{Item, Snapshot};
use crate::local_state::file_cache;
use crate::local_state::file_cache::{FileCache, FileCacheWriter, Record, RecordWriter};
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::repository::{Manifest, RefreshingReader, Repository};

/// The file cache of one host, label and set of sources.
pub struct KnownFiles<'r> {
    repository: &'r Repository,
    identity: &'r SourceIdentity,
    /// `None` where there are no local caches.
    path: Option<PathBuf>,
}

impl<'r> KnownFiles<'r> {
    /// Finds its place.
    pub fn new(
        repository: &'r Repository,
        identity: &'r SourceIdentity,
        options: &BackupOptions,
    ) -> Result<Self> {
        let path = match repository.cache_dir() {
            Some(dir) => {
                let name = identity.name(repository.keys().hasher(), u8::from(options.xattrs))?;
                Some(dir.join(format!("files-{name}")))
            }
            None => None,
        };
        Ok(KnownFiles { repository, identity, path })
    }

    /// For what this backup sees; `None` where nothing can be kept.
    pub fn writer(&self) -> Option<FileCacheWriter> {
        let path = self.path.as_deref()?;
        FileCacheWriter::create(path, self.repository.config().id, self.repository.keys().hasher()).ok()
    }

    /// The cache of the last run, or one made from the previous snapshot of these sources.
    pub fn open(&self) -> FileCache {
        let hasher = self.repository.keys().hasher();
        let Some(path) = &self.path else { return FileCache::empty(hasher.clone()) };
        let id = self.repository.config().id;
        let open = || FileCache::open(path, &id, hasher);
        open()
            .or_else(|| {
                self.rebuild(path).ok()?;
                open()
            })
            .unwrap_or_else(|| FileCache::empty(hasher.clone()))
    }

    fn rebuild(&self, path: &Path) -> Result<()> {
        let manifest = Manifest::load(self.repository)?;
        let is_ours = |s: &&Snapshot| self.identity.is_of(s);
        let Some(previous) = manifest.snapshots.iter().rev().find(is_ours) else { return Ok(()) };
        let began = i64::try_from(previous.time.as_nanosecond()).unwrap_or(0);
        let hasher = self.repository.keys().hasher();
        let failed = |e| VykarError::path(path, e);
        let mut cache = FileCacheWriter::create(path, self.repository.config().id, hasher).map_err(failed)?;
        let reader = RefreshingReader::new(self.repository)?;
        for_each_item(&reader, previous, &mut |found| {
            if let FoundItem::Item(item) = found
                && let Some(record) = record_of(&item, hasher, began)?
            {
                let mut records = RecordWriter::default();
                records.add(&record, hasher)?;
                cache.add(&records).map_err(failed)?;
            }
            Ok(true)
        })?;
        cache.finish().map_err(failed)
    }
}

/// Directories that are never stored: the repository, and its local cache, which this very backup writes.
pub fn own_places(repository: &Repository) -> Vec<(u64, u64, &'static str)> {
    let place = |path: &Path, what| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), what));
    let itself = repository.backend().local_path();
    let itself = itself.and_then(|path| place(path, "the repository itself"));
    let cache = repository.cache_dir().and_then(|dir| {
        // Before it is looked for: this backup may be the first to make it.
        let _ = crate::platform::private::make_dirs(&dir);
        place(&dir, "the local cache of the repository")
    });
    itself.into_iter().chain(cache).collect()
}

/// What is left out, the place for the output of commands included.
pub fn filter(options: &BackupOptions) -> Result<ExcludeFilter> {
    let is_dump = |s: &Stream| s.path.split('/').next() == Some(DUMPS);
    ExcludeFilter::new(&options.excludes, options.streams.iter().any(is_dump).then_some(DUMPS))
}

/// What a snapshot's item says about a file, as a record of the file cache.
fn record_of(item: &Item<'_>, hasher: &crate::crypto::ChunkHasher, began: i64) -> Result<Option<Record>> {
    let (crate::format::ItemType::RegularFile, Some(ctime)) = (item.kind, item.ctime) else {
        return Ok(None);
    };
    Ok(Some(Record {
        path: file_cache::path_hash(hasher, item.path_bytes())?,
        size: item.size,
        mtime: item.mtime,
        ctime,
        inode: None,
        // The snapshot may lack what could not be read then.
        has_xattrs: true,
        chunks: item.chunks.clone(),
        settled: file_cache::is_settled(ctime, began),
    }))
}
