//! Packs.

use vykar_core::format::pack::{HEADER, blobs};

use super::bound::within;

/// A pack: what its blobs are, they lie in it one behind the other, and together they are all of it.
pub fn pack(data: &[u8]) {
    let walked = within(0, 4 << 10, || {
        let Ok(found) = blobs(data) else { return None };
        let mut end = HEADER.len();
        for blob in found {
            let Ok(blob) = blob else { return None };
            let start = end + 4;
            end = start + blob.object.len();
            assert_eq!(blob.offset, start as u64);
            assert_eq!(data.get(start..end), Some(blob.object));
            assert_eq!(data[start - 4..start], (blob.object.len() as u32).to_le_bytes());
        }
        Some(end)
    });
    if let Some(end) = walked {
        assert!(data.starts_with(HEADER) && end == data.len());
    }
}
