//! Who uses a mount, so that it cannot be unmounted.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use vykar_core::text::first_few;

use crate::session::mountpoint::mounted_paths;

/// How many are named.
const NAMED: usize = 5;

/// A process that uses a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub pid: u32,
    /// The name of its program, without control characters.
    pub command: String,
}

/// What keeps a mount busy, as far as this process may see: the system shows the processes of other users
/// to root only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// The processes, by number.
    pub processes: Vec<User>,
    /// What is mounted inside it.
    pub inside: Vec<PathBuf>,
}

impl Users {
    /// Looks for users of the mount at `path`, whose device has this number, `MAJOR:MINOR`. Asks the mount
    /// nothing, so that it does not matter whether anybody answers for it.
    pub(crate) fn of(path: &Path, device: &str) -> Self {
        let Some(device) = parse(device, 10) else { return Users::default() };
        let mut processes = Vec::new();
        for pid in numbers(Path::new("/proc")).filter(|pid| *pid != std::process::id()) {
            let dir = PathBuf::from(format!("/proc/{pid}"));
            if uses(&dir, device) {
                let command = fs::read(dir.join("comm")).unwrap_or_default();
                processes.push(User { pid, command: printable(&command) });
            }
        }
        processes.sort_by_key(|user| user.pid);
        let mut inside = mounted_paths().unwrap_or_default();
        inside.retain(|other| other != path && other.starts_with(path));
        Users { processes, inside }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = self.processes.iter().map(|user| format!("{} ({})", user.pid, user.command));
        let inside = self.inside.iter().map(|path| format!("a mount on {}", path.display()));
        let all: Vec<String> = processes.chain(inside).collect();
        if all.is_empty() {
            return f.write_str("used by a process that is not shown to this user");
        }
        write!(f, "used by {}", first_few(&all, NAMED, ", "))
    }
}

/// Two numbers with a colon between.
fn parse(device: &str, radix: u32) -> Option<(u32, u32)> {
    let (major, minor) = device.split_once(':')?;
    Some((u32::from_str_radix(major, radix).ok()?, u32::from_str_radix(minor, radix).ok()?))
}

/// Entries of a folder that are numbers.
fn numbers(dir: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// True if the process with this folder in `/proc` has something open or mapped, runs, or is in it.
fn uses(process: &Path, device: (u32, u32)) -> bool {
    let fds = process.join("fd");
    ["cwd", "root", "exe"].iter().any(|name| lies_on(&process.join(name), device))
        || numbers(&fds).any(|fd| lies_on(&fds.join(fd.to_string()), device))
        || fs::read(process.join("maps")).is_ok_and(|maps| is_mapped(&maps, device))
}

fn lies_on(path: &Path, device: (u32, u32)) -> bool {
    // Asking for nothing else is answered by the kernel alone, for a mount of another user too.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::empty());
    found.is_ok_and(|found| (found.stx_dev_major, found.stx_dev_minor) == device)
}

/// Looks for the device in the fourth column of a process's list of mappings.
fn is_mapped(maps: &[u8], device: (u32, u32)) -> bool {
    maps.split(|c| *c == b'\n').any(|line| {
        let column = line.split(|c| *c == b' ').nth(3);
        column.and_then(|text| parse(std::str::from_utf8(text).ok()?, 16)) == Some(device)
    })
}

fn printable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.trim_end_matches('\n').chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_named_and_the_rest_is_counted() {
        let user = |pid| User { pid, command: "less".into() };
        let users = |n| Users { processes: (1..=n).map(user).collect(), inside: Vec::new() };
        assert_eq!(users(1).to_string(), "used by 1 (less)");
        assert_eq!(users(5).to_string(), "used by 1 (less), 2 (less), 3 (less), 4 (less), 5 (less)");
        assert!(users(8).to_string().ends_with("5 (less) and 3 more"));
        let inside = Users { inside: vec!["/mnt/x".into()], ..users(1) };
        assert_eq!(inside.to_string(), "used by 1 (less), a mount on /mnt/x");
        assert_eq!(Users::default().to_string(), "used by a process that is not shown to this user");
    }

    #[test]
    fn devices_of_mappings_are_found() {
        let maps = b"55d0-55d1 r--p 0000 00:2d 1234   /mnt/a file\n7f00-7f01 rw-p 0000 00:00 0 \n";
        assert!(is_mapped(maps, (0, 45)));
        assert!(!is_mapped(maps, (0, 46)));
        assert!(!is_mapped(b"", (0, 0)));
    }

    #[test]
    fn names_of_programs_are_printable() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n"), "a?[2Jb\u{fffd}");
    }

    #[test]
    fn a_process_with_an_open_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = rustix::fs::statx(CWD, file.path(), AtFlags::empty(), StatxFlags::empty()).unwrap();
        let device = (found.stx_dev_major, found.stx_dev_minor);
        let mut child =
            std::process::Command::new("sleep").arg("60").stdin(file.reopen().unwrap()).spawn().unwrap();
        let users = Users::of(Path::new("/nowhere"), &format!("{}:{}", device.0, device.1));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = users.processes.iter().find(|user| user.pid == child.id());
        assert!(found.is_some(), "{users:?}");
        assert!(users.processes.iter().all(|user| user.pid != std::process::id()));
    }
}
