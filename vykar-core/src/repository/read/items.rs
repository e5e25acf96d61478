//! Reading a snapshot's items.

use std::cell::Cell;
use std::fmt;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use crate::error::{Result, VykarError};
use crate::format::links::Links;
use crate::format::{Item, ItemProblem, ItemStream, Snapshot};
use crate::repository::ReadChunk;

/// What [`for_each_item`] finds.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub enum FoundItem<'a> {
    /// An item that follows the rules.
    Item(Item<'a>),
    /// One that does not, and is left out.
    Problem(ItemProblem),
    /// A part of the stream that cannot be read: what it describes is lost, the rest goes on only
    /// where items can be found again, which is never guessed.
    Lost(Loss),
}

/// Why a part of a snapshot's items cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// For people.
    pub reason: String,
    /// It may be read later: the storage failed, or is not there now. Otherwise it is damaged or gone for certain.
    pub may_come_back: bool,
}

impl Loss {
    /// Of the last `left` chunks of an item stream.
    pub(crate) fn of_chunks(left: usize, error: &VykarError) -> Self {
        let reason = format!("{left} of its item chunks cannot be used: {error}");
        Loss { reason, may_come_back: !error.is_damage() }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Chunks that are decoded ahead of the parsing, each of at most 512 KiB as they are written.
const AHEAD: usize = 4;

/// Reads a snapshot's item stream in order, decoding ahead in a thread, and behind it the special items, which are
/// not in the stream, all with their [`Item::link_group`]. `found` returns false to stop early.
///
/// Damage is reported through [`FoundItem`], so this fails only when the caller's `found` does.
pub fn for_each_item(
    reader: &dyn ReadChunk,
    snapshot: &Snapshot,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<()> {
    let links = match snapshot.meta.links() {
        Ok(links) => links,
        Err(problem) => match found(FoundItem::Problem(problem))? {
            true => Links::default(),
            false => return Ok(()),
        },
    };
    let more = Cell::new(true);
    let mut watched = |mut item: FoundItem<'_>| {
        if let (FoundItem::Item(item), false) = (&mut item, links.is_empty()) {
            links.mark(item);
        }
        more.set(found(item)?);
        Ok(more.get())
    };
    in_stream(reader, snapshot, &mut watched)?;
    if more.get() { each_special(snapshot, &mut watched).map(drop) } else { Ok(()) }
}

/// Gives the items that are not in the stream; false when `found` wants no more.
pub(in crate::repository) fn each_special(
    snapshot: &Snapshot,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<bool> {
    let mut result = Ok(true);
    snapshot.meta.each_special(&mut |special| {
        result = found(special.map_or_else(FoundItem::Problem, FoundItem::Item));
        matches!(result, Ok(true))
    });
    result
}

fn in_stream(
    reader: &dyn ReadChunk,
    snapshot: &Snapshot,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<()> {
    let pointers = &snapshot.meta.item_ptrs;
    if pointers.len() < 2 {
        return parse(pointers.len(), &mut pointers.iter().map(|id| reader.read_chunk(id)), found);
    }
    std::thread::scope(|scope| {
        let (send, chunks) = sync_channel(AHEAD);
        let ahead = move || {
            for pointer in pointers {
                let chunk = reader.read_chunk(pointer);
                let last = chunk.is_err();
                // Nobody listens when no more are wanted.
                if send.send(chunk).is_err() || last {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("vykar-items".into()).spawn_scoped(scope, ahead) {
            Ok(_) => parse(pointers.len(), &mut chunks.into_iter(), found),
            // Without a thread they are read when they are wanted.
            Err(_) => parse(pointers.len(), &mut pointers.iter().map(|id| reader.read_chunk(id)), found),
        }
    })
}

fn parse(
    count: usize,
    chunks: &mut dyn Iterator<Item = Result<Bytes>>,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<()> {
    let mut stream = ItemStream::new();
    for (at, chunk) in chunks.enumerate() {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                found(FoundItem::Lost(Loss::of_chunks(count - at, &error)))?;
                return Ok(());
            }
        };
        if !next_chunk(&mut stream, &chunk, found)? {
            return Ok(());
        }
    }
    end_of_chunks(&mut stream, found)?;
    Ok(())
}

/// Reads the items that end in the next chunk of a stream, whose plaintext is given. False when nothing behind
/// it can be read, which [`FoundItem::Lost`] said, or `found` wants no more.
///
/// # Errors
/// Fails only when the caller's `found` does.
pub fn next_chunk(
    stream: &mut ItemStream,
    chunk: &[u8],
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<bool> {
    stream.push(chunk);
    drain(stream, found, ItemStream::next_item)
}

/// The same for what is left when there are no more chunks.
pub fn end_of_chunks(
    stream: &mut ItemStream,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
) -> Result<bool> {
    drain(stream, found, ItemStream::last_item)
}

type NextItem = for<'s> fn(
    &'s mut ItemStream,
) -> std::result::Result<
    Option<std::result::Result<Item<'s>, ItemProblem>>,
    crate::error::FormatError,
>;

fn drain(
    stream: &mut ItemStream,
    found: &mut dyn FnMut(FoundItem<'_>) -> Result<bool>,
    next: NextItem,
) -> Result<bool> {
    loop {
        let more = match next(stream) {
            Ok(None) => return Ok(true),
            Ok(Some(Ok(item))) => found(FoundItem::Item(item))?,
            Ok(Some(Err(problem))) => found(FoundItem::Problem(problem))?,
            Err(error) => {
                let reason = format!("the rest of its items cannot be read: {error}");
                found(FoundItem::Lost(Loss { reason, may_come_back: false }))?;
                return Ok(false);
            }
        };
        if !more {
            return Ok(false);
        }
    }
}
