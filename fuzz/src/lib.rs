//! What the fuzz targets do: one function for each parser, which takes any bytes and panics where the parser breaks
//! a promise. `fuzz_targets/` gives each to libFuzzer. The workspace's end-to-end tests have this file as a module,
//! so that every seed is replayed with each run of the tests, without building anything twice.

mod bound;
mod cli;
mod envelope;
mod item;
mod marker;
mod metadata;
mod pack;
mod payload;

pub use cli::cli;
pub use envelope::envelope;
pub use item::{item, stream};
pub use marker::marker;
pub use metadata::{config, index, key, key_text, pending, snapshot};
pub use pack::pack;
pub use payload::payload;
pub use vykar_core::fuzzing::{file_cache, index_copy, pack_scan, pin, salvage, seen};
pub use vykar_mount::fuzzing::{mountinfo, template, versions_copy};

/// A target: what is done with an input.
pub type Target = fn(&[u8]);

/// All targets by name; each has a file in `fuzz_targets/` and a folder in `seeds/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("cli", cli),
    ("config", config),
    ("envelope", envelope),
    ("file_cache", file_cache),
    ("index", index),
    ("index_copy", index_copy),
    ("item", item),
    ("key", key),
    ("key_text", key_text),
    ("marker", marker),
    ("mount_tree", mount_tree),
    ("mountinfo", mountinfo),
    ("pack", pack),
    ("pack_scan", pack_scan),
    ("payload", payload),
    ("pending", pending),
    ("pin", pin),
    ("restore", restore),
    ("salvage", salvage),
    ("seen", seen),
    ("snapshot", snapshot),
    ("stream", stream),
    ("template", template),
    ("versions_copy", versions_copy),
];

/// Items as a mount makes a tree of them. The input is an item stream.
pub fn mount_tree(data: &[u8]) {
    bound::within(data.len(), 1 << 20, || vykar_mount::fuzzing::tree(data));
}

/// Items as a restore makes a plan of them. The input is an item stream.
pub fn restore(data: &[u8]) {
    bound::within(data.len(), 1 << 20, || vykar_core::fuzzing::restore(data));
}
