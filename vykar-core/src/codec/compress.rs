//! Compressed payloads.
//!
//! ```text
//! codec u8 | body
//! 0x00 stored
//! 0x01 u32 uncompressed length, then one LZ4 block
//! 0x02 one zstd frame; its content size may be absent
//! ```

use std::fmt;
use std::io::{Cursor, Read, Write};

use crate::error::CodecError;

const STORED: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// How new payloads are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 block format.
    Lz4,
    /// zstd at a level, 1..=22.
    Zstd(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Compression::Zstd(3)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let level = |level: &str| match level.parse() {
            Ok(level @ 1..=22) => Ok(Compression::Zstd(level)),
            _ => Err(format!("zstd level {level:?} is not a number from 1 to 22")),
        };
        match text.split_once(':') {
            None if text == "none" => Ok(Compression::None),
            None if text == "lz4" => Ok(Compression::Lz4),
            None if text == "zstd" => Ok(Compression::default()),
            Some(("zstd", number)) => level(number),
            _ => Err(format!("unknown compression {text:?}; use zstd, zstd:LEVEL, lz4 or none")),
        }
    }
}

/// Compresses payloads, keeping the codec's working memory between calls.
pub struct Compressor {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Room for an LZ4 block, which must be zeroed once.
    block: Vec<u8>,
}

impl Compressor {
    /// A compressor for one thread.
    pub fn new(compression: Compression) -> Result<Self, CodecError> {
        let zstd = match compression {
            Compression::Zstd(level) => Some(zstd::bulk::Compressor::new(level).map_err(zstd_error)?),
            _ => None,
        };
        Ok(Compressor { compression, zstd, block: Vec::new() })
    }

    /// Appends the compressed payload to `out`; stored as it is where compression does not help.
    pub fn compress(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        match self.compression {
            Compression::None => {}
            Compression::Lz4 => {
                out.push(LZ4);
                // A chunk is at most 16 MiB and the format's length is a u32.
                out.extend_from_slice(&(plaintext.len() as u32).to_le_bytes());
                let room = lz4_flex::block::get_maximum_output_size(plaintext.len());
                if self.block.len() < room {
                    self.block.resize(room, 0);
                }
                let n = lz4_flex::block::compress_into(plaintext, &mut self.block)
                    .map_err(|e| CodecError::Corrupt { codec: "lz4", reason: e.to_string() })?;
                out.extend_from_slice(&self.block[..n]);
            }
            Compression::Zstd(_) => {
                out.push(ZSTD);
                let body = out.len();
                out.reserve(zstd::zstd_safe::compress_bound(plaintext.len()));
                if let Some(zstd) = &mut self.zstd {
                    // Behind what is there, into room that need not be zeroed first.
                    let mut tail = Cursor::new(&mut *out);
                    tail.set_position(body as u64);
                    zstd.compress_to_buffer(plaintext, &mut tail).map_err(zstd_error)?;
                }
            }
        }
        if out.len() == start || out.len() - start > plaintext.len() {
            out.truncate(start);
            out.push(STORED);
            out.extend_from_slice(plaintext);
        }
        Ok(())
    }
}

fn zstd_error(e: std::io::Error) -> CodecError {
    CodecError::Corrupt { codec: "zstd", reason: e.to_string() }
}

/// Expands a payload to at most `max` bytes; nothing larger is ever allocated.
pub fn decompress(payload: &[u8], max: u64) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    match stored(payload) {
        Some(body) if body.len() as u64 > max => return Err(CodecError::TooLarge { max }),
        Some(body) => out.extend_from_slice(body),
        None => decompress_into(payload, max, &mut |size| Vec::with_capacity(size), &mut out)?,
    }
    Ok(out)
}

/// The plaintext of a payload that is stored as it is; `None` for one that must be expanded.
pub fn stored(payload: &[u8]) -> Option<&[u8]> {
    payload.split_first().filter(|(codec, _)| **codec == STORED).map(|(_, body)| body)
}

/// Expands a payload that is not [`stored`] to at most `max` bytes, into a buffer that `room` gives: empty,
/// with room for so many bytes. `out` is that buffer then, or another one where the size is not known ahead.
pub fn decompress_into(
    payload: &[u8],
    max: u64,
    room: &mut dyn FnMut(usize) -> Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let too_large = CodecError::TooLarge { max };
    let Some((codec, body)) = payload.split_first() else {
        return Err(CodecError::Corrupt { codec: "payload", reason: "empty".into() });
    };
    match *codec {
        LZ4 => {
            let corrupt = |reason: String| CodecError::Corrupt { codec: "lz4", reason };
            let Some((len, block)) = body.split_first_chunk::<4>() else {
                return Err(corrupt("no length".into()));
            };
            let len = u32::from_le_bytes(*len);
            // An LZ4 block expands at most 255 times.
            if u64::from(len) > max || len as usize > block.len().saturating_mul(255) {
                return Err(too_large);
            }
            *out = room(len as usize);
            out.resize(len as usize, 0);
            let n = lz4_flex::block::decompress_into(block, out).map_err(|e| corrupt(e.to_string()))?;
            if n != out.len() {
                return Err(corrupt(format!("{n} bytes, announced {}", out.len())));
            }
            Ok(())
        }
        ZSTD => decompress_zstd(body, max, room, out),
        codec => Err(CodecError::UnknownCodec { codec }),
    }
}

/// Expands a payload as it is read, to at most `max` bytes. Errors of the reader are [`CodecError`]s, or what
/// the codec says.
pub fn decompress_stream(payload: &[u8], max: u64) -> Result<Box<dyn Read + '_>, CodecError> {
    match payload.split_first() {
        Some((&ZSTD, frame)) => {
            let decoder = zstd::stream::read::Decoder::new(frame).map_err(zstd_error)?.single_frame();
            Ok(Box::new(Bounded { inner: decoder, left: max, max }))
        }
        Some((&STORED, body)) if body.len() as u64 <= max => Ok(Box::new(body)),
        _ => Ok(Box::new(Cursor::new(decompress(payload, max)?))),
    }
}

/// A reader that gives an error instead of more than `max` bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
    max: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::Error::other(CodecError::TooLarge { max: self.max })),
        }
        Ok(n)
    }
}

fn decompress_zstd(
    frame: &[u8],
    max: u64,
    room: &mut dyn FnMut(usize) -> Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let corrupt = |reason: &str| CodecError::Corrupt { codec: "zstd", reason: reason.into() };
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Err(_) => Err(corrupt("not a zstd frame")),
        Ok(Some(size)) if size > max => Err(CodecError::TooLarge { max }),
        // A frame of n bytes can honestly be millions of times larger, but only runs are: beyond
        // a generous ratio, grow as the bytes come instead of trusting the header.
        Ok(Some(size)) if size <= (frame.len() as u64).saturating_mul(1 << 14) => {
            *out = room(size as usize);
            out.clear();
            // Written without being zeroed first; never beyond the capacity.
            ZSTD_DECODER.with_borrow_mut(|d| d.decompress_to_buffer(frame, out)).map_err(zstd_error)?;
            if out.len() as u64 != size {
                return Err(corrupt("not as long as announced"));
            }
            Ok(())
        }
        Ok(_) => {
            let decoder = zstd::stream::read::Decoder::new(frame).map_err(zstd_error)?.single_frame();
            out.clear();
            decoder.take(max.saturating_add(1)).read_to_end(out).map_err(zstd_error)?;
            if out.len() as u64 > max {
                return Err(CodecError::TooLarge { max });
            }
            Ok(())
        }
    }
}

thread_local! {
    static ZSTD_DECODER: std::cell::RefCell<ReusedDecoder> = const { std::cell::RefCell::new(ReusedDecoder(None)) };
}

/// A decompression context kept by each thread: making one costs more than a small chunk does.
struct ReusedDecoder(Option<zstd::bulk::Decompressor<'static>>);

impl ReusedDecoder {
    fn decompress_to_buffer(&mut self, frame: &[u8], out: &mut Vec<u8>) -> std::io::Result<usize> {
        let decoder = match &mut self.0 {
            Some(decoder) => decoder,
            empty => empty.insert(zstd::bulk::Decompressor::new()?),
        };
        decoder.decompress_to_buffer(frame, out)
    }
}

/// Compresses a metadata stream written by `fill` as one payload.
pub fn compress_stream(
    compression: Compression,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    match compression {
        Compression::None => {
            out.push(STORED);
            fill(out)
        }
        // LZ4 blocks cannot be streamed; zstd's fastest level is as quick for metadata.
        Compression::Lz4 => compress_stream(Compression::Zstd(1), out, fill),
        Compression::Zstd(level) => {
            out.push(ZSTD);
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            fill(&mut encoder)?;
            encoder.finish().map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> [Compression; 4] {
        [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(9)]
    }

    #[test]
    fn golden_payloads() {
        let mut out = vec![];
        Compressor::new(Compression::None).unwrap().compress(b"abc", &mut out).unwrap();
        assert_eq!(out, b"\0abc");
        // Three literals, from the LZ4 block specification.
        let stored_block = b"\x01\x03\0\0\0\x30abc";
        assert_eq!(decompress(stored_block, 10).unwrap(), b"abc");
        // A zstd frame without content size holding a raw block, from RFC 8878.
        let frame = [2, 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x19, 0, 0, b'a', b'b', b'c'];
        assert_eq!(decompress(&frame, 10).unwrap(), b"abc");
    }

    #[test]
    fn a_stream_gives_the_same_and_keeps_the_same_bound() {
        let plain: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for c in all() {
            let mut out = vec![];
            Compressor::new(c).unwrap().compress(&plain, &mut out).unwrap();
            let read = |max: u64| {
                let mut back = Vec::new();
                decompress_stream(&out, max)
                    .map_err(|e| e.to_string())?
                    .read_to_end(&mut back)
                    .map_err(|e| e.to_string())?;
                Ok::<_, String>(back)
            };
            assert_eq!(read(plain.len() as u64).unwrap(), plain);
            assert_eq!(
                read(plain.len() as u64 - 1),
                Err(CodecError::TooLarge { max: plain.len() as u64 - 1 }.to_string())
            );
        }
    }

    #[test]
    fn bounds_hold_before_allocation() {
        assert_eq!(
            decompress(b"\x01\xff\xff\xff\xff\0", 1 << 20),
            Err(CodecError::TooLarge { max: 1 << 20 })
        );
        assert_eq!(
            decompress(b"\x01\xff\xff\xff\xff\0", 8 << 30),
            Err(CodecError::TooLarge { max: 8 << 30 })
        );
        assert_eq!(decompress(b"\0abcd", 3), Err(CodecError::TooLarge { max: 3 }));
        let zeros = vec![0u8; 1 << 20];
        for c in [Compression::Lz4, Compression::Zstd(3)] {
            let mut out = vec![];
            Compressor::new(c).unwrap().compress(&zeros, &mut out).unwrap();
            assert_eq!(
                decompress(&out, zeros.len() as u64 - 1),
                Err(CodecError::TooLarge { max: (1 << 20) - 1 })
            );
            assert_eq!(decompress(&out, zeros.len() as u64).unwrap(), zeros);
        }
        let mut streamed = vec![];
        compress_stream(Compression::Zstd(3), &mut streamed, |w| w.write_all(&zeros)).unwrap();
        assert!(matches!(decompress(&streamed, 1000), Err(CodecError::TooLarge { .. })));
        assert_eq!(decompress(&streamed, 1 << 20).unwrap(), zeros);
        assert!(decompress(b"", 10).is_err());
        assert_eq!(decompress(b"\x09x", 10), Err(CodecError::UnknownCodec { codec: 9 }));
    }

    #[test]
    fn names() {
        assert_eq!("zstd:9".parse(), Ok(Compression::Zstd(9)));
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        assert!("zstd:99".parse::<Compression>().is_err());
        assert!("gzip".parse::<Compression>().is_err());
        for c in all() {
            assert_eq!(c.to_string().parse(), Ok(c));
        }
    }

    proptest! {
        #[test]
        fn payloads_round_trip(data: Vec<u8>, repeat in 1usize..200) {
            let data = data.repeat(repeat);
            for c in all() {
                let mut out = vec![9];
                Compressor::new(c).unwrap().compress(&data, &mut out).unwrap();
                prop_assert!(out.len() <= data.len() + 2, "never larger than stored");
                prop_assert_eq!(decompress(&out[1..], data.len() as u64).unwrap(), data.clone());
            }
        }

        #[test]
        fn damaged_payloads_never_panic(data: Vec<u8>, codec in 0u8..4) {
            let mut payload = vec![codec];
            payload.extend(data);
            let _ = decompress(&payload, 1 << 20);
        }
    }
}
