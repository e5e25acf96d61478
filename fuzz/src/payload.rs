//! Compressed payloads.

use std::io::Read;

use vykar_core::codec::compress::{decompress, decompress_stream};

use super::bound::within;

/// Memory beside the result: the buffers of a decoder that reads as it goes.
const BUFFERS: usize = 512 << 10;

/// A payload: a byte for the bound of its plaintext (2 to the power of 0 to 21, less one), and the payload.
pub fn payload(data: &[u8]) {
    let Some((power, payload)) = data.split_first() else { return };
    let max = (1u64 << (power % 22)) - 1;
    // A vector that grows may have twice the room that it needs.
    let room = 2 * max as usize + BUFFERS;
    let whole = within(payload.len(), room, || decompress(payload, max));
    let streamed = within(payload.len(), room, || {
        let mut out = Vec::new();
        let read = decompress_stream(payload, max).ok()?.read_to_end(&mut out);
        assert!(out.len() as u64 <= max, "{} bytes, bound {max}", out.len());
        read.ok().map(|_| out)
    });
    if let Ok(whole) = whole {
        assert!(whole.len() as u64 <= max, "{} bytes, bound {max}", whole.len());
        assert_eq!(streamed.as_ref(), Some(&whole));
        // A tighter bound is kept as well.
        if let Some(less) = (whole.len() as u64).checked_sub(1) {
            assert!(decompress(payload, less).is_err());
        }
    }
}
