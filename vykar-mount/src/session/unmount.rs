//! Taking away what this program mounted.
//!
//! The kernel is asked directly; where it refuses, `fusermount3` is asked. What is taken away is always a
//! mount of this program, and with a device number that one mount.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::session::busy::Users;
use crate::session::mountpoint::{FS_TYPE, MountError, mounted_at, resolve, run_helper};

/// How long a busy mount is tried again.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// How long between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// How long a mount that lives may take to say how large it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Unmounts what this program mounted at `path`, dead or alive. `lazy` detaches it at once, while
/// those who use it go on. What is busy only for a moment (a file manager that looks at a new mount, a
/// mount that is just being made) is waited for, up to a second.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::NotOurs`], [`MountError::Busy`], or what the system or
/// its helper says.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let failed = |source| MountError::Mountpoint { path: path.to_owned(), source };
    let resolved = resolve(path).map_err(failed)?;
    match mounted_at(&resolved).map_err(failed)? {
        None => Err(MountError::NotMounted { path: path.to_owned() }),
        Some(entry) if entry.kind != FS_TYPE => {
            Err(MountError::NotOurs { path: path.to_owned(), kind: entry.kind })
        }
        Some(entry) => patiently(&entry.device, || unmount_device(&resolved, &entry.device, lazy)).map(drop),
    }
}

/// Detaches the mount with this device number, `MAJOR:MINOR`, from `path`, a path that the kernel knows,
/// if nobody answers for it any more because its process was killed. Anything else that is there stays. Without
/// a number it may be any mount of this program.
///
/// # Errors
/// What the system or its helper says.
pub fn unmount_dead(path: &Path, device: Option<&str>) -> Result<(), MountError> {
    // Another mount may have come to this place and got the number of the one that is gone. It lives.
    match is_at(path, device)? && is_dead(path) {
        true => unmount_resolved(path, true),
        false => Ok(()),
    }
}

/// The same where the process was killed and cannot end: a thread of it may be waiting in the kernel, which nothing
/// interrupts, for a page of a file that somebody reads, and who reads waits for the process. So all that is asked
/// of this mount is ended.
///
/// # Errors
/// What the system or its helper says.
pub fn unmount_stuck(path: &Path, device: &str) -> Result<(), MountError> {
    if !is_at(path, Some(device))? {
        return Ok(());
    }
    let (sender, answer) = std::sync::mpsc::channel();
    let asked = path.to_owned();
    // It waits as all others do, until they are let go.
    let asking = std::thread::Builder::new().spawn(move || sender.send(is_dead(&asked)));
    asking.map_err(|source| MountError::Session { source })?;
    match answer.recv_timeout(ANSWERS_WITHIN) {
        Ok(true) => return unmount_resolved(path, true),
        // Somebody else's that came to this place, and lives.
        Ok(false) => return Ok(()),
        Err(_) => {}
    }
    let force = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE;
    match rustix::mount::unmount(path, force) {
        Err(Errno::PERM) => {
            // Where this is not mounted, whoever reads waits on, and can be killed.
            let number = device.rsplit(':').next().unwrap_or_default();
            let _ = std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1");
            unmount_resolved(path, true)
        }
        Err(e) => Err(MountError::System { operation: "unmount", path: path.into(), source: e.into() }),
        Ok(()) => Ok(()),
    }
}

/// True when the mount with this device number is on top at `path`; without a number, any of this program.
fn is_at(path: &Path, device: Option<&str>) -> Result<bool, MountError> {
    let failed = |source| MountError::Mountpoint { path: path.to_owned(), source };
    let entry = mounted_at(path).map_err(failed)?;
    Ok(entry.is_some_and(|entry| entry.kind == FS_TYPE && device.is_none_or(|device| entry.device == device)))
}

/// Asks the file system itself. While its process is still ending, this waits until it has.
fn is_dead(path: &Path) -> bool {
    matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Unmounts the mount with this device number if it is on top at `path`; says whether it was. Does not look
/// who uses it.
pub(crate) fn unmount_device(path: &Path, device: &str, lazy: bool) -> Result<bool, MountError> {
    let failed = |source| MountError::Mountpoint { path: path.to_owned(), source };
    match mounted_at(path).map_err(failed)? {
        Some(entry) if entry.device == device => unmount_resolved(path, lazy).map(|()| true),
        Some(_) | None => Ok(false),
    }
}

/// Tries to unmount the mount with this device number, for a while if it is busy, and finds out who uses it.
pub(crate) fn patiently<T>(
    device: &str,
    mut attempt: impl FnMut() -> Result<T, MountError>,
) -> Result<T, MountError> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(MountError::Busy { .. }) if began.elapsed() < BUSY_FOR => std::thread::sleep(BUSY_PAUSE),
            Err(MountError::Busy { path, .. }) => {
                let users = Users::of(&path, device);
                return Err(MountError::Busy { path, users });
            }
            result => return result,
        }
    }
}

/// Unmounts what is on top at a path that the kernel knows. Does not look who uses it.
pub(crate) fn unmount_resolved(path: &Path, lazy: bool) -> Result<(), MountError> {
    let busy = || MountError::Busy { path: path.into(), users: Users::default() };
    let detach = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | detach) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy()),
        Err(Errno::PERM) => {
            let mut arguments = vec![OsStr::new("-u"), OsStr::new("--"), path.as_os_str()];
            if lazy {
                arguments.insert(1, OsStr::new("-z"));
            }
            match run_helper(&arguments, None)? {
                (_, None) => Ok(()),
                (_, Some(message)) if message.contains("busy") => Err(busy()),
                (helper, Some(message)) => Err(MountError::Helper { helper, message }),
            }
        }
        Err(e) => Err(MountError::System { operation: "unmount", path: path.into(), source: e.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_this_program_are_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(unmount(dir.path(), false), Err(MountError::NotMounted { .. })));
        let proc = Path::new("/proc");
        assert!(matches!(unmount(proc, false), Err(MountError::NotOurs { .. })));
        let device = mounted_at(proc).unwrap().unwrap().device;
        unmount_dead(proc, Some(&device)).unwrap();
        unmount_dead(proc, None).unwrap();
        unmount_stuck(proc, &device).unwrap();
        assert!(!unmount_device(proc, "0:0", true).unwrap());
        assert!(proc.join("self").exists());
    }
}
