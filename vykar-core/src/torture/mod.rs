//! What is left when an operation is cut off: by a failure of the storage at each of its operations, or by a power
//! cut after each of its system calls.
//!
//! In the normal suite every place is tried over a tiny repository; with `VYKAR_TORTURE=1` (`make torture`) over a
//! larger one, and more often where chance plays a part.

mod faults;
mod operations;
mod passphrase;
mod powercut;
mod world;

/// True when there is time for everything.
fn is_thorough() -> bool {
    std::env::var_os("VYKAR_TORTURE").is_some()
}

/// Tells past the test harness what was tried, for docs/reliability.md.
pub(crate) fn tell(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "torture: {what}");
}
