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

use super::context::{Context, stored_bytes};
use super::encoded::{Counts, Encoded};
use super::exclude::{Exclusion, Place};
use super::filecache::{self, Known, PathHash};
use super::source::{self, OwnedXattrs, Stat};
use super::stream::Stream;
use crate::format::ChunkRef;
use crate::stage::Stage;

/// Entries that may be listed ahead of the emitter; bounds the walk's memory.
const MAX_AHEAD: usize = 50_000;
/// Encoded bytes that weigh as much as another entry.
const BYTES_OF_ENTRY: usize = 512;
/// Directories that may be kept open for the emitter, where the system allows that many.
const MAX_HANDLES: usize = 4096;
/// Buffer for directory entries in bytes.
const DIRENT_BUFFER: usize = 128 << 10;

/// A file whose content must be read.
pub struct Draft {
    pub dir: Arc<OwnedFd>,
    pub name: CString,
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    pub stat: Stat,
    /// Its key in the file cache.
    pub hash: PathHash,
    /// Its content as the last backup saw it.
    pub before: Option<Vec<ChunkRef>>,
}

impl Draft {
    /// Counts it as new, changed or unchanged.
    pub fn compared(&self, now: &[ChunkRef]) -> Counts {
        match &self.before {
            None => Counts { new: 1, ..Counts::default() },
            Some(before) if before.iter().map(|c| c.id).eq(now.iter().map(|c| c.id)) => {
                Counts { unchanged: 1, ..Counts::default() }
            }
            Some(_) => Counts { changed: 1, ..Counts::default() },
        }
    }
}

/// A part of a listing, in order.
pub enum Piece {
    /// Copy these.
    Encoded(Encoded),
    /// Read this.
    File(Draft),
    /// Visit this.
    Dir(Arc<Ticket>),
    /// Read this, which is no file of the source.
    Stream(Stream),
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
    pub place: Place,
}

enum State {
    Waiting(DirTask),
    Running,
    Done(Vec<Piece>, Weight),
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

/// Unlisting a tree must not recurse as deep as the tree is.
impl Drop for Ticket {
    fn drop(&mut self) {
        let mut states = vec![std::mem::replace(self.state.get_mut(), State::Taken)];
        while let Some(state) = states.pop() {
            let State::Done(pieces, _) = state else { continue };
            for piece in pieces {
                if let Piece::Dir(ticket) = piece
                    && let Some(mut ticket) = Arc::into_inner(ticket)
                {
                    states.push(std::mem::replace(ticket.state.get_mut(), State::Taken));
                }
            }
        }
    }
}

/// What a listing costs while it waits for the emitter.
#[derive(Clone, Copy, Default)]
struct Weight {
    /// Entries, those with long chunk lists counted several times.
    entries: usize,
    /// 1 when files in it are to be read, so that its handle stays open.
    handles: usize,
}

impl Weight {
    fn of(pieces: &[Piece], entries: usize) -> Self {
        let lists = pieces.iter().map(|piece| match piece {
            Piece::Encoded(encoded) => encoded.items.len() / BYTES_OF_ENTRY,
            Piece::File(draft) => draft.before.as_ref().map_or(0, |chunks| chunks.len() / 8),
            Piece::Dir(_) | Piece::Stream(_) => 0,
        });
        let handles = pieces.iter().any(|piece| matches!(piece, Piece::File(_)));
        Weight { entries: entries + lists.sum::<usize>(), handles: usize::from(handles) }
    }
}

struct Ahead {
    /// Deepest first: the directory that the emitter will want next is on top.
    stack: Vec<Arc<Ticket>>,
    waiting: Weight,
    closed: bool,
}

/// The directories to be listed, shared by listing threads and emitter.
pub struct Walk<'c> {
    context: &'c Context<'c>,
    ahead: Mutex<Ahead>,
    changed: Condvar,
    stop: AtomicBool,
    /// Directories that may be kept open for the emitter.
    max_handles: usize,
}

impl<'c> Walk<'c> {
    /// Nothing to list yet.
    pub fn new(context: &'c Context<'c>) -> Self {
        let ahead = Ahead { stack: Vec::new(), waiting: Weight::default(), closed: false };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // A quarter: the files waiting for workers hold directories too.
        let limit = limit.and_then(|n| usize::try_from(n / 4).ok()).unwrap_or(MAX_HANDLES);
        let max_handles = limit.min(MAX_HANDLES);
        let (ahead, changed, stop) = (Mutex::new(ahead), Condvar::new(), AtomicBool::new(false));
        Walk { context, ahead, changed, stop, max_handles }
    }

    /// Directories that may be kept open for files that wait to be read.
    pub fn max_handles(&self) -> usize {
        self.max_handles
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
                    if ahead.waiting.entries < MAX_AHEAD
                        && ahead.waiting.handles < self.max_handles
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
                    let (pieces, entries) = self.context.stages.time(Stage::List, || self.list(task));
                    let weight = Weight::of(&pieces, entries);
                    let mut ahead = self.ahead.lock();
                    ahead.waiting.entries += weight.entries;
                    ahead.waiting.handles += weight.handles;
                    drop(ahead);
                    *ticket.state.lock() = State::Done(pieces, weight);
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
                    return self.context.stages.time(Stage::List, || self.list(task)).0;
                }
                State::Done(pieces, weight) => {
                    drop(state);
                    let mut ahead = self.ahead.lock();
                    ahead.waiting.entries -= weight.entries;
                    ahead.waiting.handles -= weight.handles;
                    drop(ahead);
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
        self.context.progress.listing(&task.path);
        let mut listing = Listing::new(self.context, task.path, task.place);
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
        let left = self.context.filter.leaves(&listing.place, &stat);
        let names = match left {
            true => {
                self.context.left_out(&listing.path, Exclusion::FileSystem);
                Ok(Vec::new())
            }
            false => read_names(&dir),
        };
        if let Ok(names) = &names
            && let Some(why) = self.context.filter.directory(&listing.place, &listing.path, &dir, names)
        {
            self.context.left_out(&listing.path, why);
            return (Vec::new(), 0);
        }
        let (xattrs, _) = self.context.xattrs(&listing.path, || source::xattrs_of(&dir));
        listing.directory_item(&stat, xattrs);
        match names {
            Ok(names) => listing.read(&dir, names, &self.stop),
            Err(e) => self.context.failed(&listing.path, &e),
        }
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
    place: Place,
    pieces: Vec<Piece>,
    entries: usize,
}

impl<'c> Listing<'c> {
    fn new(context: &'c Context<'c>, path: Vec<u8>, place: Place) -> Self {
        Listing { context, path, place, pieces: Vec::new(), entries: 0 }
    }

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

    fn read(&mut self, dir: &Arc<OwnedFd>, mut names: Vec<CString>, stop: &AtomicBool) {
        let (place, failed) = self.context.filter.inside(&self.place, &self.path, dir, &names);
        if let Some(e) = failed {
            let mut path = self.path.clone();
            path.extend_from_slice(if path.is_empty() { b".gitignore" } else { b"/.gitignore" });
            self.context.unread_rules(&path, &e);
        }
        self.place = place;
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
                Ok(stat) => match self.context.filter.entry(&self.place, &path, &stat) {
                    None => self.entry(dir, name, path, stat),
                    Some(why) => self.context.left_out(&path, why),
                },
                Err(e) => self.context.failed(&path, &e),
            }
        }
    }

    /// Adds one entry that is not opened yet.
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: CString, path: Vec<u8>, stat: Stat) {
        match stat.kind {
            FileType::Directory => {
                if !self.context.is_excluded(&path, &stat) {
                    let (parent, place) = (Some(dir.clone()), self.place.clone());
                    let task = DirTask { parent, name, path, stat, place };
                    self.pieces.push(Piece::Dir(Ticket::new(task)));
                }
            }
            FileType::RegularFile => self.file(dir, name, path, stat),
            FileType::Symlink => self.symlink(dir, &name, &path, &stat),
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                let (xattrs, _) = self.context.xattrs(&path, || source::xattrs_at(dir, &name));
                let item = source::item(&path, &stat, &self.context.names, xattrs);
                self.context.special(&item);
            }
            _ => self.context.failed(&path, &std::io::Error::other("an entry of an unknown kind")),
        }
    }

    fn symlink(&mut self, dir: &Arc<OwnedFd>, name: &CStr, path: &[u8], stat: &Stat) {
        let target = match rustix::fs::readlinkat(dir, name, Vec::with_capacity(256)) {
            Ok(target) => target.into_bytes(),
            Err(e) => return self.context.failed(path, &e.into()),
        };
        let (xattrs, _) = self.context.xattrs(path, || source::xattrs_at(dir, name));
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
        let unchanged = |k: &Known<'_>| {
            !context.reread && k.record.matches(&stat) && context.references.add_existing(&k.record.chunks)
        };
        let before = match found {
            Some(known) if unchanged(&known) => {
                let xattrs = match known.record.has_xattrs {
                    true => context.xattrs(&path, || source::xattrs_at(dir, &name)).0,
                    false => None,
                };
                return self.unchanged(&path, &stat, xattrs, known);
            }
            other => other.map(|known| known.record.chunks),
        };
        self.pieces.push(Piece::File(Draft { dir: dir.clone(), name, path, stat, hash, before }));
    }

    fn unchanged(&mut self, path: &[u8], stat: &Stat, xattrs: OwnedXattrs, known: Known<'_>) {
        let Known { record, raw } = known;
        let mut item = source::item(path, stat, &self.context.names, xattrs);
        item.chunks = record.chunks;
        let context = self.context;
        let encoded = self.encoded();
        context.encode(&item, &mut encoded.items);
        encoded.counts.add(&Counts {
            files: 1,
            unchanged: 1,
            bytes: stat.size,
            stored_bytes: stored_bytes(&item.chunks),
            ..Counts::default()
        });
        encoded.records.push(record.path, raw);
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
    let place = Place::top(&path, stat.dev);
    let mut listing = Listing::new(context, Vec::new(), place);
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
