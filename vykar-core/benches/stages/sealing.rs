//! Sealing and opening objects.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use vykar_core::crypto::{Engine, engine_for};
use vykar_core::format::Encryption;
use vykar_core::format::envelope::{ObjectKind, associated_data};

use super::data::{KIB, OBJECTS, noise, size_name};

/// Objects that are copied before they are opened take this many bytes in all: not more than a core's own cache.
const BATCH: usize = 256 * KIB;

pub fn stages(c: &mut Criterion) {
    for (name, encryption) in
        [("aes256gcm", Encryption::Aes256Gcm), ("chacha20poly1305", Encryption::Chacha20Poly1305)]
    {
        let engine = engine_for(encryption, &[7; 32]).unwrap();
        let mut group = c.benchmark_group(name);
        for size in OBJECTS {
            group.throughput(Throughput::Bytes(size as u64));
            seal_and_open(&mut group, &*engine, size);
        }
        group.finish();
    }
}

fn seal_and_open(group: &mut BenchmarkGroup<'_, WallTime>, engine: &dyn Engine, size: usize) {
    let aad = associated_data(ObjectKind::Chunk, &[9; 32]);
    let mut object = vec![0; engine.header_len()];
    object.extend(noise(size));
    object.reserve(engine.overhead());
    let unsealed = object.len();
    // Each time what the time before has left: to a cipher all bytes are alike.
    group.bench_function(format!("seal {}", size_name(size)), |b| {
        b.iter(|| {
            object.truncate(unsealed);
            engine.seal(black_box(&aad), &mut object, 0).unwrap();
        });
    });
    // Opening works in place and refuses what it has changed, so each time needs a copy, which is not timed.
    let batch = BatchSize::NumIterations((BATCH / size).max(1) as u64);
    group.bench_function(format!("open {}", size_name(size)), |b| {
        b.iter_batched_ref(
            || object.clone(),
            |object| engine.open(black_box(&aad), object).unwrap().len(),
            batch,
        );
    });
}
