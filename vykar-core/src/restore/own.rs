//! The places that are this program's own: the repository and the caches. Nothing is restored into them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::handle::FileIdentity;
use crate::error::{Result, VykarError};
use crate::repository::Repository;

/// The repository's folder, and the folder of all local caches with this repository's.
pub(super) fn places(repository: &Repository) -> Vec<FileIdentity> {
    let itself = repository.backend().local_path().map(Path::to_owned);
    let cache = repository.cache_dir();
    let caches = cache.as_deref().and_then(Path::parent).map(Path::to_owned);
    [itself, cache, caches].into_iter().flatten().filter_map(|path| identity(&path)).collect()
}

fn identity(path: &Path) -> Option<FileIdentity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Refuses a destination that is one of the own places or lies inside one.
///
/// # Errors
/// It does.
pub(super) fn refuse(repository: &Repository, dest: &Path) -> Result<()> {
    let own = places(repository);
    let Ok(dest_absolute) = std::path::absolute(dest) else { return Ok(()) };
    match existing(&dest_absolute).ancestors().filter_map(identity).any(|above| own.contains(&above)) {
        true => {
            let reason = "lies inside the repository or the local cache; restore into another folder";
            Err(VykarError::path(dest, io::Error::other(reason)))
        }
        false => Ok(()),
    }
}

/// The deepest folder above a path that is there, without symlinks.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| fs::canonicalize(above).ok());
    found.unwrap_or_else(|| PathBuf::from("/"))
}
