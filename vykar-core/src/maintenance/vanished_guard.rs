//! Snapshots that are not to be seen just now: a disk that is not mounted, a copy that is not complete, somebody who
//! took them away. Who takes away what no snapshot refers to would take what those need.

use crate::error::{Result, VykarError};
use crate::format::index::ChunkTable;
use crate::id::SnapshotId;
use crate::maintenance::deletion_note::Deletions;
use crate::repository::Repository;

/// Refuses where there is no snapshot at all and something that snapshots referred to. `index` is what the index names,
/// where there is one that can be read. Whoever deletes the last snapshot leaves an index without any reference, or a note
/// that says so where that was cut off.
pub(super) fn refuse_none(
    repository: &Repository,
    ids: &[SnapshotId],
    index: Option<&ChunkTable>,
) -> Result<()> {
    if !ids.is_empty() || repository.trust() {
        return Ok(());
    }
    let reason = match index {
        Some(table) if table.iter().any(|entry| entry.refcount > 0) => {
            "there is none, and the index counts what some refer to"
        }
        None if !repository.backend().list("packs/")?.is_empty() => {
            "there is none and no index, and yet there are packs"
        }
        _ => return Ok(()),
    };
    if index.is_some() && Deletions::read(repository)?.of_all {
        return Ok(());
    }
    Err(VykarError::SnapshotsMissing { reason: reason.to_owned(), may_trust: true })
}

/// Refuses where this machine saw snapshots that are gone now and that it did not delete, unless the index counts no more
/// than the others refer to (`explained`), or a note says that they were being deleted: whoever deletes a snapshot as it
/// should be lowers the counts.
pub(super) fn refuse_vanished(repository: &Repository, ids: &[SnapshotId], explained: bool) -> Result<()> {
    let deleted = Deletions::read(repository)?.deleted;
    let Some((count, names)) = repository.vanished_snapshots(ids, &deleted) else { return Ok(()) };
    if explained {
        repository.forget_vanished();
        return Ok(());
    }
    let reason = format!(
        "{count} that were here before are gone, were not deleted from this machine, and may still be counted in the \
         index: {names}"
    );
    Err(VykarError::SnapshotsMissing { reason, may_trust: true })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::format::Snapshot;
    use crate::maintenance::{
        CompactOptions, DeleteOptions, KeepRules, PruneOptions, RepairOptions, apply_repair, compact,
        delete_snapshots, plan_compact, plan_repair, prune,
    };
    use crate::repository::{OpenOptions, snapshot_key};
    use crate::storage::testing::{Call, Op, TestBackend};
    use crate::storage::{Backend, PutMode};
    use crate::testing::{TestRepository, noise};

    /// Two snapshots, and what this machine remembers of them.
    struct Place {
        test: TestRepository,
        snapshots: [Snapshot; 2],
        cache: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let mut test = TestRepository::new();
            let snapshots = [1, 2].map(|n| {
                let file = test.file("file", &noise(n, 100_000));
                test.snapshot(&format!("s{n}"), &[file], None)
            });
            let place = Place { test, snapshots, cache: tempfile::tempdir().unwrap() };
            place.look();
            place
        }

        fn open_on(&self, backend: Arc<dyn Backend>, cache: bool, trust: bool) -> Repository {
            let cache_dir = cache.then(|| self.cache.path().to_owned());
            let options = OpenOptions { cache_dir, trust };
            Repository::open(backend, &mut || unreachable!(), &options).unwrap()
        }

        fn open(&self, cache: bool, trust: bool) -> Repository {
            self.open_on(Arc::new(self.test.backend.clone()), cache, trust)
        }

        /// As each command does in the beginning.
        fn look(&self) {
            self.open(true, false).compare_with_last_time(None).unwrap();
        }

        fn remove(&self, snapshot: &Snapshot) -> Vec<u8> {
            let key = snapshot_key(&snapshot.id);
            let object = self.test.backend.get(&key, u64::MAX).unwrap();
            self.test.backend.delete(&key).unwrap();
            object
        }

        fn put_back(&self, snapshot: &Snapshot, object: &[u8]) {
            self.test.backend.put(&snapshot_key(&snapshot.id), object, PutMode::Replace).unwrap();
        }

        fn objects(&self) -> Vec<(String, Vec<u8>)> {
            let keys = self.test.backend.list("").unwrap().into_iter().map(|object| object.key);
            keys.map(|key| (key.clone(), self.test.backend.get(&key, u64::MAX).unwrap())).collect()
        }

        /// Nothing is done by anything that takes something away.
        fn refused(&self, repository: &Repository, why: &str) {
            let before = self.objects();
            for (name, result) in everything(repository) {
                let error = result.expect_err(name);
                assert!(
                    matches!(error, VykarError::SnapshotsMissing { may_trust: true, .. }),
                    "{name}: {error}"
                );
                assert!(error.to_string().contains(why), "{name}: {error}");
            }
            assert!(self.objects() == before);
        }
    }

    /// What takes something away, by name.
    fn everything(repository: &Repository) -> Vec<(&'static str, Result<()>)> {
        let rules = KeepRules { last: 1, ..KeepRules::default() };
        let dry = PruneOptions { dry_run: true, ..PruneOptions::new(rules) };
        let repair = RepairOptions::default();
        let repaired =
            || apply_repair(repository, &plan_repair(repository, &repair, None)?, &repair).map(drop);
        vec![
            ("plan of a compaction", plan_compact(repository, &CompactOptions::default(), None).map(drop)),
            ("compaction", compact(repository, &CompactOptions::default(), None).map(drop)),
            ("plan of a prune", prune(repository, &dry, None).map(drop)),
            ("prune", prune(repository, &PruneOptions::new(rules), None).map(drop)),
            ("repair", repaired()),
        ]
    }

    #[test]
    fn nothing_is_taken_away_where_no_snapshot_is_seen_and_something_is_counted() {
        let place = Place::new();
        let objects = place.snapshots.each_ref().map(|snapshot| place.remove(snapshot));
        // With and without a memory of them.
        for cache in [false, true] {
            place.refused(&place.open(cache, false), "there is none, and the index counts");
        }
        let index = place.test.backend.get("index", u64::MAX).unwrap();
        place.test.backend.delete("index").unwrap();
        place.refused(&place.open(false, false), "no index");
        place.test.backend.put("index", &index, PutMode::Replace).unwrap();
        // They are back, and nothing was lost.
        for (snapshot, object) in place.snapshots.iter().zip(&objects) {
            place.put_back(snapshot, object);
        }
        place.look();
        for (name, result) in everything(&place.open(true, false)) {
            result.expect(name);
        }
        // What was cut off between the last snapshot and the index is finished when somebody says so.
        place.open(true, false).manifest().unwrap().snapshots.iter().for_each(|s| drop(place.remove(s)));
        place.refused(&place.open(false, false), "there is none");
        compact(&place.open(false, true), &CompactOptions::default(), None).unwrap();
        assert!(place.test.backend.list("packs/").unwrap().is_empty());
    }

    #[test]
    fn deleting_the_last_snapshot_leaves_nothing_in_the_way() {
        let place = Place::new();
        let repository = place.open(true, false);
        let ids = place.snapshots.each_ref().map(|s| s.id);
        delete_snapshots(&repository, &ids, &DeleteOptions::default(), None).unwrap();
        for (name, result) in everything(&place.open(true, false)) {
            result.expect(name);
        }
        assert!(place.test.backend.list("packs/").unwrap().is_empty());
    }

    #[test]
    fn nothing_is_taken_away_where_snapshots_have_vanished_and_are_still_counted() {
        let place = Place::new();
        let [first, second] = &place.snapshots;
        let object = place.remove(first);
        let repository = place.open(true, false);
        // Told at the first look, and known after that.
        place.look();
        let before = place.objects();
        let delete = |repository: &Repository| {
            delete_snapshots(repository, &[second.id], &DeleteOptions::default(), None).map(drop)
        };
        for (name, result) in everything(&repository).into_iter().chain([("deletion", delete(&repository))]) {
            match result {
                // Nothing to do for it.
                Ok(()) => assert!(name.contains("prune"), "{name}"),
                Err(error) => {
                    assert!(error.to_string().contains("were here before are gone"), "{name}: {error}")
                }
            }
        }
        assert!(place.objects() == before);
        place.put_back(first, &object);
        place.look();
        // Somebody else deletes it as it should be.
        delete_snapshots(&place.open(false, false), &[first.id], &DeleteOptions::default(), None).unwrap();
        place.look();
        for (name, result) in everything(&place.open(true, false)) {
            result.expect(name);
        }
        assert!(place.test.repository.manifest().unwrap().snapshots.iter().any(|s| s.id == second.id));
        // A person says that it is meant.
        place.remove(second);
        place.look();
        compact(&place.open(true, true), &CompactOptions::default(), None).unwrap();
    }

    /// The storage below stops answering when the index is to be written.
    fn deletion_that_is_killed(place: &Place, ids: &[crate::id::SnapshotId]) {
        let backend = Arc::new(TestBackend::new(place.test.backend.clone()));
        let gone = std::sync::atomic::AtomicBool::new(false);
        backend.before(move |Op { call, key, .. }, _| {
            let now = gone.load(Ordering::SeqCst) || (call == Call::Put && key == "index");
            gone.store(now, Ordering::SeqCst);
            match now {
                true => Err(crate::error::StorageError::InvalidKey { key: key.to_owned() }),
                false => Ok(()),
            }
        });
        let repository = place.open_on(backend, false, false);
        delete_snapshots(&repository, ids, &DeleteOptions::default(), None).unwrap_err();
        for lock in place.test.backend.list("locks/").unwrap() {
            place.test.backend.delete(&lock.key).unwrap();
        }
    }

    #[test]
    fn a_deletion_that_was_killed_elsewhere_needs_no_trust() {
        for all in [false, true] {
            let killed = || {
                let place = Place::new();
                let ids = place.snapshots.each_ref().map(|s| s.id);
                deletion_that_is_killed(&place, if all { &ids[..] } else { &ids[..1] });
                place
            };
            let rules = PruneOptions::new(KeepRules { last: 1, ..KeepRules::default() });
            let repair = RepairOptions::default();
            for what in 0..3 {
                let place = killed();
                place.look();
                let repository = place.open(true, false);
                let result = match what {
                    0 => compact(&repository, &CompactOptions::default(), None).map(drop),
                    1 => prune(&repository, &rules, None).map(drop),
                    _ => plan_repair(&repository, &repair, None)
                        .and_then(|plan| apply_repair(&repository, &plan, &repair))
                        .map(drop),
                };
                result.unwrap();
                let left = place.test.backend.list("damaged/deletions/").unwrap();
                assert!(what != 0 || left.is_empty(), "the note is gone");
            }
            // With a note that somebody made, it may as well be lost.
            let place = killed();
            let note = place.test.backend.list("damaged/").unwrap().remove(0).key;
            let mut text = place.test.backend.get(&note, u64::MAX).unwrap();
            let digit = text.iter().position(u8::is_ascii_digit).unwrap();
            text[digit] = b'0' + (text[digit] - b'0' + 1) % 10;
            place.test.backend.put(&note, &text, PutMode::Replace).unwrap();
            place.look();
            compact(&place.open(true, false), &CompactOptions::default(), None).unwrap_err();
        }
    }

    #[test]
    fn nothing_is_taken_away_by_a_list_that_is_not_the_same_twice() {
        let place = Place::new();
        let backend = Arc::new(TestBackend::new(place.test.backend.clone()));
        let repository = place.open_on(backend.clone(), false, false);
        let key = snapshot_key(&place.snapshots[0].id);
        let object = place.test.backend.get(&key, u64::MAX).unwrap();
        let before = place.objects();
        // Whether it is away when it is to be read, or in one of the lists.
        for (gone_at, list) in [(Call::Get, 0), (Call::List, 1), (Call::List, 2)] {
            let lists = AtomicU32::new(0);
            let (its_key, content) = (key.clone(), object.clone());
            backend.before(move |Op { call, key: at, .. }, inner| {
                if call == Call::List && at == "snapshots/" {
                    match lists.fetch_add(1, Ordering::SeqCst) % 2 + 1 == list {
                        true => inner.delete(&its_key)?,
                        false => inner.put(&its_key, &content, PutMode::Replace)?,
                    }
                } else if call == Call::Get && at == its_key && gone_at == Call::Get {
                    inner.delete(&its_key)?;
                }
                Ok(())
            });
            for (name, result) in everything(&repository) {
                let text = result.expect_err(name).to_string();
                let as_it_should = text.contains("not the same twice") || text.contains("changed since");
                assert!(as_it_should, "{name}, {gone_at:?}, {list}: {text}");
            }
            backend.unhook();
            place.put_back(&place.snapshots[0], &object);
            assert!(place.objects() == before);
        }
    }
}
