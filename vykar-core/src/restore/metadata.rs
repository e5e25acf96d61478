//! Owner, mode, times and extended attributes of what is restored, as the snapshot has them.

use std::collections::HashMap;

use rustix::fs::{Timespec, Timestamps};

use crate::format::Item;
use crate::format::acl::{self, Acl, IdNames};

const NANOS: i64 = 1_000_000_000;

/// Extended attributes: name and value.
pub(super) type OwnedXattrList = Box<[(Box<str>, Box<[u8]>)]>;

/// What a restored entry is to look like.
#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    /// Permission bits, set-id bits included.
    pub mode: u32,
    /// Owner on this machine.
    pub uid: u32,
    /// Group on this machine.
    pub gid: u32,
    /// Nanoseconds since the epoch.
    pub mtime: i64,
    /// Likewise.
    pub atime: i64,
    /// Extended attributes, ACLs among them.
    pub xattrs: OwnedXattrList,
}

impl Metadata {
    /// An item's, with its owner as this machine numbers it.
    pub fn of(item: &Item<'_>, owners: &mut Owners) -> Self {
        let list = item.xattrs.iter().flatten();
        Metadata {
            mode: item.permissions(),
            uid: owners.uid(item),
            gid: owners.gid(item),
            mtime: item.mtime,
            atime: item.atime.unwrap_or(item.mtime),
            xattrs: list.map(|(name, value)| (Box::from(&**name), Box::from(&**value))).collect(),
        }
    }

    /// The mode with which its file is created: its own where that lets in nobody whom it would not later on, and
    /// else one for its owner alone, until everything else is set.
    pub fn first_mode(&self, me: (u32, u32)) -> u32 {
        match self.xattrs.is_empty() && (self.uid, self.gid) == me {
            true => self.mode & 0o777,
            false => 0o600,
        }
    }

    pub fn timestamps(&self) -> Timestamps {
        let spec = |ns: i64| Timespec { tv_sec: ns.div_euclid(NANOS), tv_nsec: ns.rem_euclid(NANOS) as _ };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }
}

/// Translates owners' names to this machine's numbers, asking for each name once.
#[derive(Debug)]
pub(super) struct Owners {
    numeric: bool,
    users: HashMap<String, Option<u32>>,
    groups: HashMap<String, Option<u32>>,
}

impl Owners {
    /// With `numeric`, names are ignored.
    pub fn new(numeric: bool) -> Self {
        Owners { numeric, users: HashMap::new(), groups: HashMap::new() }
    }

    fn uid(&mut self, item: &Item<'_>) -> u32 {
        self.user(item.user.as_deref()).unwrap_or(item.uid)
    }

    fn gid(&mut self, item: &Item<'_>) -> u32 {
        self.group(item.group.as_deref()).unwrap_or(item.gid)
    }

    fn user(&mut self, name: Option<&str>) -> Option<u32> {
        let by_name = |name: &str| Some(nix::unistd::User::from_name(name).ok()??.uid.as_raw());
        self.known(name, |o| &mut o.users, by_name)
    }

    fn group(&mut self, name: Option<&str>) -> Option<u32> {
        let by_name = |name: &str| Some(nix::unistd::Group::from_name(name).ok()??.gid.as_raw());
        self.known(name, |o| &mut o.groups, by_name)
    }

    /// Maps the users and groups of ACLs as owners are mapped, by the names that the snapshot has for their numbers.
    /// What is no ACL stays as it is: the kernel refuses it.
    pub fn map_acls(&mut self, names: &IdNames, xattrs: &mut OwnedXattrList) {
        if self.numeric {
            return;
        }
        for (_, value) in xattrs.iter_mut().filter(|(name, _)| acl::is_acl(name)) {
            let Some(mut acl) = Acl::parse(value) else { continue };
            let users = |o: &mut Self, id| o.user(names.user(id)).unwrap_or(id);
            let groups = |o: &mut Self, id| o.group(names.group(id)).unwrap_or(id);
            acl.map(self, users, groups);
            *value = acl.encode().into();
        }
    }

    fn known(
        &mut self,
        name: Option<&str>,
        cache: fn(&mut Self) -> &mut HashMap<String, Option<u32>>,
        by_name: impl Fn(&str) -> Option<u32>,
    ) -> Option<u32> {
        let name = name.filter(|name| !self.numeric && !name.is_empty())?;
        let cache = cache(self);
        if let Some(known) = cache.get(name) {
            return *known;
        }
        let number = by_name(name);
        cache.insert(name.to_owned(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ItemType;

    #[test]
    fn names_are_mapped_to_this_machine_unless_numbers_are_wanted() {
        let item = Item {
            uid: 4242,
            gid: 4343,
            user: Some("root".into()),
            group: Some("no-such-group".into()),
            ..Item::new("x", ItemType::RegularFile)
        };
        let mapped = Metadata::of(&item, &mut Owners::new(false));
        assert_eq!((mapped.uid, mapped.gid), (0, 4343));
        let numeric = Metadata::of(&item, &mut Owners::new(true));
        assert_eq!((numeric.uid, numeric.gid), (4242, 4343));
        let hostile = Item { user: Some("ro\0ot".into()), ..item };
        assert_eq!(Metadata::of(&hostile, &mut Owners::new(false)).uid, 4242);
    }

    /// The value of an ACL that lets a user and a group in.
    fn acl(user: u32, group: u32) -> Box<[u8]> {
        let mut value = vec![2, 0, 0, 0];
        let none = u32::MAX;
        for (tag, id) in [(1u16, none), (2, user), (4, none), (8, group), (16, none), (32, none)] {
            value.extend([tag.to_le_bytes(), 6u16.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        value.into()
    }

    #[test]
    fn users_and_groups_of_acls_are_mapped_like_owners() {
        let item = Item {
            uid: 4242,
            gid: 4343,
            user: Some("root".into()),
            group: Some("no-such-group".into()),
            ..Item::new("x", ItemType::RegularFile)
        };
        let mut names = IdNames::default();
        names.note(&item);
        let list = || -> OwnedXattrList {
            let of = |name: &str, value| (Box::from(name), value);
            Box::new([
                of(acl::ACCESS, acl(4242, 4343)),
                of(acl::DEFAULT, acl(4242, 0)),
                of("user.acl", acl(4242, 0)),
                of(acl::ACCESS, b"\x02\0\0\0none".as_slice().into()),
            ])
        };
        let mut mapped = list();
        Owners::new(false).map_acls(&names, &mut mapped);
        let values: Vec<_> = mapped.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(values[..3], [acl(0, 4343), acl(0, 0), acl(4242, 0)]);
        assert_eq!(mapped[3], list()[3]);
        let mut numeric = list();
        Owners::new(true).map_acls(&names, &mut numeric);
        assert_eq!(numeric, list());
    }

    #[test]
    fn times_before_the_epoch_count_backwards() {
        let t = Metadata { mtime: -1, atime: i64::MIN, ..Metadata::default() }.timestamps();
        assert_eq!((t.last_modification.tv_sec, t.last_modification.tv_nsec), (-1, 999_999_999));
        assert!(t.last_access.tv_nsec >= 0);
    }
}
