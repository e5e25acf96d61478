//! The snapshots that are shown, and how they come and go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use parking_lot::{Mutex, RwLock};
use vykar_core::format::Snapshot;
use vykar_core::repository::Repository;
use vykar_core::repository::objects::manifest::{Manifest, read_snapshot};
use vykar_core::{SnapshotId, StorageError, VykarError};

use crate::log::{Limiter, Log, LogLine};
use crate::tree::Meta;
use crate::view::attr_mapping::{Shown, SnapshotQuery};
use crate::view::inode::{next_snapshot_number, snapshot_number};
use crate::view::layout::{Layout, Listed, Numbers, nanos};
use crate::view::names::fnv1a;
use crate::view::template::Template;
use crate::{tree, xattr};

/// The repository is listed again when somebody looks and this has passed.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);

/// A snapshot that was found damaged is looked at again when this has passed.
const RETRY: Duration = Duration::from_secs(60);

/// Earlier layouts that are kept for listings that began in them.
const EARLIER: usize = 16;

/// A snapshot as far as it is known without its items.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) listed: Listed,
    /// Regular files, as the snapshot's counters say.
    pub(crate) files: u64,
    /// Largest chunk its files were cut into, in bytes.
    pub(crate) largest_chunk: u32,
    /// Its top directory.
    pub(crate) root: Meta,
    /// It is as it was stored, and not made up.
    pub(crate) root_is_stored: bool,
    /// That directory's attributes, see [`xattr`].
    pub(crate) root_xattrs: Vec<u8>,
    /// The shape of the tree when it was first loaded.
    pub(crate) shape: OnceLock<[usize; 3]>,
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// For directories that have no item.
pub(crate) fn made_up(owner: (u32, u32), time: i64) -> Meta {
    let mode = (libc::S_IFDIR | 0o755) as u16;
    Meta { mtime: time, atime: time, ctime: time, size: 0, uid: owner.0, gid: owner.1, mode }
}

impl Info {
    fn new(snapshot: &Snapshot, number: u32, owner: (u32, u32)) -> Self {
        let meta = &snapshot.meta;
        let (mut root, mut root_xattrs) = (made_up(owner, nanos(snapshot.time)), Vec::new());
        let stored = meta.root_item();
        let root_is_stored = stored.is_some();
        if let Some(item) = stored {
            root = tree::meta_of(&item);
            xattr::encode(&item, &mut root_xattrs, &mut |_| {});
        }
        Info {
            listed: Listed {
                id: snapshot.id,
                number,
                time: snapshot.time,
                name: meta.name.clone(),
                host: meta.hostname.clone(),
                label: snapshot.label().to_owned(),
            },
            files: meta.stats.nfiles,
            largest_chunk: meta.chunker.max,
            root,
            root_is_stored,
            root_xattrs,
            shape: OnceLock::new(),
        }
    }

    fn renumbered(&self, number: u32, shape: [usize; 3]) -> Self {
        Info {
            listed: Listed { number, ..self.listed.clone() },
            root_xattrs: self.root_xattrs.clone(),
            shape: OnceLock::from(shape),
            ..*self
        }
    }
}

/// All snapshots, by number and in folders.
pub(crate) struct Snapshots {
    repository: Arc<Repository>,
    log: Log,
    limiter: Limiter,
    zone: TimeZone,
    filter: SnapshotQuery,
    templates: Vec<Template>,
    /// The only one that is ever shown.
    only: Option<SnapshotId>,
    /// Owner of what has none.
    pub(crate) owner: (u32, u32),
    mounted: i64,
    /// Every snapshot that was ever shown: the kernel may still hold inodes of one that is gone.
    by_number: RwLock<HashMap<u32, Arc<Info>>>,
    layout: RwLock<Arc<Layout>>,
    /// Those before it, the newest last.
    earlier: Mutex<VecDeque<Arc<Layout>>>,
    numbers: RwLock<Numbers>,
    state: Mutex<ShownState>,
    /// There are snapshots that are not shown only because they could not be read just now.
    partial: AtomicBool,
}

struct ShownState {
    by_id: HashMap<SnapshotId, Arc<Info>>,
    /// Kept out by the filter. Objects do not change, so these stay so.
    left_out: HashSet<SnapshotId>,
    /// Damaged when they were read last.
    damaged: HashMap<SnapshotId, Instant>,
    /// The last look failed.
    away: bool,
    /// What the folders show.
    shown: Vec<SnapshotId>,
    refreshed: Instant,
}

impl Snapshots {
    /// Lists the repository's snapshots, or looks at the only one that is to be shown.
    pub(crate) fn load(
        repository: Arc<Repository>,
        (zone, owner): (TimeZone, (u32, u32)),
        shown: &Shown,
        log: Log,
    ) -> Result<Self, VykarError> {
        let mounted = now();
        let mut numbers = Numbers::default();
        let templates = shown.templates.clone();
        let layout = Arc::new(Layout::build(&[], &templates, &zone, mounted, &mut numbers));
        let snapshots = Snapshots {
            repository,
            log,
            limiter: Limiter::default(),
            zone,
            filter: shown.filter.clone(),
            templates,
            only: shown.top.as_ref().map(|top| top.snapshot),
            owner,
            mounted,
            by_number: RwLock::default(),
            layout: RwLock::new(layout),
            earlier: Mutex::default(),
            numbers: RwLock::new(numbers),
            state: Mutex::new(ShownState {
                by_id: HashMap::new(),
                left_out: HashSet::new(),
                damaged: HashMap::new(),
                away: false,
                shown: Vec::new(),
                refreshed: Instant::now(),
            }),
            partial: AtomicBool::new(false),
        };
        let mut lines = Vec::new();
        match snapshots.only {
            Some(id) => snapshots.load_only(&mut snapshots.state.lock(), id)?,
            None => lines = snapshots.refresh(&mut snapshots.state.lock())?,
        }
        if !snapshots.filter.is_empty() && snapshots.state.lock().shown.is_empty() {
            lines.push(LogLine::NothingMatches);
        }
        snapshots.say(lines);
        Ok(snapshots)
    }

    fn load_only(&self, state: &mut ShownState, id: SnapshotId) -> Result<(), VykarError> {
        let snapshot = match read_snapshot(&self.repository, &id) {
            Err(VykarError::Storage(StorageError::NotFound { .. })) => {
                return Err(VykarError::SnapshotNotFound { wanted: id.to_string() });
            }
            other => other?,
        };
        self.add(state, &snapshot);
        state.shown = vec![id];
        Ok(())
    }

    /// The only snapshot that is shown, where there is one.
    pub(crate) fn only(&self) -> Option<Arc<Info>> {
        self.state.lock().by_id.get(&self.only?).cloned()
    }

    /// The folders, after looking for new and vanished snapshots if that is due.
    pub(crate) fn layout(&self) -> Arc<Layout> {
        // Whoever comes while another looks takes what there is.
        if self.only.is_none()
            && let Some(mut state) = self.state.try_lock()
            && state.refreshed.elapsed() >= REFRESH
        {
            let refreshed = self.refresh(&mut state);
            let was_away = std::mem::replace(&mut state.away, refreshed.is_err());
            drop(state);
            match refreshed {
                Ok(lines) => self.say(lines),
                Err(e) => self.say(vec![LogLine::OutOfReach {
                    reason: match e {
                        VykarError::OutOfReach { .. } => e.to_string(),
                        other => format!("the list of snapshots is out of reach: {other}"),
                    },
                }]),
            }
            if was_away && !self.state.lock().away {
                (self.log)(LogLine::InReachAgain);
            }
        }
        self.known_layout()
    }

    /// True when a folder may have more snapshots than it shows, which could not be read.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Relaxed)
    }

    /// The folders as they are known now.
    pub(crate) fn known_layout(&self) -> Arc<Layout> {
        self.layout.read().clone()
    }

    /// The folders as they were in a generation, or as they are where that is long gone.
    pub(crate) fn earlier_layout(&self, generation: u32) -> Arc<Layout> {
        let current = self.layout.read().clone();
        if current.generation == generation {
            return current;
        }
        let earlier = self.earlier.lock();
        earlier.iter().find(|layout| layout.generation == generation).cloned().unwrap_or(current)
    }

    fn say(&self, lines: Vec<LogLine>) {
        for line in lines {
            if self.limiter.allows(fnv1a(line.to_string().as_bytes())) {
                (self.log)(line);
            }
        }
    }

    /// The next call of [`Snapshots::layout`] looks again.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        self.state.lock().refreshed = Instant::now().checked_sub(REFRESH).unwrap();
    }

    /// A snapshot by its number.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Info>> {
        self.by_number.read().get(&number).cloned()
    }

    /// The folder that the `latest` with this number is in, and where it points.
    pub(crate) fn latest(&self, number: u32) -> Option<(u32, Vec<u8>)> {
        self.numbers.read().latest(number).map(|(folder, target)| (folder, target.as_bytes().to_vec()))
    }

    /// Regular files of all snapshots together.
    pub(crate) fn files(&self) -> u64 {
        let state = self.state.lock();
        let counts = state.shown.iter().filter_map(|id| state.by_id.get(id)).map(|info| info.files);
        counts.fold(0, u64::saturating_add)
    }

    /// Gives a snapshot another number, whose inodes the kernel has never seen: its items read
    /// differently than before, so that the old ones may now be other files.
    /// `shape` is that of its tree from now on. Returns the number.
    pub(crate) fn renumber(&self, info: &Info, shape: [usize; 3]) -> u32 {
        let mut state = self.state.lock();
        self.by_number.write().remove(&info.listed.number);
        let number = self.free_number(next_snapshot_number(info.listed.number));
        let fresh = Arc::new(info.renumbered(number, shape));
        self.by_number.write().insert(number, fresh.clone());
        state.by_id.insert(info.listed.id, fresh);
        self.build(&state);
        number
    }

    fn free_number(&self, wanted: u32) -> u32 {
        let taken = self.by_number.read();
        let mut number = wanted;
        while taken.contains_key(&number) {
            number = next_snapshot_number(number);
        }
        number
    }

    /// Lists the snapshots again; returns what is to be logged when no lock is held. Where they are out of reach everything
    /// stays as it was.
    fn refresh(&self, state: &mut ShownState) -> Result<Vec<LogLine>, VykarError> {
        state.refreshed = Instant::now();
        let ids = Manifest::ids(&self.repository)?;
        let is_first = state.by_id.is_empty() && state.left_out.is_empty();
        let is_gone = |id: &SnapshotId| ids.binary_search(id).is_err();
        if ids.is_empty() && (is_first || !state.shown.is_empty()) {
            self.repository.check_all_deleted()?;
        } else if state.shown.iter().any(is_gone) {
            self.repository.check_reach()?;
        }
        let (mut lines, mut shown, mut partial) = (Vec::new(), Vec::with_capacity(ids.len()), false);
        for id in ids {
            match self.look_at(state, &id)? {
                Ok(true) => shown.push(id),
                Ok(false) => {}
                Err(error) => {
                    partial |= !error.is_damage();
                    if error.is_damage() {
                        state.damaged.insert(id, Instant::now());
                    }
                    lines.push(LogLine::SnapshotUnusable { snapshot: id, reason: error.to_string() });
                }
            }
        }
        self.partial.store(partial, Ordering::Relaxed);
        if shown != state.shown {
            state.shown = shown;
            self.build(state);
        }
        Ok(lines)
    }

    /// True when this snapshot is to be shown. The inner error is one of this snapshot alone.
    fn look_at(
        &self,
        state: &mut ShownState,
        id: &SnapshotId,
    ) -> Result<Result<bool, VykarError>, VykarError> {
        if state.by_id.contains_key(id) {
            return Ok(Ok(true));
        }
        let damaged = state.damaged.get(id).is_some_and(|when| when.elapsed() < RETRY);
        if damaged || state.left_out.contains(id) {
            return Ok(Ok(false));
        }
        match read_snapshot(&self.repository, id) {
            Ok(snapshot) if self.filter.allows(&snapshot) => {
                self.add(state, &snapshot);
                Ok(Ok(true))
            }
            Ok(_) => {
                state.left_out.insert(*id);
                Ok(Ok(false))
            }
            // Deleted since it was listed, if it is not listed any more.
            Err(VykarError::Storage(StorageError::NotFound { .. })) => {
                self.repository.check_deleted(id).map(|()| Ok(false))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn add(&self, state: &mut ShownState, snapshot: &Snapshot) {
        let number = self.free_number(snapshot_number(&snapshot.id));
        let info = Arc::new(Info::new(snapshot, number, self.owner));
        self.by_number.write().insert(number, info.clone());
        state.by_id.insert(snapshot.id, info);
    }

    fn build(&self, state: &ShownState) {
        let shown = state.shown.iter().filter_map(|id| state.by_id.get(id));
        let mut listed: Vec<Listed> = shown.map(|info| info.listed.clone()).collect();
        listed.sort_by_key(|s| (s.time, s.id));
        let mut numbers = self.numbers.write();
        let mut layout = Layout::build(&listed, &self.templates, &self.zone, self.mounted, &mut numbers);
        drop(numbers);
        let before = self.layout.read().clone();
        if before.generation == 0 {
            // The empty layout of the beginning was never shown.
            layout.generation = 1;
        } else {
            layout.follow(&before, now());
            let mut earlier = self.earlier.lock();
            earlier.push_back(before);
            if earlier.len() > EARLIER {
                earlier.pop_front();
            }
        }
        *self.layout.write() = Arc::new(layout);
    }
}
