//! The item stream: the plaintext of the chunks in `item_ptrs`, one after another, is MessagePack
//! items, which may straddle chunk boundaries.

use super::MAX_METADATA_PLAINTEXT;
use super::item::{Item, ItemProblem};
use super::wire::Reader;
use crate::error::FormatError;

/// Cuts items out of a stream that arrives chunk by chunk.
#[derive(Debug)]
pub struct ItemStream {
    buf: Vec<u8>,
    pos: usize,
    /// Bytes behind `pos` that the next attempt needs. Doubled after each vain one, so that an item
    /// of many chunks is not parsed anew for each of them.
    needed: usize,
    broken: bool,
    /// Most bytes of one item. A stream may name the same few chunks a million times, so that an item without an
    /// end would take all memory there is.
    max: u64,
}

impl Default for ItemStream {
    fn default() -> Self {
        ItemStream { buf: Vec::new(), pos: 0, needed: 0, broken: false, max: MAX_METADATA_PLAINTEXT }
    }
}

impl ItemStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream that goes on where another one stopped, whose [`ItemStream::rest`] was `carried`.
    pub fn resume(carried: Vec<u8>) -> Self {
        ItemStream { buf: carried, ..Self::default() }
    }

    /// Adds the next chunk's plaintext.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.broken {
            (self.buf, self.pos) = (Vec::new(), 0);
            return;
        }
        self.buf.drain(..self.pos);
        self.pos = 0;
        self.buf.extend_from_slice(chunk);
    }

    /// What was pushed and not yet taken: the beginning of an item that goes on in the next chunk.
    pub fn rest(&self) -> &[u8] {
        &self.buf[self.pos..]
    }

    /// The next item, checked against the format's rules; `None` until more is pushed.
    ///
    /// The outer error means that the rest of the stream cannot be read, as when an item goes on for more than
    /// [`MAX_METADATA_PLAINTEXT`].
    pub fn next_item(&mut self) -> Result<Option<Result<Item<'_>, ItemProblem>>, FormatError> {
        let rest = self.buf.len() - self.pos;
        if rest == 0 || rest < self.needed && rest as u64 <= self.max {
            return Ok(None);
        }
        self.parse()
    }

    /// Like [`ItemStream::next_item`] when no more chunks will come: what is left must be whole items.
    pub fn last_item(&mut self) -> Result<Option<Result<Item<'_>, ItemProblem>>, FormatError> {
        if self.pos == self.buf.len() {
            return Ok(None);
        }
        self.needed = usize::MAX;
        self.parse()
    }

    fn parse(&mut self) -> Result<Option<Result<Item<'_>, ItemProblem>>, FormatError> {
        let last = self.needed == usize::MAX;
        let rest = &self.buf[self.pos..];
        let mut r = Reader::new(rest);
        match Item::decode(&mut r) {
            Ok(decoded) => {
                self.pos += r.position();
                self.needed = 0;
                Ok(Some(decoded.and_then(|item| item.check().map(|()| item))))
            }
            Err(FormatError::Truncated { .. }) if !last && rest.len() as u64 <= self.max => {
                self.needed = rest.len().saturating_mul(2);
                Ok(None)
            }
            Err(error) => {
                let error = match error {
                    FormatError::Truncated { .. } if !last => {
                        let (found, max) = (rest.len() as u64, self.max);
                        FormatError::OutOfBounds { what: "item length", found, min: 0, max }
                    }
                    other => other,
                };
                self.broken = true;
                self.pos = self.buf.len();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::{ChunkRef, ItemType};
    use super::super::wire::encode;
    use super::*;
    use crate::id::ChunkId;

    fn items() -> Vec<Item<'static>> {
        let big =
            (0..2000).map(|n| ChunkRef { id: ChunkId([n as u8; 32]), size: 1, stored_size: n }).collect();
        let mut items: Vec<_> = (0..50).map(|n| Item::new(format!("d{n}"), ItemType::Directory)).collect();
        items.push(Item { chunks: big, size: 2000, ..Item::new("big", ItemType::RegularFile) });
        items.extend((0..50).map(|n| Item::new(format!("e{n}"), ItemType::Directory)));
        items
    }

    fn read(chunks: &[&[u8]]) -> (Vec<String>, Result<(), FormatError>) {
        let mut stream = ItemStream::new();
        let mut paths = Vec::new();
        for chunk in chunks {
            stream.push(chunk);
            loop {
                match stream.next_item() {
                    Ok(Some(item)) => {
                        paths.push(item.map(|i| i.path.into_owned()).unwrap_or_else(|p| format!("!{p}")))
                    }
                    Ok(None) => break,
                    Err(e) => return (paths, Err(e)),
                }
            }
        }
        loop {
            match stream.last_item() {
                Ok(Some(item)) => {
                    paths.push(item.map(|i| i.path.into_owned()).unwrap_or_else(|p| format!("!{p}")))
                }
                Ok(None) => return (paths, Ok(())),
                Err(e) => return (paths, Err(e)),
            }
        }
    }

    #[test]
    fn items_straddle_chunks_of_any_size() {
        let bytes: Vec<u8> = items().iter().flat_map(|i| encode("item", i).unwrap()).collect();
        let expected: Vec<_> = items().into_iter().map(|i| i.path.into_owned()).collect();
        for size in [1, 7, 100, 4096, bytes.len()] {
            let chunks: Vec<_> = bytes.chunks(size).collect();
            let (paths, end) = read(&chunks);
            assert_eq!((paths, end), (expected.clone(), Ok(())), "chunks of {size}");
        }
    }

    #[test]
    fn a_stream_can_be_read_in_pieces() {
        let bytes: Vec<u8> = items().iter().flat_map(|i| encode("item", i).unwrap()).collect();
        let (mut paths, mut carried) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(1000) {
            let mut stream = ItemStream::resume(carried);
            stream.push(chunk);
            while let Some(item) = stream.next_item().unwrap() {
                paths.push(item.unwrap().path.into_owned());
            }
            carried = stream.rest().to_vec();
        }
        let mut stream = ItemStream::resume(carried);
        while let Some(item) = stream.last_item().unwrap() {
            paths.push(item.unwrap().path.into_owned());
        }
        assert_eq!(paths, items().into_iter().map(|i| i.path.into_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn an_item_without_an_end_takes_no_more_than_its_bound() {
        // A path of 4 GiB, which comes in the same chunk again and again.
        let mut stream = ItemStream { max: 10_000, ..ItemStream::new() };
        stream.push(&[0x9c, 0xdb, 0xff, 0xff, 0xff, 0xff]);
        let mut chunks = 0;
        let error = loop {
            match stream.next_item() {
                Ok(item) => assert!(item.is_none()),
                Err(error) => break error,
            }
            chunks += 1;
            stream.push(&[b'x'; 1000]);
        };
        assert!(matches!(error, FormatError::OutOfBounds { max: 10_000, .. }), "{error}");
        assert_eq!(chunks, 10);
        stream.push(&[b'x'; 1000]);
        assert_eq!(stream.buf.capacity(), 0);
        assert!(stream.rest().is_empty() && stream.next_item().unwrap().is_none());
        // What is as long as that, and whole, is read.
        let bytes = encode("item", &items()[50]).unwrap();
        let mut stream = ItemStream { max: bytes.len() as u64, ..ItemStream::new() };
        for chunk in bytes.chunks(1000) {
            assert!(stream.next_item().unwrap().is_none());
            stream.push(chunk);
        }
        assert!(stream.last_item().unwrap().is_some());
    }

    #[test]
    fn a_stream_that_ends_inside_an_item_says_so() {
        let bytes: Vec<u8> = items().iter().flat_map(|i| encode("item", i).unwrap()).collect();
        let (paths, end) = read(&[&bytes[..bytes.len() - 1]]);
        assert_eq!(paths.len(), items().len() - 1);
        assert!(matches!(end, Err(FormatError::Truncated { .. })));
    }

    #[test]
    fn an_item_that_breaks_a_rule_costs_only_itself() {
        let mut bytes = encode("item", &Item::new("../x", ItemType::Directory)).unwrap();
        bytes.extend(encode("item", &Item::new("ok", ItemType::Directory)).unwrap());
        let (paths, end) = read(&[&bytes]);
        assert_eq!((paths.len(), paths[1].as_str(), end), (2, "ok", Ok(())));
        assert!(paths[0].starts_with('!'));
    }
}
