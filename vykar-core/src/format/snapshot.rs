//! `snapshots/<id>`: object tag 2, context = the id; the plaintext is MessagePack, not compressed.
//!
//! ```text
//! [ name, hostname, username, time, time_end (RFC 3339), [chunk min, avg, max], comment,
//!   item_ptrs [chunk id], [nfiles, original_size, compressed_size, deduplicated_size, errors] u64,
//!   source_label, source_paths [string], label "", ext bin|nil, format_version = 1 ]
//! ```
//!
//! Fourteen fields, frozen. Shorter is older and reads with defaults, longer or a larger version is
//! newer: unsupported, kept.

use jiff::Timestamp;
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::config::ChunkerParams;
use super::item::{Item, ItemProblem};
use super::links::{self, Group, LINKS, Links};
use super::special;
use super::wire::{self, Reader};
use crate::error::{FormatError, VykarError};
use crate::id::{ChunkId, SnapshotId};

const FIELDS: usize = 14;
/// Name to item pointers: without them there is no snapshot.
const MIN_FIELDS: usize = 8;
/// The version this program writes, and the largest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Counters over the regular files of a snapshot; item streams are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotStats {
    /// Regular-file items, each hard link counted.
    pub nfiles: u64,
    /// Sum of their sizes in bytes.
    pub original_size: u64,
    /// Sum of the stored sizes of their chunks, per occurrence.
    pub compressed_size: u64,
    /// Stored sizes of the file chunks this snapshot added.
    pub deduplicated_size: u64,
    /// Paths that could not be stored.
    pub errors: u64,
}

/// What a snapshot object holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotMeta {
    /// What people type; unique in the repository, though a reader copes with duplicates.
    pub name: String,
    /// Where it was taken.
    pub hostname: String,
    /// Who took it.
    pub username: String,
    /// Begin, RFC 3339.
    pub time: String,
    /// End, RFC 3339.
    pub time_end: String,
    /// Chunk sizes the files were cut with.
    pub chunker: ChunkerParams,
    /// Free text.
    pub comment: String,
    /// The chunks of the item stream, in order.
    pub item_ptrs: Vec<ChunkId>,
    /// Counters.
    pub stats: SnapshotStats,
    /// What people call the label.
    pub source_label: String,
    /// The paths that were stored, absolute.
    pub source_paths: Vec<String>,
    /// Always empty.
    pub label: String,
    /// MessagePack map of later additions, opaque to others.
    pub ext: Option<ByteBuf>,
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
}

impl SnapshotMeta {
    /// Decodes the plaintext. What a newer program wrote is [`FormatError::Newer`].
    pub fn decode(data: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(data);
        let fields = r.array("snapshot")?;
        if fields > FIELDS {
            return Err(FormatError::Newer { what: "snapshot", detail: format!("{fields} fields") });
        }
        if fields < MIN_FIELDS {
            let (found, min, max) = (fields as u64, MIN_FIELDS as u64, FIELDS as u64);
            return Err(FormatError::OutOfBounds { what: "snapshot fields", found, min, max });
        }
        let string = |r: &mut Reader<'_>, what| r.str(what).map(str::to_owned);
        let mut meta = SnapshotMeta {
            name: string(&mut r, "snapshot name")?,
            hostname: string(&mut r, "snapshot hostname")?,
            username: string(&mut r, "snapshot username")?,
            time: string(&mut r, "snapshot time")?,
            time_end: string(&mut r, "snapshot time_end")?,
            chunker: ChunkerParams::read(&mut r)?,
            comment: string(&mut r, "snapshot comment")?,
            item_ptrs: read_pointers(&mut r)?,
            stats: SnapshotStats::default(),
            source_label: String::new(),
            source_paths: Vec::new(),
            label: String::new(),
            ext: None,
            format_version: 0,
        };
        if fields > 8 {
            meta.stats = read_stats(&mut r)?;
        }
        if fields > 9 {
            meta.source_label = string(&mut r, "snapshot source_label")?;
        }
        if fields > 10 {
            let count = r.array("snapshot source_paths")?;
            for _ in 0..count {
                meta.source_paths.push(string(&mut r, "snapshot source path")?);
            }
        }
        if fields > 11 {
            meta.label = string(&mut r, "snapshot label")?;
        }
        if fields > 12 {
            meta.ext =
                r.option("snapshot ext", |r| r.bytes("snapshot ext").map(|b| ByteBuf::from(b.into_owned())))?;
        }
        if fields > 13 {
            meta.format_version = r.u32("snapshot format_version")?;
        }
        if meta.format_version > FORMAT_VERSION {
            let detail = format!("format version {}", meta.format_version);
            return Err(FormatError::Newer { what: "snapshot", detail });
        }
        r.end("snapshot")?;
        Ok(meta)
    }

    /// Encodes the plaintext.
    pub fn encode(&self) -> crate::Result<Vec<u8>> {
        wire::encode("snapshot", self)
    }

    /// The source directory's own item, when the snapshot keeps it.
    pub fn root_item(&self) -> Option<Item<'_>> {
        let item = Item::decode(&mut self.ext_value("root")?).ok()?.ok()?;
        item.check_root().is_ok().then_some(item)
    }

    /// Gives the FIFOs, sockets and device nodes that the snapshot keeps, and what is wrong with others, until `each`
    /// returns false. One by one: what is no item takes a byte in a snapshot, and much more in memory.
    pub fn each_special(&self, each: &mut dyn FnMut(Result<Item<'_>, ItemProblem>) -> bool) {
        let Some(mut r) = self.ext_value(SPECIAL) else { return };
        if let Err(e) = special::decode_each(&mut r, each) {
            let (path, reason) = (String::new(), format!("the list of special items: {e}"));
            each(Err(ItemProblem::Invalid { path, reason }));
        }
    }

    /// Which FIFOs, sockets, device nodes and symlinks are names of one thing.
    ///
    /// # Errors
    /// The list is malformed.
    pub fn links(&self) -> Result<Links<'_>, ItemProblem> {
        let Some(mut r) = self.ext_value(LINKS) else { return Ok(Links::default()) };
        Links::read(&mut r).map_err(|e| {
            let (path, reason) = (String::new(), format!("the list of hard links: {e}"));
            ItemProblem::Invalid { path, reason }
        })
    }

    /// All special items, for tests.
    #[cfg(test)]
    pub(crate) fn special_items(&self) -> Vec<Result<Item<'static>, ItemProblem>> {
        let mut found = Vec::new();
        self.each_special(&mut |item| {
            let plain = |i: Item<'_>| Item {
                mode: i.mode,
                mtime: i.mtime,
                rdev: i.rdev,
                ..Item::new(i.path.into_owned(), i.kind)
            };
            found.push(item.map(plain));
            true
        });
        found
    }

    /// True when there is such a list, whatever is in it.
    pub fn has_special(&self) -> bool {
        self.ext_value(SPECIAL).is_some()
    }

    /// Where a value in `ext` begins.
    fn ext_value(&self, wanted: &str) -> Option<Reader<'_>> {
        let mut r = Reader::new(self.ext.as_deref()?);
        for _ in 0..r.map("ext").ok()? {
            if r.str("ext key").ok()? == wanted {
                return Some(r);
            }
            r.skip("ext value").ok()?;
        }
        None
    }
}

/// Key of the special items in `ext`.
pub(crate) const SPECIAL: &str = "special";

/// The entry of `ext` that holds special items.
pub(crate) fn encode_special(specials: &[Vec<u8>]) -> crate::Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| VykarError::Encode { what: "ext", reason: e.to_string() };
    let mut out = Vec::new();
    let count = u32::try_from(specials.len()).map_err(|e| failed(&e))?;
    rmp::encode::write_str(&mut out, SPECIAL).map_err(|e| failed(&e))?;
    rmp::encode::write_array_len(&mut out, count).map_err(|e| failed(&e))?;
    specials.iter().for_each(|item| out.extend_from_slice(item));
    Ok(out)
}

/// The `ext` field that keeps the source directory's own item, special items as [`special::encode`] makes them, and
/// which of them and of the symlinks are names of one thing.
pub fn encode_ext(
    root: Option<&Item<'_>>,
    specials: &[Vec<u8>],
    links: &[Group],
) -> crate::Result<Option<ByteBuf>> {
    use rmp::encode::{write_map_len, write_str};
    let failed = |e: &dyn std::fmt::Display| VykarError::Encode { what: "ext", reason: e.to_string() };
    let entries = u32::from(root.is_some()) + u32::from(!specials.is_empty()) + u32::from(!links.is_empty());
    if entries == 0 {
        return Ok(None);
    }
    let mut out = Vec::new();
    write_map_len(&mut out, entries).map_err(|e| failed(&e))?;
    if let Some(root) = root {
        write_str(&mut out, "root").map_err(|e| failed(&e))?;
        out.extend(wire::encode("root item", root)?);
    }
    if !specials.is_empty() {
        out.extend(encode_special(specials)?);
    }
    if !links.is_empty() {
        out.extend(links::encode(links)?);
    }
    Ok(Some(ByteBuf::from(out)))
}

fn read_pointers(r: &mut Reader<'_>) -> Result<Vec<ChunkId>, FormatError> {
    let count = r.array("snapshot item_ptrs")?;
    let mut ids = Vec::with_capacity(r.capacity(count, 34));
    for _ in 0..count {
        ids.push(ChunkId(r.fixed("item pointer")?));
    }
    Ok(ids)
}

fn read_stats(r: &mut Reader<'_>) -> Result<SnapshotStats, FormatError> {
    // Older writers have fewer counters.
    let count = r.array_of("snapshot stats", 0, 5)?;
    let mut n = [0u64; 5];
    for value in n.iter_mut().take(count) {
        *value = r.uint("snapshot counter")?;
    }
    let [nfiles, original_size, compressed_size, deduplicated_size, errors] = n;
    Ok(SnapshotStats { nfiles, original_size, compressed_size, deduplicated_size, errors })
}

/// A readable snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What its object holds.
    pub meta: SnapshotMeta,
    /// `meta.time`, parsed.
    pub time: Timestamp,
}

impl Snapshot {
    /// Joins id and contents; fails when the time is not RFC 3339.
    pub fn new(id: SnapshotId, meta: SnapshotMeta) -> Result<Self, FormatError> {
        let time = meta.time.parse().map_err(|e: jiff::Error| FormatError::Invalid {
            what: "snapshot time",
            reason: e.to_string(),
        })?;
        Ok(Snapshot { id, meta, time })
    }

    /// What people call the label: the format keeps it in `source_label`, its `label` stays empty.
    #[allow(clippy::misnamed_getters)]
    pub fn label(&self) -> &str {
        &self.meta.source_label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SnapshotMeta {
        SnapshotMeta {
            name: "0badcafe".into(),
            hostname: "h".into(),
            username: "u".into(),
            time: "2026-01-02T03:04:05Z".into(),
            time_end: "2026-01-02T03:04:06Z".into(),
            chunker: ChunkerParams { min: 1, avg: 2, max: 3 },
            comment: String::new(),
            item_ptrs: vec![ChunkId([9; 32])],
            stats: SnapshotStats {
                nfiles: 1,
                original_size: 200,
                compressed_size: 3,
                deduplicated_size: 4,
                errors: 0,
            },
            source_label: "docs".into(),
            source_paths: vec!["/d".into()],
            label: String::new(),
            ext: Some(ByteBuf::from(vec![0x80])),
            format_version: 1,
        }
    }

    fn golden() -> Vec<u8> {
        let mut b = b"\x9e\xa80badcafe\xa1h\xa1u\xb42026-01-02T03:04:05Z\xb42026-01-02T03:04:06Z".to_vec();
        b.extend(b"\x93\x01\x02\x03\xa0\x91\xdc\0\x20");
        b.extend([9; 32]);
        b.extend(b"\x95\x01\xcc\xc8\x03\x04\0\xa4docs\x91\xa2/d\xa0\xc4\x01\x80\x01");
        b
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(sample().encode().unwrap(), golden());
        assert_eq!(SnapshotMeta::decode(&golden()).unwrap(), sample());
    }

    #[test]
    fn shorter_is_older() {
        let mut bytes = golden();
        bytes[0] = 0x98; // eight fields
        bytes.truncate(
            bytes.len() - b"\x95\x01\xcc\xc8\x03\x04\0\xa4docs\x91\xa2/d\xa0\xc4\x01\x80\x01".len(),
        );
        let old = SnapshotMeta::decode(&bytes).unwrap();
        assert_eq!((old.name.as_str(), old.item_ptrs.len(), old.format_version), ("0badcafe", 1, 0));
        assert_eq!(old.stats, SnapshotStats::default());
    }

    #[test]
    fn longer_or_a_larger_version_is_newer() {
        let mut longer = golden();
        longer[0] = 0x9f;
        longer.push(0xc0);
        assert!(matches!(SnapshotMeta::decode(&longer), Err(FormatError::Newer { .. })));
        let mut version = golden();
        *version.last_mut().unwrap() = 2;
        assert!(matches!(SnapshotMeta::decode(&version), Err(FormatError::Newer { .. })));
    }

    #[test]
    fn every_truncation_is_an_error() {
        for n in 0..golden().len() {
            assert!(SnapshotMeta::decode(&golden()[..n]).is_err(), "{n}");
        }
    }

    #[test]
    fn a_snapshot_keeps_them_beside_its_root() {
        let root = Item::new("", crate::format::ItemType::Directory);
        let device = Item { rdev: 0x103, ..Item::new("dev/null", crate::format::ItemType::CharDevice) };
        let ext = encode_ext(Some(&root), &[special::encode(&device).unwrap()], &[]).unwrap();
        let mut meta = SnapshotMeta { ext, ..sample() };
        assert_eq!(meta.special_items(), [Ok(device)]);
        assert_eq!(meta.root_item(), Some(root));
        // A list that ends early is said, with what is before it.
        let ext = meta.ext.take().unwrap().into_vec();
        meta.ext = Some(ByteBuf::from(ext[..ext.len() - 1].to_vec()));
        assert!(meta.special_items().iter().all(Result::is_err));
        meta.ext = None;
        assert!(meta.special_items().is_empty());
    }

    #[test]
    fn the_root_item_survives_ext_and_unknown_keys() {
        let root = Item { mode: 0o40700, mtime: -5, ..Item::new("", super::super::ItemType::Directory) };
        let meta = SnapshotMeta { ext: encode_ext(Some(&root), &[], &[]).unwrap(), ..sample() };
        assert_eq!(meta.root_item(), Some(root.clone()));
        #[derive(Serialize)]
        struct Ext<'a> {
            another: [u32; 2],
            root: &'a Item<'a>,
        }
        let ext = rmp_serde::encode::to_vec_named(&Ext { another: [1, 2], root: &root });
        // Named encoding turns the item into a map as well, which is not an item: it is ignored.
        let meta = SnapshotMeta { ext: Some(ByteBuf::from(ext.unwrap())), ..sample() };
        assert_eq!(meta.root_item(), None);
        let mut ext = vec![0x82, 0xa1, b'x', 0x92, 1, 2, 0xa4];
        ext.extend(b"root");
        ext.extend(wire::encode("item", &root).unwrap());
        let meta = SnapshotMeta { ext: Some(ByteBuf::from(ext)), ..sample() };
        assert_eq!(meta.root_item(), Some(root));
    }
}
