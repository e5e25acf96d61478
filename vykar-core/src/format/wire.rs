//! Bounded MessagePack reading over a slice.
//!
//! `rmp_serde` writes this format; reading is done here because a reader must tell "ends too early"
//! from "wrong", must accept byte strings in both forms (array of integers and `bin`), and must
//! never allocate more than the input can justify.

use std::borrow::Cow;

use rmp::Marker;

use crate::error::FormatError;

/// How deep nested arrays and maps may be in a value that is skipped.
const MAX_DEPTH: u32 = 32;

/// A cursor over MessagePack bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

type R<T> = Result<T, FormatError>;

impl<'a> Reader<'a> {
    /// Starts at the first byte of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data, pos: 0 }
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Bytes not yet consumed.
    pub fn remaining(&self) -> usize {
        self.data.len() - self.pos
    }

    fn take(&mut self, n: usize, what: &'static str) -> R<&'a [u8]> {
        let rest = &self.data[self.pos..];
        let Some(bytes) = rest.get(..n) else {
            return Err(FormatError::Truncated { what });
        };
        self.pos += n;
        Ok(bytes)
    }

    fn byte(&mut self, what: &'static str) -> R<u8> {
        Ok(self.take(1, what)?[0])
    }

    fn be(&mut self, n: usize, what: &'static str) -> R<u64> {
        Ok(self.take(n, what)?.iter().fold(0u64, |acc, b| acc << 8 | u64::from(*b)))
    }

    fn marker(&mut self, what: &'static str) -> R<Marker> {
        Ok(Marker::from_u8(self.byte(what)?))
    }

    fn wrong<T>(what: &'static str, marker: Marker) -> R<T> {
        Err(FormatError::Type { what, marker: marker.to_u8() })
    }

    /// True, and consumed, when the next value is nil.
    pub fn nil(&mut self, what: &'static str) -> R<bool> {
        match self.data.get(self.pos) {
            None => Err(FormatError::Truncated { what }),
            Some(0xc0) => {
                self.pos += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    /// A value that may be nil.
    pub fn option<T>(&mut self, what: &'static str, read: impl FnOnce(&mut Self) -> R<T>) -> R<Option<T>> {
        if self.nil(what)? { Ok(None) } else { read(self).map(Some) }
    }

    /// The length of an array.
    pub fn array(&mut self, what: &'static str) -> R<usize> {
        match self.marker(what)? {
            Marker::FixArray(n) => Ok(usize::from(n)),
            Marker::Array16 => Ok(self.be(2, what)? as usize),
            Marker::Array32 => Ok(self.be(4, what)? as usize),
            other => Self::wrong(what, other),
        }
    }

    /// The length of an array, within bounds.
    pub fn array_of(&mut self, what: &'static str, min: usize, max: usize) -> R<usize> {
        let found = self.array(what)?;
        if found < min || found > max {
            let (found, min, max) = (found as u64, min as u64, max as u64);
            return Err(FormatError::OutOfBounds { what, found, min, max });
        }
        Ok(found)
    }

    /// The number of entries of a map.
    pub fn map(&mut self, what: &'static str) -> R<usize> {
        match self.marker(what)? {
            Marker::FixMap(n) => Ok(usize::from(n)),
            Marker::Map16 => Ok(self.be(2, what)? as usize),
            Marker::Map32 => Ok(self.be(4, what)? as usize),
            other => Self::wrong(what, other),
        }
    }

    /// A capacity for `count` elements of at least `min_size` encoded bytes each: never more than
    /// the rest of the input can hold.
    pub fn capacity(&self, count: usize, min_size: usize) -> usize {
        count.min(self.remaining() / min_size.max(1))
    }

    /// A signed integer in any encoding.
    pub fn int(&mut self, what: &'static str) -> R<i64> {
        let out_of_range = |found| FormatError::OutOfBounds { what, found, min: 0, max: i64::MAX as u64 };
        Ok(match self.marker(what)? {
            Marker::FixPos(v) => i64::from(v),
            Marker::FixNeg(v) => i64::from(v),
            Marker::U8 => self.be(1, what)? as i64,
            Marker::U16 => self.be(2, what)? as i64,
            Marker::U32 => self.be(4, what)? as i64,
            Marker::U64 => {
                let v = self.be(8, what)?;
                i64::try_from(v).map_err(|_| out_of_range(v))?
            }
            Marker::I8 => i64::from(self.be(1, what)? as i8),
            Marker::I16 => i64::from(self.be(2, what)? as i16),
            Marker::I32 => i64::from(self.be(4, what)? as i32),
            Marker::I64 => self.be(8, what)? as i64,
            other => return Self::wrong(what, other),
        })
    }

    /// An unsigned integer in any encoding.
    pub fn uint(&mut self, what: &'static str) -> R<u64> {
        match self.data.get(self.pos) {
            Some(&v) if v < 0x80 => {
                self.pos += 1;
                Ok(u64::from(v))
            }
            Some(0xcf) => {
                self.pos += 1;
                self.be(8, what)
            }
            _ => {
                let v = self.int(what)?;
                u64::try_from(v).map_err(|_| FormatError::Invalid { what, reason: format!("negative ({v})") })
            }
        }
    }

    /// An unsigned integer of at most 32 bits.
    pub fn u32(&mut self, what: &'static str) -> R<u32> {
        let found = self.uint(what)?;
        u32::try_from(found).map_err(|_| FormatError::OutOfBounds {
            what,
            found,
            min: 0,
            max: u64::from(u32::MAX),
        })
    }

    /// A string's bytes, UTF-8 or not.
    fn str_bytes(&mut self, what: &'static str) -> R<&'a [u8]> {
        let len = match self.marker(what)? {
            Marker::FixStr(n) => usize::from(n),
            Marker::Str8 => self.be(1, what)? as usize,
            Marker::Str16 => self.be(2, what)? as usize,
            Marker::Str32 => self.be(4, what)? as usize,
            other => return Self::wrong(what, other),
        };
        self.take(len, what)
    }

    /// A string.
    pub fn str(&mut self, what: &'static str) -> R<&'a str> {
        std::str::from_utf8(self.str_bytes(what)?)
            .map_err(|_| FormatError::Invalid { what, reason: "a string that is not UTF-8".into() })
    }

    /// A byte string: `bin`, or an array of integers.
    pub fn bytes(&mut self, what: &'static str) -> R<Cow<'a, [u8]>> {
        let bin = match self.data.get(self.pos).copied().map(Marker::from_u8) {
            Some(Marker::Bin8) => 1,
            Some(Marker::Bin16) => 2,
            Some(Marker::Bin32) => 4,
            _ => {
                let count = self.array(what)?;
                let mut out = Vec::with_capacity(self.capacity(count, 1));
                for _ in 0..count {
                    out.push(self.small_byte(what)?);
                }
                return Ok(Cow::Owned(out));
            }
        };
        self.pos += 1;
        let len = self.be(bin, what)? as usize;
        self.take(len, what).map(Cow::Borrowed)
    }

    /// One element of an array of integers that stands for a byte.
    fn small_byte(&mut self, what: &'static str) -> R<u8> {
        match self.data.get(self.pos) {
            Some(&b) if b < 0x80 => {
                self.pos += 1;
                Ok(b)
            }
            Some(0xcc) => {
                self.pos += 1;
                self.byte(what)
            }
            _ => {
                let found = self.uint(what)?;
                u8::try_from(found).map_err(|_| FormatError::OutOfBounds { what, found, min: 0, max: 255 })
            }
        }
    }

    /// A byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self, what: &'static str) -> R<[u8; N]> {
        let expect = |found: usize| {
            let (n, found) = (N as u64, found as u64);
            Err(FormatError::OutOfBounds { what, found, min: n, max: n })
        };
        let mut out = [0u8; N];
        if self.fixed_integers(&mut out) {
            return Ok(out);
        }
        if matches!(self.data.get(self.pos), Some(0xc4..=0xc6)) {
            let bytes = self.bytes(what)?;
            if bytes.len() != N {
                return expect(bytes.len());
            }
            out.copy_from_slice(&bytes);
            return Ok(out);
        }
        let count = self.array(what)?;
        if count != N {
            return expect(count);
        }
        for byte in &mut out {
            *byte = self.small_byte(what)?;
        }
        Ok(out)
    }

    /// Reads 32 or so small integers in the form that every writer uses, without a branch for each: ids are
    /// random, and the millions of them in an index are what decoding it takes. Reads nothing, and returns
    /// false, when it is anything else.
    fn fixed_integers<const N: usize>(&mut self, out: &mut [u8; N]) -> bool {
        let rest = &self.data[self.pos..];
        let body = match rest {
            [0xdc, high, low, body @ ..] if usize::from(u16::from_be_bytes([*high, *low])) == N => body,
            _ => return false,
        };
        if body.len() < 2 * N {
            return false;
        }
        let (mut at, mut wrong) = (0, false);
        for byte in out {
            // Both lie within 2 * N, since each integer takes at most two bytes.
            let (first, second) = (body[at], body[at + 1]);
            let wide = first == 0xcc;
            *byte = if wide { second } else { first };
            wrong |= !wide && first >= 0x80;
            at += 1 + usize::from(wide);
        }
        if !wrong {
            self.pos += 3 + at;
        }
        !wrong
    }

    /// Skips one value of any type.
    pub fn skip(&mut self, what: &'static str) -> R<()> {
        self.skip_nested(what, 0)
    }

    fn skip_nested(&mut self, what: &'static str, depth: u32) -> R<()> {
        if depth > MAX_DEPTH {
            return Err(FormatError::Invalid { what, reason: format!("nested deeper than {MAX_DEPTH}") });
        }
        let (bytes, values) = match self.marker(what)? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(n) => (usize::from(n), 0),
            Marker::Str8 | Marker::Bin8 => (self.be(1, what)? as usize, 0),
            Marker::Str16 | Marker::Bin16 => (self.be(2, what)? as usize, 0),
            Marker::Str32 | Marker::Bin32 => (self.be(4, what)? as usize, 0),
            Marker::FixArray(n) => (0, u64::from(n)),
            Marker::Array16 => (0, self.be(2, what)?),
            Marker::Array32 => (0, self.be(4, what)?),
            Marker::FixMap(n) => (0, u64::from(n) * 2),
            Marker::Map16 => (0, self.be(2, what)? * 2),
            Marker::Map32 => (0, self.be(4, what)? * 2),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.be(1, what)? as usize + 1, 0),
            Marker::Ext16 => (self.be(2, what)? as usize + 1, 0),
            Marker::Ext32 => (self.be(4, what)? as usize + 1, 0),
            other @ Marker::Reserved => return Self::wrong(what, other),
        };
        self.take(bytes, what)?;
        for _ in 0..values {
            self.skip_nested(what, depth + 1)?;
        }
        Ok(())
    }

    /// The bytes of one value, unread.
    pub fn raw(&mut self, what: &'static str) -> R<&'a [u8]> {
        let start = self.pos;
        self.skip(what)?;
        Ok(&self.data[start..self.pos])
    }

    /// An error when bytes are left.
    pub fn end(&self, what: &'static str) -> R<()> {
        match self.remaining() {
            0 => Ok(()),
            n => Err(FormatError::Invalid { what, reason: format!("{n} bytes behind its end") }),
        }
    }
}

/// Encodes with `rmp_serde`'s default encoding, which is the format.
pub fn encode<T: serde::Serialize>(what: &'static str, value: &T) -> crate::Result<Vec<u8>> {
    rmp_serde::to_vec(value).map_err(|e| crate::VykarError::Encode { what, reason: e.to_string() })
}

/// Appends 32 bytes as `rmp_serde` writes them, an array of integers, without a branch for each: they are random.
pub fn put_id(out: &mut Vec<u8>, id: &[u8; 32]) {
    let mut buf = [0u8; 3 + 64];
    buf[..3].copy_from_slice(&[0xdc, 0, 32]);
    let mut at = 3;
    for byte in id {
        // A byte from 128 on has a marker in front.
        let wide = usize::from(*byte >= 0x80);
        buf[at] = 0xcc;
        buf[at + wide] = *byte;
        at += 1 + wide;
    }
    out.extend_from_slice(&buf[..at]);
}

/// Appends an unsigned integer in its shortest form.
pub fn put_uint(out: &mut Vec<u8>, value: u64) {
    // Writing to memory cannot fail.
    let _ = rmp::encode::write_uint(out, value);
}

/// Appends the head of an array.
pub fn put_array(out: &mut Vec<u8>, len: u32) {
    let _ = rmp::encode::write_array_len(out, len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_accepted_as_bin_and_as_array() {
        let id = [200u8; 32];
        let array = rmp_serde::to_vec(&id).unwrap();
        let bin = rmp_serde::to_vec(&serde_bytes::Bytes::new(&id)).unwrap();
        assert_ne!(array, bin);
        for form in [array, bin] {
            assert_eq!(Reader::new(&form).fixed::<32>("id").unwrap(), id);
            assert_eq!(Reader::new(&form).bytes("id").unwrap().as_ref(), id);
            assert!(Reader::new(&form).fixed::<31>("id").is_err());
        }
    }

    #[test]
    fn a_huge_announced_length_allocates_nothing_and_says_truncated() {
        for head in [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xc6, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Reader::new(head).bytes("x"), Err(FormatError::Truncated { what: "x" }));
        }
        assert_eq!(
            Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff]).skip("x"),
            Err(FormatError::Truncated { what: "x" })
        );
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(matches!(Reader::new(&[0x91; 100]).skip("x"), Err(FormatError::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn integers_round_trip(v: i64, u: u64) {
            prop_assert_eq!(Reader::new(&rmp_serde::to_vec(&v).unwrap()).int("v").unwrap(), v);
            prop_assert_eq!(Reader::new(&rmp_serde::to_vec(&u).unwrap()).uint("u").unwrap(), u);
        }

        #[test]
        fn ids_are_written_as_rmp_serde_does(id: [u8; 32]) {
            let mut out = vec![7];
            put_id(&mut out, &id);
            prop_assert_eq!(&out[1..], rmp_serde::to_vec(&id).unwrap());
            prop_assert_eq!(Reader::new(&out[1..]).fixed::<32>("id").unwrap(), id);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(data: Vec<u8>) {
            let _ = Reader::new(&data).skip("x");
            let _ = Reader::new(&data).bytes("x");
            let _ = Reader::new(&data).str("x");
            let _ = Reader::new(&data).int("x");
            let _ = Reader::new(&data).fixed::<4>("x");
        }
    }
}
