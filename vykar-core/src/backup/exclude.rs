//! What of the sources is left out, and why.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::FileType;

use super::source::{self, Stat};
use crate::error::{Result, VykarError};

/// Name of the file that marks directories of caches.
const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
/// How it begins (Cache Directory Tagging Specification, <https://bford.info/cachedir/>).
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// Name of files with rules for the directory they are in.
const GIT_IGNORE: &CStr = c".gitignore";
/// Largest such file that is read, in bytes.
const MAX_GIT_IGNORE: u64 = 1 << 20;

/// What to leave out. The default leaves out nothing.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// Rules as in a `.gitignore` at the top of each source: the last that matches decides.
    pub patterns: Vec<String>,
    /// Directories that hold an entry of such a name are left out, but for the sources themselves.
    pub if_present: Vec<String>,
    /// Likewise directories with a `CACHEDIR.TAG` that begins as it must.
    pub caches: bool,
    /// Follow the `.gitignore` files in the sources.
    pub git_ignore: bool,
    /// Leave out what is below mount points.
    pub one_file_system: bool,
    /// Leave out regular files of more bytes.
    pub larger_than: Option<u64>,
}

impl Excludes {
    /// What is wrong with a rule, if anything is.
    ///
    /// # Errors
    /// It is not a rule that a `.gitignore` file may have.
    pub fn check_pattern(pattern: &str) -> Result<(), String> {
        GitignoreBuilder::new("").add_line(None, pattern).map(drop).map_err(|e| e.to_string())
    }
}

/// Why something is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclusion {
    /// A rule of the caller.
    Pattern(String),
    /// A rule of a `.gitignore` file.
    GitIgnore(String),
    /// It holds an entry of this name.
    Marker(String),
    /// It is marked as a cache.
    Cache,
    /// It is on another file system.
    FileSystem,
    /// It is a file of so many bytes.
    Large(u64),
    /// Something else is stored under its name.
    Replaced,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exclusion::Pattern(rule) => write!(f, "the rule `{rule}`"),
            Exclusion::GitIgnore(rule) => write!(f, "the rule `{rule}` of a .gitignore"),
            Exclusion::Marker(name) => write!(f, "it holds `{name}`"),
            Exclusion::Cache => f.write_str("it is marked as a cache (CACHEDIR.TAG)"),
            Exclusion::FileSystem => f.write_str("another file system"),
            Exclusion::Large(size) => write!(f, "too large ({size} bytes)"),
            Exclusion::Replaced => f.write_str("the output of commands is stored under this name"),
        }
    }
}

/// Excludes that are ready to be asked.
pub struct Filter {
    patterns: Gitignore,
    markers: Vec<CString>,
    caches: bool,
    git_ignore: bool,
    one_file_system: bool,
    larger_than: u64,
    /// A name at the top of a source that something else has.
    reserved: Option<&'static [u8]>,
}

impl Filter {
    /// Compiles rules.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn new(excludes: &Excludes, reserved: Option<&'static str>) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        let wrong =
            |pattern: &str, e: &dyn fmt::Display| VykarError::Usage(format!("exclude {pattern:?}: {e}"));
        for pattern in &excludes.patterns {
            builder.add_line(None, pattern).map_err(|e| wrong(pattern, &e))?;
        }
        let marker = |name: &String| CString::new(name.as_bytes()).map_err(|e| wrong(name, &e));
        Ok(Filter {
            patterns: builder.build().map_err(|e| VykarError::Usage(format!("excludes: {e}")))?,
            markers: excludes.if_present.iter().map(marker).collect::<Result<_>>()?,
            caches: excludes.caches,
            git_ignore: excludes.git_ignore,
            one_file_system: excludes.one_file_system,
            larger_than: excludes.larger_than.unwrap_or(u64::MAX),
            reserved: reserved.map(str::as_bytes),
        })
    }

    /// Why an entry is left out. For a directory, what is in it is asked about by [`Filter::directory`].
    pub fn entry(&self, place: &Place, path: &[u8], stat: &Stat) -> Option<Exclusion> {
        if stat.kind == FileType::RegularFile && stat.size > self.larger_than {
            return Some(Exclusion::Large(stat.size));
        }
        let relative = place.source.relative(path);
        if self.reserved.is_some_and(|name| place.source.prefix == 0 && relative == name) {
            return Some(Exclusion::Replaced);
        }
        if self.patterns.is_empty() && place.rules.is_none() {
            return None;
        }
        let is_dir = stat.kind == FileType::Directory;
        let relative = Path::new(OsStr::from_bytes(relative));
        match self.patterns.matched(relative, is_dir) {
            Match::Ignore(rule) => return Some(Exclusion::Pattern(rule.original().to_owned())),
            Match::Whitelist(_) => return None,
            Match::None => {}
        }
        // The rules nearest to it come first.
        let mut rules = place.rules.as_deref();
        while let Some(Rules { above, dir, matcher }) = rules {
            let below = path.get(*dir..).unwrap_or_default();
            match matcher.matched(Path::new(OsStr::from_bytes(below)), is_dir) {
                Match::Ignore(rule) => return Some(Exclusion::GitIgnore(rule.original().to_owned())),
                Match::Whitelist(_) => return None,
                Match::None => rules = above.as_deref(),
            }
        }
        None
    }

    /// Why a directory is left out because of what it holds. What a source itself holds does not matter: who names
    /// it wants it.
    pub fn directory(
        &self,
        place: &Place,
        path: &[u8],
        dir: &OwnedFd,
        names: &[CString],
    ) -> Option<Exclusion> {
        if place.source.relative(path).is_empty() {
            return None;
        }
        let holds = |marker: &CStr| names.iter().any(|name| name.as_c_str() == marker);
        if let Some(marker) = self.markers.iter().find(|marker| holds(marker)) {
            return Some(Exclusion::Marker(marker.to_string_lossy().into_owned()));
        }
        let is_cache = self.caches && holds(CACHE_TAG) && is_cache_tag(dir);
        is_cache.then_some(Exclusion::Cache)
    }

    /// True when what is in a directory is on another file system than its source, and not wanted.
    pub fn leaves(&self, place: &Place, stat: &Stat) -> bool {
        self.one_file_system && stat.dev != place.source.dev
    }

    /// Where the entries of a directory are, with the rules that it brings.
    ///
    /// # Errors
    /// Its rules cannot be read; those of the directories above it still hold.
    pub fn inside(
        &self,
        place: &Place,
        path: &[u8],
        dir: &OwnedFd,
        names: &[CString],
    ) -> (Place, Option<std::io::Error>) {
        if !self.git_ignore || !names.iter().any(|name| name.as_c_str() == GIT_IGNORE) {
            return (place.clone(), None);
        }
        match read_rules(dir) {
            Ok(matcher) => {
                let dir = if path.is_empty() { 0 } else { path.len().saturating_add(1) };
                let rules = Rules { above: place.rules.clone(), dir, matcher };
                (Place { rules: Some(Arc::new(rules)), ..place.clone() }, None)
            }
            Err(e) => (place.clone(), Some(e)),
        }
    }
}

/// Where in the sources an entry is, as far as it matters for what is left out.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    rules: Option<Arc<Rules>>,
}

impl Place {
    /// The top of a source whose own path in the snapshot is `path`.
    pub fn top(path: &[u8], dev: u64) -> Self {
        Place { source: Arc::new(Source { prefix: path.len(), dev }), rules: None }
    }
}

struct Source {
    /// Bytes of its path in the snapshot.
    prefix: usize,
    dev: u64,
}

impl Source {
    fn relative<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        let below = path.get(self.prefix..).unwrap_or_default();
        below.strip_prefix(b"/").unwrap_or(below)
    }
}

/// Rules of a `.gitignore` file.
struct Rules {
    above: Option<Arc<Rules>>,
    /// Bytes of its directory's path in the snapshot, the slash behind it included.
    dir: usize,
    matcher: Gitignore,
}

fn open(dir: &OwnedFd, name: &CStr) -> std::io::Result<std::fs::File> {
    let file = source::open_file(dir, name)?;
    match Stat::of(&file)?.kind {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(std::io::Error::other("not a regular file")),
    }
}

fn is_cache_tag(dir: &OwnedFd) -> bool {
    let mut begin = [0; CACHE_TAG_SIGNATURE.len()];
    let read = open(dir, CACHE_TAG).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == CACHE_TAG_SIGNATURE
}

fn read_rules(dir: &OwnedFd) -> std::io::Result<Gitignore> {
    let mut text = Vec::new();
    open(dir, GIT_IGNORE)?.take(MAX_GIT_IGNORE).read_to_end(&mut text)?;
    let mut builder = GitignoreBuilder::new("");
    for line in text.split(|c| *c == b'\n') {
        // As git does, a rule that is none is ignored; so is one that is not UTF-8.
        if let Ok(line) = std::str::from_utf8(line) {
            let _ = builder.add_line(None, line.strip_suffix('\r').unwrap_or(line));
        }
    }
    builder.build().map_err(std::io::Error::other)
}
