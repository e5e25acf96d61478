//! Modification times on file systems that do not keep all of them: to whole or to every second seconds, or not before
//! 1901.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, Stat, Timespec, Timestamps};

/// The most by which a file system makes a time earlier (FAT: to every second second), in nanoseconds.
pub(super) const COARSEST: u64 = 2 * SECOND as u64;

const SECOND: i64 = 1_000_000_000;
/// Units that file systems keep times in, where they cannot be asked, in nanoseconds.
const UNITS: [i64; 5] = [100, 1000, 10_000_000, SECOND, 2 * SECOND];
/// FAT and exFAT keep no time before 1980 (and know no time zones, so that a day more is in doubt), in seconds.
const FIRST_ON_FAT: i64 = 315_532_800;
const DAY: i64 = 86_400;
const FAT: [u32; 2] = [0x4d44, 0x2011_bab0];

/// When something was changed last, in nanoseconds since the epoch.
#[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
pub(super) fn mtime(found: &Stat) -> i64 {
    (found.st_mtime as i64).saturating_mul(SECOND).saturating_add(found.st_mtime_nsec as i64)
}

/// What each file system makes of a time.
#[derive(Default)]
pub(super) struct Clocks {
    /// By device: a file without a name, if the file system has such files.
    probes: Mutex<HashMap<u64, Option<OwnedFd>>>,
}

impl Clocks {
    /// True when what was found in `dir` has the modification time `wanted`, as its file system keeps it.
    pub fn agree(&self, dir: impl AsFd, found: &Stat, wanted: i64) -> bool {
        let is = mtime(found);
        if is == wanted {
            return true;
        }
        let mut probes = self.probes.lock();
        #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
        let probe = probes.entry(found.st_dev as u64).or_insert_with(|| unnamed(&dir));
        match probe {
            Some(probe) => kept(probe, wanted) == Some(is),
            None => {
                let fs = rustix::fs::fstatfs(&dir).map_or(0, |fs| fs.f_type as u32);
                is_rounded(is, wanted, FAT.contains(&fs))
            }
        }
    }
}

fn unnamed(dir: impl AsFd) -> Option<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(0o600)).ok()
}

/// What the file system makes of a time.
fn kept(probe: &OwnedFd, wanted: i64) -> Option<i64> {
    let time = Timespec { tv_sec: wanted.div_euclid(SECOND), tv_nsec: wanted.rem_euclid(SECOND) as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(probe, &times).ok()?;
    rustix::fs::fstat(probe).ok().map(|found| mtime(&found))
}

/// True for what a file system that cannot be asked may have made of a time.
fn is_rounded(is: i64, wanted: i64, is_fat: bool) -> bool {
    let near_first = |time: i64| time.div_euclid(SECOND).abs_diff(FIRST_ON_FAT) <= DAY as u64;
    let clamped = is_fat && wanted.div_euclid(SECOND) < FIRST_ON_FAT + DAY && near_first(is);
    clamped || UNITS.iter().any(|unit| wanted.checked_sub(wanted.rem_euclid(*unit)) == Some(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down_to_what_file_systems_keep() {
        let wanted = 1_700_000_001_234_567_890;
        for is in ["1700000001.2345678", "1700000001.234567", "1700000001.23", "1700000001", "1700000000"] {
            let (seconds, rest) = is.split_once('.').unwrap_or((is, "0"));
            let nanos: i64 = format!("{rest:0<9}").parse().unwrap();
            let is = seconds.parse::<i64>().unwrap() * SECOND + nanos;
            assert!(is_rounded(is, wanted, false), "{is}");
        }
        for is in [wanted + 1, wanted - 1, 1_700_000_002 * SECOND, 1_699_999_999 * SECOND] {
            assert!(!is_rounded(is, wanted, true), "{is}");
        }
        assert!(is_rounded(-2 * SECOND, -1_500_000_000, false), "down, also before the epoch");
        assert!(is_rounded(FIRST_ON_FAT * SECOND, 7, true) && !is_rounded(FIRST_ON_FAT * SECOND, 7, false));
    }

    #[test]
    fn a_file_system_that_keeps_nanoseconds_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile_in(dir.path()).unwrap();
        let found = rustix::fs::fstat(&file).unwrap();
        let clocks = Clocks::default();
        let handle = std::fs::File::open(dir.path()).unwrap();
        assert!(clocks.agree(&handle, &found, mtime(&found)));
        if kept(&file.into(), 1_234_567_891) == Some(1_234_567_891) {
            assert!(!clocks.agree(&handle, &found, mtime(&found) + 1));
        }
    }
}
