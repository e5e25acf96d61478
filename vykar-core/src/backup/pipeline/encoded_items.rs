//! Items that are encoded and wait for their turn in the stream.

use crate::local_state::file_cache::RecordWriter;

/// Counters over encoded items.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub new: u64,
    pub changed: u64,
    pub unchanged: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, o: &Counts) {
        self.files += o.files;
        self.directories += o.directories;
        self.symlinks += o.symlinks;
        self.bytes += o.bytes;
        self.stored_bytes += o.stored_bytes;
        self.new += o.new;
        self.changed += o.changed;
        self.unchanged += o.unchanged;
    }
}

/// Items that are encoded already.
#[derive(Default)]
pub struct Encoded {
    pub items: Vec<u8>,
    pub counts: Counts,
    /// For the next file cache.
    pub records: RecordWriter,
}

impl Encoded {
    /// Puts others behind these.
    pub fn append(&mut self, other: Encoded) {
        if self.items.is_empty() && self.records.is_empty() {
            let counts = self.counts;
            *self = other;
            self.counts.add(&counts);
            return;
        }
        self.items.extend_from_slice(&other.items);
        self.counts.add(&other.counts);
        self.records.append(&other.records);
    }
}
