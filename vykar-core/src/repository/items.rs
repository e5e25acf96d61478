//! Reading a snapshot's items.

use super::ChunkReader;
use crate::error::Result;
use crate::format::{Item, ItemProblem, ItemStream, Snapshot};

/// What [`for_each_item`] finds.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub enum Found<'a> {
    /// An item that follows the rules.
    Item(Item<'a>),
    /// One that does not, and is left out.
    Problem(ItemProblem),
    /// A part of the stream that cannot be read: what it describes is lost, the rest goes on only
    /// where items can be found again, which is never guessed.
    Lost(String),
}

/// Reads a snapshot's item stream in order. `found` returns false to stop early.
///
/// Damage is reported through [`Found`], so this fails only when the caller's `found` does.
pub fn for_each_item(
    reader: &ChunkReader,
    snapshot: &Snapshot,
    found: &mut dyn FnMut(Found<'_>) -> Result<bool>,
) -> Result<()> {
    let mut stream = ItemStream::new();
    for (at, pointer) in snapshot.meta.item_ptrs.iter().enumerate() {
        let chunk = match reader.read(pointer) {
            Ok(chunk) => chunk,
            Err(error) => {
                let rest = snapshot.meta.item_ptrs.len() - at;
                found(Found::Lost(format!("{rest} of its item chunks cannot be used: {error}")))?;
                return Ok(());
            }
        };
        stream.push(&chunk);
        if !drain(&mut stream, found, ItemStream::next_item)? {
            return Ok(());
        }
    }
    drain(&mut stream, found, ItemStream::last_item)?;
    Ok(())
}

type Next = for<'s> fn(
    &'s mut ItemStream,
) -> std::result::Result<
    Option<std::result::Result<Item<'s>, ItemProblem>>,
    crate::error::FormatError,
>;

fn drain(
    stream: &mut ItemStream,
    found: &mut dyn FnMut(Found<'_>) -> Result<bool>,
    next: Next,
) -> Result<bool> {
    loop {
        let more = match next(stream) {
            Ok(None) => return Ok(true),
            Ok(Some(Ok(item))) => found(Found::Item(item))?,
            Ok(Some(Err(problem))) => found(Found::Problem(problem))?,
            Err(error) => {
                found(Found::Lost(format!("the rest of its items cannot be read: {error}")))?;
                return Ok(false);
            }
        };
        if !more {
            return Ok(false);
        }
    }
}
