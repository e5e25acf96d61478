//! The paths a backup is asked to store.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::backup::pipeline::context::Context;
use crate::backup::pipeline::encoded_items::Encoded;
use crate::backup::pipeline::walk::{DirTask, ListedPiece, LoneTask, Ticket};
use crate::backup::source::entry;
use crate::backup::source::entry::{Spot, Stat};
use crate::backup::source::mounts;
use crate::error::{Result, VykarError};

/// Sources beside each other that are looked at together; bounds what a list of many files keeps in memory.
const LONE_GROUP: usize = 1000;

/// Resolved source paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Absolute, without `.` and `..`, none below another.
    pub paths: Vec<PathBuf>,
    /// Paths that lie below another one, and are stored with it.
    pub covered: Vec<PathBuf>,
    /// Symlinks among them that lead to directories and are stored as links.
    pub links: Vec<PathBuf>,
    /// What becomes of each of the paths.
    treatment: Vec<Treatment>,
}

/// How a path is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// With what is below it.
    Walked,
    /// As it is.
    Lone,
    /// As what the symlink leads to.
    Followed,
}

/// A path that was given.
struct GivenPath {
    path: PathBuf,
    treatment: Treatment,
    /// A symlink to a directory that is stored as a link.
    is_dir_link: bool,
}

impl Sources {
    /// Makes paths absolute and drops those that others cover. A symlink is stored as such, unless a slash is behind it
    /// or all are to be followed.
    ///
    /// # Errors
    /// A path that does not exist is an error: nobody notices a warning about a typing error for a
    /// year, and then the data is not there.
    pub fn resolve(given: &[PathBuf], follow: bool) -> Result<Self> {
        if given.is_empty() {
            return Err(VykarError::Usage("no path to back up".into()));
        }
        let look = |path: &PathBuf| look(path, follow).map_err(|e| VykarError::path(path, e));
        Ok(Self::of(given.iter().map(look).collect::<Result<_>>()?))
    }

    /// In time that grows as the number of paths: people give lists of all that `find` found.
    fn of(mut all: Vec<GivenPath>) -> Self {
        let mut known: HashMap<Vec<u8>, usize> = HashMap::with_capacity(all.len());
        let mut again = vec![false; all.len()];
        for at in 0..all.len() {
            match known.entry(all[at].path.as_os_str().as_bytes().to_vec()) {
                Entry::Vacant(free) => drop(free.insert(at)),
                // Once as a link and once with a slash: what is behind it is asked for.
                Entry::Occupied(first) => {
                    again[at] = true;
                    if all[at].treatment != Treatment::Lone {
                        let first = *first.get();
                        (all[first].treatment, all[first].is_dir_link) = (all[at].treatment, false);
                    }
                }
            }
        }
        let is_walked =
            |above: &[u8]| known.get(above).is_some_and(|at| all[*at].treatment == Treatment::Walked);
        let covers: Vec<bool> = all.iter().map(|one| folders_above(&one.path).any(is_walked)).collect();
        let mut sources = Sources::none();
        for ((one, covered), again) in all.into_iter().zip(covers).zip(again) {
            if covered || again {
                sources.covered.push(one.path);
                continue;
            }
            if one.is_dir_link {
                sources.links.push(one.path.clone());
            }
            sources.paths.push(one.path);
            sources.treatment.push(one.treatment);
        }
        sources
    }

    /// No paths: everything comes from streams.
    pub fn none() -> Self {
        Sources { paths: Vec::new(), covered: Vec::new(), links: Vec::new(), treatment: Vec::new() }
    }

    /// The directory that item paths are relative to: the source itself when there is one, else `/`.
    pub fn base(&self) -> PathBuf {
        match (&self.paths[..], &self.treatment[..]) {
            ([one], [Treatment::Walked]) => one.clone(),
            ([one], _) => one.parent().unwrap_or(Path::new("/")).to_owned(),
            _ => PathBuf::from("/"),
        }
    }

    /// The label when none is given: the name of the one directory, else `default`.
    pub fn default_label(&self) -> String {
        match &self.paths[..] {
            [one] => one.file_name().map_or_else(|| "default".into(), |n| n.to_string_lossy().into_owned()),
            _ => "default".to_owned(),
        }
    }

    /// The first pieces of the walk, a list for each source or several beside each other.
    ///
    /// # Errors
    /// A source cannot be looked at any more, or is all there is and a mounted repository.
    pub fn pieces(&self, context: &Context<'_>) -> Result<Vec<Vec<ListedPiece>>> {
        let single = self.paths.len() == 1;
        let mut pieces = Vec::new();
        if !single {
            pieces.push(self.above(context));
        }
        let mut lone: Option<LoneTask> = None;
        for (path, treatment) in self.paths.iter().zip(&self.treatment) {
            let stored = match (single, treatment) {
                (true, Treatment::Walked) => Vec::new(),
                (true, _) => path.file_name().unwrap_or_default().as_bytes().to_vec(),
                (false, _) => path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec(),
            };
            if *treatment == Treatment::Walked {
                pieces.extend(lone.take().map(lone_pieces));
                pieces.extend(walked(context, path, stored, single)?);
                continue;
            }
            let (dir, name) = place_of(path, *treatment).map_err(|e| VykarError::path(path, e))?;
            match &mut lone {
                Some(group) if group.dir == dir && group.entries.len() < LONE_GROUP => {
                    group.entries.push((name, stored));
                }
                _ => {
                    let group = LoneTask { dir, entries: vec![(name, stored)] };
                    pieces.extend(lone.replace(group).map(lone_pieces));
                }
            }
        }
        pieces.extend(lone.map(lone_pieces));
        Ok(pieces)
    }

    /// The directories above several sources, as ordinary items: without them nobody knew whom those let in. One that
    /// cannot be looked at is reported, and has no item.
    fn above(&self, context: &Context<'_>) -> Vec<ListedPiece> {
        let dirs = self.paths.iter().flat_map(|path| path.ancestors().skip(1));
        let mut dirs: BTreeSet<&Path> = dirs.filter(|dir| dir.parent().is_some()).collect();
        // A link that is stored as one has an item already.
        for path in &self.paths {
            dirs.remove(path.as_path());
        }
        let mut encoded = Encoded::default();
        for dir in dirs {
            let path = dir.as_os_str().as_bytes();
            let stored = path.strip_prefix(b"/").unwrap_or_default();
            // A symlink on the way to a source is a directory in the snapshot.
            match rustix::fs::stat(dir) {
                Ok(stat) => {
                    let (xattrs, _) = context.xattrs(stored, || entry::xattrs_of_path(path));
                    let item = entry::item(stored, &Stat::from(&stat), &context.names, xattrs);
                    context.encode(&item, &mut encoded.items);
                    encoded.counts.directories += 1;
                }
                Err(e) => context.failed(stored, &e.into()),
            }
        }
        vec![ListedPiece::Encoded(encoded)]
    }
}

/// Absolute paths above one, from the nearest to `/`.
fn folders_above(path: &Path) -> impl Iterator<Item = &[u8]> {
    let bytes = path.as_os_str().as_bytes();
    let ends = bytes.iter().enumerate().rev().filter(|(_, c)| **c == b'/').map(|(at, _)| at.max(1));
    ends.map(|end| &bytes[..end]).filter(move |above| above.len() < bytes.len())
}

fn look(path: &Path, follow: bool) -> std::io::Result<GivenPath> {
    let bytes = path.as_os_str().as_bytes();
    let is_through = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let meta = fs::symlink_metadata(path)?;
    // A dangling one is stored as it is in any case.
    let target = if meta.is_symlink() { fs::metadata(path).ok() } else { None };
    let treatment = match &target {
        _ if meta.is_dir() => Treatment::Walked,
        Some(target) if target.is_dir() && (follow || is_through) => Treatment::Walked,
        Some(_) if follow || is_through => Treatment::Followed,
        _ => Treatment::Lone,
    };
    let is_dir_link = treatment == Treatment::Lone && target.is_some_and(|target| target.is_dir());
    Ok(GivenPath { path: absolute(path)?, treatment, is_dir_link })
}

/// Absolute and plain. Symlinks above the last component are left as they are named, unless `..`
/// makes the name ambiguous.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if absolute.components().all(plain) {
        // Drops repeated and trailing slashes.
        return Ok(absolute.components().collect());
    }
    match (absolute.parent(), absolute.file_name()) {
        // The last component itself may be a link that is meant.
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => fs::canonicalize(path),
    }
}

fn c_string(bytes: &[u8]) -> std::io::Result<CString> {
    CString::new(bytes).map_err(std::io::Error::from)
}

/// The directory of what is stored for a path, and its name in it.
fn place_of(path: &Path, treatment: Treatment) -> std::io::Result<(CString, CString)> {
    let target = match treatment {
        Treatment::Followed => fs::canonicalize(path)?,
        Treatment::Walked | Treatment::Lone => path.to_owned(),
    };
    let dir = target.parent().unwrap_or(Path::new("/")).as_os_str();
    Ok((c_string(dir.as_bytes())?, c_string(target.file_name().unwrap_or_default().as_bytes())?))
}

fn lone_pieces(task: LoneTask) -> Vec<ListedPiece> {
    vec![ListedPiece::Dir(Ticket::lone(task))]
}

fn walked(
    context: &Context<'_>,
    path: &Path,
    stored: Vec<u8>,
    single: bool,
) -> Result<Option<Vec<ListedPiece>>> {
    let failed = |e: std::io::Error| VykarError::path(path, e);
    let bytes = path.as_os_str().as_bytes();
    let name = c_string(bytes).map_err(failed)?;
    let stat = Stat::from(&rustix::fs::stat(&name).map_err(|e| failed(e.into()))?);
    let above = path.parent().and_then(|above| rustix::fs::stat(above).ok());
    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    let crosses = above.is_some_and(|above| above.st_dev as u64 != stat.dev);
    if crosses && mounts::is_repository(stat.dev) {
        if single {
            return Err(VykarError::Usage(format!("{}: {}", path.display(), mounts::REASON)));
        }
        context.skipped(&stored, mounts::REASON);
        return Ok(None);
    }
    let spot =
        Spot::at(rustix::fs::CWD, &c_string(&[bytes, b"/."].concat()).map_err(failed)?).unwrap_or_default();
    let place = context.filter.top(&stored, bytes, spot);
    let task = DirTask { parent: None, name, path: stored, stat, place, parent_dev: None };
    Ok(Some(vec![ListedPiece::Dir(Ticket::new(task))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_absolute_and_disjoint() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("ab")).unwrap();
        let resolve = |names: &[&str]| {
            let given: Vec<_> = names.iter().map(|n| root.join(n)).collect();
            Sources::resolve(&given, false).unwrap()
        };
        let found = resolve(&["a/b", "a", "ab/", "a/b/../b", "a"]);
        assert_eq!(found.paths, [root.join("a"), root.join("ab")]);
        assert_eq!(found.covered, [root.join("a/b"), root.join("a/b"), root.join("a")]);
        assert_eq!(resolve(&["a"]).default_label(), "a");
        assert_eq!(resolve(&["a", "ab"]).default_label(), "default");
        assert!(matches!(Sources::resolve(&[root.join("nope")], false), Err(VykarError::Path { .. })));
        assert!(Sources::resolve(&[], false).is_err());
    }

    #[test]
    fn symlinks_are_stored_as_such_unless_they_are_to_be_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        for (target, link) in [("a", "dir"), ("file", "to-file"), ("nowhere", "dangling")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let resolve = |names: &[&str], follow| {
            let given: Vec<_> =
                names.iter().map(|n| PathBuf::from(format!("{}/{n}", root.display()))).collect();
            Sources::resolve(&given, follow).unwrap()
        };
        use Treatment::{Followed, Lone, Walked};
        let names = ["dir", "to-file", "dangling", "a/../dir", "file"];
        let plain = resolve(&names, false);
        assert_eq!(plain.treatment, [Lone; 4]);
        assert_eq!((plain.links, plain.covered), (vec![root.join("dir")], vec![root.join("dir")]));
        let followed = resolve(&names, true);
        assert_eq!(followed.treatment, [Walked, Followed, Lone, Lone]);
        assert_eq!(followed.links, [""; 0].map(PathBuf::from));
        for through in ["dir/", "dir/.", "dir//"] {
            let one = resolve(&[through], false);
            assert_eq!(
                (&one.paths[..], &one.treatment[..]),
                (&[root.join("dir")][..], &[Walked][..]),
                "{through}"
            );
            assert_eq!(one.base(), root.join("dir"));
        }
        assert_eq!(resolve(&["dir"], false).base(), root);
        // What is named below a link that is stored as one is not stored with it.
        assert_eq!(resolve(&["dir", "dir/b"], false).covered, [""; 0].map(PathBuf::from));
        assert_eq!(resolve(&["dir", "dir/", "dir/b"], false).covered, [root.join("dir"), root.join("dir/b")]);
        assert_eq!(resolve(&["dir", "dir/", "dir/b"], false).treatment, [Walked]);
    }

    #[test]
    fn a_hundred_thousand_paths_are_put_in_order_at_once() {
        // Comparing each with each would take an hour here.
        let one = |at: usize| {
            let (folder, file) = (at / 100, at % 100);
            let (path, treatment) = match (folder % 2, file) {
                (0, 0) => (format!("/srv/{folder}"), Treatment::Walked),
                _ => (format!("/srv/{folder}/{file}"), Treatment::Lone),
            };
            GivenPath { path: path.into(), treatment, is_dir_link: false }
        };
        let found = Sources::of((0..100_000).map(one).collect());
        assert_eq!((found.paths.len(), found.covered.len()), (50_500, 49_500));
    }
}
