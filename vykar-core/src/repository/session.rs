//! A backup's session: a marker that tells maintenance to wait, refreshed by a heartbeat, and a
//! journal of the packs that no index names yet.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::heartbeat::Heartbeat;
use super::{Keys, Repository, now_rfc3339, standing};
use crate::codec::Compression;
use crate::codec::compress::compress_stream;
use crate::crypto::random;
use crate::error::{Result, VykarError};
use crate::format::SessionMarker;
use crate::format::envelope::{ObjectKind, PENDING_CONTEXT, seal_into};
use crate::id::SessionId;
use crate::platform::ProcessIdentity;
use crate::storage::{Backend, PutMode};

/// The marker is rewritten when it is this old; the format asks for 15 minutes.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);

/// A registered session. Dropping it removes marker and journal as well as that can be done.
pub struct Session {
    id: SessionId,
    backend: Arc<dyn Backend>,
    keys: Arc<Keys>,
    heartbeat: Option<Heartbeat>,
    ended: bool,
}

impl Session {
    /// Writes the marker and starts the heartbeat.
    pub fn register(repository: &Repository) -> Result<Self> {
        let mut session = Session {
            id: SessionId(random()?),
            backend: repository.backend().clone(),
            keys: repository.keys().clone(),
            heartbeat: None,
            ended: true,
        };
        let registered_at = now_rfc3339();
        session.backend.put(&session.marker_key(), &marker(&registered_at)?, PutMode::Exclusive)?;
        session.ended = false;
        let text = move || marker(&registered_at);
        let heartbeat = Heartbeat::start(session.backend.clone(), session.marker_key(), REFRESH_EVERY, text);
        session.heartbeat = Some(heartbeat?);
        Ok(session)
    }

    fn marker_key(&self) -> String {
        standing::marker_key(&self.id)
    }

    fn journal_key(&self) -> String {
        standing::journal_key(&self.id)
    }

    /// False once somebody removed the marker: what this session wrote may be gone.
    pub fn is_live(&self) -> Result<bool> {
        let lost = self.heartbeat.as_ref().is_none_or(Heartbeat::is_lost);
        Ok(!lost && self.backend.exists(&self.marker_key())?)
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
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        // Stopped first: it must not write the marker again.
        drop(self.heartbeat.take());
        self.backend.delete(&self.journal_key())?;
        Ok(self.backend.delete(&self.marker_key())?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.end();
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
