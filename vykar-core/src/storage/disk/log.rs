//! What a power cut leaves of what was done to a file system.
//!
//! What was synced is there. Everything since then is there or not, each by itself, in any order: POSIX promises no
//! more, and real file systems keep at least this.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// One system call that did what it was asked.
#[derive(Debug, Clone)]
pub(crate) enum DiskCall {
    Create(PathBuf),
    Append(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDir(PathBuf),
    SyncDir(PathBuf),
}

/// Calls in the order in which they were done.
#[derive(Debug, Default)]
pub(crate) struct DiskLog {
    entries: Mutex<Vec<DiskCall>>,
}

impl DiskLog {
    /// Does something and writes it down.
    pub fn write<T>(
        &self,
        call: impl FnOnce() -> io::Result<T>,
        entry: impl FnOnce() -> DiskCall,
    ) -> io::Result<T> {
        // Locked meanwhile, so that the order is that of the calls.
        let mut entries = self.entries.lock();
        let done = call()?;
        entries.push(entry());
        Ok(done)
    }

    pub fn entries(&self) -> Vec<DiskCall> {
        self.entries.lock().clone()
    }
}

/// A file, whatever its names.
#[derive(Debug, Clone, Default)]
struct DiskFile {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
enum DiskNode {
    File(usize),
    Dir,
}

/// A name in a directory.
#[derive(Debug, Clone, Default)]
struct DiskName {
    durable: Option<DiskNode>,
    /// What it stood for since then, in turn.
    since: Vec<Option<DiskNode>>,
}

impl DiskName {
    fn now(&self) -> Option<DiskNode> {
        self.since.last().cloned().unwrap_or_else(|| self.durable.clone())
    }
}

/// A file system of which it is known what is durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    files: Vec<DiskFile>,
    names: BTreeMap<PathBuf, DiskName>,
}

/// What survives of what was not synced.
pub(crate) enum Survives<'r> {
    Nothing,
    Everything,
    /// For each choice among so many a number below that.
    Chosen(&'r mut dyn FnMut(usize) -> usize),
}

impl Model {
    /// What is below a directory, all of it durable.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut model = Model::default();
        model.add(root)?;
        Ok(model)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        self.names.insert(dir.into(), DiskName { durable: Some(DiskNode::Dir), since: Vec::new() });
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add(&path)?;
                continue;
            }
            let content = fs::read(&path)?;
            self.files.push(DiskFile { now: content.clone(), durable: content });
            let node = DiskNode::File(self.files.len() - 1);
            self.names.insert(path, DiskName { durable: Some(node), since: Vec::new() });
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> &mut DiskFile {
        match self.names.get(path).and_then(DiskName::now) {
            Some(DiskNode::File(number)) => &mut self.files[number],
            other => panic!("{}: no file, but {other:?}", path.display()),
        }
    }

    fn set(&mut self, path: &Path, node: Option<DiskNode>) {
        self.names.entry(path.into()).or_default().since.push(node);
    }

    /// Takes in what was done.
    pub fn apply(&mut self, entry: &DiskCall) {
        match entry {
            DiskCall::Create(path) => {
                self.files.push(DiskFile::default());
                self.set(path, Some(DiskNode::File(self.files.len() - 1)));
            }
            DiskCall::Append(path, data) => self.file(path).now.extend(data),
            DiskCall::Sync(path) => {
                let file = self.file(path);
                file.durable = file.now.clone();
            }
            DiskCall::Rename(from, to) => {
                let node = self.names.get(from).and_then(DiskName::now);
                self.set(to, node);
                self.set(from, None);
            }
            DiskCall::Remove(path) => self.set(path, None),
            DiskCall::MakeDir(path) => self.set(path, Some(DiskNode::Dir)),
            DiskCall::SyncDir(dir) => {
                for (path, name) in &mut self.names {
                    if path.parent() == Some(dir) {
                        name.durable = name.now();
                        name.since.clear();
                    }
                }
            }
        }
    }

    /// Makes below `to` what is left of `root` after a cut.
    pub fn cut(&self, root: &Path, to: &Path, mut survives: Survives<'_>) -> io::Result<()> {
        let mut gone = BTreeSet::new();
        fs::create_dir_all(to)?;
        for (path, name) in &self.names {
            let Ok(relative) = path.strip_prefix(root) else { continue };
            if relative.as_os_str().is_empty() {
                continue;
            }
            let states: Vec<_> = std::iter::once(&name.durable).chain(&name.since).collect();
            let node = match &mut survives {
                Survives::Nothing => states[0],
                Survives::Everything => states[states.len() - 1],
                Survives::Chosen(choose) => states[choose(states.len())],
            };
            let lost = path.parent().is_some_and(|parent| gone.contains(parent));
            match node {
                // With a directory goes what is in it.
                None => drop(gone.insert(path.clone())),
                Some(_) if lost => drop(gone.insert(path.clone())),
                Some(DiskNode::Dir) => fs::create_dir(to.join(relative))?,
                Some(DiskNode::File(number)) => {
                    fs::write(to.join(relative), self.content(*number, &mut survives))?
                }
            }
        }
        Ok(())
    }

    /// What is left of a file: of what was not synced a part, or zeros, or nothing.
    fn content(&self, number: usize, survives: &mut Survives<'_>) -> Vec<u8> {
        let DiskFile { now, durable } = &self.files[number];
        let choice = match survives {
            _ if now == durable => return now.clone(),
            Survives::Nothing => 0,
            Survives::Everything => 1,
            Survives::Chosen(choose) => choose(4),
        };
        let end = match choice {
            0 => return durable.clone(),
            1 => return now.clone(),
            2 => durable.len() + (now.len() - durable.len()) / 2,
            _ => durable.len(),
        };
        let mut content = now[..end].to_vec();
        if choice == 3 {
            content.resize(now.len(), 0);
        }
        content
    }
}
