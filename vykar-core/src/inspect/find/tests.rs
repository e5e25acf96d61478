use super::super::timeline::PathState;
use super::*;
use crate::testing::{TestRepository, directory, symlink};

/// What is said of each path, in short.
fn said(report: &FindReport) -> Vec<String> {
    let version = |v: &PathVersion| {
        let state = match &v.state {
            PathState::Added => "+",
            PathState::Changed(_) => "~",
            PathState::Unchanged => "=",
            PathState::Removed => "-",
        };
        format!("{state}{}..{}", v.first, v.last)
    };
    let path = |found: &FoundPath| {
        let versions: Vec<_> = found.versions.iter().map(version).collect();
        format!("{} {} {}", String::from_utf8_lossy(&found.path), found.series, versions.join(" "))
    };
    report.paths().map(|found| path(&found)).collect()
}

fn pattern(place: &str) -> FindOptions {
    FindOptions { pattern: Pattern::new(place.as_bytes(), &[], &[]).unwrap(), ..FindOptions::default() }
}

/// Four snapshots of one series, of files that come, change and go.
fn history(t: &mut TestRepository) -> Vec<Snapshot> {
    let many: Vec<_> = (0..40).map(|n| directory(&format!("many/directory-{n}"))).collect();
    let (small, large) = (t.file("d/log", &[1; 10]), t.file("d/log", &[2; 3000]));
    let once = Item { mtime: 1_000, ..t.file("d/once", b"once") };
    let states = [
        vec![directory("d"), small.clone()],
        vec![directory("d"), small.clone(), once.clone()],
        vec![directory("d"), large, once],
        vec![directory("d"), symlink("d/log", "x")],
    ];
    states.into_iter().map(|first| t.snapshot("s", &[first, many.clone()].concat(), None)).collect()
}

fn found(t: &TestRepository, snapshots: &[Snapshot], options: &FindOptions) -> FindReport {
    let reader = t.repository.chunk_reader().unwrap();
    let mut listen = |event: Event| panic!("{event:?}");
    find(&reader, snapshots, options, Some(&mut listen)).unwrap()
}

#[test]
fn a_path_is_followed_through_all_snapshots() {
    let mut t = TestRepository::new();
    let snapshots = history(&mut t);
    let all = found(&t, &snapshots, &pattern("d"));
    assert!(all.complete);
    assert_eq!(said(&all), ["d 0 +0..3", "d/log 0 +0..1 ~2..2 ~3..3", "d/once 0 +1..2 -3..3"]);
    let log = all.paths().nth(1).unwrap().versions;
    assert_eq!(log[1].facts.as_ref().unwrap().size, 3000);
    assert_eq!(log[2].state, PathState::Changed(vec![super::super::Aspect::Type]));
    assert_eq!(said(&found(&t, &snapshots, &pattern("directory-1?"))).len(), 10, "shared ones are found too");
    assert_eq!(said(&found(&t, &snapshots, &pattern("nothing"))), [""; 0]);
    assert_eq!(said(&found(&t, &snapshots[1..2], &pattern("d/once"))), ["d/once 0 +0..0"]);
}

#[test]
fn what_fits_once_is_followed_through_all_snapshots() {
    let mut t = TestRepository::new();
    let snapshots = history(&mut t);
    let log = ["d/log 0 +0..1 ~2..2 ~3..3"];
    let base = FindOptions::default;
    assert_eq!(said(&found(&t, &snapshots, &FindOptions { larger: Some(2999), ..base() })), log);
    assert_eq!(said(&found(&t, &snapshots, &FindOptions { larger: Some(3000), ..base() })), [""; 0]);
    let link = FindOptions { kind: Some(ItemType::Symlink), ..base() };
    assert_eq!(said(&found(&t, &snapshots, &link)), log);
    let young = FindOptions { since: Some(1_000), ..base() };
    assert_eq!(said(&found(&t, &snapshots, &young)), ["d/once 0 +1..2 -3..3"]);
    // All in one version: it is small as a file, and large as one.
    let both = FindOptions { smaller: Some(5), larger: Some(3), ..base() };
    assert_eq!(said(&found(&t, &snapshots, &both)), ["d/once 0 +1..2 -3..3"]);
}

#[test]
fn other_hosts_and_paths_are_other_histories() {
    let mut t = TestRepository::new();
    let mut snapshots = history(&mut t);
    snapshots[1].meta.hostname = "other".into();
    snapshots[2].meta.source_paths.push("/more".into());
    let report = found(&t, &snapshots, &pattern("d/once"));
    assert_eq!(said(&report), ["d/once 1 +0..0", "d/once 2 +0..0"]);
    let of: Vec<_> = report.series.iter().map(|series| series.snapshots.clone()).collect();
    assert_eq!(of, [vec![0, 3], vec![1], vec![2]]);
}

#[test]
fn what_cannot_be_read_is_told_and_not_called_removed() {
    let mut t = TestRepository::new();
    let mut snapshots = history(&mut t);
    snapshots.swap(0, 1);
    // The first stretch of the first one.
    t.damage(&snapshots[0].meta.item_ptrs[0]);
    let reader = t.repository.chunk_reader().unwrap();
    let mut told = 0;
    let mut listen = |event: Event| {
        assert!(matches!(event, Event::SnapshotUnreadable { .. }), "{event:?}");
        told += 1;
    };
    let report = find(&reader, &snapshots, &pattern("d/once"), Some(&mut listen)).unwrap();
    assert_eq!((said(&report), report.complete), (vec!["d/once 0 +2..2 -3..3".to_owned()], false));
    assert_eq!(told, 1);
    // An item that breaks a rule costs itself.
    let mut t = TestRepository::new();
    let broken = Item { size: 7, ..t.file("f", b"six") };
    let snapshots = [t.file("f", b"six"), broken].map(|item| t.snapshot("s", &[item], None));
    let reader = t.repository.chunk_reader().unwrap();
    let mut told = Vec::new();
    let mut listen = |event: Event| told.push(event);
    let report = find(&reader, &snapshots, &pattern("f"), Some(&mut listen)).unwrap();
    assert_eq!((said(&report), report.complete), (vec!["f 0 +0..0".to_owned()], false));
    assert!(matches!(&told[..], [Event::ItemSkipped { path, .. }] if path == "f"), "{told:?}");
}
