//! What all threads of a restore share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::apply;
use super::apply::{Applier, ObjectOrigin};
use super::clock::Clocks;
use super::existing::Overwrite;
use super::fetch::ChunkOrigin;
use super::handle::{FileIdentity, Handle};
use super::metadata::Metadata;
use super::place::{Dir, Identities, Places};
use super::plan::RestorePlan;
use super::settle;
use super::tree::ROOT;

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
    /// A directory that another restore made and did not finish.
    pub const RESUMED: u8 = 6;
}

/// What all threads share.
pub(super) struct Site<'a> {
    pub plan: &'a RestorePlan,
    pub source: &'a ChunkOrigin<'a>,
    pub root: Dir,
    /// Owner and group of what this process makes, but in directories that give it their own group.
    pub me: (u32, u32),
    pub applier: Applier,
    pub clocks: Clocks,
    /// What directories and files with several names are, once they are made.
    pub made: Identities,
    /// Files that have other names.
    pub leaders: HashSet<u32>,
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
    /// What becomes of what is there.
    pub overwrite: Overwrite,
    /// Directories go with all that is in them where something else is to be.
    pub delete_conflicting: bool,
    /// The repository and the caches: nothing is put into them.
    pub own_places: Vec<FileIdentity>,
    /// The file system has no files without a name, or the process cannot give them one.
    pub no_unnamed: AtomicBool,
    /// Part of the names of what is not complete.
    nonce: u64,
    pub fatal: Mutex<Option<Errno>>,
}

impl<'a> Site<'a> {
    pub fn new(plan: &'a RestorePlan, source: &'a ChunkOrigin<'a>, root: Dir, max_read: u64) -> Self {
        let nonce = crate::crypto::random().map_or(0, u64::from_le_bytes);
        let states: Vec<AtomicU8> = (0..plan.tree.len()).map(|_| AtomicU8::new(state::NONE)).collect();
        states[ROOT as usize].store(state::EXISTED, Ordering::Relaxed);
        let leaders = plan.tree.numbers().filter_map(|node| plan.leader(node)).collect();
        Site {
            plan,
            source,
            root,
            me: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            applier: Applier::default(),
            clocks: Clocks::default(),
            made: Identities::default(),
            leaders,
            states,
            max_read,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            current: AtomicU32::new(ROOT),
            hardlinks: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            verify: false,
            overwrite: Overwrite::Never,
            delete_conflicting: false,
            own_places: Vec::new(),
            no_unnamed: AtomicBool::new(!std::path::Path::new("/proc/self/fd").exists()),
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

    /// Directories by handle, each of them the one that was made, if it was.
    pub fn places(&self) -> Places<'_> {
        Places::new(&self.plan.tree, self.root.clone()).knowing(&self.made)
    }

    /// A name for a node that is not complete yet.
    pub fn temporary(&self, node: u32) -> Vec<u8> {
        settle::temporary(self.nonce, node)
    }

    /// Gives what has a node's temporary name its own one.
    pub fn settle(&self, node: u32, dir: &Dir, temporary: &[u8]) -> Result<(), Errno> {
        let name = self.plan.tree.name(node);
        match self.state(node) {
            state::REPLACE => {
                settle::take_over(dir, temporary, name, self.delete_conflicting, &self.own_places)
            }
            _ => settle::take_free(dir, temporary, name),
        }
    }

    /// Sets a node's metadata; says what could not be set, and with [`Site::verify`] what is not as it should be.
    pub fn dress(&self, handle: &Handle<'_>, metadata: &Metadata, origin: ObjectOrigin) -> Option<String> {
        let missing = self.applier.apply(handle, metadata, origin);
        if missing.is_some() || !self.verify {
            return missing;
        }
        match self.unlike(handle, metadata) {
            Ok(unlike) if unlike.is_empty() => None,
            Ok(unlike) => Some(format!("not as in the snapshot: {}", unlike.join(", "))),
            Err(error) => Some(format!("it cannot be looked at again: {error}")),
        }
    }

    /// What of the metadata is not as in the snapshot, as far as this process could set it.
    pub fn unlike(&self, handle: &Handle<'_>, metadata: &Metadata) -> Result<Vec<String>, Errno> {
        apply::unlike(handle, metadata, self.me.0 == 0)
    }

    /// True for what has several names.
    pub fn is_linked(&self, node: u32) -> bool {
        self.leaders.contains(&node) || self.plan.leader(node).is_some()
    }

    /// True when a directory may have something in it from before.
    pub fn is_old(&self, node: u32) -> bool {
        matches!(self.state(node), state::EXISTED | state::RESUMED)
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
