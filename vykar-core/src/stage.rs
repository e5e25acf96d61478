//! Where the time of an operation goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A kind of work that several threads may do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Listing directories, and looking for their files in the file cache.
    List,
    /// Opening and reading files.
    Read,
    /// Cutting them into chunks.
    Cut,
    /// Naming chunks.
    Hash,
    /// Compressing new ones.
    Compress,
    /// Encrypting and packing them.
    Seal,
    /// Naming packs and writing them.
    Write,
    /// Waiting until packs are on the disk.
    Sync,
    /// Writing the item stream and the file cache.
    Items,
    /// Reading the index.
    Index,
    /// Publishing: index and snapshot, under the lock.
    Commit,
}

/// Every stage, in the order of the work.
pub const STAGES: [Stage; 11] = [
    Stage::Index,
    Stage::List,
    Stage::Read,
    Stage::Cut,
    Stage::Hash,
    Stage::Compress,
    Stage::Seal,
    Stage::Write,
    Stage::Sync,
    Stage::Items,
    Stage::Commit,
];

impl Stage {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Stage::List => "list",
            Stage::Read => "read",
            Stage::Cut => "cut",
            Stage::Hash => "hash",
            Stage::Compress => "compress",
            Stage::Seal => "seal",
            Stage::Write => "write",
            Stage::Sync => "sync",
            Stage::Items => "items",
            Stage::Index => "index",
            Stage::Commit => "commit",
        }
    }
}

/// Time spent in each stage, summed over threads: on several processors the sum is more than what has passed.
#[derive(Debug, Default)]
pub struct Stages([AtomicU64; STAGES.len()]);

impl Stages {
    /// Does something and counts its time.
    pub fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.add(stage, began.elapsed());
        result
    }

    /// Counts time.
    pub fn add(&self, stage: Stage, time: Duration) {
        // 2^64 nanoseconds are 584 years.
        self.0[stage as usize].fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time spent so far.
    pub fn get(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.0[stage as usize].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_own_place_and_name() {
        let stages = Stages::default();
        for (at, stage) in STAGES.into_iter().enumerate() {
            stages.add(stage, Duration::from_nanos(at as u64 + 1));
        }
        for (at, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stages.get(stage), Duration::from_nanos(at as u64 + 1));
            assert_eq!(STAGES.into_iter().filter(|other| other.name() == stage.name()).count(), 1);
        }
        assert_eq!(stages.time(Stage::Cut, || 7), 7);
    }
}
