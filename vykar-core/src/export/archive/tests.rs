use proptest::prelude::*;

use super::*;
use crate::format::snapshot::encode_ext;
use crate::format::special;
use crate::testing::{TestRepository, directory, noise, symlink};

/// Type, name, link name and size of each entry; records are left out.
fn entries(archive: &[u8]) -> Vec<(char, String, String, u64)> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|c| *c == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let (mut rest, mut found) = (archive, Vec::new());
    while rest[0] != 0 {
        let (header, behind) = rest.split_at(BLOCK);
        let size = u64::from_str_radix(&text(&header[124..136]), 8).unwrap();
        if header[156] != b'x' {
            found.push((char::from(header[156]), text(&header[..100]), text(&header[157..257]), size));
        }
        rest = &behind[size as usize + padding(size)..];
    }
    assert_eq!(rest, END);
    found
}

struct Written {
    archive: Vec<u8>,
    summary: ArchiveSummary,
    told: Vec<Event>,
}

fn write(t: &TestRepository, snapshot: &Snapshot, top: &str) -> Result<Written, ExportError> {
    let (mut out, mut told) = (Vec::new(), Vec::new());
    let mut listen = |event: Event| told.push(event);
    let summary = archive(&t.repository, snapshot, top.as_bytes(), &mut out, Some(&mut listen))?;
    Ok(Written { archive: out, summary, told })
}

fn names(written: &Written) -> Vec<String> {
    entries(&written.archive).into_iter().map(|(letter, name, ..)| format!("{letter} {name}")).collect()
}

#[test]
fn a_folder_comes_with_the_directories_above_it() {
    let mut t = TestRepository::new();
    let root = Item { mode: 0o040_700, ..Item::new("", ItemType::Directory) };
    let items = [
        directory("a"),
        directory("a/b"),
        t.file("a/b/file", &[7; 700]),
        symlink("a/b/link", "file"),
        t.file("a/other", b"other"),
        directory("ab"),
    ];
    let snapshot = t.snapshot("s", &items, Some(&root));
    let all = write(&t, &snapshot, "").unwrap();
    let expected = ["5 a/", "5 a/b/", "0 a/b/file", "2 a/b/link", "0 a/other", "5 ab/", "5 ./"];
    assert_eq!(names(&all), expected);
    assert_eq!((all.summary.entries, all.summary.bytes, all.summary.left_out), (7, 705, 0));
    assert!(all.archive.windows(700).any(|bytes| bytes == [7; 700]));

    let below = write(&t, &snapshot, "a/b").unwrap();
    assert_eq!(names(&below), expected[..4]);
    assert_eq!(names(&write(&t, &snapshot, "a/b/link").unwrap()), ["5 a/", "5 a/b/", "2 a/b/link"]);
    assert!(below.summary.met && !write(&t, &snapshot, "a/c").unwrap().summary.met);
}

#[test]
fn names_of_one_file_are_links_to_the_first_in_the_archive() {
    let mut t = TestRepository::new();
    let file = t.file("a", &[1; 10]);
    let named = |path: &'static str, item: &Item<'static>| Item {
        path: path.into(),
        hardlink: Some((1, 2)),
        ..item.clone()
    };
    let other = t.file("x", &[2; 10]);
    let items = [named("a", &file), named("d/b", &file), named("d/c", &file), named("d/liar", &other)];
    let snapshot = t.snapshot("s", &items, None);
    let found = |top| entries(&write(&t, &snapshot, top).unwrap().archive);
    let entry = |letter, name: &str, link: &str, size| (letter, name.to_owned(), link.to_owned(), size);
    let (d, liar) = (entry('5', "d/", "", 0), entry('0', "d/liar", "", 10));
    assert_eq!(
        found(""),
        [
            entry('0', "a", "", 10),
            d.clone(),
            entry('1', "d/b", "a", 0),
            entry('1', "d/c", "a", 0),
            liar.clone()
        ]
    );
    assert_eq!(found("d"), [d, entry('0', "d/b", "", 10), entry('1', "d/c", "d/b", 0), liar]);
}

#[test]
fn a_damaged_file_is_left_out_unless_it_is_large() {
    let mut t = TestRepository::new();
    t.chunk_size = 4 << 20;
    let linked =
        |path: &'static str, item: Item<'static>| Item { path: path.into(), hardlink: Some((1, 2)), ..item };
    let (small, large) = (t.file("small", &noise(1, 9000)), t.file("large", &noise(2, 17 << 20)));
    let items = [
        linked("small", small.clone()),
        linked("same", small.clone()),
        t.file("fine", b"fine"),
        Item { size: 3, ..t.file("broken", b"four") },
    ];
    let snapshot = t.snapshot("s", &items, None);
    let whole = t.snapshot("t", std::slice::from_ref(&large), None);
    assert_eq!(write(&t, &whole, "").unwrap().summary.bytes, 17 << 20);
    t.damage(&small.chunks[0].id);
    let written = write(&t, &snapshot, "").unwrap();
    assert_eq!(names(&written), ["0 fine"]);
    let told = written.told.iter().map(|event| match event {
        Event::ItemSkipped { path, .. } => path.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), ["broken", "small", "same"]);
    assert_eq!(written.summary.left_out, 3);

    t.damage(&large.chunks[3].id);
    let mut out = Vec::new();
    let error = archive(&t.repository, &whole, b"", &mut out, None).unwrap_err();
    assert!(matches!(&error, ExportError::File { path, .. } if path == "large"), "{error}");
    assert_eq!(out.len(), BLOCK + (12 << 20), "what is right, and no end");
    // One that is not in the index is left out before anything of it is written.
    t.index.remove(&large.chunks[3].id);
    t.publish();
    let written = write(&t, &whole, "").unwrap();
    assert_eq!((written.archive.len(), written.summary.left_out), (2 * BLOCK, 1));
}

#[test]
fn of_a_path_that_is_there_twice_the_first_counts() {
    let mut t = TestRepository::new();
    // With both in the archive, tar would make way for the second, and what follows would leave the folder.
    let items =
        [directory("d"), symlink("d", "/etc"), t.file("d/passwd", b"root"), t.file("d/passwd", b"other")];
    let snapshot = t.snapshot("s", &items, None);
    let written = write(&t, &snapshot, "").unwrap();
    assert_eq!((names(&written), written.summary.left_out), (vec!["5 d/".into(), "0 d/passwd".into()], 2));
}

#[test]
fn nothing_lies_below_a_symlink() {
    let mut t = TestRepository::new();
    let items =
        [symlink("etc", "/etc"), t.file("etc/passwd", b"root"), directory("etc/d"), t.file("etcetera", b"")];
    let snapshot = t.snapshot("s", &items, None);
    let written = write(&t, &snapshot, "").unwrap();
    assert_eq!((names(&written), written.summary.left_out), (vec!["2 etc".into(), "0 etcetera".into()], 2));
    let written = write(&t, &snapshot, "etc/passwd").unwrap();
    assert_eq!((names(&written).len(), written.summary.left_out), (0, 1));
}

/// The same snapshot with special items.
fn with_specials(t: &TestRepository, snapshot: &Snapshot, items: &[Item<'_>]) -> Snapshot {
    let encoded: Vec<_> = items.iter().map(|item| special::encode(item).unwrap()).collect();
    let ext = encode_ext(snapshot.meta.root_item().as_ref(), &encoded, &[]).unwrap();
    let meta = crate::format::SnapshotMeta { ext, ..snapshot.meta.clone() };
    t.put_snapshot(&meta.encode().unwrap(), Some(meta)).unwrap()
}

fn fifo(path: &str) -> Item<'static> {
    Item::new(path.to_owned(), ItemType::Fifo)
}

#[test]
fn special_files_are_written_with_their_folder() {
    let mut t = TestRepository::new();
    let items = [directory("a"), t.file("a/f", b""), directory("a/s"), directory("b"), t.file("g", b"")];
    let snapshot = t.snapshot("s", &items, None);
    let specials = [fifo("top"), fifo("a/p"), fifo("a/s/t/q"), fifo("a/s/t/r"), fifo("c/p"), fifo("g")];
    let snapshot = with_specials(&t, &snapshot, &specials);
    let written = write(&t, &snapshot, "").unwrap();
    let expected = [
        "5 c/",
        "6 c/p",
        "6 top",
        "5 a/",
        "6 a/p",
        "0 a/f",
        "5 a/s/",
        "5 a/s/t/",
        "6 a/s/t/q",
        "6 a/s/t/r",
        "5 b/",
        "0 g",
    ];
    assert_eq!((names(&written), written.summary.left_out), (expected.map(String::from).to_vec(), 1));
    let below = write(&t, &snapshot, "a/s").unwrap();
    assert_eq!(names(&below), ["5 a/", "5 a/s/", "5 a/s/t/", "6 a/s/t/q", "6 a/s/t/r"]);
}

#[test]
fn folders_without_an_item_let_nobody_in() {
    let mut t = TestRepository::new();
    let items = [t.file("home/ada/f", b""), directory("home/ada")];
    let snapshot = t.snapshot("s", &items, None);
    let written = write(&t, &snapshot, "").unwrap();
    assert_eq!(names(&written), ["5 home/", "5 home/ada/", "0 home/ada/f"]);
    assert_eq!(&written.archive[100..107], b"0000700");
    assert_eq!(&written.archive[136..147], b"15125632645", "the time of the snapshot");
}

#[test]
fn odd_snapshots_are_what_a_restore_makes_of_them() {
    let mut t = TestRepository::new();
    let long = "n".repeat(256);
    let items = [
        t.file("early/x", b""),
        symlink("early", "/etc"),
        t.file("early/y", b""),
        t.file("file", b""),
        t.file("file/below", b""),
        t.file(&long, b""),
        t.file(&format!("{long}/x"), b""),
    ];
    let snapshot = t.snapshot("s", &items, None);
    let written = write(&t, &snapshot, "").unwrap();
    assert_eq!(names(&written), ["5 early/", "0 early/x", "0 early/y", "0 file"]);
    assert_eq!(written.summary.left_out, 4);
}

#[test]
fn names_of_one_symlink_or_fifo_are_links_too() {
    let mut t = TestRepository::new();
    let link = |path, target, key| Item { hardlink: Some((9, key)), ..symlink(path, target) };
    let mut archived = |items: &[Item<'_>]| {
        let snapshot = t.snapshot("s", &[], None);
        let mut out = Vec::new();
        let survey = Survey::default();
        let reader = RefreshingReader::new(&t.repository).unwrap();
        let mut archiver = Archiver {
            content: ContentReader::new(&reader),
            snapshot: &snapshot,
            top: b"",
            out: &mut out,
            events: None,
            survey,
            names: HashMap::new(),
            opened: HashSet::new(),
            summary: ArchiveSummary::default(),
        };
        items.iter().for_each(|item| archiver.item(item).unwrap());
        out.extend(END);
        entries(&out)
            .into_iter()
            .map(|(letter, name, link, _)| format!("{letter} {name} {link}"))
            .collect::<Vec<_>>()
    };
    let pipe = |path| Item { hardlink: Some((9, 2)), ..fifo(path) };
    let items =
        [link("a", "t", 1), link("b", "t", 1), link("liar", "u", 1), pipe("p"), pipe("q"), link("c", "t", 3)];
    assert_eq!(archived(&items), ["2 a t", "1 b a", "2 liar u", "6 p ", "1 q p", "2 c t"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever order the items are in, nothing comes into a directory after something that is not in it.
    #[test]
    fn what_is_in_a_directory_comes_together(
        paths in prop::collection::vec("[ab](/[ab-]){0,4}", 1..20), kinds in prop::collection::vec(0u8..4, 20),
    ) {
        let mut t = TestRepository::new();
        let (mut items, mut specials) = (Vec::new(), Vec::new());
        for (path, kind) in paths.iter().zip(kinds) {
            match kind {
                0 => specials.push(fifo(path)),
                1 => items.push(t.file(path, b"")),
                _ => items.push(directory(path)),
            }
        }
        let snapshot = t.snapshot("s", &items, None);
        let written = write(&t, &with_specials(&t, &snapshot, &specials), "").unwrap();
        let found: Vec<_> = entries(&written.archive).into_iter().map(|(_, name, ..)| name).collect();
        let mut admission = crate::format::admission::Admission::default();
        let all = items.iter().chain(&specials);
        let placed = all.filter(|i| admission.admit(i.path_bytes(), i.kind == ItemType::Directory).is_ok()).count();
        let implied: HashSet<_> = found.iter().flat_map(|n| above(n.trim_end_matches('/').as_bytes()))
            .filter(|dir| admission.is_implied(dir)).collect();
        prop_assert_eq!(found.len(), placed + implied.len());
        let mut left: Vec<&str> = Vec::new();
        let mut before = "";
        for name in &found {
            let dirs = before.match_indices('/').map(|(at, _)| &before[..=at]);
            left.extend(dirs.filter(|dir| !name.starts_with(dir)));
            prop_assert!(!left.iter().any(|dir| name.starts_with(dir)), "{:?}", found);
            before = name;
        }
    }
}
