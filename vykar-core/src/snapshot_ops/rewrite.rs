//! A snapshot again, without what rules leave out.
//!
//! The new snapshot refers to the chunks of the files that stay; no file is read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::codec::Compression;
use crate::error::Result;
use crate::event::{Event, Events, Exclusion};
use crate::format::note::{REWRITTEN_FROM, with_note};
use crate::format::{Item, ItemType, Snapshot, SnapshotMeta};
use crate::id::SnapshotId;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};
use crate::repository::{LockOptions, RefreshingReader, Repository};
use crate::rules::{FromTop, RuleStanding, Rules};
use crate::snapshot_ops::{Maker, ReadWatch, SnapshotBuilder, emit, unreadable};

/// What is left out, and how.
#[derive(Debug, Clone, Default)]
pub struct RewriteOptions {
    /// Rules as in a `.gitignore` at the top of the snapshot: the last that matches decides, and what is in a directory
    /// that is left out is left out.
    pub patterns: Vec<Vec<u8>>,
    /// Find out what would be left out, and make nothing.
    pub dry_run: bool,
    /// Tell what is left out, and why, with [`Event::Excluded`]; of a directory's contents nothing.
    pub report_excluded: bool,
    /// How long to wait for the lock.
    pub lock: LockOptions,
    /// Set by the caller to end it early, with nothing published.
    pub cancel: Arc<AtomicBool>,
}

/// What became of a snapshot.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The snapshot that was read.
    pub from: SnapshotId,
    /// Paths that are left out, everything below directories included.
    pub left_out: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// The new snapshot; none when nothing matched, or in a dry run.
    pub made: Option<(SnapshotId, SnapshotMeta)>,
}

/// Makes a snapshot with everything that a snapshot has, but for what the rules match. The original stays.
///
/// # Errors
/// [`VykarError::Usage`] for a wrong rule; [`VykarError::SnapshotUnusable`] and [`VykarError::ChunkMissing`] when the
/// snapshot is damaged or has items of something newer, since nobody could tell what the new one would lack. Nothing is
/// published then, nor after any other failure.
pub fn rewrite(
    repository: &Repository,
    snapshot: &Snapshot,
    options: &RewriteOptions,
    mut events: Events<'_>,
) -> Result<Rewritten> {
    let source = Original { reader: RefreshingReader::new(repository)?, snapshot, options };
    let mut found = source.look(&mut events)?;
    if found.left_out == 0 || options.dry_run {
        return Ok(found);
    }
    let mut rules = FromTop::new(Rules::new(&options.patterns)?);
    let ext = snapshot.meta.ext.as_ref().map(|ext| &ext[..]);
    let mut stays = |item: &Item<'_>| standing(&mut rules, item) == RuleStanding::Stays;
    let ext = with_note(ext, (REWRITTEN_FROM, &snapshot.id), &mut stays)?;
    let meta = SnapshotMeta { name: String::new(), ext, ..snapshot.meta.clone() };
    let until = (&options.lock, &options.cancel);
    let maker = Maker::new(repository, repository, until, Compression::default())?;
    let made = maker.make(&meta, &mut |making, events| source.store(making, events), &mut events)?;
    found.made = Some((made.id, made.meta));
    Ok(found)
}

/// The snapshot that is read.
struct Original<'s> {
    reader: RefreshingReader<'s>,
    snapshot: &'s Snapshot,
    options: &'s RewriteOptions,
}

impl Original<'_> {
    /// Counts what is left out.
    fn look(&self, events: &mut Events<'_>) -> Result<Rewritten> {
        let mut found = Rewritten { from: self.snapshot.id, left_out: 0, files: 0, bytes: 0, made: None };
        let report = self.options.report_excluded;
        self.each(events, &mut |item, standing, events| {
            if standing == RuleStanding::Stays {
                return Ok(());
            }
            found.left_out = found.left_out.saturating_add(1);
            if item.kind == ItemType::RegularFile {
                found.files = found.files.saturating_add(1);
                found.bytes = found.bytes.saturating_add(item.size);
            }
            if let (RuleStanding::Out(rule), true) = (standing, report) {
                let rule = String::from_utf8_lossy(rule).into_owned();
                let path = PathBuf::from(OsStr::from_bytes(item.path_bytes()));
                emit(events, Event::Excluded { path, why: Exclusion::Pattern(rule) });
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Adds what stays to a new snapshot.
    fn store(&self, making: &mut SnapshotBuilder<'_>, events: &mut Events<'_>) -> Result<()> {
        self.each(events, &mut |item, standing, _| {
            // Special items are not in the stream.
            if standing != RuleStanding::Stays || crate::format::special::is_special(item.kind) {
                return Ok(());
            }
            if !making.references.add_existing(&item.chunks) {
                return Err(making.references.why_not_there(&item.chunks));
            }
            making.add(item)
        })
    }

    /// Calls `each` for every item, special ones included.
    fn each(&self, events: &mut Events<'_>, each: EachItem<'_>) -> Result<()> {
        let mut rules = FromTop::new(Rules::new(&self.options.patterns)?);
        let mut watch = ReadWatch::new(&self.options.cancel, self.snapshot);
        let id = self.snapshot.id;
        for_each_item(&self.reader, self.snapshot, &mut |found| {
            match found {
                FoundItem::Item(item) => {
                    each(&item, standing(&mut rules, &item), events)?;
                    watch.done(&item, events)?;
                }
                FoundItem::Problem(problem) => {
                    return Err(unreadable(id, format!("{}: {problem}", problem.path())));
                }
                FoundItem::Lost(Loss { reason, .. }) => return Err(unreadable(id, reason)),
            }
            Ok(true)
        })
    }
}

type EachItem<'e> = &'e mut dyn FnMut(&Item<'_>, RuleStanding<'_>, &mut Events<'_>) -> Result<()>;

fn standing<'r>(rules: &'r mut FromTop, item: &Item<'_>) -> RuleStanding<'r> {
    rules.standing(item.path_bytes(), item.kind == ItemType::Directory)
}
