//! A tree of any items.

#![allow(clippy::panic, reason = "that is how a target says what it found")]

use std::sync::Arc;

use vykar_core::format::{IndexBlob, ItemStream};
use vykar_core::repository::read::items::{FoundItem, end_of_chunks, next_chunk};

use super::{Builder, Meta, NAME_MAX, Tree};

/// What an item stream makes of a folder: every name can be one of a file, is there once and is found, and every
/// node is below the root.
pub fn tree(bytes: &[u8]) {
    let directory = Meta { mtime: 0, atime: 0, ctime: 0, size: 0, uid: 0, gid: 0, mode: 0o40755 };
    let mut report = |_: &[u8], reason: &str| assert!(!reason.is_empty());
    let mut builder = Builder::new(directory, directory, Arc::new(IndexBlob::default()), &mut report);
    let mut stream = ItemStream::new();
    let mut found = |found: FoundItem<'_>| {
        if let FoundItem::Item(item) = found {
            assert!(builder.add(&item).is_ok());
        }
        Ok(true)
    };
    if next_chunk(&mut stream, bytes, &mut found).is_ok_and(|more| more) {
        let _ = end_of_chunks(&mut stream, &mut found);
    }
    match builder.finish() {
        Ok(tree) => check(&tree),
        Err(error) => panic!("{error}"),
    }
}

fn check(tree: &Tree) {
    let mut seen = 1;
    for node in 0..tree.len() as u32 {
        let children = tree.children(node);
        assert!(children.end as usize <= tree.len());
        seen += children.len();
        for child in children.clone() {
            let name = tree.name(child);
            assert!(tree.parent(child) == node && child > node && !name.is_empty() && name.len() <= NAME_MAX);
            assert!(!matches!(name, b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
            assert_eq!(tree.lookup(node, name), Some(child));
        }
        let names: Vec<_> = children.map(|child| tree.name(child)).collect();
        assert!(names.is_sorted_by(|a, b| a < b));
        let Some(meta) = tree.meta(node) else { panic!("node {node} says nothing of itself") };
        assert_eq!(tree.target(node).is_some(), meta.kind() == libc::S_IFLNK);
        let content = tree.content(node);
        for at in 0..content.len() {
            let (range, _) = (content.range(at), content.id(at));
            assert!(range.start <= range.end && range.end <= content.size());
        }
        let inode = tree.inode(node);
        assert_eq!(tree.inode(inode), inode);
        assert!(tree.xattrs(node).all(|(name, _)| !name.is_empty() && name.len() <= 255));
    }
    assert_eq!(seen, tree.len(), "nodes that no directory has");
}
