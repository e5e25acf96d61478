//! The folders above the snapshots.
//!
//! ```text
//! ids/NAME               every snapshot by its name
//! snapshots/TIME         every snapshot by its begin, in local time
//! hosts/HOST/TIME        likewise, those of one host
//! labels/LABEL/TIME      likewise, those of one label
//! versions               what is in it is not made here, see [`crate::versions`]
//! ```
//!
//! Or what path templates say instead. Each folder of snapshots but `ids` has a `latest`, a symlink to
//! the newest. A layout is immutable; when the repository's snapshots change, another is built.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vykar_core::SnapshotId;

use crate::view::inode::View;
use crate::view::names::{fnv1a, folder_name};
use crate::view::template::Template;

pub(crate) mod fuzz;

/// Name of the symlink to the newest snapshot.
pub const LATEST: &str = "latest";

/// Name of the usual folder of snapshots by time.
pub const TIMES: &str = "snapshots";

const ROOT: u32 = crate::view::inode::ROOT as u32;
const IDS: u32 = 2;
/// Numbers from here on are given out by [`Numbers`].
const FIRST_FREE: u32 = 1024;
/// Room for what tells two names apart: `-` and a number.
const SUFFIX: usize = 11;
/// Time of a folder while no snapshot in it is known.
const UNKNOWN: i64 = i64::MIN;

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
pub enum LayoutTarget {
    /// A folder of this layout.
    Folder(u32),
    /// The root of the snapshot with this number, in this view.
    Snapshot(u32, View),
    /// A `latest`, under its own inode number.
    Latest(u32),
    /// The folder of versions.
    Versions,
}

/// A folder.
#[derive(Debug)]
pub struct LayoutFolder {
    /// The folder above it.
    pub parent: u32,
    /// Begin of the newest snapshot in or below it, or when its entries were seen to change, in nanoseconds
    /// since the epoch.
    pub mtime: i64,
    /// Its entries, sorted by name.
    pub entries: Vec<(Box<[u8]>, LayoutTarget)>,
}

impl LayoutFolder {
    fn new(parent: u32, mtime: i64) -> Self {
        LayoutFolder { parent, mtime, entries: Vec::new() }
    }

    /// Finds an entry.
    pub fn lookup(&self, name: &[u8]) -> Option<LayoutTarget> {
        let at = self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name)).ok()?;
        Some(self.entries[at].1)
    }

    /// How many folders and snapshots it has.
    pub fn subdirectories(&self) -> usize {
        self.entries.iter().filter(|(_, target)| !matches!(target, LayoutTarget::Latest(_))).count()
    }

    fn add(&mut self, name: &str, target: LayoutTarget) {
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
    numbers: HashMap<LayoutKey, u32>,
    keys: HashMap<u32, LayoutKey>,
    /// What the snapshots of the last layout are called, by folder and view: a name must not become another
    /// snapshot's while that one is there.
    names: HashMap<Called, String>,
}

/// A snapshot in a folder.
type Called = (u32, View, SnapshotId);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LayoutKey {
    Folder(u32, String),
    Latest(u32, String),
}

impl Numbers {
    fn of(&mut self, key: LayoutKey) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let (kind, parent, name) = match &key {
            LayoutKey::Folder(parent, name) => (0u8, parent, name),
            LayoutKey::Latest(parent, name) => (1u8, parent, name),
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
            LayoutKey::Latest(folder, target) => Some((*folder, target)),
            LayoutKey::Folder(..) => None,
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
    folders: HashMap<u32, LayoutFolder>,
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
    pub fn folder(&self, number: u32) -> Option<&LayoutFolder> {
        self.folders.get(&number)
    }

    /// The usual folder of all snapshots by time: their numbers and names.
    pub fn times(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let times = match self.folder(ROOT).and_then(|root| root.lookup(TIMES.as_bytes())) {
            Some(LayoutTarget::Folder(number)) => self.folder(number),
            _ => None,
        };
        let entries = times.into_iter().flat_map(|folder| &folder.entries);
        entries.filter_map(|(name, target)| match target {
            LayoutTarget::Snapshot(number, View::Times) => Some((*number, &**name)),
            _ => None,
        })
    }

    /// When the snapshots that the usual folders show changed last, in nanoseconds since the epoch.
    pub fn changed(&self) -> i64 {
        self.folder(IDS).map_or(0, |folder| folder.mtime)
    }

    /// The folder that shows a snapshot in a view, or the root when it is gone.
    pub fn home(&self, snapshot: u32, view: View) -> u32 {
        self.homes.get(&(snapshot, view)).copied().unwrap_or(ROOT)
    }

    /// Builds the folders that the templates say, the usual ones where there are none. `snapshots` are
    /// sorted by begin, then id; `empty_mtime` is the time of folders that have none, in nanoseconds
    /// since the epoch.
    pub fn build(
        snapshots: &[Listed],
        templates: &[Template],
        zone: &TimeZone,
        empty_mtime: i64,
        numbers: &mut Numbers,
    ) -> Self {
        let newest = snapshots.last().map_or(empty_mtime, |s| nanos(s.time));
        let mut layout = Layout { generation: 0, folders: HashMap::new(), homes: HashMap::new() };
        layout.folders.insert(ROOT, LayoutFolder::new(ROOT, newest));
        let known = std::mem::take(&mut numbers.names);
        let mut making = LayoutBuilder { layout, numbers, known, used: HashMap::new() };
        if templates.is_empty() {
            making.add_ids(snapshots, newest);
            let views = [View::Times, View::Hosts, View::Labels];
            let standard = Template::standard();
            making.add(snapshots, &views.into_iter().zip(&standard).collect::<Vec<_>>(), zone);
        } else {
            making.add(snapshots, &View::ALL.into_iter().zip(templates).collect::<Vec<_>>(), zone);
        }
        let mut layout = making.layout;
        for folder in layout.folders.values_mut() {
            folder.mtime = if folder.mtime == UNKNOWN { empty_mtime } else { folder.mtime };
            folder.entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        layout
    }
}

/// A layout that is being built by templates.
struct LayoutBuilder<'n> {
    layout: Layout,
    numbers: &'n mut Numbers,
    /// The names in the layout before.
    known: HashMap<Called, String>,
    /// Names that are taken in a folder, and the last number that was tried behind each.
    used: HashMap<(u32, String), u32>,
}

impl LayoutBuilder<'_> {
    /// Snapshots that share a name all get a piece of their id behind it, so that none hides another. Those that
    /// have a name already keep it.
    fn add_ids(&mut self, snapshots: &[Listed], mtime: i64) {
        let mut count: HashMap<&str, usize> = HashMap::new();
        for snapshot in snapshots {
            *count.entry(&snapshot.name).or_default() += 1;
        }
        let alone = |s: &Listed| count.get(s.name.as_str()) == Some(&1);
        let rank = |s: &&Listed| (!self.known.contains_key(&(IDS, View::Ids, s.id)), !alone(s));
        let mut order: Vec<&Listed> = snapshots.iter().collect();
        // Those with a name of their own come before the rest: no suffix takes it from them.
        order.sort_by_key(rank);
        let mut folder = LayoutFolder::new(ROOT, mtime);
        let mut used: HashSet<String> = HashSet::new();
        for snapshot in order {
            let id = snapshot.id.to_string();
            let called = (IDS, View::Ids, snapshot.id);
            let suffixes = [0, 8, 16, 32, 64].into_iter().skip(usize::from(!alone(snapshot)));
            let names = suffixes.map(|digits| match digits {
                0 => folder_name(&snapshot.name, 0),
                n => format!("{}-{}", folder_name(&snapshot.name, n + 1), &id[..n]),
            });
            // The whole id is unique, so this finds one.
            for name in self.known.remove(&called).into_iter().chain(names) {
                if used.insert(name.clone()) {
                    folder.add(&name, LayoutTarget::Snapshot(snapshot.number, View::Ids));
                    self.numbers.names.insert(called, name);
                    break;
                }
            }
            self.layout.homes.insert((snapshot.number, View::Ids), IDS);
        }
        self.layout.folders.insert(IDS, folder);
        if let Some(root) = self.layout.folders.get_mut(&ROOT) {
            root.add("ids", LayoutTarget::Folder(IDS));
            root.add("versions", LayoutTarget::Versions);
        }
    }

    fn add(&mut self, snapshots: &[Listed], views: &[(View, &Template)], zone: &TimeZone) {
        // All folders come first: no snapshot takes the name of one.
        let mut placed = Vec::new();
        for snapshot in snapshots {
            for (view, template) in views {
                let mut path = template.names(snapshot, zone);
                let Some(name) = path.pop() else { continue };
                let folder = self.folder(&path, nanos(snapshot.time));
                placed.push((folder, name, snapshot, *view));
            }
        }
        for (_, template) in views {
            self.folder(&template.fixed(), UNKNOWN);
        }
        // Whoever has a name keeps it, unless a folder needs it.
        let kept: Vec<_> = placed.iter().map(|(at, _, s, view)| self.keep_name((*at, *view, s.id))).collect();
        let mut newest: HashMap<u32, String> = HashMap::new();
        for ((number, wanted, snapshot, view), kept) in placed.into_iter().zip(kept) {
            let name = kept.unwrap_or_else(|| self.free_name(number, &wanted));
            self.numbers.names.insert((number, view, snapshot.id), name.clone());
            if let Some(folder) = self.layout.folders.get_mut(&number) {
                folder.add(&name, LayoutTarget::Snapshot(snapshot.number, view));
            }
            self.layout.homes.insert((snapshot.number, view), number);
            newest.insert(number, name);
        }
        for (number, target) in newest {
            self.add_latest(number, target);
        }
    }

    /// The folder at a path, made where it is not there, and no older than `mtime`.
    fn folder(&mut self, path: &[String], mtime: i64) -> u32 {
        let mut at = ROOT;
        for name in path {
            let name = folder_name(name, 0);
            let number = self.numbers.of(LayoutKey::Folder(at, name.clone()));
            if let Some(folder) = self.layout.folders.get_mut(&number) {
                folder.mtime = folder.mtime.max(mtime);
            } else {
                self.layout.folders.insert(number, LayoutFolder::new(at, mtime));
                if let Some(above) = self.layout.folders.get_mut(&at) {
                    above.add(&name, LayoutTarget::Folder(number));
                }
                self.used.insert((at, name), 1);
            }
            at = number;
        }
        at
    }

    fn keep_name(&mut self, called: Called) -> Option<String> {
        let name = self.known.remove(&called)?;
        let key = (called.0, name);
        if self.used.contains_key(&key) {
            return None;
        }
        self.used.insert(key.clone(), 1);
        Some(key.1)
    }

    /// A name that nothing else in a folder has: the first keeps it, the next get `-2`, `-3`.
    fn free_name(&mut self, folder: u32, wanted: &str) -> String {
        let name = folder_name(wanted, 0);
        let key = (folder, name);
        let mut tried = match self.used.get(&key) {
            None if key.1 != LATEST => {
                self.used.insert(key.clone(), 1);
                return key.1;
            }
            tried => tried.copied().unwrap_or(1),
        };
        loop {
            tried = tried.saturating_add(1);
            let name = format!("{}-{tried}", folder_name(wanted, SUFFIX));
            if !self.used.contains_key(&(folder, name.clone())) {
                self.used.insert((folder, name.clone()), 1);
                self.used.insert(key, tried);
                return name;
            }
        }
    }

    fn add_latest(&mut self, number: u32, target: String) {
        let Some(folder) = self.layout.folders.get_mut(&number) else { return };
        // Another template may have made a folder of this name.
        if folder.entries.iter().all(|(name, _)| **name != *LATEST.as_bytes()) {
            folder.add(LATEST, LayoutTarget::Latest(self.numbers.of(LayoutKey::Latest(number, target))));
        }
    }
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
            Some(
                LayoutTarget::Folder(number)
                | LayoutTarget::Latest(number)
                | LayoutTarget::Snapshot(number, _),
            ) => number,
            Some(LayoutTarget::Versions) | None => panic!("no {name}"),
        }
    }

    fn sample() -> Vec<Listed> {
        vec![
            listed(1, "2026-11-22T06:32:36Z", "aaaaaaaa", "web", "docs"),
            listed(2, "2026-11-22T06:32:36.5Z", "bbbbbbbb", "db", ""),
            listed(3, "2026-11-23T00:00:00Z", "bbbbbbbb", "web", "a/b"),
        ]
    }

    fn usual(snapshots: &[Listed], zone: &TimeZone, numbers: &mut Numbers) -> Layout {
        Layout::build(snapshots, &[], zone, 5, numbers)
    }

    #[test]
    fn every_view_shows_every_snapshot() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut numbers = Numbers::default();
        let layout = usual(&sample(), &zone, &mut numbers);
        assert_eq!(names(&layout, ROOT), ["hosts", "ids", "labels", "snapshots", "versions"]);
        assert_eq!(names(&layout, IDS), ["aaaaaaaa", "bbbbbbbb-02020202", "bbbbbbbb-03030303"]);
        let [hosts, labels, times] = ["hosts", "labels", "snapshots"].map(|name| sub(&layout, ROOT, name));
        assert_eq!(
            names(&layout, times),
            ["2026-11-22T07-32-36", "2026-11-22T07-32-36-2", "2026-11-23T01-00-00", "latest"]
        );
        assert_eq!(names(&layout, hosts), ["db", "web"]);
        assert_eq!(names(&layout, labels), ["%", "a%2Fb", "docs"]);
        let web = sub(&layout, hosts, "web");
        assert_eq!(names(&layout, web), ["2026-11-22T07-32-36", "2026-11-23T01-00-00", "latest"]);
        assert_eq!(numbers.latest(sub(&layout, web, "latest")), Some((web, "2026-11-23T01-00-00")));
        assert_eq!((layout.home(1, View::Hosts), layout.home(9, View::Ids)), (web, ROOT));
        let mtime = |folder| layout.folder(folder).unwrap().mtime;
        assert_eq!(mtime(sub(&layout, hosts, "db")), nanos(sample()[1].time));
        assert_eq!([times, hosts, ROOT].map(mtime), [nanos(sample()[2].time); 3]);
    }

    #[test]
    fn an_empty_repository_has_empty_folders() {
        let layout = usual(&[], &TimeZone::UTC, &mut Numbers::default());
        for folder in ["ids", "snapshots", "hosts", "labels"].map(|name| sub(&layout, ROOT, name)) {
            assert_eq!(names(&layout, folder), [""; 0]);
            assert_eq!(layout.folder(folder).unwrap().mtime, 5);
        }
    }

    #[test]
    fn numbers_stay_and_a_latest_that_moves_gets_another() {
        let mut numbers = Numbers::default();
        let before = usual(&sample()[..2], &TimeZone::UTC, &mut numbers);
        let times = sub(&before, ROOT, "snapshots");
        let old_latest = sub(&before, times, "latest");
        let after = usual(&sample(), &TimeZone::UTC, &mut numbers);
        let hosts = sub(&before, ROOT, "hosts");
        assert_eq!(sub(&before, hosts, "web"), sub(&after, hosts, "web"));
        assert_ne!(old_latest, sub(&after, times, "latest"));
        assert_eq!(numbers.latest(old_latest), Some((times, "2026-11-22T06-32-36-2")));
        let again = usual(&sample(), &TimeZone::UTC, &mut Numbers::default());
        assert_eq!(sub(&again, hosts, "web"), sub(&after, hosts, "web"));
    }

    fn by(templates: &[&str], snapshots: &[Listed]) -> Layout {
        let templates: Vec<Template> = templates.iter().map(|t| t.parse().unwrap()).collect();
        Layout::build(snapshots, &templates, &TimeZone::UTC, 5, &mut Numbers::default())
    }

    #[test]
    fn templates_take_the_place_of_the_usual_folders() {
        let layout = by(&["ids/{id}", "%Y/%m/%d-{host}", "empty/{label}/x/{id}"], &sample());
        assert_eq!(names(&layout, ROOT), ["2026", "empty", "ids"]);
        let ids = sub(&layout, ROOT, "ids");
        assert_eq!(names(&layout, ids), ["01010101", "02020202", "03030303", "latest"]);
        let month = sub(&layout, sub(&layout, ROOT, "2026"), "11");
        assert_eq!(names(&layout, month), ["22-db", "22-web", "23-web", "latest"]);
        let empty = sub(&layout, ROOT, "empty");
        assert_eq!(names(&layout, empty), ["%", "a%2Fb", "docs"]);
        let found = layout.folder(month).unwrap().lookup(b"22-db");
        assert_eq!(found, Some(LayoutTarget::Snapshot(2, View::Times)));
        assert_eq!((layout.home(2, View::Ids), layout.home(2, View::Times)), (ids, month));
        let nothing = by(&["by-day/%Y-%m-%d/{id}"], &[]);
        assert_eq!(names(&nothing, ROOT), ["by-day"]);
        assert_eq!(layout.folder(empty).unwrap().mtime, nanos(sample()[2].time));
    }

    #[test]
    fn names_that_clash_get_numbers_in_the_order_of_time() {
        let snapshots: Vec<_> = ["x", "x", "x-2", "latest", "y", "x"]
            .into_iter()
            .zip(1..)
            .map(|(label, n)| listed(n, &format!("2026-01-0{n}T00:00:00Z"), "n", "h", label))
            .collect();
        // The first template's folder `y` is there before any snapshot of that name.
        let layout = by(&["y/{id}", "{label}"], &snapshots);
        let expected = ["latest", "latest-2", "x", "x-2", "x-2-2", "x-3", "y", "y-2"];
        assert_eq!(names(&layout, ROOT), expected);
        let numbers = ["x", "x-2", "x-2-2", "latest-2", "y-2", "x-3"].map(|name| sub(&layout, ROOT, name));
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!(names(&layout, sub(&layout, ROOT, "y")).len(), 7);
        let long = "l".repeat(300);
        let snapshots = [1, 2].map(|n| listed(n, "2026-01-01T00:00:00Z", "n", "h", &long));
        let found = names(&by(&["{label}"], &snapshots), ROOT);
        assert!(found.len() == 3 && found.iter().all(|name| name.len() <= 255), "{found:?}");
    }

    #[test]
    fn the_time_of_a_folder_changes_when_its_entries_do() {
        let mut numbers = Numbers::default();
        let before = usual(&sample()[..2], &TimeZone::UTC, &mut numbers);
        let mut after = usual(&sample()[..1], &TimeZone::UTC, &mut numbers);
        let times = sub(&before, ROOT, "snapshots");
        after.follow(&before, 77);
        let time = |layout: &Layout, folder| layout.folder(folder).unwrap().mtime;
        assert_eq!(time(&after, times), time(&before, times) + 1, "a clock that runs behind");
        assert_eq!(time(&after, ROOT), time(&before, ROOT));
        let web = sub(&before, sub(&before, ROOT, "hosts"), "web");
        assert_eq!(time(&after, web), time(&before, web));
        let now = i64::MAX - 1;
        let mut last = usual(&sample(), &TimeZone::UTC, &mut numbers);
        last.follow(&after, now);
        assert_eq!((time(&last, times), time(&last, web), last.generation), (now, now, 2));
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
    fn a_name_stays_while_its_snapshot_is_there() {
        let at = |n: u8| listed(n, "2026-01-01T00:00:00Z", if n == 5 { "y" } else { "x" }, "h", "l");
        let mut numbers = Numbers::default();
        let mut shown = |snapshots: &[u8]| {
            let all: Vec<_> = snapshots.iter().map(|n| at(*n)).collect();
            let layout = usual(&all, &TimeZone::UTC, &mut numbers);
            let times = sub(&layout, ROOT, TIMES);
            let named = |folder: u32| {
                let name = |n: &u8| {
                    let entries = &layout.folder(folder).unwrap().entries;
                    let mut found = entries
                        .iter()
                        .filter(|(_, to)| matches!(to, LayoutTarget::Snapshot(m, _) if m == &u32::from(*n)));
                    String::from_utf8(found.next().unwrap().0.to_vec()).unwrap()
                };
                snapshots.iter().map(name).collect::<Vec<_>>()
            };
            (named(times), named(IDS))
        };
        let time = |suffix: &str| format!("2026-01-01T00-00-00{suffix}");
        let (times, ids) = shown(&[2, 3, 4, 5]);
        assert_eq!(times, [time(""), time("-2"), time("-3"), time("-4")]);
        assert_eq!(ids, ["x-02020202", "x-03030303", "x-04040404", "y"]);
        // One goes, one comes that would stand before the others.
        let (times, ids) = shown(&[1, 3, 4, 5]);
        assert_eq!(times, [time(""), time("-2"), time("-3"), time("-4")], "1 has what became free");
        assert_eq!(ids, ["x-01010101", "x-03030303", "x-04040404", "y"]);
        let (times, ids) = shown(&[4, 5]);
        assert_eq!((times, ids), (vec![time("-3"), time("-4")], vec!["x-04040404".into(), "y".into()]));
        let twin = [4, 5, 6];
        let (times, ids) = shown(&twin);
        assert_eq!(times, [time("-3"), time("-4"), time("")]);
        assert_eq!(ids, ["x-04040404", "y", "x-06060606"]);
    }

    #[test]
    fn a_name_that_looks_like_a_suffixed_one_is_kept_apart() {
        let snapshots = [
            listed(1, "2026-01-01T00:00:00Z", "x", "h", ""),
            listed(2, "2026-01-02T00:00:00Z", "x", "h", ""),
            listed(3, "2026-01-03T00:00:00Z", "x-01010101", "h", ""),
        ];
        let layout = usual(&snapshots, &TimeZone::UTC, &mut Numbers::default());
        assert_eq!(names(&layout, IDS), ["x-01010101", "x-0101010101010101", "x-02020202"]);
        assert_eq!(sub(&layout, IDS, "x-01010101"), 3);
    }
}
