//! How far a backup is, for whoever shows it.
//!
//! Counters are counted all the time. The path is told only when somebody has asked since, and of files that
//! take a while, so that it costs a small file one look at a flag.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::event::{Event, Totals};
use crate::format::Snapshot;
use crate::repository::objects::manifest::read_snapshot;
use crate::repository::{Manifest, Repository};

/// Files from this size on tell their path whether asked or not, in bytes.
const LARGE: u64 = 1 << 20;

/// Where some threads are. On a cache line of its own: counters change all the time.
#[derive(Debug)]
#[repr(align(64))]
struct ThreadProgress {
    /// Somebody wants to know.
    asked: AtomicBool,
    path: Mutex<Option<Vec<u8>>>,
}

/// Somebody will want to know where it began.
impl Default for ThreadProgress {
    fn default() -> Self {
        ThreadProgress { asked: AtomicBool::new(true), path: Mutex::new(None) }
    }
}

impl ThreadProgress {
    fn tell(&self, path: &[u8], always: bool) {
        if always || self.asked.load(Ordering::Relaxed) {
            self.asked.store(false, Ordering::Relaxed);
            *self.path.lock() = Some(path.to_vec());
        }
    }

    /// What was told since the last time.
    fn ask(&self) -> Option<Vec<u8>> {
        self.asked.store(true, Ordering::Relaxed);
        self.path.lock().take()
    }
}

/// Running counters, and the path that is worked on.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    reading: ThreadProgress,
    listing: ThreadProgress,
    /// What was last said.
    shown: Mutex<Vec<u8>>,
    expected: OnceLock<Totals>,
    over: AtomicBool,
}

impl Progress {
    /// Counts files that are done, and bytes that were read, or need no reading.
    pub fn done(&self, files: u64, bytes: u64) {
        if files > 0 {
            self.files.fetch_add(files, Ordering::Relaxed);
        }
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Somebody reads a file of `size` bytes, by its path in the snapshot.
    pub fn reading(&self, path: &[u8], size: u64) {
        self.reading.tell(path, size >= LARGE);
    }

    /// Somebody lists a directory.
    pub fn listing(&self, path: &[u8]) {
        self.listing.tell(path, false);
    }

    /// What there may be in all.
    pub fn expect(&self, totals: Totals) {
        // Told once.
        let _ = self.expected.set(totals);
    }

    /// All items are written; what is left has no path.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// True when nothing is counted any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// As an event; `shown` makes a path of the source of a path of the snapshot.
    pub fn event(&self, shown: impl FnOnce(&[u8]) -> PathBuf) -> Event {
        Event::Progress {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            path: self.path().map(|path| shown(&path)),
            expected: self.expected.get().copied(),
        }
    }

    /// The file that was begun last, or where nothing is read the directory; the same as before when nobody
    /// has begun anything since.
    fn path(&self) -> Option<Vec<u8>> {
        let (read, listed) = (self.reading.ask(), self.listing.ask());
        if self.is_over() {
            return None;
        }
        let mut shown = self.shown.lock();
        if let Some(path) = read.or(listed) {
            *shown = path;
        }
        (!shown.is_empty()).then(|| shown.clone())
    }
}

/// What the newest of the snapshots that are `like` the one being made held. Gives up when `over` says that
/// nobody wants to know any more.
///
/// # Errors
/// When the repository cannot be read; single snapshots that cannot are passed over.
pub fn previous_totals(
    repository: &Repository,
    like: impl Fn(&Snapshot) -> bool,
    over: impl Fn() -> bool,
) -> Result<Option<Totals>> {
    let mut newest: Option<Snapshot> = None;
    for id in Manifest::ids(repository)? {
        if over() {
            return Ok(None);
        }
        let Ok(snapshot) = read_snapshot(repository, &id) else { continue };
        let newer = newest.as_ref().is_none_or(|n| (n.time, n.id) < (snapshot.time, snapshot.id));
        if newer && like(&snapshot) {
            newest = Some(snapshot);
        }
    }
    Ok(newest.map(|s| Totals { files: s.meta.stats.nfiles, bytes: s.meta.stats.original_size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(event: &Event) -> Option<PathBuf> {
        let Event::Progress { path, .. } = event else { panic!("{event:?}") };
        path.clone()
    }

    fn told(progress: &Progress) -> Option<PathBuf> {
        path_of(&progress.event(|path| PathBuf::from(std::str::from_utf8(path).unwrap())))
    }

    #[test]
    fn paths_are_told_when_asked_for_and_large_files_always() {
        let progress = Progress::default();
        assert_eq!(told(&progress), None);
        progress.reading(b"first", 10);
        progress.reading(b"second", 10);
        assert_eq!(told(&progress), Some("first".into()), "one answer is enough");
        assert_eq!(told(&progress), Some("first".into()), "nothing was begun since");
        progress.reading(b"small", 10);
        progress.reading(b"large", LARGE);
        assert_eq!(told(&progress), Some("large".into()), "this one lasts");
    }

    #[test]
    fn directories_are_told_where_nothing_is_read() {
        let progress = Progress::default();
        progress.listing(b"directory");
        assert_eq!(told(&progress), Some("directory".into()));
        progress.listing(b"ahead");
        progress.reading(b"file", 10);
        assert_eq!(told(&progress), Some("file".into()));
        progress.end();
        progress.reading(b"late", LARGE);
        assert_eq!(told(&progress), None);
    }

    #[test]
    fn counters_and_totals_are_in_the_event() {
        let progress = Progress::default();
        progress.done(2, 0);
        progress.done(0, 30);
        progress.expect(Totals { files: 4, bytes: 60 });
        let event = progress.event(|_| PathBuf::new());
        let Event::Progress { files: 2, bytes: 30, path: None, expected: Some(totals) } = event else {
            panic!("{event:?}")
        };
        assert_eq!(totals, Totals { files: 4, bytes: 60 });
    }
}
