//! Writing one file from several threads.
//!
//! The system lets one thread write to a file at a time, and the others spin. So whoever finds another thread
//! writing leaves its piece to it, and decodes the next one meanwhile.

use parking_lot::{Mutex, MutexGuard};

/// Bytes of a file that may be left for another thread to write.
const MAX_LEFT: usize = 16 << 20;

/// Who writes to a file, and what is left for whoever does.
#[derive(Default)]
pub(super) struct Writes {
    turn: Mutex<()>,
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    pieces: Vec<PlacedBytes>,
    bytes: usize,
}

/// Bytes and where they belong.
pub(super) type PlacedBytes = (u64, Vec<u8>);

/// The right to write to the file.
pub(super) struct Turn<'w> {
    writes: &'w Writes,
    _turn: MutexGuard<'w, ()>,
}

impl Writes {
    /// The right to write, unless another thread has it; then `piece` is asked for and left to that one, if there is
    /// not too much waiting already. Whoever leaves something calls [`Writes::turn`] at the end.
    pub fn turn_or_leave(&self, len: usize, piece: impl FnOnce() -> PlacedBytes) -> Option<Turn<'_>> {
        if let Some(turn) = self.turn.try_lock() {
            return Some(Turn { writes: self, _turn: turn });
        }
        let mut left = self.left.lock();
        if left.bytes + len > MAX_LEFT {
            drop(left);
            return Some(self.turn());
        }
        left.bytes += len;
        left.pieces.push(piece());
        None
    }

    /// Waits for the right to write.
    pub fn turn(&self) -> Turn<'_> {
        Turn { writes: self, _turn: self.turn.lock() }
    }
}

impl Turn<'_> {
    /// A piece that was left.
    pub fn next(&mut self) -> Option<PlacedBytes> {
        let mut left = self.writes.left.lock();
        let piece = left.pieces.pop()?;
        left.bytes -= piece.1.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_bounded_and_found_by_whoever_writes_next() {
        let writes = Writes::default();
        let piece = || (7, vec![1; 10 << 20]);
        let turn = writes.turn_or_leave(10 << 20, || unreachable!()).unwrap();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| writes.turn_or_leave(10 << 20, piece).is_none());
            assert!(first.join().unwrap(), "left");
            // The second is too much: this waits for its turn, and finds the first.
            let second = scope.spawn(|| {
                let mut turn = writes.turn_or_leave(10 << 20, || unreachable!()).unwrap();
                let left = turn.next().unwrap();
                assert_eq!((left.0, left.1.len()), (7, 10 << 20));
                assert!(turn.next().is_none());
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!second.is_finished());
            drop(turn);
            second.join().unwrap();
        });
    }
}
