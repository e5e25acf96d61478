//! Items, one by one and as a stream.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vykar_core::ChunkId;
use vykar_core::format::wire::Reader;
use vykar_core::format::{ChunkRef, Item, ItemStream, ItemType};

use super::data::{Dice, KIB};

const ITEMS: usize = 10_000;
/// Plaintext of an average chunk of an item stream.
const STREAM_CHUNK: usize = 128 * KIB;

pub fn stages(c: &mut Criterion) {
    let items = items();
    let stream = encode(&items);
    let mut group = c.benchmark_group("items");
    group.throughput(Throughput::ElementsAndBytes { elements: ITEMS as u64, bytes: stream.len() as u64 });
    group.bench_function("encode", |b| b.iter(|| encode(black_box(&items))));
    group.bench_function("decode", |b| b.iter(|| decode(black_box(&stream))));
    group.bench_function("decode and check a stream of chunks", |b| b.iter(|| parse(black_box(&stream))));
    group.finish();
    assert_eq!((decode(&stream), parse(&stream)), (ITEMS, ITEMS));
}

/// As a backup writes them.
fn encode(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        rmp_serde::encode::write(&mut out, item).unwrap();
    }
    out
}

fn decode(stream: &[u8]) -> usize {
    let mut reader = Reader::new(stream);
    let mut count = 0;
    while reader.remaining() > 0 {
        black_box(Item::decode(&mut reader).unwrap().unwrap());
        count += 1;
    }
    count
}

fn parse(chunks: &[u8]) -> usize {
    let mut stream = ItemStream::new();
    let mut count = 0;
    for chunk in chunks.chunks(STREAM_CHUNK) {
        stream.push(chunk);
        while let Some(item) = stream.next_item().unwrap() {
            black_box(item.unwrap());
            count += 1;
        }
    }
    assert!(stream.rest().is_empty());
    count
}

/// As in a source tree: a directory in sixteen entries, hardly a symlink, and one chunk a file.
fn items() -> Vec<Item<'static>> {
    let mut numbers = Dice::new(5);
    (0..ITEMS).map(|n| item(n, &mut numbers)).collect()
}

fn item(n: usize, numbers: &mut Dice) -> Item<'static> {
    let (kind, permissions) = match n % 16 {
        0 => (ItemType::Directory, 0o755),
        1 if n % 256 == 1 => (ItemType::Symlink, 0o777),
        _ => (ItemType::RegularFile, 0o644),
    };
    let path = format!("drivers/vendor-{}/family-{}/file_{n}.c", n / 1024, n / 64 % 16);
    let mtime = 1_700_000_000_000_000_000 + numbers.below(1 << 30) as i64 * 1_000_003;
    let new = Item::new(path, kind);
    let mut item = Item {
        mode: new.mode | permissions,
        uid: 1000,
        gid: 1000,
        user: Some("user".into()),
        group: Some("users".into()),
        mtime,
        ctime: Some(mtime + 1_000_000),
        link_target: (kind == ItemType::Symlink).then(|| "../family-0/file_2.c".into()),
        ..new
    };
    if kind == ItemType::RegularFile {
        let size = 200 + numbers.below(40_000) as u32;
        item.chunks = vec![ChunkRef { id: ChunkId(numbers.id()), size, stored_size: size / 4 }];
        item.size = size.into();
    }
    item
}
