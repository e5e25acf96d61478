//! `sessions/<id>.json` and `locks/<t>-<r>.json`: JSON, times in RFC 3339.

use serde::{Deserialize, Serialize};

/// A running backup's marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMarker {
    /// Host name, with `:pidns-INODE` behind it outside the initial PID namespace.
    pub hostname: String,
    /// Process id on that host.
    pub pid: u32,
    /// When the backup began.
    pub registered_at: String,
    /// When its heartbeat last wrote.
    pub last_refresh: String,
}

/// A held, or wanted, repository lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockMarker {
    /// Host name, as in [`SessionMarker`].
    pub hostname: String,
    /// Process id on that host.
    pub pid: u32,
    /// When it was written or last refreshed.
    pub time: String,
    /// The kernel's boot id, where known.
    #[serde(default)]
    pub boot_id: Option<String>,
}

/// Splits a lock's file name `<microseconds, 20 digits>-<32 hex digits>.json`.
pub fn parse_lock_name(name: &str) -> Option<u64> {
    let (time, random) = name.strip_suffix(".json")?.split_once('-')?;
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if time.len() != 20 || !time.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    if random.len() != 32 || !random.bytes().all(hex) {
        return None;
    }
    time.parse().ok()
}

/// A lock's file name.
pub fn lock_name(microseconds: u64, random: [u8; 16]) -> String {
    format!("{microseconds:020}-{}.json", crate::id::SessionId(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_names_round_trip_and_sort_by_time() {
        let name = lock_name(1_795_332_872_377_812, [0xa0; 16]);
        assert_eq!(name, format!("00001795332872377812-{}.json", "a0".repeat(16)));
        assert_eq!(parse_lock_name(&name), Some(1_795_332_872_377_812));
        assert_eq!(parse_lock_name("1-2.json"), None);
        assert_eq!(parse_lock_name(".tmp"), None);
        assert!(lock_name(9, [0xff; 16]) < lock_name(10, [0; 16]));
    }

    #[test]
    fn markers_are_json_with_known_names() {
        let text = r#"{"hostname":"h","pid":7,"time":"2026-01-01T00:00:00Z","boot_id":null}"#;
        let lock: LockMarker = serde_json::from_str(text).unwrap();
        assert_eq!((lock.pid, &lock.boot_id), (7, &None));
        assert_eq!(serde_json::to_string(&lock).unwrap(), text);
        let text = r#"{"hostname":"h","pid":7,"registered_at":"2026-01-01T00:00:00Z","last_refresh":"2026-01-01T00:05:00Z"}"#;
        let session: SessionMarker = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&session).unwrap(), text);
    }
}
