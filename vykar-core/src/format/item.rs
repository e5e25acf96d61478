//! `Item`: one file, directory or symlink of a snapshot.
//!
//! ```text
//! [ path string, type string, mode u32, uid u32, gid u32, user string|nil, group string|nil,
//!   mtime i64 ns, atime i64|nil, ctime i64|nil, size u64,
//!   chunks [[chunk id 32 bytes, size u32, stored size u32]],
//!   link_target string|nil, xattrs {name: bytes}|nil,
//!   raw_names [path bin|nil, link_target bin|nil] | nil, hardlink [dev u64, ino u64] | nil ]
//! ```
//!
//! Older items end after `chunks`, `link_target`, `xattrs` or `raw_names`. More elements, or another
//! type, is newer. An item that breaks a rule costs that item, not its snapshot.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::wire::Reader;
use crate::error::FormatError;
use crate::id::ChunkId;

const MIN_FIELDS: usize = 12;
const FIELDS: usize = 16;
/// Longest symlink target in bytes.
pub const MAX_TARGET: usize = 4096;
/// Most extended attributes of one item. Linux lists at most 64 KiB of their names (`XATTR_LIST_MAX`), each with a
/// byte behind it; and each of them takes more memory than its two bytes in a stream.
pub const MAX_XATTRS: usize = 64 << 10;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ItemType {
    /// A regular file.
    RegularFile,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe; like those that follow only among the special items.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl ItemType {
    /// The type bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            ItemType::RegularFile => libc::S_IFREG,
            ItemType::Directory => libc::S_IFDIR,
            ItemType::Symlink => libc::S_IFLNK,
            ItemType::Fifo => libc::S_IFIFO,
            ItemType::Socket => libc::S_IFSOCK,
            ItemType::CharDevice => libc::S_IFCHR,
            ItemType::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChunkRef {
    /// The chunk.
    pub id: ChunkId,
    /// Its plaintext length in bytes.
    pub size: u32,
    /// Its object's length when it was stored; informative, the index governs.
    pub stored_size: u32,
}

/// Exact bytes of names that are not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawNames<'a> {
    /// The whole relative path.
    pub path: Option<Cow<'a, [u8]>>,
    /// The symlink target.
    pub target: Option<Cow<'a, [u8]>>,
}

impl Serialize for RawNames<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let bin = |b: &Option<Cow<'_, [u8]>>| b.as_deref().map(|b| serde_bytes::ByteBuf::from(b.to_vec()));
        (bin(&self.path), bin(&self.target)).serialize(s)
    }
}

/// Extended attributes: name and value.
pub type Xattrs<'a> = Vec<(Cow<'a, str>, Cow<'a, [u8]>)>;

/// One file, directory or symlink. Fields borrow from the stream they were read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item<'a> {
    /// Relative path for display; see [`Item::path_bytes`] for the exact one.
    pub path: Cow<'a, str>,
    /// What it is.
    pub kind: ItemType,
    /// `st_mode`; some writers give permission bits alone, so see [`Item::permissions`].
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    pub user: Option<Cow<'a, str>>,
    /// Group's name.
    pub group: Option<Cow<'a, str>>,
    /// Nanoseconds since the epoch, may be negative.
    pub mtime: i64,
    /// Likewise.
    pub atime: Option<i64>,
    /// Likewise.
    pub ctime: Option<i64>,
    /// Bytes; informative for anything but a regular file.
    pub size: u64,
    /// A regular file's content.
    pub chunks: Vec<ChunkRef>,
    /// A symlink's target for display; see [`Item::target_bytes`].
    pub link_target: Option<Cow<'a, str>>,
    /// Extended attributes, ACLs among them.
    #[serde(serialize_with = "xattrs_as_map")]
    pub xattrs: Option<Xattrs<'a>>,
    /// Present only when it carries something.
    pub raw_names: Option<RawNames<'a>>,
    /// Device and inode that all names of one file share.
    pub hardlink: Option<(u64, u64)>,
    /// Of a device node, its number as `st_rdev` has it; not in the stream.
    #[serde(skip)]
    pub rdev: u64,
    /// Of what is neither a file nor a directory: the number of its group in [`Links`](super::links::Links), if it has
    /// several names; not in the stream.
    #[serde(skip)]
    pub link_group: Option<u32>,
}

fn xattrs_as_map<S: Serializer>(xattrs: &Option<Xattrs<'_>>, s: S) -> Result<S::Ok, S::Error> {
    match xattrs {
        None => s.serialize_none(),
        Some(list) => s.collect_map(list.iter().map(|(name, value)| (name, value))),
    }
}

/// Why an item is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemProblem {
    /// Written by a newer program.
    #[error("written by a newer version of the program ({detail})")]
    Newer {
        /// The path, where it could be read.
        path: String,
        /// What gives it away.
        detail: String,
    },
    /// Breaks a rule of the format.
    #[error("{reason}")]
    Invalid {
        /// The path, where it could be read.
        path: String,
        /// The rule.
        reason: String,
    },
}

impl ItemProblem {
    /// The path, where it could be read, else empty.
    pub fn path(&self) -> &str {
        match self {
            ItemProblem::Newer { path, .. } | ItemProblem::Invalid { path, .. } => path,
        }
    }
}

impl<'a> Item<'a> {
    /// An empty item.
    pub fn new(path: impl Into<Cow<'a, str>>, kind: ItemType) -> Self {
        Item {
            path: path.into(),
            kind,
            mode: kind.mode_bits(),
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime: 0,
            atime: None,
            ctime: None,
            size: 0,
            chunks: Vec::new(),
            link_target: None,
            xattrs: None,
            raw_names: None,
            hardlink: None,
            rdev: 0,
            link_group: None,
        }
    }

    /// What all names of one thing share, and nothing else does, for an item of any kind.
    pub fn link_key(&self) -> Option<(u64, u64)> {
        self.hardlink.or_else(|| self.link_group.map(|group| (u64::MAX, group.into())))
    }

    /// Sets path and target from their exact bytes, keeping raw forms only where needed.
    pub fn set_names(&mut self, path: Cow<'a, [u8]>, target: Option<Cow<'a, [u8]>>) {
        let (path, raw_path) = display_name(path);
        let (target, raw_target) = match target.map(display_name) {
            Some((shown, raw)) => (Some(shown), raw),
            None => (None, None),
        };
        self.path = path;
        self.link_target = target;
        self.raw_names = (raw_path.is_some() || raw_target.is_some())
            .then_some(RawNames { path: raw_path, target: raw_target });
    }

    /// The exact relative path.
    pub fn path_bytes(&self) -> &[u8] {
        match &self.raw_names {
            Some(RawNames { path: Some(raw), .. }) => raw,
            _ => self.path.as_bytes(),
        }
    }

    /// The exact relative path, as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path_bytes()))
    }

    /// The exact symlink target.
    pub fn target_bytes(&self) -> Option<&[u8]> {
        match &self.raw_names {
            Some(RawNames { target: Some(raw), .. }) => Some(raw),
            _ => self.link_target.as_deref().map(str::as_bytes),
        }
    }

    /// Permission bits, set-id bits included.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Reads one item. The outer error means that the bytes end early or are no value at all, so
    /// that nothing behind them can be found; the inner one costs this item only.
    pub fn decode(r: &mut Reader<'a>) -> Result<Result<Self, ItemProblem>, FormatError> {
        Self::decode_as(r, false)
    }

    /// Likewise, of the special items, which are not in the stream.
    pub(super) fn decode_special(r: &mut Reader<'a>) -> Result<Result<Self, ItemProblem>, FormatError> {
        Self::decode_as(r, true)
    }

    fn decode_as(r: &mut Reader<'a>, special: bool) -> Result<Result<Self, ItemProblem>, FormatError> {
        let start = r.clone();
        match Self::decode_fields(r, special) {
            Ok(Ok(item)) => Ok(Ok(item)),
            Err(e @ FormatError::Truncated { .. }) => Err(e),
            Ok(Err(problem)) => {
                *r = start;
                r.skip("item")?;
                Ok(Err(problem))
            }
            Err(error) => {
                *r = start.clone();
                r.skip("item")?;
                let path = path_of(start);
                Ok(Err(ItemProblem::Invalid { path, reason: error.to_string() }))
            }
        }
    }

    fn decode_fields(r: &mut Reader<'a>, special: bool) -> Result<Result<Self, ItemProblem>, FormatError> {
        let start = r.clone();
        let newer = |detail| Ok(Err(ItemProblem::Newer { path: path_of(start), detail }));
        let fields = r.array("item")?;
        let most = FIELDS + usize::from(special);
        if fields > most {
            return newer(format!("{fields} fields"));
        }
        if fields < MIN_FIELDS {
            let (found, min, max) = (fields as u64, MIN_FIELDS as u64, most as u64);
            return Err(FormatError::OutOfBounds { what: "item fields", found, min, max });
        }
        let path = Cow::Borrowed(r.str("item path")?);
        let kind = match r.str("item type")? {
            "RegularFile" => ItemType::RegularFile,
            "Directory" => ItemType::Directory,
            "Symlink" => ItemType::Symlink,
            "Fifo" if special => ItemType::Fifo,
            "Socket" if special => ItemType::Socket,
            "CharDevice" if special => ItemType::CharDevice,
            "BlockDevice" if special => ItemType::BlockDevice,
            other => return newer(format!("type {other:?}")),
        };
        let name = |r: &mut Reader<'a>, what| r.option(what, |r| r.str(what).map(Cow::Borrowed));
        let mut item = Item {
            path,
            kind,
            mode: r.u32("item mode")?,
            uid: r.u32("item uid")?,
            gid: r.u32("item gid")?,
            user: name(r, "item user")?,
            group: name(r, "item group")?,
            mtime: r.int("item mtime")?,
            atime: r.option("item atime", |r| r.int("item atime"))?,
            ctime: r.option("item ctime", |r| r.int("item ctime"))?,
            size: r.uint("item size")?,
            chunks: read_chunks(r)?,
            link_target: None,
            xattrs: None,
            raw_names: None,
            hardlink: None,
            rdev: 0,
            link_group: None,
        };
        if fields > 12 {
            item.link_target = name(r, "item link_target")?;
        }
        if fields > 13 {
            item.xattrs = r.option("item xattrs", read_xattrs)?;
        }
        if fields > 14 {
            item.raw_names = r.option("item raw_names", read_raw_names)?;
        }
        if fields > 15 {
            item.hardlink = r.option("item hardlink", |r| {
                r.array_of("item hardlink", 2, 2)?;
                Ok((r.uint("hardlink dev")?, r.uint("hardlink ino")?))
            })?;
        }
        if fields > FIELDS {
            item.rdev = r.uint("item rdev")?;
        }
        Ok(Ok(item))
    }

    /// Checks every rule that a reader relies on.
    pub fn check(&self) -> Result<(), ItemProblem> {
        self.check_rules(false).map_err(|reason| self.invalid(reason))
    }

    /// Checks the item of a source directory itself, whose path is empty.
    pub fn check_root(&self) -> Result<(), ItemProblem> {
        self.check_rules(true).map_err(|reason| self.invalid(reason))
    }

    /// Checks one of the special items.
    pub(super) fn check_special(&self) -> Result<(), ItemProblem> {
        if !super::special::is_special(self.kind) {
            return Err(self.invalid("not a FIFO, socket or device".into()));
        }
        let is_device = matches!(self.kind, ItemType::CharDevice | ItemType::BlockDevice);
        if self.rdev != 0 && !is_device {
            return Err(self.invalid("a device number on what is no device".into()));
        }
        self.check()
    }

    fn invalid(&self, reason: String) -> ItemProblem {
        ItemProblem::Invalid { path: self.path.to_string(), reason }
    }

    fn check_rules(&self, root: bool) -> Result<(), String> {
        let path = self.path_bytes();
        if root {
            if !path.is_empty() || self.kind != ItemType::Directory {
                return Err("not a source directory's own item".into());
            }
        } else if !is_plain_relative(path) {
            return Err("path is not relative and plain".into());
        }
        if let Some(raw) = &self.raw_names {
            check_raw(raw.path.as_deref(), Some(&self.path))?;
            check_raw(raw.target.as_deref(), self.link_target.as_deref())?;
            if raw.path.is_none() && raw.target.is_none() {
                return Err("raw_names carries nothing".into());
            }
        }
        if self.kind != ItemType::RegularFile && (!self.chunks.is_empty() || self.hardlink.is_some()) {
            return Err("chunks or hardlink on what is not a regular file".into());
        }
        match (self.kind, self.target_bytes()) {
            (ItemType::Symlink, Some(t)) if (1..=MAX_TARGET).contains(&t.len()) && !t.contains(&0) => {}
            (ItemType::Symlink, _) => return Err("bad symlink target".into()),
            (_, Some(_)) => return Err("target on what is not a symlink".into()),
            (_, None) => {}
        }
        if self.kind == ItemType::RegularFile {
            // At most 2^32 chunks of at most 2^32 bytes: no overflow.
            let sum: u64 = self.chunks.iter().map(|c| u64::from(c.size)).sum();
            if sum != self.size {
                return Err(format!("size {} but its chunks hold {sum}", self.size));
            }
        }
        Ok(())
    }
}

/// The path of an item that cannot be read whole, for messages.
fn path_of(mut r: Reader<'_>) -> String {
    let path = r.array("item").and_then(|_| r.str("item path"));
    path.map(str::to_owned).unwrap_or_default()
}

fn display_name(exact: Cow<'_, [u8]>) -> (Cow<'_, str>, Option<Cow<'_, [u8]>>) {
    match exact {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (Cow::Borrowed(text), None),
            Err(_) => (String::from_utf8_lossy(bytes), Some(Cow::Borrowed(bytes))),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => (Cow::Owned(text), None),
            Err(e) => {
                let bytes = e.into_bytes();
                (Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()), Some(Cow::Owned(bytes)))
            }
        },
    }
}

fn check_raw(raw: Option<&[u8]>, shown: Option<&str>) -> Result<(), String> {
    let Some(raw) = raw else { return Ok(()) };
    match String::from_utf8_lossy(raw) {
        Cow::Borrowed(_) => Err("raw name is UTF-8".into()),
        Cow::Owned(lossy) if Some(lossy.as_str()) == shown => Ok(()),
        Cow::Owned(_) => Err("raw name and display name disagree".into()),
    }
}

/// True for a path of plain components: relative, none empty, `.` or `..`, no NUL.
pub fn is_plain_relative(path: &[u8]) -> bool {
    !path.is_empty()
        && !path.contains(&0)
        && path.split(|c| *c == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

fn read_chunks(r: &mut Reader<'_>) -> Result<Vec<ChunkRef>, FormatError> {
    let count = r.array("item chunks")?;
    let mut chunks = Vec::with_capacity(r.capacity(count, 36));
    for _ in 0..count {
        r.array_of("chunk reference", 3, 3)?;
        let id = ChunkId(r.fixed("chunk id")?);
        chunks.push(ChunkRef { id, size: r.u32("chunk size")?, stored_size: r.u32("chunk stored size")? });
    }
    Ok(chunks)
}

fn read_xattrs<'a>(r: &mut Reader<'a>) -> Result<Xattrs<'a>, FormatError> {
    let count = r.map("item xattrs")?;
    if count > MAX_XATTRS {
        let (found, max) = (count as u64, MAX_XATTRS as u64);
        return Err(FormatError::OutOfBounds { what: "item xattrs", found, min: 0, max });
    }
    let mut list = Vec::with_capacity(r.capacity(count, 2));
    for _ in 0..count {
        list.push((Cow::Borrowed(r.str("xattr name")?), r.bytes("xattr value")?));
    }
    Ok(list)
}

fn read_raw_names<'a>(r: &mut Reader<'a>) -> Result<RawNames<'a>, FormatError> {
    r.array_of("item raw_names", 2, 2)?;
    let raw = |r: &mut Reader<'a>, what| r.option(what, |r| r.bytes(what));
    Ok(RawNames { path: raw(r, "raw path")?, target: raw(r, "raw target")? })
}

#[cfg(test)]
mod tests {
    use super::super::wire::encode;
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Item<'_>, ItemProblem> {
        Item::decode(&mut Reader::new(bytes)).unwrap()
    }

    fn sample() -> Item<'static> {
        Item {
            mode: 0o100_644,
            uid: 1000,
            user: Some("me".into()),
            mtime: -1,
            atime: Some(5),
            size: 300,
            chunks: vec![ChunkRef { id: ChunkId([1; 32]), size: 300, stored_size: 20 }],
            xattrs: Some(vec![("user.k".into(), vec![0, 0xff].into())]),
            hardlink: Some((7, 300)),
            ..Item::new("a/b", ItemType::RegularFile)
        }
    }

    fn golden() -> Vec<u8> {
        let mut b =
            b"\xdc\0\x10\xa3a/b\xabRegularFile\xcd\x81\xa4\xcd\x03\xe8\0\xa2me\xc0\xff\x05\xc0\xcd\x01\x2c"
                .to_vec();
        b.extend(b"\x91\x93\xdc\0\x20");
        b.extend([1; 32]);
        b.extend(b"\xcd\x01\x2c\x14\xc0\x81\xa6user.k\x92\0\xcc\xff\xc0\x92\x07\xcd\x01\x2c");
        b
    }

    #[test]
    fn more_attributes_than_any_file_has_cost_their_item() {
        let list = |n: usize| vec![("".into(), Vec::new().into()); n];
        let bytes = |n| encode("item", &Item { xattrs: Some(list(n)), ..sample() }).unwrap();
        // A map may have one name many times.
        assert_eq!(decode(&bytes(MAX_XATTRS)).unwrap().xattrs.map(|x| x.len()), Some(MAX_XATTRS));
        let mut stream = bytes(MAX_XATTRS + 1);
        stream.extend(bytes(1));
        let mut r = Reader::new(&stream);
        let problem = Item::decode(&mut r).unwrap().unwrap_err();
        assert!(problem.to_string().contains("xattrs"), "{problem}");
        assert!(Item::decode(&mut r).unwrap().is_ok(), "the next one is found");
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encode("item", &sample()).unwrap(), golden());
        assert_eq!(decode(&golden()).unwrap(), sample());
        assert_eq!(sample().check(), Ok(()));
    }

    #[test]
    fn raw_names_are_bin() {
        let mut item = Item::new("", ItemType::Symlink);
        item.set_names(Cow::Borrowed(b"x\xff"), Some(Cow::Borrowed(b"t\xfe")));
        let bytes = encode("item", &item).unwrap();
        assert!(bytes.windows(9).any(|w| w == b"\x92\xc4\x02x\xff\xc4\x02t\xfe"), "{bytes:02x?}");
        let back = decode(&bytes).unwrap();
        assert_eq!((back.path_bytes(), back.target_bytes()), (&b"x\xff"[..], Some(&b"t\xfe"[..])));
        assert_eq!((&*back.path, back.link_target.as_deref()), ("x\u{fffd}", Some("t\u{fffd}")));
        assert_eq!(back.check(), Ok(()));
    }

    #[test]
    fn older_items_are_shorter() {
        let full = encode("item", &Item::new("p", ItemType::Directory)).unwrap();
        for fields in 12..16u8 {
            let mut bytes = vec![0x90 | fields];
            bytes.extend(&full[3..full.len() - usize::from(16 - fields)]);
            assert_eq!(decode(&bytes).unwrap(), Item::new("p", ItemType::Directory), "{fields}");
        }
    }

    #[test]
    fn more_fields_or_another_type_is_newer_and_costs_only_that_item() {
        let mut longer = encode("item", &sample()).unwrap();
        longer[2] = 17;
        longer.push(0xc0);
        let text = golden();
        let at = text.windows(11).position(|w| w == b"RegularFile").unwrap();
        let mut other = text.clone();
        other[at..at + 11].copy_from_slice(b"Whatever123");
        for newer in [longer, other] {
            let mut stream = newer.clone();
            stream.extend(golden());
            let mut r = Reader::new(&stream);
            assert!(
                matches!(Item::decode(&mut r), Ok(Err(ItemProblem::Newer { path, .. })) if path == "a/b")
            );
            assert_eq!(Item::decode(&mut r), Ok(Ok(sample())));
        }
    }

    #[test]
    fn every_truncation_asks_for_more() {
        let golden = golden();
        for n in 0..golden.len() {
            let result = Item::decode(&mut Reader::new(&golden[..n]));
            assert!(matches!(result, Err(FormatError::Truncated { .. })), "{n}: {result:?}");
        }
    }

    #[test]
    fn rules() {
        let broken = |item: Item<'_>| assert!(item.check().is_err(), "{item:?}");
        for path in ["", "/a", "a//b", "a/", ".", "a/./b", "..", "a/..", "a\0b"] {
            broken(Item::new(path, ItemType::Directory));
        }
        broken(Item { size: 299, ..sample() });
        broken(Item { kind: ItemType::Directory, ..sample() });
        broken(Item { link_target: Some("x".into()), ..sample() });
        broken(Item::new("s", ItemType::Symlink));
        broken(Item { link_target: Some("".into()), ..Item::new("s", ItemType::Symlink) });
        broken(Item { link_target: Some("a\0".into()), ..Item::new("s", ItemType::Symlink) });
        broken(Item { link_target: Some("a".repeat(4097).into()), ..Item::new("s", ItemType::Symlink) });
        broken(Item { raw_names: Some(RawNames::default()), ..sample() });
        let raw = |b: &'static [u8]| Some(RawNames { path: Some(b.into()), target: None });
        broken(Item { raw_names: raw(b"a/b"), ..sample() });
        broken(Item { raw_names: raw(b"a/\xff"), ..sample() });
        broken(Item { raw_names: raw(b"../\xff"), path: "../\u{fffd}".into(), ..sample() });
    }

    prop_compose! {
        fn any_item()(
            path in "[a-zé/]{1,20}", raw in prop::option::of(prop::collection::vec(any::<u8>(), 1..9)),
            mode: u32, ids in (any::<u32>(), any::<u32>()), user in prop::option::of(".{0,9}"), times: (i64, Option<i64>, Option<i64>),
            chunks in prop::collection::vec((any::<[u8; 32]>(), any::<u32>(), any::<u32>()), 0..4),
            xattrs in prop::option::of(prop::collection::btree_map("[a-z.]{1,9}", prop::collection::vec(any::<u8>(), 0..300), 0..3)),
            hardlink: Option<(u64, u64)>,
        ) -> Item<'static> {
            let mut item = Item::new(path.clone(), ItemType::RegularFile);
            if let Some(raw) = raw { item.set_names(Cow::Owned(raw), None); }
            item.mode = mode;
            (item.uid, item.gid) = ids;
            item.user = user.map(Cow::Owned);
            (item.mtime, item.atime, item.ctime) = times;
            item.chunks = chunks.into_iter().map(|(id, size, stored_size)| ChunkRef { id: ChunkId(id), size, stored_size }).collect();
            item.xattrs = xattrs.map(|m| m.into_iter().map(|(k, v)| (k.into(), v.into())).collect());
            item.hardlink = hardlink;
            item
        }
    }

    proptest! {
        #[test]
        fn items_round_trip(item in any_item()) {
            let bytes = encode("item", &item).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), item);
        }

        #[test]
        fn damaged_items_never_panic(item in any_item(), at: usize, to: u8) {
            let mut bytes = encode("item", &item).unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(Ok(item)) = Item::decode(&mut Reader::new(&bytes)) { let _ = item.check(); }
        }
    }
}
