//! Snapshots made of snapshots, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::note::{COPIED_FROM, REWRITTEN_FROM, noted};
use crate::format::snapshot::encode_ext;
use crate::format::{Encryption, special};
use crate::maintenance::{CheckOptions, check};
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::repository::{ChunkReader, Manifest};
use crate::snapshot_ops::*;
use crate::testing::{TestRepository, directory, noise, symlink};

/// All items of a snapshot with their contents, by their paths; ids of chunks are left out.
fn contents(repository: &Repository, snapshot: &Snapshot) -> BTreeMap<String, (Item<'static>, Vec<u8>)> {
    let reader: ChunkReader = repository.chunk_reader().unwrap();
    let mut all = BTreeMap::new();
    for_each_item(&reader, snapshot, &mut |found| {
        let FoundItem::Item(item) = found else { panic!("{found:?}") };
        let mut item = item.into_owned();
        let data =
            item.chunks.iter().flat_map(|c| reader.read_sized(&c.id, c.size).unwrap().to_vec()).collect();
        item.chunks.clear();
        all.insert(item.path.clone().into_owned(), (item, data));
        Ok(true)
    })
    .unwrap();
    all
}

/// Every count is right, and every chunk what its id says.
fn assert_clean(repository: &Repository) {
    let options = CheckOptions { verify_data: true, ..CheckOptions::default() };
    let report = check(repository, &options, None).unwrap();
    let bad: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(bad.iter().all(|text| text.contains("does not name")), "{bad:#?}");
}

/// One with two snapshots that share a file.
fn source(encryption: Encryption) -> (TestRepository, [Snapshot; 2]) {
    let mut t = TestRepository::with(encryption);
    let (common, own) = (noise(1, 200_000), noise(2, 100_000));
    let items = [t.file("common", &common), directory("d"), t.file("d/own", &own), symlink("link", "d/own")];
    let first = t.snapshot("first", &items, None);
    let items = [
        directory("d"),
        t.file("d/a.txt", &common),
        t.file("d/b.txt", &common),
        directory("d/keep"),
        t.file("d/keep/a.txt", &own),
        t.file("empty", b""),
        directory("out"),
        directory("out/below"),
        t.file("out/below/x", &noise(3, 5000)),
    ];
    let second = t.snapshot("second", &items, Some(&directory("")));
    // With special items and a key of somebody else's.
    let mut meta = second.meta;
    let specials =
        ["d/fifo", "out/fifo"].map(|path| special::encode(&Item::new(path, ItemType::Fifo)).unwrap());
    let mut ext = encode_ext(Some(&directory("")), &specials, &[]).unwrap().unwrap().into_vec();
    ext[0] += 1;
    ext.extend(b"\xa1z\x2a");
    meta.ext = Some(ext.into());
    (meta.comment, meta.source_label) = ("a comment".into(), "label".into());
    t.backend_delete(&second.id);
    let second = t.put_snapshot(&meta.encode().unwrap(), Some(meta)).unwrap();
    (t, [first, second])
}

impl TestRepository {
    fn backend_delete(&self, id: &SnapshotId) {
        use crate::storage::Backend;
        self.backend.delete(&crate::repository::snapshot_key(id)).unwrap();
    }

    fn packs(&self) -> usize {
        use crate::storage::Backend;
        self.backend.list("packs/").unwrap().len()
    }
}

fn without(patterns: &[&str]) -> RewriteOptions {
    let patterns = patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
    RewriteOptions { patterns, report_excluded: true, ..RewriteOptions::default() }
}

fn names<T>(all: &BTreeMap<String, T>) -> String {
    all.keys().cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn exactly_what_the_rules_match_is_left_out() {
    let (t, [_, second]) = source(Encryption::None);
    let before = contents(&t.repository, &second);
    let mut told = Vec::new();
    let mut listen = |event| match event {
        Event::Excluded { path, why } => told.push(format!("{} {why}", path.display())),
        other => panic!("{other:?}"),
    };
    let options = without(&["*.txt", "!/d/b.txt", "/out/", "!x"]);
    let done = rewrite(&t.repository, &second, &options, Some(&mut listen)).unwrap();
    assert_eq!((done.left_out, done.files, done.bytes), (6, 3, 305_000));
    told.sort();
    let rule = "the rule `*.txt`";
    assert_eq!(
        told,
        [format!("d/a.txt {rule}"), format!("d/keep/a.txt {rule}"), "out the rule `/out/`".into()]
    );

    let (id, meta) = done.made.unwrap();
    let new = Snapshot::new(id, meta.clone()).unwrap();
    let after = contents(&t.repository, &new);
    assert_eq!(names(&after), "d d/b.txt d/fifo d/keep empty");
    assert!(after.iter().all(|(path, found)| before[path] == *found));
    assert_eq!(contents(&t.repository, &second), before, "the original stays");
    assert_clean(&t.repository);

    let old = &second.meta;
    assert!(meta.name != old.name && meta.name.len() == 8, "{}", meta.name);
    let stats = meta.stats;
    assert_eq!((stats.nfiles, stats.original_size, stats.deduplicated_size), (2, 200_000, 0));
    assert!(stats.compressed_size >= 200_000);
    let fields = |m: &SnapshotMeta| {
        [&m.hostname, &m.username, &m.time, &m.time_end, &m.comment, &m.source_label].map(Clone::clone)
    };
    assert_eq!((fields(&meta), &meta.source_paths), (fields(old), &old.source_paths));
    assert_eq!(noted(&meta, REWRITTEN_FROM), Some(second.id));
    assert_eq!(meta.root_item(), old.root_item());
    assert!(meta.ext.unwrap().windows(3).any(|w| w == b"\xa1z\x2a"));
}

#[test]
fn where_nothing_matches_or_in_a_dry_run_nothing_is_made() {
    let (t, [first, _]) = source(Encryption::None);
    let before = t.packs();
    let done = rewrite(&t.repository, &first, &without(&["nothing", "d/own/"]), None).unwrap();
    assert!(done.left_out == 0 && done.made.is_none());
    let options = RewriteOptions { dry_run: true, report_excluded: false, ..without(&["own"]) };
    let done = rewrite(&t.repository, &first, &options, None).unwrap();
    assert!(done.left_out == 1 && done.made.is_none());
    assert!(rewrite(&t.repository, &first, &without(&["a[z-a]"]), None).is_err());
    assert_eq!((Manifest::ids(&t.repository).unwrap().len(), t.packs()), (2, before));
}

#[test]
fn a_damaged_snapshot_is_not_written_anew() {
    let (t, [first, _]) = source(Encryption::Aes256Gcm);
    t.damage(&first.meta.item_ptrs[0]);
    let error = rewrite(&t.repository, &first, &without(&["own"]), None).unwrap_err();
    assert!(matches!(error, VykarError::SnapshotUnusable { .. }), "{error}");
    assert_eq!(Manifest::ids(&t.repository).unwrap().len(), 2);
}

fn copy(from: &TestRepository, to: &TestRepository, events: Events<'_>) -> CopyReport {
    let all = Manifest::load(&from.repository).unwrap().snapshots;
    let plan = plan_copy(&to.repository, all).unwrap();
    let options = CopyOptions { threads: 3, ..CopyOptions::default() };
    copy_snapshots((&from.repository, &to.repository), &plan.wanted, &options, events).unwrap()
}

#[test]
fn copies_are_the_same_and_a_second_one_adds_nothing() {
    for (ours, theirs) in
        [(Encryption::Aes256Gcm, Encryption::None), (Encryption::None, Encryption::Chacha20Poly1305)]
    {
        let (from, snapshots) = source(ours);
        let mut to = TestRepository::with(theirs);
        // A file of theirs that ours has too, and a name.
        let items = [to.file("d", &noise(2, 100_000))];
        to.snapshot("second", &items, None);
        let report = copy(&from, &to, None);
        assert!(report.is_complete() && report.copied.len() == 2);
        for copied in &report.copied {
            let of = snapshots.iter().find(|s| s.id == copied.from).unwrap();
            let new = Snapshot::new(copied.id, copied.meta.clone()).unwrap();
            assert_eq!(contents(&from.repository, of), contents(&to.repository, &new));
            let meta = &copied.meta;
            assert_eq!((&meta.time, meta.root_item()), (&of.meta.time, of.meta.root_item()));
            assert_eq!((noted(meta, COPIED_FROM), meta.name == "second"), (Some(of.id), false));
            assert_eq!(meta.name == "first", of.meta.name == "first");
        }
        // Common is new, and x; own was there.
        let added: u64 = report.copied.iter().map(|copied| copied.meta.stats.deduplicated_size).sum();
        assert!((205_000..206_000).contains(&added), "{added}");
        assert_clean(&to.repository);
        let packs = to.packs();
        assert!(copy(&from, &to, None).copied.is_empty());
        // Nor is anything brought back.
        assert_eq!(copy(&to, &from, None).copied.len(), 1, "theirs");
        assert_eq!(to.packs(), packs);
        assert_clean(&from.repository);
    }
}

#[test]
fn two_that_copy_the_same_at_once_leave_one_copy() {
    let (from, snapshots) = source(Encryption::Aes256Gcm);
    let to = TestRepository::with(Encryption::Chacha20Poly1305);
    // Both find nothing there before either has published.
    let plan = plan_copy(&to.repository, snapshots.to_vec()).unwrap();
    assert_eq!(plan.wanted.len(), 2);
    let run = || {
        copy_snapshots((&from.repository, &to.repository), &plan.wanted, &CopyOptions::default(), None)
            .unwrap()
    };
    let (first, second) = (run(), run());
    assert_eq!((first.copied.len(), first.there.len()), (2, 0));
    assert_eq!(second.copied.len(), 0);
    assert_eq!(second.there, plan.wanted.iter().map(|s| s.id).collect::<Vec<_>>());
    assert!(second.is_complete());
    assert_eq!(to.repository.manifest().unwrap().snapshots.len(), 2);
    assert_clean(&to.repository);
}

#[test]
fn a_damaged_chunk_costs_its_file_and_a_damaged_list_its_snapshot() {
    let (from, [first, second]) = source(Encryption::Aes256Gcm);
    let reader = from.repository.chunk_reader().unwrap();
    let mut own = None;
    for_each_item(&reader, &first, &mut |found| {
        if let FoundItem::Item(item) = found
            && item.path == "d/own"
        {
            own = item.chunks.last().copied();
        }
        Ok(true)
    })
    .unwrap();
    from.damage(&own.unwrap().id);
    let mut told = Vec::new();
    let to = TestRepository::new();
    let mut listen = |event: Event| told.push(event);
    let report = copy(&from, &to, Some(&mut listen));
    let lost = |event: &Event| matches!(event, Event::ItemSkipped { path, .. } if path.ends_with('n') || path.ends_with("keep/a.txt"));
    assert!(told.len() == 2 && told.iter().all(lost), "{told:?}");
    assert!(!report.is_complete() && report.copied.iter().all(|c| c.lost == 1 && c.meta.stats.errors == 1));
    let copy_of = |id| {
        let copied = report.copied.iter().find(|copied| copied.from == id).unwrap();
        contents(&to.repository, &Snapshot::new(copied.id, copied.meta.clone()).unwrap())
    };
    assert_eq!(names(&copy_of(first.id)), "common d link");
    assert_clean(&to.repository);

    from.damage(&second.meta.item_ptrs[0]);
    let to = TestRepository::new();
    let report = copy(&from, &to, None);
    assert_eq!((report.copied.len(), &report.failed), (1, &vec![second.id]));
    assert_clean(&to.repository);
}

#[test]
fn one_that_is_interrupted_publishes_nothing_and_is_taken_up() {
    let (from, [first, _]) = source(Encryption::None);
    let to = TestRepository::new();
    let options = CopyOptions { cancel: Arc::new(true.into()), ..CopyOptions::default() };
    let snapshots = std::slice::from_ref(&first);
    let error = copy_snapshots((&from.repository, &to.repository), snapshots, &options, None).unwrap_err();
    assert!(matches!(error, VykarError::Interrupted), "{error}");
    assert!(Manifest::ids(&to.repository).unwrap().is_empty());
    assert!(copy(&from, &to, None).is_complete());
    assert_clean(&to.repository);
}
