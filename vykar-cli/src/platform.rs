//! The only unsafe code of this crate.

#![allow(unsafe_code, reason = "these calls have no safe form")]

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

/// Closes every file but standard input, output and error, so that nothing that a caller left open stays
/// open as long as this process lives. For a program that has just begun and opened nothing itself.
pub fn close_inherited_files() {
    // SAFETY: close_range takes numbers only. No object of this program owns one of these descriptors yet:
    // the one caller calls this before it opens anything.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// True when this process ignores a signal, as it does SIGHUP under nohup(1).
pub fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction changes nothing; it fills the struct, which lives here, or fails. All zeros
    // are a valid value of it.
    let action = unsafe {
        if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Gives back to the system what the allocator keeps of freed memory, in whole pages. Does nothing where the
/// allocator is not glibc's.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and changes only pages that hold nothing but freed blocks, under the
    // allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets the allocator give large blocks back to the system when they are freed, and share its pools among
/// threads. For a process that keeps a large cache of blocks of all sizes: without this, glibc raises its
/// threshold with each block freed and keeps about twice of what is in use. Does nothing elsewhere.
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        /// Blocks from this size on are mapped on their own, in bytes; fixed, so that it does not rise.
        const MMAP_THRESHOLD: libc::c_int = 128 << 10;
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt takes two numbers and changes parameters of the allocator, under its own lock. It
        // frees and moves nothing, and refuses values that it does not know.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}
