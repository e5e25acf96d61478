//! Items, alone and in streams.

use std::path::Component;

use vykar_core::format::item::{MAX_TARGET, is_plain_relative};
use vykar_core::format::wire::{self, Reader};
use vykar_core::format::{Item, ItemStream, ItemType};

use super::bound::within;

/// Memory that an item may take whatever its length, in bytes.
const SMALL: usize = 16 << 10;

/// One item.
pub fn item(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(decoded) = within(data.len(), SMALL, || Item::decode(&mut reader)) else { return };
    assert!(reader.position() > 0);
    // What cannot be used is skipped as a whole, so that the next one is found.
    let mut skipped = Reader::new(data);
    if skipped.skip("item").is_ok() {
        assert_eq!(skipped.position(), reader.position());
    }
    let Ok(item) = decoded else { return };
    let Ok(encoded) = wire::encode("item", &item) else { panic!("{item:?} cannot be encoded") };
    assert_eq!(Item::decode(&mut Reader::new(&encoded)), Ok(Ok(item.clone())));
    if item.check_root().is_ok() {
        assert!(item.path_bytes().is_empty() && item.kind == ItemType::Directory);
    }
    if item.check().is_ok() {
        follows_the_rules(&item);
    }
}

/// What everybody who writes or shows files relies on.
fn follows_the_rules(item: &Item<'_>) {
    assert!(is_plain_relative(item.path_bytes()));
    assert!(item.as_path().components().all(|part| matches!(part, Component::Normal(_))));
    assert!(item.permissions() <= 0o7777);
    let target = item.target_bytes();
    assert_eq!(target.is_some(), item.kind == ItemType::Symlink);
    assert!(target.is_none_or(|t| !t.is_empty() && t.len() <= MAX_TARGET && !t.contains(&0)));
    if item.kind == ItemType::RegularFile {
        assert_eq!(item.chunks.iter().map(|chunk| u64::from(chunk.size)).sum::<u64>(), item.size);
    } else {
        assert!(item.chunks.is_empty() && item.hardlink.is_none());
    }
}

/// What a stream gave: items encoded or the problems in their places, and whether it could be read to its end.
type Given = (Vec<Result<Vec<u8>, String>>, bool);

fn take(stream: &mut ItemStream, last: bool, given: &mut Given) {
    loop {
        let next = if last { stream.last_item() } else { stream.next_item() };
        match next {
            Ok(None) => return,
            Ok(Some(Ok(item))) => {
                follows_the_rules(&item);
                let Ok(encoded) = wire::encode("item", &item) else { panic!("{item:?} cannot be encoded") };
                given.0.push(Ok(encoded));
            }
            Ok(Some(Err(problem))) => given.0.push(Err(problem.to_string())),
            Err(_) => {
                given.1 = false;
                return;
            }
        }
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, anew: bool) -> Given {
    let (mut stream, mut given) = (ItemStream::new(), (Vec::new(), true));
    for piece in pieces {
        if anew {
            stream = ItemStream::resume(stream.rest().to_vec());
        }
        stream.push(piece);
        take(&mut stream, false, &mut given);
        if !given.1 {
            return given;
        }
    }
    take(&mut stream, true, &mut given);
    given
}

/// An item stream: a byte that says how many pieces there are, a byte for the size of each (times 8, and one more),
/// and the stream. However it is cut, it says the same.
pub fn stream(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(*count)) else { return };
    let whole = within(bytes.len(), SMALL, || read(std::iter::once(bytes), false));
    let cut = || {
        let mut left = bytes;
        sizes.iter().map(Some).chain([None]).map(move |size| {
            let len = size.map_or(left.len(), |size| (usize::from(*size) * 8 + 1).min(left.len()));
            let (piece, rest) = left.split_at(len);
            left = rest;
            piece
        })
    };
    assert_eq!(read(cut(), false), whole);
    assert_eq!(read(cut(), true), whole);
}
