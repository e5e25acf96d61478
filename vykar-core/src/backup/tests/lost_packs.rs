//! Backups over packs that are missing or cut short.

use super::*;
use crate::storage::ObjectInfo;
use crate::testing::noise;

/// Runs a backup after something was done to the pack that holds a file's content, and gives what it noted.
fn after(spoil: impl Fn(&dyn Backend, &ObjectInfo)) -> (Fixture, Vec<String>) {
    let f = Fixture::new();
    f.write("lost", &noise(7, 50_000));
    f.backup();
    let first = f.backend.list("packs/").unwrap();
    f.write("kept", &noise(8, 50_000));
    f.backup();
    let data = first.iter().max_by_key(|object| object.size).unwrap();
    spoil(f.backend.as_ref(), data);
    let mut notes = Vec::new();
    let mut listen = |event: Event| {
        if let Event::Note(note) = event {
            notes.push(note);
        }
    };
    let summary = backup(&f.repository(), &f.options(), Some(&mut listen)).unwrap();
    assert!(summary.is_complete());
    (f, notes)
}

#[test]
fn what_a_missing_pack_held_is_stored_again() {
    let (f, notes) = after(|backend, pack| backend.delete(&pack.key).unwrap());
    assert_eq!(f.items()[&b"lost"[..]].1, noise(7, 50_000));
    assert_eq!(f.items()[&b"kept"[..]].1, noise(8, 50_000));
    assert!(notes.iter().any(|note| note.contains("missing or too short")), "{notes:?}");
    f.assert_counts();
}

#[test]
fn what_a_pack_that_was_cut_short_held_is_stored_again() {
    let (f, _) = after(|backend, pack| {
        let data = backend.get(&pack.key, pack.size).unwrap();
        backend.put(&pack.key, &data[..data.len() - 1], PutMode::Replace).unwrap();
    });
    assert_eq!(f.items()[&b"lost"[..]].1, noise(7, 50_000));
    f.assert_counts();
}

#[test]
fn a_repository_without_any_pack_is_out_of_reach_and_nothing_is_stored_in_it() {
    let f = Fixture::new();
    f.write("file", b"content");
    f.backup();
    for pack in f.backend.list("packs/").unwrap() {
        f.backend.delete(&pack.key).unwrap();
    }
    let error = backup(&f.repository(), &f.options(), None).unwrap_err();
    assert!(matches!(error, VykarError::Unsound { .. }), "{error}");
    assert_eq!(f.repository().manifest().unwrap().snapshots.len(), 1);
}
