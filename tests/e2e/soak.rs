//! Everything at once, for a while: readers of all kinds in several threads and processes, while snapshots
//! come and go. Every byte is compared with what was backed up, and memory must not grow.
//!
//! `VYKAR_SOAK_SECONDS` sets how long; `make soak` takes ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::harness::{World, eventually, hex, note, wait};
use super::processes::{Foreground, memory, open_files};
use super::random::Dice;
use super::tree::{noise, prose, set_times};

/// How long, without `VYKAR_SOAK_SECONDS`.
const SECONDS: u64 = 60;
/// Memory that may be added in the second half, in KiB.
const GROWTH: u64 = 10 << 10;
/// Snapshots that are there at the same time.
const ALIVE: usize = 4;
/// Deleted ones that are still looked at.
const DEAD: usize = 2;
/// Files of a version.
const FILES: usize = 240;
/// Between two changes.
const PAUSE: Duration = Duration::from_secs(2);

impl Dice {
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What a file is; its content follows from that.
#[derive(Clone, Copy)]
struct Kind {
    seed: u64,
    len: usize,
}

impl Kind {
    fn new(dice: &mut Dice) -> Self {
        let len = match dice.below(40) {
            0 => 0,
            1 | 2 => dice.below(4 << 20),
            3 => 4096 * dice.below(20),
            _ => dice.below(40_000),
        };
        Kind { seed: dice.below(1 << 31) as u64, len }
    }

    fn content(self) -> Vec<u8> {
        match self.seed % 8 {
            0 => vec![0; self.len],
            1 => prose(self.len),
            _ => noise(self.len, self.seed),
        }
    }

    fn mtime(self) -> i64 {
        1_000_000_000 + self.seed as i64 % 1_000_000
    }
}

/// A tree of files, by path.
type Files = BTreeMap<String, Kind>;

/// What is in a folder of it; `None` is the top.
fn listing(files: &Files, folder: &str) -> BTreeSet<String> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let below = files.keys().filter_map(|path| path.strip_prefix(&prefix));
    below.map(|rest| rest.split('/').next().unwrap().to_owned()).collect()
}

struct Snapshot {
    id: String,
    at: PathBuf,
    files: Files,
    paths: Vec<String>,
    /// Set before it is deleted.
    deleted: AtomicBool,
}

impl Snapshot {
    /// The value, or `None` for an error that a deleted snapshot may give.
    #[track_caller]
    fn expect<T>(&self, what: &str, result: std::io::Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let allowed = [Errno::STALE, Errno::IO, Errno::NOENT].map(|e| e.raw_os_error());
        let gone = self.deleted.load(Ordering::SeqCst);
        let number = error.raw_os_error().unwrap_or(0);
        assert!(gone && allowed.contains(&number), "{}: {what}: {error}; deleted: {gone}", self.at.display());
        None
    }
}

/// What all threads share.
struct Soak {
    world: World,
    at: PathBuf,
    until: Instant,
    failed: AtomicBool,
    operations: AtomicU64,
    refused: AtomicU64,
    snapshots: Mutex<Vec<Arc<Snapshot>>>,
}

impl Soak {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until && !self.failed.load(Ordering::Relaxed)
    }

    fn snapshots(&self) -> MutexGuard<'_, Vec<Arc<Snapshot>>> {
        self.snapshots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does something again and again; a failure ends all threads.
    fn repeat(&self, seed: u64, mut what: impl FnMut(&Snapshot, &mut Dice) -> Option<()>) {
        struct Alarm<'a>(&'a AtomicBool);
        impl Drop for Alarm<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
        }
        let _alarm = Alarm(&self.failed);
        let mut dice = Dice::new(seed);
        while self.goes_on() {
            let snapshot = dice.pick(&self.snapshots()).clone();
            match what(&snapshot, &mut dice) {
                Some(()) => self.operations.fetch_add(1, Ordering::Relaxed),
                None => self.refused.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

/// One look of one of the readers at a snapshot.
fn look(snapshot: &Snapshot, dice: &mut Dice) -> Option<()> {
    let path = dice.pick(&snapshot.paths);
    let (kind, at) = (snapshot.files[path], snapshot.at.join(path));
    match dice.below(8) {
        0 => {
            let found = snapshot.expect("stat", fs::symlink_metadata(&at))?;
            assert_eq!((found.len(), found.mtime()), (kind.len as u64, kind.mtime()), "{}", at.display());
        }
        1 => {
            let absent = fs::metadata(at.with_file_name("absent"));
            let absent = absent.map(|_| "found").or_else(|e| match e.kind() {
                ErrorKind::NotFound => Ok("absent"),
                _ => Err(e),
            });
            assert_eq!(snapshot.expect("looking for nothing", absent)?, "absent");
        }
        2 => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let entries = snapshot.expect("opendir", fs::read_dir(snapshot.at.join(folder)))?;
            let mut names = BTreeSet::new();
            for entry in entries {
                names.insert(snapshot.expect("readdir", entry)?.file_name().into_string().unwrap());
            }
            assert_eq!(names, listing(&snapshot.files, folder), "{}/{folder}", snapshot.at.display());
        }
        3..6 => {
            let found = snapshot.expect("read", fs::read(&at))?;
            assert!(
                found == kind.content(),
                "{}: wrong bytes, {} of {}",
                at.display(),
                found.len(),
                kind.len
            );
            forget(&at);
        }
        _ => {
            let file = snapshot.expect("open", File::open(&at))?;
            let whole = kind.content();
            for _ in 0..4 {
                let from = dice.below(kind.len + 100);
                let mut buf = vec![0; dice.below(200_000)];
                let n = snapshot.expect("pread", file.read_at(&mut buf, from as u64))?;
                let wanted = &whole[from.min(kind.len)..(from + buf.len()).min(kind.len)];
                assert!(&buf[..n] == wanted, "{}: wrong bytes at {from}, {n}", at.display());
            }
        }
    }
    Some(())
}

/// Lets the kernel drop a file's pages, so that the next reader asks the mount again.
fn forget(at: &Path) {
    if let Ok(file) = File::open(at) {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// A whole walk by another process: names, sizes and times, or checksums.
fn walk(snapshot: &Snapshot, dice: &mut Dice) -> Option<()> {
    let sums = dice.below(2) == 0;
    let script = match sums {
        true => "find . -type f -print0 | xargs -0 sha256sum",
        false => "find . -type f -printf '%p %s %Ts\\n'",
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("set -e; cd \"$1\"; {script}"), "sh"]).arg(&snapshot.at);
    let output = shell.env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap();
    let wanted = snapshot.files.iter().map(|(path, kind)| match sums {
        true => format!("{}  ./{path}", hex(&Sha256::digest(kind.content()))),
        false => format!("./{path} {} {}", kind.len, kind.mtime()),
    });
    let wanted: BTreeSet<String> = wanted.collect();
    let found: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let wrong: Vec<_> = found.difference(&wanted).take(5).collect();
    assert!(wrong.is_empty(), "{script} in {}: {wrong:?}\n{said}", snapshot.at.display());
    if found.len() < wanted.len() {
        let gone = snapshot.deleted.load(Ordering::SeqCst);
        assert!(gone, "{script} in {}: {} of {}\n{said}", snapshot.at.display(), found.len(), wanted.len());
        assert!(!said.is_empty(), "{} of {} without a word", found.len(), wanted.len());
        return None;
    }
    Some(())
}

/// The folder that is backed up, as it changes.
struct Source {
    folder: PathBuf,
    files: Files,
    dice: Dice,
}

impl Source {
    fn new(folder: PathBuf) -> Self {
        let mut source = Source { folder, files: Files::new(), dice: Dice::new(1) };
        for n in 0..FILES {
            source.put(n);
        }
        source
    }

    fn put(&mut self, n: usize) {
        let path = format!("d{}/s{}/f{n}", n % 5, n % 3);
        let kind = Kind::new(&mut self.dice);
        let at = self.folder.join(&path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, kind.content()).unwrap();
        set_times(&at, (kind.mtime(), 0), (kind.mtime(), 0));
        self.files.insert(path, kind);
    }

    /// Some files get another content, some go, some come.
    fn change(&mut self) {
        for _ in 0..FILES / 12 {
            let n = self.dice.below(FILES + 20);
            self.put(n);
        }
        for _ in 0..3 {
            let path = self.files.keys().nth(self.dice.below(FILES / 2)).unwrap().clone();
            fs::remove_file(self.folder.join(&path)).unwrap();
            self.files.remove(&path);
        }
    }
}

/// Takes a snapshot and waits until the mount shows it.
fn snapshot(world: &World, at: &Path, source: &Source) -> Arc<Snapshot> {
    let made = world.backup(["source", "--json"]).ok().json();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let folder = at.join("ids").join(text("name"));
    eventually("a new snapshot in the mount", || folder.exists());
    let (files, paths) = (source.files.clone(), source.files.keys().cloned().collect());
    Arc::new(Snapshot { id: text("id"), at: folder, files, paths, deleted: false.into() })
}

/// Takes snapshots and deletes old ones; returns how many.
fn change(soak: &Soak, mut source: Source) -> usize {
    let mut made = 0;
    while soak.goes_on() {
        std::thread::sleep(PAUSE);
        source.change();
        let new = snapshot(&soak.world, &soak.at, &source);
        made += 1;
        let mut snapshots = soak.snapshots();
        snapshots.push(new);
        let surplus = snapshots.len().saturating_sub(ALIVE + DEAD);
        snapshots.drain(..surplus);
        let alive = snapshots.iter().filter(|s| !s.deleted.load(Ordering::SeqCst));
        let surplus = alive.clone().count().saturating_sub(ALIVE);
        for old in alive.take(surplus) {
            old.deleted.store(true, Ordering::SeqCst);
            fs::remove_file(soak.world.repo.join("snapshots").join(&old.id)).unwrap();
        }
    }
    made
}

/// Memory of the mount, in KiB, over time.
#[derive(Default)]
struct Memory(Vec<(f64, [u64; 2])>);

const FIELDS: [&str; 2] = ["RssAnon", "VmRSS"];

impl Memory {
    fn watch(soak: &Soak, server: Pid, length: Duration) -> Self {
        let (began, mut found) = (Instant::now(), Memory::default());
        while soak.goes_on() {
            let share = began.elapsed().as_secs_f64() / length.as_secs_f64();
            found.0.push((share, FIELDS.map(|field| memory(server, field))));
            std::thread::sleep(Duration::from_millis(250));
        }
        found
    }

    /// The mean of a part of the time, from 0 to 1.
    fn mean(&self, from: f64, to: f64) -> [u64; 2] {
        let part: Vec<_> = self.0.iter().filter(|(share, _)| (from..to).contains(share)).collect();
        assert!(!part.is_empty(), "no samples between {from} and {to}");
        [0, 1].map(|n| part.iter().map(|(_, sample)| sample[n]).sum::<u64>() / part.len() as u64)
    }
}

#[test]
fn many_readers_and_changing_snapshots_get_right_bytes_and_bounded_memory() {
    needs!(mounts);
    let seconds = std::env::var("VYKAR_SOAK_SECONDS").ok().map(|text| text.parse().unwrap());
    let length = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let world = World::with_repository("aes256gcm");
    let mut source = Source::new(world.folder("source"));
    world.backup(["source"]).ok();
    let mut front = Foreground::start(&world, "mount", &["--cache-size", "16"]);
    let mut first = Vec::new();
    for _ in 0..2 {
        source.change();
        first.push(snapshot(&world, &front.at, &source));
    }
    let soak = Soak {
        world,
        at: front.at.clone(),
        until: Instant::now() + length,
        failed: false.into(),
        operations: 0.into(),
        refused: 0.into(),
        snapshots: Mutex::new(first),
    };
    let server = front.pid();
    let (made, grown) = std::thread::scope(|scope| {
        let changes = scope.spawn(|| change(&soak, source));
        let grown = scope.spawn(|| Memory::watch(&soak, server, length));
        for seed in 0..3 {
            let soak = &soak;
            scope.spawn(move || soak.repeat(seed + 1, look));
        }
        for seed in 0..2 {
            let soak = &soak;
            scope.spawn(move || soak.repeat(seed + 100, walk));
        }
        (changes.join().unwrap(), grown.join().unwrap())
    });

    let (half, end) = (grown.mean(0.5, 0.6), grown.mean(0.9, 1.0));
    let (operations, refused) = (soak.operations.into_inner(), soak.refused.into_inner());
    let connections = open_files(server).iter().filter(|file| file.starts_with("/dev/fuse")).count();
    note(&format!(
        "soak of {length:?}: {operations} looks, {refused} refused; {made} snapshots; {connections} \
         connections; {FIELDS:?} {half:?} KiB at half, {end:?} at the end"
    ));
    for n in [0, 1] {
        let (half, end) = (half[n], end[n]);
        assert!(end <= half + GROWTH, "{} grew from {half} to {end} KiB in the second half", FIELDS[n]);
    }
    assert!(operations > 20 * length.as_secs(), "only {operations} looks");
    assert!(made as u64 >= length.as_secs() / 15, "only {made} snapshots");
    assert!(!front.said().contains("panicked"), "{}", front.said());
    kill_process(server, Signal::TERM).unwrap();
    let ended = wait(&mut front.child, Duration::from_secs(60)).expect("it should end on a signal");
    assert!(ended.success(), "{ended}: {}", front.said());
}
