//! Hard links between symlinks, FIFOs, sockets and devices: groups of paths in a snapshot's `ext`, which other programs
//! pass by. (Regular files say it in their items.)
//!
//! ```text
//! links = [ [ path bin, path bin, ... ], ... ]
//! ```

use std::borrow::Cow;
use std::collections::HashMap;

use super::item::{Item, ItemType};
use super::wire::Reader;
use crate::error::{FormatError, Result, VykarError};

/// Key of the groups in `ext`.
pub const LINKS: &str = "links";
/// Most bytes of paths in one snapshot: its object is read whole.
pub const MAX_BYTES: usize = 16 << 20;

/// The paths that are names of one thing, at least two.
pub type Group = Vec<Vec<u8>>;

/// Which items are names of one thing.
#[derive(Debug, Default)]
pub struct Links<'a>(HashMap<Cow<'a, [u8]>, u32>);

impl<'a> Links<'a> {
    /// Reads the value behind [`LINKS`].
    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, FormatError> {
        let mut groups = HashMap::new();
        let mut bytes = 0;
        for group in 0..r.array("hard links")? {
            let group = u32::try_from(group).unwrap_or(u32::MAX);
            for _ in 0..r.array("hard link")? {
                let path = r.bytes("path of a hard link")?;
                // The map takes more for a path than the snapshot does, so the shortest ones count as well.
                bytes += path.len().max(size_of::<Cow<'_, [u8]>>());
                if bytes > 2 * MAX_BYTES {
                    let (found, max) = (bytes as u64, 2 * MAX_BYTES as u64);
                    return Err(FormatError::OutOfBounds { what: "hard links", found, min: 0, max });
                }
                groups.insert(path, group);
            }
        }
        Ok(Links(groups))
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives an item its group, if it has one.
    pub fn mark(&self, item: &mut Item<'_>) {
        if !matches!(item.kind, ItemType::RegularFile | ItemType::Directory) {
            item.link_group = self.0.get(item.path_bytes()).copied();
        }
    }

    /// The groups, without the paths that `keep` refuses.
    pub(super) fn groups(&self, keep: &mut dyn FnMut(&[u8]) -> bool) -> Vec<Group> {
        let mut groups: HashMap<u32, Group> = HashMap::new();
        for (path, group) in self.0.iter().filter(|(path, _)| keep(path)) {
            groups.entry(*group).or_default().push(path.to_vec());
        }
        sorted(groups.into_values())
    }
}

/// Groups of two and more, in the order of their paths.
pub fn sorted(groups: impl Iterator<Item = Group>) -> Vec<Group> {
    let mut groups: Vec<Group> = groups.filter(|group| group.len() > 1).collect();
    groups.iter_mut().for_each(|group| group.sort());
    groups.sort();
    groups
}

/// The entry of `ext`, its key included.
pub(crate) fn encode(groups: &[Group]) -> Result<Vec<u8>> {
    let failed = |reason: String| VykarError::Encode { what: "hard links", reason };
    let count = |n: usize| u32::try_from(n).map_err(|e| failed(e.to_string()));
    let mut out = Vec::new();
    rmp::encode::write_str(&mut out, LINKS).map_err(|e| failed(e.to_string()))?;
    rmp::encode::write_array_len(&mut out, count(groups.len())?).map_err(|e| failed(e.to_string()))?;
    for group in groups {
        rmp::encode::write_array_len(&mut out, count(group.len())?).map_err(|e| failed(e.to_string()))?;
        for path in group {
            rmp::encode::write_bin(&mut out, path).map_err(|e| failed(e.to_string()))?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(paths: &[&str]) -> Group {
        paths.iter().map(|path| path.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let groups = sorted([group(&["b", "a/\u{e9}"]), group(&["alone"])].into_iter());
        assert_eq!(encode(&groups).unwrap(), b"\xa5links\x91\x92\xc4\x04a/\xc3\xa9\xc4\x01b");
    }

    #[test]
    fn only_what_is_neither_a_file_nor_a_directory_is_marked() {
        let bytes = encode(&[group(&["a", "b"]), group(&["c", "d"])]).unwrap();
        let links = Links::read(&mut Reader::new(&bytes["?links".len()..])).unwrap();
        let marked = |path: &'static str, kind| {
            let mut item = Item::new(path, kind);
            links.mark(&mut item);
            item.link_key()
        };
        assert_eq!(marked("a", ItemType::Symlink), marked("b", ItemType::Symlink));
        assert!(marked("a", ItemType::Symlink).is_some());
        assert_ne!(marked("a", ItemType::Symlink), marked("c", ItemType::Fifo));
        assert_eq!(marked("e", ItemType::Symlink), None);
        assert_eq!(marked("a", ItemType::RegularFile), None);
        assert_eq!(links.groups(&mut |path| path != b"d"), [group(&["a", "b"])]);
    }
}
