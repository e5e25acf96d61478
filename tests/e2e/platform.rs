//! What tests ask of the operating system directly.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

/// A file's content in memory, mapped shared and read-only.
pub fn map_shared(file: &File) -> Mmap {
    // SAFETY: the file is in a read-only mount of a snapshot, which never changes.
    unsafe { Mmap::map(file) }.unwrap()
}

/// Likewise, mapped private.
pub fn map_private(file: &File) -> Mmap {
    // SAFETY: as above.
    unsafe { MmapOptions::new().map_copy_read_only(file) }.unwrap()
}

/// `truncate(2)`, which needs no open file.
pub fn truncate(path: &Path, len: i64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in NUL and lives until the call returns.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
