//! Finding paths in all snapshots.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::facts::{Digester, Facts};
use super::pattern::Pattern;
use super::timeline::{Timeline, Version};
use crate::error::Result;
use crate::event::{Event, Events, emit};
use crate::format::{Item, ItemType, Snapshot};
use crate::repository::ReadChunk;
use crate::repository::items::{Found, Loss};
use crate::repository::shared_items::{Part, SharedItems};

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
pub struct Series {
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
    pub versions: Vec<Version>,
}

/// What was found.
#[derive(Debug)]
pub struct FindReport {
    /// Every series that there is.
    pub series: Vec<Series>,
    /// Sorted by path.
    pub paths: Vec<FoundPath>,
    /// False when a part of a snapshot could not be read, which an event told.
    pub complete: bool,
    /// True when such a part may be readable later: it is not damaged, as far as is known.
    pub out_of_reach: bool,
}

/// Finds paths in snapshots, which are sorted by time.
///
/// Memory grows with what is found and, by some hundred bytes each, with the distinct chunks of item streams. When more
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
        Some(paths) => paths.contains(path),
        None => options.pattern.matches(path),
    };
    let mut finder = Finder::new(series_of(snapshots));
    if wanted.as_ref().is_none_or(|paths| !paths.is_empty()) {
        let mut items = SharedItems::new(reader);
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

/// The paths that fit in any snapshot. What cannot be read is told later.
fn paths_that_fit(
    reader: &dyn ReadChunk,
    snapshots: &[Snapshot],
    options: &FindOptions,
) -> Result<HashSet<Box<[u8]>>> {
    let (mut items, mut paths) = (SharedItems::new(reader), HashSet::new());
    for snapshot in snapshots {
        items.read(snapshot, &mut |part| {
            if let Part::Found(Found::Item(item)) = part {
                let path = item.path_bytes();
                if options.fits(&item) && options.pattern.matches(path) && !paths.contains(path) {
                    paths.insert(path.into());
                }
            }
            Ok(true)
        })?;
    }
    Ok(paths)
}

/// The series of each snapshot, and each series.
fn series_of(snapshots: &[Snapshot]) -> (Vec<usize>, Vec<Series>) {
    let (mut numbers, mut all) = (HashMap::new(), Vec::<Series>::new());
    let mut of_each = Vec::with_capacity(snapshots.len());
    for (at, snapshot) in snapshots.iter().enumerate() {
        let key = (&snapshot.meta.hostname, snapshot.label(), &snapshot.meta.source_paths);
        let number = *numbers.entry(key).or_insert(all.len());
        if number == all.len() {
            all.push(Series { snapshots: Vec::new(), whole: Vec::new() });
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
    /// Numbers of paths, and how they are.
    items: Vec<(usize, Facts)>,
    /// Something in it could not be read.
    damaged: bool,
}

struct Finder {
    series_of: Vec<usize>,
    series: Vec<Series>,
    digester: Digester,
    numbers: HashMap<Box<[u8]>, usize>,
    /// For each path, what became of it in each series that has it.
    timelines: Vec<BTreeMap<usize, Timeline>>,
    /// Of the stretches that may be met again; of those that have something.
    stretches: HashMap<usize, Matches>,
    stretch: (usize, Matches),
    /// The series at hand, and the position in it.
    now: (usize, usize),
    complete: bool,
    out_of_reach: bool,
}

impl Finder {
    fn new((series_of, series): (Vec<usize>, Vec<Series>)) -> Self {
        Finder {
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
        let series = self.series_of[snapshot];
        let position = self.series[series].snapshots.iter().position(|at| *at == snapshot);
        self.now = (series, position.unwrap_or_default());
    }

    fn part(
        &mut self,
        snapshot: &Snapshot,
        part: Part<'_>,
        is_wanted: &dyn Fn(&[u8]) -> bool,
        events: &mut Events<'_>,
    ) {
        match part {
            Part::Begin(stretch) => self.stretch = (stretch, Matches::default()),
            Part::Found(Found::Item(item)) if is_wanted(item.path_bytes()) => {
                let facts = Facts::of(&item, 0, &self.digester);
                let number = self.number(item.path_bytes());
                self.add(number, &facts);
                self.stretch.1.items.push((number, facts));
            }
            Part::Found(Found::Item(_)) => {}
            Part::Found(Found::Problem(problem)) => {
                let (path, reason) = (problem.path().to_owned(), problem.to_string());
                if path.is_empty() || is_wanted(path.as_bytes()) {
                    self.stretch.1.damaged = true;
                    self.is_damaged();
                    emit(events, Event::ItemSkipped { snapshot: snapshot.id, path, reason });
                }
            }
            Part::Found(Found::Lost(Loss { reason, may_come_back })) => {
                self.is_damaged();
                self.out_of_reach |= may_come_back;
                emit(events, Event::SnapshotUnreadable { snapshot: snapshot.id, reason });
            }
            Part::End(kept) => {
                let (stretch, matches) = std::mem::take(&mut self.stretch);
                if kept && (matches.damaged || !matches.items.is_empty()) {
                    self.stretches.insert(stretch, matches);
                }
            }
            Part::Again(stretch) => self.again(stretch),
        }
    }

    fn again(&mut self, stretch: usize) {
        let Some(matches) = self.stretches.remove(&stretch) else { return };
        for (number, facts) in &matches.items {
            self.add(*number, facts);
        }
        if matches.damaged {
            self.is_damaged();
        }
        self.stretches.insert(stretch, matches);
    }

    fn number(&mut self, path: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.timelines.len();
        self.timelines.push(BTreeMap::new());
        self.numbers.insert(path.into(), number);
        number
    }

    fn add(&mut self, number: usize, facts: &Facts) {
        let (series, position) = self.now;
        self.timelines[number].entry(series).or_default().add(position, facts);
    }

    fn is_damaged(&mut self) {
        let (series, position) = self.now;
        self.series[series].whole[position] = false;
        self.complete = false;
    }

    fn report(mut self) -> FindReport {
        let mut names: Vec<_> = self.numbers.into_iter().collect();
        names.sort_unstable();
        let mut paths = Vec::new();
        for (path, number) in names {
            for (series, timeline) in std::mem::take(&mut self.timelines[number]) {
                let versions = timeline.versions(&self.series[series].whole);
                paths.push(FoundPath { path: path.to_vec(), series, versions });
            }
        }
        FindReport { series: self.series, paths, complete: self.complete, out_of_reach: self.out_of_reach }
    }
}

#[cfg(test)]
mod tests;
