//! Which paths of a snapshot are wanted.

use std::collections::{HashMap, HashSet};

use crate::format::path::plain;

/// How an item's path stands to the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To be restored.
    Selected,
    /// A directory above something selected.
    Above,
    /// Not wanted.
    Outside,
}

/// The wanted paths; everything, when none is given.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Each path, and whether anything matched it.
    paths: HashMap<Vec<u8>, bool>,
    above: HashSet<Vec<u8>>,
}

impl Selection {
    /// From paths as people type them: slashes at the ends, doubled ones and `.` do not matter. An
    /// empty path means everything.
    pub fn new(paths: &[Vec<u8>]) -> Self {
        let paths: Vec<_> = paths.iter().map(|path| plain(path)).collect();
        if paths.iter().any(Vec::is_empty) {
            return Selection::default();
        }
        let mut selection = Selection::default();
        for path in paths {
            for end in slashes(&path) {
                selection.above.insert(path[..end].to_vec());
            }
            selection.paths.insert(path, false);
        }
        selection
    }

    /// True when nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.paths.is_empty()
    }

    /// Classifies an item's path, and remembers what it matched.
    pub fn place(&mut self, path: &[u8]) -> Place {
        if self.is_everything() {
            return Place::Selected;
        }
        let mut place = Place::Outside;
        for end in slashes(path).chain([path.len()]) {
            if let Some(matched) = self.paths.get_mut(&path[..end]) {
                *matched = true;
                place = Place::Selected;
            }
        }
        match place {
            Place::Outside if self.above.contains(path) => Place::Above,
            place => place,
        }
    }

    /// The paths that nothing matched, sorted.
    pub fn unmatched(&self) -> Vec<Vec<u8>> {
        let missed = self.paths.iter().filter(|(_, matched)| !**matched);
        let mut missed: Vec<_> = missed.map(|(path, _)| path.clone()).collect();
        missed.sort();
        missed
    }
}

fn slashes(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_select_themselves_and_what_is_below() {
        let mut s = Selection::new(&[b"/a//b/".to_vec(), b"./c".to_vec(), b"nope/x".to_vec()]);
        for (path, place) in [
            ("a", Place::Above),
            ("a/b", Place::Selected),
            ("a/b/c/d", Place::Selected),
            ("a/bc", Place::Outside),
            ("c", Place::Selected),
            ("nope", Place::Above),
            ("d", Place::Outside),
        ] {
            assert_eq!(s.place(path.as_bytes()), place, "{path}");
        }
        assert_eq!(s.unmatched(), [b"nope/x".to_vec()]);
    }

    #[test]
    fn no_path_or_the_root_is_everything() {
        for paths in [vec![], vec![b"/".to_vec()], vec![b"a".to_vec(), b".".to_vec()]] {
            let mut s = Selection::new(&paths);
            assert!(s.is_everything() && s.place(b"x/y") == Place::Selected && s.unmatched().is_empty());
        }
    }
}
