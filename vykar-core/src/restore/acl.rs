//! Access control lists, as the attributes that hold them encode them (`linux/posix_acl_xattr.h`).

/// The attribute that holds a file's own list.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// The attribute of a directory that holds what its new entries inherit.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// The permission bits that a file may have where its list cannot be set.
///
/// With a list, the group bits of a mode are the mask: the most that any entry but the owner's and the others' gives.
/// Without the list they would be the group's rights. So the group gets what its own entry gives, and nobody who is
/// named in the list gets more as a member of the group, or as one of the others, than the list gave.
pub(super) fn mode_without(mode: u32, list: &[u8]) -> u32 {
    let Some(entries) = parse(list) else { return mode & !0o070 };
    let mask = entries.iter().find(|(tag, _)| *tag == MASK).map_or(7, |(_, bits)| *bits);
    let (mut group, mut others) = ((mode >> 3) & 7, mode & 7);
    for (tag, bits) in entries {
        let given = bits & mask;
        match tag {
            USER => (group, others) = (group & given, others & given),
            OWNING_GROUP => group &= given,
            GROUP => others &= given,
            _ => {}
        }
    }
    (mode & !0o077) | (group << 3) | others
}

/// True when two lists say the same: the number of an entry that has none means nothing.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let said = |list: &[u8]| {
        let number = |e: &[u8]| e[4..8].to_vec();
        let numbers = list.get(4..)?.chunks_exact(8).map(number);
        let entries = parse(list)?.into_iter().zip(numbers);
        let plain =
            |((tag, bits), number)| (tag, bits, Some(number).filter(|_| [USER, GROUP].contains(&tag)));
        Some(entries.map(plain).collect::<Vec<_>>())
    };
    a == b || said(a).is_some_and(|a| said(b) == Some(a))
}

/// Each entry's tag and permission bits; `None` for what is no list.
fn parse(list: &[u8]) -> Option<Vec<(u16, u32)>> {
    let (version, entries) = list.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    let entry =
        |e: &[u8; 8]| (u16::from_le_bytes([e[0], e[1]]), u32::from(u16::from_le_bytes([e[2], e[3]])) & 7);
    Some(entries.iter().map(entry).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A list of these entries: tag, permission bits, number.
    pub(in crate::restore) fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(bits.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }

    /// A named user has `user`, the group `group`, with this mask; the owner has everything, the others nothing.
    pub(in crate::restore) fn named(uid: u32, user: u16, group: u16, mask: u16) -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let owner = (0x01, 7, NOBODY);
        list(&[
            owner,
            (USER, user, uid),
            (OWNING_GROUP, group, NOBODY),
            (MASK, mask, NOBODY),
            (0x20, 0, NOBODY),
        ])
    }

    #[test]
    fn a_mask_never_becomes_the_groups_rights() {
        assert_eq!(mode_without(0o660, &named(5001, 6, 4, 6)), 0o640);
        assert_eq!(mode_without(0o2770, &named(5001, 7, 0, 7)), 0o2700);
        assert_eq!(mode_without(0o640, &named(5001, 6, 6, 4)), 0o640, "the mask binds the group too");
        assert_eq!(mode_without(0o660, b"no list"), 0o600);
        assert_eq!(mode_without(0o660, b""), 0o600);
    }

    #[test]
    fn lists_are_compared_by_what_they_say() {
        let with = |id| list(&[(0x01, 7, id), (USER, 6, 5001), (OWNING_GROUP, 4, id)]);
        assert!(is_same(&with(0), &with(u32::MAX)));
        assert!(!is_same(&with(0), &list(&[(0x01, 7, 0), (USER, 6, 5002), (OWNING_GROUP, 4, 0)])));
        assert!(!is_same(&with(0), b"") && is_same(b"x", b"x") && !is_same(b"x", b"y"));
    }

    #[test]
    fn nobody_gets_more_without_a_list_than_it_gave() {
        // A user whom the list keeps out may be of the group, and is one of the others.
        assert_eq!(mode_without(0o774, &named(5001, 0, 7, 7)), 0o700);
        let group_out = list(&[(OWNING_GROUP, 5, 0), (GROUP, 0, 7), (MASK, 5, 0)]);
        assert_eq!(mode_without(0o755, &group_out), 0o750);
    }
}
