//! Who this process is, and whether another one lives.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::Timestamp;

/// Inode of the initial PID namespace (`PROC_PID_INIT_INO` in the kernel's `proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What the programs that take locks are called, or begin with.
const PROGRAM: &str = "vykar";

/// How far the clock may have been off when a marker was written.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Identifies a process in markers that other machines read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Short host name; `HOST:pidns-INODE` outside the initial PID namespace, so that process ids
    /// are never compared across namespaces.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// The kernel's boot id, where `/proc` tells it.
    pub boot_id: Option<String>,
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> Self {
        let mut host = short_hostname();
        if let Some(inode) = pid_namespace().filter(|inode| *inode != INITIAL_PID_NAMESPACE) {
            host = format!("{host}:pidns-{inode}");
        }
        ProcessIdentity { host, pid: std::process::id(), boot_id: boot_id() }
    }

    /// Whether the process `pid` of `host`, which was there at `since` during the boot `boot_id` (where that is known), is
    /// there now; `None` when that cannot be told from here.
    ///
    /// One that seems to have begun later may only have got the same number, or may be the very one, and the clock was
    /// set forward since: when a process began is only known by the clock. So it is another one only where it runs
    /// another program as well.
    pub fn is_running(&self, host: &str, pid: u32, boot_id: Option<&str>, since: Timestamp) -> Option<bool> {
        let same_boot = boot_id.is_none_or(|theirs| Some(theirs) == self.boot_id.as_deref());
        if host != self.host || !same_boot {
            return None;
        }
        if !is_alive(pid) {
            return Some(false);
        }
        let later = |began: Timestamp| began.checked_sub(CLOCK_SLACK).is_ok_and(|began| began > since);
        match began_at(pid).is_some_and(later) {
            false => Some(true),
            true if may_be_vykar(pid) => None,
            true => Some(false),
        }
    }

    /// True when the process `pid` of `host`, which wrote a marker at `written` while the kernel's
    /// boot id was `boot_id`, is certainly gone. Machines that share a host name do not bury each
    /// other: another boot id proves something only for what was written before this boot.
    pub fn proves_dead(&self, host: &str, pid: u32, boot_id: Option<&str>, written: Timestamp) -> bool {
        let (Some(theirs), Some(ours)) = (boot_id, self.boot_id.as_deref()) else { return false };
        if host != self.host {
            return false;
        }
        if theirs == ours {
            return !is_alive(pid);
        }
        self.was_before_boot(host, written)
    }

    /// True for what was written on a machine with the same host name before this one was started.
    pub fn was_before_boot(&self, host: &str, written: Timestamp) -> bool {
        let up = Duration::from_nanos(boot_nanos()) + CLOCK_SLACK;
        host == self.host && crate::clock::now().checked_sub(up).is_ok_and(|booted| written < booted)
    }
}

/// The kernel's boot id, where `/proc` tells it.
pub fn boot_id() -> Option<String> {
    known_id("/proc/sys/kernel/random/boot_id")
}

/// The machine's id (machine-id(5)), where it has one. Not for others to see: it is to be hashed first.
pub fn machine_id() -> Option<String> {
    known_id("/etc/machine-id").or_else(|| known_id("/var/lib/dbus/machine-id"))
}

fn known_id(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The host name up to its first dot.
pub fn short_hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match name.split('.').next() {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ => "localhost".to_owned(),
    }
}

fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|m| m.ino())
}

/// When a process began; `None` where `/proc` does not say.
fn began_at(pid: u32) -> Option<Timestamp> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; the start time is the 20th field behind it, in ticks since boot.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    let since_boot = Duration::from_nanos(ticks.checked_mul(1_000_000_000)?.checked_div(per_second)?);
    crate::clock::now().checked_sub(Duration::from_nanos(boot_nanos()).checked_sub(since_boot)?).ok()
}

/// False when a process certainly runs another program: neither one that is called like this project's, nor the one that
/// runs here.
fn may_be_vykar(pid: u32) -> bool {
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let Some(name) = comm(&pid.to_string()) else { return true };
    let is_ours = |name: &str, own: Option<String>| name.starts_with(PROGRAM) || own.as_deref() == Some(name);
    if is_ours(&name, comm("self")) {
        return true;
    }
    // What it was started as may be a link's name. Nobody but its owner may look, and a thread of the kernel has none.
    let exe = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let file_name = |path: std::path::PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let own = exe("self").and_then(file_name);
    exe(&pid.to_string()).and_then(file_name).is_some_and(|name| is_ours(&name, own))
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    // EPERM means that it lives and is somebody else's.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)) && !is_zombie(pid)
}

/// True for a process that has ended and that its parent has not waited for, as PID 1 of a container often does not.
/// False where `/proc` does not say.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else { return false };
    stat.rsplit_once(')').is_some_and(|(_, fields)| says_ended(fields))
}

/// Reads what `/proc/PID/stat` says behind the name (proc_pid_stat(5)): the state is its first field, the number of
/// threads its 18th. A process whose first thread alone has ended also has the state Z, but more than one thread.
fn says_ended(fields: &str) -> bool {
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next(), Some("Z" | "X" | "x"));
    ended
        && fields.nth(16).and_then(|threads| threads.parse::<u32>().ok()).is_some_and(|threads| threads <= 1)
}

/// Nanoseconds since boot, suspended time included.
pub fn boot_nanos() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Login name of the effective user, or its number.
pub fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_the_same_number() {
        let me = ProcessIdentity::current();
        let now = Timestamp::now();
        let began = began_at(me.pid).unwrap();
        assert!(began <= now && now.duration_since(began).as_hours() < 24, "{began}");
        let running = |pid, boot: Option<&str>, since| me.is_running(&me.host, pid, boot, since);
        let boot_id = me.boot_id.as_deref();
        assert_eq!(running(me.pid, None, now), Some(true));
        assert_eq!(running(me.pid, boot_id, now), Some(true));
        // It began an hour later, or the clock was set: it is a process of this program, so who knows.
        let before = began.checked_sub(Duration::from_secs(3600)).unwrap();
        assert_eq!(running(me.pid, None, before), None);
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = [before, now].map(|since| running(other.id(), boot_id, since));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(seen, [Some(false), Some(true)]);
        assert_eq!(running(1 << 30, None, now), Some(false));
        assert_eq!(running(me.pid, Some("other"), now), None);
        assert_eq!(me.is_running("elsewhere", me.pid, None, now), None);
    }

    #[test]
    fn a_process_that_ended_and_was_not_waited_for_is_dead() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let me = ProcessIdentity::current();
        let now = Timestamp::now();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_ok(), "it is still there for kill(2)");
        assert_eq!(me.is_running(&me.host, child.id(), me.boot_id.as_deref(), now), Some(false));
        assert!(me.proves_dead(&me.host, child.id(), me.boot_id.as_deref(), now));
        child.wait().unwrap();
    }

    #[test]
    fn a_process_with_living_threads_is_no_zombie() {
        let fields =
            |state, threads| format!(" {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 0 99");
        assert!(says_ended(&fields("Z", 1)) && says_ended(&fields("X", 0)));
        assert!(
            !says_ended(&fields("Z", 2))
                && !says_ended(&fields("S", 1))
                && !says_ended(" Z 1")
                && !says_ended("")
        );
    }
}
