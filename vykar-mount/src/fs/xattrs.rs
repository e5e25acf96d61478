//! Extended attributes, and what may be executed.

use super::{Fs, Result};
use crate::errno::FsError;
use crate::session::caller::TRUSTED;
use crate::tree::Tree;
use crate::view::inode::Inode;
use crate::xattr::EncodedXattrs;

impl Fs {
    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        self.with_xattrs(ino, |mut xattrs| {
            let found = xattrs.find(|(known, _)| *known == name && !self.shown.look.hides(name));
            found.map(|(_, value)| value.to_vec()).ok_or(FsError::NoAttribute)
        })
    }

    /// The names of all extended attributes that the caller may read, each followed by NUL. `trusted` says whether
    /// those of that kind are among them, and is asked only where there are any: a program that is shown a name and
    /// gets no value for it takes that for an error.
    pub fn listxattr(&self, ino: u64, trusted: impl Fn() -> bool) -> Result<Vec<u8>> {
        let hidden = |name: &[u8]| self.shown.look.hides(name) || name.starts_with(TRUSTED) && !trusted();
        self.with_xattrs(ino, |xattrs| {
            let mut names = Vec::new();
            for (name, _) in xattrs.filter(|(name, _)| !hidden(name)) {
                names.extend_from_slice(name);
                names.push(0);
            }
            Ok(names)
        })
    }

    /// Whether a program may be run that nobody but who mounted may look at: the kernel asks for that alone.
    pub fn may_execute(&self, ino: u64) -> Result<bool> {
        let meta = self.getattr(ino)?.0.meta;
        Ok(meta.kind() != libc::S_IFREG || meta.mode & 0o111 != 0)
    }

    fn with_xattrs<T>(&self, ino: u64, f: impl FnOnce(EncodedXattrs<'_>) -> Result<T>) -> Result<T> {
        match self.decode(ino)? {
            Inode::Node { snapshot, node: Tree::ROOT, .. } => {
                f(EncodedXattrs(&self.snapshots.get(snapshot).ok_or(FsError::Stale)?.root_xattrs))
            }
            Inode::Folder(number) => {
                let rights = self.version_rights(self.versions.folder(number)?)?;
                f(EncodedXattrs(rights.as_ref().map_or(&[], |rights| &rights.list)))
            }
            inode => match self.node(inode)? {
                Some(place) => f(place.tree.xattrs(place.node)),
                None => f(EncodedXattrs::default()),
            },
        }
    }
}
