//! A backup's session: a marker that tells maintenance to wait, refreshed by a heartbeat, and a
//! journal of the packs that no index names yet.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Keys, Repository, now_rfc3339};
use crate::codec::Compression;
use crate::codec::compress::compress_stream;
use crate::crypto::random;
use crate::error::{Result, VykarError};
use crate::format::SessionMarker;
use crate::format::envelope::{ObjectKind, PENDING_CONTEXT, seal_into};
use crate::id::SessionId;
use crate::platform::{ProcessIdentity, process::boot_nanos};
use crate::storage::{Backend, PutMode};

/// The marker is rewritten when it is this old; the format asks for 15 minutes.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often the heartbeat looks at the clock, which runs on while the machine sleeps.
const TICK: Duration = Duration::from_secs(20);

/// A registered session. Dropping it removes marker and journal as well as that can be done.
pub struct Session {
    id: SessionId,
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    heartbeat: Option<JoinHandle<()>>,
    registered_at: String,
}

struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
    lost: AtomicBool,
}

impl Session {
    /// Writes the marker and starts the heartbeat.
    pub fn register(repository: &Repository) -> Result<Self> {
        let mut session = Session {
            id: SessionId(random()?),
            backend: repository.backend().clone(),
            keys: repository.keys().clone(),
            shared: Arc::new(Shared {
                stop: Mutex::new(false),
                wake: Condvar::new(),
                lost: AtomicBool::new(false),
            }),
            heartbeat: None,
            registered_at: now_rfc3339(),
        };
        write_marker(&*session.backend, &session.marker_key(), &session.registered_at, PutMode::Exclusive)?;
        let (backend, shared) = (session.backend.clone(), session.shared.clone());
        let (key, registered) = (session.marker_key(), session.registered_at.clone());
        let thread = std::thread::Builder::new().name("vykar-heartbeat".into());
        let thread = thread.spawn(move || heartbeat(&*backend, &shared, &key, &registered));
        session.heartbeat = Some(thread.map_err(|e| VykarError::path("heartbeat thread", e))?);
        Ok(session)
    }

    fn marker_key(&self) -> String {
        format!("sessions/{}.json", self.id)
    }

    fn journal_key(&self) -> String {
        format!("sessions/{}.index", self.id)
    }

    /// False once somebody removed the marker: what this session wrote may be gone.
    pub fn is_live(&self) -> Result<bool> {
        Ok(!self.shared.lost.load(Ordering::Acquire) && self.backend.exists(&self.marker_key())?)
    }

    /// Writes the journal of all packs written so far, whose plaintext `encode` writes.
    pub fn write_journal(&self, encode: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let mut object = Vec::new();
        seal_into(self.keys.engine(), ObjectKind::PendingIndex, PENDING_CONTEXT, &mut object, |out| {
            compress_stream(Compression::Zstd(1), out, encode)
                .map_err(|e| VykarError::Encode { what: "journal", reason: e.to_string() })
        })?;
        Ok(self.backend.put(&self.journal_key(), &object, PutMode::Replace)?)
    }

    /// Ends the session: journal and marker are removed.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.heartbeat.take() else { return Ok(()) };
        *self.shared.stop.lock() = true;
        self.shared.wake.notify_all();
        let _ = thread.join();
        self.backend.delete(&self.journal_key())?;
        Ok(self.backend.delete(&self.marker_key())?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn write_marker(backend: &dyn Backend, key: &str, registered_at: &str, mode: PutMode) -> Result<()> {
    let me = ProcessIdentity::current();
    let marker = SessionMarker {
        hostname: me.host,
        pid: me.pid,
        registered_at: registered_at.to_owned(),
        last_refresh: now_rfc3339(),
    };
    let text = serde_json::to_vec(&marker)
        .map_err(|e| VykarError::Encode { what: "session", reason: e.to_string() })?;
    Ok(backend.put(key, &text, mode)?)
}

/// Refreshes the marker until told to stop. Never recreates one that has vanished: maintenance has
/// then judged this session dead, and its packs may be gone.
fn heartbeat(backend: &dyn Backend, shared: &Shared, key: &str, registered_at: &str) {
    let mut refreshed = boot_nanos();
    let mut stop = shared.stop.lock();
    while !*stop {
        shared.wake.wait_for(&mut stop, TICK);
        if *stop || u128::from(boot_nanos().saturating_sub(refreshed)) < REFRESH_EVERY.as_nanos() {
            continue;
        }
        match backend.exists(key) {
            Ok(false) => return shared.lost.store(true, Ordering::Release),
            // Storage trouble: the next tick tries again, the commit looks anyway.
            Err(_) => continue,
            Ok(true) => {}
        }
        if write_marker(backend, key, registered_at, PutMode::Replace).is_ok() {
            refreshed = boot_nanos();
        }
    }
}
