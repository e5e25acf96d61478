//! The snapshots that are shown, in the order of time, and where they have what.

use std::sync::Arc;

use super::rights::{NO_RIGHTS, Rights, RightsTable};
use super::sections::{Index, Mention, NONE};
use crate::view::snapshots::Info;

/// A snapshot among others.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) info: Arc<Info>,
    /// Its name in the folder of all by time.
    pub(crate) name: Box<[u8]>,
}

/// Where a section stands in a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SectionHolder {
    /// Its number among [`VersionsTimeline::moments`].
    pub(super) moment: u32,
    /// How many sections are before it.
    pub(super) position: u32,
}

/// What is shown from one change of the snapshots to the next. Immutable.
#[derive(Debug)]
pub(crate) struct VersionsTimeline {
    /// Tells timelines of a mount apart.
    pub(crate) serial: u32,
    /// When it began, in nanoseconds since the epoch: the time of all folders.
    pub(crate) mtime: i64,
    /// The snapshots, oldest first.
    pub(crate) moments: Vec<Moment>,
    /// Who has a section, oldest first.
    pub(super) holders: Groups<SectionHolder>,
    /// Sections with files or symlinks of a directory.
    pub(super) files: Groups<u32>,
    /// Subdirectories of a directory.
    pub(super) subdirectories: Groups<u32>,
    /// A part of what the snapshots have is damaged or gone.
    pub(super) partial: bool,
    /// Numbers of the directories' rights in `table`.
    rights: Vec<u32>,
    table: RightsTable,
}

impl VersionsTimeline {
    /// Of these snapshots, oldest first, as far as their sections are known. Tells the sections who has them.
    pub(super) fn new(index: &mut Index, moments: Vec<Moment>, (serial, mtime): (u32, i64)) -> Self {
        tell(index, &moments);
        let index = &*index;
        let holders = Groups::new(index.sections.len(), |add| {
            for (number, moment) in (0..).zip(&moments) {
                for (position, at) in (0..).zip(sections_of(index, moment)) {
                    add(*at, SectionHolder { moment: number, position });
                }
            }
        });
        let mentions = |each: &mut dyn FnMut(u32, Mention)| {
            for (at, section) in (0..).zip(&index.sections) {
                if !holders.of(at).is_empty() {
                    section.mentions.iter().for_each(|value| each(at, Mention::decode(*value)));
                }
            }
        };
        let files = Groups::new(index.dirs.len(), |add| {
            mentions(&mut |at, mention| {
                if mention.files {
                    add(mention.dir, at);
                }
            });
        });
        let mut is_there = vec![false; index.dirs.len()];
        mentions(&mut |_, mention| {
            if let Some(there) = is_there.get_mut(mention.dir as usize) {
                *there = true;
            }
        });
        // A directory's number is above that of the one that it is in.
        for dir in (1..index.dirs.len()).rev() {
            if is_there[dir] {
                is_there[index.dirs.parent(dir as u32) as usize] = true;
            }
        }
        let subdirectories = Groups::new(index.dirs.len(), |add| {
            for (dir, _) in (0..).zip(&is_there).skip(1).filter(|(_, there)| **there) {
                add(index.dirs.parent(dir), dir);
            }
        });
        let is_cut =
            |moment: &Moment| index.lists.get(&moment.info.listed.id).is_some_and(|list| index.is_cut(list));
        let partial = moments.iter().any(is_cut);
        let (rights, table) = rights(index, &moments);
        VersionsTimeline { serial, mtime, moments, holders, files, subdirectories, partial, rights, table }
    }

    /// What all snapshots with an item for this directory allow.
    pub(super) fn rights(&self, dir: u32) -> Option<&Rights> {
        self.table.get(*self.rights.get(dir as usize)?)
    }
}

/// Rights of directories over all snapshots, with the newest one's owners.
fn rights(index: &Index, moments: &[Moment]) -> (Vec<u32>, RightsTable) {
    let (mut rights, mut table) = (vec![NO_RIGHTS; index.dirs.len()], index.rights.clone());
    let mut seen = vec![false; index.sections.len()];
    for at in moments.iter().rev().flat_map(|moment| sections_of(index, moment)) {
        let Some(section) = index.section(*at) else { continue };
        if std::mem::replace(&mut seen[*at as usize], true) {
            continue;
        }
        for (dir, older) in &section.owns {
            if let Some(all) = rights.get_mut(*dir as usize) {
                *all = if *all == NO_RIGHTS { *older } else { table.meet(*all, *older) };
            }
        }
    }
    (rights, table)
}

fn sections_of<'i>(index: &'i Index, moment: &Moment) -> &'i [u32] {
    index.lists.get(&moment.info.listed.id).map_or(&[], |list| &list.sections)
}

/// Tells each section the oldest snapshot that has it, and what is before it there.
fn tell(index: &mut Index, moments: &[Moment]) {
    let mut told = vec![false; index.sections.len()];
    for moment in moments {
        let Some(list) = index.lists.get(&moment.info.listed.id) else { continue };
        let mut before = NONE;
        for at in list.sections.clone().iter() {
            if !std::mem::replace(&mut told[*at as usize], true) {
                let section = &mut index.sections[*at as usize];
                (section.info, section.before) = (Some(moment.info.clone()), before);
            }
            before = *at;
        }
    }
}

/// Values by a number, in one array.
#[derive(Debug)]
pub(super) struct Groups<T> {
    /// Where the values of a number begin; one more than there are numbers.
    starts: Vec<usize>,
    values: Vec<T>,
}

impl<T: Copy + Default> Groups<T> {
    /// Of numbers below `count`. `each` is called twice and must give the same pairs to what it is given, those
    /// of one number in order.
    fn new(count: usize, each: impl Fn(&mut dyn FnMut(u32, T))) -> Self {
        let mut starts = vec![0; count + 1];
        each(&mut |number, _| {
            if let Some(start) = starts[1..].get_mut(number as usize) {
                *start += 1;
            }
        });
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut values = vec![T::default(); starts[count]];
        let mut next = starts.clone();
        each(&mut |number, value| {
            if let Some(at) = next.get_mut(number as usize).filter(|_| (number as usize) < count) {
                values[*at] = value;
                *at += 1;
            }
        });
        Groups { starts, values }
    }

    /// The values of a number.
    pub(super) fn of(&self, number: u32) -> &[T] {
        let at = number as usize;
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(start), Some(end)) => &self.values[*start..*end],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_what_belongs_together() {
        let pairs = [(3, 'a'), (0, 'b'), (3, 'c'), (9, 'x'), (2, 'd')];
        let groups = Groups::new(4, |add| pairs.iter().for_each(|(number, value)| add(*number, *value)));
        let of = |number| groups.of(number).iter().collect::<String>();
        assert_eq!([0, 1, 2, 3, 4, 9].map(of), ["b", "", "d", "ac", "", ""]);
        assert_eq!(Groups::<u8>::new(0, |_| {}).of(0), [0; 0]);
    }
}
