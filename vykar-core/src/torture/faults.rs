//! Each operation of the storage fails, in each way.

use std::sync::Arc;

use super::operations::{OPERATIONS, Operation};
use super::tell;
use super::world::World;
use crate::storage::testing::{FAULTS, Fault, TestBackend};

/// Whatever fails, every snapshot that is not to be deleted stays as it was, what is said to be done is done, and
/// doing it again succeeds.
fn survives_every_fault(operation: &Operation) {
    let template = World::new();
    (operation.prepare)(&template);
    for fault in FAULTS {
        let mut at = 0;
        let mut failed = 0;
        loop {
            let (hit, said_done) = one(&template, operation, at, fault);
            if !hit {
                break;
            }
            failed += u64::from(!said_done);
            at += 1;
        }
        tell(&format!("faults, {}, {fault:?}: {at} operations, {failed} failed it", operation.name));
        assert!(at > 5, "{}: only {at} operations", operation.name);
    }
}

/// True when the fault was reached, and when the operation said that it is done.
fn one(template: &World, operation: &Operation, at: u64, fault: Fault) -> (bool, bool) {
    let when = format!("{}, {fault:?} at {at}", operation.name);
    let world = template.copy();
    let before = world.snapshots();
    let ids = by_age(&world);
    let backend = Arc::new(TestBackend::failing(world.backend(), at, fault));
    let result = match world.open_on(backend.clone()) {
        Ok(repository) => (operation.run)(&world, &repository),
        Err(e) => Err(e),
    };
    let hit = backend.calls() > at;
    assert!(hit || result.is_ok(), "{when}: {result:?} without a fault");
    world.bury();
    let doomed = (operation.deletes)(&ids);
    let after = world.snapshots();
    for (id, files) in &before {
        match after.get(id) {
            Some(found) => assert!(found == files, "{when}: snapshot {id} changed"),
            None => assert!(doomed.contains(id), "{when}: snapshot {id} is gone"),
        }
    }
    let added: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).collect();
    for (id, files) in &added {
        assert!(operation.adds && **files == world.source_files(), "{when}: what is {id}?");
    }
    if result.is_ok() {
        assert!(doomed.iter().all(|id| !after.contains_key(id)), "{when}: said to be deleted");
        assert!(!operation.adds || added.len() == 1, "{when}: said to be stored");
    }
    if result.is_ok() || !operation.repairs {
        world.assert_sound(&when);
    }
    // Once more, with nothing in the way.
    let again = (operation.run)(&world, &world.open());
    assert!(again.is_ok(), "{when}, and again: {again:?}");
    world.assert_sound(&format!("{when}, and again"));
    let after = world.snapshots();
    assert!(!operation.adds || after.values().any(|files| *files == world.source_files()), "{when}");
    let kept = before.iter().filter(|(id, _)| !doomed.contains(id));
    kept.for_each(|(id, files)| assert!(after.get(id) == Some(files), "{when}, and again: {id}"));
    (hit, result.is_ok())
}

pub fn by_age(world: &World) -> Vec<String> {
    world.open().manifest().unwrap().snapshots.iter().map(|s| s.id.to_string()).collect()
}

#[test]
fn a_backup_survives_every_fault() {
    survives_every_fault(&OPERATIONS[0]);
}

#[test]
fn deleting_a_snapshot_survives_every_fault() {
    survives_every_fault(&OPERATIONS[1]);
}

#[test]
fn pruning_survives_every_fault() {
    survives_every_fault(&OPERATIONS[2]);
}

#[test]
fn compacting_survives_every_fault() {
    survives_every_fault(&OPERATIONS[3]);
}

#[test]
fn checking_survives_every_fault() {
    survives_every_fault(&OPERATIONS[4]);
}

#[test]
fn taking_up_what_a_failed_backup_left_survives_every_fault() {
    survives_every_fault(&OPERATIONS[5]);
}

#[test]
fn repairing_survives_every_fault() {
    survives_every_fault(&OPERATIONS[6]);
}
