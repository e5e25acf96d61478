//! Chunk ids and pack ids, one at a time and several.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vykar_core::crypto::{ChunkHasher, pack_id, pack_ids};

use super::data::{MIB, OBJECTS, noise, size_name};

/// The smallest target of a data pack.
const PACK: usize = 32 * MIB;

pub fn stages(c: &mut Criterion) {
    chunk_id(c);
    chunk_ids(c);
    let pack = noise(PACK);
    let mut group = c.benchmark_group("pack id");
    group.throughput(Throughput::Bytes(PACK as u64));
    group.bench_function(size_name(PACK), |b| b.iter(|| pack_id(black_box(&pack))));
    group.throughput(Throughput::Bytes(4 * PACK as u64));
    group.bench_function(format!("4 of {}", size_name(PACK)), |b| {
        let read = |_: usize, at: u64, out: &mut [u8]| {
            out.copy_from_slice(&pack[at as usize..][..out.len()]);
            Ok::<_, ()>(())
        };
        b.iter(|| pack_ids(black_box(&[PACK as u64; 4]), read).unwrap());
    });
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

/// Files of one job, of sizes as they are in a source tree.
fn chunk_ids(c: &mut Criterion) {
    let hasher = ChunkHasher::new([7; 32]);
    let data = noise(MIB);
    let lengths = (0..128usize).map(|n| 200 + n * n * 4);
    let chunks: Vec<&[u8]> = lengths.map(|len| &data[..len]).collect();
    let mut group = c.benchmark_group("chunk ids");
    group.throughput(Throughput::Bytes(chunks.iter().map(|chunk| chunk.len() as u64).sum()));
    group.bench_function("128 small", |b| b.iter(|| hasher.chunk_ids(black_box(&chunks))));
    group.finish();
}
