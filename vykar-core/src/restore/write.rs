//! Threads that create files, fill them and give them their metadata.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::apply::ObjectOrigin;
use super::existing;
use super::fetch::{ChunkOrigin, Fetcher};
use super::handle::{self, Handle, identity};
use super::holes;
use super::place::Places;
use super::plan::{PlannedPiece, as_path};
use super::queue::{FilePart, FileState, OutputFile, RestoreTask, TaskQueue};
use super::settle::Fresh;
use super::shared::Turn;
use super::site::{Site, state};
use super::tree::NodeKind;
use crate::event::Event;

/// Why a file is not restored. Nothing is said where that was done before.
enum WriteFailure {
    Because(String),
    Known,
}

pub(super) const NO_DIRECTORY: &str = "its directory could not be restored";
pub(super) const EXISTS: &str = "exists already; left as it is";

/// One thread.
pub(super) struct RestoreWorker<'a> {
    site: &'a Site<'a>,
    places: Places<'a>,
    fetch: Fetcher<'a>,
    events: Sender<Event>,
}

impl<'a> RestoreWorker<'a> {
    pub fn new(site: &'a Site<'a>, events: Sender<Event>) -> Self {
        RestoreWorker { site, places: site.places(), fetch: Fetcher::new(site.source, site.max_read), events }
    }

    /// Works until the queue is empty. After a fatal error the rest is taken as well, so that files
    /// half written are removed.
    pub fn run(&mut self, queue: &Mutex<TaskQueue<'_>>) {
        loop {
            let task = queue.lock().next();
            match task {
                Some(task) => self.task(&task),
                None => return,
            }
        }
    }

    fn task(&mut self, task: &RestoreTask) {
        let pieces = task.iter().flat_map(|part| &self.site.plan.pieces[part.pieces.clone()]);
        let wants: Vec<PlannedPiece> = pieces.copied().collect();
        self.fetch.begin(&wants);
        let mut first = 0;
        for part in task {
            if let Err(failure) = self.fill(part, &wants, first) {
                let known = part.output.failed.swap(true, Ordering::AcqRel);
                if let (WriteFailure::Because(reason), false) = (failure, known) {
                    self.failed(part.output.node, reason);
                }
            }
            first += part.pieces.len();
            if part.output.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.finish(&part.output);
            }
        }
    }

    fn failed(&self, node: u32, reason: String) {
        let path = as_path(self.site.plan.tree.path(node));
        // The receiver outlives the threads.
        let _ = self.events.send(Event::RestoreFailed { path, reason });
    }

    /// Writes a part; `first` is the number of its first piece in `wants`.
    fn fill(&mut self, part: &FilePart, wants: &[PlannedPiece], first: usize) -> Result<(), WriteFailure> {
        if self.site.stop.load(Ordering::Acquire) {
            return Err(WriteFailure::Known);
        }
        self.site.current.store(part.output.node, Ordering::Relaxed);
        let fresh = self.open(&part.output)?;
        let file = &fresh.file;
        let mut offset = part.offset;
        for (at, want) in wants.iter().enumerate().skip(first).take(part.pieces.len()) {
            if part.output.failed.load(Ordering::Acquire) {
                return Err(WriteFailure::Known);
            }
            let data = self.fetch.chunk(at, *want).map_err(|e| WriteFailure::Because(e.to_string()))?;
            let written = match part.shared {
                false => write(&part.output, file, (offset, data)),
                true => self.write_shared(&part.output, file, offset, want.size as usize),
            };
            written.map_err(|error| self.refused("write", error))?;
            offset += u64::from(want.size);
            self.site.progress.fetch_add(want.size.into(), Ordering::Relaxed);
        }
        if part.shared {
            let drained = drain(&part.output, file, &mut part.output.writes.turn(), self.site.source);
            drained.map_err(|error| self.refused("write", error))?;
        }
        Ok(())
    }

    /// Writes the chunk that was fetched last, or leaves that to the thread that is writing.
    fn write_shared(
        &mut self,
        output: &OutputFile,
        file: &OwnedFd,
        offset: u64,
        len: usize,
    ) -> Result<(), Errno> {
        let fetch = &mut self.fetch;
        let Some(mut turn) = output.writes.turn_or_leave(len, || (offset, fetch.take())) else {
            return Ok(());
        };
        write(output, file, (offset, fetch.last()))?;
        drain(output, file, &mut turn, self.site.source)
    }

    fn refused(&self, what: &str, error: Errno) -> WriteFailure {
        match self.site.is_fatal(error) {
            true => WriteFailure::Known,
            false => WriteFailure::Because(format!("cannot {what}: {error}")),
        }
    }

    /// The file, which the first task that comes to it creates.
    fn open(&mut self, output: &OutputFile) -> Result<Arc<Fresh>, WriteFailure> {
        let mut open = output.file.lock();
        match &*open {
            FileState::Created(file) => Ok(file.clone()),
            FileState::Failed => Err(WriteFailure::Known),
            FileState::NotYet => {
                *open = FileState::Failed;
                let file = Arc::new(self.create(output.node)?);
                *open = FileState::Created(file.clone());
                Ok(file)
            }
        }
    }

    fn create(&mut self, node: u32) -> Result<Fresh, WriteFailure> {
        let site = self.site;
        if !site.has_parent(node) {
            return Err(WriteFailure::Because(NO_DIRECTORY.into()));
        }
        let dir = self.places.parent(node).map_err(|e| self.refused("open its directory", e))?;
        // To be read again.
        let access = if site.verify { OFlags::RDWR } else { OFlags::WRONLY };
        if !site.no_unnamed.load(Ordering::Relaxed) {
            let mode = site.plan.tree.node(node).metadata.first_mode(site.me);
            match Fresh::unnamed(&dir, mode, access) {
                Err(Errno::NOTSUP | Errno::ISDIR | Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                    site.no_unnamed.store(true, Ordering::Relaxed);
                }
                other => return other.map_err(|error| self.refused("create", error)),
            }
        }
        Fresh::named(&dir, site.temporary(node), access).map_err(|error| self.refused("create", error))
    }

    /// After the last part: metadata and the name. What is not whole gets none.
    fn finish(&mut self, output: &OutputFile) {
        let FileState::Created(fresh) = std::mem::replace(&mut *output.file.lock(), FileState::Failed) else {
            return;
        };
        if output.failed.load(Ordering::Acquire) {
            return self.discard(output.node, &fresh);
        }
        if let Err(failure) = self.complete(output, &fresh) {
            if let WriteFailure::Because(reason) = failure {
                self.failed(output.node, reason);
            }
            return self.discard(output.node, &fresh);
        }
        self.site.set_state(output.node, state::MADE);
        self.site.files.fetch_add(1, Ordering::Relaxed);
        self.site.bytes.fetch_add(output.content.size, Ordering::Relaxed);
    }

    fn complete(&mut self, output: &OutputFile, fresh: &Fresh) -> Result<(), WriteFailure> {
        let (site, node, file) = (self.site, output.node, &fresh.file);
        if output.holes.load(Ordering::Acquire) {
            // A hole at the end is not there until the size says so.
            let set = rustix::fs::ftruncate(file, output.content.size);
            set.map_err(|error| self.refused("set the size", error))?;
        }
        if site.verify && !existing::holds(site, node, file) {
            return Err(WriteFailure::Because("what was written is not what is read back".into()));
        }
        let metadata = &site.plan.tree.node(node).metadata;
        let missing = site.dress(&Handle::opened(file), metadata, ObjectOrigin::Fresh);
        if site.is_linked(node) {
            let found = rustix::fs::fstat(file).map_err(|error| self.refused("look at it", error))?;
            site.made.set(node, identity(&found));
        }
        self.place(node, fresh)?;
        if let Some(reason) = missing {
            let path = as_path(site.plan.tree.path(node));
            let _ = self.events.send(Event::RestoreIncomplete { path, reason });
        }
        Ok(())
    }

    /// Gives a complete file its name.
    fn place(&mut self, node: u32, fresh: &Fresh) -> Result<(), WriteFailure> {
        let site = self.site;
        let dir = self.places.parent(node).map_err(|e| self.refused("open its directory", e))?;
        let placed = match &fresh.name {
            Some(temporary) => site.settle(node, &dir, temporary),
            None if site.state(node) == state::REPLACE => {
                let temporary = site.temporary(node);
                handle::link(&fresh.file, &dir, &temporary)
                    .and_then(|()| site.settle(node, &dir, &temporary))
                    .inspect_err(|_| handle::remove(&dir, &temporary))
            }
            None => handle::link(&fresh.file, &dir, site.plan.tree.name(node)),
        };
        placed.map_err(|error| match (error, site.state(node)) {
            (Errno::EXIST, state::NONE) => WriteFailure::Because(EXISTS.into()),
            (error, state::REPLACE) => {
                WriteFailure::Because(format!("cannot take the place of what is there: {error}"))
            }
            (error, _) => self.refused("give it its name", error),
        })
    }

    /// Removes what is not whole. Without a name it is gone when it is closed.
    fn discard(&mut self, node: u32, fresh: &Fresh) {
        let Some(name) = &fresh.name else { return };
        let dir = self.places.parent(node);
        let removed = dir.and_then(|dir| rustix::fs::unlinkat(&dir, &name[..], AtFlags::empty()));
        if let Err(error) = removed {
            let name = String::from_utf8_lossy(name);
            let path = as_path(self.site.plan.tree.path(node)).display().to_string();
            let what = format!("{path}: {name} beside it is not whole and cannot be removed: {error}");
            let _ = self.events.send(Event::Note(what));
        }
    }

    /// Makes the further names of files, after all files are written.
    pub fn links(&mut self) {
        // Where the first name failed, another stands in for it.
        let mut stand_ins: HashMap<u32, u32> = HashMap::new();
        let plan = self.site.plan;
        for node in plan.tree.numbers().filter(|n| plan.tree.node(*n).wanted) {
            let NodeKind::Link { leader, .. } = plan.tree.node(node).kind else { continue };
            if matches!(self.site.state(node), state::RIGHT | state::REFUSED) {
                continue;
            }
            if self.site.stop.load(Ordering::Acquire) {
                return;
            }
            let written = match self.site.state(leader) {
                state::MADE | state::RIGHT => Some(leader),
                _ => stand_ins.get(&leader).copied(),
            };
            match written.map(|first| self.link(first, node)) {
                Some(Ok(())) => {
                    self.site.hardlinks.fetch_add(1, Ordering::Relaxed);
                    self.site.set_state(node, state::MADE);
                }
                Some(Err(Errno::EXIST)) => self.failed(node, EXISTS.into()),
                // No first name, too many names, or a file system without hard links.
                _ => {
                    self.copy(node);
                    if written.is_none() && self.site.state(node) == state::MADE {
                        stand_ins.insert(leader, node);
                    }
                }
            }
        }
    }

    fn link(&mut self, first: u32, node: u32) -> Result<(), Errno> {
        link(self.site, &mut self.places, first, node)
    }

    fn copy(&mut self, node: u32) {
        let mut queue = TaskQueue::one(self.site.plan, self.site.max_read, node);
        while let Some(task) = queue.next() {
            self.task(&task);
        }
    }
}

/// Makes a node another name of one that was made.
pub(super) fn link(site: &Site<'_>, places: &mut Places<'_>, first: u32, node: u32) -> Result<(), Errno> {
    if !site.has_parent(node) {
        return Err(Errno::NOENT); // making it by itself says it better
    }
    let (from, to) = (places.parent(first)?, places.parent(node)?);
    let file = handle::look(&from, site.plan.tree.name(first))?;
    if !site.made.agrees(first, identity(&rustix::fs::fstat(&file)?)) {
        return Err(Errno::STALE); // somebody put another file there
    }
    if site.state(node) != state::REPLACE {
        return handle::link(&file, &to, site.plan.tree.name(node));
    }
    let temporary = site.temporary(node);
    handle::link(&file, &to, &temporary)?;
    site.settle(node, &to, &temporary).inspect_err(|_| handle::remove(&to, &temporary))
}

fn write(output: &OutputFile, file: &OwnedFd, (offset, data): (u64, &[u8])) -> Result<(), Errno> {
    if holes::write(file, data, offset)? {
        output.holes.store(true, Ordering::Release);
    }
    Ok(())
}

/// Writes what other threads left.
fn drain(
    output: &OutputFile,
    file: &OwnedFd,
    turn: &mut Turn<'_>,
    source: &ChunkOrigin<'_>,
) -> Result<(), Errno> {
    while let Some((offset, data)) = turn.next() {
        write(output, file, (offset, &data))?;
        source.spare.lock().push(data);
    }
    Ok(())
}
