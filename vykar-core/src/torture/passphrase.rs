//! A change of the passphrase is cut off: at every moment either the old one opens the repository, or the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::world::{copy, scratch};
use super::{is_thorough, tell};
use crate::crypto::kdf;
use crate::error::Result;
use crate::format::{Encryption, KdfParams};
use crate::repository::{InitOptions, LockOptions, OpenOptions, Passphrase, Repository};
use crate::storage::disk::log::{DiskLog, Model, Survives};
use crate::storage::testing::{FAULTS, TestBackend};
use crate::storage::{Backend, LocalBackend};
use crate::testing::Dice;

const OLD: &str = "the old one";
const NEW: &str = "the new one";

/// As cheap as can be: keys are derived thousands of times.
fn cheap() -> KdfParams {
    KdfParams { time_cost: 1, memory_cost: 8, parallelism: 1, ..kdf::default_params().unwrap() }
}

/// An encrypted repository that the old passphrase opens.
fn repository() -> TempDir {
    let dir = scratch();
    let backend = Arc::new(LocalBackend::new(repo(&dir)));
    let options = InitOptions::new(Encryption::Aes256Gcm);
    let mut secret = || Ok(Passphrase::from(OLD.to_owned()));
    let made = Repository::init(backend, &options, &mut secret, &OpenOptions::default()).unwrap();
    change(&made, OLD, OLD).unwrap();
    dir
}

fn repo(dir: &TempDir) -> PathBuf {
    dir.path().join("repo")
}

fn open(backend: Arc<dyn Backend>, passphrase: &str) -> Result<Repository> {
    Repository::open(backend, &mut || Ok(passphrase.to_owned().into()), &OpenOptions::default())
}

fn change(repository: &Repository, old: &str, new: &str) -> Result<()> {
    let lock = LockOptions { wait: Duration::from_secs(5), ..LockOptions::default() };
    repository.wrap_anew(&old.to_owned().into(), &new.to_owned().into(), cheap(), &lock)
}

/// Which of the two opens it, and what is in it. It must be one.
fn opened_by(repo: &Path, when: &str) -> &'static str {
    let opens = |passphrase: &&&str| match open(Arc::new(LocalBackend::new(repo)), passphrase) {
        Ok(repository) => repository.read_index().is_ok(),
        Err(crate::VykarError::WrongPassphrase { .. }) => false,
        Err(e) => panic!("{when}: {e}"),
    };
    let both: Vec<_> = [OLD, NEW].iter().filter(opens).copied().collect();
    assert_eq!(both.len(), 1, "{when}: opened by {both:?}");
    both[0]
}

/// What was cut off goes on where it can.
fn again(repo: &Path, when: &str) {
    let _ = std::fs::remove_dir_all(repo.join("locks"));
    let now = opened_by(repo, when);
    change(&open(Arc::new(LocalBackend::new(repo)), now).unwrap(), now, NEW).unwrap();
    assert_eq!(opened_by(repo, when), NEW, "{when}, and again");
}

#[test]
fn changing_the_passphrase_survives_every_fault() {
    let template = repository();
    for fault in FAULTS {
        let (mut at, mut failed) = (0, 0);
        loop {
            let when = format!("passphrase, {fault:?} at {at}");
            let dir = scratch();
            copy(&repo(&template), &repo(&dir));
            let backend = Arc::new(TestBackend::failing(LocalBackend::new(repo(&dir)), at, fault));
            let done = open(backend.clone(), OLD).and_then(|repository| change(&repository, OLD, NEW));
            let now = opened_by(&repo(&dir), &when);
            if done.is_ok() {
                assert_eq!(now, NEW, "{when}: said to be done");
            }
            failed += u64::from(done.is_err());
            again(&repo(&dir), &when);
            if backend.calls() <= at {
                assert!(done.is_ok(), "{when}: {done:?} without a fault");
                break;
            }
            at += 1;
        }
        tell(&format!("faults, passphrase, {fault:?}: {at} operations, {failed} failed it"));
        assert!(at > 5, "only {at} operations");
    }
}

#[test]
fn changing_the_passphrase_survives_every_power_cut() {
    let dir = repository();
    let mut model = Model::of(&repo(&dir)).unwrap();
    let log = Arc::new(DiskLog::default());
    let opened = open(Arc::new(LocalBackend::logging(repo(&dir), log.clone())), OLD).unwrap();
    change(&opened, OLD, NEW).unwrap();
    let entries = log.entries();
    let mut dice = Dice::new(11);
    let mut seen = std::collections::BTreeSet::new();
    for at in 0..=entries.len() {
        if at > 0 {
            model.apply(&entries[at - 1]);
        }
        for try_number in 0..if is_thorough() { 40 } else { 6 } {
            let when = format!("passphrase, cut after {at} calls, {try_number}");
            let mut choose = |among: usize| dice.below(among);
            let survives = match try_number {
                0 => Survives::Nothing,
                1 => Survives::Everything,
                _ => Survives::Chosen(&mut choose),
            };
            let left = scratch();
            model.cut(&repo(&dir), &repo(&left), survives).unwrap();
            let now = opened_by(&repo(&left), &when);
            seen.insert(now);
            assert!(at < entries.len() || now == NEW, "{when}: said to be done");
            again(&repo(&left), &when);
        }
    }
    tell(&format!("power cuts, passphrase: {} calls", entries.len()));
    assert_eq!(seen.len(), 2, "{seen:?}");
}
