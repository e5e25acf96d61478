//! The memory that backup and restore take at their peak has a bound, whatever the tree's size.
//!
//! Counted is `RssAnon`, what a process has for itself alone: heap and stacks. The peak of all that is resident
//! (`VmHWM`, or what `wait4` tells) counts pages of mapped files as well, of the program and of local copies,
//! which the kernel takes back when somebody needs them. `RssAnon` has no high-water mark, so it is read every
//! few milliseconds. What that misses is small: the kernel hands out no more than some MB in this time.
//!
//! The repository is not encrypted. Otherwise the 64 MiB that deriving its key takes for a moment would hide what
//! comes later; sealing and opening are in place.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::harness::{Run, World, silent};
use super::processes::status;
use super::tree::{noise, prose};

const MB: u64 = 1_000_000;
/// The bound for a first backup.
const FIRST: u64 = 150 * MB;
/// The bound for a backup that finds nothing changed, which takes 6 to 7 MB.
const UNCHANGED: u64 = 10 * MB;
/// The bound for a restore, which takes 45 to 55 MB.
const RESTORE: u64 = 70 * MB;

/// Files of 20 to 100 KB.
const SMALL_FILES: usize = 3200;
/// Bytes of the large file.
const LARGE: usize = 200 << 20;

/// About 400 MB, every other byte of which compresses.
fn make_tree(root: &Path) {
    let (noise_half, prose_half) = (noise(LARGE / 2, 1), prose(LARGE / 2));
    for n in 0..SMALL_FILES {
        let dir = root.join(format!("d{}", n / 64));
        fs::create_dir_all(&dir).unwrap();
        let half = if n % 2 == 0 { &noise_half } else { &prose_half };
        // No two have the same length, so none is another one's duplicate.
        let (begin, len) = (n * 9973, 20_000 + n * 25);
        fs::write(dir.join(format!("f{n}")), &half[begin..begin + len]).unwrap();
    }
    let mut large = File::create(root.join("large")).unwrap();
    for at in (0..LARGE / 2).step_by(10 << 20) {
        let piece = at..at + (10 << 20);
        large.write_all(&noise_half[piece.clone()]).unwrap();
        large.write_all(&prose_half[piece]).unwrap();
    }
}

/// Buffers grow with the number of threads, and that with the processors: two of them from now on, for this
/// thread and what it starts, wherever the test runs.
fn use_two_processors() {
    let allowed = sched_getaffinity(None).unwrap();
    let mut two = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(2).for_each(|cpu| two.set(cpu));
    sched_setaffinity(None, &two).unwrap();
}

/// Runs the program, demands success, and gives its peak of `RssAnon` in bytes.
fn peak(world: &World, args: &[&str]) -> (u64, Run) {
    let mut command = world.command();
    command.arg("-R").arg(&world.repo).args(args);
    let mut peak = 0;
    let run = world.finish_watched(command, &mut |child| {
        // Not there any more when it has just ended.
        let now = status(Pid::from_child(child), "RssAnon").unwrap_or_default();
        peak = peak.max(now.trim_end_matches(" kB").parse().unwrap_or(0) * 1024);
    });
    assert!(peak > 0, "/proc/PID/status has no RssAnon");
    (peak, run.ok())
}

#[test]
fn backup_and_restore_keep_to_their_bounds() {
    use_two_processors();
    let world = World::with_repository("none");
    let (source, copy) = (world.folder("source"), world.path("copy"));
    make_tree(&source);
    // A file that was written just before it was read is read again next time.
    std::thread::sleep(Duration::from_millis(2100));
    let (source, copy) = (source.to_str().unwrap(), copy.to_str().unwrap());
    let (first, _) = peak(&world, &["backup", source]);
    let (unchanged, run) = peak(&world, &["backup", "--json", source]);
    assert_eq!(run.json()["files"]["unchanged"], SMALL_FILES + 1);
    let (restore, _) = peak(&world, &["restore", "latest", copy]);
    silent(Command::new("diff").arg("-r").args([source, copy]));
    let peaks =
        [("first backup", first, FIRST), ("unchanged", unchanged, UNCHANGED), ("restore", restore, RESTORE)];
    let shown = peaks.map(|(what, peak, bound)| format!("{what}: {} of {} MB", peak / MB, bound / MB));
    assert!(peaks.iter().all(|(_, peak, bound)| peak <= bound), "{shown:?}");
}
