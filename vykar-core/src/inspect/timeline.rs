//! What became of a path from snapshot to snapshot.

use super::facts::{Aspect, Facts};

/// What a snapshot says of a path, compared with the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
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
pub struct Version {
    /// The first snapshot.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// What the first one says. The others are unchanged.
    pub state: State,
    /// The path as it is there; `None` where it was removed.
    pub facts: Option<Facts>,
}

/// Snapshots, one after another, in which a path is the same.
#[derive(Debug)]
struct Run {
    first: usize,
    last: usize,
    facts: Facts,
}

/// Where a path was met.
#[derive(Debug, Default)]
pub(super) struct Timeline(Vec<Run>);

impl Timeline {
    /// It is like this in a snapshot, which is not before those that were added. When a snapshot has it twice, the
    /// first one counts.
    pub fn add(&mut self, snapshot: usize, facts: &Facts) {
        match self.0.last_mut() {
            Some(run) if run.last == snapshot => {}
            Some(run) if run.last + 1 == snapshot && run.facts == *facts => run.last = snapshot,
            _ => self.0.push(Run { first: snapshot, last: snapshot, facts: facts.clone() }),
        }
    }

    /// All that is to be said of it, in order. `whole` has, for each snapshot, whether all of it could be read: what is
    /// missing in another one may well be there.
    pub fn versions(self, whole: &[bool]) -> Vec<Version> {
        let missing_in = |range: std::ops::Range<usize>| range.into_iter().find(|at| whole[*at]);
        let mut versions = Vec::new();
        let mut before: Option<Run> = None;
        for run in self.0 {
            let state = match &before {
                None => State::Added,
                Some(before) => match missing_in(before.last + 1..run.first) {
                    Some(at) => {
                        versions.push(Version { first: at, last: at, state: State::Removed, facts: None });
                        State::Added
                    }
                    None if before.facts == run.facts => State::Unchanged,
                    None => State::Changed(before.facts.differences(&run.facts)),
                },
            };
            let (first, last, facts) = (run.first, run.last, Some(run.facts.clone()));
            versions.push(Version { first, last, state, facts });
            before = Some(run);
        }
        let end = before.and_then(|before| missing_in(before.last + 1..whole.len()));
        versions.extend(end.map(|at| Version { first: at, last: at, state: State::Removed, facts: None }));
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
        for (at, mtime) in mtimes.iter().enumerate() {
            if let Some(mtime) = *mtime {
                let item = Item { mtime, ..Item::new("f", ItemType::RegularFile) };
                timeline.add(at, &Facts::of(&item, 0, &digester));
            }
        }
        let said = timeline.versions(whole).into_iter().map(|version| {
            let state = match version.state {
                State::Added => "added",
                State::Changed(aspects) => {
                    assert_eq!(aspects, [Aspect::Mtime]);
                    "changed"
                }
                State::Unchanged => "unchanged",
                State::Removed => "removed",
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
