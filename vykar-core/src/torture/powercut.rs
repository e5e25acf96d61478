//! The power is cut after each system call that changed the repository.

use std::sync::Arc;

use super::faults::by_age;
use super::operations::{OPERATIONS, Operation, leave_a_journal};
use super::world::{World, lock};
use super::{is_thorough, tell};
use crate::maintenance::{Remains, RepositoryContents, delete_repository};
use crate::repository::Repository;
use crate::storage::disk::log::{DiskLog, Model, Survives};
use crate::storage::{Backend, LocalBackend, PutMode};
use crate::testing::Dice;

/// Whatever is left, every snapshot that is not to be deleted is as it was, and after the last call what was said to
/// be done is done.
fn survives_every_cut(operation: &Operation) {
    let world = World::new();
    (operation.prepare)(&world);
    let before = world.snapshots();
    let ids = by_age(&world);
    let mut model = Model::of(&world.repo()).unwrap();
    let log = Arc::new(DiskLog::default());
    let repository = world.open_on(Arc::new(LocalBackend::logging(world.repo(), log.clone()))).unwrap();
    (operation.run)(&world, &repository).unwrap();
    drop(repository);
    let doomed = (operation.deletes)(&ids);
    let entries = log.entries();
    let mut dice = Dice::new(7);
    let mut cuts = 0;
    for at in 0..=entries.len() {
        if at > 0 {
            model.apply(&entries[at - 1]);
        }
        for try_number in 0..if is_thorough() { 40 } else { 6 } {
            let when = format!("{}, cut after {at} calls, {try_number}", operation.name);
            let mut choose = |among: usize| dice.below(among);
            let survives = match try_number {
                0 => Survives::Nothing,
                1 => Survives::Everything,
                _ => Survives::Chosen(&mut choose),
            };
            let left = world.copy();
            left.replace_repository(|to| model.cut(&world.repo(), to, survives).unwrap());
            left.bury();
            cuts += 1;
            let after = left.snapshots();
            for (id, files) in &before {
                match after.get(id) {
                    Some(found) => assert!(found == files, "{when}: snapshot {id} changed"),
                    None => assert!(doomed.contains(id), "{when}: snapshot {id} is gone"),
                }
            }
            let added: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).collect();
            assert!(added.iter().all(|(_, files)| **files == world.source_files()), "{when}");
            if at == entries.len() {
                assert_eq!(added.len(), usize::from(operation.adds), "{when}: said to be stored");
                assert!(doomed.iter().all(|id| !after.contains_key(id)), "{when}: said to be deleted");
            }
            if at == entries.len() || !operation.repairs {
                left.assert_sound(&when);
            }
            if try_number < 3 {
                let again = (operation.run)(&left, &left.open());
                assert!(again.is_ok(), "{when}, and again: {again:?}");
                left.assert_sound(&format!("{when}, and again"));
            }
        }
    }
    tell(&format!("power cuts, {}: {} calls, {cuts} cuts", operation.name, entries.len()));
    assert!(entries.len() > 5);
}

#[test]
fn a_backup_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[0]);
}

#[test]
fn deleting_a_snapshot_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[1]);
}

#[test]
fn pruning_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[2]);
}

#[test]
fn compacting_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[3]);
}

#[test]
fn taking_up_what_a_failed_backup_left_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[5]);
}

#[test]
fn repairing_survives_every_power_cut() {
    survives_every_cut(&OPERATIONS[6]);
}

/// Whatever is left of a repository is one, in which every snapshot is whole, or nothing of it but what keeps its place;
/// and the next deletion ends it. What was said to be deleted does not come back.
#[test]
fn deleting_a_repository_survives_every_power_cut() {
    let template = World::new();
    leave_a_journal(&template);
    let set_aside = format!("damaged/snapshots/{}", "ab".repeat(32));
    template.backend().put(&set_aside, b"set aside", PutMode::Replace).unwrap();
    let before = template.snapshots();
    let world = template.copy();
    let mut model = Model::of(&world.repo()).unwrap();
    let log = Arc::new(DiskLog::default());
    let repository = world.open_on(Arc::new(LocalBackend::logging(world.repo(), log.clone()))).unwrap();
    delete(&repository);
    assert!(!world.repo().exists());
    let entries = log.entries();
    let mut dice = Dice::new(7);
    let (mut cuts, mut whole, mut in_part) = (0, 0, 0);
    for at in 0..=entries.len() {
        if at > 0 {
            model.apply(&entries[at - 1]);
        }
        for try_number in 0..if is_thorough() { 40 } else { 6 } {
            let when = format!("cut after {at} calls, {try_number}");
            let mut choose = |among: usize| dice.below(among);
            let survives = match try_number {
                0 => Survives::Nothing,
                1 => Survives::Everything,
                _ => Survives::Chosen(&mut choose),
            };
            let left = template.copy();
            left.replace_repository(|to| model.cut(&world.repo(), to, survives).unwrap());
            left.bury();
            cuts += 1;
            let has = |name: &str| left.repo().join(name).exists();
            if has("config") {
                assert!(at < entries.len(), "{when}: said to be deleted");
                let repository = left.open();
                let manifest = repository.manifest().unwrap();
                assert!(manifest.unreadable.is_empty(), "{when}: {:?}", manifest.unreadable);
                assert!(has("index") || manifest.snapshots.is_empty(), "{when}");
                if has("index") {
                    let after = left.snapshots();
                    assert!(after.iter().all(|(id, files)| before.get(id) == Some(files)), "{when}");
                    whole += u32::from(after.len() == before.len());
                    in_part += u32::from(after.len() < before.len());
                }
                delete(&repository);
            } else {
                let remains = Remains::of(&left.backend()).unwrap();
                remains
                    .unwrap_or_else(|| panic!("{when}: something else is left"))
                    .delete(&left.backend())
                    .unwrap();
            }
            assert!(!left.repo().exists(), "{when}, and again");
        }
    }
    tell(&format!(
        "power cuts, delete: {} calls, {cuts} cuts, {whole} left all snapshots and {in_part} some or an index",
        entries.len()
    ));
    assert!(entries.len() > 20 && whole > 5 && in_part > 5);
}

fn delete(repository: &Repository) {
    let contents = RepositoryContents::of(repository).unwrap();
    let report = delete_repository(repository, &contents, &lock(), None).unwrap();
    assert!(report.place_is_gone && report.left.is_empty(), "{report:?}");
}

/// The model itself: without a sync, the new name may be there and its content not.
#[test]
fn a_write_without_syncs_is_lost_in_every_way() {
    use crate::storage::disk::Disk;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"old").unwrap();
    let mut model = Model::of(dir.path()).unwrap();
    let log = Arc::new(DiskLog::default());
    let disk = Disk::logging(log.clone());
    let temporary = dir.path().join(".tmp");
    let file = disk.create(&temporary, 0).unwrap();
    disk.append(&temporary, &file, b"newer").unwrap();
    disk.rename(&temporary, &path, crate::storage::PutMode::Replace).unwrap();
    log.entries().iter().for_each(|entry| model.apply(entry));
    let mut dice = Dice::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..100 {
        let to = dir.path().join(format!("cut {n}"));
        model.cut(dir.path(), &to, Survives::Chosen(&mut |among| dice.below(among))).unwrap();
        seen.insert(std::fs::read(to.join("file")).unwrap());
    }
    let expected: [&[u8]; 5] = [b"", b"\0\0\0\0\0", b"ne", b"newer", b"old"];
    assert!(seen.iter().map(Vec::as_slice).eq(expected), "{seen:?}");
}
