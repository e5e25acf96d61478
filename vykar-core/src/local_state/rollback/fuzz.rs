//! Any memory of a repository.

use crate::id::SnapshotId;
use crate::local_state::rollback::Memory;

/// What the file says, which was good: it is compared with an index and two snapshots, and written as what reads the
/// same.
pub fn seen(data: &[u8]) {
    let Ok(mut memory) = serde_json::from_slice::<Memory>(data) else { return };
    let write = |memory: &Memory| serde_json::to_string(memory).unwrap_or_default();
    let same = |memory: &Memory| {
        let text = write(memory);
        let again = serde_json::from_str::<Memory>(&text).map(|again| write(&again));
        assert_eq!(again.ok().as_ref(), Some(&text));
    };
    same(&memory);
    let before = memory.index.clone();
    let _ = memory.index(Some("a0".into()));
    assert!(memory.index.as_deref() == Some("a0") || memory.index == before);
    let ids = [SnapshotId([0; 32]), SnapshotId([0xa0; 32])];
    for strange in memory.snapshots(&ids, None) {
        assert!(!strange.to_string().is_empty());
    }
    assert!(ids.iter().all(|id| memory.snapshots.contains_key(&id.to_string())));
    same(&memory);
}
