//! A folder of a snapshot as a tar archive.
//!
//! Items are looked through once (`survey`), and then written as they come, so that nothing but hashes of their paths is
//! kept of most. tar(1) sets a directory's time as soon as something comes that is not in it, so all that is in one must
//! come together: FIFOs and devices, which a snapshot has behind everything else, are written with their directory, and
//! items that are in no such order are sorted, in memory.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use super::ExportError;
use super::content::ContentReader;
use super::header::{BLOCK, END, EntryKind, headers, padding};
use super::survey::{Survey, Trouble, is_wanted};
use crate::error::{Result, VykarError};
use crate::event::{Event, Events, emit};
use crate::format::admission::above;
use crate::format::special::is_special;
use crate::format::{Item, ItemType, Snapshot, path};
use crate::id::ChunkId;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};
use crate::repository::{RefreshingReader, Repository};

/// Files up to this size, in bytes, are read before their header is written, so that one that is damaged can be left
/// out.
const READ_FIRST: u64 = 16 << 20;
/// Mode of directories that the snapshot has no item for. Nobody knows whom they let in.
const IMPLIED: u32 = 0o040_700;

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
/// comes its source directory's own item, as `./`, last: some programs set its time only then.
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
    mut events: Events<'_>,
) -> Result<ArchiveSummary, ExportError> {
    let reader = RefreshingReader::new(repository)?;
    let mut summary = ArchiveSummary::default();
    let survey = Survey::read(&reader, snapshot, top, &mut |trouble| {
        summary.left_out += 1;
        emit(&mut events, told(snapshot, trouble));
    })?;
    summary.met = survey.met;
    let content = ContentReader::new(&reader);
    let (names, opened) = (HashMap::new(), HashSet::new());
    let mut archiver = Archiver { content, snapshot, top, out, events, survey, names, opened, summary };
    archiver.specials(b"")?;
    match archiver.survey.is_in_order() {
        true => archiver.as_they_come(&reader)?,
        false => archiver.sorted(&reader)?,
    }
    if let Some(root) = snapshot.meta.root_item().filter(|_| top.is_empty()) {
        archiver.entry(&root, b"./", EntryKind::Directory)?;
    }
    archiver.out.write_all(&END).map_err(ExportError::Output)?;
    Ok(archiver.summary)
}

fn told(snapshot: &Snapshot, trouble: Trouble) -> Event {
    let snapshot = snapshot.id;
    match trouble {
        Trouble::Problem(problem) => {
            Event::ItemSkipped { snapshot, path: problem.path().to_owned(), reason: problem.to_string() }
        }
        Trouble::Misplaced(path, why) => Event::ItemSkipped { snapshot, path, reason: why.to_string() },
        Trouble::Lost(reason) => Event::SnapshotUnreadable { snapshot, reason },
    }
}

/// The first name in the archive of what has several, and all that the others must have in common with it.
struct ArchivedName {
    path: Box<[u8]>,
    kind: ItemType,
    chunks: Box<[ChunkId]>,
    target: Box<[u8]>,
    rdev: u64,
}

impl ArchivedName {
    fn of(item: &Item<'_>) -> Self {
        ArchivedName {
            path: item.path_bytes().into(),
            kind: item.kind,
            chunks: item.chunks.iter().map(|chunk| chunk.id).collect(),
            target: item.target_bytes().unwrap_or_default().into(),
            rdev: item.rdev,
        }
    }

    /// True for a name of the same file. What a hostile snapshot says is one may be two.
    fn is_of(&self, item: &Item<'_>) -> bool {
        let ids = item.chunks.iter().map(|chunk| chunk.id);
        (self.kind, self.rdev) == (item.kind, item.rdev)
            && *self.target == *item.target_bytes().unwrap_or_default()
            && self.chunks.iter().copied().eq(ids)
    }
}

struct Archiver<'a, 'e> {
    content: ContentReader<'a>,
    snapshot: &'a Snapshot,
    top: &'a [u8],
    out: &'a mut dyn Write,
    events: Events<'e>,
    survey: Survey,
    /// First names in the archive, by device and inode.
    names: HashMap<(u64, u64), ArchivedName>,
    /// Hashes of the directories in the archive.
    opened: HashSet<u64>,
    summary: ArchiveSummary,
}

impl Archiver<'_, '_> {
    /// Writes all items in the order of the snapshot.
    fn as_they_come(&mut self, reader: &RefreshingReader<'_>) -> Result<(), ExportError> {
        let mut ended = Ok(());
        self.each(reader, &mut |archiver, item| {
            ended = archiver.item(&item);
            ended.is_ok()
        })?;
        ended?;
        Ok(())
    }

    /// Writes all items in the order of a walk.
    fn sorted(&mut self, reader: &RefreshingReader<'_>) -> Result<(), ExportError> {
        let mut items = self.survey.take_all_specials();
        self.each(reader, &mut |_, item| {
            items.push(item.into_owned());
            true
        })?;
        let names = |item: &Item<'static>| {
            item.path_bytes().split(|c| *c == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        items.sort_by_cached_key(names);
        items.iter().try_for_each(|item| self.item(item))
    }

    /// Calls `each` for the wanted items of the stream that have a place, until it returns false.
    fn each(
        &mut self,
        reader: &RefreshingReader<'_>,
        each: &mut dyn FnMut(&mut Self, Item<'_>) -> bool,
    ) -> Result<(), ExportError> {
        let mut number = 0;
        for_each_item(reader, self.snapshot, &mut |found| {
            match found {
                // They are known already.
                FoundItem::Item(item) if is_special(item.kind) => {}
                FoundItem::Item(item) if is_wanted(&item, self.top) => {
                    let admitted = self.survey.admits(number);
                    number += 1;
                    return Ok(!admitted || each(self, item));
                }
                FoundItem::Lost(Loss { reason, .. }) if !self.survey.lost => {
                    self.summary.left_out += 1;
                    emit(&mut self.events, Event::SnapshotUnreadable { snapshot: self.snapshot.id, reason });
                }
                FoundItem::Item(_) | FoundItem::Problem(_) | FoundItem::Lost(_) => {}
            }
            Ok(true)
        })?;
        Ok(())
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let path = item.path_bytes();
        let wanted = path::is_within(path, self.top);
        if item.kind == ItemType::Directory {
            self.directories_above(path)?;
            self.entry(item, &[path, b"/"].concat(), EntryKind::Directory)?;
            return self.opened(path);
        }
        if !wanted {
            return Ok(());
        }
        self.directories_above(path)?;
        match item.kind {
            ItemType::RegularFile => self.file_or_link(item),
            ItemType::Socket => {
                self.left_out(item.path.to_string(), "a socket, which an archive cannot hold".into());
                Ok(())
            }
            _ => self.other(item),
        }
    }

    /// Something that is neither a file nor a directory.
    fn other(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let path = item.path_bytes();
        if let Some(key) = item.link_key() {
            match self.names.get(&key) {
                Some(first) if first.is_of(item) => {
                    let first = first.path.clone();
                    return self.entry(item, path, EntryKind::Link(&first));
                }
                Some(_) => {}
                None => drop(self.names.insert(key, ArchivedName::of(item))),
            }
        }
        let kind = match item.kind {
            ItemType::CharDevice => EntryKind::CharDevice,
            ItemType::BlockDevice => EntryKind::BlockDevice,
            ItemType::Fifo => EntryKind::Fifo,
            _ => EntryKind::Symlink(item.target_bytes().unwrap_or_default()),
        };
        self.entry(item, path, kind)
    }

    /// Begins the directories above a path that are not in the archive yet. Those without an item get an entry, with
    /// which nobody else may enter them.
    fn directories_above(&mut self, path: &[u8]) -> Result<(), ExportError> {
        for dir in above(path) {
            if self.opened.contains(&self.survey.admission.hash(dir)) {
                continue;
            }
            if self.survey.admission.is_implied(dir) {
                let mtime = i64::try_from(self.snapshot.time.as_nanosecond()).unwrap_or(0);
                let made_up = Item { mode: IMPLIED, mtime, ..Item::new("", ItemType::Directory) };
                self.entry(&made_up, &[dir, b"/"].concat(), EntryKind::Directory)?;
            }
            self.opened(dir)?;
        }
        Ok(())
    }

    /// Writes what comes with a directory, the first time.
    fn opened(&mut self, dir: &[u8]) -> Result<(), ExportError> {
        match self.opened.insert(self.survey.admission.hash(dir)) {
            true => self.specials(dir),
            false => Ok(()),
        }
    }

    fn specials(&mut self, dir: &[u8]) -> Result<(), ExportError> {
        match self.survey.is_in_order() {
            true => self.survey.take_specials(dir).iter().try_for_each(|item| self.item(item)),
            false => Ok(()),
        }
    }

    fn file_or_link(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let Some(key) = item.link_key() else { return self.file(item).map(drop) };
        if let Some(first) = self.names.get(&key) {
            if first.is_of(item) {
                let first = first.path.clone();
                return self.entry(item, item.path_bytes(), EntryKind::Link(&first));
            }
            return self.file(item).map(drop);
        }
        if self.file(item)? {
            self.names.insert(key, ArchivedName::of(item));
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
        self.entry(item, path, EntryKind::File)?;
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

    fn entry(&mut self, item: &Item<'_>, name: &[u8], kind: EntryKind<'_>) -> Result<(), ExportError> {
        self.summary.entries += 1;
        self.out.write_all(&headers(item, name, kind, &self.survey.names)).map_err(ExportError::Output)
    }

    fn left_out(&mut self, path: String, reason: String) {
        self.summary.left_out += 1;
        emit(&mut self.events, Event::ItemSkipped { snapshot: self.snapshot.id, path, reason });
    }
}

#[cfg(test)]
mod tests;
