//! Going to the background: the caller's process waits until the child says that it is ready, or
//! ends with the child's exit code.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use rustix::io::Errno;
use vykar_core::platform::private;

use crate::exit::{CliError, CliResult, Exit};
use crate::platform::{self, Fork};

/// The child's end: says that all is well.
pub struct Ready {
    pipe: File,
    log: Option<PathBuf>,
}

/// What [`split`] returns.
pub enum Side {
    /// The child is ready, or has ended with this code, having said why.
    Caller(Exit),
    /// Go on, and call [`Ready::detach`] when usable.
    Child(Ready),
}

fn failed(what: &str, e: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failure, format!("cannot go to the background: {what}: {e}"))
}

/// Splits the process. `log` is where the child's messages go once it is detached.
pub fn split(log: Option<PathBuf>) -> CliResult<Side> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed("pipe", e))?;
    match platform::fork().map_err(|e| failed("fork", e))? {
        Fork::Child => {
            drop(read);
            Ok(Side::Child(Ready { pipe: File::from(write), log }))
        }
        Fork::Parent(pid) => {
            drop(write);
            wait(read, pid).map(Side::Caller)
        }
    }
}

fn wait(pipe: OwnedFd, pid: i32) -> CliResult {
    let mut byte = [0];
    // Interrupted reads are retried; an end without a byte means that the child has failed.
    if File::from(pipe).read_exact(&mut byte).is_ok() {
        return Ok(Exit::Success);
    }
    let pid = rustix::process::Pid::from_raw(pid);
    loop {
        match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("waiting for the child", e)),
            Ok(status) => {
                let Some((_, status)) = status else { continue };
                return match status.terminating_signal() {
                    Some(signal) => Err(failed("the child was killed", format!("signal {signal}"))),
                    None => Ok(status.exit_status().map_or(Exit::Failure, Exit::from_code)),
                };
            }
        }
    }
}

impl Ready {
    /// Leaves the terminal and the caller's pipes, and lets the caller return.
    pub fn detach(mut self) -> CliResult<()> {
        let _ = rustix::process::setsid();
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| failed("/dev/null", e))?;
        let open_log = |path: &PathBuf| {
            private::make_dirs(path.parent()?).ok()?;
            // A FIFO in its place that nobody reads must not hold this up.
            let log = private::options().append(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
            // It names files. One that an earlier version made, or somebody else's, may be open to others.
            let _ = log.set_permissions(Permissions::from_mode(0o600));
            Some(log)
        };
        let log = self.log.as_ref().and_then(open_log);
        rustix::stdio::dup2_stdin(&null).map_err(|e| failed("stdin", e))?;
        rustix::stdio::dup2_stdout(&null).map_err(|e| failed("stdout", e))?;
        rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null)).map_err(|e| failed("stderr", e))?;
        let _ = std::env::set_current_dir("/");
        self.pipe.write_all(&[1]).map_err(|e| failed("telling the caller", e))
    }
}
