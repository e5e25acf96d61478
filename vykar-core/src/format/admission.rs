//! Which items of a snapshot have a place in its tree: one answer for restores, archives and mounts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Longest name of a file in bytes.
pub const NAME_MAX: usize = 255;

/// Why an item that follows the format's rules has no place beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// No file system takes its name, or that of a directory above it.
    #[error("a name is longer than 255 bytes")]
    LongName,
    /// It lies below a file or symlink of the same snapshot.
    #[error("lies below something that is not a directory")]
    BelowFile,
    /// It is no directory, and other items lie below it.
    #[error("the snapshot has entries below it, and it is not a directory")]
    HasEntries,
    /// An earlier item has the same path.
    #[error("the snapshot has this path more than once; the first one counts")]
    Twice,
}

/// True when a name in the path is longer than [`NAME_MAX`].
pub fn has_long_name(path: &[u8]) -> bool {
    path.len() > NAME_MAX && path.split(|c| *c == b'/').any(|name| name.len() > NAME_MAX)
}

/// Admits items in their order. Keeps a hash of each path, 16 bytes or so, and no more.
#[derive(Debug, Default)]
pub struct Admission {
    seen: HashMap<u64, SeenPath>,
    hasher: RandomState,
    /// The directory of the item before: most items are beside it.
    parent: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeenPath {
    /// A directory that only the paths below it tell of.
    Implied,
    Directory,
    Other,
}

impl Admission {
    /// Takes the next item's plain relative path.
    ///
    /// # Errors
    /// The item has no place, and must be left out.
    pub fn admit(&mut self, path: &[u8], is_directory: bool) -> Result<(), Misplaced> {
        if has_long_name(path) {
            return Err(Misplaced::LongName);
        }
        let parent = path.iter().rposition(|c| *c == b'/').map_or(&[][..], |end| &path[..end]);
        let is_new = self.parent != parent;
        if is_new && above(path).any(|dir| self.seen(dir) == Some(SeenPath::Other)) {
            return Err(Misplaced::BelowFile);
        }
        let own = if is_directory { SeenPath::Directory } else { SeenPath::Other };
        match self.seen(path) {
            None => {}
            Some(SeenPath::Implied) if is_directory => {}
            Some(SeenPath::Implied) => return Err(Misplaced::HasEntries),
            Some(_) => return Err(Misplaced::Twice),
        }
        self.seen.insert(self.hash(path), own);
        if is_new {
            for dir in above(path) {
                self.seen.entry(self.hasher.hash_one(dir)).or_insert(SeenPath::Implied);
            }
            self.parent.clear();
            self.parent.extend_from_slice(parent);
        }
        Ok(())
    }

    fn seen(&self, path: &[u8]) -> Option<SeenPath> {
        self.seen.get(&self.hash(path)).copied()
    }

    /// Stands for a path.
    pub fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }

    /// True for a directory, with an item of its own or without.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        path.is_empty() || matches!(self.seen(path), Some(SeenPath::Implied | SeenPath::Directory))
    }

    /// True for a directory that has no item of its own.
    pub fn is_implied(&self, path: &[u8]) -> bool {
        self.seen(path) == Some(SeenPath::Implied)
    }
}

/// The paths of the directories above a path, from the top, but for the top itself.
pub fn above(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(end, _)| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_a_place_or_a_reason() {
        let long = "n".repeat(256);
        let below_long = format!("{long}/x");
        let (directory, other) = (true, false);
        let mut admission = Admission::default();
        for (path, is_directory, expected) in [
            ("early/x", other, Ok(())),
            ("early", other, Err(Misplaced::HasEntries)),
            ("early/y", other, Ok(())),
            ("early", directory, Ok(())),
            ("early", directory, Err(Misplaced::Twice)),
            ("file", other, Ok(())),
            ("file/below/it", other, Err(Misplaced::BelowFile)),
            ("file/below", directory, Err(Misplaced::BelowFile)),
            ("file", directory, Err(Misplaced::Twice)),
            ("early/x/z", other, Err(Misplaced::BelowFile)),
            ("a/b/c", directory, Ok(())),
            (&long, other, Err(Misplaced::LongName)),
            (&below_long, other, Err(Misplaced::LongName)),
        ] {
            assert_eq!(admission.admit(path.as_bytes(), is_directory), expected, "{path}");
        }
        assert!(
            admission.is_implied(b"a/b") && admission.is_directory(b"a/b/c") && admission.is_directory(b"")
        );
        assert!(!admission.is_implied(b"early") && !admission.is_directory(b"file"));
        // What was refused implies nothing.
        assert!(!admission.is_directory(b"file/below") && !admission.is_directory(long.as_bytes()));
    }
}
