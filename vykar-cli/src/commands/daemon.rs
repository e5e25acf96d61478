//! Runs the cycle on schedule.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Zoned};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use vykar_core::clock;
use vykar_core::local_state::cache_file;
use vykar_core::platform::private;

use super::cycle;
use crate::args::GlobalArgs;
use crate::config::{Config, Schedule};
use crate::exit::{CliError, CliResult, Exit};
use crate::settings;
use crate::settings::{ChosenRepositories, ResolvedOptions};
use crate::{context, render};

/// How long to sleep at most: the clock may be set, and the machine suspended, meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// Where the daemon remembers its runs, in the folder of local caches.
const MEMORY: &str = "daemon.json";

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalWish {
    Reload,
    RunNow,
    End,
}

/// Runs until it is told to end.
pub fn run(args: &GlobalArgs) -> CliResult {
    let mut daemon = Daemon::load(args)?;
    let wishes = wishes()?;
    // A run ends early at the first of these; the second ends the process.
    context::cancel_on(&[SIGINT, SIGTERM])?;
    daemon.plan(true);
    loop {
        daemon.run_what_is_due();
        let wish = match daemon.wait(&wishes) {
            Some(wish) => wish,
            None => continue,
        };
        match wish {
            SignalWish::End => {
                say!("ends");
                return Ok(Exit::Success);
            }
            SignalWish::Reload => match Daemon::load(args) {
                Ok(mut new) => {
                    say!("the configuration was read again");
                    new.plan(false);
                    daemon = new;
                }
                Err(error) => {
                    render::error(&error);
                    say!("goes on with the configuration it had");
                }
            },
            SignalWish::RunNow => daemon.all_due(),
        }
    }
}

/// Signals, as wishes.
fn wishes() -> CliResult<Receiver<SignalWish>> {
    let failed = |e: std::io::Error| CliError::new(Exit::Failure, format!("cannot handle signals: {e}"));
    let mut signals = Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT]).map_err(failed)?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for signal in &mut signals {
            let wish = match signal {
                SIGHUP => SignalWish::Reload,
                SIGUSR1 => SignalWish::RunNow,
                _ => SignalWish::End,
            };
            if sender.send(wish).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// A repository and its next run.
struct ScheduledRun {
    settings: ResolvedOptions,
    schedule: Schedule,
    next: Timestamp,
}

struct Daemon {
    entries: Vec<ScheduledRun>,
    /// When each repository's cycle began last.
    memory: BTreeMap<String, Timestamp>,
    memory_path: Option<PathBuf>,
}

impl Daemon {
    fn load(args: &GlobalArgs) -> CliResult<Self> {
        let config = settings::configuration(args)?;
        let config: Option<&Config> = config.as_ref();
        let all = match settings::choose(args, config)? {
            ChosenRepositories::One(one) => vec![*one],
            ChosenRepositories::All(all) => all.into_iter().collect::<CliResult<_>>()?,
        };
        let memory_path =
            all.first().and_then(|s| context::open_options(s).cache_dir).map(|dir| dir.join(MEMORY));
        let text = memory_path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let memory = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let scheduled = all.into_iter().filter_map(|settings| {
            let schedule = settings.plan.as_ref()?.schedule.clone();
            schedule.enabled.then_some(ScheduledRun { settings, schedule, next: Timestamp::MAX })
        });
        let entries: Vec<ScheduledRun> = scheduled.collect();
        if entries.is_empty() {
            return Err(CliError::new(Exit::Usage, "nothing is scheduled")
                .hint("write `schedule: {enabled: true, every: 24h}` into the configuration"));
        }
        Ok(Daemon { entries, memory, memory_path })
    }

    /// Finds out when each repository is next.
    fn plan(&mut self, starting: bool) {
        let now = clock::local();
        for entry in &mut self.entries {
            let last = self.memory.get(&entry.settings.name()).copied();
            entry.next = match starting && entry.schedule.on_startup {
                true => now.timestamp(),
                false => later(next_run(&entry.schedule, last, &now), entry.schedule.jitter_seconds),
            };
            entry.tell();
        }
    }

    fn all_due(&mut self) {
        let now = clock::now();
        self.entries.iter_mut().for_each(|entry| entry.next = now);
    }

    fn run_what_is_due(&mut self) {
        for at in 0..self.entries.len() {
            if context::interrupts().load(Ordering::Relaxed) {
                return;
            }
            let entry = &mut self.entries[at];
            let began = clock::now();
            if entry.next > began {
                continue;
            }
            let name = entry.settings.name();
            say!("repository {}: the cycle begins", render::plain(name.as_bytes()));
            let result = context::set_nice(entry.settings.nice).and_then(|()| cycle::run(&entry.settings));
            match result {
                Ok(exit) => {
                    say!("repository {name}: the cycle ended with exit code {}", exit as u8)
                }
                Err(error) => render::error(&error.context(&name)),
            }
            let next = next_run(&entry.schedule, Some(began), &clock::local());
            entry.next = later(next, entry.schedule.jitter_seconds);
            entry.tell();
            self.memory.insert(name, began);
            self.remember();
        }
    }

    /// Without it a restart counts from the beginning, that is all.
    fn remember(&self) {
        let Some(path) = &self.memory_path else { return };
        let Ok(text) = serde_json::to_string(&self.memory) else { return };
        let _ = path.parent().map(private::make_dirs);
        let _ = cache_file::write(path, &[text.as_bytes()]);
    }

    /// Waits for a wish, or for a while; `None` when it is time to look again.
    fn wait(&self, wishes: &Receiver<SignalWish>) -> Option<SignalWish> {
        let next = self.entries.iter().map(|entry| entry.next).min().unwrap_or(Timestamp::MAX);
        let left = clock::now().duration_until(next);
        let nap = Duration::try_from(left).unwrap_or(Duration::ZERO).min(NAP);
        match wishes.recv_timeout(nap) {
            Ok(wish) => Some(wish),
            Err(RecvTimeoutError::Timeout) => None,
            // The thread that listens is gone, and with it any way to end this.
            Err(RecvTimeoutError::Disconnected) => Some(SignalWish::End),
        }
    }
}

impl ScheduledRun {
    fn tell(&self) {
        let name = render::plain(self.settings.name().as_bytes());
        say!("repository {name}: next run {}", render::time(self.next));
    }
}

/// When a cycle that began at `last` is due again. With `every`, a run that was missed is due at once; with `cron`,
/// the next time that matches.
fn next_run(schedule: &Schedule, last: Option<Timestamp>, now: &Zoned) -> Timestamp {
    let every = SignedDuration::try_from(schedule.every).unwrap_or(SignedDuration::MAX);
    match &schedule.cron {
        // One that never matches (30 February) never runs.
        Some(cron) => {
            cron.pattern.find_next_occurrence(now, false).map_or(Timestamp::MAX, |next| next.timestamp())
        }
        None => {
            let from = last.filter(|last| *last <= now.timestamp()).unwrap_or(now.timestamp());
            from.checked_add(every).unwrap_or(Timestamp::MAX).max(now.timestamp())
        }
    }
}

/// Up to so many seconds later, so that many machines do not come at once.
fn later(time: Timestamp, jitter_seconds: u32) -> Timestamp {
    let random = vykar_core::crypto::random().map(u32::from_le_bytes).unwrap_or(0);
    let jitter = u64::from(random) % (u64::from(jitter_seconds) + 1);
    time.checked_add(SignedDuration::from_secs(jitter as i64)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(every_hours: u64, cron: Option<&str>) -> Schedule {
        let text = cron.map(|cron| format!("cron: '{cron}'\n")).unwrap_or_default();
        let cron = crate::config::test_cron(&text);
        let every = Duration::from_secs(every_hours * 3600);
        Schedule { enabled: true, every, cron, on_startup: false, jitter_seconds: 0 }
    }

    fn next(schedule: &Schedule, last: Option<&str>, now: &str) -> String {
        let last = last.map(|last| last.parse().unwrap());
        next_run(schedule, last, &now.parse().unwrap()).to_string()
    }

    #[test]
    fn every_so_often_counts_from_the_last_run_and_what_was_missed_is_due() {
        let day = schedule(24, None);
        let now = "2026-03-01T12:00:00+01:00[Europe/Berlin]";
        assert_eq!(next(&day, None, now), "2026-03-02T11:00:00Z");
        assert_eq!(next(&day, Some("2026-03-01T02:00:00Z"), now), "2026-03-02T02:00:00Z");
        assert_eq!(next(&day, Some("2026-02-01T02:00:00Z"), now), "2026-03-01T11:00:00Z");
        // Of a clock that was ahead.
        assert_eq!(next(&day, Some("2027-02-01T02:00:00Z"), now), "2026-03-02T11:00:00Z");
    }

    #[test]
    fn cron_is_in_local_time_across_changes_of_the_clock() {
        let cron = schedule(24, Some("30 2 * * *"));
        assert_eq!(next(&cron, None, "2026-03-01T12:00:00+01:00[Europe/Berlin]"), "2026-03-02T01:30:00Z");
        // On 29 March there is no 02:30; it is not left out.
        let next = next(&cron, None, "2026-03-28T12:00:00+01:00[Europe/Berlin]");
        assert!(next.starts_with("2026-03-29T01:"), "{next}");
    }

    #[test]
    fn jitter_is_bounded() {
        let time: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        for _ in 0..100 {
            let late = later(time, 5).duration_since(time).as_secs();
            assert!((0..=5).contains(&late));
        }
        assert_eq!(later(time, 0), time);
    }
}
