//! Headers of a tar archive in the pax format (POSIX.1-2001): a ustar header and, before it where that is too small,
//! records for it.
//!
//! ```text
//! name 100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | checksum 8 | type 1 | linkname 100 |
//! magic "ustar\0" | version "00" | uname 32 | gname 32 | devmajor 8 | devminor 8 | prefix 155 | 12 unused
//! ```
//!
//! Numbers are octal digits with a NUL behind them. A record is `LENGTH KEY=VALUE\n`, its length in decimal including
//! itself. Names are raw bytes in both, as GNU tar writes them.

use crate::format::acl::{ACCESS, Acl, DEFAULT, IdNames};
use crate::format::{Item, ItemType};

/// Everything in an archive has a length that is a multiple of this.
pub(super) const BLOCK: usize = 512;
/// Longest name and link name that a header holds.
const NAME: usize = 100;
/// Longest name of a user or group; there is a NUL behind it.
const OWNER: usize = 31;
/// Largest number in fields of 8 and 12 bytes.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;
const NANOS: u64 = 1_000_000_000;

/// What an entry of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind<'a> {
    /// A file, followed by its content.
    File,
    /// Another name of a file.
    Link(&'a [u8]),
    /// A symlink.
    Symlink(&'a [u8]),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The headers of an item, which is called `name` in the archive. `names` are for the users and groups of its ACLs.
pub(super) fn headers(item: &Item<'_>, name: &[u8], kind: EntryKind<'_>, names: &IdNames) -> Vec<u8> {
    let (letter, target) = match kind {
        EntryKind::File => (b'0', &b""[..]),
        EntryKind::Link(to) => (b'1', to),
        EntryKind::Symlink(target) => (b'2', target),
        EntryKind::CharDevice => (b'3', &b""[..]),
        EntryKind::BlockDevice => (b'4', &b""[..]),
        EntryKind::Directory => (b'5', &b""[..]),
        EntryKind::Fifo => (b'6', &b""[..]),
    };
    let size = if kind == EntryKind::File { item.size } else { 0 };
    let (user, group) = (owner(item.user.as_deref()), owner(item.group.as_deref()));
    let mut records = PaxRecords::default();
    records.add_if(name.len() > NAME, "path", name);
    records.add_if(target.len() > NAME, "linkpath", target);
    records.add_if(size > MAX_LONG, "size", size.to_string().as_bytes());
    let (uid, gid) = (u64::from(item.uid), u64::from(item.gid));
    records.add_if(uid > MAX_SHORT, "uid", uid.to_string().as_bytes());
    records.add_if(gid > MAX_SHORT, "gid", gid.to_string().as_bytes());
    records.add_if(user.len() > OWNER, "uname", user);
    records.add_if(group.len() > OWNER, "gname", group);
    let seconds = u64::try_from(item.mtime / NANOS as i64).unwrap_or(0).min(MAX_LONG);
    let exact = i128::from(seconds) * i128::from(NANOS) == item.mtime.into();
    records.add_if(!exact, "mtime", time(item.mtime).as_bytes());
    if let Some(atime) = item.atime {
        records.add("atime", time(atime).as_bytes());
    }
    if !matches!(kind, EntryKind::Link(_)) {
        records.add_xattrs(item, names);
    }
    let mut out = records.with_header(name);
    let mut header = Header::new(name, letter);
    header.number(100, 8, permissions(item).into());
    header.number(108, 8, uid);
    header.number(116, 8, gid);
    header.number(124, 12, size);
    header.number(136, 12, seconds);
    header.text(157, NAME, target);
    if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        header.number(329, 8, rustix::fs::major(item.rdev).into());
        header.number(337, 8, rustix::fs::minor(item.rdev).into());
    }
    header.text(265, OWNER, user);
    header.text(297, OWNER, group);
    out.extend(header.finish());
    out
}

/// The permissions of an item. With an ACL, the group's own in place of the mask: they are right also where the ACL is
/// not extracted, and where it is, its mask takes their place.
fn permissions(item: &Item<'_>) -> u32 {
    let is_access = |(name, _): &&(_, _)| *name == ACCESS;
    let acl = item.xattrs.iter().flatten().find(is_access).and_then(|(_, value)| Acl::parse(value));
    match acl.filter(|_| item.kind != ItemType::Symlink) {
        Some(acl) => item.permissions() & !0o070 | acl.group_permissions() << 3,
        None => item.permissions(),
    }
}

/// The blocks that end an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many bytes come behind a content of so many.
pub(super) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// A name that a header can hold.
fn owner(name: Option<&str>) -> &[u8] {
    name.map(str::as_bytes).filter(|name| !name.contains(&0)).unwrap_or_default()
}

/// Seconds with decimals.
fn time(ns: i64) -> String {
    let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    match ns % NANOS {
        0 => format!("{sign}{}", ns / NANOS),
        rest => {
            let decimals = format!("{rest:09}");
            format!("{sign}{}.{}", ns / NANOS, decimals.trim_end_matches('0'))
        }
    }
}

/// PaxRecords of one entry.
#[derive(Default)]
struct PaxRecords(Vec<u8>);

impl PaxRecords {
    fn add_if(&mut self, needed: bool, key: &str, value: &[u8]) {
        if needed {
            self.add(key, value);
        }
    }

    fn add(&mut self, key: &str, value: &[u8]) {
        // A space, `=` and a newline.
        let rest = key.len() + value.len() + 3;
        // The digits of the length count too, and may make it one digit longer.
        let digits = |n: usize| n.to_string().len();
        let mut len = rest + digits(rest);
        len = rest + digits(len);
        self.0.extend(format!("{len} {key}=").bytes());
        self.0.extend(value);
        self.0.push(b'\n');
    }

    fn add_xattrs(&mut self, item: &Item<'_>, names: &IdNames) {
        for (name, value) in item.xattrs.iter().flatten().filter(|(name, _)| !name.contains('\0')) {
            // As text only: the numbers in the attribute would give one user's rights to another elsewhere.
            let key = match &**name {
                ACCESS => Some("SCHILY.acl.access"),
                DEFAULT => Some("SCHILY.acl.default"),
                _ => None,
            };
            if let Some((key, acl)) = key.zip(Acl::parse(value)) {
                self.add(key, acl.text(names).as_bytes());
                continue;
            }
            // A key ends at the first `=`; GNU tar has these two escapes.
            let name = name.replace('%', "%25").replace('=', "%3D");
            self.add(&format!("SCHILY.xattr.{name}"), value);
        }
    }

    /// With a header of their own, if there are any.
    fn with_header(self, name: &[u8]) -> Vec<u8> {
        let PaxRecords(mut records) = self;
        if records.is_empty() {
            return Vec::new();
        }
        let own = [b"PaxHeaders/", &name[..name.len().min(80)]].concat();
        let own = own.strip_suffix(b"/").unwrap_or(&own);
        let mut header = Header::new(own, b'x');
        header.number(100, 8, 0o644);
        header.number(108, 8, 0);
        header.number(116, 8, 0);
        header.number(124, 12, records.len() as u64);
        header.number(136, 12, 0);
        let mut out = header.finish().to_vec();
        let padded = records.len() + padding(records.len() as u64);
        records.resize(padded, 0);
        out.extend(records);
        out
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], letter: u8) -> Self {
        let mut header = Header([0; BLOCK]);
        header.text(0, NAME, name);
        header.0[156] = letter;
        header.text(257, 8, b"ustar\x0000");
        header
    }

    /// As much of a text as the field holds.
    fn text(&mut self, at: usize, len: usize, text: &[u8]) {
        let len = text.len().min(len);
        self.0[at..at + len].copy_from_slice(&text[..len]);
    }

    /// A number, or the largest that the field holds.
    fn number(&mut self, at: usize, len: usize, number: u64) {
        let number = number.min(if len == 8 { MAX_SHORT } else { MAX_LONG });
        let digits = len - 1;
        self.text(at, digits, format!("{number:0digits$o}").as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        // Counted with spaces in its own field.
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.text(148, 7, format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ItemType;

    #[test]
    fn golden_header() {
        let item = Item {
            mode: 0o100_644,
            uid: 1000,
            gid: 100,
            user: Some("ada".into()),
            mtime: 1_000_000_000_000_000_000,
            size: 5,
            ..Item::new("d/f", ItemType::RegularFile)
        };
        let header = headers(&item, b"d/f", EntryKind::File, &IdNames::default());
        assert_eq!(header.len(), BLOCK);
        assert_eq!(&header[..4], b"d/f\0");
        assert_eq!(
            &header[100..157],
            b"0000644\x000001750\x000000144\x0000000000005\x0007346545000\x00007071\0 0"
        );
        assert_eq!(&header[257..269], b"ustar\x0000ada\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = header[148..156].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(sum - own + 8 * 32, 0o7071);
    }

    /// Keys and values of an item's records.
    fn records(item: &Item<'_>, name: &[u8], kind: EntryKind<'_>) -> Vec<(String, Vec<u8>)> {
        let headers = headers(item, name, kind, &IdNames::default());
        if headers[156] != b'x' {
            return Vec::new();
        }
        let size = std::str::from_utf8(&headers[124..135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        let (mut rest, mut found) = (&headers[BLOCK..BLOCK + size], Vec::new());
        while !rest.is_empty() {
            let space = rest.iter().position(|c| *c == b' ').unwrap();
            let len: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            let equals = rest.iter().position(|c| *c == b'=').unwrap();
            assert_eq!(rest[len - 1], b'\n');
            let key = String::from_utf8(rest[space + 1..equals].to_vec()).unwrap();
            found.push((key, rest[equals + 1..len - 1].to_vec()));
            rest = &rest[len..];
        }
        assert_eq!(headers.len(), 2 * BLOCK + size + padding(size as u64));
        found
    }

    #[test]
    fn what_a_header_cannot_hold_is_a_record() {
        let large = Item {
            uid: u32::MAX,
            group: Some("g".repeat(32).into()),
            size: 1 << 33,
            mtime: -1,
            xattrs: Some(vec![("user.a=%".into(), vec![0, b'\n', b'='].into())]),
            ..Item::new("f", ItemType::RegularFile)
        };
        let text = |text: &str| text.as_bytes().to_vec();
        let expected = [
            ("size", text("8589934592")),
            ("uid", text("4294967295")),
            ("gname", text(&"g".repeat(32))),
            ("mtime", text("-0.000000001")),
            ("SCHILY.xattr.user.a%3D%25", b"\0\n=".to_vec()),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(records(&large, b"f", EntryKind::File), expected);
        assert_eq!(records(&large, b"f", EntryKind::Link(b"x")), expected[1..4], "its name says no more");

        let small = Item::new("f", ItemType::Symlink);
        assert_eq!(records(&small, &[b'n'; 100], EntryKind::Symlink(&[b't'; 100])), []);
        for len in 101..1200 {
            let (name, target) = (vec![0xff; len], vec![b't'; len - 1]);
            let found = records(&small, &name, EntryKind::Symlink(&target));
            assert_eq!(found[0], ("path".to_owned(), name));
            assert_eq!(found.get(1).is_some(), len > 101);
        }
    }

    #[test]
    fn acls_are_text_and_a_mask_gives_the_group_nothing() {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1u16, 6u16, u32::MAX), (2, 6, 5001), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
        {
            value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        let list = vec![
            (ACCESS.into(), value.clone().into()),
            (DEFAULT.into(), value.into()),
            // What is none stays what it is.
            (DEFAULT.into(), b"none".as_slice().into()),
        ];
        let item = Item { mode: 0o040_660, xattrs: Some(list), ..Item::new("d", ItemType::Directory) };
        let text = b"user::rw-,user:5001:rw-:5001,group::r--,mask::rw-,other::---".to_vec();
        let expected = [
            ("SCHILY.acl.access".to_owned(), text.clone()),
            ("SCHILY.acl.default".to_owned(), text),
            ("SCHILY.xattr.system.posix_acl_default".to_owned(), b"none".to_vec()),
        ];
        assert_eq!(records(&item, b"d/", EntryKind::Directory), expected);
        let headers = headers(&item, b"d/", EntryKind::Directory, &IdNames::default());
        assert_eq!(&headers[headers.len() - BLOCK..][100..107], b"0000640");
    }

    #[test]
    fn times_are_decimal() {
        for (ns, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-1_500_000_000, "-1.5"),
            (i64::MIN, "-9223372036.854775808"),
            (7_000_000_000, "7"),
        ] {
            assert_eq!(time(ns), text);
        }
        let item = |mtime| Item { mtime, ..Item::new("f", ItemType::Directory) };
        for (mtime, recorded) in [
            (0, false),
            (5_000_000_000, false),
            (-5_000_000_000, true),
            (1, true),
            (9_000_000_000_000_000_000, true),
        ] {
            assert_eq!(!records(&item(mtime), b"f/", EntryKind::Directory).is_empty(), recorded, "{mtime}");
        }
        assert_eq!((padding(0), padding(1), padding(512), padding(513)), (0, 511, 0, 511));
    }
}
