//! Paths, each kept once: a parent and a name.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// The path that is empty.
pub(super) const TOP: u32 = 0;

/// Paths by number, about 30 bytes each. Numbers are given out in order, a parent's before its children's.
#[derive(Debug)]
pub(super) struct Paths {
    paths: Vec<NamedPath>,
    names: Vec<u8>,
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Clone, Copy)]
struct NamedPath {
    parent: u32,
    name: u32,
    name_len: u8,
}

impl Default for Paths {
    fn default() -> Self {
        let top = NamedPath { parent: TOP, name: 0, name_len: 0 };
        Paths {
            paths: vec![top],
            names: Vec::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Paths {
    /// How many there are, the empty one included.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// The path without its last component; that of [`TOP`] is itself.
    pub(super) fn parent(&self, at: u32) -> u32 {
        self.paths.get(at as usize).map_or(TOP, |path| path.parent)
    }

    /// The last component.
    pub(super) fn name(&self, at: u32) -> &[u8] {
        self.paths.get(at as usize).map_or(&[], |path| name_of(&self.names, path))
    }

    /// The whole path.
    pub(super) fn path(&self, at: u32) -> Vec<u8> {
        let (mut names, mut at) = (Vec::new(), at);
        while at != TOP {
            names.push(self.name(at));
            at = self.parent(at);
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The number of `name` below `parent`.
    pub(super) fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        self.by_name.find(hash, |at| self.is(*at, parent, name)).copied()
    }

    /// The number of a path.
    pub(super) fn follow(&self, path: &[u8]) -> Option<u32> {
        components(path).try_fold(TOP, |at, name| self.find(at, name))
    }

    /// The number of `name` below `parent`, a new one where it has none. `None` for a name that no file can
    /// have, and when there is no room.
    pub(super) fn add(&mut self, parent: u32, name: &[u8]) -> Option<u32> {
        let name_len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        let hash = self.hasher.hash_one((parent, name));
        let (paths, names, hasher) = (&self.paths, &self.names, &self.hasher);
        let same = |at: &u32| {
            paths.get(*at as usize).is_some_and(|p| p.parent == parent && name_of(names, p) == name)
        };
        let rehash = |at: &u32| {
            let path = &paths[*at as usize];
            hasher.hash_one((path.parent, name_of(names, path)))
        };
        let vacant = match self.by_name.entry(hash, same, rehash) {
            Entry::Occupied(found) => return Some(*found.get()),
            Entry::Vacant(vacant) => vacant,
        };
        // Whoever uses the numbers may put a flag beside them.
        let at = u32::try_from(self.paths.len()).ok().filter(|at| *at < 1 << 31)?;
        let start = u32::try_from(self.names.len()).ok()?;
        vacant.insert(at);
        self.names.extend_from_slice(name);
        self.paths.push(NamedPath { parent, name: start, name_len });
        Some(at)
    }

    /// The same for a whole path.
    pub(super) fn add_path(&mut self, path: &[u8]) -> Option<u32> {
        components(path).try_fold(TOP, |at, name| self.add(at, name))
    }

    fn is(&self, at: u32, parent: u32, name: &[u8]) -> bool {
        self.parent(at) == parent && self.name(at) == name
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|c| *c == b'/').filter(|name| !name.is_empty())
}

fn name_of<'n>(names: &'n [u8], path: &NamedPath) -> &'n [u8] {
    let from = path.name as usize;
    names.get(from..from + usize::from(path.name_len)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_number_and_a_number_one_path() {
        let mut paths = Paths::default();
        let all = ["", "a", "a/b", "a/b/c", "b", "b/a", "a/bb"];
        let numbers: Vec<_> = all.iter().map(|path| paths.add_path(path.as_bytes()).unwrap()).collect();
        assert_eq!(paths.len(), all.len());
        for (path, number) in all.iter().zip(&numbers) {
            assert_eq!(paths.path(*number), path.as_bytes());
            assert_eq!(paths.follow(path.as_bytes()), Some(*number));
            assert_eq!(paths.add_path(path.as_bytes()), Some(*number));
            assert!(paths.parent(*number) <= *number);
        }
        assert_eq!((paths.follow(b"a/c"), paths.follow(b"c")), (None, None));
        assert_eq!(paths.add(TOP, &[b'n'; 256]), None);
        assert_eq!(paths.add(TOP, b""), None);
    }
}
