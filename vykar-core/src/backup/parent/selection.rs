//! Which backups are of the same sources.

use crate::backup::{BackupOptions, Sources};
use crate::crypto::ChunkHasher;
use crate::error::Result;
use crate::format::Snapshot;
use crate::id::ChunkId;
use crate::platform::process;

/// Whose backup this is, and of what.
pub struct SourceIdentity {
    pub hostname: String,
    pub label: String,
    /// As the snapshot names them.
    pub paths: Vec<String>,
}

impl SourceIdentity {
    /// As the options say, or as this machine and the sources suggest.
    pub fn new(options: &BackupOptions, sources: &Sources) -> Self {
        let mut paths: Vec<String> = sources.paths.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        if paths.is_empty() {
            paths.extend(options.streams.iter().map(|stream| stream.path.clone()));
        }
        SourceIdentity {
            hostname: options.hostname.clone().unwrap_or_else(process::short_hostname),
            label: options.label.clone().unwrap_or_else(|| sources.default_label()),
            paths,
        }
    }

    /// A name for files of the local cache that belong to this identity and this kind; it tells nobody else what
    /// that is.
    pub fn name(&self, hasher: &ChunkHasher, kind: u8) -> Result<String> {
        let mut key = vec![kind];
        for part in [&self.hostname, &self.label].into_iter().chain(&self.paths) {
            key.extend((part.len() as u64).to_le_bytes());
            key.extend(part.as_bytes());
        }
        Ok(ChunkId(hasher.local(b"vykarfcn", &[&key])?).short())
    }

    /// True for snapshots of the same host, label and sources.
    pub fn is_of(&self, snapshot: &Snapshot) -> bool {
        snapshot.meta.hostname == self.hostname
            && snapshot.label() == self.label
            && snapshot.meta.source_paths == self.paths
    }
}
