//! Running the built program on a terminal of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{VYKAR, World, eventually, wait};

/// Size of the terminal.
pub const ROWS: u16 = 24;
/// Likewise.
pub const COLUMNS: u16 = 90;

/// What somebody before a terminal saw.
pub struct Seen {
    pub code: i32,
    /// All bytes that came.
    pub raw: Vec<u8>,
    /// The screen whenever some had come.
    pub frames: Vec<String>,
    /// The screen at the end.
    pub last: String,
}

impl Seen {
    /// Demands a moment at which the screen showed all of this.
    #[track_caller]
    pub fn showed(&self, words: &[&str]) -> &Self {
        let all = |frame: &&String| words.iter().all(|word| frame.contains(word));
        assert!(self.frames.iter().any(|frame| all(&frame)), "never {words:?} in {:#?}", self.frames);
        self
    }

    #[track_caller]
    pub fn never_showed(&self, word: &str) -> &Self {
        let found = self.frames.iter().find(|frame| frame.contains(word));
        assert!(found.is_none(), "{word:?} in {found:?}");
        self
    }

    /// Demands that nothing of the line is left.
    #[track_caller]
    pub fn left_nothing(&self) -> &Self {
        for word in ["finishing", " files  ", "/s", " left  ", "starting"] {
            assert!(!self.last.contains(word), "{word:?} is left on {:?}", self.last);
        }
        self
    }
}

/// Something that runs on a terminal of its own.
pub struct OnTerminal {
    pub child: Child,
    /// What it shows now.
    screen: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<(Vec<u8>, Vec<String>, String)>,
}

impl OnTerminal {
    /// Starts a command that is asked nothing.
    pub fn start(command: Command) -> Self {
        Self::start_answering(command, &[])
    }

    /// Starts a command and types, each time the screen shows the next prompt, the answer to it.
    pub fn start_answering(mut command: Command, answers: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave: OwnedFd =
            rustix::fs::open(ptsname(&master, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        if !answers.is_empty() {
            command.stdin(slave.try_clone().unwrap());
        }
        command.stdout(slave.try_clone().unwrap()).stderr(slave);
        let answers =
            answers.iter().map(|(prompt, answer)| (prompt.to_string(), answer.to_string())).collect();
        let child = command.spawn().unwrap();
        // With it goes this side's end of the terminal, so that reading ends with the child.
        drop(command);
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        let reader = std::thread::spawn(move || watch(File::from(master), answers, &shown));
        OnTerminal { child, screen, reader }
    }

    /// Waits until the screen shows this.
    pub fn wait_for(&self, word: &str) {
        eventually(word, || self.screen.lock().unwrap().contains(word));
    }

    pub fn finish(mut self) -> Seen {
        let status = wait(&mut self.child, Duration::from_secs(100));
        if status.is_none() {
            let _ = self.child.kill();
        }
        let (raw, frames, last) = self.reader.join().unwrap();
        let code = status.unwrap_or_else(|| panic!("still running: {last}")).code();
        Seen { code: code.unwrap_or(-1), raw, frames, last }
    }
}

fn watch(
    mut master: File,
    answers: Vec<(String, String)>,
    screen: &Mutex<String>,
) -> (Vec<u8>, Vec<String>, String) {
    let [rows, columns] = [ROWS, COLUMNS].map(|n| NonZero::new(n).unwrap());
    let (mut answers, mut asked) = (VecDeque::from(answers), Vec::new());
    let mut terminal = vt100::Parser::new(rows, columns, 0);
    let (mut raw, mut frames, mut buf) = (Vec::new(), Vec::new(), [0; 4096]);
    // Ends with EIO when nobody has the other side open any more.
    while let Ok(n @ 1..) = master.read(&mut buf) {
        raw.extend_from_slice(&buf[..n]);
        terminal.process(&buf[..n]);
        let frame = terminal.screen().contents();
        // What is still on the screen of an earlier prompt does not ask again.
        if let Some((prompt, answer)) = answers.front()
            && frame.matches(prompt.as_str()).count() > asked.iter().filter(|old| *old == prompt).count()
        {
            master.write_all(format!("{answer}\n").as_bytes()).unwrap();
            asked.push(prompt.clone());
            answers.pop_front();
        }
        screen.lock().unwrap().clone_from(&frame);
        frames.push(frame);
    }
    let last = terminal.screen().contents();
    (raw, frames, last)
}

/// `vykar -R REPO args`, to be run on a terminal that can everything.
pub fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command();
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR").arg("-R").arg(&world.repo).args(args);
    command
}

/// Runs that to its end.
pub fn on_terminal(world: &World, args: &[&str]) -> Seen {
    OnTerminal::start(command(world, args)).finish()
}

/// Runs that to its end, answering its questions: each answer when its prompt is shown.
pub fn dialogue(world: &World, args: &[&str], answers: &[(&str, &str)]) -> Seen {
    OnTerminal::start_answering(command(world, args), answers).finish()
}

/// The same on a terminal that is the program's own, where it asks for passphrases, with none in the environment.
pub fn asked(world: &World, args: &[&str], answers: &[(&str, &str)]) -> Seen {
    let mut command = world.with_environment(Command::new("setsid"));
    command.arg("--ctty").arg(VYKAR).arg("-R").arg(&world.repo).args(args);
    command.env_remove("VYKAR_PASSPHRASE").env("TERM", "xterm-256color");
    OnTerminal::start_answering(command, answers).finish()
}
