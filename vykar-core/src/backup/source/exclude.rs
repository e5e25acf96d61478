//! What of the sources is left out, and why.

use std::ffi::{CStr, CString};

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use crate::backup::pipeline::walk::DirEntryName;
use crate::backup::source::entry;
use crate::backup::source::entry::{Spot, Stat};
use crate::error::{Result, VykarError};
use crate::event::Exclusion;
use crate::rules::{Rules, Ruling};

/// DirEntryName of the file that marks directories of caches.
const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
/// How it begins (Cache Directory Tagging Specification, <https://bford.info/cachedir/>).
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// DirEntryName of files with rules for the directory they are in.
const GIT_IGNORE: &CStr = c".gitignore";
/// Largest such file that is read, in bytes.
const MAX_GIT_IGNORE: u64 = 16 << 20;

/// What to leave out. The default leaves out nothing.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// Rules as in a `.gitignore` at the top of each source: the last that matches decides. One that begins with the
    /// absolute path of a source is about that path, unless the source has such a path inside it.
    pub patterns: Vec<Vec<u8>>,
    /// Directories that hold an entry of such a name are left out, but for the sources themselves. Names as
    /// [`Excludes::check_marker`] takes them.
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
    /// What is wrong with a name of entries that mark directories, if anything is.
    ///
    /// # Errors
    /// No entry of a directory has such a name, or it looks like a pattern, which it is not.
    pub fn check_marker(name: &str) -> Result<(), String> {
        let why = match name {
            "" => "an empty name",
            "." | ".." => "a name that every directory has",
            _ if name.contains(['/', '\0']) => "the name of an entry, without slashes",
            _ if name.contains(['*', '?', '[']) => "a name, not a pattern",
            _ => return Ok(()),
        };
        Err(why.to_owned())
    }
}

/// Excludes that are ready to be asked.
pub struct ExcludeFilter {
    patterns: Arc<Rules>,
    markers: Vec<CString>,
    caches: bool,
    git_ignore: bool,
    /// Leave out what is below mount points.
    pub one_file_system: bool,
    larger_than: u64,
    /// A name at the top of a source that something else has.
    reserved: Option<&'static [u8]>,
}

impl ExcludeFilter {
    /// Compiles rules.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn new(excludes: &Excludes, reserved: Option<&'static str>) -> Result<Self> {
        let marker = |name: &String| {
            let wrong =
                |e: String| VykarError::Usage(format!("the name {name:?} cannot mark directories: {e}"));
            Excludes::check_marker(name).map_err(wrong)?;
            CString::new(name.as_bytes()).map_err(|e| wrong(e.to_string()))
        };
        Ok(ExcludeFilter {
            patterns: Arc::new(Rules::new(&excludes.patterns)?),
            markers: excludes.if_present.iter().map(marker).collect::<Result<_>>()?,
            caches: excludes.caches,
            git_ignore: excludes.git_ignore,
            one_file_system: excludes.one_file_system,
            larger_than: excludes.larger_than.unwrap_or(u64::MAX),
            reserved: reserved.map(str::as_bytes),
        })
    }

    /// The top of a source: a directory at `source`, an absolute path, whose own path in the snapshot is `path`.
    pub fn top(&self, path: &[u8], source: &[u8], spot: Spot) -> SourcePlace {
        let is_there = |below: &[u8]| {
            let below = [source, b"/", below].concat();
            rustix::fs::lstat(&below[..]).is_ok()
        };
        let patterns =
            self.patterns.at_source(source, is_there).map_or_else(|| self.patterns.clone(), Arc::new);
        SourcePlace { source: Arc::new(SourceRules { prefix: path.len(), spot, patterns }), rules: None }
    }

    /// Why an entry is left out whatever it looks like; `is_dir` is `None` where that is not known, and then a rule
    /// must not depend on it. For a directory, what is in it is asked about by [`ExcludeFilter::directory`].
    pub fn entry(&self, place: &SourcePlace, path: &[u8], is_dir: Option<bool>) -> Option<Exclusion> {
        let relative = place.source.relative(path);
        if self.reserved.is_some_and(|name| place.source.prefix == 0 && relative == name) {
            return Some(Exclusion::Replaced);
        }
        if place.source.patterns.is_empty() && place.rules.is_none() {
            return None;
        }
        match is_dir {
            Some(is_dir) => by_rules(place, path, is_dir),
            None => by_rules(place, path, true).and(by_rules(place, path, false)),
        }
    }

    /// Why an entry is left out that looks like this.
    pub fn looks(&self, stat: &Stat) -> Option<Exclusion> {
        let large = stat.kind == FileType::RegularFile && stat.size > self.larger_than;
        large.then_some(Exclusion::Large(stat.size))
    }

    /// Why a directory is left out because of what it holds. What a source itself holds does not matter: who names
    /// it wants it.
    pub fn directory(
        &self,
        place: &SourcePlace,
        path: &[u8],
        dir: &OwnedFd,
        names: &[DirEntryName],
    ) -> Option<Exclusion> {
        if place.source.relative(path).is_empty() {
            return None;
        }
        let holds = |marker: &CStr| names.iter().any(|name| name.text.as_c_str() == marker);
        if let Some(marker) = self.markers.iter().find(|marker| holds(marker)) {
            return Some(Exclusion::Marker(marker.to_string_lossy().into_owned()));
        }
        let is_cache = self.caches && holds(CACHE_TAG) && is_cache_tag(dir);
        is_cache.then_some(Exclusion::Cache)
    }

    /// True for a directory that is mounted below its source, or on another device (a subvolume is), and not wanted.
    pub fn leaves(&self, place: &SourcePlace, spot: &Spot) -> bool {
        self.one_file_system && (spot.dev() != place.source.spot.dev() || self.is_mounted(place, spot))
    }

    /// True for what is mounted below its source, and not wanted. Files of one file system may have many devices.
    pub fn is_mounted(&self, place: &SourcePlace, spot: &Spot) -> bool {
        self.one_file_system && spot.is_other_mount(&place.source.spot)
    }

    /// Where the entries of a directory are, with the rules that it brings, and what is wrong with these. Those of the
    /// directories above it hold in any case.
    pub fn inside(
        &self,
        place: &SourcePlace,
        path: &[u8],
        dir: &OwnedFd,
        names: &[DirEntryName],
    ) -> (SourcePlace, Option<RuleTrouble>) {
        if !self.git_ignore || !names.iter().any(|name| name.text.as_c_str() == GIT_IGNORE) {
            return (place.clone(), None);
        }
        match read_rules(dir) {
            Ok((matcher, flawed)) => {
                let dir = if path.is_empty() { 0 } else { path.len().saturating_add(1) };
                let rules = GitRules { above: place.rules.clone(), dir, matcher };
                let trouble = (!flawed.is_empty()).then_some(RuleTrouble::Flawed(flawed));
                (SourcePlace { rules: Some(Arc::new(rules)), ..place.clone() }, trouble)
            }
            Err(e) => (place.clone(), Some(RuleTrouble::Unread(e))),
        }
    }
}

/// What is wrong with a file of rules.
pub enum RuleTrouble {
    /// It cannot be read.
    Unread(std::io::Error),
    /// The lines that do not do what they should.
    Flawed(Vec<(usize, String)>),
}

fn by_rules(place: &SourcePlace, path: &[u8], is_dir: bool) -> Option<Exclusion> {
    let shown = |rule: &[u8]| String::from_utf8_lossy(rule).into_owned();
    match place.source.patterns.ruling(place.source.relative(path), is_dir) {
        Ruling::Out(rule) => return Some(Exclusion::Pattern(shown(rule))),
        Ruling::Kept => return None,
        Ruling::Silent => {}
    }
    // The rules nearest to it come first.
    let mut rules = place.rules.as_deref();
    while let Some(GitRules { above, dir, matcher }) = rules {
        match matcher.ruling(path.get(*dir..).unwrap_or_default(), is_dir) {
            Ruling::Out(rule) => return Some(Exclusion::GitIgnore(shown(rule))),
            Ruling::Kept => return None,
            Ruling::Silent => rules = above.as_deref(),
        }
    }
    None
}

/// Where in the sources an entry is, as far as it matters for what is left out.
#[derive(Clone)]
pub struct SourcePlace {
    source: Arc<SourceRules>,
    rules: Option<Arc<GitRules>>,
}

struct SourceRules {
    /// Bytes of its path in the snapshot.
    prefix: usize,
    spot: Spot,
    patterns: Arc<Rules>,
}

impl SourceRules {
    fn relative<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        let below = path.get(self.prefix..).unwrap_or_default();
        below.strip_prefix(b"/").unwrap_or(below)
    }
}

/// Rules of a `.gitignore` file.
struct GitRules {
    above: Option<Arc<GitRules>>,
    /// Bytes of its directory's path in the snapshot, the slash behind it included.
    dir: usize,
    matcher: Rules,
}

fn open(dir: &OwnedFd, name: &CStr) -> std::io::Result<std::fs::File> {
    let file = entry::open_file(dir, name)?;
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

fn read_rules(dir: &OwnedFd) -> std::io::Result<(Rules, Vec<(usize, String)>)> {
    let mut text = Vec::new();
    open(dir, GIT_IGNORE)?.take(MAX_GIT_IGNORE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_GIT_IGNORE {
        return Err(std::io::Error::other("larger than 16 MiB"));
    }
    Ok(Rules::of_file(&text))
}
