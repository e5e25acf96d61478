//! Items that outlive the stream they were read from.

use std::borrow::Cow;

use crate::format::Item;
use crate::format::item::RawNames;

fn text(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn bytes(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
    Cow::Owned(bytes.into_owned())
}

/// The same item, borrowing nothing.
pub fn owned(item: Item<'_>) -> Item<'static> {
    let raw = |raw: RawNames<'_>| RawNames { path: raw.path.map(bytes), target: raw.target.map(bytes) };
    let xattr = |(name, value): (Cow<'_, str>, Cow<'_, [u8]>)| (text(name), bytes(value));
    Item {
        path: text(item.path),
        user: item.user.map(text),
        group: item.group.map(text),
        link_target: item.link_target.map(text),
        xattrs: item.xattrs.map(|list| list.into_iter().map(xattr).collect()),
        raw_names: item.raw_names.map(raw),
        chunks: item.chunks,
        kind: item.kind,
        mode: item.mode,
        uid: item.uid,
        gid: item.gid,
        mtime: item.mtime,
        atime: item.atime,
        ctime: item.ctime,
        size: item.size,
        hardlink: item.hardlink,
        rdev: item.rdev,
    }
}
