//! Session and lock markers, and the names of everything.

use vykar_core::format::marker::{lock_name, parse_lock_name};
use vykar_core::format::{LockMarker, SessionMarker};
use vykar_core::{ChunkId, SessionId, SnapshotId};

use super::bound::within;

/// A marker, or the name of one.
pub fn marker(data: &[u8]) {
    if let Ok(marker) = within(data.len(), 16 << 10, || serde_json::from_slice::<LockMarker>(data)) {
        let Ok(text) = serde_json::to_vec(&marker) else { panic!("{marker:?} cannot be written") };
        assert_eq!(serde_json::from_slice::<LockMarker>(&text).ok(), Some(marker.clone()));
        vykar_core::fuzzing::lock(marker);
    }
    if let Ok(marker) = within(data.len(), 16 << 10, || serde_json::from_slice::<SessionMarker>(data)) {
        let Ok(text) = serde_json::to_vec(&marker) else { panic!("{marker:?} cannot be written") };
        assert_eq!(serde_json::from_slice::<SessionMarker>(&text).ok(), Some(marker.clone()));
        vykar_core::fuzzing::session(marker);
    }
    let Ok(name) = std::str::from_utf8(data) else { return };
    if let Some(time) = parse_lock_name(name) {
        let random: Option<SessionId> = name.get(21..53).and_then(|hex| hex.parse().ok());
        assert_eq!(random.map(|random| lock_name(time, random.0)).as_deref(), Some(name));
    }
    if let Ok(id) = name.parse::<ChunkId>() {
        assert_eq!(id.to_string(), name);
        assert_eq!(name.parse(), Ok(SnapshotId(id.0)));
    }
    if let Ok(id) = name.parse::<SessionId>() {
        assert_eq!(id.to_string(), name);
    }
}
