//! Asking on the terminal, which gets its echo back however that ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::{context, platform, say};

/// Signals that end a program, or stop it, and would leave a terminal without echo.
const ENDING: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];
/// Longest answer that is read, in bytes; a terminal gives no longer line.
const MAX_ANSWER: usize = 4096;
/// How long to wait before looking whether another thread took a signal.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Asks for a line that nobody is to see, on the terminal of this process.
///
/// # Errors
/// There is no terminal, or a signal came ([`io::ErrorKind::Interrupted`]) that did not end the process.
pub fn ask_hidden(prompt: &str) -> io::Result<Zeroizing<String>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let answer = ask(&terminal, prompt, terminal.as_fd(), true)?;
    // The end of the line was not shown either.
    (&terminal).write_all(b"\n")?;
    Ok(answer)
}

/// Asks for a line on stderr, and reads it from standard input.
///
/// # Errors
/// As [`ask_hidden`].
pub fn ask_shown(prompt: &str) -> io::Result<Zeroizing<String>> {
    ask(io::stderr(), prompt, io::stdin().as_fd(), false)
}

fn ask(
    output: impl AsFd,
    prompt: &str,
    input: BorrowedFd<'_>,
    hidden: bool,
) -> io::Result<Zeroizing<String>> {
    let output = File::from(output.as_fd().try_clone_to_owned()?);
    // With room for all of it: a buffer that grows leaves copies behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    'again: loop {
        let signals = HeldSignals::new()?;
        let echo = hidden.then(|| EchoOff::new(input)).transpose()?;
        (&output).write_all(say::clean(prompt).as_bytes())?;
        loop {
            match wait(input, &signals)? {
                Came::Nothing => {}
                Came::Signal(signal) => {
                    drop(echo);
                    drop(signals);
                    // Now it has its effect: it ends this process, stops it, or calls a handler.
                    raise(signal)?;
                    match signal {
                        Signal::SIGTSTP => continue 'again,
                        _ => return Err(io::ErrorKind::Interrupted.into()),
                    }
                }
                Came::Input => {
                    if read_some(input, &mut answer)? {
                        return text(&answer);
                    }
                }
            }
        }
    }
}

/// What there is after a wait.
enum Came {
    Nothing,
    Input,
    Signal(Signal),
}

fn wait(input: BorrowedFd<'_>, signals: &HeldSignals) -> io::Result<Came> {
    if context::interrupts().load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let mut fds = [PollFd::new(&signals.pipe, PollFlags::IN), PollFd::new(&input, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&PATIENCE)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Came::Nothing),
        other => other?,
    };
    let (signal, input) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
    if signal && let Some(info) = signals.pipe.read_signal()? {
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        return Ok(Came::Signal(Signal::try_from(number)?));
    }
    Ok(if input { Came::Input } else { Came::Nothing })
}

/// Reads what there is; true at the end of the line, or of everything.
fn read_some(input: BorrowedFd<'_>, answer: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = Zeroizing::new([0; MAX_ANSWER]);
    let room = MAX_ANSWER - answer.len();
    let n = rustix::io::read(input, &mut buffer[..room])?;
    answer.extend_from_slice(&buffer[..n]);
    if n == 0 && answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(n == 0 || answer.contains(&b'\n'))
}

fn text(answer: &[u8]) -> io::Result<Zeroizing<String>> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| io::Error::other("the answer is not UTF-8"))?;
    Ok(Zeroizing::new(line.to_owned()))
}

/// Signals that wait until this is dropped, and can be read meanwhile.
struct HeldSignals {
    pipe: SignalFd,
    before: SigSet,
}

impl HeldSignals {
    fn new() -> io::Result<Self> {
        // One that is ignored, as SIGHUP under nohup, stays ignored.
        let all: SigSet = ENDING.into_iter().filter(|signal| !platform::is_ignored(*signal as i32)).collect();
        let pipe = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), Some(&mut before))?;
        Ok(HeldSignals { pipe, before })
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// A terminal without echo until this is dropped.
struct EchoOff<'t> {
    terminal: BorrowedFd<'t>,
    before: Termios,
}

impl<'t> EchoOff<'t> {
    fn new(terminal: BorrowedFd<'t>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        hidden.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
        // What was typed or pasted already stays.
        tcsetattr(terminal, OptionalActions::Now, &hidden)?;
        Ok(EchoOff { terminal, before })
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_first_line_without_its_end() {
        for (read, line) in [("a b\n", "a b"), ("x\r\ny", "x"), ("", ""), ("no end", "no end")] {
            assert_eq!(*text(read.as_bytes()).unwrap(), line);
        }
        assert!(text(b"\xff\n").is_err());
    }

    #[test]
    fn a_pipe_that_ends_is_no_answer() {
        let (read, write) = io::pipe().unwrap();
        drop(write);
        assert!(read_some(read.as_fd(), &mut Vec::new()).is_err());
    }
}
