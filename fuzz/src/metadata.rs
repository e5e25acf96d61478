//! Repository metadata: what decodes keeps the format's bounds, and encodes to what decodes to the same.

use std::io::Read;

use vykar_core::crypto::kdf;
use vykar_core::format::{
    ChunkerParams, EncryptedKey, IndexBlob, IndexEntry, KeyExport, MasterKeys, PendingPack, RepoConfig,
    Snapshot, SnapshotMeta, pending as journal, wire,
};
use vykar_core::{PackId, SnapshotId};

use super::bound::within;

/// Memory that decoding a small object may take whatever its length, in bytes.
const SMALL: usize = 16 << 10;
/// The same for what is read through a window, which has 1 MiB.
const WINDOWED: usize = (1 << 20) + (64 << 10);

/// What is whole is not whole any more with a byte less, or one more.
fn is_whole(data: &[u8], decodes: impl Fn(&[u8]) -> bool) {
    assert!(!decodes(&data[..data.len() - 1]) && !decodes(&[data, &[0xc0]].concat()));
}

/// `config`.
pub fn config(data: &[u8]) {
    let Ok(config) = within(data.len(), SMALL, || RepoConfig::decode(data)) else { return };
    is_whole(data, |data| RepoConfig::decode(data).is_ok());
    assert_eq!(config.version, 2);
    let ChunkerParams { min, avg, max } = config.chunker;
    assert!(0 < min && min <= avg && avg <= max && max <= 16 << 20);
    assert!(config.min_pack_size <= config.max_pack_size && config.max_pack_size <= 512 << 20);
    let Ok(encoded) = wire::encode("config", &config) else { panic!("{config:?} cannot be encoded") };
    assert_eq!(RepoConfig::decode(&encoded).as_ref(), Ok(&config));
}

/// `keys/repokey`, and the keys in it: the input is taken for either.
pub fn key(data: &[u8]) {
    if let Ok(keys) = within(data.len(), SMALL, || MasterKeys::decode(data)) {
        is_whole(data, |data| MasterKeys::decode(data).is_ok());
        let Ok(encoded) = keys.encode() else { panic!("keys cannot be encoded") };
        let Ok(back) = MasterKeys::decode(&encoded) else { panic!("keys cannot be decoded again") };
        assert!((back.encryption_key, back.chunk_id_key) == (keys.encryption_key, keys.chunk_id_key));
    }
    let Ok(key) = within(data.len(), SMALL, || EncryptedKey::decode(data)) else { return };
    is_whole(data, |data| EncryptedKey::decode(data).is_ok());
    let kdf = &key.kdf;
    assert_eq!(kdf.algorithm, "argon2id");
    assert!((1..=10).contains(&kdf.time_cost) && (1..=512 << 10).contains(&kdf.memory_cost));
    assert!((1..=16).contains(&kdf.parallelism) && (16..=64).contains(&kdf.salt.len()));
    assert_eq!(kdf.associated_data().len(), 16 + 4 + kdf.algorithm.len() + 12 + 4 + kdf.salt.len());
    let Ok(encoded) = key.encode() else { panic!("{key:?} cannot be encoded") };
    assert_eq!(EncryptedKey::decode(&encoded).as_ref(), Ok(&key));
    // What costs nothing is derived: parameters that the library refuses are an error.
    if kdf.time_cost == 1 && kdf.memory_cost <= 64 {
        let _ = kdf::unwrap(&key, b"no");
    }
}

/// An exported key as text.
pub fn key_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Of at most 999 lines it is said that they are missing.
    let parsed = within(data.len(), 128 << 10, || KeyExport::parse(&text));
    let export = match parsed {
        Ok(export) => export,
        Err(e) => {
            assert!(!e.problems.is_empty() && e.to_string().len() < 2000, "{e}");
            return;
        }
    };
    let Ok(written) = export.to_text() else { panic!("{export:?} cannot be written") };
    assert_eq!(KeyExport::parse(&written).as_ref(), Ok(&export));
    assert_eq!(KeyExport::parse(&written.to_lowercase().replace(' ', "")).as_ref(), Ok(&export));
    // None of its lines can be missing.
    let is_numbered = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let lines: Vec<&str> = written.lines().filter(is_numbered).collect();
    for left_out in 0..lines.len() {
        let others: Vec<&str> =
            lines.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, line)| *line).collect();
        assert!(KeyExport::parse(&others.join("\n")).is_err());
    }
}

/// Gives a few bytes at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.0.len().min(buf.len()).min(7);
        (&mut self.0).take(len as u64).read(buf)
    }
}

/// The index, decompressed.
pub fn index(data: &[u8]) {
    let _ = IndexBlob::decode_generation(data);
    let whole = within(data.len(), WINDOWED, || IndexBlob::decode(data));
    let slowly = IndexBlob::decode_from(&mut Trickle(data));
    assert_eq!(whole.is_ok(), slowly.is_ok());
    let (Ok(index), Ok(slowly)) = (whole, slowly) else { return };
    is_whole(data, |data| IndexBlob::decode(data).is_ok());
    assert_eq!(IndexBlob::decode_generation(data), Ok(index.generation));
    let entries: Vec<IndexEntry> = index.chunks.iter().collect();
    assert!(entries.iter().copied().eq(slowly.chunks.iter()));
    assert!(entries.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(entries.iter().all(|entry| index.chunks.get(&entry.id) == Some(*entry)));
    let mut encoded = Vec::new();
    let count = entries.len() as u32;
    let written = IndexBlob::encode_to(&mut encoded, index.generation, count, entries.iter().copied());
    assert!(written.is_ok());
    let Ok(back) = IndexBlob::decode(&encoded) else { panic!("an index cannot be decoded again") };
    assert!(back.generation == index.generation && back.chunks.iter().eq(entries.iter().copied()));
}

/// A session's journal, decompressed.
pub fn pending(data: &[u8]) {
    let whole = within(data.len(), WINDOWED, || journal::decode(data));
    let mut slowly = Vec::new();
    let each = &mut |pack| {
        slowly.push(pack);
        Ok(())
    };
    let ended = journal::decode_each(&mut Trickle(data), each);
    assert_eq!(whole.is_ok(), ended.is_ok());
    let Ok(packs) = whole else { return };
    is_whole(data, |data| journal::decode(data).is_ok());
    assert_eq!(packs, slowly);
    let parts = |p: &PendingPack| (p.pack, p.chunks.len() as u32, p.chunks.clone().into_iter());
    let parts: Vec<(PackId, u32, _)> = packs.iter().map(parts).collect();
    let mut encoded = Vec::new();
    assert!(journal::encode_to(&mut encoded, parts.into_iter()).is_ok());
    assert_eq!(journal::decode(&encoded), Ok(packs));
}

/// A snapshot's metadata, and the root item in its `ext`.
pub fn snapshot(data: &[u8]) {
    let Ok(meta) = within(data.len(), SMALL, || SnapshotMeta::decode(data)) else { return };
    is_whole(data, |data| SnapshotMeta::decode(data).is_ok());
    assert!(meta.format_version <= 1);
    let Ok(encoded) = meta.encode() else { panic!("{meta:?} cannot be encoded") };
    assert_eq!(SnapshotMeta::decode(&encoded).as_ref(), Ok(&meta));
    let ext = meta.ext.as_ref().map_or(0, |ext| ext.len());
    if let Some(root) = within(ext, SMALL, || meta.root_item()) {
        assert!(root.path_bytes().is_empty() && root.check_root().is_ok() && root.check().is_err());
    }
    within(ext, SMALL, || {
        meta.each_special(&mut |item| {
            assert!(item.iter().all(|item| item.check().is_ok() && item.chunks.is_empty()));
            true
        });
    });
    vykar_core::fuzzing::note(meta.clone());
    if let Ok(snapshot) = Snapshot::new(SnapshotId([0; 32]), meta) {
        assert_eq!(snapshot.label(), snapshot.meta.source_label);
    }
}
