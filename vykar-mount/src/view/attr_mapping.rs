//! What a mount shows, and how: the choices of whoever mounts.

use vykar_core::SnapshotId;
pub use vykar_core::repository::SnapshotQuery;

use crate::tree::Meta;
use crate::view::template::Template;
use crate::xattr::{ACCESS_LIST, EncodedXattrs};

/// What is shown, and how. The default is everything as it is stored, in the usual folders.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// A folder of one snapshot as the root, in place of all snapshots in folders.
    pub top: Option<Top>,
    /// Which snapshots there are, now and later. Of no meaning beside `top`.
    pub filter: SnapshotQuery,
    /// Folders in place of the usual ones, at most [`crate::view::template::MAX_TEMPLATES`].
    pub templates: Vec<Template>,
    /// Owners and permissions.
    pub look: Look,
    /// What readers get of what cannot be read.
    pub on_damage: OnDamage,
}

/// A folder of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The folder's path in it; empty for all of it. Slashes at its ends and `.` are skipped.
    pub path: Vec<u8>,
}

/// What readers get of what cannot be read of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// An error, for what touches it.
    #[default]
    Error,
    /// Zeros in its place, if it is certain that it is damaged or gone and not just out of reach.
    Zero,
}

/// Owners and permissions in place of the stored ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Owner of everything.
    pub uid: Option<u32>,
    /// Group of everything.
    pub gid: Option<u32>,
    /// Permission bits that are taken away from everything but symlinks.
    pub umask: u16,
}

/// In the value of a `system.posix_acl_access`: the version, 4 bytes, then entries of 8 bytes: a tag,
/// permissions, and whom they are for.
const ACL_HEADER: usize = 4;
/// Tag of the entry for the file's own group.
const ACL_GROUP_OBJ: u16 = 4;

/// Access control lists are attributes of this kind.
pub(crate) const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl Look {
    /// True when something else than what is stored is shown.
    fn differs(self) -> bool {
        self != Look::default()
    }

    /// True when an extended attribute is not shown: an access control list contradicts what is shown in
    /// place of the stored owner and mode.
    pub(crate) fn hides(self, attribute: &[u8]) -> bool {
        self.differs() && attribute.starts_with(ACL_PREFIX)
    }

    /// What is shown of a file with these attributes.
    pub(crate) fn apply<'a>(self, mut meta: Meta, xattrs: impl FnOnce() -> EncodedXattrs<'a>) -> Meta {
        if !self.differs() {
            return meta;
        }
        meta.uid = self.uid.unwrap_or(meta.uid);
        meta.gid = self.gid.unwrap_or(meta.gid);
        if meta.kind() != libc::S_IFLNK {
            if let Some(group) = group_permissions(xattrs()) {
                meta.mode &= !0o070 | group << 3;
            }
            meta.mode &= !(self.umask & 0o777);
        }
        meta
    }
}

/// What an access control list allows the file's own group. The mode holds its mask in that place, which
/// allows too much where the list is not shown.
fn group_permissions(mut xattrs: EncodedXattrs<'_>) -> Option<u16> {
    let (_, list) = xattrs.find(|(name, _)| *name == ACCESS_LIST)?;
    let (entries, _) = list.get(ACL_HEADER..)?.as_chunks::<8>();
    let group = entries.iter().find(|e| u16::from_le_bytes([e[0], e[1]]) == ACL_GROUP_OBJ)?;
    Some(u16::from_le_bytes([group[2], group[3]]) & 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(mode: u32) -> Meta {
        Meta { mtime: 1, atime: 2, ctime: 3, size: 4, uid: 5, gid: 6, mode: mode as u16 }
    }

    #[test]
    fn owners_and_permissions_are_replaced() {
        let none = EncodedXattrs::default;
        assert_eq!(Look::default().apply(meta(0o104_777), none), meta(0o104_777));
        let look = Look { uid: Some(0), gid: None, umask: 0o027 };
        let found = look.apply(meta(0o104_777), none);
        assert_eq!((found.uid, found.gid, found.mode), (0, 6, 0o104_750));
        let found = look.apply(meta(0o120_777), none);
        assert_eq!((found.uid, found.mode), (0, 0o120_777));
    }

    #[test]
    fn a_list_that_is_hidden_leaves_the_group_what_it_has() {
        let entry = |tag: u16, permissions: u16| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &[0xff; 4]].concat()
        };
        let list = [vec![2, 0, 0, 0], entry(1, 6), entry(2, 7), entry(4, 4), entry(16, 7), entry(32, 0)];
        let list = list.concat();
        let name = b"system.posix_acl_access";
        let encoded = [&[name.len() as u8][..], &(list.len() as u32).to_le_bytes(), name, &list].concat();
        let look = Look { uid: Some(1), ..Look::default() };
        assert_eq!(look.apply(meta(0o100_670), || EncodedXattrs(&encoded)).mode, 0o100_640);
        assert_eq!(Look::default().apply(meta(0o100_670), || EncodedXattrs(&encoded)).mode, 0o100_670);
        assert!(look.hides(name) && look.hides(b"system.posix_acl_default") && !look.hides(b"user.x"));
        assert!(!Look::default().hides(name));
        // Damaged ones say nothing.
        for cut in 0..list.len() {
            let short = &list[..cut];
            let encoded = [&[name.len() as u8][..], &(cut as u32).to_le_bytes(), name, short].concat();
            look.apply(meta(0o100_670), || EncodedXattrs(&encoded));
        }
    }
}
