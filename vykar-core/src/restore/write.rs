//! Threads that create files, fill them and give them their metadata.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::existing;
use super::fetch::{Fetcher, Source};
use super::holes;
use super::metadata::Applier;
use super::place::{Dir, Places};
use super::plan::{Piece, Plan, as_path};
use super::queue::{Open, Output, Part, Queue, Task};
use super::shared::Turn;
use super::tree::{Kind, ROOT};
use crate::event::Event;

/// What became of a node.
pub(super) mod state {
    /// Nothing yet, or it failed.
    pub const NONE: u8 = 0;
    /// Made by this restore.
    pub const MADE: u8 = 1;
    /// A directory that was there before.
    pub const EXISTED: u8 = 2;
    /// Something else that was there, as it should be.
    pub const RIGHT: u8 = 3;
    /// Something is there, and is to be replaced.
    pub const REPLACE: u8 = 4;
    /// Something is there, and stays: that has been said.
    pub const REFUSED: u8 = 5;
}

/// What all threads share.
pub(super) struct Site<'a> {
    pub plan: &'a Plan,
    pub source: &'a Source<'a>,
    pub root: Dir,
    /// Owner and group of what this process makes, but in directories that give it their own group.
    pub me: (u32, u32),
    pub applier: Applier,
    /// A value of [`state`] for each node.
    pub states: Vec<AtomicU8>,
    /// Bytes read at once by each thread.
    pub max_read: u64,
    pub files: AtomicU64,
    /// Bytes of whole files.
    pub bytes: AtomicU64,
    /// Bytes written so far, unfinished files included.
    pub progress: AtomicU64,
    /// The node whose content was begun last; [`ROOT`] when none is being written.
    pub current: AtomicU32,
    pub hardlinks: AtomicU64,
    pub stop: AtomicBool,
    /// Read everything again that was written.
    pub verify: bool,
    /// Part of the names of files that are to replace others.
    nonce: u64,
    pub fatal: Mutex<Option<Errno>>,
}

impl<'a> Site<'a> {
    pub fn new(plan: &'a Plan, source: &'a Source<'a>, root: Dir, max_read: u64) -> Self {
        let nonce = crate::crypto::random().map_or(0, u64::from_le_bytes);
        let states: Vec<AtomicU8> = (0..plan.tree.len()).map(|_| AtomicU8::new(state::NONE)).collect();
        states[ROOT as usize].store(state::EXISTED, Ordering::Relaxed);
        Site {
            plan,
            source,
            root,
            me: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            applier: Applier::default(),
            states,
            max_read,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            current: AtomicU32::new(ROOT),
            hardlinks: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            verify: false,
            nonce,
            fatal: Mutex::new(None),
        }
    }

    pub fn state(&self, node: u32) -> u8 {
        self.states[node as usize].load(Ordering::Acquire)
    }

    pub fn set_state(&self, node: u32, state: u8) {
        self.states[node as usize].store(state, Ordering::Release);
    }

    /// The name under which a node is made: its own, or another one until it can take the place of what is there.
    pub fn first_name(&self, node: u32) -> Vec<u8> {
        match self.state(node) {
            state::REPLACE => format!(".vykar-{:016x}-{node}", self.nonce).into_bytes(),
            _ => self.plan.tree.name(node).to_vec(),
        }
    }

    /// Gives a node its own name, if it was made under another one.
    pub fn settle(&self, node: u32, dir: &Dir) -> Result<(), Errno> {
        let (first, name) = (self.first_name(node), self.plan.tree.name(node));
        if first != name {
            rustix::fs::renameat(dir, &first[..], dir, name)?;
            // Two names of one file stay as they are.
            let _ = rustix::fs::unlinkat(dir, &first[..], AtFlags::empty());
        }
        Ok(())
    }

    /// True when the directory that a node is in is there.
    pub fn has_parent(&self, node: u32) -> bool {
        self.state(self.plan.tree.node(node).parent) != state::NONE
    }

    /// True for what will fail every file alike, so that the restore ends instead.
    pub fn is_fatal(&self, error: Errno) -> bool {
        let fatal = matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::ROFS);
        if fatal {
            self.fatal.lock().get_or_insert(error);
            self.stop.store(true, Ordering::Release);
        }
        fatal
    }
}

/// Why a file is not restored. Nothing is said where that was done before.
enum Failure {
    Because(String),
    Known,
}

pub(super) const NO_DIRECTORY: &str = "its directory could not be restored";
pub(super) const EXISTS: &str = "exists already; left as it is";

/// One thread.
pub(super) struct Worker<'a> {
    site: &'a Site<'a>,
    places: Places<'a>,
    fetch: Fetcher<'a>,
    events: Sender<Event>,
}

impl<'a> Worker<'a> {
    pub fn new(site: &'a Site<'a>, events: Sender<Event>) -> Self {
        let places = Places::new(&site.plan.tree, site.root.clone());
        Worker { site, places, fetch: Fetcher::new(site.source, site.max_read), events }
    }

    /// Works until the queue is empty. After a fatal error the rest is taken as well, so that files
    /// half written are removed.
    pub fn run(&mut self, queue: &Mutex<Queue<'_>>) {
        loop {
            let task = queue.lock().next();
            match task {
                Some(task) => self.task(&task),
                None => return,
            }
        }
    }

    fn task(&mut self, task: &Task) {
        let pieces = task.iter().flat_map(|part| &self.site.plan.pieces[part.pieces.clone()]);
        let wants: Vec<Piece> = pieces.copied().collect();
        self.fetch.begin(&wants);
        let mut first = 0;
        for part in task {
            if let Err(failure) = self.fill(part, &wants, first) {
                let known = part.output.failed.swap(true, Ordering::AcqRel);
                if let (Failure::Because(reason), false) = (failure, known) {
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
    fn fill(&mut self, part: &Part, wants: &[Piece], first: usize) -> Result<(), Failure> {
        if self.site.stop.load(Ordering::Acquire) {
            return Err(Failure::Known);
        }
        self.site.current.store(part.output.node, Ordering::Relaxed);
        let file = self.open(&part.output)?;
        let mut offset = part.offset;
        for (at, want) in wants.iter().enumerate().skip(first).take(part.pieces.len()) {
            if part.output.failed.load(Ordering::Acquire) {
                return Err(Failure::Known);
            }
            let data = self.fetch.chunk(at, *want).map_err(|e| Failure::Because(e.to_string()))?;
            let written = match part.shared {
                false => write(&part.output, &file, (offset, data)),
                true => self.write_shared(&part.output, &file, offset, want.size as usize),
            };
            written.map_err(|error| self.refused("write", error))?;
            offset += u64::from(want.size);
            self.site.progress.fetch_add(want.size.into(), Ordering::Relaxed);
        }
        if part.shared {
            let drained = drain(&part.output, &file, &mut part.output.writes.turn(), self.site.source);
            drained.map_err(|error| self.refused("write", error))?;
        }
        Ok(())
    }

    /// Writes the chunk that was fetched last, or leaves that to the thread that is writing.
    fn write_shared(
        &mut self,
        output: &Output,
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

    fn refused(&self, what: &str, error: Errno) -> Failure {
        match self.site.is_fatal(error) {
            true => Failure::Known,
            false => Failure::Because(format!("cannot {what}: {error}")),
        }
    }

    /// The file, which the first task that comes to it creates.
    fn open(&mut self, output: &Output) -> Result<Arc<OwnedFd>, Failure> {
        let mut open = output.file.lock();
        match &*open {
            Open::Created(file) => Ok(file.clone()),
            Open::Failed => Err(Failure::Known),
            Open::NotYet => {
                *open = Open::Failed;
                let file = Arc::new(self.create(output.node)?);
                *open = Open::Created(file.clone());
                Ok(file)
            }
        }
    }

    fn create(&mut self, node: u32) -> Result<OwnedFd, Failure> {
        const FRESH: OFlags = OFlags::WRONLY
            .union(OFlags::CREATE)
            .union(OFlags::EXCL)
            .union(OFlags::NOFOLLOW)
            .union(OFlags::CLOEXEC);
        if !self.site.has_parent(node) {
            return Err(Failure::Because(NO_DIRECTORY.into()));
        }
        let dir = self.places.parent(node).map_err(|e| self.refused("open its directory", e))?;
        let tree = &self.site.plan.tree;
        let mode = Mode::from_raw_mode(tree.node(node).metadata.first_mode(self.site.me));
        match rustix::fs::openat(&dir, &self.site.first_name(node)[..], FRESH, mode) {
            Ok(file) => Ok(file),
            Err(Errno::EXIST) => Err(Failure::Because(EXISTS.into())),
            Err(error) => Err(self.refused("create", error)),
        }
    }

    /// After the last part: metadata, or removal of what is not whole.
    fn finish(&mut self, output: &Output) {
        let Open::Created(file) = std::mem::replace(&mut *output.file.lock(), Open::Failed) else { return };
        let holes = output.holes.load(Ordering::Acquire);
        if !output.failed.load(Ordering::Acquire) && holes {
            // A hole at the end is not there until the size says so.
            if let Err(error) = rustix::fs::ftruncate(&file, output.content.size) {
                output.failed.store(true, Ordering::Release);
                if let Failure::Because(reason) = self.refused("set the size", error) {
                    self.failed(output.node, reason);
                }
            }
        }
        if output.failed.load(Ordering::Acquire) {
            drop(file);
            return self.remove(output.node);
        }
        if let Some(reason) = self.site.applier.apply(&file, &self.site.plan.tree.node(output.node).metadata)
        {
            let path = as_path(self.site.plan.tree.path(output.node));
            let _ = self.events.send(Event::RestoreIncomplete { path, reason });
        }
        drop(file);
        if let Err(why) = self.settle(output.node) {
            self.failed(output.node, why);
            return self.remove(output.node);
        }
        self.site.set_state(output.node, state::MADE);
        self.site.files.fetch_add(1, Ordering::Relaxed);
        self.site.bytes.fetch_add(output.content.size, Ordering::Relaxed);
    }

    /// Reads a file that is written again, where that is asked for, and gives it its name.
    fn settle(&mut self, node: u32) -> Result<(), String> {
        if !self.site.verify && self.site.state(node) != state::REPLACE {
            return Ok(());
        }
        let dir = self.places.parent(node).map_err(|e| e.to_string())?;
        let first = self.site.first_name(node);
        if self.site.verify && !existing::holds(self.site, node, &dir, &first) {
            return Err("what was written is not what is read back".into());
        }
        self.site.settle(node, &dir).map_err(|e| format!("cannot take the place of what is there: {e}"))
    }

    fn remove(&mut self, node: u32) {
        let name = self.site.first_name(node);
        let removed =
            self.places.parent(node).and_then(|dir| rustix::fs::unlinkat(&dir, &name[..], AtFlags::empty()));
        if let Err(error) = removed {
            let path = as_path(self.site.plan.tree.path(node)).display().to_string();
            let _ =
                self.events.send(Event::Note(format!("{path}: is not whole and cannot be removed: {error}")));
        }
    }

    /// Makes the further names of files, after all files are written.
    pub fn links(&mut self) {
        // Where the first name failed, another stands in for it.
        let mut stand_ins: HashMap<u32, u32> = HashMap::new();
        let plan = self.site.plan;
        for node in plan.tree.numbers().filter(|n| plan.tree.node(*n).wanted) {
            let Kind::Link { leader, .. } = plan.tree.node(node).kind else { continue };
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
        if !self.site.has_parent(node) {
            return Err(Errno::NOENT); // copying says it better
        }
        let tree = &self.site.plan.tree;
        let (from, to) = (self.places.parent(first)?, self.places.parent(node)?);
        rustix::fs::linkat(&from, tree.name(first), &to, &self.site.first_name(node)[..], AtFlags::empty())?;
        self.site.settle(node, &to)
    }

    fn copy(&mut self, node: u32) {
        let mut queue = Queue::one(self.site.plan, self.site.max_read, node);
        while let Some(task) = queue.next() {
            self.task(&task);
        }
    }
}

fn write(output: &Output, file: &OwnedFd, (offset, data): (u64, &[u8])) -> Result<(), Errno> {
    if holes::write(file, data, offset)? {
        output.holes.store(true, Ordering::Release);
    }
    Ok(())
}

/// Writes what other threads left.
fn drain(output: &Output, file: &OwnedFd, turn: &mut Turn<'_>, source: &Source<'_>) -> Result<(), Errno> {
    while let Some((offset, data)) = turn.next() {
        write(output, file, (offset, &data))?;
        source.spare.lock().push(data);
    }
    Ok(())
}
