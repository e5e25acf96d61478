//! Options that choose among snapshots, the same for every command that has them.

use jiff::Timestamp;
use vykar_core::format::Snapshot;
use vykar_core::repository::SnapshotQuery;

/// Where snapshots come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OriginArgs {
    /// Snapshots with this label only; may be repeated
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Snapshots of this host only; may be repeated
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
}

impl OriginArgs {
    /// Those that also began at this time or later.
    pub fn filter(&self, since: Option<Timestamp>) -> SnapshotQuery {
        SnapshotQuery { labels: self.label.clone(), hosts: self.host.clone(), since }
    }
}

/// Which of the snapshots that there are now.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which snapshots")]
pub struct SnapshotFilter {
    #[command(flatten)]
    pub origin: OriginArgs,
    /// The N newest only, of those that the other options leave
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,
}

impl SnapshotFilter {
    /// Those that also began at this time or later, of snapshots that are sorted by time.
    pub fn choose(&self, snapshots: Vec<Snapshot>, since: Option<Timestamp>) -> Vec<Snapshot> {
        choose(snapshots, &self.origin.filter(since), self.last)
    }
}

/// The `last` of the snapshots that the filter allows.
fn choose(mut snapshots: Vec<Snapshot>, filter: &SnapshotQuery, last: Option<u32>) -> Vec<Snapshot> {
    snapshots.retain(|snapshot| filter.allows(snapshot));
    let surplus = last.map_or(0, |last| snapshots.len().saturating_sub(last as usize));
    snapshots.drain(..surplus);
    snapshots
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vykar_core::SnapshotId;
    use vykar_core::format::{ChunkerParams, SnapshotMeta, SnapshotStats};

    /// One without items, begun on this day of January 2026.
    pub(crate) fn snapshot(name: &str, host: &str, label: &str, day: u32) -> Snapshot {
        let time = format!("2026-01-{day:02}T00:00:00Z");
        let meta = SnapshotMeta {
            name: name.into(),
            hostname: host.into(),
            username: "user".into(),
            time: time.clone(),
            time_end: time,
            chunker: ChunkerParams::FILES,
            comment: String::new(),
            item_ptrs: Vec::new(),
            stats: SnapshotStats::default(),
            source_label: label.into(),
            source_paths: Vec::new(),
            label: String::new(),
            ext: None,
            format_version: 1,
        };
        Snapshot::new(SnapshotId([0; 32]), meta).unwrap()
    }

    fn chosen(filter: &SnapshotQuery, last: Option<u32>) -> String {
        let all =
            [("1", "web", "docs", 1), ("2", "db", "sql", 2), ("3", "web", "sql", 3), ("4", "db", "docs", 4)];
        let all = all.map(|(name, host, label, day)| snapshot(name, host, label, day)).to_vec();
        choose(all, filter, last).into_iter().map(|s| s.meta.name).collect()
    }

    #[test]
    fn every_part_narrows_and_the_last_are_counted_at_the_end() {
        let filter = |labels: &[&str], hosts: &[&str], since: Option<&str>| SnapshotQuery {
            labels: labels.iter().map(|s| (*s).to_owned()).collect(),
            hosts: hosts.iter().map(|s| (*s).to_owned()).collect(),
            since: since.map(|time| time.parse().unwrap()),
        };
        assert_eq!(chosen(&filter(&[], &[], None), None), "1234");
        assert_eq!(chosen(&filter(&["docs"], &[], None), None), "14");
        assert_eq!(chosen(&filter(&["docs", "sql"], &["web"], None), None), "13");
        assert_eq!(chosen(&filter(&[], &[], Some("2026-01-03T00:00:00Z")), None), "34");
        assert_eq!(chosen(&filter(&[], &[], Some("2026-01-03T00:00:01Z")), None), "4");
        assert_eq!(chosen(&filter(&["nothing"], &[], None), Some(1)), "");
        assert_eq!(chosen(&filter(&[], &["web"], None), Some(1)), "3");
        assert_eq!(chosen(&filter(&[], &[], None), Some(9)), "1234");
    }
}
