//! A bound on what a parser allocates: a length in the input must not make it take more than the input can justify.

#![allow(unsafe_code, reason = "an allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that a byte of input may cost: a snapshot's path of a single byte becomes a string of 24, in a vector that
/// doubles.
const EACH: usize = 96;

thread_local! {
    /// What this thread has allocated and not freed, and the most that this was.
    static USE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, which counts for each thread. What libraries in C take is not counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends has none.
    let _ = USE.try_with(|used| {
        let (now, most) = used.get();
        let now = now.wrapping_add(bytes);
        used.set((now, most.max(now)));
    });
}

// SAFETY: everything is handed on to the system's allocator as it came. Counting allocates nothing: the cell needs
// neither initialising nor dropping.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: likewise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: likewise; all blocks come from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: likewise.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Does something with an input of `len` bytes, which may take `fixed` bytes of memory at once and a modest multiple
/// of the input.
pub fn within<T>(len: usize, fixed: usize, what: impl FnOnce() -> T) -> T {
    let before = USE.get().0;
    USE.set((before, before));
    let value = what();
    let took = USE.get().1.wrapping_sub(before).max(0) as usize;
    assert!(took <= len * EACH + fixed, "{took} bytes of memory for an input of {len}");
    value
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn what_trusts_a_length_is_caught() {
        within(100, 100, || Vec::<u8>::with_capacity(1000));
        let trusting = || within(100, 100, || Vec::<u8>::with_capacity(1 << 20));
        assert!(std::panic::catch_unwind(trusting).is_err());
        // What was freed in between counts at its height.
        let growing = || within(0, 100, || drop(vec![0u8; 1000]));
        assert!(std::panic::catch_unwind(growing).is_err());
    }
}
