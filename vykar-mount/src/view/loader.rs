//! Reads a snapshot's items into a tree.

use std::sync::Arc;

use vykar_core::format::Snapshot;
use vykar_core::repository::Repository;
use vykar_core::repository::objects::manifest::read_snapshot;
use vykar_core::repository::read::items::{FoundItem, Loss, for_each_item};
use vykar_core::{StorageError, VykarError};

use crate::content::chunk_source::Data;
use crate::errno::FsError;
use crate::log::{Limiter, Log, LogLine};
use crate::tree::{BuildError, Builder, Meta, Tree};
use crate::view::names::fnv1a;
use crate::view::snapshots::{Info, made_up};

/// Most items whose loss is logged one by one.
const MAX_LINES: u64 = 20;

/// Loads the tree of a snapshot.
pub(crate) struct Loader<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) data: &'a Data,
    pub(crate) owner: (u32, u32),
    pub(crate) log: &'a Log,
    pub(crate) limiter: &'a Limiter,
}

struct Loaded {
    tree: Tree,
    lost: Option<Loss>,
    lines: Vec<LogLine>,
}

impl Loader<'_> {
    /// Reads the snapshot's object and its items. What is damaged or gone for certain is logged and left out, and the tree
    /// is then one that was cut ([`Tree::is_cut`]).
    ///
    /// # Errors
    /// [`FsError::Io`] when anything cannot be read that may be readable later, [`FsError::Stale`] when the snapshot was
    /// deleted.
    pub(crate) fn load(&self, info: &Info) -> Result<Arc<Tree>, FsError> {
        let snapshot = match read_snapshot(self.repository, &info.listed.id) {
            Err(VykarError::Storage(StorageError::NotFound { .. })) => {
                return Err(match self.repository.check_deleted(&info.listed.id) {
                    Ok(()) => FsError::Stale,
                    Err(away) => self.failed(info, away.to_string()),
                });
            }
            other => other.map_err(|e| self.failed(info, e.to_string()))?,
        };
        let mut loaded = self.build(info, &snapshot)?;
        let key = [b"items", &info.listed.id.as_bytes()[..]].concat();
        if !loaded.lines.is_empty() && self.limiter.allows(fnv1a(&key)) {
            loaded.lines.into_iter().for_each(|line| (self.log)(line));
        }
        if let Some(Loss { reason, may_come_back }) = loaded.lost {
            let error = self.failed(info, reason);
            if may_come_back {
                return Err(error);
            }
            loaded.tree.cut();
        }
        Ok(Arc::new(loaded.tree))
    }

    fn failed(&self, info: &Info, reason: String) -> FsError {
        let line = LogLine::ItemsLost { snapshot: info.listed.name.clone(), reason };
        if self.limiter.allows(fnv1a(line.to_string().as_bytes())) {
            (self.log)(line);
        }
        FsError::Io
    }

    fn build(&self, info: &Info, snapshot: &Snapshot) -> Result<Loaded, FsError> {
        let name = &info.listed.name;
        let too_large = |e: BuildError| self.failed(info, e.to_string());
        let (lines, left_out) = (std::cell::RefCell::new(Vec::new()), std::cell::Cell::new(0));
        let mut lost = None;
        let leave_out = |path: &[u8], reason: &str| {
            left_out.set(left_out.get() + 1);
            if left_out.get() <= MAX_LINES {
                let (snapshot, path, reason) = (name.clone(), path.to_vec(), reason.to_owned());
                lines.borrow_mut().push(LogLine::ItemLeftOut { snapshot, path, reason });
            }
        };
        let mut report = leave_out;
        // A directory without an item lets nobody else in, as after a restore: nobody knows whom it let in.
        let made_up = made_up(self.owner, crate::view::layout::nanos(snapshot.time));
        let made_up = Meta { mode: (libc::S_IFDIR | 0o700) as u16, ..made_up };
        let reader = self.data.reader().map_err(|e| self.failed(info, e.to_string()))?;
        let mut builder = Builder::new(info.root, made_up, reader.index(), &mut report);
        builder.expect(expected_items(snapshot));
        let mut error = None;
        let read = for_each_item(self.data, snapshot, &mut |found| {
            match found {
                FoundItem::Item(item) => error = builder.add(&item).err(),
                FoundItem::Problem(problem) => leave_out(problem.path().as_bytes(), &problem.to_string()),
                FoundItem::Lost(loss) => lost = Some(loss),
            }
            Ok(error.is_none())
        });
        read.map_err(|e| self.failed(info, e.to_string()))?;
        if let Some(error) = error {
            return Err(too_large(error));
        }
        let tree = builder.finish().map_err(too_large)?;
        if left_out.get() > MAX_LINES {
            let reason = format!("{} more items are left out", left_out.get() - MAX_LINES);
            lines.borrow_mut().push(LogLine::ItemsLost { snapshot: name.clone(), reason });
        }
        Ok(Loaded { tree, lost, lines: lines.into_inner() })
    }
}

/// Items to make room for. The snapshot's counter leaves out directories and may say anything, so no more than
/// its item stream can hold.
fn expected_items(snapshot: &Snapshot) -> usize {
    /// Chunks of item streams are about this large, in bytes, and an item is hardly shorter than this.
    const CHUNK: usize = 128 << 10;
    const ITEM: usize = 64;
    /// A stream may name one chunk a million times, so what is said about more items than this must come true
    /// before there is room for them.
    const MOST: usize = 4 << 20;
    let most = snapshot.meta.item_ptrs.len().saturating_mul(CHUNK / ITEM);
    let files = usize::try_from(snapshot.meta.stats.nfiles).unwrap_or(usize::MAX);
    files.saturating_add(files / 8).min(most).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::meta;
    use vykar_core::SnapshotId;

    #[test]
    fn room_is_made_for_no_more_than_can_be_paid_for() {
        let mut meta = meta("one", "h", "l", "2026-01-02T03:04:05Z");
        let expected = |meta: &vykar_core::format::SnapshotMeta| {
            expected_items(&Snapshot::new(SnapshotId([1; 32]), meta.clone()).unwrap())
        };
        meta.stats.nfiles = 800;
        assert_eq!(expected(&meta), 0, "no items without a stream");
        meta.item_ptrs = vec![vykar_core::ChunkId([7; 32])];
        assert_eq!(expected(&meta), 900);
        meta.stats.nfiles = u64::MAX;
        assert_eq!(expected(&meta), 2048);
        meta.item_ptrs = vec![vykar_core::ChunkId([7; 32]); 1 << 20];
        assert_eq!(expected(&meta), 4 << 20);
    }
}
