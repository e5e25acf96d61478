//! What became of a path from snapshot to snapshot.

use super::facts::{Aspect, Facts};

/// What a snapshot says of a path, compared with the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// It was not there.
    Added,
    /// It was there, and differs in this.
    Changed(Vec<Aspect>),
    /// It was there, and was the same.
    Unchanged,
    /// It was there, and is not any more.
    Removed,
}

/// Snapshots that say the same of a path. Snapshots count from zero among those of their series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// The first snapshot.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// What the first one says. The others are unchanged.
    pub state: PathState,
    /// The path as it is there; `None` where it was removed.
    pub facts: Option<Facts>,
}

/// Facts by their numbers, so that those of a path that stays as it is are kept once: a million paths in a hundred
/// snapshots must fit into memory.
#[derive(Debug, Default)]
pub(super) struct FactsTable(Vec<Facts>);

impl FactsTable {
    fn add(&mut self, facts: Facts) -> u32 {
        // As many would take 500 GB.
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(facts);
        number
    }

    /// Those with a number that [`Timeline::add`] gave.
    pub fn get(&self, number: u32) -> &Facts {
        &self.0[number as usize]
    }
}

/// Snapshots, one after another, in which a path is the same.
#[derive(Debug, Clone, Copy)]
struct SnapshotRun {
    first: u32,
    last: u32,
    facts: u32,
}

/// Where a path was met.
#[derive(Debug, Default)]
pub(super) struct Timeline(Vec<SnapshotRun>);

/// What is added to a timeline: facts that are new, or known by their number.
pub(super) enum AddedFacts {
    New(Facts),
    Known(u32),
}

impl Timeline {
    /// It is like this in a snapshot, which is not before those that were added. When a snapshot has it twice, the
    /// first one counts. Gives the number of the facts.
    pub fn add(&mut self, snapshot: usize, added: AddedFacts, table: &mut FactsTable) -> u32 {
        let snapshot = u32::try_from(snapshot).unwrap_or(u32::MAX); // there are fewer
        let last = self.0.last_mut();
        let is_same = |run: &SnapshotRun| match &added {
            AddedFacts::New(facts) => table.get(run.facts) == facts,
            AddedFacts::Known(number) => run.facts == *number || table.get(run.facts) == table.get(*number),
        };
        match last.filter(|run| is_same(run)) {
            Some(run) if run.last == snapshot => return run.facts,
            Some(run) if run.last.checked_add(1) == Some(snapshot) => {
                run.last = snapshot;
                return run.facts;
            }
            _ => {}
        }
        let facts = match added {
            AddedFacts::New(facts) => table.add(facts),
            AddedFacts::Known(number) => number,
        };
        if self.0.last().is_none_or(|run| run.last != snapshot) {
            if self.0.is_empty() {
                // Most have one run.
                self.0.reserve_exact(1);
            }
            self.0.push(SnapshotRun { first: snapshot, last: snapshot, facts });
        }
        facts
    }

    /// All that is to be said of it, in order. `whole` has, for each snapshot, whether all of it could be read: what is
    /// missing in another one may well be there.
    pub fn versions(&self, whole: &[bool], table: &FactsTable) -> Vec<PathVersion> {
        let missing_in = |range: std::ops::Range<usize>| range.into_iter().find(|at| whole[*at]);
        let mut versions = Vec::new();
        let mut before: Option<&SnapshotRun> = None;
        for run in &self.0 {
            let facts = table.get(run.facts);
            let state = match before {
                None => PathState::Added,
                Some(before) => match missing_in(before.last as usize + 1..run.first as usize) {
                    Some(at) => {
                        versions.push(PathVersion {
                            first: at,
                            last: at,
                            state: PathState::Removed,
                            facts: None,
                        });
                        PathState::Added
                    }
                    None => match table.get(before.facts) {
                        same if same == facts => PathState::Unchanged,
                        other => PathState::Changed(other.differences(facts)),
                    },
                },
            };
            let (first, last) = (run.first as usize, run.last as usize);
            versions.push(PathVersion { first, last, state, facts: Some(facts.clone()) });
            before = Some(run);
        }
        let end = before.and_then(|before| missing_in(before.last as usize + 1..whole.len()));
        versions.extend(end.map(|at| PathVersion {
            first: at,
            last: at,
            state: PathState::Removed,
            facts: None,
        }));
        versions
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Digester;
    use super::*;
    use crate::format::{Item, ItemType};

    /// Of a path that is met with these modification times, and what is said of it.
    fn versions(mtimes: &[Option<i64>], whole: &[bool]) -> Vec<(usize, usize, &'static str)> {
        let (mut timeline, digester) = (Timeline::default(), Digester::default());
        let mut table = FactsTable::default();
        for (at, mtime) in mtimes.iter().enumerate() {
            if let Some(mtime) = *mtime {
                let item = Item { mtime, ..Item::new("f", ItemType::RegularFile) };
                timeline.add(at, AddedFacts::New(Facts::of(&item, 0, &digester)), &mut table);
            }
        }
        let said = timeline.versions(whole, &table).into_iter().map(|version| {
            let state = match version.state {
                PathState::Added => "added",
                PathState::Changed(aspects) => {
                    assert_eq!(aspects, [Aspect::Mtime]);
                    "changed"
                }
                PathState::Unchanged => "unchanged",
                PathState::Removed => "removed",
            };
            (version.first, version.last, state)
        });
        said.collect()
    }

    #[test]
    fn a_path_comes_changes_stays_goes_and_comes_back() {
        let met = [None, Some(1), Some(1), Some(2), None, None, Some(2), Some(2), Some(2)];
        let expected = [(1, 2, "added"), (3, 3, "changed"), (4, 4, "removed"), (6, 8, "added")];
        assert_eq!(versions(&met, &[true; 9]), expected);
        assert_eq!(versions(&met[..5], &[true; 5]), expected[..3]);
        assert_eq!(versions(&met[..3], &[true; 3]), expected[..1]);
    }

    #[test]
    fn what_could_not_be_read_is_not_called_removed() {
        let met = [Some(1), None, Some(1), None, Some(2), None];
        let whole = [true, false, true, false, true, false];
        assert_eq!(versions(&met, &whole), [(0, 0, "added"), (2, 2, "unchanged"), (4, 4, "changed")]);
        let met = [Some(1), None, None, Some(1)];
        assert_eq!(
            versions(&met, &[true, false, true, true]),
            [(0, 0, "added"), (2, 2, "removed"), (3, 3, "added")]
        );
    }
}
