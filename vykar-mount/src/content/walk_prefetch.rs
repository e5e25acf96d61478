//! Decodes the files that a walk through a snapshot (`tar`, `cp -r`, `grep -r`) will want next, and puts
//! them into the kernel's page cache, so that reading them costs no request.
//!
//! A walk is recognised by its reads: files in the order of the tree. Files whose pages are there are
//! never asked for, so now and then one is decoded but not stored: its read tells how far the walk is.
//!
//! The kernel takes pages only for files that it knows. A walk lists a directory before it reads the files
//! in it, so the end of a listing is when those that were decoded by then are stored, before anything else.
//!
//! Only the threads of this module store: a page may be locked by a reader who waits for an answer, so a
//! thread that gives answers must not wait for it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::content::chunk_source::Data;
use crate::tree::{NodeId, Tree};
use crate::view::inode::{Inode, View};

/// Larger files have a read-ahead of their own.
const LARGEST: u64 = 1 << 20;
/// Reads in order before anything is done ahead.
const STREAK: u32 = 2;
/// Files decoded ahead at first; doubled while the walk goes on.
const FIRST_WINDOW: u32 = 16;
/// And at most.
const LAST_WINDOW: u32 = 512;
/// Bytes decoded ahead at most.
const WINDOW_BYTES: u64 = 8 << 20;
/// Every so many files, one is left to be asked for.
const SIGNAL_EVERY: u32 = 32;
/// Files passed without a read, by listings alone, before a walk is taken for one that does not read.
const MAX_SILENT: u32 = 8 * SIGNAL_EVERY;
/// Files that may be skipped without ending a walk, beyond those decoded ahead.
const SLACK: u32 = 64;
/// Steps through the tree that finding the next file may take: folders without files are passed.
const MAX_STEPS: u32 = 4096;
/// Walks that are remembered.
const WALKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Puts bytes of a file, from an offset on, into the kernel's page cache, if the kernel knows the file.
pub(crate) type StorePages = Box<dyn Fn(u64, u64, &[u8]) + Send + Sync>;

/// A file to be decoded, and whether it is to be stored.
struct WantedFile {
    tree: Arc<Tree>,
    snapshot: u32,
    node: NodeId,
    store: bool,
}

#[derive(Clone, Copy)]
struct WalkSeen {
    /// The file read last, or the directory listed last.
    last: NodeId,
    /// The last one that was wished for.
    reached: NodeId,
    streak: u32,
    window: u32,
    /// Files between `last` and `reached`.
    ahead: u32,
    /// Files passed since the last read.
    silent: u32,
}

/// Threads that work ahead of walks; they end when this is dropped.
pub(crate) struct WalkPrefetch {
    shared: Arc<WalkShared>,
    threads: Vec<JoinHandle<()>>,
    walks: Mutex<LruCache<u32, WalkSeen>>,
}

struct WalkShared {
    data: Arc<Data>,
    store: OnceLock<StorePages>,
    queue: Mutex<WalkQueue>,
    filled: Condvar,
}

#[derive(Default)]
struct WalkQueue {
    wishes: VecDeque<WantedFile>,
    /// Threads that have taken one and not come back.
    working: usize,
    closed: bool,
}

/// The file behind a node in the order of a walk; `None` at the end, or after too many steps.
fn next_file(tree: &Tree, from: NodeId) -> Option<NodeId> {
    let mut at = from;
    for _ in 0..MAX_STEPS {
        let below = tree.children(at);
        at = if below.is_empty() {
            let mut up = at;
            loop {
                if up == Tree::ROOT {
                    return None;
                }
                let parent = tree.parent(up);
                if up + 1 < tree.children(parent).end {
                    break up + 1;
                }
                up = parent;
            }
        } else {
            below.start
        };
        if !tree.content(at).is_empty() {
            return Some(at);
        }
    }
    None
}

/// How many files behind `from` a file is, at most `max`.
fn distance(tree: &Tree, from: NodeId, to: NodeId, max: u32) -> Option<u32> {
    let mut at = from;
    for steps in 1..=max {
        at = next_file(tree, at)?;
        if at == to {
            return Some(steps);
        }
    }
    None
}

impl WalkPrefetch {
    /// Starts `threads` threads. Nothing is stored before [`WalkPrefetch::set_store`].
    pub(crate) fn new(data: Arc<Data>, threads: usize) -> Self {
        let shared = Arc::new(WalkShared {
            data,
            store: OnceLock::new(),
            queue: Mutex::default(),
            filled: Condvar::new(),
        });
        let start = |n| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("vykar-walk-{n}")).spawn(move || shared.work()).ok()
        };
        let threads = (0..threads).map_while(start).collect();
        WalkPrefetch { shared, threads, walks: Mutex::new(LruCache::new(WALKS)) }
    }

    /// Where decoded files go.
    pub(crate) fn set_store(&self, store: StorePages) {
        let _ = self.shared.store.set(store);
    }

    /// True when all that was wished for is done.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.wishes.is_empty() && queue.working == 0
    }

    /// A file is being read from its begin.
    pub(crate) fn note(&self, snapshot: u32, tree: &Arc<Tree>, node: NodeId) {
        if !self.is_used() {
            return;
        }
        let mut walks = self.walks.lock();
        let Some(walk) = walks.get_mut(&snapshot) else {
            walks.put(snapshot, WalkSeen::from(node));
            return;
        };
        if walk.last == node {
            return;
        }
        let Some(passed) = distance(tree, walk.last, node, walk.ahead + SLACK) else {
            *walk = WalkSeen::from(node);
            return;
        };
        walk.pass(node, passed);
        walk.silent = 0;
        walk.streak += 1;
        if walk.streak >= STREAK {
            let wishes = wishes(walk, snapshot, tree);
            drop(walks);
            self.shared.push(wishes);
        }
    }

    /// A directory was listed to its end: the kernel knows the files in it now.
    pub(crate) fn listed(&self, snapshot: u32, tree: &Arc<Tree>, dir: NodeId) {
        if !self.is_used() {
            return;
        }
        let mut walks = self.walks.lock();
        let Some(walk) = walks.get_mut(&snapshot).filter(|walk| walk.streak >= STREAK) else { return };
        let Some(first) = next_file(tree, dir) else { return };
        // Somebody else's listing has no place in the walk.
        let Some(passed) = distance(tree, walk.last, first, walk.ahead + SLACK) else { return };
        walk.pass(dir, passed - 1);
        walk.silent += passed - 1;
        if walk.silent > MAX_SILENT {
            *walk = WalkSeen::from(dir);
            return;
        }
        let known = known(walk, snapshot, tree, dir);
        let next = wishes(walk, snapshot, tree);
        drop(walks);
        self.shared.push(next);
        self.shared.push_first(known);
    }

    fn is_used(&self) -> bool {
        !self.threads.is_empty() && self.shared.store.get().is_some()
    }
}

impl WalkSeen {
    fn from(node: NodeId) -> Self {
        WalkSeen { last: node, reached: node, streak: 0, window: FIRST_WINDOW, ahead: 0, silent: 0 }
    }

    /// Goes on to a node that has `passed` files before it.
    fn pass(&mut self, node: NodeId, passed: u32) {
        self.last = node;
        if passed > self.ahead {
            (self.reached, self.ahead) = (node, 0);
        } else {
            self.ahead -= passed;
            self.window = (self.window * 2).min(LAST_WINDOW);
        }
    }
}

/// True for a file that is stored: not too large, and not left as a signal.
fn is_stored(walk: &WalkSeen, tree: &Tree, node: NodeId) -> bool {
    let signal = node.is_multiple_of(SIGNAL_EVERY.min(walk.window / 2));
    !signal && size(tree, node) <= LARGEST
}

fn size(tree: &Tree, node: NodeId) -> u64 {
    tree.meta(node).map_or(0, |meta| meta.size)
}

/// Extends a walk's window.
fn wishes(walk: &mut WalkSeen, snapshot: u32, tree: &Arc<Tree>) -> Vec<WantedFile> {
    let (mut wishes, mut bytes) = (Vec::new(), 0);
    while walk.ahead < walk.window && bytes < WINDOW_BYTES {
        let Some(node) = next_file(tree, walk.reached) else { break };
        (walk.reached, walk.ahead) = (node, walk.ahead + 1);
        let size = size(tree, node);
        if size > LARGEST {
            // Its own read is a signal as well.
            continue;
        }
        bytes += size;
        wishes.push(WantedFile { tree: tree.clone(), snapshot, node, store: is_stored(walk, tree, node) });
    }
    wishes
}

/// What has been decoded, or is about to be, of the files in a directory that the kernel has just learned of.
fn known(walk: &WalkSeen, snapshot: u32, tree: &Arc<Tree>, dir: NodeId) -> Vec<WantedFile> {
    let mut at = dir;
    let mut found = Vec::new();
    for _ in 0..walk.ahead {
        let Some(node) = next_file(tree, at) else { break };
        at = node;
        if tree.parent(node) == dir && is_stored(walk, tree, node) {
            found.push(WantedFile { tree: tree.clone(), snapshot, node, store: true });
        }
    }
    found
}

impl WalkShared {
    fn push(&self, wishes: Vec<WantedFile>) {
        if wishes.is_empty() {
            return;
        }
        self.queue.lock().wishes.extend(wishes);
        self.filled.notify_all();
    }

    fn push_first(&self, wishes: Vec<WantedFile>) {
        if wishes.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        wishes.into_iter().rev().for_each(|wish| queue.wishes.push_front(wish));
        drop(queue);
        self.filled.notify_all();
    }

    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return;
            }
            let Some(wish) = queue.wishes.pop_front() else {
                self.filled.wait(&mut queue);
                continue;
            };
            queue.working += 1;
            drop(queue);
            self.fulfil(&wish);
            queue = self.queue.lock();
            queue.working -= 1;
        }
    }

    fn fulfil(&self, wish: &WantedFile) {
        let node = wish.tree.inode(wish.node);
        let ino = Inode::Node { snapshot: wish.snapshot, view: View::Ids, node }.encode();
        let content = wish.tree.content(wish.node);
        for (at, size) in content.chunks() {
            // A failure is reported when somebody reads it.
            let Ok(data) = self.data.chunk(&content.id(at), size) else { return };
            if let Some(store) = self.store.get().filter(|_| wish.store) {
                store(ino, content.range(at).start, &data);
            }
        }
    }
}

impl Drop for WalkPrefetch {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
