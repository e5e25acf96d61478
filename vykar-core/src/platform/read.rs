//! Opening what may be anything, and reading into memory that need not be zeroed first.

#![allow(unsafe_code, reason = "a vector's length has no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

/// Opens a regular file for reading. Nothing else is waited for, as a FIFO would be that nobody writes to.
///
/// # Errors
/// Also for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Appends up to `len` bytes from `offset` of a file to `out`, in one call of the system; none at its end.
pub fn append_at(fd: impl AsFd, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    out.reserve(len);
    loop {
        let read = match rustix::io::pread(&fd, &mut out.spare_capacity_mut()[..len], offset) {
            Ok((read, _)) => read.len(),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let filled = out.len() + read;
        // SAFETY: the system has just written the first `read` bytes behind the old length, which rustix gave back
        // as an initialised slice, and they lie within the capacity, since they come from the spare part of it.
        unsafe { out.set_len(filled) };
        return Ok(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn exactly_what_is_wanted_is_read_behind_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut out = Vec::with_capacity(100);
        out.push(b'x');
        assert_eq!(append_at(&file, 3, 4, &mut out).unwrap(), 4);
        assert_eq!(out, b"x3456");
        assert_eq!(append_at(&file, 8, 4, &mut out).unwrap(), 2);
        assert_eq!(append_at(&file, 10, 4, &mut out).unwrap(), 0);
        assert_eq!(out, b"x345689");
    }
}
