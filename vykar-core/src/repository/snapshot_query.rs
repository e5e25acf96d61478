//! Choosing among snapshots.

use jiff::Timestamp;

use crate::format::Snapshot;

/// Which snapshots are wanted: those that fit every part. An empty part is fitted by all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// One of these labels.
    pub labels: Vec<String>,
    /// Of one of these hosts.
    pub hosts: Vec<String>,
    /// Begun at this time or later.
    pub since: Option<Timestamp>,
}

impl SnapshotQuery {
    /// True when every snapshot fits.
    pub fn is_empty(&self) -> bool {
        *self == SnapshotQuery::default()
    }

    /// True when this snapshot fits.
    pub fn allows(&self, snapshot: &Snapshot) -> bool {
        let one_of = |wanted: &[String], is: &str| wanted.is_empty() || wanted.iter().any(|w| w == is);
        one_of(&self.labels, snapshot.label())
            && one_of(&self.hosts, &snapshot.meta.hostname)
            && self.since.is_none_or(|since| snapshot.time >= since)
    }
}
