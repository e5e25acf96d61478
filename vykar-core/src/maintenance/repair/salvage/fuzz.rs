//! Items behind a gap, in any bytes.

use std::collections::HashSet;

use super::{begins_item, find_item, is_items};
use crate::format::{Item, ItemStream};

/// A chunk behind one that is lost. What is taken for items from some place on are items to the end, and no place
/// before it would do; looking for it in the plainest way finds the same.
pub fn salvage(data: &[u8]) {
    let found = find_item(data);
    // That way takes the square of the length.
    if data.len() <= 1 << 10 {
        let is_found = |at: &usize| begins_item(&data[*at..]) && is_items(data, *at, &mut HashSet::new());
        let plain = (0..data.len()).find(is_found);
        assert_eq!(found, plain);
    }
    let Some(at) = found else { return };
    let mut stream = ItemStream::new();
    stream.push(&data[at..]);
    let mut items = 0;
    while let Ok(Some(item)) = stream.next_item() {
        assert!(item.is_ok_and(|item: Item<'_>| item.check().is_ok()));
        items += 1;
    }
    assert!(items > 0);
}
