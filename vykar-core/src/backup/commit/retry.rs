//! A backup is attempted, and once more when what it counted on was removed meanwhile: what is still there, its own
//! packs included, is then known, so that only what is gone is stored again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::backup::commit::publish::{Commit, Published, Refusal};
use crate::backup::commit::references::BackupReferences;
use crate::backup::parent::selection::SourceIdentity;
use crate::backup::pipeline::chunk_store::ChunkStore;
use crate::backup::run::BackupRun;
use crate::backup::{BackupOptions, BackupSummary, Sources};
use crate::error::{Result, VykarError};
use crate::event::emit;
use crate::event::{Event, Events};
use crate::format::SnapshotMeta;
use crate::format::note::{COPIED_FROM, noted};
use crate::id::SessionId;
use crate::repository::lock::repository_lock::wait_until_free;
use crate::repository::objects::pack_writer::{PackOutput, PackUploader, PackWriter};
use crate::repository::{
    AbandonedSessions, Claims, Journal, LockOptions, LostPacks, OpenIndex, Repository, Session,
};
use crate::stage::{Stage, Stages};

/// Attempts before a backup gives up.
const ATTEMPTS: usize = 3;
/// Kind of the names of [`Claims`]; the file caches have 0 and 1.
const CLAIMS: u8 = 2;

/// What all attempts have in common.
pub struct BackupTask<'t> {
    pub repository: &'t Repository,
    pub options: &'t BackupOptions,
    pub sources: &'t Sources,
    pub identity: SourceIdentity,
    pub claims: Claims,
    pub lock: LockOptions,
    pub stages: Arc<Stages>,
    /// Plaintext bytes of new chunks of file contents.
    pub added: AtomicU64,
    /// The same, as stored.
    pub added_stored: AtomicU64,
}

impl<'t> BackupTask<'t> {
    /// Nothing is done yet.
    pub fn new(repository: &'t Repository, options: &'t BackupOptions, sources: &'t Sources) -> Result<Self> {
        let identity = SourceIdentity::new(options, sources);
        let name = identity.name(repository.keys().hasher(), CLAIMS)?;
        Ok(BackupTask {
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
        let attempts = Attempts {
            repository: self.repository,
            claims: &self.claims,
            lock: &self.lock,
            stages: &self.stages,
        };
        attempts.run(events, &mut |ground, events| {
            let run = BackupRun::prepare(self, ground)?;
            let stored = run.store(events)?;
            run.publish(stored, events)
        })
    }
}

/// Does something that ends with a new snapshot, and once more when what it counted on was removed meanwhile.
pub struct Attempts<'a> {
    pub repository: &'a Repository,
    pub claims: &'a Claims,
    pub lock: &'a LockOptions,
    pub stages: &'a Stages,
}

/// One attempt.
type Attempt<'f, T> = &'f mut dyn FnMut(&BaseState, &mut Events<'_>) -> Result<T, Refusal>;

impl Attempts<'_> {
    /// Attempts it, each time in a session of its own.
    ///
    /// # Errors
    /// Nothing is published. What was stored is named by a journal, for the next one with the same claims.
    pub fn run<T>(&self, events: &mut Events<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let mut before = Vec::new();
        let mut last = None;
        let mut gone = String::new();
        for _ in 0..ATTEMPTS {
            let session = Arc::new(Session::register(self.repository)?);
            session.claim(self.claims);
            // Not earlier: no maintenance may come between them and remove what has been stored.
            drop(last.take());
            match self.attempt(&session, &before, events, attempt) {
                Ok(done) => {
                    // The snapshot is published: a marker that stays behind goes stale by itself.
                    if let Err(e) = session.finish() {
                        let note = format!("the session marker could not be removed: {e}");
                        emit(events, Event::Note(note));
                    }
                    return Ok(done);
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

    fn attempt<T>(
        &self,
        session: &Arc<Session>,
        before: &[SessionId],
        events: &mut Events<'_>,
        attempt: Attempt<'_, T>,
    ) -> Result<T, Refusal> {
        wait_until_free(self.repository, self.lock)?;
        self.repository.refuse_rollback()?;
        let ground = BaseState::prepare(self, session.clone(), before, events)?;
        let done = attempt(&ground, events);
        if done.is_err() {
            // Without it the next backup stores more, that is all.
            let _ = ground.journal.write();
        }
        if let Some(warning) = ground.journal.warning() {
            emit(events, Event::Note(warning));
        }
        done
    }
}

/// What an attempt stands on: the index when it began, and what is in the repository beside it.
pub struct BaseState {
    pub session: Arc<Session>,
    pub base: OpenIndex,
    pub references: Arc<BackupReferences>,
    /// What this attempt has stored.
    pub journal: Arc<Journal>,
}

impl BaseState {
    /// Reads the index, and takes up what unfinished backups left: those of the same sources, and those of `before`.
    fn prepare(
        attempts: &Attempts<'_>,
        session: Arc<Session>,
        before: &[SessionId],
        events: &mut Events<'_>,
    ) -> Result<Self> {
        let Attempts { repository, claims, stages, .. } = *attempts;
        let base = stages.time(Stage::Index, || repository.open_index())?;
        let lost = LostPacks::find(repository, &base.index.chunks)?;
        if before.is_empty() && !lost.is_empty() {
            let note = format!(
                "{} pack(s) that the index names are missing or too short: what this backup needs of them is stored again; \
                 `vykar check` shows which snapshots they belong to",
                lost.len()
            );
            emit(events, Event::Note(note));
        }
        let left = AbandonedSessions::find(repository, claims, session.id(), before)?;
        let (taken, notes) = left.read(&base.index, &lost)?;
        let taken = Arc::new(taken);
        let references = Arc::new(BackupReferences::new(base.index.clone(), taken.clone(), lost));
        let journal = Arc::new(Journal::new(session.clone(), references.clone(), taken.clone()));
        match journal.write() {
            // Only when our journal names their packs.
            Ok(()) => left.remove(claims),
            // Too much for one journal: theirs stay.
            Err(VykarError::Encode { .. }) => {}
            Err(e) => return Err(e),
        }
        notes.into_iter().for_each(|note| emit(events, Event::Note(note)));
        if before.is_empty() && !taken.is_empty() {
            let packs = taken.packs().count();
            emit(events, Event::Note(format!("{packs} pack(s) of an unfinished backup are taken up")));
        }
        Ok(BaseState { session, base, references, journal })
    }

    /// Where chunks go, and the threads that write them.
    pub fn open_store<'g>(
        &'g self,
        repository: &'g Repository,
        stages: &'g Arc<Stages>,
    ) -> Result<(ChunkStore<'g>, PackUploader)> {
        let output = PackOutput {
            backend: repository.backend().clone(),
            journal: self.journal.clone(),
            stages: stages.clone(),
        };
        let data_packs = self.base.index.chunks.packs().len();
        let (packs, uploader) = PackWriter::start(output, repository.config(), data_packs)?;
        Ok((ChunkStore::new(repository.keys(), &self.references, packs, stages), uploader))
    }

    /// Publishes a snapshot that refers to what was stored.
    pub fn publish(
        &self,
        repository: &Repository,
        lock: &LockOptions,
        meta: &SnapshotMeta,
    ) -> Result<Published, Refusal> {
        let commit = Commit {
            repository,
            session: &self.session,
            base: &self.base,
            references: &self.references,
            packs: &self.journal.packs(),
            lock,
            copy_of: noted(meta, COPIED_FROM),
        };
        commit.publish(meta)
    }
}
