//! A small process beside each mount. When the process that serves the mount is killed, whatever way, it
//! takes the dead mount away.
//!
//! It is the same program, started anew under a name of its own: so it holds no keys, no passphrase and
//! nothing open but a pipe. It knows of the end of the other process by the end of that pipe.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use vykar_mount::Mount;

use crate::exit::Exit;
use crate::platform;

/// The name that the program is called by, and that `ps` shows.
pub const NAME: &str = "vykar-watchdog";
/// This program, even when its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Longest order: a path and some numbers, in bytes.
const ORDER_MAX: u64 = 16 << 10;
/// Behind an order that is void.
const DISMISSED: &[u8] = b"dismissed";

/// The watchdog of a mount, as the process that serves the mount sees it.
pub struct Watchdog {
    process: Child,
    pipe: ChildStdin,
}

impl Watchdog {
    /// Starts it. It does nothing until [`Watchdog::guard`].
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(THIS_PROGRAM);
        // The environment may hold the passphrase. The path leads to fusermount3.
        command.arg0(NAME).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let pipe = process.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
        Ok(Watchdog { process, pipe })
    }

    /// From now on the mount is taken away when this process ends.
    pub fn guard(&mut self, mount: &Mount) -> io::Result<()> {
        // Neither can hold NUL.
        let path = mount.path().as_os_str().as_bytes();
        self.pipe.write_all(&[mount.device().as_bytes(), b"\0", path, b"\0"].concat())
    }

    /// Lets it go: the mount is unmounted.
    pub fn dismiss(mut self) {
        // One that is gone already needs no word.
        let _ = self.pipe.write_all(DISMISSED);
        drop(self.pipe);
        let _ = self.process.wait();
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
    let mut order = Vec::new();
    match io::stdin().lock().take(ORDER_MAX).read_to_end(&mut order).map(|_| parse(order)) {
        Ok(Some((device, path))) => match vykar_mount::unmount_dead(&path, &device) {
            Ok(()) => Exit::Success,
            Err(_) => Exit::Failure,
        },
        Ok(None) => Exit::Success,
        Err(_) => Exit::Failure,
    }
}

/// Device and path; `None` where nothing is to be done.
fn parse(order: Vec<u8>) -> Option<(String, PathBuf)> {
    let mut parts = order.split(|byte| *byte == 0);
    let (device, path, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let device = OsStr::from_bytes(device).to_str()?.to_owned();
    rest.is_empty().then(|| (device, OsString::from_vec(path.to_vec()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_order_that_stands_is_followed() {
        assert_eq!(parse(b"0:45\0/a\xffb\0".to_vec()).map(|(d, _)| d), Some("0:45".into()));
        for order in [&b""[..], b"0:45", b"0:45\0/a", b"0:45\0/a\0dismissed"] {
            assert_eq!(parse(order.to_vec()), None);
        }
    }
}
