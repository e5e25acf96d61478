//! Are two trees the same? Attribute by attribute, and by other people's tools.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{is_root, silent};

/// Relative path, as bytes.
pub type Name = Vec<u8>;

/// What one `lstat`, `readlink` and `listxattr` say about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Links of what is no directory that lie in this tree; `nlink` must be that number where it is restored.
    pub links: u64,
    /// Content length of a regular file.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
    /// Likewise; of regular files only, since looking at a directory changes it.
    pub atime: Option<i128>,
    pub target: Option<Vec<u8>>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name in this tree of the same thing.
    pub same_as: Option<Name>,
    /// What `lstat` calls the number of links; compared with `links` of the other side.
    nlink: u64,
}

/// A tree, path by path; the tree's own root is the empty path.
pub type Tree = BTreeMap<Name, Entry>;

/// What a comparison leaves out.
#[derive(Debug, Clone, Copy)]
pub struct Leave {
    pub owner: bool,
    pub atime: bool,
    pub root: bool,
    pub contents: bool,
}

impl Default for Leave {
    /// Only what this user cannot restore.
    fn default() -> Self {
        Leave { owner: !is_root(), atime: false, root: false, contents: false }
    }
}

const TYPE: u32 = 0o170_000;

/// Reads a tree's attributes. Reads no file's content, so access times of files stay.
pub fn read_tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<Name>> = BTreeMap::new();
    walk(root, &Name::new(), &mut found, &mut inodes);
    for names in inodes.into_values() {
        for name in &names {
            let entry = found.get_mut(name).unwrap();
            entry.links = names.len() as u64;
            entry.same_as = (names.len() > 1).then(|| names[0].clone());
        }
    }
    found
}

fn walk(root: &Path, name: &Name, found: &mut Tree, inodes: &mut BTreeMap<(u64, u64), Vec<Name>>) {
    let path = join(root, name);
    let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("lstat {}: {e}", path.display()));
    let is_file = meta.is_file();
    let nanos = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
    if !meta.is_dir() {
        inodes.entry((meta.dev(), meta.ino())).or_default().push(name.clone());
    }
    let entry = Entry {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        links: 1,
        size: if is_file { meta.len() } else { 0 },
        mtime: nanos(meta.mtime(), meta.mtime_nsec()),
        atime: is_file.then(|| nanos(meta.atime(), meta.atime_nsec())),
        target: meta
            .is_symlink()
            .then(|| fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()),
        xattrs: xattrs(&path),
        same_as: None,
        nlink: meta.nlink(),
    };
    found.insert(name.clone(), entry);
    if meta.is_dir() {
        let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("readdir {}: {e}", path.display()));
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for below in names {
            let mut child = name.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(below.as_bytes());
            walk(root, &child, found, inodes);
        }
    }
}

/// A tree's path from its root and a relative name.
pub fn join(root: &Path, name: &[u8]) -> PathBuf {
    if name.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(name)) }
}

/// All extended attributes of a path that this user can see, ACLs among them.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let n = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other.unwrap_or_else(|e| panic!("listxattr {}: {e}", path.display())),
    };
    let names = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut value = vec![0; 64 << 10];
    let read = |name: &[u8]| {
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]);
        let n = n.unwrap_or_else(|e| panic!("getxattr {name:?} of {}: {e}", path.display()));
        (String::from_utf8(name.to_vec()).unwrap(), value[..n].to_vec())
    };
    names.map(read).collect()
}

/// Demands that `copy` is `tree`, whose files are still below `source`.
#[track_caller]
pub fn same(tree: &Tree, source: &Path, copy: &Path, leave: Leave) {
    let found = differences(tree, source, copy, leave);
    let shown = found.iter().take(30).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{}: {} differences\n{shown}", copy.display(), found.len());
}

/// One line for each difference between a copy and what it should be.
fn differences(tree: &Tree, source: &Path, copy: &Path, leave: Leave) -> Vec<String> {
    let found = read_tree(copy);
    let mut differences = Differences::default();
    let names: BTreeSet<&Name> = tree.keys().chain(found.keys()).collect();
    for name in names {
        if name.is_empty() && leave.root {
            continue;
        }
        match (tree.get(name), found.get(name)) {
            (Some(wanted), Some(entry)) => {
                differences.entry(name, wanted, entry, leave);
                if wanted.mode & TYPE == 0o100_000 && wanted.mode == entry.mode && !leave.contents {
                    differences.contents(name, &join(source, name), &join(copy, name));
                }
            }
            (Some(_), None) => differences.add(name, "missing"),
            (None, _) => differences.add(name, "should not be there"),
        }
    }
    differences.0
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, name: &[u8], what: &str) {
        let shown: String = String::from_utf8_lossy(name).chars().take(150).collect();
        self.0.push(format!("{shown:?}: {what}"));
    }

    fn entry(&mut self, name: &Name, wanted: &Entry, found: &Entry, leave: Leave) {
        let mut check = |what: &str, wanted: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            let (wanted, found) = (format!("{wanted:?}"), format!("{found:?}"));
            if wanted != found {
                let cut = |text: String| text.chars().take(300).collect::<String>();
                self.add(name, &format!("{what} is {}, should be {}", cut(found), cut(wanted)));
            }
        };
        check("mode", &format!("{:o}", wanted.mode), &format!("{:o}", found.mode));
        check("size", &wanted.size, &found.size);
        check("mtime", &wanted.mtime, &found.mtime);
        check("target", &wanted.target, &found.target);
        check("hard link group", &wanted.same_as, &found.same_as);
        if wanted.mode & TYPE != 0o040_000 {
            check("link count", &wanted.links, &found.nlink);
        }
        if !leave.owner {
            check("owner", &(wanted.uid, wanted.gid), &(found.uid, found.gid));
        }
        if !leave.atime {
            check("atime", &wanted.atime, &found.atime);
        }
        check("xattrs", &wanted.xattrs, &found.xattrs);
    }

    fn contents(&mut self, name: &[u8], wanted: &Path, found: &Path) {
        if let Some(what) = content_difference(wanted, found) {
            self.add(name, &what);
        }
    }
}

fn content_difference(wanted: &Path, found: &Path) -> Option<String> {
    let open = |path: &Path| File::open(path).map_err(|e| format!("open {}: {e}", path.display()));
    let read = |file: &mut File, buf: &mut [u8]| {
        let mut filled = 0;
        while filled < buf.len() {
            match file.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) => return Err(format!("read: {e}")),
            }
        }
        Ok(filled)
    };
    let compare = || -> Result<(), String> {
        let (mut a, mut b) = (open(wanted)?, open(found)?);
        let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let mut at = 0;
        loop {
            let (n, m) = (read(&mut a, &mut left)?, read(&mut b, &mut right)?);
            if n != m || left[..n] != right[..n] {
                return Err(format!("content differs in the MiB from byte {at}"));
            }
            if n == 0 {
                return Ok(());
            }
            at += n;
        }
    };
    compare().err()
}

/// `diff -r` and `rsync -n` must find nothing either.
#[track_caller]
pub fn same_to_others(source: &Path, copy: &Path) {
    silent(Command::new("diff").args(["-r", "--no-dereference"]).args([source, copy]));
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--delete", "--checksum", "--itemize-changes"]);
    if !is_root() {
        rsync.args(["--no-owner", "--no-group"]);
    }
    silent(rsync.arg(slash(source)).arg(slash(copy)));
}

/// The comparison itself must be able to fail.
mod self_test {
    use super::*;
    use crate::harness::World;
    use crate::tree::{Parts, generate, set_mode, set_times};

    type Change = fn(&Path);

    #[test]
    fn every_kind_of_difference_is_seen() {
        let world = World::new();
        let (source, copy) = (world.path("source"), world.path("copy"));
        generate(&source, Parts::default());
        let tree = read_tree(&source);
        silent(Command::new("cp").args(["-a", "--sparse=always"]).args([&source, &copy]));
        let leave = Leave { atime: true, ..Leave::default() };
        same(&tree, &source, &copy, leave);
        same_to_others(&source, &copy);

        let changes: [(&str, &str, Change); 9] = [
            ("one byte", "missing", |p| fs::remove_file(p).unwrap()),
            ("new", "should not be there", |p| fs::write(p, b"").unwrap()),
            ("noise", "content differs", change_a_byte),
            ("empty", "mode is", |p| set_mode(p, 0o600)),
            ("times/epoch", "mtime is", |p| set_times(p, (0, 0), (0, 1))),
            ("symlinks/loop", "target is", |p| {
                fs::remove_file(p).unwrap();
                std::os::unix::fs::symlink("looq", p).unwrap();
            }),
            ("other/third", "hard link group is", |p| {
                fs::copy(p, p.with_file_name("tmp")).unwrap();
                fs::rename(p.with_file_name("tmp"), p).unwrap();
            }),
            ("attributes/file", "xattrs is", |p| rustix::fs::lremovexattr(p, "user.empty").unwrap()),
            ("attributes/acl", "xattrs is", |p| silent(Command::new("setfacl").arg("-b").arg(p))),
        ];
        for (name, _, change) in changes {
            change(&copy.join(name));
        }
        let found = differences(&tree, &source, &copy, leave);
        for (name, what, _) in changes {
            let line = format!("{name:?}: {what}");
            assert!(found.iter().any(|f| f.starts_with(&line)), "no {line} in {found:#?}");
        }
    }

    /// Keeps size and time.
    fn change_a_byte(path: &Path) {
        let meta = fs::metadata(path).unwrap();
        let mut data = fs::read(path).unwrap();
        data[2_000_000] ^= 1;
        fs::write(path, data).unwrap();
        set_times(path, (meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec()));
    }
}
