//! A backup is attempted, and once more when what it counted on was removed meanwhile: what is still there, its own
//! packs included, is then known, so that only what is gone is stored again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::commit::Refusal;
use super::identity::Identity;
use super::run::Run;
use super::{BackupOptions, BackupSummary, Sources, emit};
use crate::error::{Result, VykarError};
use crate::event::{Event, Events};
use crate::id::SessionId;
use crate::repository::lock::wait_until_free;
use crate::repository::{Claims, LockOptions, Repository, Session};
use crate::stage::Stages;

/// Attempts before a backup gives up.
const ATTEMPTS: usize = 3;
/// Kind of the names of [`Claims`]; the file caches have 0 and 1.
const CLAIMS: u8 = 2;

/// What all attempts have in common.
pub struct Task<'t> {
    pub repository: &'t Repository,
    pub options: &'t BackupOptions,
    pub sources: &'t Sources,
    pub identity: Identity,
    pub claims: Claims,
    pub lock: LockOptions,
    pub stages: Arc<Stages>,
    /// Plaintext bytes of new chunks of file contents.
    pub added: AtomicU64,
    /// The same, as stored.
    pub added_stored: AtomicU64,
}

impl<'t> Task<'t> {
    /// Nothing is done yet.
    pub fn new(repository: &'t Repository, options: &'t BackupOptions, sources: &'t Sources) -> Result<Self> {
        let identity = Identity::new(options, sources);
        let name = identity.name(repository.keys().hasher(), CLAIMS)?;
        Ok(Task {
            repository,
            options,
            sources,
            identity,
            claims: Claims::new(repository, name),
            lock: LockOptions { cancel: options.cancel.clone(), ..options.lock.clone() },
            stages: Arc::default(),
            added: AtomicU64::new(0),
            added_stored: AtomicU64::new(0),
        })
    }

    /// Attempts it until it is published.
    ///
    /// # Errors
    /// Nothing is published. What was stored is named by a journal, for the next backup.
    pub fn run(&self, events: &mut Events<'_>) -> Result<BackupSummary> {
        let mut before = Vec::new();
        let mut last = None;
        let mut gone = String::new();
        for _ in 0..ATTEMPTS {
            let session = Arc::new(Session::register(self.repository)?);
            session.claim(&self.claims);
            // Not earlier: no maintenance may come between them and remove what has been stored.
            drop(last.take());
            match self.attempt(&session, &before, events) {
                Ok(summary) => {
                    // The snapshot is published: a marker that stays behind goes stale by itself.
                    if let Err(e) = session.finish() {
                        let note = format!("the session marker could not be removed: {e}");
                        emit(events, Event::Note(note));
                    }
                    return Ok(summary);
                }
                Err(Refusal::Failed(e)) => return Err(e),
                Err(Refusal::Gone(what)) => gone = what,
            }
            emit(events, Event::Note(format!("{gone} while this backup ran: storing again what is gone")));
            before.push(*session.id());
            last = Some(session);
        }
        Err(VykarError::CommitRefused { reason: format!("{gone} while this backup ran, each time") })
    }

    fn attempt(
        &self,
        session: &Arc<Session>,
        before: &[SessionId],
        events: &mut Events<'_>,
    ) -> Result<BackupSummary, Refusal> {
        wait_until_free(self.repository, &self.lock)?;
        self.repository.refuse_rollback()?;
        let run = Run::prepare(self, session.clone(), before, events)?;
        let done = run.store(events).map_err(Refusal::Failed).and_then(|stored| run.publish(stored, events));
        if done.is_err() {
            // Without it the next backup stores more, that is all.
            let _ = run.journal.write();
        }
        if let Some(warning) = run.journal.warning() {
            emit(events, Event::Note(warning));
        }
        done
    }
}
