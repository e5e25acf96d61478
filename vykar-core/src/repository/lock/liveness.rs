//! Other programs' locks and sessions, and whether anybody is behind them.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Result, StorageError};
use crate::format::marker::parse_lock_name;
use crate::format::{LockMarker, MAX_SMALL_OBJECT, SessionMarker};
use crate::id::SessionId;
use crate::platform::ProcessIdentity;
use crate::repository::Repository;
use crate::repository::lock::session_id;
use crate::repository::lock::session_id::SessionOrigin;
use crate::storage::Backend;

/// A lock that was not refreshed for this long is nobody's.
pub const LOCK_STALE_AFTER: Duration = Duration::from_secs(6 * 3600);
/// A session that was not refreshed for this long is nobody's.
pub const SESSION_STALE_AFTER: Duration = Duration::from_secs(72 * 3600);

/// What is known about the process behind a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs on this machine.
    Alive,
    /// Nothing speaks against it: it is another machine's, and not too old.
    Unknown,
    /// It ran on this machine and is certainly gone.
    Dead,
    /// Not refreshed for so long that it counts as dead.
    Stale,
    /// The marker cannot be read: only a person can tell.
    Unreadable,
}

impl Liveness {
    /// True when it is nobody's, and may be removed unasked.
    pub fn is_over(self) -> bool {
        matches!(self, Liveness::Dead | Liveness::Stale)
    }
}

/// A lock under `locks/`.
#[derive(Debug, Clone)]
pub struct LockInfo {
    /// Its key.
    pub key: String,
    /// What it says, when it can be read.
    pub marker: Option<LockMarker>,
    /// Who is behind it.
    pub standing: Liveness,
}

impl LockInfo {
    /// All locks, in the order of their keys.
    pub fn list(repository: &Repository) -> Result<Vec<Self>> {
        Self::list_at(repository.backend().as_ref())
    }

    /// The same where there may be no repository any more.
    pub fn list_at(backend: &dyn Backend) -> Result<Vec<Self>> {
        let me = ProcessIdentity::current();
        let is_lock = |name: &str| parse_lock_name(name).is_some();
        read_markers(backend, "locks/", is_lock)
            .map(|found| found.into_iter().map(|(key, marker)| LockInfo::new(key, marker, &me)).collect())
    }

    fn new(key: String, marker: Option<LockMarker>, me: &ProcessIdentity) -> Self {
        let standing = marker.as_ref().map_or(Liveness::Unreadable, |m| {
            let boot_id = m.boot_id.as_deref();
            judge(&m.time, LOCK_STALE_AFTER, |written| {
                match me.is_running(&m.hostname, m.pid, boot_id, written) {
                    // Without the boot's id, the process may be one of an earlier boot.
                    Some(false) if boot_id.is_some() => Liveness::Dead,
                    Some(true) => Liveness::Alive,
                    _ if me.proves_dead(&m.hostname, m.pid, boot_id, written) => Liveness::Dead,
                    _ => Liveness::Unknown,
                }
            })
        });
        LockInfo { key, marker, standing }
    }

    /// One line: host, process, since when.
    pub fn describe(&self) -> String {
        match &self.marker {
            Some(m) => format!("{} (process {}, since {})", m.hostname, m.pid, m.time),
            None => format!("an unreadable lock object {}", self.key),
        }
    }
}

/// A backup's session under `sessions/`.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// What its marker says; `None` when that cannot be read.
    pub marker: Option<SessionMarker>,
    /// Who is behind it.
    pub standing: Liveness,
}

impl SessionInfo {
    /// All sessions that have a marker, in the order of their ids.
    pub fn list(repository: &Repository) -> Result<Vec<Self>> {
        Self::with_origins(repository.backend().as_ref(), &|id| session_id::origin(repository.keys(), id))
    }

    /// The same where there may be no repository any more.
    pub fn list_at(backend: &dyn Backend) -> Result<Vec<Self>> {
        Self::with_origins(backend, &|_| SessionOrigin::Unknown)
    }

    fn with_origins(
        backend: &dyn Backend,
        origin: &dyn Fn(&SessionId) -> SessionOrigin,
    ) -> Result<Vec<Self>> {
        let me = ProcessIdentity::current();
        let found = read_markers(backend, "sessions/", |name| session_of(name).is_some())?;
        let info = |(key, marker): (String, Option<SessionMarker>)| {
            let id = session_of(key.strip_prefix("sessions/")?)?;
            let standing =
                marker.as_ref().map_or(Liveness::Unreadable, |m| judge_session(m, origin(&id), &me));
            Some(SessionInfo { id, marker, standing })
        };
        Ok(found.into_iter().filter_map(info).collect())
    }

    /// Its marker's key.
    pub fn marker_key(&self) -> String {
        marker_key(&self.id)
    }

    /// Its journal's key.
    pub fn journal_key(&self) -> String {
        journal_key(&self.id)
    }

    /// One line: host, process, since when.
    pub fn describe(&self) -> String {
        match &self.marker {
            Some(m) => format!("{} (process {}, since {})", m.hostname, m.pid, m.registered_at),
            None => format!("an unreadable marker {}", self.marker_key()),
        }
    }
}

/// Key of a session's marker.
pub fn marker_key(id: &SessionId) -> String {
    format!("sessions/{id}.json")
}

/// Key of a session's journal.
pub fn journal_key(id: &SessionId) -> String {
    format!("sessions/{id}.index")
}

fn session_of(name: &str) -> Option<SessionId> {
    name.strip_suffix(".json")?.parse().ok()
}

/// For [`crate::fuzzing`]: what a lock's marker says of this machine.
pub fn judge_lock(marker: LockMarker) {
    let info = LockInfo::new("locks/x".into(), Some(marker), &ProcessIdentity::current());
    assert!(!info.describe().is_empty());
}

/// The same for a session's marker.
pub fn judge_session_marker(marker: SessionMarker) {
    let _ = judge_session(&marker, SessionOrigin::Unknown, &ProcessIdentity::current());
}

fn judge_session(marker: &SessionMarker, origin: SessionOrigin, me: &ProcessIdentity) -> Liveness {
    let Ok(registered) = marker.registered_at.parse::<Timestamp>() else { return Liveness::Unreadable };
    judge(&marker.last_refresh, SESSION_STALE_AFTER, |refreshed| {
        // The process was there at both. The later one makes up for a clock that was set in between.
        let since = registered.max(refreshed);
        match origin {
            // Of the same host name only.
            SessionOrigin::Elsewhere => Liveness::Unknown,
            SessionOrigin::EarlierBoot if me.was_before_boot(&marker.hostname, since) => Liveness::Dead,
            // A copy of this machine, perhaps, which runs beside it.
            SessionOrigin::EarlierBoot => Liveness::Unknown,
            SessionOrigin::ThisBoot | SessionOrigin::Unknown => {
                match me.is_running(&marker.hostname, marker.pid, None, since) {
                    Some(true) => Liveness::Alive,
                    Some(false) => Liveness::Dead,
                    None => Liveness::Unknown,
                }
            }
        }
    })
}

fn judge(written: &str, stale_after: Duration, process: impl FnOnce(Timestamp) -> Liveness) -> Liveness {
    let Ok(written) = written.parse::<Timestamp>() else { return Liveness::Unreadable };
    let age = Duration::try_from(crate::clock::now().duration_since(written));
    match process(written) {
        Liveness::Dead => Liveness::Dead,
        _ if age.is_ok_and(|age| age > stale_after) => Liveness::Stale,
        other => other,
    }
}

/// Keys below a prefix whose names are of a kind, and what they say where that can be read.
fn read_markers<M: serde::de::DeserializeOwned>(
    backend: &dyn Backend,
    prefix: &str,
    is_one: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Option<M>)>> {
    let mut found = Vec::new();
    for object in backend.list(prefix)? {
        if !object.key.strip_prefix(prefix).is_some_and(&is_one) {
            continue;
        }
        let marker = match backend.get(&object.key, MAX_SMALL_OBJECT) {
            // Gone since it was listed.
            Err(StorageError::NotFound { .. }) => continue,
            Err(StorageError::TooLarge { .. }) => None,
            other => serde_json::from_slice(&other?).ok(),
        };
        found.push((object.key, marker));
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_is_not_taken_for_dead_when_the_clock_was_set_forward() {
        let me = ProcessIdentity::current();
        let ago =
            |hours: u64| Timestamp::now().checked_sub(Duration::from_secs(hours * 3600)).unwrap().to_string();
        let session = |registered: u64, refreshed: u64| {
            let (host, pid) = (me.host.clone(), me.pid);
            let (registered_at, last_refresh) = (ago(registered), ago(refreshed));
            let marker = SessionMarker { hostname: host, pid, registered_at, last_refresh };
            judge_session(&marker, SessionOrigin::ThisBoot, &me)
        };
        // By the clock as it is now, this process began after it had registered itself.
        assert_eq!(session(50, 0), Liveness::Alive);
        assert_eq!(session(50, 49), Liveness::Unknown);
        assert_eq!(session(99, 98), Liveness::Stale);
        let gone = |origin, days: i64| {
            let at =
                Timestamp::now().checked_sub(Duration::from_secs(days as u64 * 86400)).unwrap().to_string();
            let (registered_at, last_refresh) = (at.clone(), at);
            let marker =
                SessionMarker { hostname: me.host.clone(), pid: 1 << 30, registered_at, last_refresh };
            judge_session(&marker, origin, &me)
        };
        assert_eq!(gone(SessionOrigin::ThisBoot, 0), Liveness::Dead);
        assert_eq!(gone(SessionOrigin::Unknown, 0), Liveness::Dead);
        // A machine of the same name, or a copy of this one.
        assert_eq!(gone(SessionOrigin::Elsewhere, 0), Liveness::Unknown);
        assert_eq!(gone(SessionOrigin::EarlierBoot, 0), Liveness::Unknown);
        assert_eq!(
            gone(SessionOrigin::EarlierBoot, 20_000),
            Liveness::Dead,
            "older than this boot, and not only stale"
        );
        let lock = |hours| {
            let (hostname, pid, boot_id) = (me.host.clone(), me.pid, me.boot_id.clone());
            LockInfo::new(
                "locks/x".into(),
                Some(LockMarker { hostname, pid, time: ago(hours), boot_id }),
                &me,
            )
        };
        assert_eq!(lock(0).standing, Liveness::Alive);
        assert_eq!(lock(5).standing, Liveness::Unknown);
        assert_eq!(lock(7).standing, Liveness::Stale);
    }
}
