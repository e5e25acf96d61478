//! The note in any `ext`.

use serde_bytes::ByteBuf;

use crate::format::SnapshotMeta;
use crate::format::note::other_entries;
use crate::id::SnapshotId;
use crate::maintenance::repair::repair_note::{KEY, repaired_from, with_repaired_from};

/// A snapshot's note is added to what is there, which stays; what is no map with names stays as it is.
pub fn note(mut meta: SnapshotMeta) {
    let before = meta.clone();
    let _ = repaired_from(&meta);
    let id = SnapshotId([200; 32]);
    let Ok(ext) = with_repaired_from(meta.ext.as_ref().map(|ext| &ext[..]), &id, false) else { return };
    meta.ext = ext;
    let count = |ext: &[u8]| Some(other_entries(ext, KEY, &mut |_| true).unwrap_or(None)?.len());
    let others = |meta: &SnapshotMeta| meta.ext.as_ref().map_or(Some(0), |ext| count(ext));
    match others(&before) {
        None => assert_eq!(meta.ext, before.ext),
        Some(count) => {
            assert_eq!(others(&meta), Some(count));
            assert_eq!(repaired_from(&meta), Some(id));
            assert_eq!(meta.root_item(), before.root_item());
        }
    }
    if let Some(ext) = before.ext.as_ref()
        && let Ok(Some(mended)) = with_repaired_from(Some(ext), &id, true)
    {
        meta.ext = Some(mended);
        assert_eq!(repaired_from(&meta), Some(id));
        meta.each_special(&mut |item| {
            assert!(item.is_ok(), "what is kept is whole");
            true
        });
    }
    meta.ext = Some(ByteBuf::new());
    assert_eq!(repaired_from(&meta), None);
}
