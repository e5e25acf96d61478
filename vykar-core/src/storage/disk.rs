//! The system calls by which a local repository changes.
//!
//! All of them are here, so that a test can write down what was done and work out what a power cut leaves.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PutMode;

#[cfg(test)]
pub(crate) mod log;

#[cfg(not(test))]
macro_rules! log_entry {
    ($($entry:tt)*) => {
        ()
    };
}
#[cfg(test)]
macro_rules! log_entry {
    ($($entry:tt)*) => {
        log::DiskCall::$($entry)*
    };
}

/// Changes files and directories. Costs nothing unless a test has it write down what it does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    log: Option<std::sync::Arc<log::DiskLog>>,
}

impl Disk {
    /// Makes a file that must not exist, for its owner, and for its group as far as `group` says: the
    /// bits 040 and 020 of a mode.
    pub fn create(&self, path: &Path, group: u32) -> io::Result<File> {
        let create = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            // The umask of one member must not keep out the others.
            if group != 0 {
                file.set_permissions(Permissions::from_mode(0o600 | group))?;
            }
            Ok(file)
        };
        self.logged(create, || log_entry!(Create(path.into())))
    }

    /// Writes at the end of a file that was made here.
    pub fn append(&self, path: &Path, file: &File, data: &[u8]) -> io::Result<()> {
        let _ = path; // only written down
        let mut file = file;
        self.logged(|| file.write_all(data), || log_entry!(Append(path.into(), data.to_vec())))
    }

    /// Makes a file's content durable.
    pub fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        let _ = path; // only written down
        self.logged(|| file.sync_all(), || log_entry!(Sync(path.into())))
    }

    /// Gives a file its final name.
    pub fn rename(&self, from: &Path, to: &Path, mode: PutMode) -> io::Result<()> {
        let rename = || match mode {
            PutMode::Replace => fs::rename(from, to),
            PutMode::Exclusive => rename_exclusively(from, to),
        };
        self.logged(rename, || log_entry!(Rename(from.into(), to.into())))
    }

    /// Removes a file.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.logged(|| fs::remove_file(path), || log_entry!(Remove(path.into())))
    }

    /// Makes a directory, likewise. Its group is the one that the directory above hands down, if it does.
    pub fn make_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        let make = || {
            fs::DirBuilder::new().mode(0o700).create(path)?;
            if group != 0 {
                let handed_down = fs::metadata(path)?.mode() & 0o7000;
                let enter = group >> 2 & 0o010;
                fs::set_permissions(path, Permissions::from_mode(handed_down | 0o700 | group | enter))?;
            }
            Ok(())
        };
        self.logged(make, || log_entry!(MakeDir(path.into())))
    }

    /// Makes a directory's entries durable.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
        self.logged(|| open()?.sync_all(), || log_entry!(SyncDir(path.into())))
    }

    #[cfg(not(test))]
    fn logged<T>(&self, call: impl FnOnce() -> io::Result<T>, _entry: impl FnOnce()) -> io::Result<T> {
        call()
    }

    #[cfg(test)]
    fn logged<T>(
        &self,
        call: impl FnOnce() -> io::Result<T>,
        entry: impl FnOnce() -> log::DiskCall,
    ) -> io::Result<T> {
        match &self.log {
            Some(log) => log.write(call, entry),
            None => call(),
        }
    }

    /// Writes down what is done from now on.
    #[cfg(test)]
    pub fn logging(log: std::sync::Arc<log::DiskLog>) -> Self {
        Disk { log: Some(log) }
    }
}

/// Removes a directory that is empty.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)
}

fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags) {
        // File systems without RENAME_NOREPLACE: a hard link is exclusive as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        other => Ok(other?),
    }
}
