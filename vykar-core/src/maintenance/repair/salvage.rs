//! Reading what is left of a snapshot's items.

use std::collections::HashSet;

use super::refused;
use super::survey::WholeSurvey;
use crate::error::{FormatError, ObjectError, Result, VykarError};
use crate::format::wire::Reader;
use crate::format::{Item, ItemProblem, Snapshot};
use crate::repository::ChunkReader;

pub(crate) mod fuzz;

/// Most and fewest elements of an item that is no newer than this program.
const FIELDS: std::ops::RangeInclusive<u16> = 12..=16;

/// A part of a snapshot's items.
pub(super) enum SalvagedPart<'i> {
    /// An item of which everything is there, and its bytes.
    Whole(&'i Item<'i>, &'i [u8]),
    /// An item that cannot be kept.
    Dropped {
        /// Its path, where that is known, else empty.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Items whose number and paths nobody knows.
    Lost(String),
}

/// Goes through a snapshot's items, over what is lost.
///
/// Behind a chunk of the stream that is lost it is not known where an item begins. An item says by itself what it is,
/// so a place is taken for the beginning of one only when everything from there to the end of its chunk is several
/// items that follow the rules, the last of which may go on; else that chunk is given up too.
///
/// # Errors
/// An item that a newer program wrote, a storage that fails, and what `each` fails with.
pub(super) fn each_part(
    reader: &ChunkReader,
    survey: &WholeSurvey,
    snapshot: &Snapshot,
    each: &mut dyn FnMut(SalvagedPart<'_>) -> Result<()>,
) -> Result<()> {
    let mut stream = SalvageStream { survey, buf: Vec::new(), needed: 0, aligned: true };
    for pointer in &snapshot.meta.item_ptrs {
        match reader.read(pointer) {
            Ok(data) => stream.push(&data, each)?,
            Err(VykarError::ChunkDamaged { cause: ObjectError::OutOfReach(reason), .. }) => {
                return Err(refused(reason));
            }
            Err(e @ (VykarError::ChunkMissing { .. } | VykarError::ChunkDamaged { .. })) => {
                stream.gap(format!("items in {e}"), each)?;
            }
            Err(other) => return Err(other),
        }
    }
    stream.needed = 0;
    stream.parse(each)?;
    if stream.buf.is_empty() { Ok(()) } else { stream.unfinished("its end is lost", each) }
}

/// Names what breaks a rule among the items that a snapshot keeps beside its stream, by path and reason. It is left out
/// of the snapshot that takes this one's place.
pub(super) fn each_special_loss(snapshot: &Snapshot, each: &mut dyn FnMut(String, String)) {
    snapshot.meta.each_special(&mut |special| {
        if let Err(problem) = special {
            each(problem.path().to_owned(), problem.to_string());
        }
        true
    });
}

struct SalvageStream<'s> {
    survey: &'s WholeSurvey,
    /// What is not parsed yet.
    buf: Vec<u8>,
    /// Bytes that the next attempt needs, doubled after each vain one.
    needed: usize,
    /// `buf` begins where an item begins.
    aligned: bool,
}

type EachPart<'e> = &'e mut dyn FnMut(SalvagedPart<'_>) -> Result<()>;

impl SalvageStream<'_> {
    fn push(&mut self, data: &[u8], each: EachPart<'_>) -> Result<()> {
        match self.aligned {
            true => self.buf.extend_from_slice(data),
            false => match find_item(data) {
                Some(0) => self.buf = data.to_vec(),
                Some(at) => {
                    self.buf = data[at..].to_vec();
                    each(SalvagedPart::Lost(format!("the end of an item, {at} bytes behind what is lost")))?;
                }
                None => return each(SalvagedPart::Lost(format!("{} bytes behind what is lost", data.len()))),
            },
        }
        self.aligned = true;
        self.parse(each)
    }

    /// The next chunk is lost.
    fn gap(&mut self, reason: String, each: EachPart<'_>) -> Result<()> {
        self.aligned = false;
        if !self.buf.is_empty() {
            self.unfinished("a part of it is lost", each)?;
        }
        each(SalvagedPart::Lost(reason))
    }

    /// Gives up the item at hand, whose path may be there.
    fn unfinished(&mut self, reason: &str, each: EachPart<'_>) -> Result<()> {
        let mut r = Reader::new(&self.buf);
        let path = r.array("item").and_then(|_| r.str("item path")).map(str::to_owned);
        (self.buf, self.needed) = (Vec::new(), 0);
        each(SalvagedPart::Dropped { path: path.unwrap_or_default(), reason: reason.to_owned() })
    }

    fn parse(&mut self, each: EachPart<'_>) -> Result<()> {
        if self.buf.len() < self.needed {
            return Ok(());
        }
        let mut at = 0;
        while at < self.buf.len() {
            let rest = &self.buf[at..];
            let mut r = Reader::new(rest);
            match Item::decode(&mut r) {
                Ok(decoded) => {
                    let bytes = &rest[..r.position()];
                    at += bytes.len();
                    each(self.judge(decoded)?.as_part(bytes))?;
                }
                Err(FormatError::Truncated { .. }) => break,
                Err(error) => {
                    (self.buf, self.needed, self.aligned) = (Vec::new(), 0, false);
                    return each(SalvagedPart::Lost(format!("items that cannot be read: {error}")));
                }
            }
        }
        self.buf.drain(..at);
        self.needed = self.buf.len().saturating_mul(2);
        Ok(())
    }

    fn judge<'i>(&self, decoded: std::result::Result<Item<'i>, ItemProblem>) -> Result<Judged<'i>> {
        let dropped = |path: &str, reason: String| Judged::Dropped { path: path.to_owned(), reason };
        match decoded.and_then(|item| item.check().map(|()| item)) {
            Ok(item) => {
                let lost =
                    item.chunks.iter().find(|chunk| self.survey.slot_of(&chunk.id, chunk.size).is_none());
                Ok(match lost {
                    None => Judged::Whole(Box::new(item)),
                    Some(chunk) => dropped(&item.path, format!("chunk {} is lost", chunk.id)),
                })
            }
            Err(problem @ ItemProblem::Newer { .. }) => {
                Err(refused(format!("{:?} was {problem}", problem.path())))
            }
            Err(problem) => Ok(dropped(problem.path(), problem.to_string())),
        }
    }
}

enum Judged<'i> {
    Whole(Box<Item<'i>>),
    Dropped { path: String, reason: String },
}

impl<'i> Judged<'i> {
    fn as_part<'p>(&'p self, bytes: &'p [u8]) -> SalvagedPart<'p>
    where
        'i: 'p,
    {
        match self {
            Judged::Whole(item) => SalvagedPart::Whole(item, bytes),
            Judged::Dropped { path, reason } => {
                SalvagedPart::Dropped { path: path.clone(), reason: reason.clone() }
            }
        }
    }
}

/// Where in a chunk an item begins from which on there is nothing but items to the end, the last of which may go on
/// in the next chunk.
fn find_item(data: &[u8]) -> Option<usize> {
    let mut failed = HashSet::new();
    (0..data.len()).find(|at| begins_item(&data[*at..]) && is_items(data, *at, &mut failed))
}

/// True for the head of an array with as many elements as items have.
fn begins_item(data: &[u8]) -> bool {
    match *data {
        [head @ 0x90..=0x9f, ..] => FIELDS.contains(&u16::from(head & 0xf)),
        [0xdc, high, low, ..] => FIELDS.contains(&u16::from_be_bytes([high, low])),
        _ => false,
    }
}

/// Remembers where items begin behind which comes something else: who gets there need not go on. Else a chunk of many
/// items, the last of which is none, would take the square of their number.
fn is_items(data: &[u8], from: usize, failed: &mut HashSet<usize>) -> bool {
    let (mut at, mut items) = (from, 0);
    let mut passed = Vec::new();
    while at < data.len() {
        if failed.contains(&at) {
            failed.extend(passed);
            return false;
        }
        let mut r = Reader::new(&data[at..]);
        match Item::decode(&mut r) {
            Ok(Ok(item)) if item.check().is_ok() => {
                at += r.position();
                items += 1;
                passed.push(at);
            }
            // The last one may go on.
            Err(FormatError::Truncated { .. }) => return items > 0 && may_begin_item(&data[at..]),
            _ => {
                failed.extend(passed);
                return false;
            }
        }
    }
    // One alone may be an attribute's value that looks like an item and happens to end here.
    items > 1
}

/// Like [`begins_item`], of which the end may be missing.
fn may_begin_item(data: &[u8]) -> bool {
    matches!(data, [0xdc] | [0xdc, 0]) || begins_item(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wire::encode;
    use crate::format::{ChunkRef, ItemType};
    use crate::id::ChunkId;
    use proptest::prelude::*;

    /// Items that hold what looks like items: names, attributes and lists of as many elements.
    fn items() -> Vec<Vec<u8>> {
        let decoy = encode("item", &Item::new("decoy", ItemType::Directory)).unwrap();
        let chunks: Vec<_> =
            (0..14).map(|n| ChunkRef { id: ChunkId([0x9c; 32]), size: 0x9c, stored_size: n }).collect();
        let mut items = Vec::new();
        for n in 0..40 {
            let dir = Item::new(format!("d{n}/\u{9c}x"), ItemType::Directory);
            let file = Item {
                size: 14 * 0x9c,
                chunks: chunks.clone(),
                xattrs: Some(vec![("user.decoy".into(), decoy.clone().into())]),
                ..Item::new(format!("d{n}/f"), ItemType::RegularFile)
            };
            items.extend([dir, file].iter().map(|item| encode("item", item).unwrap()));
        }
        items
    }

    #[test]
    fn many_items_before_one_that_is_none_are_looked_at_once() {
        let item = encode("item", &Item::new("d", ItemType::Directory)).unwrap();
        let mut bytes = item.repeat(200_000);
        bytes.push(0xc1);
        // As often as there are items, this would never end.
        assert_eq!(find_item(&bytes), None);
        bytes.extend(item.repeat(2));
        assert_eq!(find_item(&bytes), Some(200_000 * item.len() + 1));
    }

    proptest! {
        /// Wherever a stream is cut, what is found behind the cut is an item that was written, and no other.
        #[test]
        fn only_real_items_are_found_behind_a_cut(from in 0usize..40_000, len in 1usize..9000) {
            let items = items();
            let stream = items.concat();
            let from = from % stream.len();
            let data = &stream[from..(from + len).min(stream.len())];
            let mut starts = Vec::new();
            let mut at = 0;
            for item in &items {
                starts.push(at);
                at += item.len();
            }
            let expected = starts.iter().zip(&items).find(|(start, _)| **start >= from);
            let whole = expected.filter(|(start, item)| **start + item.len() < from + data.len());
            prop_assert_eq!(find_item(data), whole.map(|(start, _)| start - from));
        }

        #[test]
        fn garbage_is_no_item(data: Vec<u8>) {
            prop_assert_eq!(find_item(&data), None);
        }
    }
}
