//! The tree of a snapshot of a million items.

use std::sync::Arc;
use std::time::Instant;

use vykar_core::ChunkId;
use vykar_core::format::{ChunkRef, Item, ItemType};
use vykar_mount::tree::{Builder, Meta};

const MADE_UP: Meta = Meta { mtime: 7, atime: 7, ctime: 7, size: 0, uid: 1, gid: 2, mode: 0o40755 };

fn item(path: &str) -> Item<'_> {
    if !path.ends_with(".rs") {
        return Item { mode: 0o40700, ..Item::new(path, ItemType::Directory) };
    }
    let chunk = ChunkRef { id: ChunkId([9; 32]), size: 9, stored_size: 0 };
    Item { size: 9, chunks: vec![chunk], ..Item::new(path, ItemType::RegularFile) }
}

pub fn a_million_items() {
    let mut paths = Vec::new();
    for top in 0..100 {
        for sub in 0..100 {
            paths.push(format!("usr/share/package-{top}/module{sub}"));
            paths.extend((0..99).map(|n| format!("usr/share/package-{top}/module{sub}/source_file_{n}.rs")));
        }
    }
    let items: Vec<_> = paths.iter().map(|path| item(path)).collect();
    let start = Instant::now();
    let mut report = |_: &[u8], _: &str| {};
    let mut builder = Builder::new(MADE_UP, MADE_UP, Arc::default(), &mut report);
    for item in &items {
        builder.add(item).unwrap();
    }
    let added = start.elapsed();
    let tree = builder.finish().unwrap();
    let total = start.elapsed();
    let bytes = tree.bytes() / tree.len();
    println!("{} nodes: {added:?} adding, {total:?} in all, {bytes} bytes a node", tree.len());
}
