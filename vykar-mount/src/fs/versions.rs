//! The folder of versions: translation between inodes and [`crate::versions`].

use super::{Attr, Child, Fs, LookupEntry, MOMENT, Of, Result, SnapshotNode};
use crate::errno::FsError;
use crate::tree::{Meta, NAME_MAX, NodeId};
use crate::versions::{Member, Rights, VersionsListing, VersionsTimeline, target_hash};
use crate::view::inode::{Inode, ROOT};
use crate::view::layout::Position;
use crate::xattr::EncodedXattrs;

impl Fs {
    /// A node of a section's tree.
    pub(super) fn version(&self, section: u64, node: NodeId) -> Result<SnapshotNode> {
        let (tree, info) = self.versions.section(section)?;
        let meta = *tree.meta(node).ok_or(FsError::Stale)?;
        Ok(SnapshotNode { info, tree, of: Of::Section(section), node, meta })
    }

    /// Attributes of a folder; 0 is `versions` itself. Computes nothing of what it shows.
    pub(super) fn versions_attr(&self, number: u64) -> Result<Attr> {
        let place = self.versions.folder(number)?;
        let layout = self.snapshots.layout();
        let mtime = self.versions.mtime(&layout);
        let rights = self.version_rights(place)?;
        Ok(self.version_folder_attr(number, mtime, rights.as_ref()))
    }

    /// The rights of a folder: none where it is made up, above the versions of a file. That of `versions` itself
    /// reads no items, the others do where there are new snapshots, because those may allow less.
    pub(super) fn version_rights(&self, place: u32) -> Result<Option<Rights>> {
        if place == 0 {
            return Ok(self.versions.top_rights(&self.snapshots.layout(), &self.snapshots));
        }
        let timeline = self.versions.timeline(&self.snapshots)?;
        Ok(self.versions.rights(&timeline, place, None))
    }

    fn version_folder_attr(&self, number: u64, mtime: i64, rights: Option<&Rights>) -> Attr {
        let meta = match rights {
            None => self.layout_meta(libc::S_IFDIR | 0o555, mtime, 0),
            Some(rights) => {
                let mode = libc::S_IFDIR as u16 | rights.mode;
                let (uid, gid) = (rights.uid, rights.gid);
                let meta = Meta { mtime, atime: mtime, ctime: mtime, size: 0, uid, gid, mode };
                self.shown.look.apply(meta, || EncodedXattrs(&rights.list))
            }
        };
        // How many folders it has is not known without looking.
        Attr { ino: Inode::Folder(number).encode(), meta, blocks: 0, nlink: 1 }
    }

    /// Attributes and target of a `latest`, if it still points there.
    pub(super) fn latest_version(&self, place: u32, target: u32) -> Result<(Attr, Vec<u8>)> {
        let timeline = self.versions.timeline(&self.snapshots)?;
        let listing = self.versions.list(&timeline, place)?;
        let now = listing.target().filter(|now| target_hash(now) == target).ok_or(FsError::Stale)?;
        let attr = self.member_attr(&timeline, &listing, (b"", Member::Latest(now)))?;
        Ok((attr, now.to_vec()))
    }

    fn member_attr(
        &self,
        timeline: &VersionsTimeline,
        listing: &VersionsListing,
        of: (&[u8], Member<'_>),
    ) -> Result<Attr> {
        match of {
            (name, Member::Folder) => {
                let number = self.versions.folder_below(listing.place, name)?;
                let rights = self.versions.rights(timeline, listing.place, Some(name));
                Ok(self.version_folder_attr(number, timeline.mtime, rights.as_ref()))
            }
            (_, Member::Version(section, node)) => {
                let place = self.version(self.versions.section_number(section), node)?;
                Ok(self.node_attr(&place, node))
            }
            (_, Member::Latest(target)) => {
                let meta = self.layout_meta(libc::S_IFLNK | 0o777, timeline.mtime, target.len() as u64);
                let inode = Inode::Latest { place: listing.place, target: target_hash(target) };
                Ok(Attr { ino: inode.encode(), meta, blocks: 0, nlink: 1 })
            }
        }
    }

    /// The folder that a folder is in.
    fn above_versions(&self, place: u32) -> u64 {
        let above = self.versions.above(place);
        above.map_or(ROOT, |above| Inode::Folder(self.versions.folder_number(above)).encode())
    }

    pub(super) fn lookup_version(&self, folder: u64, name: &[u8]) -> Result<LookupEntry> {
        let place = self.versions.folder(folder)?;
        let attr = match name {
            b"." => self.versions_attr(folder)?,
            b".." => self.getattr(self.above_versions(place))?.0,
            name if name.len() > NAME_MAX => return Err(FsError::NameTooLong),
            name => {
                let timeline = self.versions.timeline(&self.snapshots)?;
                let listing = self.versions.list(&timeline, place)?;
                let nothing = if listing.is_partial { FsError::Damaged } else { FsError::NotFound };
                let member = listing.find(name).ok_or(nothing)?;
                self.member_attr(&timeline, &listing, (name, member))?
            }
        };
        Ok(LookupEntry::Found(attr, MOMENT))
    }

    pub(super) fn list_versions(
        &self,
        folder: u64,
        offset: u64,
        emit: &mut dyn FnMut(Child<'_>, u64) -> bool,
    ) -> Result<()> {
        let place = self.versions.folder(folder)?;
        let position = Position::decode(offset);
        let timeline = match position.at {
            0 => self.versions.timeline(&self.snapshots)?,
            _ => self.versions.earlier_timeline(position.generation, &self.snapshots)?,
        };
        let listing = self.versions.list(&timeline, place)?;
        let own = self.version_folder_attr(folder, timeline.mtime, self.version_rights(place)?.as_ref());
        for at in position.at.. {
            let (name, attr) = match at {
                0 => (&b"."[..], Ok(own)),
                1 => (&b".."[..], Ok(Attr { ino: self.above_versions(place), ..own })),
                at => {
                    let Some(member) = listing.get(at as usize - 2) else {
                        // What is shown is right, and not all: the listing fails where it would end.
                        let at_end = at == position.at && listing.is_partial;
                        return if at_end { Err(FsError::Damaged) } else { Ok(()) };
                    };
                    (member.0, self.member_attr(&timeline, &listing, member))
                }
            };
            let attr = match attr {
                Ok(attr) => attr,
                // The listing goes on here, and fails if that cannot be read then either.
                Err(_) if at > position.at => break,
                Err(e) => return Err(e),
            };
            let next = Position { generation: timeline.serial, at: at.saturating_add(1) }.encode();
            if emit(Child { name, attr, ttl: MOMENT }, next) {
                break;
            }
        }
        Ok(())
    }
}
