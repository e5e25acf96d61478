//! Files and folders that are nobody else's business, whatever the umask says.
//!
//! The local cache knows which files were backed up and what a repository looked like. A umask can only take
//! permissions away, and some programs run with none.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a folder.
const FOLDER: u32 = 0o700;
/// Mode of a file.
const FILE: u32 = 0o600;

/// Makes a folder, and those above it that are missing. One that is there stays as it is.
///
/// # Errors
/// What the system says.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// The same; a folder of ours that is there is closed to others, with all that an earlier version put there.
///
/// # Errors
/// What the system says.
pub fn make_closed_dir(path: &Path) -> io::Result<()> {
    make_dirs(path)?;
    let meta = fs::metadata(path)?;
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if is_ours && meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(FOLDER))?;
    }
    Ok(())
}

/// How a file is made; with more to be said.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE);
    options
}

/// Opens a file to be written from its beginning, made where it is not there.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> io::Result<File> {
    options().truncate(true).open(path)
}

/// Makes a file that must not be there, to be written and read.
///
/// # Errors
/// What the system says.
pub fn create_new(path: &Path) -> io::Result<File> {
    options().read(true).create_new(true).open(path)
}

/// Makes a file of this content, in place of what it held.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    create(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o777;
        make_dirs(&at("a/b")).unwrap();
        write(&at("file"), b"x").unwrap();
        drop(create_new(&at("new")).unwrap());
        assert_eq!([mode("a"), mode("a/b"), mode("file"), mode("new")], [0o700, 0o700, 0o600, 0o600]);
        fs::set_permissions(at("a/b"), Permissions::from_mode(0o755)).unwrap();
        make_dirs(&at("a/b")).unwrap();
        assert_eq!(mode("a/b"), 0o755, "somebody wants it so");
        make_closed_dir(&at("a/b")).unwrap();
        assert_eq!(mode("a/b"), 0o700);
        assert!(create_new(&at("new")).is_err());
    }
}
