//! What `stat` says.

use super::{Attr, Fs, Of, Result, SnapshotNode};
use crate::errno::FsError;
use crate::tree::{Meta, NodeId, Tree};
use crate::view::inode::{Inode, ROOT, View};
use crate::view::layout::{Layout, LayoutFolder, LayoutTarget};
use crate::view::snapshots::Info;
use crate::xattr::EncodedXattrs;

/// The link count of a directory whose subdirectories are not counted: programs that would save looks by the
/// count know this one, because some file systems count none. It stays when the items are known, since a count
/// that changes would be worth less.
const NOT_COUNTED: u32 = 1;

impl Fs {
    /// The inode of the directory that holds a directory.
    pub(super) fn above(&self, place: &SnapshotNode) -> u64 {
        // Only folders are asked for what is above them, and a section shows none.
        let Of::Snapshot(view) = place.of else { return ROOT };
        let snapshot = place.info.listed.number;
        match place.node {
            node if self.top.as_ref().is_some_and(|top| top.is(snapshot, node)) => ROOT,
            Tree::ROOT => Inode::Layout(self.snapshots.layout().home(snapshot, view)).encode(),
            node => self.encode(snapshot, view, place.tree.parent(node)),
        }
    }

    /// Attributes of a node of the same tree and view.
    pub(super) fn node_attr(&self, place: &SnapshotNode, node: NodeId) -> Attr {
        let (tree, info) = (&place.tree, &place.info);
        // Names of one file show that file's attributes.
        let node = tree.inode(node);
        let ino = match place.of {
            Of::Snapshot(view) if node == Tree::ROOT => return self.root_attr(info, view),
            Of::Snapshot(view) => {
                let is_dir = tree.meta(node).is_some_and(Meta::is_dir);
                self.encode(info.listed.number, if is_dir { view } else { View::Ids }, node)
            }
            Of::Section(section) => Inode::Version { section, node }.encode(),
        };
        let meta =
            self.shown.look.apply(tree.meta(node).copied().unwrap_or(place.meta), || tree.xattrs(node));
        let blocks = self.zeros.allocated(tree.content(node), info.largest_chunk).div_ceil(512);
        Attr { ino, meta, blocks, nlink: tree.nlink(node) }
    }

    pub(super) fn target_attr(&self, layout: &Layout, target: LayoutTarget) -> Result<Attr> {
        match target {
            LayoutTarget::Folder(number) => Ok(self.folder_attr(number, self.folder(layout, number)?)),
            LayoutTarget::Snapshot(number, view) => {
                let info = self.snapshots.get(number).ok_or(FsError::Stale)?;
                Ok(self.root_attr(&info, view))
            }
            LayoutTarget::Latest(number) => self.latest_attr(layout, number),
            LayoutTarget::Versions => self.versions_attr(0),
        }
    }

    pub(super) fn folder_attr(&self, number: u32, folder: &LayoutFolder) -> Attr {
        let meta = self.layout_meta(libc::S_IFDIR | 0o555, folder.mtime, 0);
        let nlink = u32::try_from(folder.subdirectories()).unwrap_or(u32::MAX).saturating_add(2);
        Attr { ino: Inode::Layout(number).encode(), meta, blocks: 0, nlink }
    }

    pub(super) fn latest_attr(&self, layout: &Layout, number: u32) -> Result<Attr> {
        let (folder, target) = self.snapshots.latest(number).ok_or(FsError::Stale)?;
        let time = layout.folder(folder).map_or(0, |folder| folder.mtime);
        let meta = self.layout_meta(libc::S_IFLNK | 0o777, time, target.len() as u64);
        Ok(Attr { ino: Inode::Layout(number).encode(), meta, blocks: 0, nlink: 1 })
    }

    pub(super) fn layout_meta(&self, mode: u32, time: i64, size: u64) -> Meta {
        let (uid, gid) = self.snapshots.owner;
        let meta = Meta { mtime: time, atime: time, ctime: time, size, uid, gid, mode: mode as u16 };
        self.shown.look.apply(meta, EncodedXattrs::default)
    }

    /// Attributes of a snapshot's top directory, which are known without its items.
    pub(super) fn root_attr(&self, info: &Info, view: View) -> Attr {
        let ino = self.encode(info.listed.number, view, Tree::ROOT);
        let meta = self.shown.look.apply(info.root, || EncodedXattrs(&info.root_xattrs));
        Attr { ino, meta, blocks: 0, nlink: NOT_COUNTED }
    }
}
