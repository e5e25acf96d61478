//! FIFOs, sockets and device nodes: items that a snapshot keeps in its `ext`, where other programs pass them by.
//!
//! ```text
//! special = [ item, its array one longer, with the type "Fifo" | "Socket" | "CharDevice" | "BlockDevice", and
//!             rdev u64 behind `hardlink` ]
//! ```

use super::item::{Item, ItemProblem, ItemType};
use super::wire::{self, Reader};
use crate::error::{FormatError, Result, VykarError};

/// Most bytes of such items in one snapshot: its object is read whole.
pub const MAX_BYTES: usize = 16 << 20;

/// Elements of an item in the stream, and how an array of so many begins (MessagePack array 16).
const STREAM_HEADER: [u8; 3] = [0xdc, 0, 16];
/// How one of these begins.
const HEADER: [u8; 3] = [0xdc, 0, 17];

/// Encodes one.
pub fn encode(item: &Item<'_>) -> Result<Vec<u8>> {
    let failed = |reason: String| VykarError::Encode { what: "special item", reason };
    let plain = wire::encode("special item", item)?;
    let fields = plain.strip_prefix(&STREAM_HEADER).ok_or_else(|| failed("not sixteen fields".into()))?;
    let mut out = Vec::with_capacity(plain.len() + 9);
    out.extend_from_slice(&HEADER);
    out.extend_from_slice(fields);
    rmp::encode::write_uint(&mut out, item.rdev).map_err(|e| failed(e.to_string()))?;
    Ok(out)
}

/// Reads one.
pub fn decode(bytes: &[u8]) -> Option<Item<'_>> {
    Item::decode_special(&mut Reader::new(bytes)).ok()?.ok()
}

/// Reads the array of them until `each` wants no more; what breaks a rule costs itself only.
///
/// # Errors
/// The bytes end early, or are no array.
pub fn decode_each<'a>(
    r: &mut Reader<'a>,
    each: &mut dyn FnMut(Result<Item<'a>, ItemProblem>) -> bool,
) -> Result<(), FormatError> {
    for _ in 0..r.array("special items")? {
        let item = Item::decode_special(r)?;
        if !each(item.and_then(|item| item.check_special().map(|()| item))) {
            break;
        }
    }
    Ok(())
}

/// True for the types that these have.
pub fn is_special(kind: ItemType) -> bool {
    match kind {
        ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => true,
        ItemType::RegularFile | ItemType::Directory | ItemType::Symlink => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Item<'static> {
        Item { mode: 0o20600, rdev: 0x103, mtime: -1, ..Item::new("dev/null", ItemType::CharDevice) }
    }

    /// Made by hand from the format's text: an item's array, one longer.
    fn golden() -> Vec<u8> {
        let mut b = b"\xdc\0\x11\xa8dev/null\xaaCharDevice\xcd\x21\x80\0\0\xc0\xc0\xff\xc0\xc0\0".to_vec();
        b.extend(b"\x90\xc0\xc0\xc0\xc0\xcd\x01\x03");
        b
    }

    fn all(bytes: &[u8]) -> Vec<Result<Item<'_>, ItemProblem>> {
        let mut found = Vec::new();
        let mut each = |item| {
            found.push(item);
            true
        };
        decode_each(&mut Reader::new(bytes), &mut each).unwrap();
        found
    }

    #[test]
    fn an_item_is_one_element_longer_than_in_the_stream() {
        assert_eq!(encode(&device()).unwrap(), golden());
        assert_eq!(decode(&golden()), Some(device()));
        // In the stream it is of a newer program.
        let bytes = golden();
        let found = Item::decode(&mut Reader::new(&bytes)).unwrap();
        assert!(matches!(found, Err(ItemProblem::Newer { .. })), "{found:?}");
    }

    #[test]
    fn what_breaks_a_rule_costs_itself_only() {
        let fifo = Item::new("pipe", ItemType::Fifo);
        let mut bytes = vec![0x95];
        for item in [
            fifo.clone(),
            Item::new("../up", ItemType::Fifo),
            Item::new("folder", ItemType::Directory),
            Item { rdev: 1, ..Item::new("socket", ItemType::Socket) },
            device(),
        ] {
            bytes.extend(encode(&item).unwrap());
        }
        let found = all(&bytes);
        assert_eq!((&found[0], &found[4]), (&Ok(fifo), &Ok(device())));
        assert!(found[1..4].iter().all(Result::is_err), "{found:?}");
    }
}
