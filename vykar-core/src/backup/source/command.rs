//! Files whose content a program hands over while the backup runs: standard input, or what a command prints.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::backup::pipeline::context::{Context, stored_bytes};
use crate::backup::pipeline::encoded_items::{Counts, Encoded};
use crate::backup::pipeline::segmented_file::StoreFailed;
use crate::backup::pipeline::walk::ListedPiece;
use crate::backup::pipeline::worker::ReadWorker;
use crate::backup::source::entry;
use crate::backup::source::entry::Stat;
use crate::codec::chunker::SEGMENT;
use crate::error::VykarError;
use crate::event::Event;
use crate::format::ChunkRef;
use crate::format::admission::has_long_name;
use crate::format::item::is_plain_relative;
use crate::stage::Stage;

/// Folder that the output of commands lies in, at the top of a snapshot.
pub const DUMPS: &str = "vykar-dumps";
/// Permissions of a file that comes from a stream, and of the folders made for it: only their owner's.
const FILE_MODE: u32 = 0o100_600;
const FOLDER_MODE: u32 = 0o040_700;

/// The bytes of a stream, and whether they are all. One that has to wait for them long returns
/// [`io::ErrorKind::WouldBlock`] now and then, and is asked again, or not any more.
pub trait StreamContent: Read + Send {
    /// Called at the end of the bytes. A reason why they are not what they should be ends the backup.
    ///
    /// # Errors
    /// The content is not to be used.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// Opens a stream; once more when a backup must store again what was removed meanwhile.
pub type OpenStream = Arc<dyn Fn() -> Result<Box<dyn StreamContent>, String> + Send + Sync>;

/// A file of a snapshot that is no file of the source.
#[derive(Clone)]
pub struct Stream {
    /// Its path in the snapshot: relative, without empty parts, `.` and `..`.
    pub path: String,
    /// Gives its content.
    pub open: OpenStream,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Stream {
    /// Refuses a path that could be stored and never be restored, before anything runs.
    ///
    /// # Errors
    /// [`VykarError::Usage`].
    pub(in crate::backup) fn check(&self) -> Result<(), VykarError> {
        let path = self.path.as_bytes();
        match is_plain_relative(path) && !has_long_name(path) {
            true => Ok(()),
            false => Err(VykarError::Usage(format!("{:?}: no name that a file can have", self.path))),
        }
    }
}

/// The pieces that make streams, and the folders they are in.
pub fn pieces(context: &Context<'_>, streams: &[Stream]) -> Vec<ListedPiece> {
    let mut folders = BTreeSet::new();
    for stream in streams {
        folders.extend(stream.path.match_indices('/').map(|(at, _)| &stream.path[..at]));
    }
    let mut made = Encoded::default();
    for folder in folders {
        let item = entry::item(folder.as_bytes(), &stat(context, true), &context.names, None);
        context.encode(&item, &mut made.items);
        made.counts.directories += 1;
    }
    std::iter::once(ListedPiece::Encoded(made))
        .chain(streams.iter().cloned().map(ListedPiece::Stream))
        .collect()
}

/// Metadata of what has none: this process's, and now.
fn stat(context: &Context<'_>, folder: bool) -> Stat {
    let (kind, mode) = match folder {
        true => (FileType::Directory, FOLDER_MODE),
        false => (FileType::RegularFile, FILE_MODE),
    };
    let now = context.now();
    Stat {
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: 0,
        mtime: now,
        atime: now,
        ctime: now,
        dev: 0,
        ino: 0,
        nlink: 1,
        blocks: 0,
        rdev: 0,
    }
}

impl ReadWorker<'_> {
    /// Stores a stream. What goes wrong with it ends the backup: half a dump looks like a whole one.
    pub fn stream(&mut self, stream: &Stream, out: &mut Encoded) {
        let mut chunks = Vec::new();
        match self.read_stream(stream, &mut chunks) {
            Ok(()) => self.finish_stream(stream, chunks, out),
            Err(StoreFailed::Fatal(e)) => self.context.abort(e),
            Err(StoreFailed::Source(e)) => {
                self.context.abort(VykarError::Stream { path: stream.path.clone(), reason: e.to_string() });
            }
        }
    }

    fn read_stream(&mut self, stream: &Stream, chunks: &mut Vec<ChunkRef>) -> Result<(), StoreFailed> {
        self.context.progress.reading(stream.path.as_bytes(), 0);
        let mut content = (stream.open)().map_err(io::Error::other)?;
        let mut window = self.take_window();
        let result = self.read_segments(content.as_mut(), &mut window, chunks);
        self.give_window(window);
        result?;
        Ok(content.finish().map_err(io::Error::other)?)
    }

    /// Cut like a file of that content: in segments, each by itself.
    fn read_segments(
        &mut self,
        content: &mut dyn StreamContent,
        window: &mut [u8],
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), StoreFailed> {
        let (mut filled, mut left) = (0, SEGMENT);
        loop {
            if self.context.is_aborted() {
                return Err(VykarError::Interrupted.into());
            }
            let room = left.min((window.len() - filled) as u64) as usize;
            let stages = self.context.stages;
            let wanted = &mut window[filled..filled + room];
            let Some(got) = stages.time(Stage::Read, || self.fill(content, wanted))? else {
                return Err(VykarError::Interrupted.into());
            };
            filled += got;
            left -= got as u64;
            self.context.done(0, got as u64);
            let at_end = got < room;
            let used = self.cut(&window[..filled], at_end || left == 0, chunks)?;
            if at_end {
                return Ok(());
            }
            window.copy_within(used..filled, 0);
            filled -= used;
            if left == 0 {
                left = SEGMENT;
            }
        }
    }

    /// Reads until the buffer is full or the stream ends; `None` when the backup ends before.
    fn fill(&self, content: &mut dyn StreamContent, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < buf.len() {
            match content.read(&mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    if self.context.is_aborted() {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Some(done))
    }

    fn finish_stream(&mut self, stream: &Stream, chunks: Vec<ChunkRef>, out: &mut Encoded) {
        let size = chunks.iter().map(|c| u64::from(c.size)).sum();
        if size == 0 {
            let text = format!("{}: nothing came, and an empty file is stored", stream.path);
            self.context.event(Event::Note(text));
        }
        let stat = Stat { size, ..stat(self.context, false) };
        let mut item = entry::item(stream.path.as_bytes(), &stat, &self.context.names, None);
        item.chunks = chunks;
        self.context.encode(&item, &mut out.items);
        let stored_bytes = stored_bytes(&item.chunks);
        out.counts.add(&Counts { files: 1, new: 1, bytes: size, stored_bytes, ..Counts::default() });
        self.context.done(1, 0);
    }
}
