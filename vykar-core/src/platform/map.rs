//! Memory maps of local cache files, which somebody may shorten or write to at any time.
//!
//! Reading a page that is no more in the file, or that the disk does not give, is a SIGBUS, which ends the process. For
//! the maps made here a handler puts a page of zeros in its place instead, and the map is *broken* from then on. Who
//! reads one must take what it says for no more than a hint, or ask [`ReadOnlyMap::state`] before and after.

#![allow(unsafe_code, reason = "mapping a file has no safe form")]

mod guard;

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::SystemTime;

use guard::Guard;

use super::read::open_regular;

/// A file mapped for reading.
pub struct ReadOnlyMap {
    // Dropped before the map is.
    guard: Guard,
    map: memmap2::Mmap,
    file: File,
}

/// By what a change of a mapped file shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapState {
    len: u64,
    modified: SystemTime,
}

impl ReadOnlyMap {
    /// Maps a whole file.
    ///
    /// # Errors
    /// Also for what is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        // SAFETY: the bytes are only ever read as bytes. Cache files are written under a temporary name and renamed, so
        // that they do not change as a rule; where one does, or is shortened, readers get other bytes (zeros, by the
        // guard), which those who rely on them notice by `state`, and every use checks what it finds.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let guard = Guard::of(&map)?;
        Ok(ReadOnlyMap { guard, map, file })
    }

    /// What the file is like; two of them are the same as long as nobody wrote to it. `None` once a part of it could not
    /// be read.
    pub fn state(&self) -> Option<MapState> {
        let metadata = self.file.metadata().ok().filter(|_| !self.guard.is_broken())?;
        Some(MapState { len: metadata.len(), modified: metadata.modified().ok()? })
    }
}

/// A fresh file mapped for writing, by the one thread that made it and before it has its name.
pub struct ScratchMap {
    // Dropped before the map is.
    guard: Guard,
    map: memmap2::MmapMut,
}

impl ScratchMap {
    /// Maps all of a file that this process has just created under a name that nobody else knows.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: as above, and the file has a random temporary name: nobody else opens it as a rule.
        let map = unsafe { memmap2::MmapMut::map_mut(file)? };
        let guard = Guard::of(&map)?;
        Ok(ScratchMap { guard, map })
    }

    /// Fails when what was read and written here was not all of it the file.
    pub fn check(&self) -> io::Result<()> {
        match self.guard.is_broken() {
            false => Ok(()),
            true => {
                Err(io::Error::other("a temporary file was shortened by somebody else, or its disk failed"))
            }
        }
    }
}

impl Deref for ScratchMap {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for ScratchMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

impl AsRef<[u8]> for ReadOnlyMap {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Deref for ReadOnlyMap {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_off_while_it_is_mapped_reads_as_zeros_and_is_known_to_be_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let (map, other) = (ReadOnlyMap::open(&path).unwrap(), ReadOnlyMap::open(&path).unwrap());
        let before = map.state().unwrap();
        assert_eq!((map[99_999], map.state()), (7, Some(before)));
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        assert_ne!(map.state(), Some(before));
        assert_eq!((map[0], map[4999], map[5000], map[99_999]), (7, 7, 0, 0));
        assert!(map.state().is_none() && other.state().is_some(), "that one was not read there");
        let threads: Vec<_> = (0..4)
            .map(|n| {
                std::thread::spawn({
                    let map = ReadOnlyMap::open(&path).unwrap();
                    move || map[n]
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 7));
    }

    #[test]
    fn a_file_for_writing_is_protected_too() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(50_000).unwrap();
        let mut map = ScratchMap::new(&file).unwrap();
        map[40_000] = 1;
        map.check().unwrap();
        file.set_len(0).unwrap();
        map[40_000] = 1;
        assert!(map.check().is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_not_mapped_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ReadOnlyMap::open(dir.path()).is_err());
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        assert!(ReadOnlyMap::open(&fifo).is_err());
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        assert!(ReadOnlyMap::open(&dir.path().join("empty")).unwrap().is_empty());
    }
}
