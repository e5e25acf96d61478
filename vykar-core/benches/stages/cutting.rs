//! FastCDC, with the parameters of file contents and of item streams.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vykar_core::codec::Chunker;
use vykar_core::format::ChunkerParams;

use super::data::{MIB, noise, text};

/// Enough for several chunks of files.
const LEN: usize = 16 * MIB;

pub fn stages(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (content, data) in [("noise", noise(LEN)), ("text", text(LEN)), ("zeros", vec![0; LEN])] {
        for (params, name) in [(ChunkerParams::FILES, "files"), (ChunkerParams::ITEMS, "items")] {
            let chunker = Chunker::new(params);
            group.bench_function(format!("{name}, {content}"), |b| {
                b.iter(|| chunker.cut(black_box(&data)).count());
            });
        }
    }
    group.finish();
}
