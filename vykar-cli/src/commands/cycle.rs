//! What `vykar` alone does: backup, prune, compact, check, as the configuration says.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use vykar_core::clock;
use vykar_core::maintenance::{CheckOptions, Subset};
use vykar_core::repository::Repository;

use super::{backup, both, check, compact, prune};
use crate::args::{BackupArgs, PruneArgs, ResolvedOptions};
use crate::config::{Around, CheckPolicy};
use crate::exit::{CliError, CliResult, Exit};
use crate::parse::DataSubset;
use crate::{context, hooks};

/// Name of the file in the local cache that says when everything was read last.
const LAST_FULL_CHECK: &str = "last-full-check";

/// Runs the cycle for one repository. When its backup fails nothing else is done: old snapshots are not to go while
/// no new ones come. Only where the repository is full the cycle goes on: pruning and compacting make the room that the
/// next backup needs.
pub fn run(global: &ResolvedOptions) -> CliResult {
    let Some(plan) = &global.plan else {
        return Err(CliError::new(Exit::Usage, "no command given, and no configuration says what to do")
            .hint("`vykar --help` lists the commands, `vykar config` prints a configuration to begin with"));
    };
    let mut result = Ok(Exit::Success);
    if !plan.sources.is_empty() {
        result = match backup::run(global, &BackupArgs::default()) {
            Err(error) if error.is_full() && prune::is_configured(global) => {
                say!("the repository is full: going on with prune and compact, which make room");
                Err(error)
            }
            other => Ok(other?),
        };
    }
    if prune::is_configured(global) {
        result = both(result, prune::run(global, &PruneArgs::default()));
        if ended(&result) {
            return result;
        }
        result = both(result, compact::run(global, &compact::CompactRequest::default()));
        if ended(&result) {
            return result;
        }
    }
    both(result, scheduled_check(global, plan.check))
}

fn ended(result: &CliResult) -> bool {
    result.as_ref().is_err_and(|e| e.exit() == Exit::Interrupted)
}

/// How much of the data a scheduled check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Nothing,
    /// Percent.
    Part(u8),
    Everything,
}

/// A check reads the part that is configured and, now and then, everything.
fn scheduled_check(global: &ResolvedOptions, policy: CheckPolicy) -> CliResult {
    hooks::configured(Around::Check, global, || {
        let repository = context::open(global)?;
        let record = repository.cache_dir().map(|dir| dir.join(LAST_FULL_CHECK));
        let last = last_full(&repository, record.as_deref())?;
        let extent = extent(policy, last, clock::now());
        let options = CheckOptions {
            verify_data: extent == Extent::Everything,
            subset: match extent {
                Extent::Part(percent) => Some(check::subset(DataSubset::Share(f64::from(percent) / 100.0))?),
                _ => None::<Subset>,
            },
            threads: global.threads,
        };
        let report = check::show(global, &repository, &options, false)?;
        if let (Extent::Everything, Some(record)) = (extent, record) {
            // Without it everything is read again the next time.
            let _ = vykar_core::platform::private::write(&record, clock::now().to_string().as_bytes());
        }
        Ok(check::outcome(&report))
    })
}

/// When everything was read last, as far as this machine remembers; else, since when there is something to read.
fn last_full(repository: &Repository, record: Option<&Path>) -> CliResult<Option<Timestamp>> {
    let read = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    if let Some(time) = record.and_then(read) {
        return Ok(Some(time));
    }
    Ok(repository.manifest()?.snapshots.iter().map(|s| s.time).min())
}

fn extent(policy: CheckPolicy, last: Option<Timestamp>, now: Timestamp) -> Extent {
    let age = last.map_or(Duration::ZERO, |last| now.duration_since(last).unsigned_abs());
    match policy.max_percent {
        _ if policy.full_every.is_some_and(|every| age >= every) => Extent::Everything,
        100 => Extent::Everything,
        0 => Extent::Nothing,
        percent => Extent::Part(percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_when_it_is_due() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let policy = CheckPolicy { max_percent: 5, full_every: Some(Duration::from_secs(86400)) };
        let ago = |hours: i64| Some(now - jiff::SignedDuration::from_hours(hours));
        assert_eq!(extent(policy, ago(23), now), Extent::Part(5));
        assert_eq!(extent(policy, ago(24), now), Extent::Everything);
        let parts_only = CheckPolicy { full_every: None, ..policy };
        assert_eq!(extent(parts_only, ago(100_000), now), Extent::Part(5));
        // A clock that was wrong is no reason never to read it.
        assert_eq!(extent(policy, ago(-48), now), Extent::Everything);
        assert_eq!(extent(CheckPolicy { max_percent: 0, ..policy }, None, now), Extent::Nothing);
        assert_eq!(extent(CheckPolicy { max_percent: 100, ..policy }, None, now), Extent::Everything);
    }

    #[test]
    fn what_the_cycle_runs_is_what_a_command_without_options_runs() {
        use crate::args::{Args, Command};
        use clap::Parser;
        let parsed = |word| Args::try_parse_from(["vykar", word]).unwrap().command;
        let Some(Command::Backup(backup)) = parsed("backup") else { panic!("no backup") };
        assert_eq!(*backup, BackupArgs::default());
        let Some(Command::Prune(prune)) = parsed("prune") else { panic!("no prune") };
        assert_eq!(prune, PruneArgs::default());
    }
}
