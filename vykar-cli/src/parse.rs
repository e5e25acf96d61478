//! Values of options that are more than a number or a word.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan, Zoned};
use vykar_core::backup::Excludes;
use vykar_core::clock;
use vykar_core::format::RepoConfig;
use vykar_core::format::admission::{NAME_MAX, has_long_name};
use vykar_core::maintenance::GroupBy;

/// Smallest cache of decoded chunks: one chunk of the largest size there may be.
const MIN_CACHE: u64 = 16 << 20;
/// Sizes of packs in bytes. Smaller ones would be files without end.
const PACKS: std::ops::RangeInclusive<u32> = 1 << 10..=RepoConfig::MAX_PACK;
/// Most threads that may be asked for.
const MAX_THREADS: usize = 512;
/// Smallest and largest limit of a transfer in MiB a second: less would stand still, more is no limit.
const RATES: (f64, f64) = (0.001, 1_000_000.0);
/// Largest read-ahead in KiB.
const MAX_READ_AHEAD: u32 = 64 << 10;

/// A size of the chunk cache in bytes: MiB, or with a suffix `K`, `M`, `G` or `T`.
pub fn cache_size(text: &str) -> Result<u64, String> {
    let bytes = size(text).ok_or("a number of MiB, or with a suffix as in 512M or 2G")?;
    if bytes < MIN_CACHE {
        let why = "a chunk may be that large, and what is not kept is decoded again for each read";
        return Err(format!("at least 16M: {why}"));
    }
    Ok(bytes)
}

/// A size in bytes: MiB, or with a suffix `K`, `M`, `G` or `T`.
pub fn bytes(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "a number of MiB, or with a suffix as in 512M or 2G".to_owned())
}

/// A size of packs in bytes, given likewise.
pub fn pack_size(text: &str) -> Result<u32, String> {
    let bytes = size(text).and_then(|bytes| u32::try_from(bytes).ok());
    let allowed = bytes.filter(|bytes| PACKS.contains(bytes));
    allowed.ok_or_else(|| "a number of MiB, or with a suffix as in 512K, from 1K to 512M".to_owned())
}

fn size(text: &str) -> Option<u64> {
    let shift = |letter: char| "KMGT".find(letter.to_ascii_uppercase()).map(|at| 10 * (at as u32 + 1));
    let prefixed = text.strip_suffix("iB").unwrap_or(text);
    let (number, shift) = match prefixed.chars().last().and_then(shift) {
        Some(shift) => (&prefixed[..prefixed.len() - 1], shift),
        None => (text, 20),
    };
    let digits = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(1 << shift)
}

/// A name of entries that mark directories.
pub fn marker(text: &str) -> Result<String, String> {
    Excludes::check_marker(text).map(|()| text.to_owned())
}

/// A path inside a snapshot, of a file that comes from a program.
pub fn relative_path(text: &str) -> Result<String, String> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !text.split('/').all(plain) {
        return Err("a relative path without empty parts, `.` and `..`".to_owned());
    }
    match text.len() > MAX_PATH || has_long_name(text.as_bytes()) {
        true => Err(format!("at most {MAX_PATH} bytes long, and each name in it at most {NAME_MAX}")),
        false => Ok(text.to_owned()),
    }
}

/// Longest path of a file that no file system has yet, in bytes. Linux takes 4095, with the folder it is restored into.
const MAX_PATH: usize = 3072;

/// Which packs are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DataSubset {
    /// Each with this probability.
    Share(f64),
    /// One of several parts, from 1.
    Part { part: u32, of: u32 },
}

/// A percentage as in `5%`, or a part as in `2/7`.
pub fn data_subset(text: &str) -> Result<DataSubset, String> {
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()));
    let plain = |text: &str| text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let share = text.strip_suffix('%').filter(|share| plain(share));
    let share: Option<f64> = share.and_then(|share| share.parse().ok());
    if let Some(share) = share.filter(|share| *share > 0.0 && *share <= 100.0) {
        return Ok(DataSubset::Share(share / 100.0));
    }
    let parts = text.split_once('/').and_then(|(part, of)| Some((number(part)?, number(of)?)));
    match parts {
        Some((part, of)) if (1..=of).contains(&part) => Ok(DataSubset::Part { part, of }),
        _ => Err("a share of more than 0% and at most 100%, as in 5%, or a part, as in 2/7".into()),
    }
}

/// A number of threads; 0 lets the program choose.
pub fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n <= MAX_THREADS);
    number.ok_or_else(|| format!("a number from 0 to {MAX_THREADS}"))
}

/// MiB a second as bytes a second; 0 is no limit.
pub fn rate(text: &str) -> Result<u64, String> {
    let plain = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let rate = text.parse::<f64>().ok().filter(|rate| plain && *rate <= RATES.1);
    match rate {
        Some(0.0) => Ok(0),
        // Within bounds, so that the number is exact enough.
        Some(rate) if rate >= RATES.0 => Ok((rate * 1_048_576.0).round() as u64),
        _ => Err(format!("0 for no limit, or a number from {} to {}, in MiB a second", RATES.0, RATES.1)),
    }
}

/// A read-ahead in KiB; 0 leaves the kernel's.
pub fn read_ahead(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| *n <= MAX_READ_AHEAD);
    number.ok_or_else(|| format!("a number of KiB from 0 to {MAX_READ_AHEAD}"))
}

/// Permission bits in octal: `077`, `77` and `0o77` are the same.
pub fn umask(text: &str) -> Result<u16, String> {
    let text = text.strip_prefix("0o").unwrap_or(text);
    let octal = !text.is_empty() && text.bytes().all(|c| (b'0'..=b'7').contains(&c));
    let bits = u16::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
    bits.ok_or_else(|| "permission bits in octal, from 0 to 777, as 027".to_owned())
}

/// The number that stands for nobody in system calls.
const NO_ID: u32 = u32::MAX;

/// A user by number or name.
pub fn user(text: &str) -> Result<u32, String> {
    id(text, "user", |name| nix::unistd::User::from_name(name).map(|u| u.map(|u| u.uid.as_raw())))
}

/// A group by number or name.
pub fn group(text: &str) -> Result<u32, String> {
    id(text, "group", |name| nix::unistd::Group::from_name(name).map(|g| g.map(|g| g.gid.as_raw())))
}

fn id(text: &str, kind: &str, find: impl Fn(&str) -> nix::Result<Option<u32>>) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(NO_ID) => Err(format!("{NO_ID} is no {kind}")),
        Ok(id) => Ok(id),
        Err(_) => match find(text) {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(format!("no such {kind} here; a number does as well")),
            Err(e) => Err(format!("cannot look for this {kind}: {e}")),
        },
    }
}

/// A time: a date or a local time, an RFC 3339 time, or how long ago.
pub fn since(text: &str) -> Result<Timestamp, String> {
    since_from(text, &clock::local())
}

fn since_from(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = |time: DateTime| time.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp());
    let civil = match text.parse::<Date>() {
        // A time behind the date is not to be cut off.
        Ok(date) if text.len() == "2026-01-31".len() => Some(date.to_datetime(jiff::civil::Time::midnight())),
        _ => text.parse::<DateTime>().ok().filter(|_| text.contains(':')),
    };
    if let Some(time) = civil {
        return local(time).map_err(|e| e.to_string());
    }
    ago(text, now).ok_or_else(|| {
        "a date (2026-01-31), a time (\"2026-01-31 12:00\", or RFC 3339), or how long ago: 30d, with h, d, w, m (30 days) or y \
         (365 days)"
            .to_owned()
    })
}

/// `1y6m` and the like before now.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span = 0.hours().try_hours(hours(text)?).ok()?;
    now.timestamp().checked_sub(span).ok()
}

/// A span of time: `1y6m` and the like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let seconds = hours(text).and_then(|hours| u64::try_from(hours).ok()?.checked_mul(3600));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "a number with h, d, w, m (30 days) or y (365 days), as in 30d or 1y6m".to_owned())
}

/// Shortest interval.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// How often something happens: `30m`, `1h30m`; a number alone is days.
pub fn interval(text: &str) -> Result<Duration, String> {
    let wanted = || "a number with s, m (minutes), h or d, as in 30m or 1d12h; alone it is days".to_owned();
    let days = text.parse().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()));
    let seconds = match days {
        Some(days) => 86400u64.checked_mul(days),
        None => units(text, |unit| "smhd".find(unit).map(|at| [1, 60, 3600, 86400][at])),
    };
    let interval = Duration::from_secs(seconds.ok_or_else(wanted)?);
    match interval >= MIN_INTERVAL {
        true => Ok(interval),
        false => Err("a minute or more: 1m".to_owned()),
    }
}

/// The sum of numbers with units, of which `value` says how much each is.
fn units(text: &str, value: impl Fn(char) -> Option<u64>) -> Option<u64> {
    let (mut sum, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let mut letters = rest[digits..].chars();
        sum = sum.checked_add(number.checked_mul(value(letters.next()?)?)?)?;
        rest = letters.as_str();
    }
    Some(sum).filter(|_| !text.is_empty())
}

/// How many hours `1y6m` and the like are.
fn hours(text: &str) -> Option<i64> {
    let value = |unit| "hdwmy".find(unit).map(|at| [1, 24, 7 * 24, 30 * 24, 365 * 24][at]);
    units(text, value)?.try_into().ok()
}

/// What snapshots are grouped by: names with commas between them, or `none`.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, label: false, paths: false };
    for name in text.split(',').filter(|name| *name != "none" || text != "none") {
        match name {
            "host" => by.host = true,
            "label" => by.label = true,
            "paths" => by.paths = true,
            _ => return Err("host, label and paths, with commas between them, or none".to_owned()),
        }
    }
    Ok(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_in_seconds_minutes_hours_and_days() {
        let seconds = |text: &str| interval(text).map(|interval| interval.as_secs());
        for (text, expected) in [
            ("60s", 60),
            ("30m", 1800),
            ("1h", 3600),
            ("24h", 86400),
            ("7d", 7 * 86400),
            ("1d12h", 36 * 3600),
            ("1h30m", 5400),
            ("60", 60 * 86400),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in
            ["", "0", "0h", "59s", "-1h", "1w", "1y", "1M", "h", "30 m", "1.5h", "+1", "99999999999999999d"]
        {
            assert!(interval(text).is_err(), "{text}");
        }
        assert!(interval("0h").is_err_and(|why| why.contains("a minute or more")));
    }

    #[test]
    fn groups_are_named() {
        let by = |host, label, paths| Ok(GroupBy { host, label, paths });
        assert_eq!(group_by("none"), by(false, false, false));
        assert_eq!(group_by("host"), by(true, false, false));
        assert_eq!(group_by("paths,label"), by(false, true, true));
        for wrong in ["", "hosts", "host,", "none,host"] {
            assert!(group_by(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1w2d"), Ok(Duration::from_secs(9 * 86400)));
        for wrong in ["", "30", "d", "-1d", "1s", "99999999999999999999d", "9223372036854775807y"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_mib_or_have_a_suffix() {
        for (text, size) in [
            ("256", 256 << 20),
            ("512M", 512 << 20),
            ("2g", 2 << 30),
            ("16384K", 16 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(cache_size(text), Ok(size), "{text}");
        }
        for text in ["0", "15", "", "x", "-1", "+99", "1.5G", "M", "iB", "99999999999T", "1 G", "512B"] {
            assert!(cache_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn packs_are_neither_tiny_nor_larger_than_the_format_allows() {
        for (text, size) in [("1K", 1 << 10), ("32", 32 << 20), ("512M", 512 << 20)] {
            assert_eq!(pack_size(text), Ok(size), "{text}");
        }
        for text in ["0", "513M", "4096M", "1T", "x", ""] {
            assert!(pack_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!((threads("0"), threads("512")), (Ok(0), Ok(512)));
        assert!(threads("513").is_err() && threads("-1").is_err() && threads("x").is_err());
        assert_eq!((read_ahead("0"), read_ahead("4096")), (Ok(0), Ok(4096)));
        assert!(read_ahead("65537").is_err());
        assert_eq!((umask("022"), umask("0"), umask("0777")), (Ok(0o22), Ok(0), Ok(0o777)));
        assert_eq!((umask("077"), umask("77"), umask("0o77")), (Ok(0o77), Ok(0o77), Ok(0o77)));
        for text in ["8", "1000", "", "+22", "rwx", "0o", "0o0o7", "0x3f"] {
            assert!(umask(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_mib_a_second_with_decimals() {
        for (text, bytes) in [("0", 0), ("0.0", 0), ("1", 1 << 20), ("1.5", 3 << 19), (".25", 1 << 18)] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        assert_eq!((rate("0.001"), rate("1000000")), (Ok(1049), Ok(1_000_000 << 20)));
        for text in ["", ".", "-1", "+1", "1M", "1e3", "inf", "nan", "0.0001", "1000001", "1,5", "1.5.2"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn owners_are_numbers_or_names() {
        assert_eq!((user("1234"), user("root"), group("root")), (Ok(1234), Ok(0), Ok(0)));
        assert!(user("4294967295").is_err() && user("no such user").is_err() && group("").is_err());
    }

    #[test]
    fn times_are_dates_moments_or_ages() {
        let now: Zoned = "2026-03-01T12:00:00+01:00[+01:00]".parse().unwrap();
        for (text, time) in [
            ("2026-01-31", "2026-01-30T23:00:00Z"),
            ("2026-01-31T10:00", "2026-01-31T09:00:00Z"),
            ("2026-01-31 10:00", "2026-01-31T09:00:00Z"),
            ("2026-01-31 10:00:01.5", "2026-01-31T09:00:01.5Z"),
            ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
            ("2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00Z"),
            ("12h", "2026-02-28T23:00:00Z"),
            ("30d", "2026-01-30T11:00:00Z"),
            ("1m", "2026-01-30T11:00:00Z"),
            ("1w1d", "2026-02-21T11:00:00Z"),
            ("1y", "2025-03-01T11:00:00Z"),
        ] {
            assert_eq!(since_from(text, &now), Ok(time.parse().unwrap()), "{text}");
        }
        for text in ["", "d", "30", "30x", "yesterday", "2026-02-30", "9999999999999y", "99999y", "é", "1é"]
        {
            assert!(since_from(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn subsets_of_the_data() {
        assert_eq!(data_subset("5%"), Ok(DataSubset::Share(0.05)));
        assert_eq!(data_subset("0.5%"), Ok(DataSubset::Share(0.005)));
        assert_eq!(data_subset("100%"), Ok(DataSubset::Share(1.0)));
        assert_eq!(data_subset("2/7"), Ok(DataSubset::Part { part: 2, of: 7 }));
        for bad in
            ["", "%", "0%", "101%", "-1%", "nan%", "1e1%", "5", "0/7", "8/7", "/7", "1/", "+1/2", "1/2/3"]
        {
            assert!(data_subset(bad).is_err(), "{bad}");
        }
    }
}
