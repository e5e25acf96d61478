//! Numbers and bytes for tests and benches that look random and are the same in each run. Not a crate: the few who
//! need them include this file.
#![allow(dead_code, reason = "nobody needs all of it")]

/// A sequence of numbers (xorshift64*), from a state that is not 0.
pub struct Dice(pub u64);

impl Dice {
    /// Of its own for each seed, also for 0 and neighbours.
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() >> 33) as usize % end
    }

    /// Bytes that do not compress and do not repeat.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes()).collect();
        out.truncate(len);
        out
    }
}
