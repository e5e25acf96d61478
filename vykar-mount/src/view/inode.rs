//! Inode numbers.
//!
//! ```text
//! bit 63 | 62..32 snapshot | 31..30 view | 29..0 node
//!      0 | 0               | number of a folder above the snapshots, 1 is the root
//!      0 | from its id     | directory: which folder it was reached by; else 0 | its node in the tree
//!
//! bits 63..61 in `versions`
//!         100 | 60..0 from its path: a folder, 0 is `versions` itself
//!         101 | 60..20 from what its section of an item stream is | 19..0 its node there: a version
//!         110 | 60..31 place of a folder among those looked at | 30..0 from its target: a `latest`
//! ```
//!
//! A snapshot is seen in several folders, and a directory must not have two places: the kernel would
//! move it from one to the other under whoever works in it. So each view has its own directories.
//! Everything else may have many names, and is one inode in all views: its pages are cached once.

use vykar_core::SnapshotId;

use crate::tree::NodeId;

/// The root of the file system.
pub const ROOT: u64 = 1;

const NODE_BITS: u32 = 30;
const NODE_MASK: u64 = (1 << NODE_BITS) - 1;
/// The number of what is in `versions` has this bit.
const VERSIONS: u64 = 1 << 63;
/// Bits below the kind of what is in `versions`.
const KIND_SHIFT: u32 = 61;
/// Bits of a version's node.
const VERSION_NODE_BITS: u32 = 20;
/// Most nodes of a section.
pub const MAX_VERSION_NODES: u32 = 1 << VERSION_NODE_BITS;
/// Largest number of a folder in `versions`.
pub const FOLDER_MAX: u64 = (1 << KIND_SHIFT) - 1;
/// Largest number of a section.
pub const SECTION_MAX: u64 = FOLDER_MAX >> VERSION_NODE_BITS;
/// Bits of a target's hash in the number of a `latest`.
const TARGET_BITS: u32 = 31;
/// Largest place of a folder with a `latest`.
pub const PLACE_MAX: u32 = (FOLDER_MAX >> TARGET_BITS) as u32;
/// Largest hash of a target.
pub const TARGET_MAX: u32 = (1 << TARGET_BITS) - 1;
/// Largest number of a snapshot.
const SNAPSHOT_MAX: u32 = i32::MAX as u32;

/// The folders that show whole snapshots, or the first to fourth path template in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// `ids/NAME`
    Ids = 0,
    /// `snapshots/TIME`
    Times = 1,
    /// `hosts/HOST/TIME`
    Hosts = 2,
    /// `labels/LABEL/TIME`
    Labels = 3,
}

impl View {
    /// All of them.
    pub const ALL: [View; 4] = [View::Ids, View::Times, View::Hosts, View::Labels];
}

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inode {
    /// A folder above the snapshots, or a `latest` in one.
    Layout(u32),
    /// Something in a snapshot.
    Node {
        /// The snapshot's number.
        snapshot: u32,
        /// Which folder a directory was reached by; [`View::Ids`] for anything else.
        view: View,
        /// Its number in the tree.
        node: NodeId,
    },
    /// A folder in `versions`, or that itself.
    Folder(u64),
    /// A version of a file or symlink.
    Version {
        /// The number of the section that has it.
        section: u64,
        /// Its number in the section's tree.
        node: NodeId,
    },
    /// A `latest` among versions.
    Latest {
        /// Its folder's place among those looked at.
        place: u32,
        /// Hash of where it points: the kernel never asks again for a target that it has cached.
        target: u32,
    },
}

impl Inode {
    /// Takes a number apart; `None` when it is none of ours.
    pub fn decode(number: u64) -> Option<Inode> {
        let low = number as u32;
        if number & VERSIONS != 0 {
            return Inode::decode_versions(number);
        }
        match u32::try_from(number >> 32) {
            Ok(0) => Some(Inode::Layout(low)),
            Ok(snapshot) if snapshot <= SNAPSHOT_MAX => {
                let view = View::ALL[(low >> NODE_BITS) as usize & 3];
                Some(Inode::Node { snapshot, view, node: (number & NODE_MASK) as NodeId })
            }
            _ => None,
        }
    }

    fn decode_versions(number: u64) -> Option<Inode> {
        let rest = number & FOLDER_MAX;
        match number >> KIND_SHIFT & 3 {
            0 => Some(Inode::Folder(rest)),
            1 => {
                let node = (rest & u64::from(MAX_VERSION_NODES - 1)) as NodeId;
                Some(Inode::Version { section: rest >> VERSION_NODE_BITS, node })
            }
            2 => {
                let (place, target) = ((rest >> TARGET_BITS) as u32, rest as u32 & TARGET_MAX);
                Some(Inode::Latest { place, target })
            }
            _ => None,
        }
    }

    /// The number.
    pub fn encode(self) -> u64 {
        let in_versions = |kind: u64, rest: u64| VERSIONS | kind << KIND_SHIFT | rest & FOLDER_MAX;
        match self {
            Inode::Folder(number) => in_versions(0, number),
            Inode::Version { section, node } => {
                let node = u64::from(node & (MAX_VERSION_NODES - 1));
                in_versions(1, section << VERSION_NODE_BITS | node)
            }
            Inode::Latest { place, target } => {
                in_versions(2, u64::from(place) << TARGET_BITS | u64::from(target & TARGET_MAX))
            }
            Inode::Layout(number) => number.into(),
            Inode::Node { snapshot, view, node } => {
                u64::from(snapshot) << 32 | (view as u64) << NODE_BITS | u64::from(node) & NODE_MASK
            }
        }
    }
}

/// The number a snapshot should get; the next free one where two agree.
pub fn snapshot_number(id: &SnapshotId) -> u32 {
    let [a, b, c, d, ..] = *id.as_bytes();
    (u32::from_be_bytes([a, b, c, d]) >> 1).max(1)
}

/// The number after this one.
pub fn next_snapshot_number(number: u32) -> u32 {
    if number >= SNAPSHOT_MAX { 1 } else { number + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64) {
            if let Some(inode) = Inode::decode(number) {
                prop_assert_eq!(inode.encode(), number);
            } else {
                prop_assert!(number >> 61 == 7);
            }
        }
    }

    #[test]
    fn the_largest_parts_do_not_touch_each_other() {
        for inode in [
            Inode::Folder(FOLDER_MAX),
            Inode::Version { section: SECTION_MAX, node: 0 },
            Inode::Version { section: 0, node: MAX_VERSION_NODES - 1 },
            Inode::Latest { place: PLACE_MAX, target: 0 },
            Inode::Latest { place: 0, target: TARGET_MAX },
        ] {
            assert_eq!(Inode::decode(inode.encode()), Some(inode));
        }
    }

    #[test]
    fn snapshots_never_get_the_layouts_number() {
        assert_eq!(snapshot_number(&SnapshotId([0; 32])), 1);
        assert_eq!(snapshot_number(&SnapshotId([0xff; 32])), SNAPSHOT_MAX);
        assert_eq!(next_snapshot_number(SNAPSHOT_MAX), 1);
    }
}
