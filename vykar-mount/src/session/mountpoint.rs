//! Putting a file system at a place.
//!
//! The kernel is asked directly; where it refuses, `fusermount3` is asked, which is set-uid root.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::view::subtree_root::SetupError;

use crate::session::busy::Users;

/// The type that these mounts have in `/proc/self/mountinfo`.
pub const FS_TYPE: &str = vykar_core::backup::MOUNT_TYPE;
const DEVICE: &str = "/dev/fuse";
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Why a mount could not be made or taken away. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point cannot be used.
    #[error("{}: {source}", .path.display())]
    Mountpoint {
        /// The path as given.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is no directory.
    #[error("{}: not a directory", .path.display())]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// It has contents, which a mount would hide.
    #[error("{}: not empty; mount on an empty directory", .path.display())]
    NotEmpty {
        /// The path as given.
        path: PathBuf,
    },
    /// A mount of this program is there already, dead or alive.
    #[error("{0}: mounted already; unmount it first: vykar umount {0}", .path.display())]
    AlreadyMounted {
        /// The path as given.
        path: PathBuf,
    },
    /// The mount point and the repository lie within each other.
    #[error("{}: lies inside the repository {}, or the other way round", .path.display(), .repository.display())]
    Overlaps {
        /// The path as given.
        path: PathBuf,
        /// The repository.
        repository: PathBuf,
    },
    /// The system has no FUSE.
    #[error("cannot open {DEVICE}: {source}; is FUSE available here (modprobe fuse)?")]
    NoFuse {
        /// The system's error.
        source: io::Error,
    },
    /// Mounting needs the helper and it is not there.
    #[error("mounting needs root here, or the program fusermount3: install the package fuse3")]
    NoHelper,
    /// The helper refused.
    #[error("{helper}: {message}")]
    Helper {
        /// Its name.
        helper: &'static str,
        /// Its words.
        message: String,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", .path.display())]
    System {
        /// What was done.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Nothing is mounted there.
    #[error("{}: not mounted", .path.display())]
    NotMounted {
        /// The path as given.
        path: PathBuf,
    },
    /// What is mounted there is something else.
    #[error("{}: a mount of type {kind}, not one of vykar's", .path.display())]
    NotOurs {
        /// The path as given.
        path: PathBuf,
        /// Its type.
        kind: String,
    },
    /// Somebody uses the mount. Detaching it lazily works all the same.
    #[error("{}: busy: {users}", .path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// Who uses it, as far as this process may see.
        users: Users,
    },
    /// The conversation with the kernel could not begin.
    #[error("FUSE: {source}")]
    Session {
        /// The system's error.
        source: io::Error,
    },
    /// What is to be shown cannot be.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

pub(crate) mod fuzz;

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Major and minor number of its device, `MAJOR:MINOR`.
    pub(crate) device: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Type, with the subtype.
    pub(crate) kind: String,
    /// Options of the file system, not of this mount of it, with commas between them.
    pub(crate) options: String,
}

impl MountEntry {
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|c| *c == b' ').collect();
        // Six fields come first, then any number of optional ones.
        let separator = fields.iter().skip(6).position(|field| *field == b"-")?.checked_add(6)?;
        Some(MountEntry {
            device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
            path: OsString::from_vec(unescape(fields.get(4)?)).into(),
            kind: String::from_utf8_lossy(fields.get(separator + 1)?).into_owned(),
            options: String::from_utf8_lossy(fields.get(separator + 3).unwrap_or(&&[][..])).into_owned(),
        })
    }
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let octal = |c: &u8| matches!(c, b'0'..=b'7').then(|| u32::from(c - b'0'));
        let code =
            tail.first_chunk::<3>().and_then(|[a, b, c]| Some(octal(a)? * 64 + octal(b)? * 8 + octal(c)?));
        match code.map(u8::try_from) {
            Some(Ok(byte)) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => out.push(*first),
        }
    }
    out
}

/// True for real root, whom permissions do not stop: the kernel may then check them, and keep the answers
/// about access control lists. In a user namespace they would stop root at files of owners it lacks.
pub(crate) fn overrides_permissions() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    whole && rustix::process::geteuid().is_root()
}

/// All mounts. A later mount over an earlier one comes later.
fn mounts() -> io::Result<Vec<MountEntry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|c| *c == b'\n').filter_map(MountEntry::parse).collect())
}

/// What is on top at a path, if anything is mounted there.
pub(crate) fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|entry| entry.path == path))
}

/// The options of the file system with this device number, as long as it is mounted anywhere.
pub(crate) fn options_of(device: &str) -> io::Result<Option<String>> {
    Ok(mounts()?.into_iter().find(|entry| entry.device == device).map(|entry| entry.options))
}

/// Where anything is mounted.
pub(crate) fn mounted_paths() -> io::Result<Vec<PathBuf>> {
    Ok(mounts()?.into_iter().map(|entry| entry.path).collect())
}

/// The path that the kernel knows a mount point by. Works where a dead mount is.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(found) => Ok(found),
        Err(error) => {
            let absolute = std::path::absolute(path)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(fs::canonicalize(parent).map_err(|_| error)?.join(name)),
                _ => Err(error),
            }
        }
    }
}

/// Checks that a file system can be put at `path`, and returns the path that the kernel knows it by.
/// `repository` is the repository's directory, where it has one.
pub(crate) fn check(path: &Path, repository: Option<&Path>) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Mountpoint { path: path.to_owned(), source };
    let resolved = resolve(path).map_err(failed)?;
    if mounted_at(&resolved).map_err(failed)?.is_some_and(|entry| entry.kind == FS_TYPE) {
        return Err(MountError::AlreadyMounted { path: path.to_owned() });
    }
    if !fs::metadata(&resolved).map_err(failed)?.is_dir() {
        return Err(MountError::NotADirectory { path: path.to_owned() });
    }
    if let Some(repository) = repository.and_then(|path| fs::canonicalize(path).ok())
        && (resolved.starts_with(&repository) || repository.starts_with(&resolved))
    {
        return Err(MountError::Overlaps { path: path.to_owned(), repository });
    }
    if fs::read_dir(&resolved).map_err(failed)?.next().is_some() {
        return Err(MountError::NotEmpty { path: path.to_owned() });
    }
    Ok(resolved)
}

/// What a mount is like.
pub(crate) struct Spec {
    /// What `mount` and `df` show as its source.
    pub(crate) source: String,
    /// Other users may enter; the kernel checks permissions then.
    pub(crate) allow_other: bool,
    /// Nothing in it can be run as a program.
    pub(crate) no_exec: bool,
}

impl Spec {
    fn kernel_options(&self) -> &'static str {
        if self.allow_other { ",default_permissions,allow_other" } else { "" }
    }
}

/// Mounts at a path that [`check`] returned; the result speaks for the file system from then on.
pub(crate) fn mount(path: &Path, spec: &Spec) -> Result<OwnedFd, MountError> {
    match mount_directly(path, spec) {
        Err(Refused::NotPermitted) => mount_by_helper(path, spec),
        Err(Refused::Failed(error)) => Err(error),
        Ok(fd) => Ok(fd),
    }
}

enum Refused {
    NotPermitted,
    Failed(MountError),
}

fn mount_directly(path: &Path, spec: &Spec) -> Result<OwnedFd, Refused> {
    let device =
        OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Refused::NotPermitted,
            _ => Refused::Failed(MountError::NoFuse { source }),
        })?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{}",
        device.as_raw_fd(),
        uid.as_raw(),
        gid.as_raw(),
        spec.kernel_options()
    );
    // Neither numbers nor constants hold NUL.
    let data = CString::new(data).unwrap_or_default();
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::NOEXEC, spec.no_exec);
    match rustix::mount::mount(&spec.source, path, FS_TYPE, flags, &*data) {
        Ok(()) => Ok(device.into()),
        Err(Errno::PERM | Errno::ACCESS) => Err(Refused::NotPermitted),
        Err(e) => Err(Refused::Failed(MountError::System {
            operation: "mount",
            path: path.into(),
            source: e.into(),
        })),
    }
}

fn mount_by_helper(path: &Path, spec: &Spec) -> Result<OwnedFd, MountError> {
    let failed = |source: io::Error| MountError::System { operation: "mount", path: path.into(), source };
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| failed(e.into()))?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|e| failed(e.into()))?;
    let source = spec.source.replace('\\', "\\\\").replace(',', "\\,");
    let no_exec = if spec.no_exec { ",noexec" } else { "" };
    let options = format!("ro,nosuid,nodev{no_exec},subtype=vykar,fsname={source}{}", spec.kernel_options());
    let arguments = [OsStr::new("-o"), OsStr::new(&options), OsStr::new("--"), path.as_os_str()];
    let environment = ("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    let (helper, outcome) = run_helper(&arguments, Some(environment))?;
    drop(theirs);
    if let Some(message) = outcome {
        return Err(MountError::Helper { helper, message });
    }
    receive_fd(&ours).map_err(failed)?.ok_or_else(|| {
        let message = "did not hand over the file system".to_owned();
        MountError::Helper { helper, message }
    })
}

/// Runs the first helper that exists; the second value is its words when it failed.
pub(crate) fn run_helper(
    arguments: &[&OsStr],
    environment: Option<(&str, String)>,
) -> Result<(&'static str, Option<String>), MountError> {
    for helper in HELPERS {
        let mut command = Command::new(helper);
        // The environment may hold a passphrase, which is nobody else's business.
        command.env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some((name, value)) = &environment {
            command.env(name, value);
        }
        match command.output() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(MountError::Helper { helper, message: e.to_string() }),
            Ok(output) if output.status.success() => return Ok((helper, None)),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let text = text.strip_prefix(&format!("{helper}: ")).unwrap_or(&text).to_owned();
                let message = if text.is_empty() { output.status.to_string() } else { text };
                return Ok((helper, Some(message)));
            }
        }
    }
    Err(MountError::NoHelper)
}

fn receive_fd(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.next().and_then(|mut fds| fds.next()))
}

/// Lets the kernel read this far ahead in files of the file system with this device number. Only root
/// may; without it the kernel's default stays.
pub(crate) fn raise_read_ahead(device: &str, kib: u32) -> io::Result<()> {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    let mut now = String::new();
    File::open(&path)?.read_to_string(&mut now)?;
    if now.trim().parse::<u32>().is_ok_and(|now| now >= kib) {
        return Ok(());
    }
    fs::write(path, kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 - fuse.vykar vykar:/r rw,errors=continue";
        let entry = MountEntry::parse(line).unwrap();
        assert_eq!(entry.path, Path::new(r"/mnt 2\x"));
        assert_eq!((entry.device.as_str(), entry.kind.as_str()), ("98:0", FS_TYPE));
        assert_eq!(entry.options, "rw,errors=continue");
        assert_eq!(MountEntry::parse(b""), None);
        assert_eq!(MountEntry::parse(b"36 35 98:0 - x"), None);
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape(br"a\040b"), b"a b");
        assert_eq!(unescape(br"\04\777\"), br"\04\777\");
        assert_eq!(unescape(br"\\040"), br"\ ");
    }

    #[test]
    fn bad_mount_points_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir_all(at("repo/inner")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        let check = |name: &str, repo: Option<&str>| check(&at(name), repo.map(at).as_deref());
        assert!(matches!(check("nope", None), Err(MountError::Mountpoint { .. })));
        assert!(matches!(check("nope/deeper", None), Err(MountError::Mountpoint { .. })));
        assert!(matches!(check("file", None), Err(MountError::NotADirectory { .. })));
        assert!(matches!(check("repo", None), Err(MountError::NotEmpty { .. })));
        assert!(matches!(check("repo/inner", Some("repo")), Err(MountError::Overlaps { .. })));
        assert!(check("empty", Some("empty/x")).is_ok());
        assert!(matches!(check("", Some("repo")), Err(MountError::Overlaps { .. })));
        assert_eq!(check("empty", Some("repo")).unwrap(), fs::canonicalize(at("empty")).unwrap());
    }
}
