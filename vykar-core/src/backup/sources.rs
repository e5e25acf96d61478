//! The paths a backup is asked to store.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::context::Context;
use super::exclude::Place;
use super::source::Stat;
use super::walk::{DirTask, Piece, Ticket, single_entry};
use crate::error::{Result, VykarError};

/// Resolved source paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Absolute, without `.` and `..`, none below another.
    pub paths: Vec<PathBuf>,
    /// Paths that lie below another one, and are stored with it.
    pub covered: Vec<PathBuf>,
}

impl Sources {
    /// Makes paths absolute and drops those that others cover.
    ///
    /// # Errors
    /// A path that does not exist is an error: nobody notices a warning about a typing error for a
    /// year, and then the data is not there.
    pub fn resolve(given: &[PathBuf]) -> Result<Self> {
        if given.is_empty() {
            return Err(VykarError::Usage("no path to back up".into()));
        }
        let mut paths = Vec::new();
        for path in given {
            paths.push(absolute(path).map_err(|e| VykarError::path(path, e))?);
        }
        let mut kept: Vec<PathBuf> = Vec::new();
        let mut covered = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let inside = |other: &(usize, &PathBuf)| {
                let (other_at, other) = *other;
                path.starts_with(other) && (path != other || other_at < at)
            };
            match paths.iter().enumerate().any(|other| other.0 != at && inside(&other)) {
                true => covered.push(path.clone()),
                false => kept.push(path.clone()),
            }
        }
        Ok(Sources { paths: kept, covered })
    }

    /// No paths: everything comes from streams.
    pub fn none() -> Self {
        Sources { paths: Vec::new(), covered: Vec::new() }
    }

    /// The directory that item paths are relative to: the source itself when there is one, else `/`.
    pub fn base(&self) -> PathBuf {
        match &self.paths[..] {
            [one] if one.is_dir() => one.clone(),
            [one] => one.parent().unwrap_or(Path::new("/")).to_owned(),
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

    /// The first pieces of the walk, a list for each source.
    pub fn pieces(&self, context: &Context<'_>) -> Result<Vec<Vec<Piece>>> {
        let single = self.paths.len() == 1;
        self.paths.iter().map(|path| source_pieces(context, path, single)).collect()
    }
}

/// Absolute and plain. Symlinks above the last component are left as they are named, unless `..`
/// makes the name ambiguous.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    fs::symlink_metadata(path)?;
    let absolute = std::path::absolute(path)?;
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if absolute.components().all(plain) {
        // Drops repeated and trailing slashes.
        return Ok(absolute.components().collect());
    }
    fs::canonicalize(path)
}

fn source_pieces(context: &Context<'_>, path: &Path, single: bool) -> Result<Vec<Piece>> {
    let failed = |e: std::io::Error| VykarError::path(path, e);
    let name_of = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|e| failed(e.into()));
    // A path that was named is followed when it is a symlink: its target is what is meant. A
    // dangling one is stored as a symlink.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let stored = match single {
        true => path.file_name().unwrap_or_default().as_bytes().to_vec(),
        false => path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec(),
    };
    if target.is_dir() {
        let stat = Stat::from(&rustix::fs::stat(&target).map_err(|e| failed(e.into()))?);
        let path = if single { Vec::new() } else { stored };
        let place = Place::top(&path, stat.dev);
        let task = DirTask { parent: None, name: name_of(&target)?, path, stat, place };
        return Ok(vec![Piece::Dir(Ticket::new(task))]);
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir: OwnedFd =
        rustix::fs::open(parent, flags, rustix::fs::Mode::empty()).map_err(|e| failed(e.into()))?;
    let name = name_of(Path::new(target.file_name().unwrap_or_default()))?;
    let stat = Stat::at(&dir, &name).map_err(failed)?;
    Ok(single_entry(context, &Arc::new(dir), name, stored, stat))
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
            Sources::resolve(&given).unwrap()
        };
        let found = resolve(&["a/b", "a", "ab/", "a/b/../b", "a"]);
        assert_eq!(found.paths, [root.join("a"), root.join("ab")]);
        assert_eq!(found.covered, [root.join("a/b"), root.join("a/b"), root.join("a")]);
        assert_eq!(resolve(&["a"]).default_label(), "a");
        assert_eq!(resolve(&["a", "ab"]).default_label(), "default");
        assert!(matches!(Sources::resolve(&[root.join("nope")]), Err(VykarError::Path { .. })));
        assert!(Sources::resolve(&[]).is_err());
    }
}
