//! Running the built program, and cleaning up behind it.

pub mod platform;
pub mod terminal;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub use crate::needs::{require_fuse, require_fusermount};

/// The program under test.
pub const VYKAR: &str = env!("CARGO_BIN_EXE_vykar");
/// The mounts that this thread sees, see [`World::become_nobody`].
pub const MOUNTS: &str = "/proc/thread-self/mountinfo";
/// No command of these tests takes longer than this, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Exit codes, as the README lists them.
pub mod exit {
    pub const FAILURE: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const PARTIAL: i32 = 3;
    pub const PASSPHRASE: i32 = 4;
    pub const LOCKED: i32 = 5;
    pub const NO_REPOSITORY: i32 = 6;
    pub const DAMAGED: i32 = 7;
    pub const STORAGE: i32 = 8;
    pub const CHANGED: i32 = 9;
    pub const INTERRUPTED: i32 = 130;
}

/// True for root, who can make and restore every kind of metadata.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says on the terminal, past the test harness's capture, what this machine does not allow.
pub fn note(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// The project's root directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The repositories that another program wrote.
pub const FIXTURES: [&str; 3] = ["aes256gcm-lz4", "chacha20poly1305-zstd", "plain-stored"];

/// The folder of one of them, or of all.
pub fn fixture(name: &str) -> PathBuf {
    let path = project().join("tests/fixtures").join(name);
    assert!(path.is_dir(), "{} is missing", path.display());
    path
}

/// Lets everybody open /dev/fuse, as almost everywhere. Where only root may, this thread and what it starts
/// get another one in its place; nothing else on this machine changes.
fn open_fuse_to_all(folder: &Path) {
    let device = fs::metadata("/dev/fuse").unwrap();
    if device.mode() & 0o006 == 0o006 {
        return;
    }
    let own = platform::own_mounts();
    assert!(own.is_ok(), "only root may open /dev/fuse here, and {own:?}: chmod 666 /dev/fuse");
    let node = folder.join("fuse");
    let run = |program: &str, args: &[&str]| silent(Command::new(program).args(args));
    let (at, node) = (folder.to_str().unwrap(), node.to_str().unwrap());
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["-t", "tmpfs", "none", at]);
    let (major, minor) = (rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev()));
    run("mknod", &["-m", "666", node, "c", &major.to_string(), &minor.to_string()]);
    run("mount", &["--bind", node, "/dev/fuse"]);
    run("umount", &["-l", at]);
}

/// A parent for temporary folders whose file system keeps user attributes.
fn scratch() -> PathBuf {
    let candidates = [std::env::temp_dir(), PathBuf::from(env!("CARGO_TARGET_TMPDIR"))];
    for dir in &candidates {
        let probe = tempfile::NamedTempFile::new_in(dir).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::lsetxattr(probe.path(), "user.probe", b"1", flags).is_ok() {
            return dir.clone();
        }
    }
    panic!("neither {candidates:?} keeps extended attributes: set TMPDIR to a folder on ext4, xfs or btrfs");
}

/// One repository, its local cache, and a folder for everything else.
pub struct World {
    dir: TempDir,
    pub repo: PathBuf,
    pub cache: PathBuf,
    pub passphrase: String,
    /// Run as nobody (root only).
    pub as_nobody: bool,
    runs: AtomicU32,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vykar-e2e-").tempdir_in(scratch()).unwrap();
        let (repo, cache) = (dir.path().join("repo"), dir.path().join("cache"));
        World {
            dir,
            repo,
            cache,
            passphrase: "sesame, open".into(),
            as_nobody: false,
            runs: AtomicU32::default(),
        }
    }

    /// Over a writable copy of somebody else's repository.
    pub fn with_copy_of(repo: &Path, passphrase: &str) -> Self {
        let mut world = World::new();
        copy_tree(repo, &world.repo);
        world.passphrase = passphrase.to_owned();
        world
    }

    /// With a fresh repository.
    pub fn with_repository(encryption: &str) -> Self {
        let world = World::new();
        world.run(["init", "--encryption", encryption]).ok();
        world
    }

    /// Likewise, with packs of this size, as the program reads it.
    pub fn with_packs_of(size: &str, encryption: &str) -> Self {
        let world = World::new();
        let packs = ["--min-pack-size", size, "--max-pack-size", size];
        world.run(["init", "--encryption", encryption].into_iter().chain(packs)).ok();
        world
    }

    /// A path in this world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new empty folder in this world's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// From now on everything runs as nobody, who may read the repository, use the local cache, and mount.
    /// Root only.
    pub fn become_nobody(&mut self) {
        open_fuse_to_all(&self.folder("devices"));
        fs::create_dir_all(&self.cache).unwrap();
        for (mode, path) in [("a+rX", &self.repo), ("a+rwX", &self.cache)] {
            silent(Command::new("chmod").args(["-R", mode]).arg(path));
        }
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        self.as_nobody = true;
    }

    /// Any program, run by the same user as the program under test.
    pub fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.as_nobody {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        command
    }

    /// A folder to mount on, owned by the user who mounts.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        let path = self.folder(name);
        if self.as_nobody {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        path
    }

    /// The program with its environment, and no arguments.
    pub fn command(&self) -> Command {
        let program = if self.as_nobody { self.program_for_all() } else { VYKAR.into() };
        self.with_environment(self.tool(program))
    }

    /// A command with the environment that the program gets.
    pub fn with_environment(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"VYKAR_")) {
            command.env_remove(name);
        }
        command
            .env("VYKAR_PASSPHRASE", &self.passphrase)
            .env("VYKAR_CACHE_DIR", &self.cache)
            .env("XDG_CONFIG_HOME", self.dir.path().join("no-configuration"))
            .env("TZ", "UTC")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// A copy of the program that everybody may run: the build may live in a private folder.
    fn program_for_all(&self) -> PathBuf {
        let copy = self.path("vykar");
        if !copy.exists() {
            fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            // Not fs::copy: a child that another test just forks would keep it open for writing.
            silent(Command::new("cp").arg(VYKAR).arg(&copy));
        }
        copy
    }

    /// Runs `vykar -R REPO args`.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let mut command = self.command();
        command.arg("-R").arg(&self.repo).args(args);
        self.finish(command)
    }

    /// Runs a prepared command to its end.
    pub fn finish(&self, command: Command) -> Run {
        self.finish_watched(command, &mut |_| ())
    }

    /// Likewise, and calls `look` every few milliseconds while it runs.
    pub fn finish_watched(&self, mut command: Command, look: &mut dyn FnMut(&Child)) -> Run {
        // Files and not pipes: a background process that keeps them open must not hold up the test.
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let logs = self.folder("logs");
        let (out, err) = (logs.join(format!("{number}.out")), logs.join(format!("{number}.err")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let line = shown(&command);
        let began = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        let Some(status) = wait_watching(&mut child, PATIENCE, look) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{line}: still running after {PATIENCE:?}; stderr:\n{}", text(&err));
        };
        let run = Run {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: fs::read(out).unwrap(),
            stderr: text(&err),
            took: began.elapsed(),
            line,
        };
        for sign in ["panicked at", "stack backtrace", "RUST_BACKTRACE"] {
            assert!(!run.stderr.contains(sign), "{run} must not panic");
        }
        run
    }

    /// Mounts the repository in the background.
    pub fn mount(&self) -> Mount {
        self.mount_with(&[])
    }

    /// Likewise, with more arguments.
    pub fn mount_with(&self, args: &[&str]) -> Mount {
        require_fuse();
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let at = self.mountpoint(&format!("mount-{number}"));
        let fixed = [OsStr::new("mount"), at.as_os_str(), OsStr::new("--background")];
        self.run(fixed.into_iter().chain(args.iter().map(OsStr::new))).ok();
        assert!(is_mounted(&at), "mount --background returned before the mount was there");
        Mount { at }
    }

    /// What background mounts have logged.
    pub fn mount_log(&self) -> String {
        text(&self.cache.join("mount.log"))
    }

    /// The snapshots that `list --json` shows.
    pub fn snapshots(&self) -> Vec<serde_json::Value> {
        let list = self.run(["list", "--json"]).ok().json();
        list["snapshots"].as_array().unwrap_or_else(|| panic!("no snapshots in {list}")).clone()
    }

    /// Backs up and returns the run, whatever it was.
    pub fn backup<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let args = args.into_iter().map(|a| a.as_ref().to_owned());
        self.run(std::iter::once(OsString::from("backup")).chain(args))
    }

    /// Lets the independent reader verify the repository.
    pub fn oracle_verify(&self) {
        let problems = self.oracle_problems();
        assert!(problems.is_empty(), "the independent reader found:\n{}", problems.join("\n"));
    }

    /// The same after commits side by side: one that lost its lock between the index and the snapshot adds its
    /// references again, and counts that are too high only cost space.
    pub fn oracle_verify_but_for_high_counts(&self) {
        let mut problems = self.oracle_problems();
        problems.retain(|line| {
            let counts =
                line.split_once(": refcount ").and_then(|(_, counts)| counts.split_once(", counted "));
            let number = |text: &str| text.parse::<u64>().unwrap();
            counts.is_none_or(|(kept, counted)| number(kept) < number(counted))
        });
        assert!(problems.is_empty(), "the independent reader found:\n{}", problems.join("\n"));
    }

    /// What the independent reader finds wrong.
    fn oracle_problems(&self) -> Vec<String> {
        let tool = project().join("tests/oracle/repo_oracle.py");
        assert!(tool.is_file(), "{} is missing", tool.display());
        let python = oracle_python();
        // It lists this folder, which need not exist while there is no snapshot.
        fs::create_dir_all(self.repo.join("snapshots")).unwrap();
        let output = Command::new(python)
            .arg(tool)
            .arg("verify")
            .arg(&self.repo)
            .env("VYKAR_PASSPHRASE", &self.passphrase)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        let last = lines.pop().unwrap_or_default();
        assert!(last.ends_with(" problems"), "the independent reader did not end:\n{said}{complained}");
        assert!(last.contains(&format!(" {} problems", lines.len())), "{said}");
        lines
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Read-only folders keep their files from anybody but root.
        if !is_root() {
            let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.dir.path()).output();
        }
        if std::thread::panicking() {
            self.dir.disable_cleanup(std::env::var_os("KEEP").is_some());
        }
    }
}

/// A Python that has what the independent reader imports.
fn oracle_python() -> PathBuf {
    let made = project().join("target/oracle/python");
    assert!(made.exists(), "the independent reader needs Python packages: run scripts/oracle-env");
    made
}

/// What a command did.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
    line: String,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: &str| text.chars().take(4000).collect::<String>();
        let Run { code, line, .. } = self;
        write!(f, "{line}\nexit code {code}\n")?;
        write!(f, "--- stdout\n{}--- stderr\n{}---", cut(&self.out()), cut(&self.stderr))
    }
}

impl Run {
    /// Demands success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Demands an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Demands a word on stderr.
    #[track_caller]
    pub fn says(self, word: &str) -> Self {
        assert!(self.stderr.contains(word), "{self} should say {word:?}");
        self
    }

    /// Demands one message, perhaps with what to do next on the following line.
    #[track_caller]
    pub fn one_message(self) -> Self {
        let errors = self.stderr.lines().filter(|l| l.starts_with("vykar: ")).count();
        assert_eq!(errors, 1, "{self} should give one error message");
        assert!(self.stderr.lines().count() <= 3, "{self} should be short");
        self
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{self} is not JSON: {e}"))
    }
}

/// A mounted repository; unmounted when dropped, by force if need be.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Takes care of a mount that was made otherwise.
    pub fn adopt(at: PathBuf) -> Self {
        Mount { at }
    }

    /// A path inside.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    /// The newest snapshot's folder, free of symlinks.
    pub fn latest(&self) -> PathBuf {
        fs::canonicalize(self.at.join("snapshots/latest")).unwrap()
    }

    /// Unmounts with `vykar umount`, and demands that it works.
    pub fn unmount(self, world: &World) {
        let mut command = world.command();
        command.arg("umount").arg(&self.at);
        world.finish(command).ok();
        assert!(!is_mounted(&self.at), "umount said that it worked, and the mount is still there");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !is_mounted(&self.at) {
            return;
        }
        for tool in [&["fusermount3", "-u", "-z"][..], &["umount", "-l"]] {
            let done = Command::new(tool[0]).args(&tool[1..]).arg(&self.at).output();
            if done.is_ok_and(|o| o.status.success()) && !is_mounted(&self.at) {
                return;
            }
        }
        note(&format!("{} is still mounted", self.at.display()));
    }
}

/// True when something is mounted exactly here.
pub fn is_mounted(at: &Path) -> bool {
    let table = fs::read(MOUNTS).unwrap();
    let mut wanted = Vec::new();
    for byte in at.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => wanted.extend(format!("\\{byte:03o}").bytes()),
            other => wanted.push(*other),
        }
    }
    table.split(|b| *b == b'\n').any(|line| line.split(|b| *b == b' ').nth(4) == Some(&wanted[..]))
}

/// Waits for a child; `None` when it takes too long.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    wait_watching(child, patience, &mut |_| ())
}

fn wait_watching(child: &mut Child, patience: Duration, look: &mut dyn FnMut(&Child)) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        look(child);
        std::thread::sleep(Duration::from_millis(3));
    }
    None
}

/// Waits until something is true.
pub fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Runs an external command that must succeed and say nothing.
#[track_caller]
pub fn silent(command: &mut Command) {
    let line = shown(command);
    let output = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
    let said = [output.stdout, output.stderr].concat();
    let said: String = String::from_utf8_lossy(&said).chars().take(4000).collect();
    assert!(output.status.success() && said.is_empty(), "{line}\n{}\n{said}", output.status);
}

/// Copies a folder of plain files.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to),
            // Not fs::copy: the original may be read-only.
            false => fs::write(to, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// Room that a repository keeps aside, which comes and goes.
pub const RESERVE: &str = ".tmp-reserve";

/// Every file below a folder, by relative path, with its length and SHA-256, but for a repository's reserve.
pub fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, (u64, String)> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, (u64, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if name.as_os_str() == RESERVE {
                continue;
            }
            if path.is_dir() {
                found.insert(name, (0, "directory".into()));
                walk(root, &path, found);
            } else {
                found.insert(name, (path.metadata().unwrap().len(), sha256(&path)));
            }
        }
    }
    let mut found = BTreeMap::new();
    if dir.exists() {
        walk(dir, dir, &mut found);
    }
    found
}

/// SHA-256 of a file's content, in hex.
pub fn sha256(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        match file.read(&mut buf).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
            0 => return hex(&hash.finalize()),
            n => hash.update(&buf[..n]),
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// From lower-case hex.
pub fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
}
