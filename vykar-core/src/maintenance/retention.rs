//! Which snapshots to keep.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::format::Snapshot;

/// A snapshot that is later than now by more than this is from the future: some clock was wrong. It is kept, and counts for
/// nothing: else it would be the newest for years, and take the place of those that really are.
const FUTURE: Duration = Duration::from_secs(24 * 3600);

/// How many snapshots of each kind are kept, in each group; zero for none. A snapshot that any rule keeps stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The newest.
    pub last: u32,
    /// The newest of each of the most recent hours that have any, and so on for longer periods.
    pub hourly: u32,
    /// Likewise, of days.
    pub daily: u32,
    /// Likewise, of weeks, which begin on Monday (ISO 8601).
    pub weekly: u32,
    /// Likewise, of months.
    pub monthly: u32,
    /// Likewise, of years.
    pub yearly: u32,
    /// All that are not older than this, counted from now or, where that is earlier, from the group's newest.
    pub within: Option<Duration>,
}

impl KeepRules {
    /// True when nothing would be kept.
    pub fn is_empty(&self) -> bool {
        let KeepRules { last, hourly, daily, weekly, monthly, yearly, within } = *self;
        [last, hourly, daily, weekly, monthly, yearly] == [0; 6] && within.is_none()
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named like the rules")]
pub enum KeepRule {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    Within,
    /// No rule of [`KeepRules`]: it is later than now.
    Future,
}

impl fmt::Display for KeepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeepRule::Last => "last",
            KeepRule::Hourly => "hourly",
            KeepRule::Daily => "daily",
            KeepRule::Weekly => "weekly",
            KeepRule::Monthly => "monthly",
            KeepRule::Yearly => "yearly",
            KeepRule::Within => "within",
            KeepRule::Future => "future",
        })
    }
}

/// What snapshots must have in common for the rules to be applied to them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host name.
    pub host: bool,
    /// The label.
    pub label: bool,
    /// The source paths.
    pub paths: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        GroupBy { host: true, label: true, paths: false }
    }
}

/// See [`GroupBy::key`].
pub(super) type GroupKey<'s> = (Option<&'s str>, Option<&'s str>, Option<&'s [String]>);

impl GroupBy {
    /// What snapshots of one group have in common: host, label and source paths.
    pub(super) fn key<'s>(&self, snapshot: &'s Snapshot) -> GroupKey<'s> {
        (
            self.host.then_some(snapshot.meta.hostname.as_str()),
            self.label.then(|| snapshot.label()),
            self.paths.then_some(snapshot.meta.source_paths.as_slice()),
        )
    }
}

/// For each snapshot the rules that keep it; none keeps one with an empty list.
///
/// `now` and `zone` are what periods are reckoned by. As long as there is any rule, each group's newest is kept, and all
/// that are later than a day from now, which count for nothing else.
pub fn decide(
    snapshots: &[Snapshot],
    rules: &KeepRules,
    group_by: GroupBy,
    (now, zone): (Timestamp, &TimeZone),
) -> Vec<Vec<KeepRule>> {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, snapshot) in snapshots.iter().enumerate() {
        groups.entry(group_by.key(snapshot)).or_default().push(at);
    }
    let mut kept = vec![Vec::new(); snapshots.len()];
    for mut group in groups.into_values() {
        // Newest first; the id makes an order of those of the same moment.
        group.sort_by_key(|at| std::cmp::Reverse((snapshots[*at].time, snapshots[*at].id)));
        let times: Vec<Timestamp> = group.iter().map(|at| snapshots[*at].time).collect();
        for (at, reasons) in group.iter().zip(decide_group(&times, rules, (now, zone))) {
            kept[*at] = reasons;
        }
    }
    kept
}

/// A number that is the same for all times of one period.
type Period = fn(&Zoned) -> (i16, i16, i16);

/// The rules that keep each snapshot of a group, whose times are given newest first.
fn decide_group(
    times: &[Timestamp],
    rules: &KeepRules,
    (now, zone): (Timestamp, &TimeZone),
) -> Vec<Vec<KeepRule>> {
    let horizon = now.checked_add(FUTURE).unwrap_or(Timestamp::MAX);
    let future = if rules.is_empty() { 0 } else { times.partition_point(|time| *time > horizon) };
    let mut kept = vec![vec![KeepRule::Future]; future];
    kept.extend(decide_past(times.get(future..).unwrap_or_default(), rules, (now, zone)));
    kept
}

/// The same for those that are not from the future.
fn decide_past(
    times: &[Timestamp],
    rules: &KeepRules,
    (now, zone): (Timestamp, &TimeZone),
) -> Vec<Vec<KeepRule>> {
    let mut kept = vec![Vec::new(); times.len()];
    for reasons in kept.iter_mut().take(rules.last as usize) {
        reasons.push(KeepRule::Last);
    }
    // An hour by its distance from the epoch: the one that comes twice in autumn is two.
    let hour: Period = |t| {
        let hours = t.timestamp().as_second().div_euclid(3600);
        ((hours >> 30) as i16, (hours >> 15 & 0x7fff) as i16, (hours & 0x7fff) as i16)
    };
    let week: Period = |t| {
        let week = t.date().iso_week_date();
        (week.year(), week.week().into(), 0)
    };
    let periods: [(u32, KeepRule, Period); 5] = [
        (rules.hourly, KeepRule::Hourly, hour),
        (rules.daily, KeepRule::Daily, |t| (t.year(), t.month().into(), t.day().into())),
        (rules.weekly, KeepRule::Weekly, week),
        (rules.monthly, KeepRule::Monthly, |t| (t.year(), t.month().into(), 0)),
        (rules.yearly, KeepRule::Yearly, |t| (t.year(), 0, 0)),
    ];
    for (count, rule, period) in periods {
        let mut left = count;
        let mut last = None;
        for (time, reasons) in times.iter().zip(&mut kept) {
            let this = Some(period(&time.to_zoned(zone.clone())));
            if left == 0 {
                break;
            }
            if this != last {
                reasons.push(rule);
                left -= 1;
                last = this;
            }
        }
    }
    if let (Some(within), Some(newest)) = (rules.within, times.first()) {
        // A span that reaches before all time keeps everything.
        let from = now.min(*newest).checked_sub(within).unwrap_or(Timestamp::MIN);
        for (_, reasons) in times.iter().zip(&mut kept).filter(|(time, _)| **time >= from) {
            reasons.push(KeepRule::Within);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Indices of what is kept.
    fn kept(times: &[&str], rules: KeepRules, zone: &str) -> Vec<usize> {
        let times: Vec<_> = times.iter().map(|text| at(text)).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
        let zone = TimeZone::get(zone).unwrap();
        let decided = decide_group(&times, &rules, (at("2030-01-01T00:00:00Z"), &zone));
        (0..times.len()).filter(|n| !decided[*n].is_empty()).collect()
    }

    #[test]
    fn the_newest_of_each_period_that_has_one_is_kept() {
        let times = [
            "2026-03-03T22:00:00Z",
            "2026-03-03T12:30:00Z",
            "2026-03-03T12:00:00Z",
            "2026-03-01T12:00:00Z",
            "2026-02-28T12:00:00Z",
            "2025-12-31T12:00:00Z",
            "2025-12-30T12:00:00Z",
        ];
        let none = KeepRules::default();
        assert_eq!(kept(&times, KeepRules { last: 2, ..none }, "UTC"), [0, 1]);
        assert_eq!(kept(&times, KeepRules { hourly: 3, ..none }, "UTC"), [0, 1, 3]);
        assert_eq!(kept(&times, KeepRules { daily: 2, ..none }, "UTC"), [0, 3]);
        assert_eq!(kept(&times, KeepRules { monthly: 9, ..none }, "UTC"), [0, 4, 5]);
        assert_eq!(kept(&times, KeepRules { yearly: 9, ..none }, "UTC"), [0, 5]);
        // The 1st of March 2026 is a Sunday, and belongs to the week of the 28th of February.
        assert_eq!(kept(&times, KeepRules { weekly: 2, ..none }, "UTC"), [0, 3]);
        // In Tokyo the first is of the next day.
        assert_eq!(kept(&times, KeepRules { daily: 2, ..none }, "Asia/Tokyo"), [0, 1]);
        assert_eq!(kept(&times, KeepRules { last: 1, yearly: 2, ..none }, "UTC"), [0, 5]);
    }

    #[test]
    fn weeks_are_iso_weeks_and_may_belong_to_another_year() {
        // 2020 had 53 weeks; the last one ended on the 3rd of January.
        let times =
            ["2021-01-04T12:00:00Z", "2021-01-03T12:00:00Z", "2020-12-28T12:00:00Z", "2020-12-27T12:00:00Z"];
        let rules = KeepRules { weekly: 9, ..KeepRules::default() };
        assert_eq!(kept(&times, rules, "UTC"), [0, 1, 3]);
    }

    #[test]
    fn the_hour_that_comes_twice_in_autumn_is_two() {
        let times = ["2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T00:10:00Z"];
        let rules = KeepRules { hourly: 9, ..KeepRules::default() };
        assert_eq!(kept(&times, rules, "Europe/Berlin"), [0, 1]);
    }

    #[test]
    fn what_is_young_is_kept_whatever_the_clock_says() {
        let rules = KeepRules { within: Some(Duration::from_secs(86400)), ..KeepRules::default() };
        // Nothing was stored for years: reckoned from the newest.
        let times = ["2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-01T23:59:59Z"];
        assert_eq!(kept(&times, rules, "UTC"), [0, 1]);
        // One from the future must not make the others look old.
        let times = ["2040-01-01T00:00:00Z", "2029-12-31T12:00:00Z", "2029-12-30T00:00:00Z"];
        assert_eq!(kept(&times, rules, "UTC"), [0, 1]);
        let times = ["2030-01-01T20:00:00Z", "2029-12-31T12:00:00Z", "2029-12-30T00:00:00Z"];
        assert_eq!(kept(&times, rules, "UTC"), [0, 1]);
        let ever = KeepRules { within: Some(Duration::MAX), ..KeepRules::default() };
        assert_eq!(kept(&times, ever, "UTC"), [0, 1, 2]);
    }

    #[test]
    fn those_from_the_future_are_kept_and_take_nobodys_place() {
        let times = [
            "2099-01-01T00:00:00Z",
            "2030-01-02T00:00:01Z",
            // Within a day from now.
            "2030-01-02T00:00:00Z",
            "2029-12-31T12:00:00Z",
            "2028-12-31T12:00:00Z",
        ];
        let none = KeepRules::default();
        assert_eq!(kept(&times, KeepRules { last: 1, ..none }, "UTC"), [0, 1, 2]);
        assert_eq!(kept(&times, KeepRules { yearly: 3, ..none }, "UTC"), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&times, none, "UTC"), [0; 0]);
        assert_eq!(kept(&times[..2], KeepRules { last: 1, ..none }, "UTC"), [0, 1]);
    }

    fn rules() -> impl Strategy<Value = KeepRules> {
        let n = || 0u32..5;
        let within = prop::option::of((0u64..400 * 86400).prop_map(Duration::from_secs));
        (n(), n(), n(), n(), n(), n(), within).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly, within)| KeepRules {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within,
            },
        )
    }

    proptest! {
        #[test]
        fn rules_behave(mut seconds in prop::collection::vec(0i64..100_000_000, 1..40), rules in rules()) {
            seconds.sort_unstable_by(|a, b| b.cmp(a));
            let times: Vec<_> = seconds.iter().map(|s| Timestamp::from_second(1_700_000_000 + s).unwrap()).collect();
            let zone = TimeZone::get("America/New_York").unwrap();
            let now = at("2027-02-01T00:00:00Z");
            let decide = |times: &[Timestamp], rules: &KeepRules| decide_group(times, rules, (now, &zone));
            let decided = decide(&times, &rules);
            prop_assert_eq!(decided.iter().all(Vec::is_empty), rules.is_empty());
            prop_assert_eq!(decided[0].is_empty(), rules.is_empty(), "the newest stays");
            // Once more deletes nothing more.
            let left: Vec<_> = times.iter().zip(&decided).filter(|(_, k)| !k.is_empty()).map(|(t, _)| *t).collect();
            prop_assert!(decide(&left, &rules).iter().all(|k| !k.is_empty()));
            // Whatever comes from the future changes nothing for the others.
            let future = [at("2099-01-01T00:00:00Z"), at("2027-03-01T00:00:00Z")];
            let with_future = decide(&[&future[..], &times].concat(), &rules);
            prop_assert_eq!(&with_future[2..], &decided[..]);
            prop_assert!(with_future[..2].iter().all(|k| k.is_empty() == rules.is_empty()));
            // More is kept with more.
            let more = KeepRules { last: rules.last + 1, daily: rules.daily + 2, yearly: rules.yearly + 1, ..rules };
            for (few, many) in decided.iter().zip(decide(&times, &more)) {
                prop_assert!(few.is_empty() || !many.is_empty());
            }
            for (count, rule) in [(rules.last, KeepRule::Last), (rules.daily, KeepRule::Daily), (rules.monthly, KeepRule::Monthly)] {
                let by_rule = decided.iter().filter(|k| k.contains(&rule)).count();
                prop_assert!(by_rule <= count as usize);
            }
        }
    }
}
