//! Finding paths in all snapshots.

use std::collections::{HashMap, HashSet};

use super::facts::{Digester, Facts};
use super::pattern::Pattern;
use super::timeline::{AddedFacts, FactsTable, PathVersion, Timeline};
use crate::error::Result;
use crate::event::{Event, Events, emit};
use crate::format::{Item, ItemType, Snapshot};
use crate::repository::ReadChunk;
use crate::repository::read::item_stream_cache::{ItemStreamCache, StreamPart};
use crate::repository::read::items::{FoundItem, Loss};

/// What is looked for: paths that fit the pattern and, in any snapshot, everything else.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// Paths.
    pub pattern: Pattern,
    /// Of this type.
    pub kind: Option<ItemType>,
    /// Files of more bytes than this.
    pub larger: Option<u64>,
    /// Files of fewer bytes than this.
    pub smaller: Option<u64>,
    /// Modified at this time or later, nanoseconds since the epoch.
    pub since: Option<i64>,
}

impl FindOptions {
    /// True when more matters than the path.
    fn looks_at_items(&self) -> bool {
        self.kind.is_some() || self.larger.is_some() || self.smaller.is_some() || self.since.is_some()
    }

    fn fits(&self, item: &Item<'_>) -> bool {
        let is_file = item.kind == ItemType::RegularFile;
        self.kind.is_none_or(|kind| item.kind == kind)
            && self.larger.is_none_or(|size| is_file && item.size > size)
            && self.smaller.is_none_or(|size| is_file && item.size < size)
            && self.since.is_none_or(|since| item.mtime >= since)
    }
}

/// Snapshots of the same host, label and paths: each says what became of what the one before it has.
#[derive(Debug)]
pub struct SnapshotSeries {
    /// Indices of the snapshots, oldest first.
    pub snapshots: Vec<usize>,
    /// Whether all of each could be read.
    whole: Vec<bool>,
}

/// A path, and what became of it in one series.
#[derive(Debug)]
pub struct FoundPath {
    /// The exact path.
    pub path: Vec<u8>,
    /// Number of the series.
    pub series: usize,
    /// What became of it, in order of time. Never empty.
    pub versions: Vec<PathVersion>,
}

/// What was found.
#[derive(Debug)]
pub struct FindReport {
    /// Every series that there is.
    pub series: Vec<SnapshotSeries>,
    /// Sorted; the number of each is its place in `timelines`.
    names: Vec<(Box<[u8]>, u32)>,
    timelines: Vec<Vec<(u32, Timeline)>>,
    table: FactsTable,
    /// False when a part of a snapshot could not be read, which an event told.
    pub complete: bool,
    /// True when such a part may be readable later: it is not damaged, as far as is known.
    pub out_of_reach: bool,
}

impl FindReport {
    /// True when nothing was found.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What was found, sorted by path. Each is made when it is asked for: all of them at once take much memory.
    pub fn paths(&self) -> impl Iterator<Item = FoundPath> {
        self.names.iter().flat_map(|(path, number)| {
            self.timelines[*number as usize].iter().map(|(series, timeline)| {
                let series = *series as usize;
                let versions = timeline.versions(&self.series[series].whole, &self.table);
                FoundPath { path: path.to_vec(), series, versions }
            })
        })
    }
}

/// Finds paths in snapshots, which are sorted by time.
///
/// Memory grows with what is found, by some 300 bytes a path and 130 a change, and, by some hundred bytes each, with
/// the distinct chunks of item streams. When more
/// matters than the path, the snapshots are read twice: a path that fits once is followed through all of them.
///
/// # Errors
/// None yet; what cannot be read is told by [`Event::ItemSkipped`] and [`Event::SnapshotUnreadable`].
pub fn find(
    reader: &dyn ReadChunk,
    snapshots: &[Snapshot],
    options: &FindOptions,
    mut events: Events<'_>,
) -> Result<FindReport> {
    let wanted = match options.looks_at_items() {
        true => Some(paths_that_fit(reader, snapshots, options)?),
        false => None,
    };
    let is_wanted = |path: &[u8]| match &wanted {
        Some((paths, _)) => paths.contains(path),
        None => options.pattern.matches(path),
    };
    let mut finder = Finder::new(series_of(snapshots));
    if wanted.as_ref().is_none_or(|(paths, whole)| !paths.is_empty() || !whole) {
        let mut items = ItemStreamCache::new(reader);
        for (at, snapshot) in snapshots.iter().enumerate() {
            finder.enter(at);
            items.read(snapshot, &mut |part| {
                finder.part(snapshot, part, &is_wanted, &mut events);
                Ok(true)
            })?;
        }
    }
    Ok(finder.report())
}

/// The paths that fit in any snapshot, and whether all of them could be read. What could not is told later.
fn paths_that_fit(
    reader: &dyn ReadChunk,
    snapshots: &[Snapshot],
    options: &FindOptions,
) -> Result<(HashSet<Box<[u8]>>, bool)> {
    let (mut items, mut paths, mut whole) = (ItemStreamCache::new(reader), HashSet::new(), true);
    for snapshot in snapshots {
        items.read(snapshot, &mut |part| {
            match part {
                StreamPart::Found(FoundItem::Item(item)) => {
                    let path = item.path_bytes();
                    if options.fits(&item) && options.pattern.matches(path) && !paths.contains(path) {
                        paths.insert(path.into());
                    }
                }
                StreamPart::Found(_) => whole = false,
                _ => {}
            }
            Ok(true)
        })?;
    }
    Ok((paths, whole))
}

/// The series of each snapshot, and each series.
fn series_of(snapshots: &[Snapshot]) -> (Vec<usize>, Vec<SnapshotSeries>) {
    let (mut numbers, mut all) = (HashMap::new(), Vec::<SnapshotSeries>::new());
    let mut of_each = Vec::with_capacity(snapshots.len());
    for (at, snapshot) in snapshots.iter().enumerate() {
        let key = (&snapshot.meta.hostname, snapshot.label(), &snapshot.meta.source_paths);
        let number = *numbers.entry(key).or_insert(all.len());
        if number == all.len() {
            all.push(SnapshotSeries { snapshots: Vec::new(), whole: Vec::new() });
        }
        all[number].snapshots.push(at);
        all[number].whole.push(true);
        of_each.push(number);
    }
    (of_each, all)
}

/// What a stretch of items has of what is wanted.
#[derive(Default)]
struct Matches {
    /// Numbers of paths, and of how they are.
    items: Vec<(u32, u32)>,
    /// Something in it could not be read.
    damaged: bool,
}

struct Finder {
    series_of: Vec<usize>,
    series: Vec<SnapshotSeries>,
    digester: Digester,
    numbers: HashMap<Box<[u8]>, u32>,
    /// For each path, what became of it in each series that has it, in the order of the series.
    timelines: Vec<Vec<(u32, Timeline)>>,
    table: FactsTable,
    /// Of the stretches that may be met again; of those that have something.
    stretches: HashMap<usize, Matches>,
    stretch: (usize, Matches),
    /// The series at hand, and the position in it.
    now: (usize, usize),
    /// Position of each snapshot in its series.
    positions: Vec<usize>,
    complete: bool,
    out_of_reach: bool,
}

impl Finder {
    fn new((series_of, series): (Vec<usize>, Vec<SnapshotSeries>)) -> Self {
        let mut positions = vec![0; series_of.len()];
        for series in &series {
            series.snapshots.iter().enumerate().for_each(|(position, at)| positions[*at] = position);
        }
        Finder {
            positions,
            table: FactsTable::default(),
            series_of,
            series,
            digester: Digester::default(),
            numbers: HashMap::new(),
            timelines: Vec::new(),
            stretches: HashMap::new(),
            stretch: (0, Matches::default()),
            now: (0, 0),
            complete: true,
            out_of_reach: false,
        }
    }

    /// What comes is of this snapshot.
    fn enter(&mut self, snapshot: usize) {
        self.now = (self.series_of[snapshot], self.positions[snapshot]);
    }

    fn part(
        &mut self,
        snapshot: &Snapshot,
        part: StreamPart<'_>,
        is_wanted: &dyn Fn(&[u8]) -> bool,
        events: &mut Events<'_>,
    ) {
        match part {
            StreamPart::Begin(stretch) => self.stretch = (stretch, Matches::default()),
            StreamPart::Found(FoundItem::Item(item)) if is_wanted(item.path_bytes()) => {
                let facts = Facts::of(&item, 0, &self.digester);
                let number = self.number(item.path_bytes());
                let facts = self.add(number, AddedFacts::New(facts));
                self.stretch.1.items.push((number, facts));
            }
            StreamPart::Found(FoundItem::Item(_)) => {}
            StreamPart::Found(FoundItem::Problem(problem)) => {
                let (path, reason) = (problem.path().to_owned(), problem.to_string());
                if path.is_empty() || is_wanted(path.as_bytes()) {
                    self.stretch.1.damaged = true;
                    self.is_damaged();
                    emit(events, Event::ItemSkipped { snapshot: snapshot.id, path, reason });
                }
            }
            StreamPart::Found(FoundItem::Lost(Loss { reason, may_come_back })) => {
                self.is_damaged();
                self.out_of_reach |= may_come_back;
                emit(events, Event::SnapshotUnreadable { snapshot: snapshot.id, reason });
            }
            StreamPart::End(kept) => {
                let (stretch, matches) = std::mem::take(&mut self.stretch);
                if kept && (matches.damaged || !matches.items.is_empty()) {
                    self.stretches.insert(stretch, matches);
                }
            }
            StreamPart::Again(stretch) => self.again(stretch),
        }
    }

    fn again(&mut self, stretch: usize) {
        let Some(matches) = self.stretches.remove(&stretch) else { return };
        for (number, facts) in &matches.items {
            self.add(*number, AddedFacts::Known(*facts));
        }
        if matches.damaged {
            self.is_damaged();
        }
        self.stretches.insert(stretch, matches);
    }

    fn number(&mut self, path: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        // As many would take a terabyte.
        let number = u32::try_from(self.timelines.len()).unwrap_or(u32::MAX);
        self.timelines.push(Vec::new());
        self.numbers.insert(path.into(), number);
        number
    }

    fn add(&mut self, number: u32, added: AddedFacts) -> u32 {
        let (series, position) = (self.now.0 as u32, self.now.1); // there are fewer series than snapshots
        let all = &mut self.timelines[number as usize];
        let at = all.binary_search_by_key(&series, |(series, _)| *series).unwrap_or_else(|at| {
            // Most are in one series.
            all.reserve_exact(1);
            all.insert(at, (series, Timeline::default()));
            at
        });
        all[at].1.add(position, added, &mut self.table)
    }

    fn is_damaged(&mut self) {
        let (series, position) = self.now;
        self.series[series].whole[position] = false;
        self.complete = false;
    }

    fn report(self) -> FindReport {
        let Finder { series, timelines, table, complete, out_of_reach, numbers, .. } = self;
        let mut names: Vec<_> = numbers.into_iter().collect();
        names.sort_unstable();
        FindReport { series, names, timelines, table, complete, out_of_reach }
    }
}

#[cfg(test)]
mod tests;
