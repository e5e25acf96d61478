//! Extended attributes of one file as compact bytes.
//!
//! ```text
//! attribute: name length u8 | value length u32 | name | value
//! ```

use vykar_core::format::Item;

/// Longest attribute name in bytes that Linux knows (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// Longest value in bytes that Linux hands out (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 64 << 10;

/// The attribute that holds an access control list.
pub(crate) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// One attribute; nothing where its name or value is longer than any.
pub(crate) fn encode_one(name: &[u8], value: &[u8]) -> Vec<u8> {
    match (u8::try_from(name.len()), u32::try_from(value.len())) {
        (Ok(name_len), Ok(value_len)) if value.len() <= VALUE_MAX => {
            [&[name_len][..], &value_len.to_le_bytes(), name, value].concat()
        }
        _ => Vec::new(),
    }
}

/// Appends an item's attributes to `out`. `left_out` hears of those that no system call can name.
pub(crate) fn encode(item: &Item<'_>, out: &mut Vec<u8>, left_out: &mut dyn FnMut(&str)) {
    for (name, value) in item.xattrs.iter().flatten() {
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(name.len()), u32::try_from(value.len())) else {
            left_out("an extended attribute's name or value is too long");
            continue;
        };
        if name.is_empty() || name.len() > NAME_MAX || value.len() > VALUE_MAX || name.contains('\0') {
            left_out("an extended attribute has a name or size that Linux does not know");
            continue;
        }
        out.push(name_len);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
}

/// Names and values of what [`encode`] wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodedXattrs<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for EncodedXattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_len, rest) = self.0.split_first()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        self.0 = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vykar_core::format::ItemType;

    #[test]
    fn attributes_round_trip_and_impossible_ones_are_left_out() {
        let mut item = Item::new("f", ItemType::RegularFile);
        item.xattrs = Some(vec![
            ("user.a".into(), vec![1, 0, 255].into()),
            ("".into(), vec![1].into()),
            ("user.\0".into(), vec![1].into()),
            ("u".repeat(256).into(), vec![1].into()),
            ("user.big".into(), vec![0; VALUE_MAX + 1].into()),
            ("user.empty".into(), vec![].into()),
        ]);
        let (mut out, mut dropped) = (Vec::new(), 0);
        encode(&item, &mut out, &mut |_| dropped += 1);
        let found: Vec<_> = EncodedXattrs(&out).collect();
        assert_eq!(found, [(&b"user.a"[..], &[1, 0, 255][..]), (b"user.empty", b"")]);
        assert_eq!(dropped, 4);
    }
}
