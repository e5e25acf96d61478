mod acl_names;
mod adversary;
mod again;
mod bombs;
mod damage;
mod existing;
mod fixtures;
mod hostile;
mod kinds;
mod moving;
mod rights;
mod round_trip;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{RestoreOptions, RestoreSummary, restore};
use crate::event::Event;
use crate::format::Snapshot;
use crate::repository::Repository;

/// A destination inside a directory of its own, so that what lands beside it is seen.
struct Restored {
    /// Holds `dest` and whatever a test puts beside it.
    around: tempfile::TempDir,
    summary: RestoreSummary,
    /// `path: reason` of all failures.
    failed: Vec<String>,
    events: Vec<Event>,
}

impl Restored {
    fn dest(&self) -> PathBuf {
        self.around.path().join("dest")
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.dest().join(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.dest().join(path)).is_ok()
    }

    fn metadata(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.dest().join(path)).unwrap()
    }
}

fn run(repository: &Repository, snapshot: &Snapshot) -> Restored {
    run_in(tempfile::tempdir().unwrap(), repository, snapshot, &RestoreOptions::default())
}

fn run_in(
    around: tempfile::TempDir,
    repository: &Repository,
    snapshot: &Snapshot,
    options: &RestoreOptions,
) -> Restored {
    let mut events = Vec::new();
    let mut keep = |event| events.push(event);
    let summary =
        restore(repository, snapshot, &around.path().join("dest"), options, Some(&mut keep)).unwrap();
    let failed = events.iter().filter_map(|event| match event {
        Event::RestoreFailed { path, reason } => Some(format!("{}: {reason}", path.display())),
        Event::ItemSkipped { path, reason, .. } => Some(format!("{path}: {reason}")),
        _ => None,
    });
    let mut failed: Vec<String> = failed.collect();
    failed.sort();
    assert_eq!(failed.len() as u64, summary.errors);
    Restored { around, summary, failed, events }
}

fn only(paths: &[&str]) -> RestoreOptions {
    RestoreOptions { paths: paths.iter().map(|p| p.as_bytes().to_vec()).collect(), ..Default::default() }
}

/// Lets its owner look into it; root may anyway.
fn open_to_owner(path: &Path) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    if !crate::testing::is_root() && mode & 0o500 != 0o500 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o500)).unwrap();
    }
}

/// Every path below a directory, without following symlinks.
fn walk(dir: &Path) -> BTreeMap<Vec<u8>, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        open_to_owner(&at);
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            found.insert(path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec(), metadata.clone());
            if metadata.is_dir() {
                dirs.push(path);
            }
        }
    }
    found
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}
