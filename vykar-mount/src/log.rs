//! What the file system tells whoever runs it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vykar_core::{ChunkId, PackId, SnapshotId};

/// Where lines go. Called from any thread, and not while a lock is held.
pub type Log = Arc<dyn Fn(LogLine) + Send + Sync>;

/// One thing worth a line. Names and paths are as the repository has them; [`fmt::Display`] renders
/// them quoted, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine {
    /// A part of a file cannot be read; its readers get `EIO`, or zeros.
    ReadFailed {
        /// The snapshot's name.
        snapshot: String,
        /// The file's path in it.
        path: Vec<u8>,
        /// The chunk.
        chunk: ChunkId,
        /// The pack that should hold it, where that is known.
        pack: Option<PackId>,
        /// What is wrong with it.
        reason: String,
        /// Its readers get zeros.
        zeros: bool,
    },
    /// An item is left out of its snapshot's folder, or a part of it is.
    ItemLeftOut {
        /// The snapshot's name.
        snapshot: String,
        /// The item's path.
        path: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// A part of a snapshot's items cannot be read.
    ItemsLost {
        /// The snapshot's name.
        snapshot: String,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot cannot be shown.
    SnapshotUnusable {
        /// Its id.
        snapshot: SnapshotId,
        /// What is wrong.
        reason: String,
    },
    /// A filter leaves no snapshot. One that it allows may come later.
    NothingMatches,
    /// The kernel's read-ahead could not be set.
    ReadAheadNotSet {
        /// What is wrong.
        reason: String,
    },
    /// Somebody remounted it read-write.
    Remounted {
        /// It is read-only again.
        closed: bool,
    },
    /// The list of snapshots could not be read again; the old one stays.
    OutOfReach {
        /// What is wrong.
        reason: String,
    },
    /// It can be read again.
    InReachAgain,
    /// More lines come than anybody reads: those of the rest of a minute are counted only.
    TooMany,
    /// So many lines were left out.
    LeftOut {
        /// How many.
        count: u64,
    },
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |path: &[u8]| format!("{:?}", String::from_utf8_lossy(path));
        match self {
            LogLine::ReadFailed { snapshot, path, chunk, pack, reason, zeros } => {
                write!(f, "snapshot {snapshot:?}: {}: cannot read chunk {chunk}", quoted(path))?;
                match pack {
                    Some(pack) => write!(f, " in pack {pack}: {reason}")?,
                    None => write!(f, ": {reason}")?,
                }
                f.write_str(if *zeros { "; zeros were given for it" } else { "" })
            }
            LogLine::ItemLeftOut { snapshot, path, reason } => {
                write!(f, "snapshot {snapshot:?}: {}: {reason}", quoted(path))
            }
            LogLine::ItemsLost { snapshot, reason } => write!(f, "snapshot {snapshot:?}: {reason}"),
            LogLine::SnapshotUnusable { snapshot, reason } => {
                write!(f, "snapshot {}: not shown: {reason}", snapshot.short())
            }
            LogLine::NothingMatches => {
                f.write_str("no snapshot matches the filter: the mount is empty until one does")
            }
            LogLine::ReadAheadNotSet { reason } => write!(f, "cannot set the kernel's read-ahead: {reason}"),
            LogLine::Remounted { closed: true } => {
                f.write_str("somebody remounted this read-write; it is read-only again")
            }
            LogLine::Remounted { closed: false } => f.write_str(
                "somebody remounted this read-write, and it cannot be made read-only again now: \
                 programs may change what others read until they close the file",
            ),
            LogLine::OutOfReach { reason } => write!(
                f,
                "{reason}. The folders of the mount stay as they are, and reading what is not cached fails until it is back"
            ),
            LogLine::InReachAgain => f.write_str("the repository is in reach again"),
            LogLine::TooMany => {
                f.write_str("there is more like this; for the next minute it is only counted")
            }
            LogLine::LeftOut { count } => write!(f, "{count} lines were left out before this one"),
        }
    }
}

/// How long a line that was said is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// Most lines that are said in that time.
const MOST: u64 = 100;
/// Most keys that a limiter remembers.
const REMEMBERED: usize = 4096;

/// Says each thing at most once a minute: the kernel asks again for every page of a bad read.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<HashMap<u64, Instant>>);

impl Limiter {
    /// True when the thing with this key should be said now.
    pub(crate) fn allows(&self, key: u64) -> bool {
        self.ask(key) == Some(true)
    }

    /// True as well where there is no room to remember what was said: for what must not go unsaid.
    pub(crate) fn allows_without_room(&self, key: u64) -> bool {
        self.ask(key) != Some(false)
    }

    fn ask(&self, key: u64) -> Option<bool> {
        let now = Instant::now();
        let mut said = self.0.lock();
        if said.get(&key).is_some_and(|when| now.duration_since(*when) < QUIET) {
            return Some(false);
        }
        if said.len() >= REMEMBERED {
            said.retain(|_, when| now.duration_since(*when) < QUIET);
            if said.len() >= REMEMBERED {
                return None;
            }
        }
        said.insert(key, now);
        Some(true)
    }
}

/// Passes on no more than the first hundred lines of each minute, and counts the others. Where zeros were given is always
/// said, since nothing else tells.
pub(crate) fn bounded(log: Log) -> Log {
    bounded_by(log, QUIET)
}

fn bounded_by(log: Log, period: Duration) -> Log {
    let state = Mutex::new((Instant::now(), 0u64));
    Arc::new(move |line| {
        if matches!(line, LogLine::ReadFailed { zeros: true, .. }) {
            return log(line);
        }
        let mut left_out = 0;
        let number = {
            let (since, count) = &mut *state.lock();
            if since.elapsed() >= period {
                left_out = count.saturating_sub(MOST);
                (*since, *count) = (Instant::now(), 0);
            }
            *count = count.saturating_add(1);
            *count
        };
        if left_out > 0 {
            log(LogLine::LeftOut { count: left_out });
        }
        match number {
            ..=MOST => log(line),
            n if n == MOST + 1 => log(LogLine::TooMany),
            _ => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_hundred_lines_are_said_in_a_while_and_the_others_counted() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = lines.clone();
        let log = bounded_by(Arc::new(move |line| said.lock().push(line)), Duration::from_millis(300));
        let began = Instant::now();
        (0..5000).for_each(|_| log(LogLine::NothingMatches));
        let zeros = LogLine::ReadFailed {
            snapshot: "s".into(),
            path: b"f".to_vec(),
            chunk: ChunkId([1; 32]),
            pack: None,
            reason: "r".into(),
            zeros: true,
        };
        log(zeros.clone());
        assert!(began.elapsed() < Duration::from_millis(300), "too slow a machine for this");
        let all = std::mem::take(&mut *lines.lock());
        assert_eq!(
            (all.len(), &all[99], &all[100], &all[101]),
            (102, &LogLine::NothingMatches, &LogLine::TooMany, &zeros)
        );
        while began.elapsed() < Duration::from_millis(300) {
            std::thread::yield_now();
        }
        log(LogLine::InReachAgain);
        assert_eq!(*lines.lock(), [LogLine::LeftOut { count: 4900 }, LogLine::InReachAgain]);
    }

    #[test]
    fn hostile_names_stay_on_one_line() {
        let line = LogLine::ItemLeftOut {
            snapshot: "a\nb".into(),
            path: b"x\x1b[2J\n\xff".to_vec(),
            reason: "why".into(),
        };
        assert_eq!(line.to_string(), "snapshot \"a\\nb\": \"x\\u{1b}[2J\\n\u{fffd}\": why");
    }

    #[test]
    fn a_limiter_says_each_thing_once_and_forgets_nothing_it_has_no_room_for() {
        let limiter = Limiter::default();
        assert!(limiter.allows(1) && !limiter.allows(1) && limiter.allows(2));
        (10..10_000).for_each(|key| {
            limiter.allows(key);
        });
        assert_eq!(limiter.0.lock().len(), REMEMBERED);
        assert!(!limiter.allows_without_room(1) && limiter.allows_without_room(100_000));
    }
}
