//! A cache bounded in bytes that makes each value once.
//!
//! Values are spread over shards by their key's hash, so that threads seldom wait for each other's
//! lock. Whoever asks for a value that is being made waits for it (single flight): ten readers of one
//! chunk decode it once.
//!
//! What was used last stays longest, on purpose: a cache that protects what is read often (`quick_cache` was tried)
//! drops nearly everything that was read ahead before the reader comes to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use vykar_core::repository::read::buffer_pool;

/// Bytes that a value counts besides its own: key, links of the list, slot of the table, the allocator's.
const OVERHEAD: u64 = 192;

/// Something with a size.
pub trait Weight {
    /// Its size in memory, in bytes.
    fn weight(&self) -> u64;
}

impl Weight for bytes::Bytes {
    fn weight(&self) -> u64 {
        // With what rounding adds to its buffer.
        buffer_pool::footprint(self.len()) as u64
    }
}

/// The cache. `E` is what a failed attempt tells everyone who waited for it.
pub struct Cache<K, V, E> {
    shards: Vec<Mutex<CacheShard<K, V, E>>>,
    /// Bytes a shard.
    capacity: u64,
    /// Keep one value however large it is.
    keep_one: bool,
    hasher: RandomState,
    /// Bytes that were kept and dropped, ever.
    evicted: AtomicU64,
}

struct CacheShard<K, V, E> {
    values: LruCache<K, V>,
    bytes: u64,
    flights: HashMap<K, Arc<Flight<V, E>>>,
}

struct Flight<V, E> {
    outcome: Mutex<Outcome<V, E>>,
    landed: Condvar,
}

enum Outcome<V, E> {
    Pending,
    Done(Result<V, E>),
    /// The maker panicked: somebody else has to try.
    Abandoned,
}

impl<K: Hash + Eq + Clone, V: Clone + Weight, E: Clone> Cache<K, V, E> {
    /// A cache of about `capacity` bytes in all, whose shards hold at least `largest` bytes each; a
    /// value larger than a shard is handed out and not kept.
    pub fn new(capacity: u64, largest: u64) -> Self {
        let shards = (capacity / largest.saturating_add(OVERHEAD)).clamp(1, 16);
        Self::with(shards, capacity / shards, false)
    }

    /// A cache of one shard, which keeps the newest value even where that is larger than `capacity`
    /// bytes.
    pub fn keeping_one(capacity: u64) -> Self {
        Self::with(1, capacity, true)
    }

    fn with(shards: u64, capacity: u64, keep_one: bool) -> Self {
        let shard = || CacheShard { values: LruCache::unbounded(), bytes: 0, flights: HashMap::new() };
        let shards = (0..shards).map(|_| Mutex::new(shard())).collect();
        Cache { shards, capacity, keep_one, hasher: RandomState::new(), evicted: AtomicU64::new(0) }
    }

    fn shard(&self, key: &K) -> &Mutex<CacheShard<K, V, E>> {
        let at = self.hasher.hash_one(key) % self.shards.len() as u64;
        &self.shards[at as usize]
    }

    /// Bytes that were kept and have been dropped for others, since the beginning.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Bytes that are kept now.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.lock().bytes).sum()
    }

    /// The value, if it is kept.
    #[cfg(test)]
    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).lock().values.get(key).cloned()
    }

    /// True when the value is kept or being made.
    pub fn has(&self, key: &K) -> bool {
        let shard = self.shard(key).lock();
        shard.values.contains(key) || shard.flights.contains_key(key)
    }

    /// Drops a value.
    pub fn remove(&self, key: &K) {
        let mut shard = self.shard(key).lock();
        let Some(old) = shard.values.pop(key) else { return };
        shard.bytes = shard.bytes.saturating_sub(old.weight().saturating_add(OVERHEAD));
    }

    /// Drops all values.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let dropped = std::mem::replace(&mut shard.values, LruCache::unbounded());
            shard.bytes = 0;
            drop(shard);
            drop(dropped);
        }
    }

    /// The value, made by `make` if it is neither kept nor being made. Failures are not kept.
    pub fn get_or_make(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        loop {
            let mut shard = self.shard(key).lock();
            if let Some(value) = shard.values.get(key) {
                return Ok(value.clone());
            }
            let Some(flight) = shard.flights.get(key).cloned() else {
                let outcome = Mutex::new(Outcome::Pending);
                let flight = Arc::new(Flight { outcome, landed: Condvar::new() });
                shard.flights.insert(key.clone(), flight.clone());
                drop(shard);
                return self.fly(key, &flight, make);
            };
            drop(shard);
            let mut outcome = flight.outcome.lock();
            while matches!(*outcome, Outcome::Pending) {
                flight.landed.wait(&mut outcome);
            }
            if let Outcome::Done(result) = &*outcome {
                return result.clone();
            }
        }
    }

    fn fly(&self, key: &K, flight: &Flight<V, E>, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let landing = Landing { cache: self, key, flight, result: None };
        // Should make() panic, the landing's drop wakes those who wait.
        landing.land(make())
    }

    fn keep(&self, shard: &mut CacheShard<K, V, E>, key: &K, value: &V) {
        let weight = value.weight().saturating_add(OVERHEAD);
        if weight > self.capacity && !self.keep_one {
            return;
        }
        if let Some(old) = shard.values.put(key.clone(), value.clone()) {
            shard.bytes = shard.bytes.saturating_sub(old.weight().saturating_add(OVERHEAD));
        }
        shard.bytes = shard.bytes.saturating_add(weight);
        while shard.bytes > self.capacity && shard.values.len() > usize::from(self.keep_one) {
            let Some((_, old)) = shard.values.pop_lru() else { break };
            let weight = old.weight().saturating_add(OVERHEAD);
            shard.bytes = shard.bytes.saturating_sub(weight);
            self.evicted.fetch_add(weight, Ordering::Relaxed);
        }
    }
}

struct Landing<'c, K: Hash + Eq + Clone, V: Clone + Weight, E: Clone> {
    cache: &'c Cache<K, V, E>,
    key: &'c K,
    flight: &'c Flight<V, E>,
    result: Option<Result<V, E>>,
}

impl<K: Hash + Eq + Clone, V: Clone + Weight, E: Clone> Landing<'_, K, V, E> {
    fn land(mut self, result: Result<V, E>) -> Result<V, E> {
        self.result = Some(result.clone());
        result
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Weight, E: Clone> Drop for Landing<'_, K, V, E> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(self.key).lock();
        if let Some(Ok(value)) = &self.result {
            self.cache.keep(&mut shard, self.key, value);
        }
        shard.flights.remove(self.key);
        drop(shard);
        *self.flight.outcome.lock() = match self.result.take() {
            Some(result) => Outcome::Done(result),
            None => Outcome::Abandoned,
        };
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    type Chunks = Cache<u64, Bytes, &'static str>;

    fn made(size: usize) -> Result<Bytes, &'static str> {
        Ok(Bytes::from(vec![0; size]))
    }

    #[test]
    fn the_bound_holds_and_what_was_used_last_stays() {
        let cache = Chunks::with(1, 10 * (1000 + OVERHEAD), false);
        for key in 0..100 {
            cache.get_or_make(&key, || made(1000)).unwrap();
            cache.get_or_make(&0, || panic!("0 is in use all the time")).unwrap();
            assert!(cache.bytes() <= cache.capacity);
        }
        assert_eq!((0..100).filter(|key| cache.get(key).is_some()).count(), 10);
        assert_eq!(cache.evicted(), 90 * (1000 + OVERHEAD));
        assert!(cache.get(&99).is_some() && cache.get(&1).is_none());
    }

    #[test]
    fn shards_hold_the_largest_value_and_larger_ones_are_not_kept() {
        let largest = 1 << 20;
        let cache = Chunks::new(5 << 20, largest);
        assert_eq!(cache.shards.len(), 4);
        cache.get_or_make(&1, || made(largest as usize)).unwrap();
        assert!(cache.get(&1).is_some());
        cache.get_or_make(&2, || made(2 << 20)).unwrap();
        assert!(cache.get(&2).is_none());
        let tiny = Chunks::new(0, largest);
        assert_eq!(tiny.get_or_make(&1, || made(5)).unwrap().len(), 5);
        assert_eq!(tiny.bytes(), 0);
    }

    #[test]
    fn one_value_stays_however_large() {
        let cache = Chunks::keeping_one(10);
        cache.get_or_make(&1, || made(100)).unwrap();
        assert!(cache.get(&1).is_some());
        cache.get_or_make(&2, || made(200)).unwrap();
        assert!(cache.get(&1).is_none() && cache.get(&2).is_some());
    }

    #[test]
    fn what_is_removed_is_gone_and_leaves_room() {
        let cache = Chunks::new(1 << 20, 1 << 10);
        cache.get_or_make(&1, || made(100)).unwrap();
        cache.remove(&1);
        cache.remove(&2);
        assert_eq!((cache.get(&1), cache.bytes()), (None, 0));
        (0..9).for_each(|key| drop(cache.get_or_make(&key, || made(100))));
        assert!(cache.bytes() > 900);
        cache.clear();
        assert_eq!((cache.get(&1), cache.bytes()), (None, 0));
    }

    #[test]
    fn many_readers_make_a_value_once() {
        let (cache, count) = (Chunks::new(1 << 20, 1 << 10), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let value = cache.get_or_make(&7, || {
                        count.fetch_add(1, Relaxed);
                        std::thread::sleep(Duration::from_millis(50));
                        made(3)
                    });
                    assert_eq!(value.unwrap().len(), 3);
                });
            }
        });
        assert_eq!(count.load(Relaxed), 1);
    }

    #[test]
    fn failures_reach_everyone_and_are_not_kept() {
        let cache = Chunks::new(1 << 20, 1 << 10);
        assert_eq!(cache.get_or_make(&1, || Err("bad")), Err("bad"));
        assert_eq!(cache.get_or_make(&1, || made(1)).unwrap().len(), 1);
    }

    #[test]
    fn a_maker_that_panics_leaves_the_next_to_try() {
        let cache = Chunks::new(1 << 20, 1 << 10);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get_or_make(&1, || panic!("as planned"))
        }));
        assert!(caught.is_err() && !cache.has(&1));
        assert_eq!(cache.get_or_make(&1, || made(1)).unwrap().len(), 1);
    }
}
