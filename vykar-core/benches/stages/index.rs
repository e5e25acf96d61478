//! The chunk index: encoding, decoding, looking up.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use vykar_core::format::index::ChunkTable;
use vykar_core::format::{IndexBlob, IndexEntry};
use vykar_core::{ChunkId, PackId};

use super::data::Dice;

const ENTRIES: usize = 100_000;
/// Chunks of a pack.
const IN_A_PACK: usize = 100;
/// Lookups of one iteration.
const LOOKUPS: usize = 10_000;

pub fn stages(c: &mut Criterion) {
    let entries = entries();
    let encode = || {
        let mut out = Vec::new();
        IndexBlob::encode_to(&mut out, 1, ENTRIES as u32, entries.iter().copied()).unwrap();
        out
    };
    let encoded = encode();
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("encode", |b| b.iter(encode));
    group.bench_function("decode", |b| b.iter(|| IndexBlob::decode(black_box(&encoded)).unwrap()));
    lookups(&mut group, &entries);
    group.finish();
}

fn lookups(group: &mut BenchmarkGroup<'_, WallTime>, entries: &[IndexEntry]) {
    let table = ChunkTable::build(entries.iter().copied()).unwrap();
    let mut numbers = Dice::new(4);
    let present: Vec<ChunkId> = (0..LOOKUPS).map(|_| entries[numbers.below(ENTRIES)].id).collect();
    let absent: Vec<ChunkId> = (0..LOOKUPS).map(|_| ChunkId(numbers.id())).collect();
    let found = |ids: &[ChunkId]| ids.iter().filter(|id| table.get(id).is_some()).count();
    assert_eq!((found(&present), found(&absent)), (LOOKUPS, 0));
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    group.bench_function("look up, there", |b| b.iter(|| found(black_box(&present))));
    group.bench_function("look up, not there", |b| b.iter(|| found(black_box(&absent))));
}

/// Sorted by id, as they are in an index.
fn entries() -> Vec<IndexEntry> {
    let mut numbers = Dice::new(3);
    let packs: Vec<PackId> = (0..ENTRIES / IN_A_PACK).map(|_| PackId(numbers.id())).collect();
    let mut entries: Vec<_> = (0..ENTRIES)
        .map(|n| IndexEntry {
            id: ChunkId(numbers.id()),
            refcount: 1 + numbers.below(3) as u32,
            stored_size: 1000 + numbers.below(300_000) as u32,
            pack: packs[n / IN_A_PACK],
            offset: (n % IN_A_PACK * 300_000) as u64,
        })
        .collect();
    entries.sort_by_key(|e| e.id);
    entries
}
