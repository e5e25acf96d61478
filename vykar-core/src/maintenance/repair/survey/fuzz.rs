//! Looking for chunks in any bytes.

use super::{HEADER, LENGTH_PREFIX, walk};

/// A pack whose places are partly known: a byte for the number of known blobs, two bytes for the begin of each and one
/// for its length (they lie behind one another then), and the pack. What is shown lies in the pack, goes forward, and
/// is what its length says; the walk ends.
pub fn pack_scan(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let Some((places, pack)) = rest.split_at_checked(usize::from(*count) * 3) else { return };
    let mut known = Vec::new();
    for place in places.chunks_exact(3) {
        let begin = usize::from(u16::from_le_bytes([place[0], place[1]]));
        known.push((begin, begin + LENGTH_PREFIX as usize + usize::from(place[2])));
    }
    // As they come from an index whose entries were found whole.
    known.sort_unstable();
    let mut end = HEADER.len();
    known.retain(|(from, to)| {
        let fits = *from >= end && *to <= pack.len();
        end = if fits { *to } else { end };
        fits
    });
    let mut last = 0;
    walk(pack, &known, &mut |offset, object| {
        assert!(offset > last && !object.is_empty());
        last = offset;
        assert_eq!(pack.get(offset..offset + object.len()), Some(object));
        let length = (object.len() as u32).to_le_bytes();
        assert_eq!(pack.get(offset - 4..offset), Some(&length[..]));
        assert!(
            known.iter().all(|(from, to)| offset - 4 < *from || offset - 4 >= *to),
            "inside what is known"
        );
    });
}
