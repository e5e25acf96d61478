//! The note in a repaired snapshot's `ext` that says which one it was made from.

use serde_bytes::ByteBuf;

use crate::error::Result;
use crate::format::SnapshotMeta;
use crate::format::note::{noted, whole_entries, with_note};
use crate::id::SnapshotId;

pub(crate) mod fuzz;

/// Key of the note; its value is the id's bytes.
pub(super) const KEY: &str = "repaired_from";

/// Which snapshot this one was made from.
pub(super) fn repaired_from(meta: &SnapshotMeta) -> Option<SnapshotId> {
    noted(meta, KEY)
}

/// `ext` with the note, and all that is in it already, but for special items that break a rule. What is no map with
/// names stays as it is, without the note; where its special items are damaged, as `is_damaged` says, what can be read of
/// it is kept.
pub(super) fn with_repaired_from(
    ext: Option<&[u8]>,
    id: &SnapshotId,
    is_damaged: bool,
) -> Result<Option<ByteBuf>> {
    let readable = ext.filter(|_| is_damaged).map(whole_entries).transpose()?;
    with_note(readable.as_deref().or(ext), (KEY, id), &mut |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Item, special};
    use crate::testing::{TestRepository, directory};

    #[test]
    fn special_items_that_break_a_rule_are_left_out() {
        use crate::format::ItemType;
        use crate::format::snapshot::encode_ext;
        let mut t = TestRepository::new();
        let mut meta = t.snapshot("s", &[], None).meta;
        let good = Item::new("fifo", ItemType::Fifo);
        let specials = [&good, &Item::new("../up", ItemType::Fifo)].map(|i| special::encode(i).unwrap());
        let ext = encode_ext(Some(&directory("d")), &specials, &[]).unwrap().unwrap();
        meta.ext = with_repaired_from(Some(&ext), &SnapshotId([1; 32]), false).unwrap();
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
            meta.ext = with_repaired_from(meta.ext.as_ref().map(|ext| &ext[..]), &id, false).unwrap();
            assert_eq!(repaired_from(&meta), Some(id));
            let root = meta.root_item().unwrap();
            assert_eq!((root.mode, root.uid), had);
        }
        meta.ext = with_repaired_from(None, &SnapshotId([3; 32]), false).unwrap();
        assert_eq!(repaired_from(&meta), Some(SnapshotId([3; 32])));
        // Another program's, which is none of our business.
        let opaque = with_repaired_from(Some(b"opaque"), &SnapshotId([3; 32]), false).unwrap();
        assert_eq!(opaque.unwrap(), b"opaque");
        let cut = with_repaired_from(Some(&[0x82, 0xa1, b'k', 1]), &SnapshotId([3; 32]), false).unwrap();
        assert_eq!(cut.unwrap(), &[0x82, 0xa1, b'k', 1]);
    }
}
