//! Large buffers that are used again.
//!
//! A fresh block of memory costs a page fault for each 4 KiB, which takes longer than decrypting them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are left to the allocator.
const SMALLEST: usize = 64 << 10;
/// Larger ones are not kept.
const LARGEST: usize = 40 << 20;
/// Sizes between one power of two and the next, as a power of two: a new buffer is at most a fourth larger than
/// it must be.
const STEPS: u32 = 2;
/// Most bytes of buffers that wait to be used again.
const MAX_IDLE: usize = 32 << 20;

/// Buffers of all threads. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct BufferPool(Arc<Mutex<IdleBuffers>>);

#[derive(Debug, Default)]
struct IdleBuffers {
    /// The one used last is at the end.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// The capacity, in bytes, that [`BufferPool::take`] gives to a new buffer of `len` bytes; one that is used again
/// may have a fourth more.
pub fn footprint(len: usize) -> usize {
    if len <= SMALLEST {
        return len;
    }
    let step = (len.next_power_of_two() >> 1) >> STEPS;
    len.next_multiple_of(step.max(1))
}

impl BufferPool {
    /// An empty buffer with room for `len` bytes.
    pub fn take(&self, len: usize) -> Vec<u8> {
        let capacity = footprint(len);
        if capacity > SMALLEST {
            let mut idle = self.0.lock();
            // One that is a little larger is better than a new one.
            let fits = |b: &Vec<u8>| b.capacity() >= capacity && b.capacity() <= capacity + capacity / 4;
            if let Some(at) = idle.buffers.iter().rposition(fits) {
                let buffer = idle.buffers.remove(at);
                idle.bytes -= buffer.capacity();
                return buffer;
            }
        }
        Vec::with_capacity(capacity)
    }

    /// Drops the buffers that wait to be used again.
    pub fn drop_idle(&self) {
        drop(std::mem::take(&mut *self.0.lock()));
    }

    /// Gives a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity <= SMALLEST || capacity > LARGEST || capacity != footprint(capacity) {
            return;
        }
        buffer.clear();
        let mut dropped = Vec::new();
        let mut idle = self.0.lock();
        idle.buffers.push(buffer);
        idle.bytes += capacity;
        while idle.bytes > MAX_IDLE {
            let oldest = idle.buffers.remove(0);
            idle.bytes -= oldest.capacity();
            dropped.push(oldest);
        }
        drop(idle);
    }

    /// Bytes from `from` on of a buffer, which is given back when the last clone of them is dropped.
    pub fn freeze(&self, buffer: Vec<u8>, from: usize) -> Bytes {
        if buffer.capacity() <= SMALLEST {
            return Bytes::from(buffer).slice(from..);
        }
        Bytes::from_owner(Lent { buffer, pool: self.clone() }).slice(from..)
    }
}

struct Lent {
    buffer: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_at_most_a_fourth_too_large() {
        for len in [0, 1, SMALLEST, SMALLEST + 1, 100_000, 1 << 20, (1 << 20) + 1, 3_000_000, 8 << 20] {
            let capacity = footprint(len);
            assert!(capacity >= len && capacity <= len + len / 4 + 1, "{len} {capacity}");
            assert_eq!(footprint(capacity), capacity);
        }
    }

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_gone() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(1_000_000);
        buffer.extend_from_slice(&[7; 1_000_000]);
        let place = buffer.as_ptr();
        let bytes = pool.freeze(buffer, 10);
        let clone = bytes.slice(5..);
        drop(bytes);
        let another = pool.take(1_000_000);
        assert_ne!(another.as_ptr(), place, "still lent");
        assert_eq!(clone[..], [7; 999_985]);
        drop(clone);
        let again = pool.take(990_000);
        assert!(again.as_ptr() == place && again.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let pool = BufferPool::default();
        let taken: Vec<_> = (0..50).map(|_| pool.take(2 << 20)).collect();
        taken.into_iter().for_each(|buffer| pool.give(buffer));
        pool.give(pool.take(10));
        pool.give(Vec::with_capacity(LARGEST + 1));
        let idle = pool.0.lock();
        assert_eq!((idle.bytes, idle.buffers.len()), (MAX_IDLE, 16));
    }
}
