//! A small process beside each mount. When the process that serves the mount is killed, whatever way, it
//! takes the dead mount away.
//!
//! It is the same program, started anew under a name of its own: so it holds no keys, no passphrase and
//! nothing open but a pipe. It knows of the end of the other process by the end of that pipe.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use vykar_mount::Announce;

use crate::exit::Exit;
use crate::platform;

/// The name that the program is called by, and that `ps` shows.
pub const NAME: &str = "vykar-watchdog";
/// This program, even when its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Longest order: a path and some numbers, in bytes.
const ORDER_MAX: usize = 16 << 10;
/// Behind an order that is void.
const DISMISSED: &[u8] = b"dismissed";
/// How long the other process may take from the end of its first thread to its own.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// A signal that comes just before the watchdog waits for one is noticed this late.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long a mount that was being made may take to appear.
const APPEARS_WITHIN: Duration = Duration::from_millis(500);

/// The watchdog of a mount, as the process that serves the mount sees it.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Inner>>);

struct Inner {
    process: Child,
    /// Until it is dismissed.
    pipe: Option<ChildStdin>,
    failure: Option<io::Error>,
}

impl Watchdog {
    /// Starts it. It does nothing until it is told of a mount. To be called by the process's first thread, whose end
    /// it watches.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(THIS_PROGRAM);
        // The environment may hold the passphrase. The path leads to fusermount3.
        command.arg0(NAME).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let pipe = process.stdin.take();
        Ok(Watchdog(Arc::new(Mutex::new(Inner { process, pipe, failure: None }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells it of a mount, which it takes away from then on when this process ends.
    pub fn announce(&self) -> Announce {
        let watchdog = self.clone();
        Announce(Arc::new(move |path, device| {
            // Neither can hold NUL.
            let word = device.map_or(path.as_os_str().as_bytes(), str::as_bytes);
            watchdog.tell(&[word, b"\0"].concat());
        }))
    }

    fn tell(&self, word: &[u8]) {
        let mut inner = self.inner();
        if let Some(Err(e)) = inner.pipe.as_mut().map(|pipe| pipe.write_all(word)) {
            inner.failure.get_or_insert(e);
        }
    }

    /// Why it does not know of the mount, if it does not.
    pub fn failure(&self) -> Option<io::Error> {
        self.inner().failure.take()
    }

    /// Lets it go: nothing is mounted any more.
    pub fn dismiss(&self) {
        // One that is gone already needs no word.
        self.tell(DISMISSED);
        let mut inner = self.inner();
        drop(inner.pipe.take());
        let _ = inner.process.wait();
    }
}

/// What the watchdog does.
pub fn run() -> Exit {
    platform::close_inherited_files();
    let _ = rustix::thread::set_name(c"vykar-watchdog");
    // What ends the other process from the terminal, or when a service is stopped, must not end this one
    // before. It ends by itself.
    let _ = rustix::process::setsid();
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    let done = listen().map(|(order, ended)| match (parse(&order), ended) {
        (Some((path, None)), _) => unmount_when_it_appears(&path),
        (Some((path, Some(device))), true) => vykar_mount::unmount_dead(&path, Some(&device)).is_ok(),
        (Some((path, Some(device))), false) => vykar_mount::unmount_stuck(&path, &device).is_ok(),
        (None, _) => true,
    });
    if done.unwrap_or(false) { Exit::Success } else { Exit::Failure }
}

/// Of a mount that was just being made. A helper may be at it still, which only root does without.
fn unmount_when_it_appears(path: &Path) -> bool {
    let began = Instant::now();
    loop {
        let done = vykar_mount::unmount_dead(path, None).is_ok();
        if began.elapsed() > APPEARS_WITHIN || rustix::process::geteuid().is_root() {
            return done;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads the order until the other process ends; false when its first thread has ended, and yet something of it is still
/// there after a while.
fn listen() -> io::Result<(Vec<u8>, bool)> {
    let died = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, died.clone())?;
    // Who is killed ends thread by thread, and the pipe is closed by the last: that one may wait in the kernel.
    rustix::process::set_parent_process_death_signal(Some(Signal::USR1))?;
    let mut order = Vec::new();
    let mut dead_since: Option<Instant> = None;
    let mut buffer = [0; 4096];
    let stdin = io::stdin();
    loop {
        if died.load(Ordering::Relaxed) {
            dead_since.get_or_insert_with(Instant::now);
        }
        let left = dead_since.map_or(LOOK_EVERY, |since| ENDS_WITHIN.saturating_sub(since.elapsed()));
        if left.is_zero() {
            return Ok((order, false));
        }
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            // The signal, most likely.
            Err(rustix::io::Errno::INTR) | Ok(0) => continue,
            other => other?,
        };
        match rustix::io::read(&stdin, &mut buffer)? {
            0 => return Ok((order, true)),
            _ if order.len() > ORDER_MAX => return Err(io::ErrorKind::InvalidData.into()),
            n => order.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Path and, where it is known, device; `None` where nothing is to be done.
fn parse(order: &[u8]) -> Option<(PathBuf, Option<String>)> {
    let mut parts: Vec<_> = order.split(|byte| *byte == 0).collect();
    // What stands behind the last NUL makes it void.
    let _ = parts.pop().filter(|rest| rest.is_empty())?;
    let path = |path: &[u8]| OsString::from_vec(path.to_vec()).into();
    match parts[..] {
        [at] => Some((path(at), None)),
        [at, device] => Some((path(at), Some(OsStr::from_bytes(device).to_str()?.to_owned()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_order_that_stands_is_followed() {
        let path = || PathBuf::from(OsString::from_vec(b"/a\xffb".to_vec()));
        assert_eq!(parse(b"/a\xffb\0"), Some((path(), None)));
        assert_eq!(parse(b"/a\xffb\x000:45\0"), Some((path(), Some("0:45".into()))));
        for order in
            [&b""[..], b"/a", b"/a\x000:45", b"/a\x000:45\0dismissed", b"/a\0dismissed", b"dismissed"]
        {
            assert_eq!(parse(order), None);
        }
    }
}
