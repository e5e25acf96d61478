//! What is cut off.

use std::sync::Arc;

use super::world::{World, backup_of, lock};
use crate::error::Result;
use crate::maintenance::{
    CheckOptions, CompactOptions, DeleteOptions, KeepRules, PruneOptions, RepairOptions, apply_repair, check,
    compact, delete_snapshots, plan_repair, prune,
};
use crate::repository::Repository;
use crate::storage::testing::{Fault, TestBackend};
use crate::storage::{Backend, PutMode};

/// An operation over a [`World`].
pub struct Operation {
    pub name: &'static str,
    /// What must have happened before.
    pub prepare: fn(&World),
    pub run: fn(&World, &Repository) -> Result<()>,
    /// Given the ids of the snapshots there were, oldest first: those that it deletes.
    pub deletes: fn(&[String]) -> Vec<String>,
    /// It stores a new snapshot.
    pub adds: bool,
    /// The repository is damaged until it is done.
    pub repairs: bool,
}

fn nothing(_: &[String]) -> Vec<String> {
    Vec::new()
}

fn oldest(ids: &[String]) -> Vec<String> {
    ids[..1].to_vec()
}

fn all_but_newest(ids: &[String]) -> Vec<String> {
    ids[..ids.len() - 1].to_vec()
}

/// All of them.
pub const OPERATIONS: [Operation; 7] = [
    Operation {
        name: "backup",
        prepare: |_| (),
        run: |world, repository| backup_of(repository, world.source()),
        deletes: nothing,
        adds: true,
        repairs: false,
    },
    Operation {
        name: "snapshot delete",
        prepare: |_| (),
        run: delete_oldest,
        deletes: oldest,
        adds: false,
        repairs: false,
    },
    Operation {
        name: "prune",
        prepare: |_| (),
        run: prune_all_but_newest,
        deletes: all_but_newest,
        adds: false,
        repairs: false,
    },
    Operation {
        name: "compact",
        prepare: |_| (),
        run: |_, repository| {
            let options = CompactOptions { threshold: 1, lock: lock(), ..CompactOptions::default() };
            compact(repository, &options, None).map(drop)
        },
        deletes: nothing,
        adds: false,
        repairs: false,
    },
    Operation {
        name: "check",
        prepare: |_| (),
        run: |_, repository| {
            let options = CheckOptions { verify_data: true, threads: 1, ..CheckOptions::default() };
            check(repository, &options, None).map(drop)
        },
        deletes: nothing,
        adds: false,
        repairs: false,
    },
    Operation {
        name: "backup after a failed one",
        prepare: leave_a_journal,
        run: |world, repository| backup_of(repository, world.source()),
        deletes: nothing,
        adds: true,
        repairs: false,
    },
    Operation {
        name: "repair",
        prepare: damage_what_can_be_read,
        run: |_, repository| {
            let options = RepairOptions { threads: 1, lock: lock() };
            let plan = plan_repair(repository, &options, None)?;
            apply_repair(repository, &plan, &options).map(drop)
        },
        deletes: nothing,
        adds: false,
        repairs: true,
    },
];

/// Two packs are not what their names say, and one object in `snapshots/` is none; yet every snapshot can be read.
fn damage_what_can_be_read(world: &World) {
    let backend = world.backend();
    for pack in backend.list("packs/").unwrap().into_iter().take(2) {
        let mut bytes = backend.get(&pack.key, u64::MAX).unwrap();
        bytes[0] ^= 1;
        backend.put(&pack.key, &bytes, PutMode::Replace).unwrap();
    }
    backend.put(&format!("snapshots/{}", "ab".repeat(32)), b"garbage", PutMode::Replace).unwrap();
}

/// A backup that fails late, and leaves a journal of what it has stored.
pub fn leave_a_journal(world: &World) {
    for at in 10..60 {
        let backend = Arc::new(TestBackend::failing(world.backend(), at, Fault::Error));
        let failed = backup_of(&world.open_on(backend).unwrap(), world.source()).is_err();
        world.bury();
        if failed && world.has_journal() {
            return;
        }
    }
    panic!("no journal was left");
}

fn delete_oldest(_: &World, repository: &Repository) -> Result<()> {
    let options = DeleteOptions { lock: lock(), ..DeleteOptions::default() };
    let manifest = repository.manifest()?;
    // Gone when the operation is done once more.
    let (Some(oldest), true) = (manifest.snapshots.first(), manifest.snapshots.len() > 1) else {
        return Ok(());
    };
    delete_snapshots(repository, &[oldest.id], &options, None).map(drop)
}

fn prune_all_but_newest(_: &World, repository: &Repository) -> Result<()> {
    let options =
        PruneOptions { lock: lock(), ..PruneOptions::new(KeepRules { last: 1, ..KeepRules::default() }) };
    prune(repository, &options, None).map(drop)
}
