use super::*;
use crate::format::ItemType;
use crate::testing::{TestRepository, directory, symlink};

fn letter(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Type => 'T',
        ChangeKind::Content => 'M',
        ChangeKind::Metadata => 'm',
    }
}

/// What is said of each path, in short.
fn said(report: &DiffReport) -> Vec<String> {
    let change = |change: &Change| {
        let aspects: Vec<_> = change.differences().iter().map(ToString::to_string).collect();
        let path = String::from_utf8_lossy(&change.path);
        format!("{} {path} {}", letter(change.kind()), aspects.join(",")).trim_end().to_owned()
    };
    report.changes.iter().map(change).collect()
}

fn compared(t: &TestRepository, before: &Snapshot, after: &Snapshot, top: &str) -> DiffReport {
    let reader = t.repository.chunk_reader().unwrap();
    diff(&reader, (before, after), top.as_bytes(), Some(&mut |event: Event| panic!("{event:?}"))).unwrap()
}

#[test]
fn every_kind_of_change_is_named() {
    let mut t = TestRepository::new();
    let root = |mtime| Item { mtime, ..Item::new("", ItemType::Directory) };
    let before = [
        directory("d"),
        t.file("d/content", b"one"),
        t.file("d/same", b"same"),
        t.file("d/was-file", b"file"),
        t.file("gone", b"gone"),
        t.file("mode", b"mode"),
        symlink("link", "a"),
    ];
    let same = Item { atime: Some(1), ctime: Some(2), ..before[2].clone() };
    let after = [
        symlink("link", "b"),
        Item { mode: 0o100_600, mtime: 5, ..before[5].clone() },
        Item { mtime: 9, ..directory("d") },
        Item { mtime: 7, ..t.file("d/content", b"another") },
        same,
        symlink("d/was-file", "x"),
        t.file("d/came", b"came!"),
    ];
    let (before, after) = (t.snapshot("a", &before, Some(&root(1))), t.snapshot("b", &after, Some(&root(2))));
    let report = compared(&t, &before, &after, "");
    let expected = [
        "m  mtime",
        "m d mtime",
        "+ d/came",
        "M d/content content,mtime",
        "T d/was-file type",
        "- gone",
        "m link target",
        "m mode mode,mtime",
    ];
    assert_eq!(said(&report), expected);
    let summary = DiffSummary {
        added: 1,
        removed: 1,
        types: 1,
        content: 1,
        metadata: 4,
        unchanged: 1,
        added_bytes: 5,
        removed_bytes: 4,
        type_bytes: (4, 0),
        content_bytes: (3, 7),
    };
    assert_eq!((&report.summary, report.complete, report.met), (&summary, true, true));
    assert_eq!(said(&compared(&t, &before, &after, "d")), expected[1..5]);
    assert_eq!(said(&compared(&t, &before, &after, "gone")), ["- gone"]);
    assert!(!compared(&t, &before, &after, "nowhere").met);

    let back = compared(&t, &after, &before, "");
    assert_eq!(said(&back)[2], "- d/came");
    assert_eq!((back.summary.added_bytes, back.summary.content_bytes), (4, (7, 3)));
    let same = compared(&t, &after, &after, "");
    assert_eq!((said(&same).len(), same.summary.unchanged), (0, 8));
}

#[test]
fn hard_links_differ_when_they_lead_to_another_name() {
    let mut t = TestRepository::new();
    let linked = |item: &Item<'static>, path: &'static str, ino: u64| Item {
        hardlink: Some((1, ino)),
        path: path.into(),
        ..item.clone()
    };
    let file = t.file("f", b"content");
    let before = [linked(&file, "a", 7), linked(&file, "b", 7), linked(&file, "c", 7)];
    // Other inodes are no difference; b is a file of its own now, and d is new.
    let after = [linked(&file, "a", 9), linked(&file, "b", 8), linked(&file, "c", 9), linked(&file, "d", 9)];
    let (before, after) = (t.snapshot("a", &before, None), t.snapshot("b", &after, None));
    assert_eq!(said(&compared(&t, &before, &after, "")), ["m b hardlink", "+ d"]);
}

#[test]
fn of_a_path_that_is_there_twice_the_first_counts() {
    let mut t = TestRepository::new();
    let (one, two) = (t.file("f", b"one"), t.file("f", b"two"));
    let (plain, twice) = (
        t.snapshot("a", std::slice::from_ref(&one), None),
        t.snapshot("b", &[one.clone(), two.clone()], None),
    );
    let (other, none) = (t.snapshot("c", &[two, one], None), t.snapshot("d", &[], None));
    assert_eq!(said(&compared(&t, &plain, &twice, "")), [""; 0]);
    assert_eq!(said(&compared(&t, &twice, &other, "")), ["M f content"]);
    assert_eq!(said(&compared(&t, &none, &twice, "")), ["+ f"]);
    assert_eq!(said(&compared(&t, &twice, &none, "")), ["- f"]);
}

#[test]
fn what_cannot_be_read_is_told_once() {
    let mut t = TestRepository::new();
    let items: Vec<_> = (0..40).map(|n| directory(&format!("directory-{n}"))).collect();
    let whole = t.snapshot("a", &items, None);
    let mut items = items;
    items[20].mode = 0o040_700;
    let torn = t.snapshot("b", &items, None);
    let own = |id: &&crate::id::ChunkId| !whole.meta.item_ptrs.contains(id);
    t.damage(torn.meta.item_ptrs.iter().find(own).unwrap());
    let reader = t.repository.chunk_reader().unwrap();
    let mut told = 0;
    let mut listen = |event: Event| {
        assert!(matches!(event, Event::SnapshotUnreadable { .. }), "{event:?}");
        told += 1;
    };
    let report = diff(&reader, (&torn, &whole), b"", Some(&mut listen)).unwrap();
    assert!(!report.complete && report.summary.added > 10, "{:?}", report.summary);
    assert_eq!(told, 1);
}
