//! Parsing a large plaintext while it is decompressed.

use std::io::Read;

use super::wire::Reader;
use crate::error::{FormatError, IndexError};

/// Bytes that are read at once.
const WINDOW: usize = 1 << 20;
/// More than any entry takes, in bytes: two ids of 32 integers of at most 9 bytes, and six numbers.
const LONGEST_ENTRY: usize = 1 << 10;

/// A part of a plaintext that is read piece by piece, so that it is never in memory as a whole.
pub(super) struct Window<'s> {
    source: &'s mut dyn Read,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl<'s> Window<'s> {
    /// Nothing of it is read yet.
    pub fn new(source: &'s mut dyn Read) -> Self {
        Window { source, buf: vec![0; WINDOW], start: 0, end: 0, ended: false }
    }

    /// Parses one value of at most [`LONGEST_ENTRY`] bytes.
    pub fn parse<T>(
        &mut self,
        parse: impl FnOnce(&mut Reader<'_>) -> Result<T, FormatError>,
    ) -> Result<T, IndexError> {
        if self.end - self.start < LONGEST_ENTRY {
            self.fill()?;
        }
        let mut reader = Reader::new(&self.buf[self.start..self.end]);
        let value = parse(&mut reader)?;
        self.start += reader.position();
        Ok(value)
    }

    fn fill(&mut self) -> Result<(), IndexError> {
        self.buf.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while !self.ended && self.end < self.buf.len() {
            match self.source.read(&mut self.buf[self.end..]) {
                Ok(n) => {
                    self.ended = n == 0;
                    self.end += n;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(IndexError::Read(e)),
            }
        }
        Ok(())
    }

    /// Makes sure that nothing follows.
    pub fn end(&mut self, what: &'static str) -> Result<(), IndexError> {
        self.parse(|r| r.end(what))
    }
}
