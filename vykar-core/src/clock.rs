//! The time of day, whatever the clock of the machine says.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The last time that is used, 9998-12-31T00:00:00Z in seconds since the epoch: behind it there is room for every time
/// zone and for what is added.
const LATEST: i64 = 253_370_678_400;
/// Likewise the first, -9998-01-01T00:00:00Z.
const EARLIEST: i64 = -377_673_580_800;

/// Now. Of a clock beyond the years that a time can have, the last of them.
pub fn now() -> Timestamp {
    bounded(SystemTime::now())
}

/// Now, in local time.
pub fn local() -> Zoned {
    now().to_zoned(TimeZone::system())
}

fn bounded(time: SystemTime) -> Timestamp {
    let limit = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    let (earliest, latest) = (limit(EARLIEST), limit(LATEST));
    match Timestamp::try_from(time) {
        Ok(time) => time.clamp(earliest, latest),
        Err(_) if time < UNIX_EPOCH => earliest,
        Err(_) => latest,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_beyond_all_years_gives_the_last_one() {
        assert_eq!(bounded(UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        let year = 365 * 86400;
        for ahead in [8000 * year, 30_000 * year, i64::MAX as u64] {
            let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(ahead)) else { continue };
            assert_eq!(bounded(time).to_string()[..5], *if ahead == 8000 * year { "9964-" } else { "9998-" });
        }
        let behind = UNIX_EPOCH.checked_sub(Duration::from_secs(30_000 * year)).unwrap();
        assert_eq!(bounded(behind).to_string(), "-009998-01-01T00:00:00Z");
        assert_eq!(
            bounded(UNIX_EPOCH + Duration::from_secs(i64::MAX as u64)).to_string(),
            "9998-12-31T00:00:00Z"
        );
        assert!(local().timestamp() <= now());
    }
}
