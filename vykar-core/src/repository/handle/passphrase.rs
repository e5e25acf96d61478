//! Another passphrase for the same master keys.

use crate::crypto::{kdf, pack_id};
use crate::error::{Result, VykarError};
use crate::format::{EncryptedKey, KdfParams, KeyExport, MasterKeys};
use crate::repository::handle::open::{read_key, unwrap_key};
use crate::repository::{LockOptions, Passphrase, REPOKEY, Repository, WriteGuard};
use crate::storage::PutMode;

impl Repository {
    /// Makes another passphrase open this repository, in place of the one that does. Nothing else is written, and
    /// whoever remembers the repository's identity still knows it: the master keys stay.
    ///
    /// At every moment one of the two opens it, and what was written is read back and opened before this returns.
    /// What was opened with the old one before can be used on; [`Repository::check_key`] wants it opened anew.
    ///
    /// # Errors
    /// [`VykarError::Usage`] where nothing is encrypted, [`VykarError::Changed`] when the key is not what this repository
    /// was opened with, and those of [`Repository::with_maintenance_lock`]; then nothing was changed.
    /// [`VykarError::Unfinished`] when it failed later, which says what holds now.
    pub fn change_passphrase(&self, old: &Passphrase, new: &Passphrase, lock: &LockOptions) -> Result<()> {
        self.wrap_anew(old, new, kdf::default_params()?, lock)
    }

    /// The key and the parameters, to be kept elsewhere.
    ///
    /// # Errors
    /// [`VykarError::Usage`] where nothing is encrypted, and [`VykarError::Changed`] when the key is not what this
    /// repository was opened with.
    pub fn export_key(&self) -> Result<KeyExport> {
        let object = self.opened_key()?;
        let key = EncryptedKey::decode(&object).map_err(|e| VykarError::damaged(REPOKEY, e))?;
        Ok(KeyExport { config: self.config().clone(), key })
    }

    /// The wrapped keys that this repository was opened with.
    fn opened_key(&self) -> Result<Vec<u8>> {
        let url = self.backend().url();
        let Some(opened) = self.key_object() else {
            return Err(VykarError::Usage(format!(
                "{url}: not encrypted, so it has no key and no passphrase"
            )));
        };
        let object = read_key(&**self.backend())?;
        match pack_id(&object) == opened {
            true => Ok(object),
            false => {
                let reason = format!("{REPOKEY} was replaced since the repository was opened");
                Err(VykarError::Changed { reason })
            }
        }
    }

    /// [`Repository::change_passphrase`] with other costs of the derivation.
    pub(crate) fn wrap_anew(
        &self,
        old: &Passphrase,
        new: &Passphrase,
        kdf: KdfParams,
        lock: &LockOptions,
    ) -> Result<()> {
        if self.key_object().is_none() {
            return self.opened_key().map(drop);
        }
        self.with_maintenance_lock(lock, |guard| {
            let before = self.opened_key()?;
            let master = self.unwrap(&before, old)?;
            let object = kdf::wrap(&master, new.as_bytes(), kdf)?.encode()?;
            self.demand_opens(&object, new, &master)?;
            self.replace_key(guard, &before, &object)
        })
    }

    /// Writes the new key object, and reads it back.
    fn replace_key(&self, guard: &WriteGuard<'_>, before: &[u8], object: &[u8]) -> Result<()> {
        let backend = self.backend();
        guard.check()?;
        let unfinished = |done: &str, source: VykarError| VykarError::Unfinished {
            done: done.to_owned(),
            source: Box::new(source),
        };
        if let Err(e) = backend.put(REPOKEY, object, PutMode::Replace) {
            let done = "the new key may have been written: either the old passphrase opens the repository, or the new one";
            return Err(unfinished(done, e.into()));
        }
        let back = match read_key(&**backend) {
            Ok(back) if back == object => return Ok(()),
            Ok(_) => VykarError::damaged(
                REPOKEY,
                crate::error::ObjectError::Unreadable("not what was written".into()),
            ),
            Err(e) => {
                let done = "the new key was written, and could not be read back: try the new passphrase, else the old one";
                return Err(unfinished(done, e));
            }
        };
        let done = match backend.put(REPOKEY, before, PutMode::Replace) {
            Ok(()) => "the new key did not read back as it was written, and the old one was put back",
            Err(_) => {
                "the new key did not read back as it was written, and the old one could not be put back"
            }
        };
        Err(unfinished(done, back))
    }

    /// What these bytes hold, if this passphrase opens them.
    fn unwrap(&self, object: &[u8], passphrase: &Passphrase) -> Result<MasterKeys> {
        let key = EncryptedKey::decode(object).map_err(|e| VykarError::damaged(REPOKEY, e))?;
        unwrap_key(self.backend().url(), &key, passphrase)
    }

    fn demand_opens(&self, object: &[u8], passphrase: &Passphrase, master: &MasterKeys) -> Result<()> {
        let back = self.unwrap(object, passphrase)?;
        let same = back.encryption_key == master.encryption_key && back.chunk_id_key == master.chunk_id_key;
        match same {
            true => Ok(()),
            false => {
                Err(VykarError::Encode { what: "repokey", reason: "it does not open as it was made".into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::format::Encryption;
    use crate::repository::{OpenOptions, Session};
    use crate::storage::{Backend, MemoryBackend};
    use crate::testing::TestRepository;

    fn lock() -> LockOptions {
        LockOptions { wait: Duration::from_millis(50), ..LockOptions::default() }
    }

    fn secret(text: &str) -> Passphrase {
        Passphrase::from(text.to_owned())
    }

    fn open(backend: &MemoryBackend, passphrase: &str, options: &OpenOptions) -> Result<Repository> {
        Repository::open(Arc::new(backend.clone()), &mut || Ok(secret(passphrase)), options)
    }

    #[test]
    fn another_passphrase_opens_what_is_there_and_the_old_one_does_not() {
        let mut test = TestRepository::with(Encryption::Chacha20Poly1305);
        test.snapshot("one", &[], None);
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let machines = [&here, &elsewhere]
            .map(|dir| OpenOptions { cache_dir: Some(dir.path().to_owned()), trust: false });
        let [first, _] = machines.each_ref().map(|options| open(&test.backend, "secret", options).unwrap());
        let old_key = test.backend.get(REPOKEY, 1000).unwrap();
        first.change_passphrase(&secret("secret"), &secret("geheim"), &lock()).unwrap();
        // What was open is: its keys are the same.
        assert_eq!(first.manifest().unwrap().snapshots.len(), 1);
        assert!(first.check_key().unwrap_err().to_string().contains("changed meanwhile"));
        for options in &machines {
            let error = open(&test.backend, "secret", options).err().unwrap();
            assert!(matches!(error, VykarError::WrongPassphrase { .. }), "{error}");
            let repository = open(&test.backend, "geheim", options).unwrap();
            repository.check_key().unwrap();
            assert!(repository.compare_with_last_time(None).unwrap().is_empty());
            assert_eq!(repository.manifest().unwrap().snapshots.len(), 1);
            repository.read_index().unwrap();
        }
        let new_key = EncryptedKey::decode(&test.backend.get(REPOKEY, 1000).unwrap()).unwrap();
        let old = EncryptedKey::decode(&old_key).unwrap();
        assert!(new_key.kdf.salt != old.kdf.salt && new_key.nonce != old.nonce);
        assert_eq!(
            (new_key.kdf.time_cost, new_key.kdf.memory_cost, new_key.kdf.parallelism, new_key.kdf.salt.len()),
            (3, 65_536, 4, 32)
        );
        assert!(test.backend.list("locks/").unwrap().is_empty());
        // Whoever kept the old object can still use it.
        test.backend.put(REPOKEY, &old_key, PutMode::Replace).unwrap();
        open(&test.backend, "secret", &machines[1]).unwrap();
    }

    #[test]
    fn nothing_is_changed_when_it_must_not_be() {
        let plain = TestRepository::new();
        let error = plain.repository.change_passphrase(&secret(""), &secret("x"), &lock()).unwrap_err();
        assert!(matches!(&error, VykarError::Usage(text) if text.contains("not encrypted")), "{error}");

        let test = TestRepository::with(Encryption::Aes256Gcm);
        let before = test.backend.get(REPOKEY, 1000).unwrap();
        let change = |old: &str| test.repository.change_passphrase(&secret(old), &secret("new"), &lock());
        assert!(matches!(change("wrong"), Err(VykarError::WrongPassphrase { .. })));
        let session = Session::register(&test.repository).unwrap();
        assert!(matches!(change("secret"), Err(VykarError::ActiveSessions { .. })));
        session.finish().unwrap();
        // Somebody else has changed it since this repository was opened.
        let other = open(&test.backend, "secret", &OpenOptions::default()).unwrap();
        other.change_passphrase(&secret("secret"), &secret("secret"), &lock()).unwrap();
        let theirs = test.backend.get(REPOKEY, 1000).unwrap();
        assert!(theirs != before);
        assert!(matches!(change("secret"), Err(VykarError::Changed { .. })));
        assert_eq!(test.backend.get(REPOKEY, 1000).unwrap(), theirs);
        assert!(test.backend.list("locks/").unwrap().is_empty());
    }
}
