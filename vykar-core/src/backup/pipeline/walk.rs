//! The walk: directories are listed by several threads ahead of the emitter, which visits them in
//! byte order, so that an unchanged tree gives an unchanged item stream.
//!
//! A listing is a sequence of [`ListedPiece`]s. What needs no reading (directories, symlinks, unchanged
//! files) is already encoded in it; the emitter has only to copy.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, Mode, OFlags, RawDir};

use crate::backup::pipeline::context::{Context, stored_bytes};
use crate::backup::pipeline::encoded_items::{Counts, Encoded};
use crate::backup::source::command::Stream;
use crate::backup::source::entry;
use crate::backup::source::entry::{OwnedXattrs, Spot, Stat};
use crate::backup::source::exclude::SourcePlace;
use crate::backup::source::mounts;
use crate::event::Exclusion;
use crate::format::ChunkRef;
use crate::local_state::file_cache;
use crate::local_state::file_cache::{KnownFile, PathHash};
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
pub enum ListedPiece {
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
    pub place: SourcePlace,
    /// The device of its parent; `None` for a source.
    pub parent_dev: Option<u64>,
}

/// Sources beside each other that are no directories to be walked.
pub struct LoneTask {
    /// The directory that they are in, by its path.
    pub dir: CString,
    /// Their names in it, and their paths in the snapshot.
    pub entries: Vec<(CString, Vec<u8>)>,
}

/// What is to be listed.
enum Listable {
    Dir(DirTask),
    Lone(LoneTask),
}

/// An entry of a directory.
pub struct DirEntryName {
    pub text: CString,
    /// As the directory says; [`FileType::Unknown`] where it does not.
    pub kind: FileType,
}

impl DirEntryName {
    fn is_dir(&self) -> Option<bool> {
        (self.kind != FileType::Unknown).then_some(self.kind == FileType::Directory)
    }
}

enum ListingState {
    Waiting(Listable),
    Running,
    Done(Vec<ListedPiece>, ListingWeight),
    Taken,
}

/// A directory that somebody lists, or has listed.
pub struct Ticket {
    state: Mutex<ListingState>,
    done: Condvar,
}

impl Ticket {
    /// For a directory nobody has begun to list.
    pub fn new(task: DirTask) -> Arc<Self> {
        Self::waiting(Listable::Dir(task))
    }

    /// For sources that nobody has looked at.
    pub fn lone(task: LoneTask) -> Arc<Self> {
        Self::waiting(Listable::Lone(task))
    }

    fn waiting(task: Listable) -> Arc<Self> {
        Arc::new(Ticket { state: Mutex::new(ListingState::Waiting(task)), done: Condvar::new() })
    }
}

/// Unlisting a tree must not recurse as deep as the tree is.
impl Drop for Ticket {
    fn drop(&mut self) {
        let mut states = vec![std::mem::replace(self.state.get_mut(), ListingState::Taken)];
        while let Some(state) = states.pop() {
            let ListingState::Done(pieces, _) = state else { continue };
            for piece in pieces {
                if let ListedPiece::Dir(ticket) = piece
                    && let Some(mut ticket) = Arc::into_inner(ticket)
                {
                    states.push(std::mem::replace(ticket.state.get_mut(), ListingState::Taken));
                }
            }
        }
    }
}

/// What a listing costs while it waits for the emitter.
#[derive(Clone, Copy, Default)]
struct ListingWeight {
    /// Entries, those with long chunk lists counted several times.
    entries: usize,
    /// 1 when files in it are to be read, so that its handle stays open.
    handles: usize,
}

impl ListingWeight {
    fn of(pieces: &[ListedPiece], entries: usize) -> Self {
        let lists = pieces.iter().map(|piece| match piece {
            ListedPiece::Encoded(encoded) => encoded.items.len() / BYTES_OF_ENTRY,
            ListedPiece::File(draft) => draft.before.as_ref().map_or(0, |chunks| chunks.len() / 8),
            ListedPiece::Dir(_) | ListedPiece::Stream(_) => 0,
        });
        let handles = pieces.iter().any(|piece| matches!(piece, ListedPiece::File(_)));
        ListingWeight { entries: entries + lists.sum::<usize>(), handles: usize::from(handles) }
    }
}

struct ListingsAhead {
    /// Deepest first: the directory that the emitter will want next is on top.
    stack: Vec<Arc<Ticket>>,
    waiting: ListingWeight,
    closed: bool,
}

/// The directories to be listed, shared by listing threads and emitter.
pub struct SourceWalk<'c> {
    context: &'c Context<'c>,
    ahead: Mutex<ListingsAhead>,
    changed: Condvar,
    stop: AtomicBool,
    /// Directories that may be kept open for the emitter.
    max_handles: usize,
}

impl<'c> SourceWalk<'c> {
    /// Nothing to list yet.
    pub fn new(context: &'c Context<'c>) -> Self {
        let ahead = ListingsAhead { stack: Vec::new(), waiting: ListingWeight::default(), closed: false };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // A quarter: the files waiting for workers hold directories too.
        let limit = limit.and_then(|n| usize::try_from(n / 4).ok()).unwrap_or(MAX_HANDLES);
        let max_handles = limit.min(MAX_HANDLES);
        let (ahead, changed, stop) = (Mutex::new(ahead), Condvar::new(), AtomicBool::new(false));
        SourceWalk { context, ahead, changed, stop, max_handles }
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
            match std::mem::replace(&mut *state, ListingState::Running) {
                ListingState::Waiting(task) => {
                    drop(state);
                    let (pieces, entries) = self.context.stages.time(Stage::List, || self.list(task));
                    let weight = ListingWeight::of(&pieces, entries);
                    let mut ahead = self.ahead.lock();
                    ahead.waiting.entries += weight.entries;
                    ahead.waiting.handles += weight.handles;
                    drop(ahead);
                    *ticket.state.lock() = ListingState::Done(pieces, weight);
                    ticket.done.notify_all();
                }
                // The emitter was faster.
                other => *state = other,
            }
        }
    }

    /// The listing of a directory: done ahead, being done, or done here and now.
    pub fn take(&self, ticket: &Ticket) -> Vec<ListedPiece> {
        let mut state = ticket.state.lock();
        loop {
            match std::mem::replace(&mut *state, ListingState::Taken) {
                ListingState::Waiting(task) => {
                    drop(state);
                    return self.context.stages.time(Stage::List, || self.list(task)).0;
                }
                ListingState::Done(pieces, weight) => {
                    drop(state);
                    let mut ahead = self.ahead.lock();
                    ahead.waiting.entries -= weight.entries;
                    ahead.waiting.handles -= weight.handles;
                    drop(ahead);
                    self.changed.notify_all();
                    return pieces;
                }
                ListingState::Running => {
                    *state = ListingState::Running;
                    ticket.done.wait(&mut state);
                }
                ListingState::Taken => return Vec::new(),
            }
        }
    }

    fn list(&self, task: Listable) -> (Vec<ListedPiece>, usize) {
        match task {
            Listable::Dir(task) => self.list_dir(task),
            Listable::Lone(task) => self.list_lone(task),
        }
    }

    fn list_dir(&self, task: DirTask) -> (Vec<ListedPiece>, usize) {
        self.context.progress.listing(&task.path);
        if self.is_repository(&task, &task.stat) {
            return (Vec::new(), 0);
        }
        let mut listing = DirListing::new(self.context, task.path.clone(), task.place.clone());
        let opened = match &task.parent {
            Some(parent) => entry::open_dir(parent, &task.name),
            None => open_named(&task.name),
        };
        let dir = match opened {
            Ok(dir) => Arc::new(dir),
            Err(e) => {
                match task.parent.as_ref().is_some_and(|parent| listing.leaves(parent, &task.name)) {
                    true => self.context.left_out(&task.path, Exclusion::FileSystem),
                    false => self.context.failed(&task.path, &e),
                }
                listing.directory_item(&task.stat, None);
                return (listing.pieces, 1);
            }
        };
        let stat = Stat::of(&dir).unwrap_or(task.stat);
        if self.context.is_excluded(&task.path, &stat) || self.is_repository(&task, &stat) {
            return (Vec::new(), 0);
        }
        listing.dev = stat.dev;
        let filter = &self.context.filter;
        let left =
            filter.one_file_system && Spot::of(&dir).is_ok_and(|spot| filter.leaves(&task.place, &spot));
        let names = match left {
            true => {
                self.context.left_out(&task.path, Exclusion::FileSystem);
                Ok(Vec::new())
            }
            false => read_names(&dir),
        };
        if let Ok(names) = &names
            && let Some(why) = filter.directory(&task.place, &task.path, &dir, names)
        {
            self.context.left_out(&task.path, why);
            return (Vec::new(), 0);
        }
        let (xattrs, _) = self.context.xattrs(&task.path, || entry::xattrs_of(&dir));
        listing.directory_item(&stat, xattrs);
        match names {
            Ok(names) => listing.read(&dir, names, &self.stop),
            Err(e) => self.context.failed(&task.path, &e),
        }
        self.offer_subdirectories(&listing.pieces);
        (listing.pieces, listing.entries)
    }

    /// True for the top of a mounted repository; says so.
    fn is_repository(&self, task: &DirTask, stat: &Stat) -> bool {
        let crosses = task.parent_dev.is_some_and(|above| above != stat.dev);
        let found = crosses && mounts::is_repository(stat.dev);
        if found {
            self.context.skipped(&task.path, mounts::REASON);
        }
        found
    }

    /// Sources that are named one by one are what people want, whatever the rules say.
    fn list_lone(&self, task: LoneTask) -> (Vec<ListedPiece>, usize) {
        let entries = task.entries.len();
        let dir = match open_named(&task.dir) {
            Ok(dir) => Arc::new(dir),
            Err(e) => {
                task.entries.iter().for_each(|(_, path)| self.context.failed(path, &e));
                return (Vec::new(), entries);
            }
        };
        let spot = Spot::of(&dir).unwrap_or_default();
        let place = self.context.filter.top(b"", task.dir.as_bytes(), spot);
        let mut listing = DirListing::new(self.context, Vec::new(), place);
        for (name, path) in task.entries {
            match Stat::at(&dir, &name) {
                Ok(stat) if stat.kind == FileType::Directory => {
                    self.context
                        .failed(&path, &std::io::Error::other("became a folder while the backup ran"));
                }
                Ok(stat) => listing.entry(&dir, name, path, stat),
                Err(e) => self.context.failed(&path, &e),
            }
        }
        (listing.pieces, entries)
    }

    fn offer_subdirectories(&self, pieces: &[ListedPiece]) {
        let mut ahead = self.ahead.lock();
        let before = ahead.stack.len();
        for piece in pieces.iter().rev() {
            if let ListedPiece::Dir(ticket) = piece {
                ahead.stack.push(ticket.clone());
            }
        }
        if ahead.stack.len() > before {
            self.changed.notify_all();
        }
    }
}

struct DirListing<'c> {
    context: &'c Context<'c>,
    path: Vec<u8>,
    /// The device that it is on.
    dev: u64,
    place: SourcePlace,
    pieces: Vec<ListedPiece>,
    entries: usize,
}

impl<'c> DirListing<'c> {
    fn new(context: &'c Context<'c>, path: Vec<u8>, place: SourcePlace) -> Self {
        DirListing { context, path, dev: 0, place, pieces: Vec::new(), entries: 0 }
    }

    fn encoded(&mut self) -> &mut Encoded {
        if !matches!(self.pieces.last(), Some(ListedPiece::Encoded(_))) {
            self.pieces.push(ListedPiece::Encoded(Encoded::default()));
        }
        match self.pieces.last_mut() {
            Some(ListedPiece::Encoded(encoded)) => encoded,
            _ => unreachable!("just pushed"),
        }
    }

    fn directory_item(&mut self, stat: &Stat, xattrs: OwnedXattrs) {
        let path = std::mem::take(&mut self.path);
        let item = entry::item(&path, stat, &self.context.names, xattrs);
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

    fn read(&mut self, dir: &Arc<OwnedFd>, mut names: Vec<DirEntryName>, stop: &AtomicBool) {
        let (place, trouble) = self.context.filter.inside(&self.place, &self.path, dir, &names);
        if let Some(trouble) = trouble {
            self.context.rule_trouble(&self.below(b".gitignore"), &trouble);
        }
        self.place = place;
        names.sort_unstable_by(|a, b| a.text.cmp(&b.text));
        for name in names {
            if stop.load(Ordering::Relaxed) || self.context.is_aborted() {
                return;
            }
            self.entries += 1;
            let path = self.below(name.text.to_bytes());
            match self.look(dir, &name, &path) {
                Ok(stat) => self.entry(dir, name.text, path, stat),
                Err(Some(why)) => self.context.left_out(&path, why),
                Err(None) => {}
            }
        }
    }

    fn below(&self, name: &[u8]) -> Vec<u8> {
        match self.path.is_empty() {
            true => name.to_vec(),
            false => [&self.path, &b"/"[..], name].concat(),
        }
    }

    /// What an entry is; or why it is left out, `None` when that has been said. What a rule leaves out is not looked at:
    /// that may fail, or wait for a server that is gone.
    fn look(&self, dir: &OwnedFd, name: &DirEntryName, path: &[u8]) -> Result<Stat, Option<Exclusion>> {
        let filter = &self.context.filter;
        if let Some(why) = filter.entry(&self.place, path, name.is_dir()) {
            return Err(Some(why));
        }
        // An empty directory stands for what is mounted on one; that is seen to when it is opened.
        if name.kind != FileType::Directory && self.is_mounted(dir, &name.text) {
            let stat = Stat::at(dir, &name.text).ok();
            return stat.filter(|stat| stat.kind == FileType::Directory).ok_or(Some(Exclusion::FileSystem));
        }
        let stat = Stat::at(dir, &name.text).map_err(|e| self.unseen(dir, name, path, &e))?;
        let is_dir = stat.kind == FileType::Directory;
        let again =
            if name.is_dir() == Some(is_dir) { None } else { filter.entry(&self.place, path, Some(is_dir)) };
        again.or_else(|| filter.looks(&stat)).map_or(Ok(stat), |why| Err(Some(why)))
    }

    /// An entry that cannot be looked at: it may be what is mounted there, and not wanted.
    fn unseen(
        &self,
        dir: &OwnedFd,
        name: &DirEntryName,
        path: &[u8],
        error: &std::io::Error,
    ) -> Option<Exclusion> {
        if self.leaves(dir, &name.text) {
            return Some(Exclusion::FileSystem);
        }
        let spot = Spot::at(dir, &name.text);
        match spot.is_ok_and(|spot| spot.dev() != self.dev && mounts::is_repository(spot.dev())) {
            true => self.context.skipped(path, mounts::REASON),
            false => self.context.failed(path, error),
        }
        None
    }

    fn is_mounted(&self, dir: &OwnedFd, name: &CStr) -> bool {
        let filter = &self.context.filter;
        filter.one_file_system && Spot::at(dir, name).is_ok_and(|spot| filter.is_mounted(&self.place, &spot))
    }

    fn leaves(&self, dir: &OwnedFd, name: &CStr) -> bool {
        let filter = &self.context.filter;
        filter.one_file_system && Spot::at(dir, name).is_ok_and(|spot| filter.leaves(&self.place, &spot))
    }

    /// Adds one entry that is not opened yet.
    fn entry(&mut self, dir: &Arc<OwnedFd>, name: CString, path: Vec<u8>, stat: Stat) {
        if stat.is_time_cut() {
            self.context.cut_time(&path);
        }
        match stat.kind {
            FileType::Directory => {
                if !self.context.is_excluded(&path, &stat) {
                    let (parent, place, parent_dev) = (Some(dir.clone()), self.place.clone(), Some(self.dev));
                    let task = DirTask { parent, name, path, stat, place, parent_dev };
                    self.pieces.push(ListedPiece::Dir(Ticket::new(task)));
                }
            }
            FileType::RegularFile => self.file(dir, name, path, stat),
            FileType::Symlink => self.symlink(dir, &name, &path, &stat),
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                let (xattrs, _) = self.context.xattrs(&path, || entry::xattrs_at(dir, &name));
                let item = entry::item(&path, &stat, &self.context.names, xattrs);
                self.context.special(&item, &stat);
            }
            _ => self.context.failed(&path, &std::io::Error::other("an entry of an unknown kind")),
        }
    }

    fn symlink(&mut self, dir: &Arc<OwnedFd>, name: &CStr, path: &[u8], stat: &Stat) {
        let target = match rustix::fs::readlinkat(dir, name, Vec::with_capacity(256)) {
            Ok(target) => target.into_bytes(),
            Err(e) => return self.context.failed(path, &e.into()),
        };
        let (xattrs, _) = self.context.xattrs(path, || entry::xattrs_at(dir, name));
        let mut item = entry::item(path, stat, &self.context.names, xattrs);
        item.set_names(path.into(), Some(target.into()));
        let context = self.context;
        context.name(path, stat);
        let encoded = self.encoded();
        context.encode(&item, &mut encoded.items);
        encoded.counts.symlinks += 1;
    }

    fn file(&mut self, dir: &Arc<OwnedFd>, name: CString, path: Vec<u8>, stat: Stat) {
        let context = self.context;
        let Some(hash) = context.ok(file_cache::path_hash(context.hasher(), &path).map_err(Into::into))
        else {
            return;
        };
        let found = context.cache.find(&hash);
        let unchanged = |k: &KnownFile<'_>| {
            !context.reread && k.record.matches(&stat) && context.references.add_existing(&k.record.chunks)
        };
        let before = match found {
            Some(known) if unchanged(&known) => {
                let xattrs = match known.record.has_xattrs {
                    true => context.xattrs(&path, || entry::xattrs_at(dir, &name)).0,
                    false => None,
                };
                return self.unchanged(&path, &stat, xattrs, known);
            }
            other => other.map(|known| known.record.chunks),
        };
        self.pieces.push(ListedPiece::File(Draft { dir: dir.clone(), name, path, stat, hash, before }));
    }

    fn unchanged(&mut self, path: &[u8], stat: &Stat, xattrs: OwnedXattrs, known: KnownFile<'_>) {
        let KnownFile { record, raw } = known;
        let mut item = entry::item(path, stat, &self.context.names, xattrs);
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

/// Opens a directory by its path, symlinks followed.
fn open_named(path: &CStr) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn read_names(dir: &OwnedFd) -> std::io::Result<Vec<DirEntryName>> {
    let mut buffer = Vec::with_capacity(DIRENT_BUFFER);
    let buffer: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut entries = RawDir::new(dir, buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(DirEntryName { text: name.to_owned(), kind: entry.file_type() });
        }
    }
    Ok(names)
}

/// Where a path of the snapshot lies in the source, for messages.
pub fn shown_path(base: &std::path::Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    match path.is_empty() {
        true => base.to_owned(),
        false => base.join(std::ffi::OsStr::from_bytes(path)),
    }
}
