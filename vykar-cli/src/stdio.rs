//! What programs hand over to be stored: the output of commands, and standard input.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use vykar_core::backup::{DUMPS, OpenStream, Stream, StreamContent};

use crate::child_env;
use crate::config::Dump;

/// How long to wait for bytes before looking whether they are still wanted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// The output of a command, as a file below the folder of dumps.
pub fn dump(dump: &Dump) -> Stream {
    let command = dump.command.clone();
    let open: OpenStream = Arc::new(move || started(&mut child_env::shell(&command)));
    Stream { path: format!("{DUMPS}/{}", dump.name), open }
}

/// The output of a program with arguments, as a file of this name. Nothing is stored unless it succeeds.
pub fn command(name: &str, words: Vec<OsString>) -> Stream {
    let open: OpenStream = Arc::new(move || {
        let (program, arguments) = words.split_first().ok_or("no command is given")?;
        started(child_env::program(program).args(arguments))
    });
    Stream { path: name.to_owned(), open }
}

fn started(command: &mut Command) -> Result<Box<dyn StreamContent>, String> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| format!("the command cannot be run: {e}"))?;
    let out = child.stdout.take().ok_or("the command has no output")?;
    Ok(Box::new(StdOutput { child, out: Some(out) }))
}

/// Standard input, as a file of this name.
pub fn stdin(name: &str) -> Stream {
    let used = AtomicBool::new(false);
    let open: OpenStream = Arc::new(move || {
        if used.swap(true, Ordering::Relaxed) {
            return Err("standard input can be read only once; run the backup again".to_owned());
        }
        Ok(Box::new(Input) as Box<dyn StreamContent>)
    });
    Stream { path: name.to_owned(), open }
}

/// Waits a moment for something to read; [`io::ErrorKind::WouldBlock`] when there is nothing, so that a backup can
/// be interrupted while a command is silent.
fn wait_for(fd: impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&PATIENCE)) {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        // Something, the end, or an error, which reading tells.
        Ok(_) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

struct StdOutput {
    child: Child,
    out: Option<ChildStdout>,
}

impl Read for StdOutput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(out) = self.out.as_mut() else { return Ok(0) };
        wait_for(&*out)?;
        out.read(buf)
    }
}

impl StreamContent for StdOutput {
    fn finish(mut self: Box<Self>) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| format!("the command cannot be waited for: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("the command failed ({status})")) }
    }
}

impl Drop for StdOutput {
    /// A backup that ends early leaves no command behind.
    fn drop(&mut self) {
        drop(self.out.take());
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

struct Input;

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stdin = io::stdin().lock();
        wait_for(&stdin)?;
        stdin.read(buf)
    }
}

impl StreamContent for Input {
    fn finish(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}
