//! The content of a file.

use std::io::Write;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::ExportError;
use crate::error::{Result, VykarError};
use crate::format::{ChunkRef, Item, ItemType, Snapshot, path};
use crate::id::ChunkId;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};
use crate::repository::{ReadChunk, RefreshingReader};

/// Chunks that are decoded ahead of the output.
const AHEAD: usize = 2;

/// What a path of a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A file of these chunks.
    File(Vec<ChunkRef>),
    /// A directory, which may have no item of its own.
    Directory,
    /// A FIFO, a socket or a device node.
    Special,
    /// A symlink, and its target.
    Symlink(Vec<u8>),
    /// Nothing.
    Absent,
    /// Something that cannot be used, or would be where the items cannot be read.
    Unusable(String),
}

/// Finds out what a plain path is; the empty one is the top directory.
///
/// # Errors
/// [`VykarError::OutOfReach`]; damage is [`Lookup::Unusable`].
pub fn lookup(reader: &dyn ReadChunk, snapshot: &Snapshot, wanted: &[u8]) -> Result<Lookup> {
    if wanted.is_empty() {
        return Ok(Lookup::Directory);
    }
    // A path that is only part of others has no item: its own may still come.
    let mut found_below = false;
    let mut result = None;
    for_each_item(reader, snapshot, &mut |found| {
        let here = match found {
            FoundItem::Item(item) if item.path_bytes() == wanted => Some(kind_of(&item)),
            FoundItem::Item(item) => {
                found_below |= path::is_within(item.path_bytes(), wanted);
                None
            }
            FoundItem::Problem(problem) if problem.path().as_bytes() == wanted => {
                Some(Lookup::Unusable(problem.to_string()))
            }
            FoundItem::Problem(_) => None,
            FoundItem::Lost(Loss { reason, may_come_back: true }) => {
                return Err(VykarError::OutOfReach {
                    part: "a part of the snapshot's items".to_owned(),
                    reason,
                });
            }
            FoundItem::Lost(Loss { reason, .. }) if !found_below => Some(Lookup::Unusable(reason)),
            FoundItem::Lost(_) => None,
        };
        result = here;
        Ok(result.is_none())
    })?;
    Ok(result.unwrap_or(if found_below { Lookup::Directory } else { Lookup::Absent }))
}

fn kind_of(item: &Item<'_>) -> Lookup {
    match item.kind {
        ItemType::RegularFile => Lookup::File(item.chunks.clone()),
        ItemType::Directory => Lookup::Directory,
        ItemType::Symlink => Lookup::Symlink(item.target_bytes().unwrap_or_default().to_vec()),
        ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => Lookup::Special,
    }
}

/// Reads the contents of files, each chunk verified.
pub struct ContentReader<'r> {
    reader: &'r RefreshingReader<'r>,
}

impl<'r> ContentReader<'r> {
    /// Of files whose chunks `reader` reads.
    pub fn new(reader: &'r RefreshingReader<'r>) -> Self {
        ContentReader { reader }
    }

    /// The first of these chunks that the index does not have.
    pub fn missing(&self, chunks: &[ChunkRef]) -> Option<ChunkId> {
        let filled = chunks.iter().filter(|chunk| chunk.size > 0);
        filled.map(|chunk| chunk.id).find(|id| self.reader.locate(id).is_err())
    }

    /// Writes the content of the file `path`, and decodes ahead in a thread.
    ///
    /// # Errors
    /// [`ExportError::File`] for the first chunk that is missing, damaged, or not as long as its item says. What was
    /// written until then is what is before it in the file.
    pub fn write(&self, path: &[u8], chunks: &[ChunkRef], out: &mut dyn Write) -> Result<(), ExportError> {
        let mut write = |chunk: Result<Bytes>| {
            let chunk = chunk.map_err(|e| file_error(path, e))?;
            out.write_all(&chunk).map_err(ExportError::Output)
        };
        // Empty pieces need not be there.
        let chunks: Vec<_> = chunks.iter().filter(|chunk| chunk.size > 0).collect();
        if chunks.len() < 2 {
            return chunks.iter().try_for_each(|chunk| write(self.read(chunk)));
        }
        std::thread::scope(|scope| {
            let (send, decoded) = sync_channel(AHEAD);
            let chunks = &chunks;
            let ahead = move || {
                for chunk in chunks {
                    let bytes = self.read(chunk);
                    let last = bytes.is_err();
                    // Nobody listens when the output is closed.
                    if send.send(bytes).is_err() || last {
                        return;
                    }
                }
            };
            match std::thread::Builder::new().name("vykar-content".into()).spawn_scoped(scope, ahead) {
                Ok(_) => decoded.into_iter().try_for_each(write),
                // Without a thread they are read when they are wanted.
                Err(_) => chunks.iter().try_for_each(|chunk| write(self.read(chunk))),
            }
        })
    }

    fn read(&self, chunk: &ChunkRef) -> Result<Bytes> {
        self.reader.read_sized(&chunk.id, chunk.size)
    }
}

/// What is wrong with a file.
pub(super) fn file_error(path: &[u8], source: VykarError) -> ExportError {
    ExportError::File { path: String::from_utf8_lossy(path).into_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestRepository, directory, noise, symlink};

    #[test]
    fn paths_are_what_their_items_say() {
        let mut t = TestRepository::new();
        let file = t.file("made/up/file", b"content");
        let broken = Item { size: 3, ..t.file("broken", b"four") };
        let items = [file.clone(), symlink("link", "made"), directory("dir"), broken];
        let snapshot = t.snapshot("s", &items, None);
        let reader = t.repository.chunk_reader().unwrap();
        let is = |path: &str| lookup(&reader, &snapshot, path.as_bytes()).unwrap();
        assert_eq!(is("made/up/file"), Lookup::File(file.chunks.clone()));
        for path in ["", "dir", "made", "made/up"] {
            assert_eq!(is(path), Lookup::Directory, "{path}");
        }
        assert_eq!(is("link"), Lookup::Symlink(b"made".to_vec()));
        for path in ["made/u", "made/up/file/x", "nothing"] {
            assert_eq!(is(path), Lookup::Absent, "{path}");
        }
        assert!(matches!(is("broken"), Lookup::Unusable(reason) if reason.contains("size 3")));
    }

    #[test]
    fn content_comes_up_to_the_first_chunk_that_is_damaged() {
        let mut t = TestRepository::new();
        t.chunk_size = 1000;
        let data = noise(3, 9500);
        let item = t.file("f", &data);
        t.snapshot("s", std::slice::from_ref(&item), None);
        let reader = RefreshingReader::new(&t.repository).unwrap();
        let content = ContentReader::new(&reader);
        let mut out = Vec::new();
        content.write(b"f", &item.chunks, &mut out).unwrap();
        assert!(out == data);
        t.damage(&item.chunks[7].id);
        let mut out = Vec::new();
        let error = content.write(b"f", &item.chunks, &mut out).unwrap_err();
        assert!(out == data[..7000] && error.to_string().starts_with("f: chunk "), "{error}");
        let wrong = [ChunkRef { size: 999, ..item.chunks[0] }];
        let error = content.write(b"f", &wrong, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("its item says 999"), "{error}");
    }

    #[test]
    fn an_output_that_is_closed_ends_it() {
        struct Closed(usize);
        impl Write for Closed {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(std::io::ErrorKind::BrokenPipe)?;
                Ok(buf.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut t = TestRepository::new();
        t.chunk_size = 1000;
        let item = t.file("f", &noise(4, 20_000));
        t.snapshot("s", std::slice::from_ref(&item), None);
        let reader = RefreshingReader::new(&t.repository).unwrap();
        let content = ContentReader::new(&reader);
        for writes in [0, 3] {
            let error = content.write(b"f", &item.chunks, &mut Closed(writes)).unwrap_err();
            assert!(matches!(error, ExportError::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe));
        }
    }
}
