//! Compactions that move and delete packs in the middle of a restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::format::wire;
use crate::id::{PackId, SnapshotId};
use crate::maintenance::{CompactOptions, DeleteOptions, compact, delete_snapshots};
use crate::repository::{OpenOptions, Repository, pack_key};
use crate::storage::Backend;
use crate::storage::testing::{Call, TestBackend};
use crate::testing::{TestRepository, noise};

/// How often everything can be moved.
const MOVES: usize = 3;
const FILES: u64 = 12;

/// Snapshots of the same files, each but the last with more that nobody else has, in every pack. Its list of items is in
/// such packs, too.
///
/// Gives the packs of the last one as well.
fn layered() -> (TestRepository, Vec<SnapshotId>, Vec<PackId>) {
    let mut t = TestRepository::new();
    t.chunk_size = 1000;
    let mut layers = vec![Vec::new(); MOVES + 1];
    let file = |t: &mut TestRepository, layer: usize, n: u64| {
        t.file(&format!("{layer}-{n:02}"), &noise(layer as u64 * 100 + n, 3000))
    };
    for n in 0..FILES {
        (0..=MOVES).for_each(|layer| layers[layer].push(file(&mut t, layer, n)));
        t.close_pack();
    }
    let kept = layers[0].clone();
    let list: Vec<u8> = kept.iter().flat_map(|item| wire::encode("item", item).unwrap()).collect();
    for (part, n) in list.chunks(t.stream_chunk_size).zip(FILES..) {
        t.chunk(part);
        (1..=MOVES).for_each(|layer| layers[layer].push(file(&mut t, layer, n)));
        t.close_pack();
    }
    let ids = (0..=MOVES).map(|name| {
        let items: Vec<_> = layers[name + 1..].iter().flatten().chain(&kept).cloned().collect();
        if name > 0 {
            let chunks = items.iter().flat_map(|item| &item.chunks);
            chunks.for_each(|chunk| t.index.get_mut(&chunk.id).unwrap().refcount += 1);
        }
        t.snapshot(&name.to_string(), &items, None).id
    });
    let ids = ids.collect();
    let packs = t.index.values().filter(|entry| entry.refcount > MOVES as u32).map(|entry| entry.pack);
    let packs = packs.collect();
    (t, ids, packs)
}

/// Restores the last of the snapshots while the others are deleted and everything is moved before these reads; false
/// when not all of them came.
fn survives(at: &[u64], threads: usize) -> bool {
    let (t, snapshots, packs) = layered();
    let last = snapshots[MOVES];
    let backend = t.backend.clone();
    let hook = move |which: usize| {
        delete_snapshots(&t.repository, &[snapshots[which]], &DeleteOptions::default(), None).unwrap();
        let options = CompactOptions { threshold: 0, ..CompactOptions::default() };
        let report = compact(&t.repository, &options, None).unwrap();
        assert!(report.packs_deleted > 0 && report.packs_written > 0);
    };
    let (reads, at) = (Arc::new(AtomicU64::new(0)), at.to_vec());
    let hooked = Arc::new(TestBackend::new(backend.clone()));
    let (count, moments) = (reads.clone(), at.clone());
    hooked.before(move |op, _| {
        if matches!(op.call, Call::Get | Call::GetRange | Call::Head) {
            let number = count.fetch_add(1, Ordering::SeqCst);
            moments.iter().position(|at| *at == number).into_iter().for_each(&hook);
        }
        Ok(())
    });
    let repository =
        Repository::open(hooked.clone(), &mut || unreachable!(), &OpenOptions::default()).unwrap();
    let snapshot = repository.manifest().unwrap().resolve(&last.to_string()).unwrap().clone();
    let options = RestoreOptions { threads, ..RestoreOptions::default() };
    let restored = run_in(tempfile::tempdir().unwrap(), &repository, &snapshot, &options);
    let when = format!("{threads} threads, moved before reads {at:?}");
    assert_eq!(restored.failed, [""; 0], "{when}");
    for n in 0..FILES {
        assert!(restored.read(&format!("0-{n:02}")) == noise(n, 3000), "{when}: {n}");
    }
    let all = reads.load(Ordering::SeqCst) > at[at.len() - 1];
    let is_left = |pack: &PackId| backend.exists(&pack_key(pack)).unwrap();
    assert!(!all || !packs.iter().any(is_left), "{when}: not all was moved");
    all
}

#[test]
fn packs_that_are_moved_and_deleted_meanwhile_cost_nothing() {
    let mut tried = 0;
    for (steps, threads) in [(&[0][..], 1), (&[0, 2, 5], 1), (&[0, 1, 2], 4)] {
        for first in 0.. {
            let at: Vec<_> = steps.iter().map(|step| first + step).collect();
            if !survives(&at, threads) {
                break;
            }
            tried += 1;
        }
    }
    crate::torture::tell(&format!("restores beside compactions: {tried}"));
    assert!(tried > 50, "{tried}");
}
