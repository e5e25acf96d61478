//! Which unfinished sessions belong to which sources, as this machine remembers it.
//!
//! A session's journal says neither whose it is nor of what. So a backup leaves a file of its session's name in the
//! cache directory, which is removed with the journal: `sessions/<key of the sources>-<session id>`, empty.

use std::fs;
use std::path::PathBuf;

use crate::id::SessionId;
use crate::repository::Repository;

/// The sessions of one set of sources, and those of others. Without a cache directory nothing is remembered.
pub struct Claims {
    dir: Option<PathBuf>,
    key: String,
}

/// A session that somebody on this machine began.
pub struct Claim {
    /// The session.
    pub session: SessionId,
    /// By a backup of the same sources.
    pub is_ours: bool,
}

impl Claims {
    /// Of the sources with this key: letters and digits.
    pub fn new(repository: &Repository, key: String) -> Self {
        Claims { dir: repository.cache_dir().map(|dir| dir.join("sessions")), key }
    }

    fn path(&self, session: &SessionId) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{}-{session}", self.key)))
    }

    /// Remembers a session; gives the file to be removed when it leaves nothing behind. What fails here only means
    /// that the session is taken for one whose sources nobody remembers.
    pub fn add(&self, session: &SessionId) -> Option<PathBuf> {
        let path = self.path(session)?;
        crate::platform::private::make_dirs(path.parent()?).ok()?;
        crate::platform::private::write(&path, &[]).ok()?;
        Some(path)
    }

    /// Forgets a session of these sources.
    pub fn remove(&self, session: &SessionId) {
        if let Some(path) = self.path(session) {
            let _ = fs::remove_file(path);
        }
    }

    /// All that this machine remembers.
    pub fn list(&self) -> Vec<Claim> {
        let entries = self.dir.as_ref().and_then(|dir| fs::read_dir(dir).ok());
        let claim = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let (key, session) = name.to_str()?.rsplit_once('-')?;
            Some(Claim { session: session.parse().ok()?, is_ours: key == self.key })
        };
        entries.into_iter().flatten().flatten().filter_map(claim).collect()
    }
}
