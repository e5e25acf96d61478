//! Compressing and expanding payloads.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use vykar_core::codec::{Compression, Compressor, decompress_into, stored};

use super::data::{KIB, MIB, noise, size_name, text};

const SIZES: [usize; 2] = [2 * MIB, 4 * KIB];
const CODECS: [Compression; 4] =
    [Compression::Zstd(1), Compression::Zstd(3), Compression::Zstd(9), Compression::Lz4];

pub fn stages(c: &mut Criterion) {
    // From the middle: the beginning of the source is the same comment in many files.
    let (text, noise) = (text(3 * MIB), noise(2 * MIB));
    assert_realistic(&text[MIB..]);
    for codec in CODECS {
        let mut group = c.benchmark_group(codec.to_string());
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let text = &text[MIB..MIB + size];
            compress(&mut group, codec, &format!("compress {} of text", size_name(size)), text);
            compress(&mut group, codec, &format!("compress {} of noise", size_name(size)), &noise[..size]);
            decompress(&mut group, codec, text);
        }
        group.finish();
    }
}

/// What is measured is worth something only on text like that of real trees.
fn assert_realistic(text: &[u8]) {
    let mut out = Vec::new();
    Compressor::new(Compression::Zstd(3)).unwrap().compress(text, &mut out).unwrap();
    let ratio = out.len() as f64 / text.len() as f64;
    assert!((0.2..0.3).contains(&ratio), "zstd:3 makes it {ratio:.3} of its size");
}

fn compress(group: &mut BenchmarkGroup<'_, WallTime>, codec: Compression, name: &str, data: &[u8]) {
    let mut compressor = Compressor::new(codec).unwrap();
    let mut out = Vec::new();
    group.bench_function(name, |b| {
        b.iter(|| {
            out.clear();
            compressor.compress(black_box(data), &mut out).unwrap();
            out.len()
        });
    });
}

/// Of text alone: noise is stored as it is.
fn decompress(group: &mut BenchmarkGroup<'_, WallTime>, codec: Compression, data: &[u8]) {
    let mut payload = Vec::new();
    Compressor::new(codec).unwrap().compress(data, &mut payload).unwrap();
    assert!(stored(&payload).is_none());
    let mut out = Vec::new();
    group.bench_function(format!("expand {} of text", size_name(data.len())), |b| {
        b.iter(|| {
            let mut spare = std::mem::take(&mut out);
            let mut room = |size| {
                spare.clear();
                spare.reserve(size);
                std::mem::take(&mut spare)
            };
            decompress_into(black_box(&payload), data.len() as u64, &mut room, &mut out).unwrap();
            out.len()
        });
    });
    assert_eq!(out, data);
}
