//! Every path that any snapshot has, and the versions of each file.
//!
//! Nothing is computed before somebody looks. Then the item streams of all snapshots are cut into sections
//! ([`sections`]), which is remembered in a local file ([`copy`]). A folder is put together ([`history`]) from
//! those sections alone that have something in it, whose items are read again as small trees.

pub(crate) mod copy;
mod history;
mod listing;
mod paths;
mod rights;
mod sections;
#[cfg(test)]
mod tests;
mod timeline;
mod walk;

pub(crate) use listing::{Member, VersionsListing, target_hash};
pub(crate) use rights::Rights;
pub(crate) use timeline::VersionsTimeline;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use vykar_core::VykarError;
use vykar_core::format::ItemStream;
use vykar_core::repository::Repository;
use vykar_core::repository::objects::manifest::Manifest;
use vykar_core::repository::read::items::{FoundItem, end_of_chunks};

use crate::content::cache::Cache;
use crate::content::chunk_source::Data;
use crate::errno::FsError;
use crate::log::{Limiter, Log, LogLine};
use crate::tree::{Builder, Tree};
use crate::view::inode::{FOLDER_MAX, MAX_VERSION_NODES, PLACE_MAX};
use crate::view::layout::Layout;
use crate::view::names::fnv1a;
use crate::view::snapshots::{Info, Snapshots, made_up, now};
use crate::xattr::EncodedXattrs;
use history::{History, HistoryBuilder};
use paths::{Paths, TOP};
use sections::{Index, Tail};
use timeline::Moment;

/// What could not be read is tried again when somebody looks and this has passed.
const RETRY: Duration = Duration::from_secs(30);
/// Earlier timelines that are kept for listings that began in them.
const EARLIER: usize = 2;
/// Bytes of sections' trees that are kept.
const TREES: u64 = 48 << 20;
/// Most items of a section whose loss is logged.
const MAX_LINES: usize = 20;
/// Bytes of folders that are kept.
const HISTORIES: u64 = 16 << 20;

/// The versions view. Costs nothing until it is used.
pub(crate) struct Versions {
    repository: Arc<Repository>,
    data: Arc<Data>,
    owner: (u32, u32),
    log: Log,
    limiter: Limiter,
    clock: Mutex<DueClock>,
    state: Mutex<VersionsState>,
    /// The rights of `versions` itself, and the generation of the layout that they are of.
    top: Mutex<Option<(u32, Option<Rights>)>>,
    index: RwLock<Index>,
    folders: RwLock<Folders>,
    trees: Cache<u32, Arc<Tree>, FsError>,
    histories: Cache<(u32, u32), Arc<History>, FsError>,
}

/// Which timeline is due, known without making it.
#[derive(Debug, Default)]
struct DueClock {
    serial: u32,
    mtime: i64,
    /// Of the layout that it shows.
    generation: Option<u32>,
    /// When something could first not be read.
    lossy: Option<Instant>,
}

#[derive(Default)]
struct VersionsState {
    /// The local file was looked for.
    opened: bool,
    timeline: Option<Arc<VersionsTimeline>>,
    /// Those before it, the newest last.
    earlier: VecDeque<Arc<VersionsTimeline>>,
}

/// Folders that were looked at, and their numbers in inodes.
#[derive(Default)]
struct Folders {
    paths: Paths,
    /// By number in `paths`; that of the top is 0.
    numbers: Vec<u64>,
    by_number: HashMap<u64, u32>,
}

impl Versions {
    pub(crate) fn new(repository: Arc<Repository>, data: Arc<Data>, owner: (u32, u32), log: Log) -> Self {
        Versions {
            repository,
            data,
            owner,
            log,
            limiter: Limiter::default(),
            clock: Mutex::default(),
            state: Mutex::default(),
            top: Mutex::default(),
            index: RwLock::default(),
            folders: RwLock::default(),
            trees: Cache::keeping_one(TREES),
            histories: Cache::keeping_one(HISTORIES),
        }
    }

    /// The time of all folders, in nanoseconds since the epoch. It changes when what they show may.
    pub(crate) fn mtime(&self, layout: &Layout) -> i64 {
        self.tick(layout).1
    }

    /// Serial number and time of the timeline that is due.
    fn tick(&self, layout: &Layout) -> (u32, i64) {
        let mut clock = self.clock.lock();
        let newer = |before: u32| {
            let distance = layout.generation.wrapping_sub(before) & Layout::LAST_GENERATION;
            distance != 0 && distance <= Layout::LAST_GENERATION / 2
        };
        if clock.generation.is_none_or(newer) {
            // The first time is the same from mount to mount.
            let after = clock.generation.map_or(i64::MIN, |_| clock.mtime.saturating_add(1));
            (clock.generation, clock.mtime) = (Some(layout.generation), layout.changed().max(after));
            clock.advance();
        } else if clock.lossy.is_some_and(|since| since.elapsed() >= RETRY) {
            clock.mtime = now().max(clock.mtime.saturating_add(1));
            clock.advance();
        }
        (clock.serial, clock.mtime)
    }

    /// What is shown now. Reads the item streams of snapshots that are new.
    ///
    /// # Errors
    /// [`FsError::Io`] when one of them cannot be read now and may be later: without it, older versions would look like
    /// the latest.
    pub(crate) fn timeline(&self, snapshots: &Snapshots) -> Result<Arc<VersionsTimeline>, FsError> {
        // Looks for new snapshots, which may say something: not while a lock is held.
        snapshots.layout();
        let mut state = self.state.lock();
        let layout = snapshots.known_layout();
        let due = self.tick(&layout);
        if let Some(timeline) = state.timeline.as_ref().filter(|timeline| timeline.serial == due.0) {
            return Ok(timeline.clone());
        }
        let moments = moments(&layout, snapshots);
        let (lines, away) = self.learn(&mut state, &moments);
        if away {
            drop(state);
            lines.into_iter().for_each(|line| self.say(line));
            return Err(FsError::Io);
        }
        let timeline = Arc::new(VersionsTimeline::new(&mut self.index.write(), moments, due));
        if let Some(before) = state.timeline.replace(timeline.clone()) {
            state.earlier.push_back(before);
            if state.earlier.len() > EARLIER {
                state.earlier.pop_front();
            }
        }
        drop(state);
        lines.into_iter().for_each(|line| self.say(line));
        Ok(timeline)
    }

    /// The timeline of a listing that goes on, or the present one where that is long gone.
    pub(crate) fn earlier_timeline(
        &self,
        serial: u32,
        snapshots: &Snapshots,
    ) -> Result<Arc<VersionsTimeline>, FsError> {
        let state = self.state.lock();
        let known = state.timeline.iter().chain(&state.earlier);
        let found = known.into_iter().find(|timeline| timeline.serial == serial).cloned();
        drop(state);
        found.map_or_else(|| self.timeline(snapshots), Ok)
    }

    /// Sees to it that the sections of all these snapshots are known. What belongs into the log, and whether some could not
    /// be read now.
    fn learn(&self, state: &mut VersionsState, moments: &[Moment]) -> (Vec<LogLine>, bool) {
        let dir = self.repository.cache_dir();
        if !std::mem::replace(&mut state.opened, true)
            && let Some(known) = dir.as_deref().and_then(|dir| copy::read(dir, self.repository.keys()))
        {
            *self.index.write() = known;
        }
        let before = self.index.read().sections.len();
        let walker = walk::Walker { repository: &self.repository, data: &self.data, index: &self.index };
        let walk::Walked { lines, lossy, away } = walker.walk(moments);
        if lossy {
            self.lossy();
        }
        let index = self.index.read();
        if index.sections.len() > before
            && let Some(dir) = dir
        {
            let shown = moments.iter().map(|moment| moment.info.listed.id);
            let there = Manifest::ids(&self.repository).unwrap_or_default().into_iter();
            let kept: HashSet<_> = shown.chain(there).collect();
            // A file that cannot be written costs time at the next mount, nothing else.
            let _ = copy::write(&dir, self.repository.keys(), &index, &kept);
        }
        (lines, away)
    }

    fn lossy(&self) {
        self.clock.lock().lossy.get_or_insert_with(Instant::now);
    }

    fn say(&self, line: LogLine) {
        if self.limiter.allows(fnv1a(line.to_string().as_bytes())) {
            (self.log)(line);
        }
    }

    /// The tree of the section that has this number in inodes, and the oldest snapshot with it.
    pub(crate) fn section(&self, number: u64) -> Result<(Arc<Tree>, Arc<Info>), FsError> {
        let at = self.index.read().by_number(number).ok_or(FsError::Stale)?;
        Ok((self.tree(at)?, self.info(at)?))
    }

    /// The number in inodes of a section.
    pub(crate) fn section_number(&self, at: u32) -> u64 {
        self.index.read().section(at).map_or(0, |section| section.number)
    }

    fn info(&self, at: u32) -> Result<Arc<Info>, FsError> {
        self.index.read().section(at).and_then(|section| section.info.clone()).ok_or(FsError::Stale)
    }

    fn tree(&self, at: u32) -> Result<Arc<Tree>, FsError> {
        let tree = self.trees.get_or_make(&at, || self.load(at))?;
        if !tree.is_outdated() {
            return Ok(tree);
        }
        self.trees.remove(&at);
        self.trees.get_or_make(&at, || self.load(at))
    }

    fn load(&self, at: u32) -> Result<Arc<Tree>, FsError> {
        let info = self.info(at)?;
        let failed = |reason: String, lost: bool| {
            self.say(LogLine::ItemsLost { snapshot: info.listed.name.clone(), reason });
            if !lost {
                return FsError::Io;
            }
            self.lossy();
            FsError::Damaged
        };
        self.data.reader().map_err(|e| failed(e.to_string(), false))?;
        let bytes = self.bytes(at).map_err(|e| failed(e.to_string(), e.is_damage()))?;
        self.build(&info, bytes).map_err(|reason| failed(reason, true))
    }

    /// What a section's items are read from.
    fn bytes(&self, at: u32) -> Result<Vec<u8>, VykarError> {
        let (before, chunk, tail) = match self.index.read().section(at) {
            Some(section) => (section.before, section.chunk, section.tail.len()),
            None => return Ok(Vec::new()),
        };
        let mut bytes = tail_behind(&self.index, &self.data, before)?;
        if let Some(chunk) = chunk {
            bytes.extend_from_slice(&self.data.read(&chunk)?);
        }
        bytes.truncate(bytes.len().saturating_sub(tail));
        Ok(bytes)
    }

    fn build(&self, info: &Info, bytes: Vec<u8>) -> Result<Arc<Tree>, String> {
        let lines = RefCell::new(Vec::new());
        let leave_out = |path: &[u8], reason: &str| {
            let mut lines = lines.borrow_mut();
            if lines.len() < MAX_LINES {
                let (snapshot, path, reason) = (info.listed.name.clone(), path.to_vec(), reason.to_owned());
                lines.push(LogLine::ItemLeftOut { snapshot, path, reason });
            }
        };
        let mut report = leave_out;
        let top = made_up(self.owner, 0);
        let reader = self.data.reader().map_err(|e| e.to_string())?;
        let mut builder = Builder::new(top, top, reader.index(), &mut report);
        let mut failed = None;
        let mut stream = ItemStream::resume(bytes);
        // Fails only when the closure does.
        let _ = end_of_chunks(&mut stream, &mut |found| {
            match found {
                FoundItem::Item(item) => failed = builder.add(&item).err().map(|e| e.to_string()),
                FoundItem::Problem(problem) => leave_out(problem.path().as_bytes(), &problem.to_string()),
                // Said when the section was met.
                FoundItem::Lost(_) => {}
            }
            if builder.len() > MAX_VERSION_NODES as usize {
                failed = Some("a part of its items holds too many to be shown by versions".to_owned());
            }
            Ok(failed.is_none())
        });
        let tree = match failed {
            Some(reason) => return Err(reason),
            None => builder.finish().map_err(|e| e.to_string())?,
        };
        lines.into_inner().into_iter().for_each(|line| self.say(line));
        Ok(Arc::new(tree))
    }

    /// Everything that was ever in a folder.
    fn history(&self, timeline: &VersionsTimeline, folder: u32) -> Result<Arc<History>, FsError> {
        self.histories.get_or_make(&(timeline.serial, folder), || {
            let path = self.folders.read().paths.path(folder);
            let mut partial = false;
            let mut making = HistoryBuilder::new(timeline, self.repository.keys().hasher());
            let dir = {
                let index = self.index.read();
                let Some(dir) = index.dirs.follow(&path) else { return Ok(Arc::default()) };
                for below in timeline.subdirectories.of(dir) {
                    making.add_dir(index.dirs.name(*below));
                }
                dir
            };
            for section in timeline.files.of(dir) {
                match self.tree(*section) {
                    Ok(tree) => making.add_section(*section, &tree, &path).map_err(|_| FsError::Io)?,
                    // That was logged, and is looked for again later.
                    Err(FsError::Damaged) => partial = true,
                    Err(other) => return Err(other),
                }
            }
            let mut history = making.finish();
            history.partial = partial;
            Ok(Arc::new(history))
        })
    }

    /// What the snapshots' top directories allow, as far as they are stored. Reads no items.
    pub(crate) fn top_rights(&self, layout: &Layout, snapshots: &Snapshots) -> Option<Rights> {
        let mut top = self.top.lock();
        if let Some((_, rights)) = top.as_ref().filter(|(generation, _)| *generation == layout.generation) {
            return rights.clone();
        }
        let moments = moments(layout, snapshots);
        let stored = moments.iter().rev().filter(|moment| moment.info.root_is_stored);
        let rights =
            rights::meet_all(stored.map(|m| Rights::of(&m.info.root, EncodedXattrs(&m.info.root_xattrs))));
        *top = Some((layout.generation, rights.clone()));
        rights
    }

    /// What all snapshots with an item for the directory at this place, or of this name in it, allow.
    pub(crate) fn rights(
        &self,
        timeline: &VersionsTimeline,
        place: u32,
        name: Option<&[u8]>,
    ) -> Option<Rights> {
        let path = self.folders.read().paths.path(place);
        let index = self.index.read();
        let dir = index.dirs.follow(&path)?;
        let dir = name.map_or(Some(dir), |name| index.dirs.find(dir, name))?;
        timeline.rights(dir).cloned()
    }

    /// The place of the folder that has this number in inodes.
    pub(crate) fn folder(&self, number: u64) -> Result<u32, FsError> {
        match number {
            0 => Ok(TOP),
            number => self.folders.read().by_number.get(&number).copied().ok_or(FsError::Stale),
        }
    }

    /// The number in inodes of the folder at this place.
    pub(crate) fn folder_number(&self, place: u32) -> u64 {
        self.folders.read().numbers.get(place as usize).copied().unwrap_or(0)
    }

    /// The place of the folder that a folder is in; `None` for `versions` itself.
    pub(crate) fn above(&self, place: u32) -> Option<u32> {
        (place != TOP).then(|| self.folders.read().paths.parent(place))
    }

    /// The number in inodes of a folder in a folder.
    pub(crate) fn folder_below(&self, place: u32, name: &[u8]) -> Result<u64, FsError> {
        {
            let folders = self.folders.read();
            let known = folders.paths.find(place, name).and_then(|at| folders.numbers.get(at as usize));
            if let Some(number) = known {
                return Ok(*number);
            }
        }
        self.folders.write().add(place, name).ok_or(FsError::Io)
    }

    /// Gives up what can be read again.
    pub(crate) fn give_back(&self) {
        self.trees.clear();
        self.histories.clear();
    }

    /// As if [`RETRY`] had passed.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        let lossy = &mut self.clock.lock().lossy;
        *lossy = lossy.and_then(|since| since.checked_sub(RETRY));
    }

    /// As if other folders had been looked into since.
    #[cfg(test)]
    pub(crate) fn forget_trees(&mut self) {
        self.trees = Cache::keeping_one(0);
        self.histories = Cache::keeping_one(0);
    }
}

impl DueClock {
    fn advance(&mut self) {
        self.serial = self.serial.wrapping_add(1) & Layout::LAST_GENERATION;
        self.lossy = None;
    }
}

impl Folders {
    fn add(&mut self, place: u32, name: &[u8]) -> Option<u64> {
        if self.numbers.is_empty() {
            self.numbers.push(0);
        }
        let at = self.paths.add(place, name).filter(|at| *at <= PLACE_MAX)?;
        if let Some(number) = self.numbers.get(at as usize) {
            return Some(*number);
        }
        let parent = self.numbers.get(place as usize)?;
        let hash = fnv1a(&[&parent.to_le_bytes(), name].concat());
        let mut number = ((hash ^ hash >> 32) & FOLDER_MAX).max(1);
        while self.by_number.contains_key(&number) {
            number = ((number + 1) & FOLDER_MAX).max(1);
        }
        self.by_number.insert(number, at);
        self.numbers.push(number);
        Some(number)
    }
}

/// The snapshots of a layout, oldest first.
fn moments(layout: &Layout, snapshots: &Snapshots) -> Vec<Moment> {
    let moment =
        |(number, name): (u32, &[u8])| Some(Moment { info: snapshots.get(number)?, name: name.into() });
    let mut moments: Vec<_> = layout.times().filter_map(moment).collect();
    moments.sort_by_key(|moment| (moment.info.listed.time, moment.info.listed.id));
    moments
}

/// What a section leaves unfinished.
fn tail_behind(index: &RwLock<Index>, data: &Data, at: u32) -> Result<Vec<u8>, VykarError> {
    let (mut pieces, mut need, mut at) = (Vec::new(), None, at);
    loop {
        let (tail, chunk, before) = match index.read().section(at) {
            Some(section) => (section.tail.clone(), section.chunk, section.before),
            None => break,
        };
        let wanted = *need.get_or_insert(tail.len());
        let bytes = match (tail, chunk) {
            (Tail::Kept(bytes), _) => bytes::Bytes::from(bytes.into_vec()),
            (Tail::Long(_), Some(chunk)) => data.read(&chunk)?,
            (Tail::Long(_), None) => break,
        };
        let from = bytes.len().saturating_sub(wanted);
        pieces.push(bytes.slice(from..));
        let left = wanted - (bytes.len() - from);
        if left == 0 {
            break;
        }
        (need, at) = (Some(left), before);
    }
    pieces.reverse();
    Ok(pieces.concat())
}
