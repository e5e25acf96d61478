//! Putting a snapshot's files back.
//!
//! [`restore`] first reads the items into a tree (`plan`, `select`, `tree`), then makes all
//! directories, then writes files from several threads in the order their content lies in the packs
//! (`queue`, `fetch`, `write`, `holes`), then further names and symlinks, and the directories'
//! metadata last, from the deepest up. Everything is reached through handles below the destination
//! (`place`), so that no snapshot can name a way out of it.

mod acl;
mod apply;
mod clock;
mod directories;
mod existing;
mod fetch;
mod handle;
mod holes;
mod metadata;
mod others;
mod own;
mod place;
pub(crate) mod plan;
mod queue;
mod report;
mod select;
mod settle;
mod shared;
mod site;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;

use crate::error::{Result, VykarError};
use crate::event::{Event, Events};
use crate::format::Snapshot;
use crate::platform;
use crate::repository::{RefreshingReader, Repository};

use directories::Destination;
use fetch::ChunkOrigin;
use plan::RestorePlan;
use queue::TaskQueue;
use report::Reporter;
use site::{Site, state};
use tree::{NodeKind, ROOT};
use write::RestoreWorker;

pub use existing::Overwrite;

/// Bytes read at once, by all threads together; decoded chunks come on top, one for each thread.
const READ_IN_FLIGHT: u64 = 32 << 20;
/// Bytes read at once by one thread: more is no faster.
const MAX_READ: u64 = 8 << 20;
/// Less would cost more in requests than it saves in memory.
const MIN_READ: u64 = 1 << 20;
/// More threads than this only wait for each other.
const MAX_THREADS: usize = 64;

/// What is restored, and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these paths of the snapshot, each with everything below it; all when empty. Slashes at
    /// the ends and `.` components do not matter.
    pub paths: Vec<Vec<u8>>,
    /// Threads that read and write; 0 for one a processor.
    pub threads: usize,
    /// Only what one of these rules matches, and what is below it: rules as in a `.gitignore` at the top of the
    /// snapshot; all when empty.
    pub include: Vec<Vec<u8>>,
    /// Nothing that these rules match.
    pub exclude: Vec<Vec<u8>>,
    /// What becomes of files that exist.
    pub overwrite: Overwrite,
    /// Where a directory is replaced by something else, what is in it goes, too. Otherwise only empty ones are replaced.
    pub delete_conflicting: bool,
    /// Read what was written, and what looks right already, and compare it with the snapshot.
    pub verify: bool,
    /// Tell what would be done, with [`Event::PlannedRestore`], and do nothing.
    pub dry_run: bool,
    /// Set by the caller to end the restore early: files that are not whole are removed.
    pub cancel: Arc<AtomicBool>,
    /// Owners, and users and groups in ACLs, by number. Otherwise one whose name exists here gets this system's number.
    pub numeric_ids: bool,
}

/// What was restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Regular files written, further names not counted.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symlinks made.
    pub symlinks: u64,
    /// FIFOs, sockets and device nodes made.
    pub special: u64,
    /// Further names of files, made as hard links.
    pub hardlinks: u64,
    /// What existed and was left as it was, as the snapshot has it, or newer where that was asked for.
    pub unchanged: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Paths not restored, each of them told by [`Event::RestoreFailed`] or [`Event::ItemSkipped`].
    pub errors: u64,
    /// Entries that have not all of the metadata that the snapshot has for them.
    pub incomplete: u64,
    /// Those of them that are named, by [`Event::RestoreIncomplete`] or [`Event::RestoreKept`]. Of the others only the
    /// owner or a label of the system could not be set.
    pub named: u64,
}

/// Puts a snapshot's items directly under `dest`, which is made if it is not there.
///
/// What exists already is dealt with as [`Overwrite`] says; existing directories are entered, and keep their own
/// metadata, times included, unless what differs is overwritten. `dest` itself keeps its own in any case, if it was there.
/// What a restore that was cut off left behind is finished by the next one: files appear under their names when they are
/// complete, and directories are marked until they are. What cannot be restored (a damaged chunk, an item that breaks a
/// rule) costs only the paths it concerns.
///
/// # Errors
/// When the index cannot be read, `dest` cannot be made or opened or lies in the repository or a cache, or its file system
/// is full or read-only; what was restored until then stays, and no file is left half written.
pub fn restore(
    repository: &Repository,
    snapshot: &Snapshot,
    dest: &Path,
    options: &RestoreOptions,
    events: Events<'_>,
) -> Result<RestoreSummary> {
    let mut reporter = Reporter::new(events);
    let reader = RefreshingReader::new(repository)?;
    let plan = RestorePlan::read(&reader, snapshot, options, &mut reporter)?;
    if options.dry_run {
        return dry_run(repository, &reader, &plan, dest, options, reporter);
    }
    own::refuse(repository, dest)?;
    let destination = Destination::open(dest, &plan).map_err(|e| VykarError::path(dest, e))?;
    let threads = platform::threads(options.threads, MAX_THREADS);
    let max_read = (READ_IN_FLIGHT / threads as u64).clamp(MIN_READ, MAX_READ);
    let table = &plan.index.chunks;
    let source = ChunkOrigin { repository, reader: &reader, table, spare: Mutex::default() };
    let mut site = Site::new(&plan, &source, destination.root.clone(), max_read);
    configure(&mut site, repository, options);
    site.set_state(ROOT, destination.state);
    let site = site;

    let before = directories::make(&site, &mut reporter);
    existing::decide(&site, &mut reporter);
    let tree = &plan.tree;
    let is_open = |n| matches!(site.state(n), state::NONE | state::REPLACE);
    let is_file = |n| tree.node(n).wanted && matches!(tree.node(n).kind, NodeKind::File(_)) && is_open(n);
    let queue = Mutex::new(TaskQueue::new(&plan, max_read, is_file));
    reporter.expected = Some(plan.totals());
    in_threads(&site, threads, &options.cancel, &mut reporter, |worker| worker.run(&queue));
    site.current.store(ROOT, Ordering::Relaxed);
    reporter.progress(&site);
    in_threads(&site, 1, &options.cancel, &mut reporter, RestoreWorker::links);
    others::make(&site, &mut reporter);
    directories::finish(&site, &before, &mut reporter);

    if let Some(error) = *site.fatal.lock() {
        return Err(VykarError::path(dest, error));
    }
    if options.cancel.load(Ordering::Relaxed) {
        return Err(VykarError::Interrupted);
    }
    Ok(summarise(&site, reporter))
}

fn configure(site: &mut Site<'_>, repository: &Repository, options: &RestoreOptions) {
    site.verify = options.verify;
    site.overwrite = options.overwrite;
    site.delete_conflicting = options.delete_conflicting;
    site.own_places = own::places(repository);
}

/// Runs `work` in threads and passes their events on until all have ended.
fn in_threads<'a>(
    site: &'a Site<'a>,
    threads: usize,
    cancel: &AtomicBool,
    reporter: &mut Reporter<'_>,
    work: impl Fn(&mut RestoreWorker<'a>) + Sync,
) {
    let (sender, events) = crossbeam_channel::bounded(1024);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, work) = (sender.clone(), &work);
            scope.spawn(move || work(&mut RestoreWorker::new(site, sender)));
        }
        drop(sender);
        loop {
            match events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => reporter.send(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if cancel.load(Ordering::Relaxed) {
                site.stop.store(true, Ordering::Release);
            }
            reporter.progress(site);
        }
    });
}

/// Says what would be done.
fn dry_run(
    repository: &Repository,
    reader: &RefreshingReader<'_>,
    plan: &RestorePlan,
    dest: &Path,
    options: &RestoreOptions,
    mut reporter: Reporter<'_>,
) -> Result<RestoreSummary> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir: Option<place::Dir> = match rustix::fs::open(dest, flags, Mode::empty()) {
        Ok(dir) => Some(Arc::new(dir)),
        Err(rustix::io::Errno::NOENT) => None,
        Err(e) => return Err(VykarError::path(dest, e)),
    };
    let source = ChunkOrigin { repository, reader, table: &plan.index.chunks, spare: Mutex::default() };
    // Nothing is reached through it.
    let root = rustix::fs::open("/", flags | OFlags::PATH, Mode::empty());
    let root = Arc::new(root.map_err(|e| VykarError::path("/", e))?);
    own::refuse(repository, dest)?;
    let mut site = Site::new(plan, &source, root, MIN_READ);
    configure(&mut site, repository, options);
    existing::preview(&site, dir.as_ref(), &mut reporter);
    Ok(reporter.summary)
}

fn summarise(site: &Site<'_>, mut reporter: Reporter<'_>) -> RestoreSummary {
    let owners = site.applier.owners_denied.load(Ordering::Relaxed);
    if owners > 0 {
        reporter.send(Event::Note(format!("the owner of {owners} entries could not be set: not permitted")));
    }
    let labels = site.applier.labels_denied.load(Ordering::Relaxed);
    if labels > 0 {
        let reason = "not permitted, or not supported by the file system";
        reporter.send(Event::Note(format!("{labels} security labels could not be set: {reason}")));
    }
    let coarse = site.applier.coarse_times.load(Ordering::Relaxed);
    if coarse > 0 {
        let reason = "this file system does not keep nanoseconds";
        reporter.send(Event::Note(format!("the times of {coarse} entries are rounded: {reason}")));
    }
    RestoreSummary {
        files: site.files.load(Ordering::Relaxed),
        bytes: site.bytes.load(Ordering::Relaxed),
        hardlinks: site.hardlinks.load(Ordering::Relaxed),
        incomplete: reporter.summary.incomplete + owners + labels,
        ..reporter.summary
    }
}
