//! Reading files without leaving traces: no access times, and no pages in the cache that were not there before.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ReadWriteFlags};

/// `RWF_DONTCACHE` of Linux 6.14: what is read into the page cache for this read alone is dropped from it.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Bytes that every file can be read by at once.
const SMALL_READ: usize = 64 << 10;

/// Reads for one thread.
pub struct FileReader {
    /// The last file system on which reads past the cache turned out not to exist, by its device number.
    cached_only: Option<u64>,
}

impl FileReader {
    /// Tries to read past the cache.
    pub fn new() -> Self {
        FileReader { cached_only: None }
    }

    /// Fills `buf` from `offset` of a file on device `dev`; fewer bytes only at the end of the file.
    pub fn read(&mut self, fd: impl AsFd, dev: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (fd, mut done) = (fd.as_fd(), 0);
        while done < buf.len() {
            match self.once(fd, dev, offset + done as u64, &mut buf[done..])? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Reads a file from its beginning, which is thought to be `size` bytes long, into a buffer that is longer.
    /// When just so many come, that is its end, and nothing more is asked for.
    pub fn read_expecting(
        &mut self,
        fd: impl AsFd,
        dev: u64,
        size: usize,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let (fd, mut done) = (fd.as_fd(), 0);
        loop {
            let n = self.once(fd, dev, done as u64, &mut buf[done..])?;
            done += n;
            if n == 0 || done == size || done == buf.len() {
                return Ok(done);
            }
        }
    }

    fn once(&mut self, fd: BorrowedFd<'_>, dev: u64, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut room = buf.len();
        loop {
            let past_cache = self.cached_only != Some(dev);
            let wanted = &mut buf[..room];
            let read = match past_cache {
                true => rustix::io::preadv2(fd, &mut [IoSliceMut::new(wanted)], at, DONT_CACHE),
                false => rustix::io::pread(fd, wanted, at),
            };
            match read {
                Ok(n) => return Ok(n),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if past_cache => {
                    self.cached_only = Some(dev);
                }
                // Files of /proc/sys are asked for all of it at once, and have no memory for so much.
                Err(Errno::NOMEM | Errno::INVAL) if room > SMALL_READ => room = SMALL_READ,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The same for a sparse file, whose holes become zeros without being read.
    pub fn read_sparse(&mut self, fd: &OwnedFd, dev: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let hole = hole_at(fd, at, (buf.len() - done) as u64) as usize;
            if hole > 0 {
                buf[done..done + hole].fill(0);
                done += hole;
                continue;
            }
            let data = data_at(fd, at, (buf.len() - done) as u64) as usize;
            let n = self.read(fd, dev, at, &mut buf[done..done + data])?;
            done += n;
            if n < data {
                break;
            }
        }
        Ok(done)
    }
}

/// How many bytes from `at` are a hole, at most `max`; zero where there is data, or no answer.
pub fn hole_at(fd: &OwnedFd, at: u64, max: u64) -> u64 {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data.saturating_sub(at).min(max),
        // No data behind `at`, or the end of the file: only a look at its size tells which.
        Err(Errno::NXIO) => rustix::fs::fstat(fd)
            .map_or(0, |s| u64::try_from(s.st_size).unwrap_or(0).saturating_sub(at).min(max)),
        Err(_) => 0,
    }
}

/// How many bytes from `at` to read at once: up to the next hole, at most `max` and at least one.
fn data_at(fd: &OwnedFd, at: u64, max: u64) -> u64 {
    let hole = rustix::fs::seek(fd, rustix::fs::SeekFrom::Hole(at)).unwrap_or(u64::MAX);
    hole.saturating_sub(at).clamp(1, max.max(1))
}
