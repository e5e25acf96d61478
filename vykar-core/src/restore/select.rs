//! Which paths of a snapshot are wanted.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::format::path::plain;
use crate::rules::{FromTop, RuleStanding, Rules, Ruling};

/// How an item's path stands to the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathChoice {
    /// To be restored.
    Selected,
    /// A directory above something selected.
    Above,
    /// Not wanted.
    Outside,
}

/// The wanted paths; everything, when none is given.
pub(super) struct Selection {
    /// Each path, and whether anything matched it.
    paths: HashMap<Vec<u8>, bool>,
    above: HashSet<Vec<u8>>,
    /// Rules of which one must match; `None` when there are none.
    include: Option<Rules>,
    exclude: FromTop,
}

impl Selection {
    /// From paths as people type them: slashes at the ends, doubled ones and `.` do not matter. An
    /// empty path means everything.
    pub fn new(paths: &[Vec<u8>]) -> Self {
        let mut selection = Selection {
            paths: HashMap::new(),
            above: HashSet::new(),
            include: None,
            exclude: FromTop::default(),
        };
        let paths: Vec<_> = paths.iter().map(|path| plain(path)).collect();
        if paths.iter().any(Vec::is_empty) {
            return selection;
        }
        for path in paths {
            for end in slashes(&path) {
                selection.above.insert(path[..end].to_vec());
            }
            selection.paths.insert(path, false);
        }
        selection
    }

    /// With rules beside the paths.
    ///
    /// # Errors
    /// One of them is none that a `.gitignore` may have.
    pub fn with_rules(mut self, include: &[Vec<u8>], exclude: &[Vec<u8>]) -> Result<Self> {
        self.include = match include {
            [] => None,
            rules => Some(Rules::new(rules)?),
        };
        self.exclude = FromTop::new(Rules::new(exclude)?);
        Ok(self)
    }

    /// True when everything is wanted, but for what is excluded.
    pub fn is_everything(&self) -> bool {
        self.paths.is_empty() && self.include.is_none()
    }

    /// Classifies the path of an item, which may be a directory, and remembers what it matched.
    pub fn place(&mut self, path: &[u8], is_dir: bool) -> PathChoice {
        let by_path = self.by_path(path);
        if by_path != PathChoice::Selected {
            return by_path;
        }
        if self.exclude.standing(path, is_dir) != RuleStanding::Stays {
            return PathChoice::Outside;
        }
        match &self.include {
            Some(rules) if !is_included(rules, path, is_dir) => {
                if is_dir {
                    PathChoice::Above
                } else {
                    PathChoice::Outside
                }
            }
            _ => PathChoice::Selected,
        }
    }

    fn by_path(&mut self, path: &[u8]) -> PathChoice {
        if self.paths.is_empty() {
            return PathChoice::Selected;
        }
        let mut place = PathChoice::Outside;
        for end in slashes(path).chain([path.len()]) {
            if let Some(matched) = self.paths.get_mut(&path[..end]) {
                *matched = true;
                place = PathChoice::Selected;
            }
        }
        match place {
            PathChoice::Outside if self.above.contains(path) => PathChoice::Above,
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

/// The rules say so of a path, or of the nearest folder above it that they say something of.
fn is_included(rules: &Rules, path: &[u8], is_dir: bool) -> bool {
    let above: Vec<usize> = slashes(path).collect();
    let folders = above.iter().rev().map(|end| (&path[..*end], true));
    let mut rulings =
        std::iter::once((path, is_dir)).chain(folders).map(|(path, is_dir)| rules.ruling(path, is_dir));
    rulings.find(|ruling| *ruling != Ruling::Silent).is_some_and(|ruling| ruling.is_out())
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
            ("a", PathChoice::Above),
            ("a/b", PathChoice::Selected),
            ("a/b/c/d", PathChoice::Selected),
            ("a/bc", PathChoice::Outside),
            ("c", PathChoice::Selected),
            ("nope", PathChoice::Above),
            ("d", PathChoice::Outside),
        ] {
            assert_eq!(s.place(path.as_bytes(), false), place, "{path}");
        }
        assert_eq!(s.unmatched(), [b"nope/x".to_vec()]);
    }

    #[test]
    fn no_path_or_the_root_is_everything() {
        for paths in [vec![], vec![b"/".to_vec()], vec![b"a".to_vec(), b".".to_vec()]] {
            let mut s = Selection::new(&paths);
            assert!(
                s.is_everything()
                    && s.place(b"x/y", false) == PathChoice::Selected
                    && s.unmatched().is_empty()
            );
        }
    }

    #[test]
    fn rules_choose_among_what_the_paths_select() {
        let rules = |list: &[&str]| list.iter().map(|r| r.as_bytes().to_vec()).collect::<Vec<_>>();
        let selection = Selection::new(&[b"home".to_vec()]);
        let mut s = selection.with_rules(&rules(&["*.txt", "docs/"]), &rules(&["draft*"])).unwrap();
        for (path, is_dir, place) in [
            ("home", true, PathChoice::Above),
            ("home/a.txt", false, PathChoice::Selected),
            ("home/a.jpg", false, PathChoice::Outside),
            ("home/x", true, PathChoice::Above),
            ("home/x/docs", true, PathChoice::Selected),
            ("home/x/docs/any", false, PathChoice::Selected),
            ("home/x/docs/draft1", true, PathChoice::Outside),
            ("home/x/docs/draft1/a.txt", false, PathChoice::Outside),
            ("etc/a.txt", false, PathChoice::Outside),
        ] {
            assert_eq!(s.place(path.as_bytes(), is_dir), place, "{path}");
        }
        assert!(!s.is_everything());
        assert!(Selection::new(&[]).with_rules(&rules(&["a[z-a]"]), &[]).is_err());
    }
}
