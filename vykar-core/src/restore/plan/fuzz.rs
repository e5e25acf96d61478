//! A plan of any items.

use std::collections::HashMap;
use std::sync::Arc;

use super::{NodeKind, PlanTree, Planner, ROOT, RestorePlan};
use crate::format::index::ChunkTable;
use crate::format::{IndexBlob, IndexEntry, ItemStream};
use crate::id::PackId;
use crate::repository::read::items::{FoundItem, end_of_chunks, next_chunk};
use crate::restore::metadata::Owners;
use crate::restore::report::Reporter;
use crate::restore::select::Selection;

/// What an item stream makes of a restore: every name has one place, below directories alone, and nothing leads
/// out of the destination. Even chunks are in the index, odd ones are lost.
pub fn restore(stream: &[u8]) {
    let mut ids = Vec::new();
    for_each(stream, &mut |found| {
        if let FoundItem::Item(item) = found {
            ids.extend(item.chunks.iter().map(|chunk| chunk.id).filter(|id| id.0[0].is_multiple_of(2)));
        }
    });
    ids.sort_unstable();
    ids.dedup();
    let entry = |id| IndexEntry { id, refcount: 1, stored_size: 1, pack: PackId([0; 32]), offset: 13 };
    let Ok(chunks) = ChunkTable::build(ids.into_iter().map(entry)) else { return };
    let index = Arc::new(IndexBlob { generation: 0, chunks });
    for paths in [vec![], vec![b"a/b".to_vec(), b"c".to_vec()]] {
        let plan = RestorePlan {
            tree: PlanTree::new(),
            pieces: Vec::new(),
            leaders: HashMap::new(),
            index: index.clone(),
        };
        let (selection, owners) = (Selection::new(&paths), Owners::new(true));
        let mut planner = Planner { plan, selection, owners, links: HashMap::new() };
        let mut reporter = Reporter::new(None);
        for_each(stream, &mut |found| {
            if let FoundItem::Item(item) = found {
                planner.item(&item, &mut reporter);
            }
        });
        planner.plan.tree.want_parents();
        check(&planner.plan);
    }
}

fn for_each(bytes: &[u8], each: &mut dyn FnMut(FoundItem<'_>)) {
    let mut stream = ItemStream::new();
    let mut found = |found: FoundItem<'_>| {
        each(found);
        Ok(true)
    };
    if next_chunk(&mut stream, bytes, &mut found).is_ok_and(|more| more) {
        let _ = end_of_chunks(&mut stream, &mut found);
    }
}

fn check(plan: &RestorePlan) {
    let tree = &plan.tree;
    for number in tree.numbers() {
        let (node, name) = (tree.node(number), tree.name(number));
        assert!(node.parent < number && !matches!(name, b"" | b"." | b".."));
        assert!(!name.contains(&b'/') && !name.contains(&0));
        let parent = tree.node(node.parent);
        assert!(node.parent == ROOT || matches!(parent.kind, NodeKind::Implied | NodeKind::Directory));
        assert!(parent.wanted || !node.wanted);
        let content = match &node.kind {
            NodeKind::File(content) => content,
            NodeKind::Link { leader, content } => {
                assert!(matches!(tree.node(*leader).kind, NodeKind::File(first) if first == *content));
                content
            }
            _ => continue,
        };
        let pieces = plan.pieces(content);
        assert_eq!(pieces.iter().map(|piece| u64::from(piece.size)).sum::<u64>(), content.size);
        assert!(pieces.iter().all(|piece| (piece.slot as usize) < plan.index.chunks.len()));
    }
}
