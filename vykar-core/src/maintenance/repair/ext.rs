//! The note in a repaired snapshot's `ext` that says which one it was made from.

use std::borrow::Cow;

use serde_bytes::ByteBuf;

use crate::error::{Result, VykarError};
use crate::format::snapshot::{SPECIAL, encode_special};
use crate::format::wire::Reader;
use crate::format::{Item, ItemProblem, SnapshotMeta, special};
use crate::id::SnapshotId;

pub(crate) mod fuzz;

/// Key of the note; its value is the id's bytes.
const KEY: &str = "repaired_from";

/// Which snapshot this one was made from.
pub(super) fn repaired_from(meta: &SnapshotMeta) -> Option<SnapshotId> {
    let mut r = Reader::new(meta.ext.as_deref()?);
    for _ in 0..r.map("ext").ok()? {
        if r.str("ext key").ok()? == KEY {
            return r.fixed("ext value").ok().map(SnapshotId);
        }
        r.skip("ext value").ok()?;
    }
    None
}

/// `ext` with the note, and all that is in it already, but for special items that break a rule. What is no map with
/// names stays as it is, without the note.
pub(super) fn with_repaired_from(ext: Option<&[u8]>, id: &SnapshotId) -> Result<Option<ByteBuf>> {
    let Some(others) = other_entries(ext.unwrap_or(&[0x80]))? else {
        return Ok(ext.map(|ext| ByteBuf::from(ext.to_vec())));
    };
    let failed = |e: String| VykarError::Encode { what: "snapshot ext", reason: e };
    let count = u32::try_from(others.len() + 1).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    rmp::encode::write_map_len(&mut out, count).map_err(|e| failed(e.to_string()))?;
    others.iter().for_each(|entry| out.extend_from_slice(entry));
    rmp::encode::write_str(&mut out, KEY).map_err(|e| failed(e.to_string()))?;
    rmp::encode::write_bin(&mut out, id.as_bytes()).map_err(|e| failed(e.to_string()))?;
    Ok(Some(ByteBuf::from(out)))
}

/// The bytes of each entry but the note.
fn other_entries(ext: &[u8]) -> Result<Option<Vec<Cow<'_, [u8]>>>> {
    let Some(mut entries) = entries(ext) else { return Ok(None) };
    for (key, bytes) in &mut entries {
        if *key == SPECIAL {
            let mut sound = Vec::new();
            let mut value = Reader::new(bytes);
            // Its key was read before.
            let _ = value.str("ext key");
            let mut keep = |item: std::result::Result<Item<'_>, ItemProblem>| {
                sound.extend(item.ok().map(|item| special::encode(&item)));
                true
            };
            let _ = special::decode_each(&mut value, &mut keep);
            let sound = sound.into_iter().collect::<Result<Vec<_>>>()?;
            *bytes = Cow::Owned(encode_special(&sound)?);
        }
    }
    Ok(Some(entries.into_iter().map(|(_, bytes)| bytes).collect()))
}

/// An entry's key, and its bytes, key included.
type Entry<'e> = (&'e str, Cow<'e, [u8]>);

fn entries(ext: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut r = Reader::new(ext);
    let count = r.map("ext").ok()?;
    let mut entries = Vec::with_capacity(r.capacity(count, 2));
    for _ in 0..count {
        let begin = r.position();
        let key = r.str("ext key").ok()?;
        r.skip("ext value").ok()?;
        if key != KEY {
            entries.push((key, Cow::Borrowed(&ext[begin..r.position()])));
        }
    }
    (r.remaining() == 0).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestRepository, directory};

    #[test]
    fn special_items_that_break_a_rule_are_left_out() {
        use crate::format::ItemType;
        use crate::format::snapshot::encode_ext;
        let mut t = TestRepository::new();
        let mut meta = t.snapshot("s", &[], None).meta;
        let good = Item::new("fifo", ItemType::Fifo);
        let specials = [&good, &Item::new("../up", ItemType::Fifo)].map(|i| special::encode(i).unwrap());
        let ext = encode_ext(Some(&directory("d")), &specials).unwrap().unwrap();
        meta.ext = with_repaired_from(Some(&ext), &SnapshotId([1; 32])).unwrap();
        assert_eq!(meta.special_items(), [Ok(good)]);
        assert_eq!(repaired_from(&meta), Some(SnapshotId([1; 32])));
    }

    #[test]
    fn the_note_is_added_to_what_is_there_and_replaces_itself() {
        let mut t = TestRepository::new();
        let root = crate::format::Item { path: "".into(), ..directory("d") };
        let mut meta = t.snapshot("s", &[], Some(&root)).meta;
        let had = meta.root_item().unwrap();
        let had = (had.mode, had.uid);
        for id in [SnapshotId([1; 32]), SnapshotId([200; 32])] {
            meta.ext = with_repaired_from(meta.ext.as_ref().map(|ext| &ext[..]), &id).unwrap();
            assert_eq!(repaired_from(&meta), Some(id));
            let root = meta.root_item().unwrap();
            assert_eq!((root.mode, root.uid), had);
        }
        meta.ext = with_repaired_from(None, &SnapshotId([3; 32])).unwrap();
        assert_eq!(repaired_from(&meta), Some(SnapshotId([3; 32])));
        // Another program's, which is none of our business.
        let opaque = with_repaired_from(Some(b"opaque"), &SnapshotId([3; 32])).unwrap();
        assert_eq!(opaque.unwrap(), b"opaque");
        let cut = with_repaired_from(Some(&[0x82, 0xa1, b'k', 1]), &SnapshotId([3; 32])).unwrap();
        assert_eq!(cut.unwrap(), &[0x82, 0xa1, b'k', 1]);
    }
}
