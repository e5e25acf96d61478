//! What a backup would store, without storing anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, unbounded};

use super::{BackupOptions, resolve_sources};
use crate::backup::commit::references::BackupReferences;
use crate::backup::parent::known_files;
use crate::backup::parent::known_files::KnownFiles;
use crate::backup::parent::selection::SourceIdentity;
use crate::backup::pipeline::context::{Context, ContextParts};
use crate::backup::pipeline::scheduler::offer;
use crate::backup::pipeline::walk::{Draft, ListedPiece, SourceWalk};
use crate::error::Result;
use crate::event::emit;
use crate::event::{Event, Events, Planned};
use crate::format::wire::Reader;
use crate::format::{Item, ItemType, special};
use crate::repository::{LostPacks, Repository};
use crate::stage::Stages;

/// What a backup would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preview {
    /// Files that no earlier backup knew.
    pub new: u64,
    /// Files that look different from what the last backup saw.
    pub changed: u64,
    /// Files that would not be read.
    pub unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// FIFOs, sockets and device nodes.
    pub special: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that would be read. How much of them is new only reading tells.
    pub bytes_to_read: u64,
    /// Entries that would be left out; what is in a directory that is, is not counted.
    pub excluded: u64,
    /// Paths that cannot be looked at.
    pub errors: u64,
}

/// Says what [`backup`](super::backup) would store, with an [`Event::Planned`] for each path. Needs no lock, and
/// writes nothing to the repository. Files are not opened, so that one which cannot be read is not found.
///
/// # Errors
/// The repository or a source cannot be read, a rule is wrong, or the caller cancelled.
pub fn preview(repository: &Repository, options: &BackupOptions, mut events: Events<'_>) -> Result<Preview> {
    let sources = resolve_sources(options, &mut events)?;
    let identity = SourceIdentity::new(options, &sources);
    let base = repository.open_index()?;
    let lost = LostPacks::find(repository, &base.index.chunks)?;
    let references = BackupReferences::new(base.index.clone(), Arc::default(), lost);
    let stages = Stages::default();
    let (sender, receiver) = unbounded();
    let context = Context::new(ContextParts {
        keys: repository.keys(),
        references: &references,
        cache: KnownFiles::new(repository, &identity, options)?.open(),
        stages: &stages,
        read_xattrs: false,
        reread: options.reread,
        filter: known_files::filter(options)?,
        report_excluded: options.report_excluded,
        report_stored: false,
        base: sources.base(),
        excluded: known_files::own_places(repository),
        events: sender,
        cancel: options.cancel.clone(),
    });
    let pieces = sources.pieces(&context)?;
    let walk = SourceWalk::new(&context);
    offer(&walk, &pieces);
    let mut visitor =
        Visitor { context: &context, found: Preview::default(), received: &receiver, events: &mut events };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, 4) {
            // Without them this thread lists by itself.
            let listing = std::thread::Builder::new().name("vykar-list".to_owned());
            let _ = listing.spawn_scoped(scope, || walk.list_ahead());
        }
        visitor.visit(&walk, pieces);
        walk.close();
    });
    for stream in &options.streams {
        visitor.planned(PathBuf::from(&stream.path), Planned::Stream, 0);
    }
    let mut found = visitor.found;
    found.excluded = context.excluded_entries.load(Ordering::Relaxed);
    found.errors = context.errors.load(Ordering::Relaxed);
    context.take_failure().map_or(Ok(found), Err)
}

/// Visits everything in order.
struct Visitor<'v, 'e> {
    context: &'v Context<'v>,
    found: Preview,
    received: &'v Receiver<Event>,
    events: &'v mut Events<'e>,
}

impl Visitor<'_, '_> {
    fn visit(&mut self, walk: &SourceWalk<'_>, sources: Vec<Vec<ListedPiece>>) {
        let mut stack: Vec<std::vec::IntoIter<ListedPiece>> =
            sources.into_iter().rev().map(Vec::into_iter).collect();
        while let Some(top) = stack.last_mut() {
            if self.context.is_aborted() {
                return;
            }
            match top.next() {
                None => drop(stack.pop()),
                Some(ListedPiece::Dir(ticket)) => stack.push(walk.take(&ticket).into_iter()),
                Some(ListedPiece::File(draft)) => self.file(&draft),
                Some(ListedPiece::Encoded(encoded)) => self.encoded(&encoded.items),
                // Told apart from the tree.
                Some(ListedPiece::Stream(_)) => {}
            }
            self.pass_on();
        }
        for encoded in self.context.extras.take_specials() {
            if let Some(item) = special::decode(&encoded) {
                self.planned(self.context.shown(item.path_bytes()), Planned::Special, 0);
            }
        }
    }

    /// What the walk found out: entries that are left out, and trouble.
    fn pass_on(&mut self) {
        for event in self.received.try_iter() {
            emit(self.events, event);
        }
    }

    fn file(&mut self, draft: &Draft) {
        let what = if draft.before.is_some() { Planned::Changed } else { Planned::New };
        self.found.bytes = self.found.bytes.saturating_add(draft.stat.size);
        self.found.bytes_to_read = self.found.bytes_to_read.saturating_add(draft.stat.size);
        self.planned(self.context.shown(&draft.path), what, draft.stat.size);
    }

    /// What needs no reading is encoded by now.
    fn encoded(&mut self, items: &[u8]) {
        let mut reader = Reader::new(items);
        while reader.remaining() > 0 {
            // This program has just written them.
            let Ok(Ok(item)) = Item::decode(&mut reader) else { return };
            let what = match item.kind {
                ItemType::RegularFile => Planned::Unchanged,
                ItemType::Directory => Planned::Directory,
                ItemType::Symlink => Planned::Symlink,
                // These are in no stream.
                ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => continue,
            };
            let size = if item.kind == ItemType::RegularFile { item.size } else { 0 };
            self.found.bytes = self.found.bytes.saturating_add(size);
            self.planned(self.context.shown(item.path_bytes()), what, size);
        }
    }

    fn planned(&mut self, path: PathBuf, what: Planned, size: u64) {
        let count = match what {
            Planned::New | Planned::Stream => &mut self.found.new,
            Planned::Changed => &mut self.found.changed,
            Planned::Unchanged => &mut self.found.unchanged,
            Planned::Directory => &mut self.found.directories,
            Planned::Symlink => &mut self.found.symlinks,
            Planned::Special => &mut self.found.special,
        };
        *count += 1;
        emit(self.events, Event::Planned { path, what, size });
    }
}
