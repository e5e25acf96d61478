//! The walk: directories are listed by several threads ahead of the emitter, which visits them in
//! byte order, so that an unchanged tree gives an unchanged item stream.
//!
//! A listing is a sequence of [`Piece`]s. What needs no reading (directories, symlinks, unchanged
//! files) is already encoded in it; the emitter has only to copy.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, RawDir};

use super::context::Context;
use super::filecache::{self, PathHash, Record};
use super::source::{self, OwnedXattrs, Stat};
use crate::event::Event;
use crate::format::ChunkRef;

/// Entries that may be listed ahead of the emitter; bounds the walk's memory.
const MAX_AHEAD: usize = 50_000;
/// Buffer for directory entries in bytes.
const DIRENT_BUFFER: usize = 128 << 10;

/// Counters over encoded items.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub new: u64,
    pub changed: u64,
    pub unchanged: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, o: &Counts) {
        self.files += o.files;
        self.directories += o.directories;
        self.symlinks += o.symlinks;
        self.bytes += o.bytes;
        self.stored_bytes += o.stored_bytes;
        self.new += o.new;
        self.changed += o.changed;
        self.unchanged += o.unchanged;
    }
}

/// Items that are encoded already.
#[derive(Default)]
pub struct Encoded {
    pub items: Vec<u8>,
    pub counts: Counts,
    pub records: Vec<Record>,
}

/// A file whose content must be read.
pub struct Draft {
    pub dir: Arc<OwnedFd>,
    pub name: CString,
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    pub stat: Stat,
    /// Its key in the file cache.
    pub hash: PathHash,
    /// It had a record, which no longer matches.
    pub known: bool,
}

/// A part of a listing, in order.
pub enum Piece {
    /// Copy these.
    Encoded(Encoded),
    /// Read this.
    File(Draft),
    /// Visit this.
    Dir(Arc<Ticket>),
}

/// A directory to be listed.
pub struct DirTask {
    /// Its parent; `None` when `name` is to be opened as it stands (a source path).
    pub parent: Option<Arc<OwnedFd>>,
    pub name: CString,
    /// Its path in the snapshot; empty for a source directory whose items are relative to it.
    pub path: Vec<u8>,
    /// As it was when its parent was listed.
    pub stat: Stat,
}

enum State {
    Waiting(DirTask),
    Running,
    Done(Vec<Piece>, usize),
    Taken,
}

/// A directory that somebody lists, or has listed.
pub struct Ticket {
    state: Mutex<State>,
    done: Condvar,
}

impl Ticket {
    /// For a directory nobody has begun to list.
    pub fn new(task: DirTask) -> Arc<Self> {
        Arc::new(Ticket { state: Mutex::new(State::Waiting(task)), done: Condvar::new() })
    }
}

struct Ahead {
    /// Deepest first: the directory that the emitter will want next is on top.
    stack: Vec<Arc<Ticket>>,
    entries: usize,
    closed: bool,
}

/// The directories to be listed, shared by listing threads and emitter.
pub struct Walk<'c> {
    context: &'c Context<'c>,
    ahead: Mutex<Ahead>,
    changed: Condvar,
    stop: AtomicBool,
}

impl<'c> Walk<'c> {
    /// Nothing to list yet.
    pub fn new(context: &'c Context<'c>) -> Self {
        let ahead = Ahead { stack: Vec::new(), entries: 0, closed: false };
        Walk { context, ahead: Mutex::new(ahead), changed: Condvar::new(), stop: AtomicBool::new(false) }
    }

    /// Lets listing threads begin with this directory.
    pub fn offer(&self, ticket: Arc<Ticket>) {
        self.ahead.lock().stack.push(ticket);
        self.changed.notify_one();
    }

    /// Ends the listing threads.
    pub fn close(&self) {
        self.ahead.lock().closed = true;
        self.stop.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// The body of a listing thread.
    pub fn list_ahead(&self) {
        loop {
            let ticket = {
                let mut ahead = self.ahead.lock();
                loop {
                    if ahead.closed {
                        return;
                    }
                    if ahead.entries < MAX_AHEAD
                        && let Some(ticket) = ahead.stack.pop()
                    {
                        break ticket;
                    }
                    self.changed.wait(&mut ahead);
                }
            };
            let mut state = ticket.state.lock();
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(task) => {
                    drop(state);
                    let (pieces, entries) = self.list(task);
                    self.ahead.lock().entries += entries;
                    *ticket.state.lock() = State::Done(pieces, entries);
                    ticket.done.notify_all();
                }
                // The emitter was faster.
                other => *state = other,
            }
        }
    }

    /// The listing of a directory: done ahead, being done, or done here and now.
    pub fn take(&self, ticket: &Ticket) -> Vec<Piece> {
        let mut state = ticket.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Waiting(task) => {
                    drop(state);
                    return self.list(task).0;
                }
                State::Done(pieces, entries) => {
                    drop(state);
                    self.ahead.lock().entries -= entries;
                    self.changed.notify_all();
                    return pieces;
                }
                State::Running => {
                    *state = State::Running;
                    ticket.done.wait(&mut state);
                }
                State::Taken => return Vec::new(),
            }
        }
    }

    fn list(&self, task: DirTask) -> (Vec<Piece>, usize) {
        let mut listing = Listing { context: self.context, path: task.path, pieces: Vec::new(), entries: 0 };
        let opened = match &task.parent {
            Some(parent) => source::open_dir(parent, &task.name),
            None => {
                let flags =
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
                rustix::fs::open(&task.name, flags, rustix::fs::Mode::empty()).map_err(Into::into)
            }
        };
        let dir = match opened {
            Ok(dir) => Arc::new(dir),
            Err(e) => {
                self.context.failed(&listing.path, &e);
                listing.directory_item(&task.stat, None);
                return (listing.pieces, 1);
            }
        };
        let stat = Stat::of(&dir).unwrap_or(task.stat);
        if self.context.is_excluded(&listing.path, &stat) {
            return (Vec::new(), 0);
        }
        let xattrs = self.context.xattrs(&listing.path, || source::xattrs_of(&dir));
        listing.directory_item(&stat, xattrs);
        listing.read(&dir, &self.stop);
        self.offer_subdirectories(&listing.pieces);
        (listing.pieces, listing.entries)
    }

    fn offer_subdirectories(&self, pieces: &[Piece]) {
        let mut ahead = self.ahead.lock();
        let before = ahead.stack.len();
        for piece in pieces.iter().rev() {
            if let Piece::Dir(ticket) = piece {
                ahead.stack.push(ticket.clone());
            }
        }
        if ahead.stack.len() > before {
            self.changed.notify_all();
        }
    }
}

struct Listing<'c> {
    context: &'c Context<'c>,
    path: Vec<u8>,
    pieces: Vec<Piece>,
    entries: usize,
}

impl Listing<'_> {
    fn encoded(&mut self) -> &mut Encoded {
        if !matches!(self.pieces.last(), Some(Piece::Encoded(_))) {
            self.pieces.push(Piece::Encoded(Encoded::default()));
        }
        match self.pieces.last_mut() {
            Some(Piece::Encoded(encoded)) => encoded,
            _ => unreachable!("just pushed"),
        }
    }

    fn directory_item(&mut self, stat: &Stat, xattrs: OwnedXattrs) {
        let path = std::mem::take(&mut self.path);
        let item = source::item(&path, stat, &self.context.names, xattrs);
        if path.is_empty() {
            self.context.set_root(&item);
        } else {
            let context = self.context;
            let encoded = self.encoded();
            context.encode(&item, &mut encoded.items);
            encoded.counts.directories += 1;
        }
        self.path = path;
    }

    fn read(&mut self, dir: &Arc<OwnedFd>, stop: &AtomicBool) {
        let mut names = match read_names(dir) {
            Ok(names) => names,
            Err(e) => return self.context.failed(&self.path, &e),
        };
        names.sort_unstable();
        for name in names {
            if stop.load(Ordering::Relaxed) || self.context.is_aborted() {
                return;
            }
            self.entries += 1;
            let mut path = self.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            match Stat::at(dir, &name) {
                Ok(stat) => self.entry(dir, name, path, stat),
                Err(e) => self.context.failed(&path, &e),
            }
        }
    }

    /// Adds one entry that is not opened yet.
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: CString, path: Vec<u8>, stat: Stat) {
        match stat.kind {
            FileType::Directory => {
                if !self.context.is_excluded(&path, &stat) {
                    let task = DirTask { parent: Some(dir.clone()), name, path, stat };
                    self.pieces.push(Piece::Dir(Ticket::new(task)));
                }
            }
            FileType::RegularFile => self.file(dir, name, path, stat),
            FileType::Symlink => self.symlink(dir, &name, &path, &stat),
            kind => {
                let kind = source::special_kind(kind).unwrap_or("special file");
                self.context.event(Event::NotStored { path: self.context.shown(&path), kind });
            }
        }
    }

    fn symlink(&mut self, dir: &Arc<OwnedFd>, name: &CStr, path: &[u8], stat: &Stat) {
        let target = match rustix::fs::readlinkat(dir, name, Vec::with_capacity(256)) {
            Ok(target) => target.into_bytes(),
            Err(e) => return self.context.failed(path, &e.into()),
        };
        let xattrs = self.context.xattrs(path, || source::xattrs_at(dir, name));
        let mut item = source::item(path, stat, &self.context.names, xattrs);
        item.set_names(path.into(), Some(target.into()));
        let context = self.context;
        let encoded = self.encoded();
        context.encode(&item, &mut encoded.items);
        encoded.counts.symlinks += 1;
    }

    fn file(&mut self, dir: &Arc<OwnedFd>, name: CString, path: Vec<u8>, stat: Stat) {
        let context = self.context;
        let Some(hash) = context.ok(filecache::path_hash(context.hasher(), &path).map_err(Into::into)) else {
            return;
        };
        let found = context.cache.find(&hash);
        let known = found.is_some();
        let unchanged = found.filter(|r| r.matches(&stat) && context.references.add_existing(&r.chunks));
        if let Some(record) = unchanged {
            let xattrs = match record.has_xattrs {
                true => context.xattrs(&path, || source::xattrs_at(dir, &name)),
                false => None,
            };
            let counts = Counts { unchanged: 1, ..Counts::default() };
            return self.finished(&path, &stat, xattrs, record, counts);
        }
        if stat.size == 0 {
            // Nothing to read: the file need not be opened.
            let xattrs = context.xattrs(&path, || source::xattrs_at(dir, &name));
            let record = Record::new(hash, &stat, xattrs.is_some(), Vec::new(), context.now());
            let mut counts = Counts::default();
            *(if known { &mut counts.changed } else { &mut counts.new }) += 1;
            match record {
                Some(record) => self.finished(&path, &stat, xattrs, record, counts),
                None => self.add_file(&path, &stat, xattrs, Vec::new(), counts),
            }
            return;
        }
        self.pieces.push(Piece::File(Draft { dir: dir.clone(), name, path, stat, hash, known }));
    }

    fn finished(&mut self, path: &[u8], stat: &Stat, xattrs: OwnedXattrs, record: Record, counts: Counts) {
        let chunks = record.chunks.clone();
        self.encoded().records.push(record);
        self.add_file(path, stat, xattrs, chunks, counts);
    }

    fn add_file(
        &mut self,
        path: &[u8],
        stat: &Stat,
        xattrs: OwnedXattrs,
        chunks: Vec<ChunkRef>,
        mut counts: Counts,
    ) {
        counts.files = 1;
        counts.bytes = stat.size;
        counts.stored_bytes = chunks.iter().map(|c| u64::from(c.stored_size)).sum();
        let mut item = source::item(path, stat, &self.context.names, xattrs);
        item.chunks = chunks;
        let context = self.context;
        let encoded = self.encoded();
        context.encode(&item, &mut encoded.items);
        encoded.counts.add(&counts);
    }
}

fn read_names(dir: &OwnedFd) -> std::io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(DIRENT_BUFFER);
    let buffer: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut entries = RawDir::new(dir, buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The pieces that a source given as one file consists of.
pub fn single_entry(
    context: &Context<'_>,
    dir: &Arc<OwnedFd>,
    name: CString,
    path: Vec<u8>,
    stat: Stat,
) -> Vec<Piece> {
    let mut listing = Listing { context, path: Vec::new(), pieces: Vec::new(), entries: 0 };
    listing.entry(dir, name, path, stat);
    listing.pieces
}

/// Where a path of the snapshot lies in the source, for messages.
pub fn shown_path(base: &std::path::Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    match path.is_empty() {
        true => base.to_owned(),
        false => base.join(std::ffi::OsStr::from_bytes(path)),
    }
}
