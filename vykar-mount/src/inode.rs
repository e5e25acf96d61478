//! Inode numbers.
//!
//! ```text
//! bit 63 | 62..32 snapshot | 31..30 view | 29..0 node
//!      0 | 0               | number of a folder above the snapshots, 1 is the root
//!      0 | from its id     | directory: which folder it was reached by; else 0 | its node in the tree
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
}

impl Inode {
    /// Takes a number apart; `None` when it is none of ours.
    pub fn decode(number: u64) -> Option<Inode> {
        let low = number as u32;
        match u32::try_from(number >> 32) {
            Ok(0) => Some(Inode::Layout(low)),
            Ok(snapshot) if snapshot <= SNAPSHOT_MAX => {
                let view = View::ALL[(low >> NODE_BITS) as usize & 3];
                Some(Inode::Node { snapshot, view, node: (number & NODE_MASK) as NodeId })
            }
            _ => None,
        }
    }

    /// The number.
    pub fn encode(self) -> u64 {
        match self {
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
                prop_assert!(number >> 63 == 0);
            } else {
                prop_assert!(number >> 63 == 1);
            }
        }
    }

    #[test]
    fn snapshots_never_get_the_layouts_number() {
        assert_eq!(snapshot_number(&SnapshotId([0; 32])), 1);
        assert_eq!(snapshot_number(&SnapshotId([0xff; 32])), SNAPSHOT_MAX);
        assert_eq!(next_snapshot_number(SNAPSHOT_MAX), 1);
    }
}
