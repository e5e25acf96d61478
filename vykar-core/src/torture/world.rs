//! A small repository on a file system in memory, and what it holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::is_thorough;
use crate::backup::{BackupOptions, backup};
use crate::error::Result;
use crate::format::{ChunkerParams, Encryption};
use crate::maintenance::{CheckOptions, DeleteOptions, Severity, check, delete_snapshots};
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::repository::{InitOptions, LockOptions, OpenOptions, Repository};
use crate::storage::{Backend, LocalBackend};
use crate::testing::noise;

/// Files of a snapshot, with their contents.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A folder with a repository, a source and a local cache.
pub struct World {
    dir: TempDir,
    /// What is stored; copies have that of the first.
    source: PathBuf,
}

impl World {
    /// Three snapshots of which the first is deleted, and a source that has changed since.
    pub fn new() -> Self {
        let dir = scratch();
        let source = dir.path().join("source");
        let world = World { dir, source };
        let mut options = InitOptions::new(Encryption::None);
        options.chunker = ChunkerParams { min: 1024, avg: 4096, max: 16384 };
        // Several packs for each backup.
        options.pack_sizes = (16 << 10, 16 << 10);
        let mut none = || unreachable!();
        Repository::init(Arc::new(world.backend()), &options, &mut none, &OpenOptions::default()).unwrap();
        for round in 0..3 {
            world.change(round);
            world.backup().unwrap();
        }
        let repository = world.open();
        let first = repository.manifest().unwrap().snapshots[0].id;
        delete_snapshots(&repository, &[first], &DeleteOptions::default(), None).unwrap();
        world.change(3);
        world
    }

    /// Another one that is the same now, with the same source in the same place: whose session it was is known by
    /// that.
    pub fn copy(&self) -> Self {
        let world = World { dir: scratch(), source: self.source.clone() };
        copy(&self.path().join("cache"), &world.path().join("cache"));
        copy(&self.repo(), &world.repo());
        world
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn repo(&self) -> PathBuf {
        self.path().join("repo")
    }

    pub fn source(&self) -> &Path {
        &self.source
    }

    pub fn backend(&self) -> LocalBackend {
        LocalBackend::new(self.repo())
    }

    pub fn open(&self) -> Repository {
        self.open_on(Arc::new(self.backend())).unwrap()
    }

    /// Through another backend.
    pub fn open_on(&self, backend: Arc<dyn Backend>) -> Result<Repository> {
        let options = OpenOptions { cache_dir: Some(self.path().join("cache")), trust: true };
        Repository::open(backend, &mut || unreachable!(), &options)
    }

    /// Writes the source as it is in one round.
    fn change(&self, round: u64) {
        let files = if is_thorough() { 12 } else { 4 };
        fs::create_dir_all(self.source()).unwrap();
        for n in 0..files {
            // Half of them change.
            let seed = if n % 2 == 0 { n } else { n + 100 * (round + 1) };
            fs::write(self.source().join(format!("file {n}")), noise(seed, 5000 + 3000 * n as usize))
                .unwrap();
        }
    }

    pub fn backup(&self) -> Result<()> {
        backup_of(&self.open(), self.source())
    }

    /// Contents of every snapshot, by its id.
    pub fn snapshots(&self) -> BTreeMap<String, Files> {
        let repository = self.open();
        let reader = repository.chunk_reader().unwrap();
        let mut all = BTreeMap::new();
        for snapshot in repository.manifest().unwrap().snapshots {
            let mut files = Files::new();
            for_each_item(&reader, &snapshot, &mut |found| {
                let FoundItem::Item(item) = found else { panic!("{found:?}") };
                let content = item.chunks.iter().flat_map(|c| reader.read_sized(&c.id, c.size).unwrap());
                files.insert(item.path.clone().into_owned(), content.collect());
                Ok(true)
            })
            .unwrap();
            all.insert(snapshot.id.to_string(), files);
        }
        all
    }

    /// What the source holds.
    pub fn source_files(&self) -> Files {
        let read =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        fs::read_dir(self.source()).unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    /// What it holds is whole; leftovers are harmless.
    pub fn assert_sound(&self, when: &str) {
        let options = CheckOptions { verify_data: true, threads: 1, ..CheckOptions::default() };
        let report = check(&self.open(), &options, None).unwrap();
        let damage = report.findings.iter().filter(|finding| finding.severity() == Severity::Damage);
        let damage: Vec<_> = damage.map(ToString::to_string).collect();
        assert!(damage.is_empty(), "{when}: {damage:#?}");
    }

    /// Removes what the operation that was cut off holds: its process, which is this one, would be gone.
    pub fn bury(&self) {
        for folder in ["locks", "sessions"] {
            let Ok(entries) = fs::read_dir(self.repo().join(folder)) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    /// A backup that did not end has left a journal.
    pub fn has_journal(&self) -> bool {
        let entries = fs::read_dir(self.repo().join("sessions"));
        entries.is_ok_and(|mut entries| {
            entries.any(|e| e.unwrap().path().extension().is_some_and(|x| x == "index"))
        })
    }

    /// Puts another repository in place of this one's.
    pub fn replace_repository(&self, by: impl FnOnce(&Path)) {
        fs::remove_dir_all(self.repo()).unwrap();
        by(&self.repo());
    }
}

/// Stores a folder, with few threads and no waiting.
pub fn backup_of(repository: &Repository, source: &Path) -> Result<()> {
    let options = BackupOptions { threads: 1, lock: lock(), ..BackupOptions::new(vec![source.to_owned()]) };
    backup(repository, &options, None).map(drop)
}

/// Nobody else is there, so there is nothing to wait for.
pub fn lock() -> LockOptions {
    LockOptions { wait: std::time::Duration::from_secs(5), ..LockOptions::default() }
}

/// In memory, where there is room: thousands of repositories are made.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}
