//! The only unsafe code of these tests.

#![allow(unsafe_code, reason = "this call has no safe form")]

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread, and what it starts from now on, mounts of their own. Root only.
pub fn own_mounts() -> rustix::io::Result<()> {
    // SAFETY: the flag concerns mounts and the working directory of this thread. The table of open files,
    // which other threads could miss, stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}
