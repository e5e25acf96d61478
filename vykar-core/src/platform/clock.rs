//! The time of day.

use std::time::SystemTime;

use jiff::Timestamp;

/// The time of day by the system's clock.
///
/// A clock that is set beyond what a timestamp holds (the end of the year 9999) counts as the latest time there is, so
/// that a wrong clock stops no backup and no restore.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

fn timestamp(time: SystemTime) -> Timestamp {
    let latest = if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(latest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_beyond_all_years_is_the_latest_time() {
        let second = |n| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        assert_eq!(timestamp(second(0)), Timestamp::UNIX_EPOCH);
        for beyond in [253_402_300_800, 400_000_000_000, 9_000_000_000_000_000_000] {
            assert_eq!(timestamp(second(beyond)), Timestamp::MAX);
        }
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(400_000_000_000)), Timestamp::MIN);
        // What is made of it: a text that reads back, and a local time.
        let text = Timestamp::MAX.to_string();
        assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp::MAX);
        assert!(Timestamp::MAX.in_tz("Pacific/Kiritimati").is_ok() || cfg!(not(target_os = "linux")));
    }
}
