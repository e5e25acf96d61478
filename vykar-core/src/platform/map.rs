//! Memory maps of local cache files.

#![allow(unsafe_code, reason = "mapping a file has no safe form")]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
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

/// A fresh file mapped for writing, by the one thread that made it and before it has its name.
pub struct ScratchMap(memmap2::MmapMut);

impl ScratchMap {
    /// Maps all of a file that this process has just created under a name that nobody else knows.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: as above, and the file has a random temporary name: nobody else opens it. Should somebody
        // truncate it all the same, the process ends (SIGBUS); nothing is then published.
        let map = unsafe { memmap2::MmapMut::map_mut(file)? };
        Ok(ScratchMap(map))
    }
}

impl Deref for ScratchMap {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for ScratchMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
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
