//! Decodes the files that a walk through a snapshot (`tar`, `cp -r`, `grep -r`) will want next, and puts
//! them into the kernel's page cache, so that reading them costs no request.
//!
//! A walk is recognised by its reads: files in the order of the tree. Files whose pages are there are
//! never asked for, so now and then one is decoded but not stored: its read tells how far the walk is.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::data::Data;
use crate::inode::{Inode, View};
use crate::tree::{NodeId, Tree};

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
/// Files that may be skipped without ending a walk, beyond those decoded ahead.
const SLACK: u32 = 64;
/// Steps through the tree that finding the next file may take: folders without files are passed.
const MAX_STEPS: u32 = 4096;
/// Walks that are remembered.
const WALKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Puts bytes of a file, from an offset on, into the kernel's page cache.
pub(crate) type Store = Box<dyn Fn(u64, u64, &[u8]) + Send + Sync>;

/// A file to be decoded, and whether it is to be stored.
struct Wish {
    tree: Arc<Tree>,
    snapshot: u32,
    node: NodeId,
    store: bool,
}

#[derive(Clone, Copy)]
struct Walk {
    /// The file read last.
    last: NodeId,
    /// The last one that was wished for.
    reached: NodeId,
    streak: u32,
    window: u32,
    /// Files between `last` and `reached`.
    ahead: u32,
}

/// Threads that work ahead of walks; they end when this is dropped.
pub(crate) struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    walks: Mutex<LruCache<u32, Walk>>,
}

struct Shared {
    data: Arc<Data>,
    store: OnceLock<Store>,
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    wishes: VecDeque<Wish>,
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
        if !tree.pieces(at).is_empty() {
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

impl Ahead {
    /// Starts `threads` threads. Nothing is stored before [`Ahead::set_store`].
    pub(crate) fn new(data: Arc<Data>, threads: usize) -> Self {
        let shared = Arc::new(Shared {
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
        Ahead { shared, threads, walks: Mutex::new(LruCache::new(WALKS)) }
    }

    /// Where decoded files go.
    pub(crate) fn set_store(&self, store: Store) {
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
        if self.threads.is_empty() || self.shared.store.get().is_none() {
            return;
        }
        let mut walks = self.walks.lock();
        let fresh = Walk { last: node, reached: node, streak: 0, window: FIRST_WINDOW, ahead: 0 };
        let Some(walk) = walks.get_mut(&snapshot) else {
            walks.put(snapshot, fresh);
            return;
        };
        if walk.last == node {
            return;
        }
        let Some(passed) = distance(tree, walk.last, node, walk.ahead + SLACK) else {
            *walk = fresh;
            return;
        };
        walk.last = node;
        walk.streak += 1;
        if passed > walk.ahead {
            (walk.reached, walk.ahead) = (node, 0);
        } else {
            walk.ahead -= passed;
            walk.window = (walk.window * 2).min(LAST_WINDOW);
        }
        if walk.streak >= STREAK {
            let wishes = wishes(walk, snapshot, tree);
            drop(walks);
            self.shared.push(wishes);
        }
    }
}

/// Extends a walk's window.
fn wishes(walk: &mut Walk, snapshot: u32, tree: &Arc<Tree>) -> Vec<Wish> {
    let (mut wishes, mut bytes) = (Vec::new(), 0);
    while walk.ahead < walk.window && bytes < WINDOW_BYTES {
        let Some(node) = next_file(tree, walk.reached) else { break };
        (walk.reached, walk.ahead) = (node, walk.ahead + 1);
        let size = tree.meta(node).map_or(0, |meta| meta.size);
        if size > LARGEST {
            // Its own read is a signal as well.
            continue;
        }
        bytes += size;
        let store = !walk.ahead.is_multiple_of(SIGNAL_EVERY.min(walk.window / 2));
        wishes.push(Wish { tree: tree.clone(), snapshot, node, store });
    }
    wishes
}

impl Shared {
    fn push(&self, wishes: Vec<Wish>) {
        if wishes.is_empty() {
            return;
        }
        self.queue.lock().wishes.extend(wishes);
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

    fn fulfil(&self, wish: &Wish) {
        let node = wish.tree.inode(wish.node);
        let ino = Inode::Node { snapshot: wish.snapshot, view: View::Ids, node }.encode();
        let mut start = 0;
        for piece in wish.tree.pieces(wish.node) {
            // A failure is reported when somebody reads it.
            let Ok(data) = self.data.chunk(&piece.id, piece.end.saturating_sub(start)) else { return };
            if let Some(store) = self.store.get().filter(|_| wish.store) {
                store(ino, start, &data);
            }
            start = piece.end;
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
