//! A folder of a snapshot as a tar archive.
//!
//! Items are written as they come, so that nothing but hashes of their paths is kept of most.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;

use super::ExportError;
use super::content::Content;
use super::header::{BLOCK, END, Kind, headers, padding};
use crate::error::{Result, VykarError};
use crate::event::{Event, Events, emit};
use crate::format::{Item, ItemType, Snapshot, path};
use crate::id::ChunkId;
use crate::repository::items::{Found, Loss, for_each_item};
use crate::repository::{MovingReader, Repository};

/// Files up to this size, in bytes, are read before their header is written, so that one that is damaged can be left
/// out.
const READ_FIRST: u64 = 16 << 20;

/// What went into an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Entries.
    pub entries: u64,
    /// Bytes of files' contents.
    pub bytes: u64,
    /// What was left out, each told by an event.
    pub left_out: u64,
    /// True when the snapshot has the folder, or something in it.
    pub met: bool,
}

/// Writes the plain path `top` of a snapshot, what is below it, and the directories above it, as a tar archive (pax):
/// under their paths in the snapshot, so that extracting it gives what a restore of `top` does. With all of a snapshot
/// comes its source directory's own item, as `./`.
///
/// What cannot be read is left out and told by [`Event::ItemSkipped`].
///
/// # Errors
/// [`ExportError::File`] for a large file that turns out to be damaged after its header was written. The archive then
/// ends there, without its end, which whoever reads it notices.
pub fn archive(
    repository: &Repository,
    snapshot: &Snapshot,
    top: &[u8],
    out: &mut dyn Write,
    events: Events<'_>,
) -> Result<ArchiveSummary, ExportError> {
    let reader = MovingReader::new(repository)?;
    let content = Content::new(&reader);
    let mut archiver = Archiver {
        content,
        snapshot,
        out,
        events,
        names: HashMap::new(),
        symlinks: HashSet::new(),
        paths: HashSet::new(),
        hasher: RandomState::new(),
        summary: ArchiveSummary { met: top.is_empty(), ..ArchiveSummary::default() },
    };
    if let Some(root) = snapshot.meta.root_item().filter(|_| top.is_empty()) {
        archiver.entry(&root, b"./", Kind::Directory)?;
    }
    archiver.items(&reader, top)?;
    archiver.out.write_all(&END).map_err(ExportError::Output)?;
    Ok(archiver.summary)
}

/// A file that has several names.
struct FirstName {
    path: Box<[u8]>,
    chunks: Box<[ChunkId]>,
}

struct Archiver<'a, 'e> {
    content: Content<'a>,
    snapshot: &'a Snapshot,
    out: &'a mut dyn Write,
    events: Events<'e>,
    /// First names in the archive, by device and inode.
    names: HashMap<(u64, u64), FirstName>,
    /// Hashes of the paths of symlinks, below which nothing may lie: it would come to lie elsewhere.
    symlinks: HashSet<u64>,
    /// Hashes of the paths in the archive.
    paths: HashSet<u64>,
    hasher: RandomState,
    summary: ArchiveSummary,
}

impl Archiver<'_, '_> {
    fn items(&mut self, reader: &MovingReader<'_>, top: &[u8]) -> Result<(), ExportError> {
        let mut ended = Ok(());
        for_each_item(reader, self.snapshot, &mut |found| {
            ended = match found {
                Found::Item(item) => self.item(&item, top),
                Found::Problem(problem) => {
                    let path = problem.path().to_owned();
                    if path.is_empty() || path::is_within(path.as_bytes(), top) {
                        self.left_out(path, problem.to_string());
                    }
                    Ok(())
                }
                Found::Lost(Loss { reason, .. }) => {
                    self.summary.left_out += 1;
                    emit(&mut self.events, Event::SnapshotUnreadable { snapshot: self.snapshot.id, reason });
                    Ok(())
                }
            };
            Ok(ended.is_ok())
        })?;
        ended
    }

    fn item(&mut self, item: &Item<'_>, top: &[u8]) -> Result<(), ExportError> {
        let path = item.path_bytes();
        let (wanted, above) = (path::is_within(path, top), path::is_within(top, path));
        if !wanted && !above {
            return Ok(());
        }
        self.summary.met |= wanted;
        let hash = self.hasher.hash_one(path);
        if !self.paths.insert(hash) {
            let reason = "the snapshot has this path more than once; the first one counts";
            self.left_out(item.path.to_string(), reason.into());
            return Ok(());
        }
        if self.is_below_symlink(path) {
            self.left_out(item.path.to_string(), "lies below a symlink".into());
            return Ok(());
        }
        match item.kind {
            ItemType::Directory => {
                let name = [path, b"/"].concat();
                self.entry(item, &name, Kind::Directory)
            }
            ItemType::Symlink => {
                self.symlinks.insert(hash);
                match wanted {
                    true => self.entry(item, path, Kind::Symlink(item.target_bytes().unwrap_or_default())),
                    false => Ok(()),
                }
            }
            _ if !wanted => Ok(()),
            ItemType::RegularFile => self.file_or_link(item),
            ItemType::Fifo => self.entry(item, path, Kind::Fifo),
            ItemType::CharDevice => self.entry(item, path, Kind::CharDevice),
            ItemType::BlockDevice => self.entry(item, path, Kind::BlockDevice),
            ItemType::Socket => {
                self.left_out(item.path.to_string(), "a socket, which an archive cannot hold".into());
                Ok(())
            }
        }
    }

    fn is_below_symlink(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at);
        !self.symlinks.is_empty()
            && slashes.into_iter().any(|end| self.symlinks.contains(&self.hasher.hash_one(&path[..end])))
    }

    fn file_or_link(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let ids = || item.chunks.iter().map(|chunk| chunk.id);
        let Some(key) = item.hardlink else { return self.file(item).map(drop) };
        if let Some(first) = self.names.get(&key) {
            // A name of the same file has the same content, if the snapshot is right.
            if first.chunks.iter().copied().eq(ids()) {
                let first = first.path.clone();
                return self.entry(item, item.path_bytes(), Kind::Link(&first));
            }
            return self.file(item).map(drop);
        }
        if self.file(item)? {
            let (path, chunks) = (item.path_bytes().into(), ids().collect());
            self.names.insert(key, FirstName { path, chunks });
        }
        Ok(())
    }

    /// A file with its content; false when it is left out.
    fn file(&mut self, item: &Item<'_>) -> Result<bool, ExportError> {
        let path = item.path_bytes();
        let data = match self.read_first(item) {
            Ok(data) => data,
            Err(ExportError::File { source, .. }) => {
                self.left_out(item.path.to_string(), source.to_string());
                return Ok(false);
            }
            Err(other) => return Err(other),
        };
        self.entry(item, path, Kind::File)?;
        match data {
            Some(data) => self.out.write_all(&data).map_err(ExportError::Output)?,
            None => self.content.write(path, &item.chunks, self.out)?,
        }
        let zeros = [0; BLOCK];
        self.out.write_all(&zeros[..padding(item.size)]).map_err(ExportError::Output)?;
        self.summary.bytes = self.summary.bytes.saturating_add(item.size);
        Ok(true)
    }

    /// The content of a file that is not too large for that. Of a larger one only whether the index has its chunks.
    fn read_first(&self, item: &Item<'_>) -> Result<Option<Vec<u8>>, ExportError> {
        if item.size > READ_FIRST {
            return match self.content.missing(&item.chunks) {
                Some(chunk) => {
                    Err(super::content::file_error(item.path_bytes(), VykarError::ChunkMissing { chunk }))
                }
                None => Ok(None),
            };
        }
        let mut data = Vec::new();
        self.content.write(item.path_bytes(), &item.chunks, &mut data)?;
        Ok(Some(data))
    }

    fn entry(&mut self, item: &Item<'_>, name: &[u8], kind: Kind<'_>) -> Result<(), ExportError> {
        self.summary.entries += 1;
        self.out.write_all(&headers(item, name, kind)).map_err(ExportError::Output)
    }

    fn left_out(&mut self, path: String, reason: String) {
        self.summary.left_out += 1;
        emit(&mut self.events, Event::ItemSkipped { snapshot: self.snapshot.id, path, reason });
    }
}

#[cfg(test)]
mod tests;
