//! A backup's session: a marker that tells maintenance to wait, refreshed by a heartbeat, and a
//! journal of the packs that no index names yet.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::codec::Compression;
use crate::error::{Result, VykarError};
use crate::format::SessionMarker;
use crate::format::envelope::{ObjectKind, PENDING_CONTEXT};
use crate::id::SessionId;
use crate::platform::ProcessIdentity;
use crate::repository::lock::heartbeat::Heartbeat;
use crate::repository::lock::{liveness, session_id};
use crate::repository::{Claims, Keys, Repository, now_rfc3339};
use crate::storage::{Backend, PutMode};

/// The marker is rewritten when it is this old; the format asks for 15 minutes.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);

/// A registered session. Dropped before it is finished, it removes its marker, and leaves its journal to the next
/// backup of the same sources.
pub struct Session {
    id: SessionId,
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    heartbeat: Mutex<Option<Heartbeat>>,
    /// What says on this machine whose session this is.
    claim: OnceLock<PathBuf>,
    has_journal: AtomicBool,
    has_ended: AtomicBool,
}

impl Session {
    /// Writes the marker and starts the heartbeat.
    pub fn register(repository: &Repository) -> Result<Self> {
        let session = Session {
            id: session_id::new(repository.keys())?,
            backend: repository.backend().clone(),
            keys: repository.keys().clone(),
            heartbeat: Mutex::new(None),
            claim: OnceLock::new(),
            has_journal: AtomicBool::new(false),
            has_ended: AtomicBool::new(true),
        };
        let registered_at = now_rfc3339();
        let key = liveness::marker_key(&session.id);
        session.backend.put(&key, &marker(&registered_at)?, PutMode::Exclusive)?;
        session.has_ended.store(false, Ordering::Relaxed);
        let text = move || marker(&registered_at);
        let heartbeat = Heartbeat::start(session.backend.clone(), key, REFRESH_EVERY, text)?;
        *session.heartbeat.lock() = Some(heartbeat);
        Ok(session)
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Remembers on this machine whose session this is, for as long as there is something of it.
    pub fn claim(&self, claims: &Claims) {
        if let Some(path) = claims.add(&self.id) {
            let _ = self.claim.set(path);
        }
    }

    /// False once somebody removed the marker: what this session wrote may be gone.
    pub fn is_live(&self) -> Result<bool> {
        let lost = self.heartbeat.lock().as_ref().is_none_or(Heartbeat::is_lost);
        Ok(!lost && self.backend.exists(&liveness::marker_key(&self.id))?)
    }

    /// Writes the journal, whose plaintext `encode` writes; gives that one's length in bytes.
    pub fn write_journal(&self, encode: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<u64> {
        let kind = (ObjectKind::PendingIndex, PENDING_CONTEXT);
        let (object, len) = self.keys.seal_metadata(kind, "journal", Compression::Zstd(1), encode)?;
        // Before it is: a failed write may have been one.
        self.has_journal.store(true, Ordering::Relaxed);
        self.backend.put(&liveness::journal_key(&self.id), &object, PutMode::Replace)?;
        Ok(len)
    }

    /// Ends the session when everything is published: journal and marker are removed.
    pub fn finish(&self) -> Result<()> {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.stop_heartbeat();
        if self.has_journal.swap(false, Ordering::Relaxed) {
            self.backend.delete(&liveness::journal_key(&self.id))?;
        }
        self.remove_marker()
    }

    fn stop_heartbeat(&self) {
        // Waited for: it must not write the marker again.
        drop(self.heartbeat.lock().take());
    }

    /// The marker, and what says whose it is where nothing else is left.
    fn remove_marker(&self) -> Result<()> {
        self.backend.delete(&liveness::marker_key(&self.id))?;
        if let Some(claim) = self.claim.get()
            && !self.has_journal.load(Ordering::Relaxed)
        {
            let _ = fs::remove_file(claim);
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.has_ended.swap(true, Ordering::Relaxed) {
            self.stop_heartbeat();
            let _ = self.remove_marker();
        }
    }
}

fn marker(registered_at: &str) -> Result<Vec<u8>> {
    let me = ProcessIdentity::current();
    let marker = SessionMarker {
        hostname: me.host,
        pid: me.pid,
        registered_at: registered_at.to_owned(),
        last_refresh: now_rfc3339(),
    };
    serde_json::to_vec(&marker).map_err(|e| VykarError::Encode { what: "session", reason: e.to_string() })
}
