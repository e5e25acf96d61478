//! What local cache files have in common.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::crypto::random;
use crate::id::SessionId;
use crate::platform::private;

/// A name in a cache directory that nobody else has, for a file that is not complete.
pub(crate) fn temporary(dir: &Path) -> io::Result<PathBuf> {
    Ok(dir.join(format!(".tmp-{}", SessionId(random().map_err(io::Error::other)?))))
}

/// Gives a complete file its name. What stands there and is no file, such as a folder, makes way.
pub(crate) fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    let renamed = fs::rename(temporary, path);
    if renamed.is_ok() || !fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
        return renamed;
    }
    clear(path);
    fs::rename(temporary, path)
}

/// Writes a whole file, for its owner alone, in place of what has its name: no reader meets half of it. Its folder must be
/// there.
///
/// # Errors
/// What the system says; what was there stays then.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = temporary(path.parent().unwrap_or(Path::new(".")))?;
    let write = |mut file: fs::File| parts.iter().try_for_each(|part| file.write_all(part));
    let written = private::create_new(&temporary).and_then(write).and_then(|()| replace(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes what stands in a cache file's place, as far as that can be done: an empty folder too, and none with something
/// in it, which nobody has put there by accident.
pub(crate) fn clear(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir(path);
    }
}

/// Reads fields of fixed width, one after another; `None` at the end.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    /// The next bytes.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
