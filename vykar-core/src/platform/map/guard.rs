//! The handler of SIGBUS for maps.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Most maps at a time. Each repository that is open has few.
const MAX_MAPS: usize = 256;

/// A map that is protected: its addresses, zero where the place is free.
struct GuardedRange {
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

static PLACES: [GuardedRange; MAX_MAPS] = [const {
    GuardedRange { start: AtomicUsize::new(0), end: AtomicUsize::new(0), broken: AtomicBool::new(false) }
}; MAX_MAPS];

/// Held while places are given out. The handler takes no lock.
static GIVING: Mutex<bool> = Mutex::new(false);

/// Bytes of a page, a power of two.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// What handled the signal before.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// Protects a map as long as it lives. It must be dropped before the map.
pub(super) struct Guard(Option<&'static GuardedRange>);

impl Guard {
    /// Protects the memory of a map.
    pub(super) fn of(map: &[u8]) -> io::Result<Self> {
        let mut installed = GIVING.lock();
        if !*installed {
            install()?;
            *installed = true;
        }
        if map.is_empty() {
            return Ok(Guard(None));
        }
        let free = PLACES.iter().find(|place| place.start.load(Ordering::Relaxed) == 0);
        let place = free.ok_or_else(|| io::Error::other("too many maps"))?;
        let start = map.as_ptr().addr();
        place.broken.store(false, Ordering::Relaxed);
        // Up to the end of the last page: what lies behind the file's end there is the map's too.
        place.end.store(start.saturating_add(map.len()), Ordering::Release);
        place.start.store(start, Ordering::Release);
        Ok(Guard(Some(place)))
    }

    /// True when a page of it was replaced by zeros.
    pub(super) fn is_broken(&self) -> bool {
        self.0.is_some_and(|place| place.broken.load(Ordering::Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.start.store(0, Ordering::Release);
        }
    }
}

fn install() -> io::Result<()> {
    PAGE.store(rustix::param::page_size(), Ordering::Release);
    // SAFETY: `sigaction` is a plain structure of the system, for which zeros are a valid value.
    let (mut before, mut action): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer asks for the present action alone, which is written to a live value.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Kept for ever, since the handler may need it at any time.
    BEFORE.store(Box::into_raw(Box::new(before)), Ordering::Release);
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is a live value; the handler has the signature that SA_SIGINFO asks for, and does only what a handler may.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes no allocation and takes no lock: nothing but atomic reads and system calls.
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes a valid pointer to a handler that was set with SA_SIGINFO, and where the kernel itself sent
    // the signal (a code above zero) the address is set.
    let address = unsafe { if (*info).si_code > 0 { (*info).si_addr().addr() } else { 0 } };
    let place = PLACES.iter().find(|place| {
        let (start, end) = (place.start.load(Ordering::Acquire), place.end.load(Ordering::Acquire));
        start != 0 && (start..end).contains(&address) && place.start.load(Ordering::Acquire) == start
    });
    match place {
        Some(place) if put_zeros(address) => place.broken.store(true, Ordering::Release),
        _ => pass_on(signal, info, context),
    }
}

/// Replaces the page of an address in a map. False when that cannot be done.
fn put_zeros(address: usize) -> bool {
    let page = PAGE.load(Ordering::Relaxed);
    let start = ptr::without_provenance_mut(address & !(page - 1));
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: the page belongs to a live map of a file, found above: the thread that faulted is reading it, so it cannot
    // be unmapped meanwhile. Nothing relies on what it held, and it is unmapped with the rest of the map.
    let mapped = unsafe { libc::mmap(start, page, access, kind, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Lets whoever handled the signal before have it; without anybody, the process ends as it would have.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.load(Ordering::Acquire);
    // SAFETY: it was stored before the handler was installed, is never freed, and is only read.
    let handler = unsafe { before.as_ref() }.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: setting a signal's default is always sound. The instruction is run again, and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: it is neither of the two special values, so it is a function that was installed as a handler. Those take
    // these arguments, or fewer, which the calling conventions of Linux allow.
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(handler) };
    handler(signal, info, context);
}
