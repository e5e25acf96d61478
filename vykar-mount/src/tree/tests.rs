use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use vykar_core::ChunkId;
use vykar_core::format::index::ChunkTable;
use vykar_core::format::{ChunkRef, IndexEntry, Item, ItemType};

use super::*;

const MADE_UP: Meta = Meta { mtime: 7, atime: 7, ctime: 7, size: 0, uid: 1, gid: 2, mode: 0o40755 };

fn build(items: &[Item<'_>]) -> (Tree, Vec<String>) {
    let mut problems = Vec::new();
    let mut report = |path: &[u8], reason: &str| {
        problems.push(format!("{}: {reason}", String::from_utf8_lossy(path)));
    };
    let mut builder = Builder::new(MADE_UP, MADE_UP, Arc::default(), &mut report);
    for item in items {
        builder.add(item).unwrap();
    }
    (builder.finish().unwrap(), problems)
}

fn dir(path: &str) -> Item<'_> {
    Item { mode: 0o40700, ..Item::new(path, ItemType::Directory) }
}

fn file(path: &str, content: u8) -> Item<'_> {
    let chunk = ChunkRef { id: ChunkId([content; 32]), size: content.into(), stored_size: 0 };
    Item { size: content.into(), chunks: vec![chunk], ..Item::new(path, ItemType::RegularFile) }
}

fn link<'a>(path: &'a str, target: &'a str) -> Item<'a> {
    Item { link_target: Some(target.into()), ..Item::new(path, ItemType::Symlink) }
}

/// Every path with its type, permissions and size, found by walking the tree.
fn paths(tree: &Tree) -> Vec<String> {
    (1..tree.len() as NodeId)
        .map(|node| {
            let meta = tree.meta(node).unwrap();
            let path = String::from_utf8_lossy(&tree.path(node)).into_owned();
            assert_eq!(find(tree, &path), Some(node), "{path}");
            format!("{path} {:o}", meta.mode)
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn find(tree: &Tree, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(Tree::ROOT, |at, name| tree.lookup(at, name.as_bytes()))
}

#[test]
fn items_in_any_order_give_the_same_tree() {
    let items = [dir("a"), dir("a/b"), file("a/b/f", 3), file("a/g", 4), link("z", "a/g"), dir("empty")];
    let (expected, _) = build(&items);
    assert_eq!(
        paths(&expected),
        ["a 40700", "a/b 40700", "a/b/f 100000", "a/g 100000", "empty 40700", "z 120000"]
    );
    for turn in 0..items.len() {
        let mut order = items.to_vec();
        order.rotate_left(turn);
        order.reverse();
        let (tree, problems) = build(&order);
        assert_eq!((paths(&tree), problems), (paths(&expected), vec![]));
    }
}

#[test]
fn directories_without_an_item_are_made_up() {
    let (tree, problems) = build(&[file("srv/data/f", 1)]);
    assert_eq!(problems, [""; 0]);
    let data = find(&tree, "srv/data").unwrap();
    assert_eq!(tree.meta(data), Some(&MADE_UP));
    assert_eq!((tree.nlink(Tree::ROOT), tree.nlink(data)), (3, 2));
    assert_eq!(tree.parent(data), find(&tree, "srv").unwrap());
}

#[test]
fn the_first_of_several_items_counts() {
    let (tree, problems) =
        build(&[file("f", 1), file("f", 2), dir("d"), link("d", "t"), link("e", "x"), dir("e"), dir("f")]);
    assert_eq!(paths(&tree), ["d 40700", "e 120000", "f 100000"]);
    assert_eq!(tree.meta(find(&tree, "f").unwrap()).unwrap().size, 1);
    assert_eq!(tree.target(find(&tree, "e").unwrap()), Some(&b"x"[..]));
    let again = |path| format!("{path}: the snapshot has this path more than once; the first one counts");
    assert_eq!(problems, ["f", "d", "e", "f"].map(again));
    // One that has no place is none of them, and one that only paths below it tell of is not said twice.
    let (tree, problems) = build(&[file("a/b", 1), file("a", 2), dir("a"), dir("a")]);
    assert_eq!(paths(&tree), ["a 40700", "a/b 100000"]);
    assert_eq!(
        problems,
        ["a: the snapshot has entries below it, and it is not a directory".to_owned(), again("a")]
    );
}

#[test]
fn what_contradicts_is_reported_and_left_out() {
    let long = format!("ok/{}", "n".repeat(256));
    let (tree, problems) = build(&[
        file("a/b", 1),
        file("a", 2),
        file("f", 1),
        file("f/x", 1),
        file("f/y/z", 1),
        file(&long, 1),
    ]);
    assert_eq!(paths(&tree), ["a 40755", "a/b 100000", "f 100000"]);
    assert_eq!(problems.len(), 4);
    assert!(problems[0].starts_with("a: ") && problems[1].starts_with("f/x: "), "{problems:?}");
}

#[test]
fn a_directory_that_is_there_again_keeps_its_place_and_its_contents() {
    let (tree, problems) = build(&[dir("d"), file("d", 1), file("d/x", 1)]);
    assert_eq!(paths(&tree), ["d 40700", "d/x 100000"]);
    assert_eq!(problems.len(), 1);
    let (tree, problems) = build(&[dir("d"), file("d/x", 1), file("e/y", 1), dir("d"), file("d/z", 1)]);
    assert_eq!(paths(&tree), ["d 40700", "d/x 100000", "d/z 100000", "e 40755", "e/y 100000"]);
    assert_eq!(problems.len(), 1);
}

#[test]
fn hard_links_share_an_inode_only_when_their_contents_agree() {
    let member = |path, content| Item { hardlink: Some((1, 2)), ..file(path, content) };
    let (tree, _) =
        build(&[member("b", 5), member("a", 5), member("c", 5), member("other", 6), file("plain", 5)]);
    let of = |path| find(&tree, path).unwrap();
    assert_eq!(tree.inode(of("b")), of("a"));
    assert_eq!(tree.inode(of("c")), of("a"));
    assert_eq!(tree.inode(of("other")), of("other"));
    assert_eq!(["a", "b", "c", "other", "plain"].map(|p| tree.nlink(of(p))), [3, 3, 3, 1, 1]);
    // One that is left out does not count.
    let (tree, _) = build(&[member("a", 5), file("b", 5), member("b", 5)]);
    assert_eq!(tree.nlink(find(&tree, "a").unwrap()), 1);
}

#[test]
fn deep_paths_need_no_stack() {
    let path = vec!["d"; 10_000].join("/");
    let (tree, problems) = build(&[file(&path, 1)]);
    assert_eq!((tree.len(), problems.len()), (10_001, 0));
    assert_eq!(tree.path(10_000), path.as_bytes());
    assert_eq!(find(&tree, &path), Some(10_000));
}

#[test]
fn attributes_and_times() {
    let xattrs = || Some(vec![(Cow::Borrowed("user.k"), Cow::Borrowed(&b"v"[..]))]);
    let a = Item { xattrs: xattrs(), mtime: -5, ..file("a", 1) };
    let b = Item { xattrs: xattrs(), mtime: 9, atime: Some(1), ctime: Some(2), ..dir("b") };
    let (tree, _) = build(&[b, a, file("c", 1)]);
    for path in ["a", "b"] {
        assert_eq!(
            tree.xattrs(find(&tree, path).unwrap()).collect::<Vec<_>>(),
            [(&b"user.k"[..], &b"v"[..])]
        );
    }
    assert_eq!(tree.xattrs(find(&tree, "c").unwrap()).count(), 0);
    assert_eq!(tree.xattr_bytes.len(), 12, "equal sets are kept once");
    let a = tree.meta(find(&tree, "a").unwrap()).unwrap();
    assert_eq!((a.mtime, a.atime, a.ctime), (-5, -5, -5));
    let b = tree.meta(find(&tree, "b").unwrap()).unwrap();
    assert_eq!((b.mtime, b.atime, b.ctime), (9, 1, 2));
}

#[test]
fn pieces_are_cumulative() {
    let chunk = |n: u8, size| ChunkRef { id: ChunkId([n; 32]), size, stored_size: 0 };
    let item = Item {
        chunks: vec![chunk(1, 10), chunk(2, 0), chunk(3, 5)],
        size: 15,
        ..Item::new("f", ItemType::RegularFile)
    };
    let (tree, _) = build(&[item]);
    let content = tree.content(1);
    assert_eq!((0..4).map(|at| content.range(at)).collect::<Vec<_>>(), [0..10, 10..10, 10..15, 15..15]);
    assert_eq!([0, 9, 10, 14, 15].map(|offset| content.find(offset)), [0, 0, 2, 2, 3]);
    assert_eq!((content.size(), content.chunks().last()), (15, Some((2, 5))));
    assert!(tree.content(0).is_empty() && tree.content(99).is_empty());
}

#[test]
fn chunks_are_named_by_the_index_and_those_it_does_not_know_by_themselves() {
    let entry = |n: u8| IndexEntry {
        id: ChunkId([n; 32]),
        refcount: 1,
        stored_size: 1,
        pack: vykar_core::PackId([0; 32]),
        offset: 13,
    };
    let chunks = ChunkTable::build([entry(1), entry(3)]).unwrap();
    let index = Arc::new(IndexBlob { generation: 1, chunks });
    let chunk = |n: u8| ChunkRef { id: ChunkId([n; 32]), size: 1 << 20, stored_size: 0 };
    let ids = [3, 2, 1, 2, 9];
    let item = Item { chunks: ids.map(chunk).to_vec(), ..Item::new("f", ItemType::RegularFile) };
    let mut report = |_: &[u8], _: &str| {};
    let mut builder = Builder::new(MADE_UP, MADE_UP, index, &mut report);
    builder.add(&item).unwrap();
    let tree = builder.finish().unwrap();
    let content = tree.content(1);
    assert_eq!([0, 1, 2, 3, 4].map(|at| content.id(at)), ids.map(|n| ChunkId([n; 32])));
    assert_eq!(tree.strangers.len(), 2);
}

#[test]
fn many_chunks_are_looked_up_beside_and_none_is_mixed_up() {
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        ChunkId(id)
    };
    let entry = |n| {
        let pack = vykar_core::PackId([0; 32]);
        IndexEntry { id: id(n), refcount: 1, stored_size: 1, pack, offset: 13 }
    };
    let count = 100_000;
    let chunks = ChunkTable::build((0..count).filter(|n| n % 3 > 0).map(entry)).unwrap();
    let mut report = |_: &[u8], _: &str| {};
    let index = Arc::new(IndexBlob { generation: 1, chunks });
    let mut builder = Builder::new(MADE_UP, MADE_UP, index, &mut report);
    let chunk = |n| ChunkRef { id: id(n), size: 1, stored_size: 0 };
    let item = Item { chunks: (0..count).map(chunk).collect(), ..Item::new("f", ItemType::RegularFile) };
    builder.add(&item).unwrap();
    let tree = builder.finish().unwrap();
    let content = tree.content(1);
    assert!((0..count).all(|n| content.id(n as usize) == id(n)));
    assert_eq!(tree.strangers.len(), count as usize / 3 + 1);
}

#[test]
fn large_offsets_fit() {
    let end = (5 << 40) + 7;
    assert_eq!(TreePiece::new(1, end).end(), end);
}

/// What the builder promises, on a map of paths.
#[derive(Default)]
struct Model {
    paths: BTreeMap<String, char>,
    /// Those that an item told of.
    told: std::collections::BTreeSet<String>,
}

impl Model {
    fn add(&mut self, path: &str, kind: char) {
        let above: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        // What lies above and is new stays, even where something further down is in the way.
        for dir in above {
            match self.paths.get(dir) {
                Some('d') => {}
                Some(_) => return,
                None => drop(self.paths.insert(dir.to_owned(), 'd')),
            }
        }
        let is_above = self.paths.contains_key(path) && kind != 'd';
        if !is_above && self.told.insert(path.to_owned()) {
            self.paths.insert(path.to_owned(), kind);
        }
    }
}

proptest! {
    #[test]
    fn trees_match_a_plain_model(
        items in prop::collection::vec(("[abc](/[abc]){0,4}", prop::sample::select(vec!['d', 'f', 'l'])), 0..60),
    ) {
        let mut model = Model::default();
        let made: Vec<Item<'_>> = items.iter().map(|(path, kind)| {
            model.add(path, *kind);
            match kind {
                'd' => dir(path),
                'f' => file(path, 3),
                _ => link(path, "t"),
            }
        }).collect();
        let (tree, _) = build(&made);
        let found: BTreeMap<String, char> = (1..tree.len() as NodeId).map(|node| {
            let kind = match tree.meta(node).unwrap().kind() {
                libc::S_IFDIR => 'd',
                libc::S_IFREG => 'f',
                _ => 'l',
            };
            (String::from_utf8(tree.path(node)).unwrap(), kind)
        }).collect();
        prop_assert_eq!(&found, &model.paths);
        for node in 0..tree.len() as NodeId {
            let names: Vec<_> = tree.children(node).map(|c| tree.name(c)).collect();
            prop_assert!(names.is_sorted_by(|a, b| a < b));
            prop_assert!(tree.children(node).all(|c| tree.parent(c) == node));
        }
    }
}
