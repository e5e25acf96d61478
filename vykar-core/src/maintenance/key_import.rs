//! Putting back a repository's key, and its parameters, from an export.

use std::sync::Arc;

use crate::crypto::pack_id;
use crate::error::{FormatError, ObjectError, Result, StorageError, VykarError};
use crate::format::{EncryptedKey, KeyExport, MAX_SMALL_OBJECT, RepoConfig, wire};
use crate::maintenance::repair::quarantine::set_aside;
use crate::repository::handle::open::PassphraseSource;
use crate::repository::objects::manifest::read_snapshot;
use crate::repository::{
    CONFIG, INDEX, LockOptions, Manifest, OpenOptions, REPOKEY, Repository, RepositoryLock,
};
use crate::storage::{Backend, PutMode};

/// What lies where an export is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Missing,
    /// Something that is none, for this reason.
    Damaged(String),
    /// What is in the export.
    Same,
    /// Something else that looks right.
    Other,
    /// What seems to be of a newer program, for this reason; or is damaged just so.
    Newer(String),
}

/// One of the two objects.
struct ImportTarget {
    key: &'static str,
    /// What is there now.
    bytes: Option<Vec<u8>>,
    held: Held,
    /// What is to be there.
    wanted: Vec<u8>,
}

/// An export that opens the repository it is to be written to.
pub struct KeyImport {
    repository: Repository,
    /// The key before the parameters, which make it a repository.
    targets: [ImportTarget; 2],
}

impl KeyImport {
    /// Looks at what is there, and whether the export opens it. Writes nothing.
    ///
    /// # Errors
    /// [`VykarError::Usage`] where another repository is, [`VykarError::WrongPassphrase`] when the passphrase is not that
    /// of the export, [`VykarError::KeyRefused`] when nothing that is there opens with it.
    pub fn prepare(
        backend: Arc<dyn Backend>,
        export: &KeyExport,
        passphrase: PassphraseSource<'_>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let wrapped = export.key.encode()?;
        let config = ImportTarget::look(&*backend, CONFIG, wire::encode(CONFIG, &export.config)?, |bytes| {
            let found = RepoConfig::decode(bytes)?;
            if found.id != export.config.id {
                let (url, found, wanted) = (backend.url(), found.id.short(), export.config.id.short());
                return Ok(Err(format!("{url}: this is repository {found}, and the export is of {wanted}")));
            }
            Ok(Ok(found == export.config))
        })?;
        let key = ImportTarget::look(&*backend, REPOKEY, wrapped.clone(), |bytes| {
            EncryptedKey::decode(bytes).map(|found| Ok(found == export.key))
        })?;
        let repository = Repository::from_export(backend, export, pack_id(&wrapped), passphrase, options)?;
        demand_opens(&repository)?;
        repository.check_identity(options)?;
        Ok(KeyImport { repository, targets: [key, config] })
    }

    /// What is under `keys/repokey` now.
    pub fn key(&self) -> &Held {
        &self.targets[0].held
    }

    /// What is under `config` now.
    pub fn config(&self) -> &Held {
        &self.targets[1].held
    }

    /// Writes what is not there. What it takes the place of is copied to `damaged/` before. Gives the keys of the
    /// objects that were written; all is durable then, and was read back.
    ///
    /// # Errors
    /// [`VykarError::Changed`] when something else is there than [`KeyImport::prepare`] found, and those of
    /// [`RepositoryLock::acquire`].
    pub fn apply(&self, lock: &LockOptions) -> Result<Vec<&'static str>> {
        // Not the lock for maintenance, which wants a repository. Backups that run have the same keys.
        let lock = RepositoryLock::acquire(&self.repository, lock)?;
        let backend = &**self.repository.backend();
        for target in &self.targets {
            if read(backend, target.key)? != target.bytes {
                let reason = format!("{} changed since it was looked at", target.key);
                return Err(VykarError::Changed { reason });
            }
        }
        let mut written = Vec::new();
        for target in self.targets.iter().filter(|target| target.held != Held::Same) {
            lock.check()?;
            self.write(target)?;
            written.push(target.key);
        }
        // What was to be done is done: a lock that stays behind goes stale by itself.
        let _ = lock.release();
        Ok(written)
    }

    fn write(&self, target: &ImportTarget) -> Result<()> {
        let backend = &**self.repository.backend();
        let mode = match &target.held {
            Held::Missing => PutMode::Exclusive,
            Held::Damaged(reason) => {
                set_aside(&self.repository, target.key, reason, None)?;
                PutMode::Replace
            }
            Held::Other | Held::Newer(_) | Held::Same => {
                set_aside(&self.repository, target.key, "replaced by one that was exported", None)?;
                PutMode::Replace
            }
        };
        backend.put(target.key, &target.wanted, mode)?;
        match read(backend, target.key)? {
            Some(back) if back == target.wanted => Ok(()),
            _ => Err(VykarError::damaged(target.key, ObjectError::Unreadable("not what was written".into()))),
        }
    }
}

impl ImportTarget {
    /// `compare` says whether it is the same, or why it must not be touched.
    fn look(
        backend: &dyn Backend,
        key: &'static str,
        wanted: Vec<u8>,
        compare: impl FnOnce(&[u8]) -> Result<Result<bool, String>, FormatError>,
    ) -> Result<Self> {
        let bytes = read(backend, key)?;
        let held = match bytes.as_deref().map(compare) {
            None => Held::Missing,
            Some(Ok(Ok(true))) => Held::Same,
            Some(Ok(Ok(false))) => Held::Other,
            Some(Ok(Err(reason))) => return Err(VykarError::Usage(reason)),
            Some(Err(e @ FormatError::Newer { .. })) => Held::Newer(e.to_string()),
            Some(Err(e)) => Held::Damaged(e.to_string()),
        };
        Ok(ImportTarget { key, bytes, held, wanted })
    }
}

/// What is there. What is far too long is cut, so that it is no object in any case.
fn read(backend: &dyn Backend, key: &str) -> Result<Option<Vec<u8>>> {
    match backend.get(key, MAX_SMALL_OBJECT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StorageError::NotFound { .. }) => Ok(None),
        Err(StorageError::TooLarge { .. }) => {
            Ok(Some(backend.get_range(key, 0, MAX_SMALL_OBJECT as usize)?))
        }
        Err(e) => Err(e.into()),
    }
}

/// A snapshot or the index opens with these keys.
fn demand_opens(repository: &Repository) -> Result<()> {
    let mut failed = None;
    for id in Manifest::ids(repository)? {
        match read_snapshot(repository, &id) {
            Ok(_) => return Ok(()),
            // It did open, and a newer program can read it.
            Err(VykarError::SnapshotUnusable { cause, .. }) if cause.is_newer() => return Ok(()),
            Err(e @ VykarError::SnapshotUnusable { .. }) => failed = Some(e),
            Err(VykarError::Storage(StorageError::NotFound { .. })) => {}
            Err(e) => return Err(e),
        }
    }
    if repository.backend().exists(INDEX)? {
        match repository.read_index() {
            Ok(_) => return Ok(()),
            Err(e @ VykarError::Storage(_)) => return Err(e),
            Err(e) => failed = Some(e),
        }
    }
    let reason = match failed {
        Some(e) => format!("it opens none of the repository's objects ({e})"),
        None => "there is neither a snapshot nor an index that it could open".to_owned(),
    };
    Err(VykarError::KeyRefused { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Encryption;
    use crate::repository::Passphrase;
    use crate::repository::objects::layout::KeyKind;
    use crate::storage::MemoryBackend;
    use crate::testing::TestRepository;

    fn lock() -> LockOptions {
        LockOptions { wait: std::time::Duration::from_millis(50), ..LockOptions::default() }
    }

    fn secret(text: &str) -> Passphrase {
        Passphrase::from(text.to_owned())
    }

    fn prepare(backend: &MemoryBackend, export: &KeyExport, passphrase: &str) -> Result<KeyImport> {
        let mut source = || Ok(secret(passphrase));
        KeyImport::prepare(Arc::new(backend.clone()), export, &mut source, &OpenOptions::default())
    }

    fn opens(backend: &MemoryBackend, passphrase: &str) -> bool {
        let opened = Repository::open(
            Arc::new(backend.clone()),
            &mut || Ok(secret(passphrase)),
            &OpenOptions::default(),
        );
        opened.is_ok_and(|repository| repository.manifest().unwrap().snapshots.len() == 1)
    }

    fn world() -> (TestRepository, KeyExport) {
        let mut test = TestRepository::with(Encryption::Aes256Gcm);
        test.snapshot("one", &[], None);
        let export = test.repository.export_key().unwrap();
        (test, export)
    }

    fn aside(backend: &MemoryBackend) -> usize {
        backend.list("damaged/").unwrap().iter().filter(|o| !o.key.ends_with(".json")).count()
    }

    #[test]
    fn what_is_missing_or_damaged_is_put_back() {
        let (test, export) = world();
        let backend = &test.backend;
        let whole = [REPOKEY, CONFIG].map(|key| backend.get(key, 1000).unwrap());
        let done = prepare(backend, &export, "secret").unwrap();
        assert_eq!((done.key(), done.config()), (&Held::Same, &Held::Same));
        assert!(done.apply(&lock()).unwrap().is_empty());
        for lost in [&[REPOKEY][..], &[CONFIG], &[REPOKEY, CONFIG]] {
            for key in lost {
                backend.delete(key).unwrap();
            }
            assert!(!opens(backend, "secret"));
            let import = prepare(backend, &export, "secret").unwrap();
            assert_eq!(*import.key() == Held::Missing, lost.contains(&REPOKEY));
            assert_eq!(import.apply(&lock()).unwrap(), lost);
            assert!(opens(backend, "secret"));
        }
        assert_eq!(aside(backend), 0);
        for (n, key) in [REPOKEY, CONFIG].into_iter().enumerate() {
            backend.put(key, b"\xc1garbage", PutMode::Replace).unwrap();
            let import = prepare(backend, &export, "secret").unwrap();
            assert_eq!(import.apply(&lock()).unwrap(), [key]);
            assert!(opens(backend, "secret"));
            assert_eq!(aside(backend), n + 1);
        }
        assert_eq!([REPOKEY, CONFIG].map(|key| backend.get(key, 1000).unwrap()), whole);
        assert!(backend.list("locks/").unwrap().is_empty());
        let known = |key: &str| KeyKind::of(key).is_some();
        assert!(backend.list("").unwrap().iter().all(|object| known(&object.key)));
    }

    #[test]
    fn another_key_is_replaced_and_kept() {
        let (test, export) = world();
        test.repository.change_passphrase(&secret("secret"), &secret("other"), &lock()).unwrap();
        let import = prepare(&test.backend, &export, "secret").unwrap();
        assert_eq!((import.key(), import.config()), (&Held::Other, &Held::Same));
        assert_eq!(import.apply(&lock()).unwrap(), [REPOKEY]);
        assert!(opens(&test.backend, "secret") && !opens(&test.backend, "other"));
        assert_eq!(aside(&test.backend), 1);
        // It is not as it was looked at.
        assert!(matches!(import.apply(&lock()), Err(VykarError::Changed { .. })));
    }

    #[test]
    fn what_opens_nothing_there_is_not_written() {
        let (test, export) = world();
        let (other, theirs) = world();
        test.backend.delete(REPOKEY).unwrap();
        let before = test.backend.list("").unwrap();
        assert!(matches!(prepare(&test.backend, &export, "x"), Err(VykarError::WrongPassphrase { .. })));
        assert!(matches!(prepare(&test.backend, &theirs, "secret"), Err(VykarError::Usage(_))));
        test.backend.delete(CONFIG).unwrap();
        let error = prepare(&test.backend, &theirs, "secret").err().unwrap();
        assert!(matches!(&error, VykarError::KeyRefused { .. }), "{error}");
        assert!(error.to_string().contains("opens none of"), "{error}");
        let error = prepare(&MemoryBackend::new(), &export, "secret").err().unwrap();
        assert!(error.to_string().contains("neither a snapshot nor an index"), "{error}");
        assert_eq!(test.backend.list("").unwrap().len(), before.len() - 1);
        // Without any snapshot that can be read the index will do, and the other way round.
        for gone in ["snapshots/", "index"] {
            let (test, export) = world();
            for object in test.backend.list("").unwrap().iter().filter(|o| o.key.starts_with(gone)) {
                test.backend.delete(&object.key).unwrap();
            }
            test.backend.delete(REPOKEY).unwrap();
            prepare(&test.backend, &export, "secret").unwrap();
        }
        // What a newer program wrote is not called damaged.
        let mut newer = other.backend.get(CONFIG, 1000).unwrap();
        newer[1] = 3;
        other.backend.put(CONFIG, &newer, PutMode::Replace).unwrap();
        let import = prepare(&other.backend, &theirs, "secret").unwrap();
        assert!(matches!(import.config(), Held::Newer(why) if why.contains("layout version 3")));
    }
}
