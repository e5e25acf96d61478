//! Items that outlive the stream they were read from.

use std::borrow::Cow;

use super::Item;
use super::item::RawNames;

fn text(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn bytes(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
    Cow::Owned(bytes.into_owned())
}

impl Item<'_> {
    /// The same item, borrowing nothing.
    pub fn into_owned(self) -> Item<'static> {
        let raw = |raw: RawNames<'_>| RawNames { path: raw.path.map(bytes), target: raw.target.map(bytes) };
        let xattr = |(name, value): (Cow<'_, str>, Cow<'_, [u8]>)| (text(name), bytes(value));
        Item {
            path: text(self.path),
            user: self.user.map(text),
            group: self.group.map(text),
            link_target: self.link_target.map(text),
            xattrs: self.xattrs.map(|list| list.into_iter().map(xattr).collect()),
            raw_names: self.raw_names.map(raw),
            chunks: self.chunks,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            size: self.size,
            hardlink: self.hardlink,
            rdev: self.rdev,
            link_group: self.link_group,
        }
    }
}
