//! What is known of an item at one time, small enough to be kept and compared.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use crate::format::{Item, ItemType};

/// What can differ between two states of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// File, directory or symlink.
    Type,
    /// A file's bytes, as its chunks tell.
    Content,
    /// Permission bits.
    Mode,
    /// Owner or group, by number or by name.
    Owner,
    /// Modification time.
    Mtime,
    /// A symlink's target.
    Target,
    /// Extended attributes, ACLs among them.
    Xattrs,
    /// The file of which this is another name.
    Hardlink,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aspect::Type => "type",
            Aspect::Content => "content",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Mtime => "mtime",
            Aspect::Target => "target",
            Aspect::Xattrs => "xattrs",
            Aspect::Hardlink => "hardlink",
        })
    }
}

/// The state of a path in a snapshot. Times of access and change are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    /// What it is.
    pub kind: ItemType,
    /// Bytes of a file's content; 0 for what is no file.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    mode: u32,
    owner: (u32, u32, u128),
    content: u128,
    target: u128,
    xattrs: u128,
    /// Digest of the path that this is another name of; 0 for none.
    hardlink: u128,
}

impl Facts {
    /// Of an item that is another name of what has the path with the digest `hardlink`, or of nothing where that is 0.
    pub(super) fn of(item: &Item<'_>, hardlink: u128, digester: &Digester) -> Self {
        // Empty pieces of a file say nothing.
        let chunks = item.chunks.iter().filter(|chunk| chunk.size > 0).map(|chunk| chunk.id);
        let mut xattrs: Vec<_> = item.xattrs.iter().flatten().collect();
        xattrs.sort_unstable();
        Facts {
            kind: item.kind,
            size: if item.kind == ItemType::RegularFile { item.size } else { 0 },
            mtime: item.mtime,
            mode: item.permissions(),
            owner: (item.uid, item.gid, digester.of(&(&item.user, &item.group))),
            // The number of a device is what is in it.
            content: if item.rdev == 0 { digester.of_all(chunks) } else { digester.of(&item.rdev) },
            target: digester.of(&item.target_bytes()),
            xattrs: digester.of(&xattrs),
            hardlink,
        }
    }

    /// In what another state differs. Of another type everything else does, and is not named.
    pub fn differences(&self, other: &Facts) -> Vec<Aspect> {
        if self.kind != other.kind {
            return vec![Aspect::Type];
        }
        let aspects = [
            (Aspect::Content, self.content != other.content || self.size != other.size),
            (Aspect::Mode, self.mode != other.mode),
            (Aspect::Owner, self.owner != other.owner),
            (Aspect::Mtime, self.mtime != other.mtime),
            (Aspect::Target, self.target != other.target),
            (Aspect::Xattrs, self.xattrs != other.xattrs),
            (Aspect::Hardlink, self.hardlink != other.hardlink),
        ];
        aspects.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect).collect()
    }
}

/// Makes digests that mean something within one operation: of 128 bits, under random keys.
#[derive(Debug, Default)]
pub(super) struct Digester(RandomState, RandomState);

impl Digester {
    /// Of one value.
    pub fn of(&self, value: &impl Hash) -> u128 {
        self.of_all([value])
    }

    /// Of several values, one after another.
    pub fn of_all<T: Hash>(&self, values: impl IntoIterator<Item = T>) -> u128 {
        let (mut high, mut low) = (self.0.build_hasher(), self.1.build_hasher());
        for value in values {
            value.hash(&mut high);
            value.hash(&mut low);
        }
        u128::from(high.finish()) << 64 | u128::from(low.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ChunkRef;
    use crate::id::ChunkId;

    fn file(ids: &[u8]) -> Item<'static> {
        let chunk = |n: &u8| ChunkRef { id: ChunkId([*n; 32]), size: 10, stored_size: 5 };
        let chunks: Vec<_> = ids.iter().map(chunk).collect();
        Item { size: 10 * chunks.len() as u64, chunks, ..Item::new("f", ItemType::RegularFile) }
    }

    #[test]
    fn every_aspect_is_told_from_the_others() {
        let digester = Digester::default();
        let facts = |item: &Item<'_>| Facts::of(item, 0, &digester);
        let base = file(&[1, 2]);
        let differences = |item: Item<'_>| facts(&base).differences(&facts(&item));
        let xattr = |name: &'static str| (name.into(), (&b"1"[..]).into());
        assert_eq!(differences(file(&[2, 1])), [Aspect::Content]);
        assert_eq!(differences(file(&[1])), [Aspect::Content]);
        assert_eq!(differences(Item { mode: 0o4000, ..base.clone() }), [Aspect::Mode]);
        assert_eq!(differences(Item { mode: 0, ..base.clone() }), [], "some writers give no type bits");
        assert_eq!(differences(Item { gid: 1, ..base.clone() }), [Aspect::Owner]);
        assert_eq!(differences(Item { user: Some("ada".into()), ..base.clone() }), [Aspect::Owner]);
        assert_eq!(differences(Item { mtime: -1, ..base.clone() }), [Aspect::Mtime]);
        assert_eq!(differences(Item { xattrs: Some(vec![xattr("a")]), ..base.clone() }), [Aspect::Xattrs]);
        assert_eq!(differences(Item { xattrs: Some(vec![]), ..base.clone() }), []);
        let unseen = Item { atime: Some(1), ctime: Some(2), hardlink: Some((3, 4)), ..base.clone() };
        assert_eq!(differences(unseen), []);
        assert_eq!(differences(Item::new("f", ItemType::Directory)), [Aspect::Type]);
        assert_eq!(facts(&base).differences(&Facts::of(&base, 7, &digester)), [Aspect::Hardlink]);
        let link = |target: &'static str| Item {
            link_target: Some(target.into()),
            ..Item::new("l", ItemType::Symlink)
        };
        assert_eq!(facts(&link("a")).differences(&facts(&link("b"))), [Aspect::Target]);
        let both =
            |order: [&'static str; 2]| Item { xattrs: Some(order.map(xattr).to_vec()), ..base.clone() };
        assert_eq!(facts(&both(["a", "b"])), facts(&both(["b", "a"])), "their order means nothing");
    }
}
