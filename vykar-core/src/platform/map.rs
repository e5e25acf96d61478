//! Read-only memory maps of local cache files.

#![allow(unsafe_code, reason = "mapping a file has no safe form")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file mapped for reading.
pub struct ReadOnlyMap(memmap2::Mmap);

impl ReadOnlyMap {
    /// Maps a whole file. The file must be one that is only ever replaced by rename.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: local cache files are created under a temporary name, written, and renamed into
        // place; nothing writes to or truncates one afterwards, so the mapped bytes do not change
        // while the map lives. What they say is checked before use.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(ReadOnlyMap(map))
    }
}

impl AsRef<[u8]> for ReadOnlyMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for ReadOnlyMap {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
