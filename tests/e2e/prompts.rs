//! Prompts, and what signals leave behind.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::harness::{VYKAR, World, eventually, exit, wait};

/// Runs a command as a shell does that stays on the terminal: when the first process of a terminal ends, the kernel
/// itself sets the terminal back.
const SHELL: &str = r#"trap : INT TERM HUP QUIT; "$@"; echo "[ended $?]"; read -r line"#;

/// For env(1): what whoever started the tests ignores is not ignored here.
const DEFAULTS: &str = "--default-signal=INT,TERM,HUP,QUIT";

/// A program on a terminal of its own, which is its controlling one.
struct Prompted {
    child: Child,
    master: File,
    seen: Vec<u8>,
}

impl Prompted {
    fn start(world: &World, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal: OwnedFd = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        let mut command = world.with_environment(Command::new("setsid"));
        command
            .args(["--ctty", "--wait", "env", DEFAULTS, "sh", "-c", SHELL, "sh", VYKAR, "-R"])
            .arg(&world.repo)
            .args(args);
        command.env_remove("VYKAR_PASSPHRASE");
        let side = || Stdio::from(terminal.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        Prompted { child, master: File::from(master), seen: Vec::new() }
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(self.master.as_fd()).unwrap().local_modes
    }

    fn has_echo(&self) -> bool {
        self.modes().contains(LocalModes::ECHO)
    }

    /// Reads until this word is there, and returns what is behind it so far.
    fn until(&mut self, word: &str) -> String {
        let mut buffer = [0; 1024];
        loop {
            let text = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some((_, behind)) = text.split_once(word) {
                return behind.to_owned();
            }
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "no {word:?} in {text:?}");
            let n = self.master.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..n]);
        }
    }

    /// Waits until the prompt is there; `hidden` demands that the echo is off.
    fn until_asked(&mut self, prompt: &str, hidden: bool) {
        self.until(prompt);
        assert_eq!(self.has_echo(), !hidden);
    }

    /// The program itself.
    fn program(&self) -> Pid {
        let mut at = vec![self.child.id()];
        while let Some(pid) = at.pop() {
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            if read("comm").trim() == "vykar" {
                return Pid::from_raw(pid as i32).unwrap();
            }
            at.extend(
                read(&format!("task/{pid}/children")).split_whitespace().map(|n| n.parse::<u32>().unwrap()),
            );
        }
        panic!("it does not run");
    }

    /// Waits for its end; its exit code, or 128 and the signal.
    fn ended(&mut self) -> i32 {
        self.until("[ended ");
        self.until("]\r\n");
        let text = String::from_utf8_lossy(&self.seen).into_owned();
        text.split_once("[ended ").unwrap().1.split_once(']').unwrap().0.parse().unwrap()
    }
}

impl Drop for Prompted {
    fn drop(&mut self) {
        // The shell waits for a line.
        let _ = self.master.write_all(b"\n");
        if wait(&mut self.child, Duration::from_secs(10)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_signal_at_a_prompt_gives_the_terminal_its_echo_back() {
    let world = World::with_repository("auto");
    for signal in [None, Some(Signal::TERM), Some(Signal::HUP), Some(Signal::QUIT)] {
        let mut prompted = Prompted::start(&world, &["list"]);
        prompted.until_asked("Passphrase: ", true);
        match signal {
            // Ctrl-C.
            None => prompted.master.write_all(b"\x03").unwrap(),
            Some(signal) => kill_process(prompted.program(), signal).unwrap(),
        }
        assert_ne!(prompted.ended(), 0);
        assert!(prompted.has_echo(), "{signal:?}");
        assert!(prompted.modes().contains(LocalModes::ICANON | LocalModes::ISIG), "{signal:?}");
    }
}

#[test]
fn the_right_answer_opens_it_and_the_echo_is_back() {
    let world = World::with_repository("auto");
    let mut prompted = Prompted::start(&world, &["list"]);
    prompted.until_asked("Passphrase: ", true);
    prompted.master.write_all(format!("{}\n", world.passphrase).as_bytes()).unwrap();
    assert_eq!(prompted.ended(), 0);
    assert!(prompted.has_echo());
}

#[test]
fn an_init_that_is_interrupted_at_its_prompt_leaves_nothing() {
    let mut world = World::new();
    world.repo = world.path("new/repo");
    let mut prompted = Prompted::start(&world, &["init"]);
    prompted.until_asked("New passphrase: ", true);
    prompted.master.write_all(b"\x03").unwrap();
    assert_ne!(prompted.ended(), 0);
    assert!(prompted.has_echo());
    assert!(!world.path("new").exists());
    // Two that are not the same are no passphrase either.
    let mut prompted = Prompted::start(&world, &["init"]);
    prompted.until_asked("New passphrase: ", true);
    prompted.master.write_all(b"one\n").unwrap();
    prompted.until_asked("The same again: ", true);
    prompted.master.write_all(b"two\n").unwrap();
    assert_eq!(prompted.ended(), exit::PASSPHRASE);
    assert!(!world.path("new").exists());
}

#[test]
fn a_question_ends_with_a_signal_and_nothing_is_done() {
    let world = World::with_repository("none");
    let mut prompted = Prompted::start(&world, &["delete"]);
    prompted.until_asked("to delete it for good: ", false);
    kill_process(prompted.program(), Signal::HUP).unwrap();
    assert_ne!(prompted.ended(), 0);
    assert!(world.repo.join("config").exists());
}

/// Names below a folder of the repository.
fn names(world: &World, folder: &str) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(world.repo.join(folder)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_hangup_ends_a_backup_as_sigterm_does() {
    let world = World::with_repository("none");
    for signal in [Signal::HUP, Signal::TERM] {
        // Standing still at a program that prints nothing more.
        let mut command = world.with_environment(Command::new("env"));
        command.args([DEFAULTS, VYKAR, "-R"]).arg(&world.repo).args(["backup", "--stdin"]);
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"some of it").unwrap();
        let mut child = command.stdin(reader).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        eventually("a session", || !names(&world, "sessions").is_empty());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = wait(&mut child, Duration::from_secs(20)).expect("it goes on");
        assert_eq!(status.code(), Some(exit::INTERRUPTED), "{signal:?}");
        drop(writer);
        let left = names(&world, "sessions");
        let left: Vec<_> = left.iter().filter(|name| name.to_string_lossy().ends_with(".json")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(names(&world, "locks").is_empty() && world.snapshots().is_empty());
    }
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let world = World::with_repository("none");
    let mut command = world.with_environment(Command::new("sh"));
    // As nohup(1) does, whose own output would be in the way.
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", VYKAR, "-R"]).arg(&world.repo);
    command.args(["backup", "--stdin"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"all ").unwrap();
    let mut child = command.stdin(reader).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("a session", || !names(&world, "sessions").is_empty());
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    writer.write_all(b"of it").unwrap();
    drop(writer);
    assert_eq!(wait(&mut child, Duration::from_secs(20)).expect("it goes on").code(), Some(0));
    assert_eq!(world.run(["cat", "latest:stdin"]).ok().out(), "all of it");
}
