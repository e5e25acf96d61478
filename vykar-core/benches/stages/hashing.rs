//! Chunk ids, one stream at a time, and pack ids.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vykar_core::crypto::{ChunkHasher, pack_id};

use super::data::{MIB, OBJECTS, noise, size_name};

/// The smallest target of a data pack.
const PACK: usize = 32 * MIB;

pub fn stages(c: &mut Criterion) {
    chunk_id(c);
    let pack = noise(PACK);
    let mut group = c.benchmark_group("pack id");
    group.throughput(Throughput::Bytes(PACK as u64));
    group.bench_function(size_name(PACK), |b| b.iter(|| pack_id(black_box(&pack))));
    group.finish();
}

fn chunk_id(c: &mut Criterion) {
    let hasher = ChunkHasher::new([7; 32]);
    let mut group = c.benchmark_group("chunk id");
    for size in OBJECTS {
        let data = noise(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(size_name(size), |b| b.iter(|| hasher.chunk_id(black_box(&data)).unwrap()));
    }
    group.finish();
}
