//! From a passphrase to the master keys, at the cost that new repositories have.

use std::hint::black_box;

use criterion::Criterion;
use vykar_core::crypto::kdf;
use vykar_core::format::MasterKeys;

pub fn stages(c: &mut Criterion) {
    let keys = MasterKeys { encryption_key: [1; 32], chunk_id_key: [2; 32] };
    let wrapped = kdf::wrap(&keys, b"correct horse", kdf::default_params().unwrap()).unwrap();
    let mut group = c.benchmark_group("keys");
    group.sample_size(10);
    group.bench_function("unwrap", |b| {
        b.iter(|| kdf::unwrap(black_box(&wrapped), b"correct horse").unwrap());
    });
    group.finish();
}
