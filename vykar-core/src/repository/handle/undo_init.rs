//! Taking back what a failed `init` wrote.

use std::path::{Path, PathBuf};

use crate::error::{Result, VykarError};
use crate::repository::objects::layout;
use crate::repository::{CONFIG, INDEX, INDEX_GENERATION, REPOKEY};
use crate::storage::{Backend, folder};

/// A place where a repository is being made: which folders were not there before.
pub struct InitUndo {
    /// The innermost first.
    missing: Vec<PathBuf>,
}

impl InitUndo {
    /// To be called before anything is written.
    pub fn begin(backend: &dyn Backend) -> Self {
        let root = backend.local_path();
        let all = root.into_iter().flat_map(Path::ancestors).filter(|path| !path.as_os_str().is_empty());
        let missing = all.take_while(|path| path.symlink_metadata().is_err());
        InitUndo { missing: missing.map(Path::to_owned).collect() }
    }

    /// Passes the result on. What is left of a failure is removed, unless somebody else made a repository here meanwhile.
    pub fn end<T>(self, backend: &dyn Backend, result: Result<T>) -> Result<T> {
        if !matches!(result, Ok(_) | Err(VykarError::AlreadyARepository { .. })) {
            self.take_back(backend);
        }
        result
    }

    /// As far as that is possible: the next `init` here puts up with the rest.
    fn take_back(self, backend: &dyn Backend) {
        // `config` first: from then on there is no repository.
        for key in [CONFIG, INDEX_GENERATION, INDEX, REPOKEY] {
            let _ = backend.delete(key);
        }
        let Some(root) = backend.local_path() else { return };
        folder::remove_empty(root, layout::folders());
        for made in self.missing {
            if !folder::remove_root(&made) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use crate::format::Encryption;
    use crate::repository::{InitOptions, OpenOptions, Repository};
    use crate::storage::testing::{Fault, TestBackend};
    use crate::storage::{Backend, LocalBackend};

    fn init(backend: Arc<dyn Backend>, cache: &std::path::Path, passphrase: Option<&str>) -> bool {
        let options = OpenOptions { cache_dir: Some(cache.to_owned()), trust: false };
        let mut ask = || passphrase.map(|text| text.to_owned().into()).ok_or_else(|| "none".to_owned());
        Repository::init(backend, &InitOptions::new(Encryption::Aes256Gcm), &mut ask, &options).is_ok()
    }

    fn local(root: &std::path::Path) -> Arc<dyn Backend> {
        Arc::new(LocalBackend::new(root.to_owned()))
    }

    /// Whether it succeeds when the operation with this number fails.
    fn with_fault(root: &std::path::Path, cache: &std::path::Path, at: u64, fault: Fault) -> bool {
        init(Arc::new(TestBackend::failing(LocalBackend::new(root.to_owned()), at, fault)), cache, Some("x"))
    }

    #[test]
    fn an_init_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        assert!(!init(local(&dir.path().join("a/b/repo")), &cache, None));
        assert_eq!(names(), 1, "without a passphrase");
        for fault in [Fault::Error, Fault::LostReply] {
            let mut at = 0;
            while !with_fault(&dir.path().join("a/b/repo"), &cache, at, fault) {
                assert_eq!(names(), 1, "{fault:?} of operation {at}");
                at += 1;
            }
            assert!(at > 3, "writes were among those that failed");
            std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        }
        // A folder that was there stays, with its mode.
        let there = dir.path().join("there");
        std::fs::create_dir(&there).unwrap();
        std::fs::set_permissions(&there, std::fs::Permissions::from_mode(0o750)).unwrap();
        for at in 0..5 {
            assert!(!with_fault(&there, &cache, at, Fault::Error), "{at}");
            assert_eq!(std::fs::read_dir(&there).unwrap().count(), 0);
            assert_eq!(there.metadata().unwrap().permissions().mode() & 0o777, 0o750);
        }
        assert!(init(local(&there), &cache, Some("x")));
        // One that is there already is left alone.
        assert!(!init(local(&there), &cache, Some("x")));
        assert!(there.join("config").exists() && there.join("keys/repokey").exists());
    }
}
