//! Mounts in the foreground, and the processes behind mounts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Mount, World, eventually, is_mounted, is_root, note, require_fuse, require_fusermount};

/// What the watchdog beside a mount is called.
pub const WATCHDOG: &str = "vykar-watchdog";

/// Root and nobody; without root, whoever this is.
pub fn users() -> Vec<bool> {
    require_fusermount();
    if is_root() {
        return vec![false, true];
    }
    note("without root, mounts are tested as this user only");
    vec![false]
}

/// A mount in the foreground.
pub struct Foreground {
    pub child: Child,
    pub mount: Mount,
    pub at: PathBuf,
    err: PathBuf,
}

impl Foreground {
    /// Mounts on a folder of this name and waits until it can be used.
    pub fn start(world: &World, name: &str, args: &[&str]) -> Self {
        require_fuse();
        let at = world.mountpoint(name);
        let (out, err) = (world.path(&format!("{name}.out")), world.path(&format!("{name}.err")));
        let mut command = world.command();
        command.arg("-R").arg(&world.repo).arg("mount").arg(&at).args(args);
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        eventually("mounting", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "mount ended: {:?}", fs::read_to_string(&err));
            !fs::read(&out).unwrap().is_empty()
        });
        assert!(is_mounted(&at), "it said so and was not mounted");
        Foreground { child, mount: Mount::adopt(at.clone()), at, err }
    }

    /// What it has said on stderr.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// All processes there are.
fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| Pid::from_raw(e.file_name().to_str()?.parse().ok()?)).collect()
}

fn proc_file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

/// The name of its program.
pub fn name(pid: Pid) -> String {
    fs::read_to_string(proc_file(pid, "comm")).unwrap_or_default().trim_end().to_owned()
}

/// A line of `/proc/PID/status`, without its name.
pub fn status(pid: Pid, field: &str) -> Option<String> {
    let text = fs::read_to_string(proc_file(pid, "status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Memory, in KiB, as `RssAnon` or `VmRSS` of `/proc/PID/status`.
pub fn memory(pid: Pid, field: &str) -> u64 {
    let text = status(pid, field).unwrap_or_else(|| panic!("no {field} of {pid:?}"));
    text.trim_end_matches(" kB").parse().unwrap()
}

/// What a process has open.
pub fn open_files(pid: Pid) -> Vec<PathBuf> {
    let entries = fs::read_dir(proc_file(pid, "fd")).unwrap().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// A process's environment.
pub fn environment(pid: Pid) -> Vec<u8> {
    fs::read(proc_file(pid, "environ")).unwrap()
}

/// True until it has ended; one that nobody has waited for has ended.
pub fn runs(pid: Pid) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

/// The process that serves the mount on a folder: its command line names it.
pub fn server_of(at: &Path) -> Pid {
    let names_it = |pid: &Pid| {
        let line = fs::read(proc_file(*pid, "cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| OsStr::from_bytes(word) == at)
    };
    let found: Vec<_> = all().into_iter().filter(|pid| names_it(pid) && runs(*pid)).collect();
    assert_eq!(found.len(), 1, "processes for {}: {found:?}", at.display());
    found[0]
}

/// What a process has started and not waited for.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    all().into_iter().filter(|pid| status(*pid, "PPid").as_ref() == Some(&parent)).collect()
}

/// The watchdog that a process started.
pub fn watchdog_of(server: Pid) -> Pid {
    let mut found = children_of(server);
    found.retain(|pid| name(*pid) == WATCHDOG);
    assert_eq!(found.len(), 1, "watchdogs of {server:?}: {found:?}");
    found[0]
}

/// Ends a process as nothing else does.
pub fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}
