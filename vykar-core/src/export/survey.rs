//! What must be known of a snapshot's items before the first of them is written to an archive.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::format::acl::IdNames;
use crate::format::admission::{Admission, Misplaced, above};
use crate::format::special::is_special;
use crate::format::{Item, ItemProblem, ItemType, Snapshot, path};
use crate::repository::ReadChunk;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};

/// What is left out, as it is found.
pub(super) enum Trouble {
    /// An item that breaks a rule.
    Problem(ItemProblem),
    /// An item that has no place, by its path for display.
    Misplaced(String, Misplaced),
    /// The rest of the items.
    Lost(String),
}

/// The wanted items of a snapshot, looked through once.
#[derive(Default)]
pub(super) struct Survey {
    /// Where each has its place.
    pub admission: Admission,
    /// Names of users and groups, for ACLs.
    pub names: IdNames,
    /// Numbers of the wanted items that have no place.
    refused: HashSet<u64>,
    /// Wanted items in the stream.
    count: u64,
    /// Not all items could be read.
    pub lost: bool,
    /// Something wanted was met.
    pub met: bool,
    /// FIFOs, sockets and devices, which come behind all others in the snapshot: by the directory with which each is
    /// to be written, so that its time is set when everything is in it.
    specials: HashMap<Vec<u8>, Vec<Item<'static>>>,
    order: Order,
}

impl Survey {
    /// Reads all items; `trouble` hears of those that are to be left out.
    pub fn read(
        reader: &dyn ReadChunk,
        snapshot: &Snapshot,
        top: &[u8],
        trouble: &mut dyn FnMut(Trouble),
    ) -> Result<Self> {
        let mut survey = Survey { met: top.is_empty(), ..Survey::default() };
        snapshot.meta.root_item().iter().for_each(|item| survey.names.note(item));
        let mut specials = Vec::new();
        for_each_item(reader, snapshot, &mut |found| {
            match found {
                FoundItem::Item(item) => {
                    survey.names.note(&item);
                    match is_wanted(&item, top) {
                        false => {}
                        true if is_special(item.kind) => specials.push(item.into_owned()),
                        true => survey.item(&item, top, trouble),
                    }
                }
                FoundItem::Problem(problem) => {
                    let path = problem.path();
                    if path.is_empty() || path::is_within(path.as_bytes(), top) {
                        trouble(Trouble::Problem(problem));
                    }
                }
                FoundItem::Lost(Loss { reason, .. }) => {
                    survey.lost = true;
                    trouble(Trouble::Lost(reason));
                }
            }
            Ok(true)
        })?;
        survey.place(specials, top, trouble);
        Ok(survey)
    }

    fn item(&mut self, item: &Item<'_>, top: &[u8], trouble: &mut dyn FnMut(Trouble)) {
        let (path, is_directory) = (item.path_bytes(), item.kind == ItemType::Directory);
        match self.admission.admit(path, is_directory) {
            Ok(()) => {
                self.met |= path::is_within(path, top);
                self.order.next(path, is_directory, &self.admission);
            }
            Err(why) => {
                self.refused.insert(self.count);
                trouble(Trouble::Misplaced(item.path.to_string(), why));
            }
        }
        self.count += 1;
    }

    /// Each special item goes with the nearest directory above it that is written anyway.
    fn place(&mut self, mut specials: Vec<Item<'static>>, top: &[u8], trouble: &mut dyn FnMut(Trouble)) {
        let anchor = |item: &Item<'_>| {
            let mut dirs = above(item.path_bytes()).rev();
            dirs.find(|dir| self.admission.is_directory(dir)).unwrap_or_default().to_vec()
        };
        let anchors: Vec<_> = specials.iter().map(anchor).collect();
        for (item, anchor) in specials.drain(..).zip(anchors) {
            match self.admission.admit(item.path_bytes(), false) {
                Ok(()) => {
                    self.met |= path::is_within(item.path_bytes(), top);
                    self.specials.entry(anchor).or_default().push(item);
                }
                Err(why) => trouble(Trouble::Misplaced(item.path.into_owned(), why)),
            }
        }
        // What is in one directory stays together.
        self.specials.values_mut().for_each(|items| items.sort_by(|a, b| a.path_bytes().cmp(b.path_bytes())));
    }

    /// True for the wanted item with this number, when it is to be written.
    pub fn admits(&self, number: u64) -> bool {
        number < self.count && !self.refused.contains(&number)
    }

    /// True when all that is in a directory comes one after another, as a walk gives it. Otherwise tar(1) sets the
    /// directory's time too early.
    pub fn is_in_order(&self) -> bool {
        !self.order.broken
    }

    /// Takes the special items to be written with this directory; the empty path is the top.
    pub fn take_specials(&mut self, dir: &[u8]) -> Vec<Item<'static>> {
        self.specials.remove(dir).unwrap_or_default()
    }

    /// Takes all that are left.
    pub fn take_all_specials(&mut self) -> Vec<Item<'static>> {
        std::mem::take(&mut self.specials).into_values().flatten().collect()
    }
}

/// True for what is wanted, or may be a directory above it.
pub(super) fn is_wanted(item: &Item<'_>, top: &[u8]) -> bool {
    let path = item.path_bytes();
    path::is_within(path, top) || path::is_within(top, path)
}

/// Watches the order of paths.
#[derive(Default)]
struct Order {
    /// The directory that entries are in at the moment.
    current: Vec<u8>,
    /// Hashes of the directories that were left.
    left: HashSet<u64>,
    broken: bool,
}

impl Order {
    fn next(&mut self, path: &[u8], is_directory: bool, admission: &Admission) {
        let parent = path.iter().rposition(|c| *c == b'/').map_or(&[][..], |end| &path[..end]);
        while !path::is_within(parent, &self.current) {
            self.left.insert(admission.hash(&self.current));
            let end = self.current.iter().rposition(|c| *c == b'/').unwrap_or(0);
            self.current.truncate(end);
        }
        let into = if is_directory { path } else { parent };
        let entered =
            above(path).chain(is_directory.then_some(path)).filter(|dir| dir.len() > self.current.len());
        self.broken |= entered.into_iter().any(|dir| self.left.contains(&admission.hash(dir)));
        self.current.clear();
        self.current.extend_from_slice(into);
    }
}
