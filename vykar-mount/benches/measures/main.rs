//! Time and memory of the mount's parts with many items and many snapshots, without FUSE.
//!
//! ```text
//! make bench-mount-parts                    all
//! make bench-mount-parts ONLY=versions      those whose name contains "versions"
//! ```
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

#[allow(dead_code, reason = "made for tests")]
#[path = "../../src/testing.rs"]
mod testing;
mod tree;
mod versions;

// As the repositories for tests name them.
use vykar_mount::{fs, log};

mod view {
    pub mod inode {
        pub const ROOT: u64 = 1;
    }
    pub use vykar_mount::view::{attr_mapping, subtree_root};
}

fn main() {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for (name, measure) in [("tree", tree::a_million_items as fn()), ("versions", versions::scale)] {
        if name.contains(&only) {
            println!("{name}:");
            measure();
        }
    }
}
