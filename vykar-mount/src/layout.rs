//! The folders above the snapshots.
//!
//! ```text
//! ids/NAME               every snapshot by its name
//! snapshots/TIME         every snapshot by its begin, in local time
//! hosts/HOST/TIME        likewise, those of one host
//! labels/LABEL/TIME      likewise, those of one label
//! ```
//!
//! Each folder of TIMEs has a `latest`, a symlink to the newest. A layout is immutable; when the
//! repository's snapshots change, another is built.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vykar_core::SnapshotId;

use crate::inode::View;
use crate::names::{fnv1a, folder_name};

/// Name of the symlink to the newest snapshot.
pub const LATEST: &str = "latest";

const ROOT: u32 = crate::inode::ROOT as u32;
const IDS: u32 = 2;
const TIMES: u32 = 3;
const HOSTS: u32 = 4;
const LABELS: u32 = 5;
/// Numbers from here on are given out by [`Numbers`].
const FIRST_FREE: u32 = 1024;

/// What a layout needs to know of a snapshot.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: SnapshotId,
    /// Its number in inodes.
    pub number: u32,
    /// When it began.
    pub time: Timestamp,
    /// What people type.
    pub name: String,
    /// Where it was taken.
    pub host: String,
    /// What people call it.
    pub label: String,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A folder of this layout.
    Folder(u32),
    /// The root of the snapshot with this number.
    Snapshot(u32),
    /// A `latest`, under its own inode number.
    Latest(u32),
}

/// A folder.
#[derive(Debug)]
pub struct Folder {
    /// The folder above it.
    pub parent: u32,
    /// Which view its snapshots belong to; of no meaning where it has none.
    pub view: View,
    /// Begin of the newest snapshot in or below it, or when its entries were seen to change, in nanoseconds
    /// since the epoch.
    pub mtime: i64,
    /// Its entries, sorted by name.
    pub entries: Vec<(Box<[u8]>, Target)>,
}

impl Folder {
    fn new(parent: u32, view: View, mtime: i64) -> Self {
        Folder { parent, view, mtime, entries: Vec::new() }
    }

    /// Finds an entry.
    pub fn lookup(&self, name: &[u8]) -> Option<Target> {
        let at = self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name)).ok()?;
        Some(self.entries[at].1)
    }

    /// How many folders and snapshots it has.
    pub fn subdirectories(&self) -> usize {
        self.entries.iter().filter(|(_, target)| !matches!(target, Target::Latest(_))).count()
    }

    fn add(&mut self, name: &str, target: Target) {
        self.entries.push((name.as_bytes().into(), target));
    }
}

/// Inode numbers of folders and symlinks, the same for the same thing as long as the file system is
/// mounted, and nearly always over mounts.
///
/// A `latest` that points elsewhere gets another number: the kernel never asks again for the target
/// of a symlink that it has cached.
#[derive(Debug, Default)]
pub struct Numbers {
    numbers: HashMap<Key, u32>,
    keys: HashMap<u32, Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Folder(u32, String),
    Latest(u32, String),
}

impl Numbers {
    fn of(&mut self, key: Key) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let (kind, parent, name) = match &key {
            Key::Folder(parent, name) => (0u8, parent, name),
            Key::Latest(parent, name) => (1u8, parent, name),
        };
        let hash = fnv1a(&[&[kind], &parent.to_le_bytes()[..], name.as_bytes()].concat());
        let mut number = ((hash ^ hash >> 32) as u32).max(FIRST_FREE);
        while self.keys.contains_key(&number) {
            number = number.checked_add(1).unwrap_or(FIRST_FREE);
        }
        self.numbers.insert(key.clone(), number);
        self.keys.insert(number, key);
        number
    }

    /// The folder that the `latest` with this number is in, and where it points.
    pub fn latest(&self, number: u32) -> Option<(u32, &str)> {
        match self.keys.get(&number)? {
            Key::Latest(folder, target) => Some((*folder, target)),
            Key::Folder(..) => None,
        }
    }
}

/// A place in the listing of a folder: which layout the listing began in, and how many entries are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// [`Layout::generation`], 31 bits.
    pub generation: u32,
    /// Entries.
    pub at: u32,
}

impl Position {
    /// The number for a directory's offset; never negative as a signed one.
    pub fn encode(self) -> u64 {
        u64::from(self.generation & Layout::LAST_GENERATION) << 32 | u64::from(self.at)
    }

    /// Takes an offset apart.
    pub fn decode(offset: u64) -> Self {
        Position { generation: (offset >> 32) as u32 & Layout::LAST_GENERATION, at: offset as u32 }
    }
}

/// All folders.
#[derive(Debug)]
pub struct Layout {
    /// Number of this layout among those of a mount.
    pub generation: u32,
    folders: HashMap<u32, Folder>,
    /// Where the root of a snapshot is in a view.
    homes: HashMap<(u32, View), u32>,
}

impl Layout {
    /// The largest [`Layout::generation`]; 0 follows.
    pub const LAST_GENERATION: u32 = i32::MAX as u32;

    /// Makes this the layout after `before`. A folder whose entries changed gets the time `now`, in
    /// nanoseconds since the epoch, or a later one: the kernel takes a listing for unchanged as long as its
    /// folder's time is.
    pub fn follow(&mut self, before: &Layout, now: i64) {
        self.generation = before.generation.wrapping_add(1) & Self::LAST_GENERATION;
        for (number, folder) in &mut self.folders {
            let Some(old) = before.folders.get(number) else { continue };
            let same = old.entries == folder.entries;
            folder.mtime = if same { old.mtime } else { now.max(old.mtime.saturating_add(1)) };
        }
    }

    /// The folder with this inode number.
    pub fn folder(&self, number: u32) -> Option<&Folder> {
        self.folders.get(&number)
    }

    /// The folder that shows a snapshot in a view, or the root when it is gone.
    pub fn home(&self, snapshot: u32, view: View) -> u32 {
        self.homes.get(&(snapshot, view)).copied().unwrap_or(ROOT)
    }

    /// Builds the folders. `snapshots` are sorted by begin, then id; `empty_mtime` is the time of
    /// folders that have none, in nanoseconds since the epoch.
    pub fn build(snapshots: &[Listed], zone: &TimeZone, empty_mtime: i64, numbers: &mut Numbers) -> Self {
        let newest = snapshots.last().map_or(empty_mtime, |s| nanos(s.time));
        let mut root = Folder::new(ROOT, View::Ids, newest);
        let mut layout = Layout { generation: 0, folders: HashMap::new(), homes: HashMap::new() };
        for (name, number) in [("hosts", HOSTS), ("ids", IDS), ("labels", LABELS), ("snapshots", TIMES)] {
            root.add(name, Target::Folder(number));
        }
        layout.folders.insert(ROOT, root);
        layout.add_ids(snapshots, newest);
        let all: Vec<&Listed> = snapshots.iter().collect();
        layout.add_times(TIMES, ROOT, View::Times, &all, zone, newest, numbers);
        for (parent, view, group) in [
            (HOSTS, View::Hosts, (|s| &s.host) as fn(&Listed) -> &String),
            (LABELS, View::Labels, |s| &s.label),
        ] {
            let mut groups: BTreeMap<String, Vec<&Listed>> = BTreeMap::new();
            for snapshot in snapshots {
                groups.entry(folder_name(group(snapshot), 0)).or_default().push(snapshot);
            }
            let mut folder = Folder::new(ROOT, view, newest);
            for (name, members) in groups {
                let number = numbers.of(Key::Folder(parent, name.clone()));
                folder.add(&name, Target::Folder(number));
                layout.add_times(number, parent, view, &members, zone, newest, numbers);
            }
            layout.folders.insert(parent, folder);
        }
        for folder in layout.folders.values_mut() {
            folder.entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        layout
    }

    /// Snapshots that share a name all get a piece of their id behind it, so that none hides another.
    fn add_ids(&mut self, snapshots: &[Listed], mtime: i64) {
        let mut count: HashMap<&str, usize> = HashMap::new();
        for snapshot in snapshots {
            *count.entry(&snapshot.name).or_default() += 1;
        }
        let alone = |s: &Listed| count.get(s.name.as_str()) == Some(&1);
        let mut folder = Folder::new(ROOT, View::Ids, mtime);
        let mut used: HashSet<String> = HashSet::new();
        // Those with a name of their own come first: no suffix takes it from them.
        for snapshot in snapshots.iter().filter(|s| alone(s)).chain(snapshots.iter().filter(|s| !alone(s))) {
            let id = snapshot.id.to_string();
            let suffixes = [0, 8, 16, 32, 64].into_iter().skip(usize::from(!alone(snapshot)));
            let names = suffixes.map(|digits| match digits {
                0 => folder_name(&snapshot.name, 0),
                n => format!("{}-{}", folder_name(&snapshot.name, n + 1), &id[..n]),
            });
            // The whole id is unique, so this finds one.
            for name in names {
                if used.insert(name.clone()) {
                    folder.add(&name, Target::Snapshot(snapshot.number));
                    break;
                }
            }
            self.homes.insert((snapshot.number, View::Ids), IDS);
        }
        self.folders.insert(IDS, folder);
    }

    #[allow(clippy::too_many_arguments)]
    fn add_times(
        &mut self,
        number: u32,
        parent: u32,
        view: View,
        snapshots: &[&Listed],
        zone: &TimeZone,
        empty_mtime: i64,
        numbers: &mut Numbers,
    ) {
        let mtime = snapshots.last().map_or(empty_mtime, |s| nanos(s.time));
        let mut folder = Folder::new(parent, view, mtime);
        let mut used: HashMap<String, u32> = HashMap::new();
        let mut last = None;
        for snapshot in snapshots {
            let time = time_name(snapshot.time, zone);
            let times = used.entry(time.clone()).or_default();
            *times += 1;
            let name = if *times == 1 { time } else { format!("{time}-{times}") };
            folder.add(&name, Target::Snapshot(snapshot.number));
            self.homes.insert((snapshot.number, view), number);
            last = Some(name);
        }
        if let Some(target) = last {
            folder.add(LATEST, Target::Latest(numbers.of(Key::Latest(number, target))));
        }
        self.folders.insert(number, folder);
    }
}

/// `2026-11-22T07-32-36`: sorts by time, and needs no quotes and no escapes.
fn time_name(time: Timestamp, zone: &TimeZone) -> String {
    let t = time.to_zoned(zone.clone()).datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}-{:02}-{:02}",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Nanoseconds since the epoch, as far as 64 bits reach.
pub fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(n: u8, time: &str, name: &str, host: &str, label: &str) -> Listed {
        Listed {
            id: SnapshotId([n; 32]),
            number: n.into(),
            time: time.parse().unwrap(),
            name: name.into(),
            host: host.into(),
            label: label.into(),
        }
    }

    fn names(layout: &Layout, folder: u32) -> Vec<String> {
        let folder = layout.folder(folder).unwrap();
        folder.entries.iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect()
    }

    fn sub(layout: &Layout, folder: u32, name: &str) -> u32 {
        match layout.folder(folder).unwrap().lookup(name.as_bytes()) {
            Some(Target::Folder(number) | Target::Latest(number) | Target::Snapshot(number)) => number,
            None => panic!("no {name}"),
        }
    }

    fn sample() -> Vec<Listed> {
        vec![
            listed(1, "2026-11-22T06:32:36Z", "aaaaaaaa", "web", "docs"),
            listed(2, "2026-11-22T06:32:36.5Z", "bbbbbbbb", "db", ""),
            listed(3, "2026-11-23T00:00:00Z", "bbbbbbbb", "web", "a/b"),
        ]
    }

    #[test]
    fn every_view_shows_every_snapshot() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut numbers = Numbers::default();
        let layout = Layout::build(&sample(), &zone, 0, &mut numbers);
        assert_eq!(names(&layout, ROOT), ["hosts", "ids", "labels", "snapshots"]);
        assert_eq!(names(&layout, IDS), ["aaaaaaaa", "bbbbbbbb-02020202", "bbbbbbbb-03030303"]);
        assert_eq!(
            names(&layout, TIMES),
            ["2026-11-22T07-32-36", "2026-11-22T07-32-36-2", "2026-11-23T01-00-00", "latest"]
        );
        assert_eq!(names(&layout, HOSTS), ["db", "web"]);
        assert_eq!(names(&layout, LABELS), ["%", "a%2Fb", "docs"]);
        let web = sub(&layout, HOSTS, "web");
        assert_eq!(names(&layout, web), ["2026-11-22T07-32-36", "2026-11-23T01-00-00", "latest"]);
        assert_eq!(numbers.latest(sub(&layout, web, "latest")), Some((web, "2026-11-23T01-00-00")));
        assert_eq!((layout.home(1, View::Hosts), layout.home(9, View::Ids)), (web, ROOT));
        assert_eq!(layout.folder(sub(&layout, HOSTS, "db")).unwrap().mtime, nanos(sample()[1].time));
    }

    #[test]
    fn an_empty_repository_has_empty_folders() {
        let layout = Layout::build(&[], &TimeZone::UTC, 5, &mut Numbers::default());
        for folder in [IDS, TIMES, HOSTS, LABELS] {
            assert_eq!(names(&layout, folder), [""; 0]);
            assert_eq!(layout.folder(folder).unwrap().mtime, 5);
        }
    }

    #[test]
    fn numbers_stay_and_a_latest_that_moves_gets_another() {
        let mut numbers = Numbers::default();
        let before = Layout::build(&sample()[..2], &TimeZone::UTC, 0, &mut numbers);
        let old_latest = sub(&before, TIMES, "latest");
        let after = Layout::build(&sample(), &TimeZone::UTC, 0, &mut numbers);
        assert_eq!(sub(&before, HOSTS, "web"), sub(&after, HOSTS, "web"));
        assert_ne!(old_latest, sub(&after, TIMES, "latest"));
        assert_eq!(numbers.latest(old_latest), Some((TIMES, "2026-11-22T06-32-36-2")));
        let again = Layout::build(&sample(), &TimeZone::UTC, 0, &mut Numbers::default());
        assert_eq!(sub(&again, HOSTS, "web"), sub(&after, HOSTS, "web"));
    }

    #[test]
    fn the_time_of_a_folder_changes_when_its_entries_do() {
        let mut numbers = Numbers::default();
        let before = Layout::build(&sample()[..2], &TimeZone::UTC, 0, &mut numbers);
        let mut after = Layout::build(&sample()[..1], &TimeZone::UTC, 0, &mut numbers);
        after.follow(&before, 77);
        let time = |layout: &Layout, folder| layout.folder(folder).unwrap().mtime;
        assert_eq!(time(&after, TIMES), time(&before, TIMES) + 1, "a clock that runs behind");
        assert_eq!(time(&after, ROOT), time(&before, ROOT));
        let web = sub(&before, HOSTS, "web");
        assert_eq!(time(&after, web), time(&before, web));
        let now = i64::MAX - 1;
        let mut last = Layout::build(&sample(), &TimeZone::UTC, 0, &mut numbers);
        last.follow(&after, now);
        assert_eq!((time(&last, TIMES), time(&last, web), last.generation), (now, now, 2));
    }

    #[test]
    fn positions_round_trip() {
        for (generation, at) in [(0, 0), (1, 2), (Layout::LAST_GENERATION, u32::MAX)] {
            let position = Position { generation, at };
            assert_eq!(Position::decode(position.encode()), position);
            assert!(i64::try_from(position.encode()).is_ok());
        }
    }

    #[test]
    fn a_name_that_looks_like_a_suffixed_one_is_kept_apart() {
        let snapshots = [
            listed(1, "2026-01-01T00:00:00Z", "x", "h", ""),
            listed(2, "2026-01-02T00:00:00Z", "x", "h", ""),
            listed(3, "2026-01-03T00:00:00Z", "x-01010101", "h", ""),
        ];
        let layout = Layout::build(&snapshots, &TimeZone::UTC, 0, &mut Numbers::default());
        assert_eq!(names(&layout, IDS), ["x-01010101", "x-0101010101010101", "x-02020202"]);
        assert_eq!(sub(&layout, IDS, "x-01010101"), 3);
    }
}
