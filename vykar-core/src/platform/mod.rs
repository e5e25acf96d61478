//! What the operating system is asked directly. The only place where `unsafe` is allowed, each
//! block with its argument.

pub mod map;
pub mod private;
pub mod process;
pub mod read;

pub use process::ProcessIdentity;

/// How many threads to start: as many as were `requested`, or one for each processor if that is 0; never more than
/// `most`.
pub fn threads(requested: usize, most: usize) -> usize {
    match requested {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        requested => requested,
    }
    .min(most)
}
