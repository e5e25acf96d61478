//! Who may enter and list a directory, over several snapshots.
//!
//! A folder of `versions` stands for the directories of one path in all snapshots. Where these have the same
//! rights, as they mostly do, the folder has them too. Where they differ, it has no more than each of them
//! gives, so that nobody reaches a version that the snapshot it comes from keeps from them.

use std::collections::HashMap;

use vykar_core::format::Item;

use crate::tree::Meta;
use crate::xattr::{ACCESS_LIST, EncodedXattrs, encode_one};

/// Of no directory.
pub(super) const NO_RIGHTS: u32 = u32::MAX;

/// The bits of a mode that are not its type.
const MODE: u16 = 0o7777;
/// In an access control list: a header of 4 bytes, then entries of 8 that begin with a tag and permissions.
const LIST_HEADER: usize = 4;
/// Tag of the owner's entry, which the mode repeats.
const LIST_OWNER: u16 = 1;

/// Owner, group, mode and access control list of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rights {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Without the type.
    pub(crate) mode: u16,
    /// The list as an attribute, see [`crate::xattr`]; empty where there is none.
    pub(crate) list: Box<[u8]>,
}

impl Rights {
    pub(super) fn of_item(item: &Item<'_>) -> Self {
        let lists = item.xattrs.iter().flatten().filter(|(name, _)| name.as_bytes() == ACCESS_LIST);
        let list = lists.map(|(_, value)| encode_one(ACCESS_LIST, value)).next();
        let list = list.unwrap_or_default().into();
        Rights { uid: item.uid, gid: item.gid, mode: item.permissions() as u16 & MODE, list }
    }

    pub(super) fn of(meta: &Meta, mut xattrs: EncodedXattrs<'_>) -> Self {
        let list = xattrs.find(|(name, _)| *name == ACCESS_LIST);
        let list = list.map(|(name, value)| encode_one(name, value)).unwrap_or_default().into();
        Rights { uid: meta.uid, gid: meta.gid, mode: meta.mode & MODE, list }
    }

    /// What a class of users may do: 6 for the owner, 3 for the group (or the list's mask), 0 for others.
    fn class(&self, shift: u16) -> u16 {
        self.mode >> shift & 7
    }

    /// What everybody but the owner may do, whatever groups and lists they are in.
    fn of_all_others(&self) -> u16 {
        let mut may = self.class(3) & self.class(0);
        for (_, value) in EncodedXattrs(&self.list) {
            let (entries, _) = value.get(LIST_HEADER..).unwrap_or_default().as_chunks::<8>();
            let field = |entry: &[u8; 8], at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            let others = entries.iter().filter(|entry| field(entry, 0) != LIST_OWNER);
            may = others.fold(may, |may, entry| may & field(entry, 2));
        }
        may
    }

    /// Rights that allow nobody what either keeps from them. Owner and group are ours.
    fn meet(&self, other: &Rights) -> Rights {
        if self == other {
            return self.clone();
        }
        let same_owner = self.uid == other.uid;
        let plain = self.list.is_empty() && other.list.is_empty();
        let bits = if same_owner && self.gid == other.gid && plain {
            self.mode & other.mode & 0o777
        } else {
            // Who is what there is not known, but for the owner.
            let theirs = other.of_all_others() & if same_owner { 7 } else { other.class(6) };
            let owner = self.class(6) & if same_owner { other.class(6) } else { theirs };
            let (group, others) = match self.list.is_empty() {
                true => (self.class(3), self.class(0)),
                false => (self.of_all_others(), self.of_all_others()),
            };
            owner << 6 | (group & theirs) << 3 | others & theirs
        };
        Rights { mode: self.mode & !0o777 | bits, list: Box::default(), ..*self }
    }
}

/// Rights by number: there are few, and many directories.
#[derive(Debug, Clone, Default)]
pub(super) struct RightsTable {
    all: Vec<Rights>,
    numbers: HashMap<Rights, u32>,
    met: HashMap<(u32, u32), u32>,
}

impl RightsTable {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Rights> {
        self.all.get(number as usize)
    }

    /// The number of these rights; [`NO_RIGHTS`] when there is no room.
    pub(super) fn add(&mut self, rights: Rights) -> u32 {
        if let Some(number) = self.numbers.get(&rights) {
            return *number;
        }
        let Some(number) = u32::try_from(self.all.len()).ok().filter(|n| *n != NO_RIGHTS) else {
            return NO_RIGHTS;
        };
        self.numbers.insert(rights.clone(), number);
        self.all.push(rights);
        number
    }

    /// The number of what both allow.
    pub(super) fn meet(&mut self, newer: u32, older: u32) -> u32 {
        if newer == older {
            return newer;
        }
        if let Some(known) = self.met.get(&(newer, older)) {
            return *known;
        }
        let met = match (self.get(newer), self.get(older)) {
            (Some(newer), Some(older)) => newer.meet(older),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => return NO_RIGHTS,
        };
        let number = self.add(met);
        self.met.insert((newer, older), number);
        number
    }
}

/// What all of these allow, the newest first; its owner and group are the newest's.
pub(super) fn meet_all(all: impl Iterator<Item = Rights>) -> Option<Rights> {
    all.reduce(|newer, older| newer.meet(&older))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tags of a list's entries.
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 16;

    fn rights((uid, gid, mode): (u32, u32, u16), entries: &[(u16, u32, u16)]) -> Rights {
        let mut list = Vec::new();
        if !entries.is_empty() {
            let entry = |(tag, id, may): &(u16, u32, u16)| {
                [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
            };
            list = encode_one(
                ACCESS_LIST,
                &[vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat(),
            );
        }
        Rights { uid, gid, mode, list: list.into() }
    }

    /// What the kernel lets a user with these groups do.
    fn may(rights: &Rights, uid: u32, groups: &[u32]) -> u16 {
        let Some((_, value)) = EncodedXattrs(&rights.list).next() else {
            return match () {
                () if uid == rights.uid => rights.class(6),
                () if groups.contains(&rights.gid) => rights.class(3),
                () => rights.class(0),
            };
        };
        if uid == rights.uid {
            return rights.class(6);
        }
        let (entries, _) = value[LIST_HEADER..].as_chunks::<8>();
        let field = |e: &[u8; 8], at: usize| u16::from_le_bytes([e[at], e[at + 1]]);
        let id = |e: &[u8; 8]| u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
        let mask = rights.class(3);
        if let Some(own) = entries.iter().find(|e| field(e, 0) == USER && id(e) == uid) {
            return field(own, 2) & mask;
        }
        let mine = entries.iter().filter(|e| match field(e, 0) {
            GROUP_OBJ => groups.contains(&rights.gid),
            GROUP => groups.contains(&id(e)),
            _ => false,
        });
        let mine: Vec<_> = mine.map(|e| field(e, 2) & mask).collect();
        // One group that allows it is enough; which bits those are is looked at one by one here.
        if mine.is_empty() { rights.class(0) } else { mine.into_iter().fold(0, |all, may| all | may) }
    }

    fn any() -> impl Strategy<Value = Rights> {
        let named = proptest::collection::vec((prop_oneof![Just(USER), Just(GROUP)], 1u32..4, 0u16..8), 0..3);
        ((1u32..4, 1u32..4, 0u16..0o1000), proptest::bool::ANY, named, 0u16..8).prop_map(
            |(plain, listed, named, group)| {
                let mask = [(GROUP_OBJ, u32::MAX, group), (MASK, u32::MAX, plain.2 >> 3 & 7)];
                let all = [named, mask.to_vec()].concat();
                rights(plain, if listed { &all } else { &[] })
            },
        )
    }

    proptest! {
        #[test]
        fn nobody_gets_what_one_of_them_keeps(a in any(), b in any(), uid in 0u32..5, groups in proptest::collection::vec(1u32..5, 0..3)) {
            let allowed = may(&a.meet(&b), uid, &groups);
            prop_assert_eq!(allowed & !(may(&a, uid, &groups) & may(&b, uid, &groups)), 0);
        }
    }

    #[test]
    fn what_does_not_differ_stays_and_what_does_is_as_wide_as_it_may_be() {
        let listed = rights((1, 2, 0o750), &[(USER, 3, 7), (GROUP_OBJ, u32::MAX, 5), (MASK, u32::MAX, 5)]);
        assert_eq!(listed.meet(&listed), listed);
        let plain = |uid, gid, mode| rights((uid, gid, mode), &[]);
        for (newer, older, met) in [
            (plain(1, 2, 0o755), plain(1, 2, 0o700), 0o700),
            (plain(1, 2, 0o2775), plain(1, 2, 0o755), 0o2755),
            (plain(1, 2, 0o755), plain(3, 4, 0o755), 0o555),
            (plain(1, 2, 0o700), plain(3, 2, 0o700), 0),
            (plain(1, 2, 0o750), plain(1, 3, 0o750), 0o700),
            (plain(1, 2, 0o755), listed.clone(), 0o700),
        ] {
            let found = newer.meet(&older);
            assert_eq!(
                (found.uid, found.gid, found.mode),
                (newer.uid, newer.gid, met),
                "{newer:?} {older:?}"
            );
        }
        let mut table = RightsTable::default();
        let (a, b) = (table.add(plain(1, 2, 0o755)), table.add(plain(1, 2, 0o711)));
        assert_eq!((table.meet(a, a), table.meet(a, b), table.add(plain(1, 2, 0o755))), (a, b, a));
        assert_eq!((table.meet(NO_RIGHTS, a), table.meet(NO_RIGHTS, NO_RIGHTS)), (a, NO_RIGHTS));
    }
}
