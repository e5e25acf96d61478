//! A generated tree with every kind of entry.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::harness::{is_root, note, silent};
use super::random::Dice;

const MIB: usize = 1 << 20;

/// Which parts of the tree are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// Files above 64 MiB.
    pub big: bool,
}

/// Makes the tree in a new folder.
pub fn generate(root: &Path, parts: Parts) {
    fs::create_dir(root).unwrap();
    let t = Generator { root };
    t.plain();
    t.names();
    t.symlinks();
    t.hard_links();
    t.sparse();
    t.modes();
    t.attributes();
    t.many_and_deep();
    if parts.big {
        t.big();
    }
    if is_root() {
        t.owners();
        t.privileged_attributes();
    } else {
        note("not root: odd owners, trusted.* and security.* attributes and unreadable files are left out");
    }
    // Last, since making entries changes their folder's time.
    t.times();
}

/// A FIFO, a socket and, as root, two devices.
pub fn generate_special(dir: &Path) -> Vec<PathBuf> {
    let node = |name: &str, kind, device| {
        let path = dir.join(name);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device).unwrap();
        path
    };
    let mut made = vec![node("fifo", FileType::Fifo, 0)];
    let socket = dir.join("socket");
    std::os::unix::net::UnixListener::bind(&socket).unwrap();
    made.push(socket);
    if is_root() {
        made.push(node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)));
        made.push(node("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200)));
    }
    made
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    Dice::new(seed).bytes(len)
}

/// Text that compresses well and does not repeat exactly.
pub fn prose(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut line = 0u64;
    while out.len() < len {
        line += 1;
        writeln!(out, "line {line}: the quick brown fox jumps over the lazy dog").unwrap();
    }
    out.truncate(len);
    out
}

/// Sets access and modification time, in seconds and nanoseconds.
pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) {
    let spec = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec: tv_nsec as _ };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|e| panic!("utimensat {}: {e}", path.display()));
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("setxattr {name} of {}: {e}", path.display()));
}

struct Generator<'a> {
    root: &'a Path,
}

impl Generator<'_> {
    fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(name.as_ref()))
    }

    fn dir(&self, name: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&self, name: impl AsRef<[u8]>, data: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn plain(&self) {
        self.file("empty", b"");
        self.file("one byte", b"x");
        self.file("text", &prose(10_000));
        self.file("noise", &noise(3 * MIB + 7, 1));
        self.file("zeros", &[0; 3 * MIB]);
        self.file("twice-a", &noise(MIB, 2));
        self.file("twice-b", &noise(MIB, 2));
        self.dir("empty-dir");
        self.file("a/b/c/d/leaf", b"leaf\n");
        self.dir("a/b/empty");
    }

    fn names(&self) {
        let odd: [&[u8]; 14] = [
            b"not-utf8-\xff\xfe",
            b"latin1-\xe9t\xe9",
            b"new\nline",
            b" leading and trailing ",
            b"tab\tand\x01control\x7f",
            b"-dash",
            b"quote'\"`$(x)",
            b"back\\slash\\n",
            b"*glob?[a-z]",
            "größe-数据-🦀".as_bytes(),
            b"e\xcc\x81-decomposed",
            b"...",
            b"con:aux|<>",
            b"~%2F%00",
        ];
        for name in odd {
            self.file([b"names/", name].concat(), name);
        }
        self.file([b"names/".to_vec(), vec![b'n'; 255]].concat(), b"long");
        self.file([b"names/".to_vec(), "ü".repeat(127).into_bytes()].concat(), b"long and wide");
        self.file(b"names/dir-\xe9\xff/inner-\xfe/file", b"raw all the way");
    }

    fn symlinks(&self) {
        let dir = self.dir("symlinks");
        let link = |name: &[u8], target: &[u8]| {
            symlink(OsStr::from_bytes(target), dir.join(OsStr::from_bytes(name))).unwrap();
        };
        link(b"to-file", b"../text");
        link(b"to-dir", b"../a/b");
        link(b"absolute", b"/etc/hostname");
        link(b"dangling", b"/nowhere/at all");
        link(b"loop", b"loop");
        link(b"raw-target", b"target-\xff\xfe");
        link(b"raw-name-\xff", b"plain");
        link(b"dots", b"././../symlinks/./to-file");
        link(b"long", &[b't'; 4000]);
    }

    fn hard_links(&self) {
        let first = self.file("links/first", b"three names\n");
        self.dir("links/below");
        self.dir("other");
        fs::hard_link(&first, self.path("links/below/second")).unwrap();
        fs::hard_link(&first, self.path("other/third")).unwrap();
        let large = self.file("links/large", &noise(MIB + 1, 3));
        fs::hard_link(&large, self.path(b"links/large-\xff")).unwrap();
        let empty = self.file("links/empty", b"");
        fs::hard_link(&empty, self.path("other/empty too")).unwrap();
        symlink("first", self.path("links/symlink")).unwrap();
        fs::hard_link(self.path("links/symlink"), self.path(b"other/symlink-\xff")).unwrap();
        symlink("first", self.path("links/by itself")).unwrap();
    }

    fn sparse(&self) {
        self.dir("sparse");
        let make = |name: &str, len: u64, pieces: &[(u64, &[u8])]| {
            let mut file = File::create(self.path(format!("sparse/{name}"))).unwrap();
            file.set_len(len).unwrap();
            for (at, data) in pieces {
                file.seek(SeekFrom::Start(*at)).unwrap();
                file.write_all(data).unwrap();
            }
        };
        let data = noise(100_000, 4);
        const M: u64 = 1 << 20;
        make("begin", 9 * M + 100_000, &[(9 * M, &data)]);
        make("middle", 20 * M, &[(0, &data), (20 * M - 100_000, &data)]);
        make("end", 5 * M + 1, &[(0, &data)]);
        make("all", 30 * M + 17, &[]);
        make("page", 4096 * 3, &[(4096, b"x")]);
        make("combs", 4 * M, &[(0, b"1"), (M, b"2"), (2 * M + 5, b"3"), (4 * M - 1, b"4")]);
    }

    fn modes(&self) {
        for mode in [0o444, 0o400, 0o600, 0o666, 0o777, 0o4755, 0o2755, 0o6711] {
            set_mode(&self.file(format!("modes/file-{mode:o}"), b"mode"), mode);
        }
        for mode in [0o700, 0o1777, 0o2775, 0o711] {
            set_mode(&self.dir(format!("modes/dir-{mode:o}")), mode);
        }
        self.file("modes/dir-555/inside", b"cannot be written to");
        set_mode(&self.path("modes/dir-555"), 0o555);
        if is_root() {
            set_mode(&self.file("modes/file-0", b"nobody reads this"), 0);
            self.file("modes/dir-0/inside", b"nor this");
            set_mode(&self.path("modes/dir-0"), 0);
        }
    }

    fn attributes(&self) {
        let file = self.file("attributes/file", b"xattrs");
        set_xattr(&file, "user.text", b"value");
        set_xattr(&file, "user.binary", &[0, 255, 10, 0, 127]);
        set_xattr(&file, "user.empty", b"");
        set_xattr(&file, "user.name with spaces/ü", b"1");
        set_xattr(&file, "user.large", &noise(2000, 5));
        set_xattr(&self.dir("attributes/dir"), "user.on-dir", b"dir");
        let acl = |args: &[&str], path: &Path| {
            silent(Command::new("setfacl").args(args).arg(path));
        };
        let access = self.file("attributes/acl", b"acl");
        acl(&["-m", "u:1234:rwx,g:5678:r-x,m::rwx"], &access);
        acl(&["-m", "u:1234:r--,m::r--"], &self.file("attributes/acl-and-xattr", b"both"));
        set_xattr(&self.path("attributes/acl-and-xattr"), "user.too", b"yes");
        let dir = self.dir("attributes/default-acl");
        acl(&["-d", "-m", "u:1234:rwx,g::r-x,o::---"], &dir);
        self.file("attributes/default-acl/inherits", b"from the folder");
        self.dir("attributes/default-acl/below");
        acl(&["-m", "g:5678:rwx"], &dir);
    }

    fn privileged_attributes(&self) {
        let file = self.file("privileged/file", b"trusted");
        set_xattr(&file, "trusted.test", b"root only\0");
        set_xattr(&file, "security.test", b"label");
        symlink("../text", self.path("privileged/link")).unwrap();
        set_xattr(&self.path("privileged/link"), "trusted.on-link", b"link");
        set_xattr(&self.dir("privileged/dir"), "trusted.on-dir", b"");
    }

    fn owners(&self) {
        let own = |path: &Path, uid, gid| lchown(path, Some(uid), Some(gid)).unwrap();
        let set_id = self.file("owners/set-id", b"chown takes the bits away");
        own(&set_id, 1000, 1001);
        set_mode(&set_id, 0o6755);
        own(&self.file("owners/odd", b"odd"), 12_345, 54_321);
        own(&self.file("owners/large", b"large"), u32::MAX - 1, u32::MAX - 1);
        own(&self.dir("owners/dir"), 1, 2);
        symlink("odd", self.path("owners/link")).unwrap();
        own(&self.path("owners/link"), 12_345, 54_321);
    }

    fn many_and_deep(&self) {
        let many = self.dir("many");
        for n in 0..3000 {
            fs::write(many.join(format!("file number {n}")), format!("{n}\n")).unwrap();
        }
        let deep = self.dir(format!("deep/{}", vec!["down"; 100].join("/")));
        fs::write(deep.join("bottom"), b"found").unwrap();
    }

    fn big(&self) {
        let path = self.file("big/mixed", b"");
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        for n in 0..35 {
            file.write_all(&noise(MIB, 100 + n)).unwrap();
        }
        file.write_all(&prose(35 * MIB)).unwrap();
        // On the segment boundary, and one byte behind it.
        self.file("big/segment", &prose(64 * MIB));
        self.file("big/segment-and-one", &prose(64 * MIB + 1));
    }

    fn times(&self) {
        let now = (1_767_225_600, 1);
        let cases: [(&str, (i64, i64)); 6] = [
            ("before-1970", (-631_152_000, 123_456_789)),
            ("minus-one-ns", (-1, 999_999_999)),
            ("epoch", (0, 0)),
            ("one-ns", (0, 1)),
            ("after-2038", (4_102_444_800, 987_654_321)),
            ("past-2106", (4_500_000_000, 500_000_000)),
        ];
        for (name, time) in cases {
            set_times(&self.file(format!("times/{name}"), name.as_bytes()), now, time);
            symlink(name, self.path(format!("times/link-{name}"))).unwrap();
            set_times(&self.path(format!("times/link-{name}")), now, time);
        }
        for (name, time) in cases {
            set_times(&self.dir(format!("times/dir-{name}")), now, time);
        }
        set_times(&self.file("times/read-in-1999", b"atime"), (930_000_000, 42), (920_000_000, 43));
        set_times(&self.path("times"), now, (1_000_000_000, 7));
        set_times(self.root, now, (1_111_111_111, 111_111_111));
    }
}
