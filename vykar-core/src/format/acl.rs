//! POSIX ACLs as Linux hands them out in extended attributes, and as text.
//!
//! ```text
//! value = version u32 = 2, entries [ tag u16, permissions u16, id u32 ]     all little-endian
//! ```
//!
//! Entries are in the order of their tags; only those of named users and groups have an id.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use super::Item;

/// Name of the attribute with the ACL that governs access.
pub const ACCESS: &str = "system.posix_acl_access";
/// Name of the attribute with the ACL that what is made in a directory inherits.
pub const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// Longest value of an extended attribute in bytes (`XATTR_SIZE_MAX`).
const MAX_BYTES: usize = 64 << 10;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// True for the attributes that hold ACLs.
pub fn is_acl(name: &str) -> bool {
    name == ACCESS || name == DEFAULT
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AclEntry {
    tag: u16,
    id: u32,
    /// Read 4, write 2, execute 1.
    permissions: u16,
}

/// An ACL that the kernel would take: its entries complete and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

impl Acl {
    /// Reads the value of an attribute; `None` for what is no ACL.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first_chunk::<HEADER>()?;
        if u32::from_le_bytes(*version) != VERSION || value.len() > MAX_BYTES || rest.len() % ENTRY != 0 {
            return None;
        }
        let entries = rest.chunks_exact(ENTRY).map(|entry| match *entry {
            [t0, t1, p0, p1, i0, i1, i2, i3] => {
                let (tag, permissions) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]));
                let id = if has_id(tag) { u32::from_le_bytes([i0, i1, i2, i3]) } else { NO_ID };
                Some(AclEntry { tag, id, permissions })
            }
            _ => None,
        });
        let acl = Acl { entries: entries.collect::<Option<_>>()? };
        acl.is_complete().then_some(acl)
    }

    /// The value of an attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.permissions.to_le_bytes());
            value.extend(entry.id.to_le_bytes());
        }
        value
    }

    fn is_complete(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let named = self.entries.iter().any(|entry| has_id(entry.tag));
        let known = |entry: &AclEntry| {
            matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && entry.permissions <= 7
        };
        self.entries.iter().all(known)
            && self.entries.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && (count(MASK) == 1 || (count(MASK) == 0 && !named))
    }

    /// What the file's own group may do, the mask counted, as the three bits of a mode. In the mode of a file with a
    /// mask these bits are the mask, which would give the group more.
    pub fn group_permissions(&self) -> u32 {
        let of = |tag| self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions);
        u32::from(of(GROUP_OBJ).unwrap_or(0) & of(MASK).unwrap_or(7))
    }

    /// Gives named users and groups other numbers. Where two become one, only what both may do stays allowed.
    ///
    /// `with` is handed to both functions.
    pub fn map<T>(
        &mut self,
        with: &mut T,
        user: impl Fn(&mut T, u32) -> u32,
        group: impl Fn(&mut T, u32) -> u32,
    ) {
        let before = self.entries.clone();
        for entry in &mut self.entries {
            match entry.tag {
                USER => entry.id = user(with, entry.id),
                GROUP => entry.id = group(with, entry.id),
                _ => {}
            }
        }
        if self.entries == before {
            return;
        }
        self.entries.sort_unstable();
        self.entries.dedup_by(|entry, kept| {
            let same = (entry.tag, entry.id) == (kept.tag, kept.id);
            if same {
                kept.permissions &= entry.permissions;
            }
            same
        });
    }

    /// The ACL as archives have it: `user::rw-,user:ada:r--:1000,group::r--,mask::r--,other::---`. A named entry ends
    /// with its number, and has that for a name too where there is none that can stand there.
    pub fn text(&self, names: &IdNames) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let (word, name) = match entry.tag {
                USER_OBJ => ("user", None),
                USER => ("user", Some(names.user(entry.id))),
                GROUP_OBJ => ("group", None),
                GROUP => ("group", Some(names.group(entry.id))),
                MASK => ("mask", None),
                _ => ("other", None),
            };
            let bit = |bit: u16, letter| if entry.permissions & bit != 0 { letter } else { '-' };
            let (read, write, execute) = (bit(4, 'r'), bit(2, 'w'), bit(1, 'x'));
            let comma = if text.is_empty() { "" } else { "," };
            let id = entry.id;
            let _ = match name {
                None => write!(text, "{comma}{word}::{read}{write}{execute}"),
                Some(name) => {
                    let name = name.filter(|name| is_plain_name(name));
                    let name = name.map_or_else(|| Cow::Owned(id.to_string()), Cow::Borrowed);
                    write!(text, "{comma}{word}:{name}:{read}{write}{execute}:{id}")
                }
            };
        }
        text
    }
}

fn has_id(tag: u16) -> bool {
    matches!(tag, USER | GROUP)
}

/// True for a name that can stand in an ACL's text and is not taken for a number.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, ':' | ',' | '#' | '\\');
    !name.is_empty()
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+'))
}

/// The names of users and groups that a snapshot's items give for numbers; of two for one number the first.
#[derive(Debug, Default)]
pub struct IdNames {
    users: HashMap<u32, Box<str>>,
    groups: HashMap<u32, Box<str>>,
    /// Numbers of the item before: most items are like it.
    last: Option<(u32, u32)>,
}

impl IdNames {
    /// Adds what an item tells.
    pub fn note(&mut self, item: &Item<'_>) {
        let ids = (item.uid, item.gid);
        if self.last == Some(ids) {
            return;
        }
        let mut complete = true;
        for (id, name, names) in
            [(item.uid, &item.user, &mut self.users), (item.gid, &item.group, &mut self.groups)]
        {
            match name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => drop(names.entry(id).or_insert_with(|| name.into())),
                None => complete &= names.contains_key(&id),
            }
        }
        if complete {
            self.last = Some(ids);
        }
    }

    /// A user's name.
    pub fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(|name| &**name)
    }

    /// A group's name.
    pub fn group(&self, gid: u32) -> Option<&str> {
        self.groups.get(&gid).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ItemType;
    use proptest::prelude::*;

    /// From tags, permissions and ids.
    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        value
    }

    const NONE: u32 = u32::MAX;

    fn sample() -> Vec<u8> {
        value(&[(1, 6, NONE), (2, 6, 7), (2, 4, 5001), (4, 4, NONE), (8, 0, 9), (16, 6, NONE), (32, 0, NONE)])
    }

    fn names() -> IdNames {
        let mut names = IdNames::default();
        for (uid, user, gid, group) in
            [(5001, "ada", 0, "root"), (5001, "second", 9, "sta ff"), (7, "12", 1, "")]
        {
            names.note(&Item {
                uid,
                gid,
                user: Some(user.into()),
                group: Some(group.into()),
                ..Item::new("x", ItemType::RegularFile)
            });
        }
        names
    }

    #[test]
    fn an_acl_is_text_with_names_where_they_can_stand() {
        let acl = Acl::parse(&sample()).unwrap();
        assert_eq!(acl.encode(), sample());
        assert_eq!(acl.group_permissions(), 4);
        let text = "user::rw-,user:7:rw-:7,user:ada:r--:5001,group::r--,group:9:---:9,mask::rw-,other::---";
        assert_eq!(acl.text(&names()), text);
        let plain = value(&[(1, 7, NONE), (4, 5, NONE), (32, 1, NONE)]);
        let plain = Acl::parse(&plain).unwrap();
        assert_eq!(
            (plain.text(&names()).as_str(), plain.group_permissions()),
            ("user::rwx,group::r-x,other::--x", 5)
        );
    }

    #[test]
    fn entries_that_become_one_allow_what_both_do() {
        let mut acl = Acl::parse(&sample()).unwrap();
        acl.map(&mut (), |_, id| id, |_, id| id);
        assert_eq!(acl.encode(), sample());
        acl.map(&mut (), |_, _| 3, |_, id| id + 1);
        let expected =
            value(&[(1, 6, NONE), (2, 4, 3), (4, 4, NONE), (8, 0, 10), (16, 6, NONE), (32, 0, NONE)]);
        assert_eq!(acl.encode(), expected);
        // They are in order again.
        let mut acl = Acl::parse(&sample()).unwrap();
        acl.map(&mut (), |_, id| 10_000 - id, |_, id| id);
        assert!(
            Acl::parse(&acl.encode())
                .unwrap()
                .text(&IdNames::default())
                .contains("user:4999:r--:4999,user:9993:")
        );
    }

    #[test]
    fn what_the_kernel_would_not_take_is_none() {
        let (user, group, other) = ((1, 6, NONE), (4, 4, NONE), (32, 0, NONE));
        assert!(Acl::parse(&value(&[user, group, other])).is_some());
        for bad in [
            value(&[]),
            value(&[user, group]),
            value(&[user, group, other, other]),
            value(&[group, user, other]),
            value(&[user, (2, 6, 1), group, other]),
            value(&[user, (4, 8, NONE), other]),
            value(&[user, group, (64, 0, NONE), other]),
            [value(&[user, group, other]), vec![0]].concat(),
            [&[1, 0, 0, 0], &value(&[user, group, other])[4..]].concat(),
        ] {
            assert_eq!(Acl::parse(&bad), None, "{bad:?}");
        }
        let many: Vec<_> = (0..8200).map(|id| (2, 0, id)).collect();
        let many = [&[user][..], &many, &[group, (16, 0, NONE), other]].concat();
        assert_eq!(Acl::parse(&value(&many)), None);
    }

    proptest! {
        #[test]
        fn any_value_is_none_or_the_same_again(
            entries in prop::collection::vec((prop::sample::select(vec![1u16, 2, 4, 8, 16, 32, 3]), 0u16..9, any::<u32>()), 0..8),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut entries = entries;
            entries.sort_by_key(|entry| entry.0);
            for value in [value(&entries), bytes] {
                if let Some(mut acl) = Acl::parse(&value) {
                    prop_assert_eq!(Acl::parse(&acl.encode()), Some(acl.clone()));
                    acl.map(&mut (), |_, id| id / 2, |_, id| id / 3);
                    prop_assert_eq!(Acl::parse(&acl.encode()), Some(acl));
                }
            }
        }
    }
}
