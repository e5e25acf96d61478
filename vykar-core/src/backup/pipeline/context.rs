//! What all threads of one backup share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::backup::commit::extras::Extras;
use crate::backup::commit::references::BackupReferences;
use crate::backup::pipeline::walk::shown_path;
use crate::backup::progress::Progress;
use crate::backup::source::entry::{Names, OwnedXattrs, Stat, XattrResult};
use crate::backup::source::exclude::{ExcludeFilter, RuleTrouble};
use crate::crypto::ChunkHasher;
use crate::error::{Result, VykarError};
use crate::event::{Event, Exclusion, Planned};
use crate::format::{ChunkRef, Item};
use crate::local_state::file_cache::{FileCache, Record, RecordWriter};
use crate::repository::Keys;
use crate::stage::Stages;

/// So many files with rules that cannot be followed are named.
const MAX_RULE_NOTES: u64 = 100;

/// Shared by walkers, workers and writer.
pub struct Context<'c> {
    pub keys: &'c Keys,
    pub references: &'c BackupReferences,
    pub cache: FileCache,
    pub names: Names,
    pub progress: Progress,
    pub filter: ExcludeFilter,
    /// Entries that were left out.
    pub excluded_entries: AtomicU64,
    /// Files of rules with something wrong.
    rule_troubles: AtomicU64,
    report_excluded: bool,
    report_stored: bool,
    /// Read all files, whatever the cache says.
    pub reread: bool,
    pub stages: &'c Stages,
    /// Paths that could not be stored.
    pub errors: AtomicU64,
    /// Files stored although they changed while they were read.
    pub changed_files: AtomicU64,
    read_xattrs: bool,
    /// Joined with an item's path, this is where the entry is.
    base: PathBuf,
    /// Directories to leave out, by device and inode: the repository and its local cache.
    excluded: Vec<(u64, u64, &'static str)>,
    events: Sender<Event>,
    cancel: Arc<AtomicBool>,
    aborted: AtomicBool,
    failure: Mutex<Option<VykarError>>,
    /// What the snapshot keeps outside its item stream.
    pub extras: Extras,
}

/// What a [`Context`] is made from.
pub struct ContextParts<'c> {
    pub keys: &'c Keys,
    pub references: &'c BackupReferences,
    pub cache: FileCache,
    pub stages: &'c Stages,
    pub read_xattrs: bool,
    pub reread: bool,
    pub filter: ExcludeFilter,
    pub report_excluded: bool,
    pub report_stored: bool,
    pub base: PathBuf,
    pub excluded: Vec<(u64, u64, &'static str)>,
    pub events: Sender<Event>,
    pub cancel: Arc<AtomicBool>,
}

impl<'c> Context<'c> {
    /// A fresh one.
    pub fn new(parts: ContextParts<'c>) -> Self {
        let ContextParts { keys, references, cache, stages, read_xattrs, reread, .. } = parts;
        let ContextParts { filter, report_excluded, report_stored, base, excluded, events, cancel, .. } =
            parts;
        Context {
            keys,
            references,
            cache,
            names: Names::default(),
            progress: Progress::default(),
            filter,
            excluded_entries: AtomicU64::new(0),
            rule_troubles: AtomicU64::new(0),
            report_excluded,
            report_stored,
            reread,
            stages,
            errors: AtomicU64::new(0),
            changed_files: AtomicU64::new(0),
            read_xattrs,
            base,
            excluded,
            events,
            cancel,
            aborted: AtomicBool::new(false),
            failure: Mutex::new(None),
            extras: Extras::default(),
        }
    }

    /// The chunk id function.
    pub fn hasher(&self) -> &ChunkHasher {
        self.keys.hasher()
    }

    /// Tells the caller something.
    pub fn event(&self, event: Event) {
        // The receiver lives as long as the backup; without one nobody listens.
        let _ = self.events.send(event);
    }

    /// Where a path of the snapshot lies in the source.
    pub fn shown(&self, path: &[u8]) -> PathBuf {
        shown_path(&self.base, path)
    }

    /// Reports and counts a path that could not be stored.
    pub fn failed(&self, path: &[u8], error: &std::io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "vanished while the backup ran".to_owned(),
            _ => error.to_string(),
        };
        self.event(Event::SourceFailed { path: self.shown(path), reason });
    }

    /// Reports a file that changed under the reader's hands.
    pub fn changed(&self, path: &[u8]) {
        self.changed_files.fetch_add(1, Ordering::Relaxed);
        self.event(Event::SourceChanged { path: self.shown(path) });
    }

    /// Attributes, unless they are switched off, and whether these are all. What cannot be read is
    /// reported and counted.
    pub fn xattrs(&self, path: &[u8], read: impl FnOnce() -> XattrResult) -> (OwnedXattrs, bool) {
        if !self.read_xattrs {
            return (None, true);
        }
        let (xattrs, failure) = read();
        let Some(error) = failure else { return (xattrs, true) };
        self.errors.fetch_add(1, Ordering::Relaxed);
        let reason = format!("an extended attribute could not be read: {error}");
        self.event(Event::SourceIncomplete { path: self.shown(path), reason });
        (xattrs, false)
    }

    /// Says that a modification time is beyond what a snapshot holds: nanoseconds since 1970 in 64 bits.
    pub fn cut_time(&self, path: &[u8]) {
        let reason =
            "its modification time is not between 1677 and 2262, and is stored as the end of that".to_owned();
        self.event(Event::SourceIncomplete { path: self.shown(path), reason });
    }

    /// True for directories that are never part of a backup; says so.
    pub fn is_excluded(&self, path: &[u8], stat: &Stat) -> bool {
        let Some((.., what)) =
            self.excluded.iter().find(|(dev, ino, _)| (*dev, *ino) == (stat.dev, stat.ino))
        else {
            return false;
        };
        self.skipped(path, &format!("it is {what}"));
        true
    }

    /// Says that a directory is left out that is never part of a backup.
    pub fn skipped(&self, path: &[u8], reason: &str) {
        self.event(Event::Skipped { path: self.shown(path), reason: reason.to_owned() });
    }

    /// Counts an entry that is left out, and says so to who wants to know.
    pub fn left_out(&self, path: &[u8], why: Exclusion) {
        self.excluded_entries.fetch_add(1, Ordering::Relaxed);
        if self.report_excluded {
            self.event(Event::Excluded { path: self.shown(path), why });
        }
    }

    /// Says that a file was read and stored, to who wants to know.
    pub fn stored(&self, path: &[u8], new: bool, size: u64) {
        if self.report_stored {
            let what = if new { Planned::New } else { Planned::Changed };
            self.event(Event::Stored { path: self.shown(path), what, size });
        }
    }

    /// Reports a `.gitignore` that cannot be read, or lines that do nothing: too much is stored then, rather than too
    /// little.
    pub fn rule_trouble(&self, path: &[u8], trouble: &RuleTrouble) {
        let number = self.rule_troubles.fetch_add(1, Ordering::Relaxed);
        if number >= MAX_RULE_NOTES {
            return;
        }
        let path = self.shown(path);
        let mut text = match trouble {
            RuleTrouble::Unread(error) => format!("{}: its rules are not followed: {error}", path.display()),
            RuleTrouble::Flawed(lines) => {
                let first = lines.first().map(|(line, what)| format!("line {line}: {what}"));
                let more = match lines.len() {
                    0 | 1 => String::new(),
                    n => format!(" (and {} more like it)", n - 1),
                };
                format!("{}, {}{more}", path.display(), first.unwrap_or_default())
            }
        };
        if number + 1 == MAX_RULE_NOTES {
            text.push_str("; no further files of rules are named");
        }
        self.event(Event::Note(text));
    }

    /// Encodes an item.
    pub fn encode(&self, item: &Item<'_>, out: &mut Vec<u8>) {
        let written = rmp_serde::encode::write(out, item);
        self.ok(written.map_err(|e| VykarError::Encode { what: "item", reason: e.to_string() }));
    }

    /// Remembers a file's content for the next backup.
    pub fn remember(&self, record: &Record, records: &mut RecordWriter) {
        self.ok(records.add(record, self.hasher()).map_err(Into::into));
    }

    /// Keeps the source directory's own item.
    pub fn set_root(&self, item: &Item<'_>) {
        self.ok(self.extras.set_root(item));
    }

    /// Keeps a FIFO, a socket or a device node. Only so many have room beside a snapshot's metadata.
    pub fn special(&self, item: &Item<'_>, stat: &Stat) {
        match self.ok(self.extras.add_special(item)) {
            Some(true) => self.name(item.path_bytes(), stat),
            Some(false) => {
                let error = std::io::Error::other("more FIFOs, sockets and devices than a snapshot can hold");
                self.failed(item.path_bytes(), &error);
            }
            None => {}
        }
    }

    /// Keeps which other paths have the same symlink, FIFO, socket or device node.
    pub fn name(&self, path: &[u8], stat: &Stat) {
        if !self.extras.add_name(path, stat) {
            let reason = "it is stored by itself: more hard links of symlinks and special files than a snapshot can hold";
            self.event(Event::SourceIncomplete { path: self.shown(path), reason: reason.to_owned() });
        }
    }

    /// Nanoseconds since the epoch.
    pub fn now(&self) -> i64 {
        i64::try_from(crate::clock::now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// Ends the backup with this error, unless one came before.
    pub fn abort(&self, error: VykarError) {
        VykarError::keep_first(&mut self.failure.lock(), error);
        self.aborted.store(true, Ordering::Release);
    }

    /// The value, or the end of the backup.
    pub fn ok<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.abort(e)).ok()
    }

    /// True when the backup is to end.
    pub fn is_aborted(&self) -> bool {
        if self.cancel.load(Ordering::Relaxed) && !self.aborted.load(Ordering::Relaxed) {
            self.abort(VykarError::Interrupted);
        }
        self.aborted.load(Ordering::Relaxed)
    }

    /// The error that ended the backup.
    pub fn take_failure(&self) -> Option<VykarError> {
        self.failure.lock().take()
    }

    /// How far the backup is, as an event.
    pub fn progress_event(&self) -> Event {
        self.progress.event(|path| self.shown(path))
    }

    /// Counts files that are done, and bytes that were read, or need no reading.
    pub fn done(&self, files: u64, bytes: u64) {
        self.progress.done(files, bytes);
    }
}

/// Sum of the stored sizes of a file's chunks.
pub fn stored_bytes(chunks: &[ChunkRef]) -> u64 {
    chunks.iter().map(|c| u64::from(c.stored_size)).sum()
}
