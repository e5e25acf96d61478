//! The only unsafe code of this crate.

#![allow(unsafe_code, reason = "fork has no safe form")]

use std::io;

/// Which side of a fork this is.
pub enum Fork {
    /// The process that was there before; the child's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks. Fails when the process has more than one thread.
pub fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("cannot fork with {threads} threads")));
    }
    // SAFETY: the process has one thread, checked above, and nobody else can start one meanwhile. So
    // no lock is held by a thread that the child lacks, and the child may go on like its parent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}
