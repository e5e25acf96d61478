use vykar_core::Event;
use vykar_core::maintenance::{CheckOptions, CheckReport, Severity, Subset, check};
use vykar_core::repository::Repository;

use super::{print, repair};
use crate::args::{CheckArgs, Global};
use crate::config::Around;
use crate::exit::{CliError, CliResult, Exit};
use crate::parse::DataSubset;
use crate::progress::StatusLine;
use crate::{context, hooks, render};

/// Between the hooks of the configuration.
pub fn run(global: &Global, args: &CheckArgs) -> CliResult {
    hooks::configured(Around::Check, global, || inside(global, args))
}

fn inside(global: &Global, args: &CheckArgs) -> CliResult {
    let repository = context::open(global)?;
    let subset = args.read_data_subset.map(subset).transpose()?;
    let options = CheckOptions { verify_data: args.verify_data, subset, threads: global.threads };
    let report = show(global, &repository, &options)?;
    if args.repair {
        return repair::run(global, &repository, args, &report);
    }
    Ok(if report.damage > 0 { Exit::Damaged } else { Exit::Success })
}

/// A share is drawn anew each time, so that in time every pack is read.
pub fn subset(asked: DataSubset) -> CliResult<Subset> {
    Ok(match asked {
        DataSubset::Part { part, of } => Subset::Part { part, of },
        DataSubset::Share(share) => {
            let seed = vykar_core::crypto::random()
                .map_err(|e| CliError::new(Exit::Failure, format!("cannot choose packs: {e}")))?;
            Subset::Share { share, seed: u64::from_le_bytes(seed) }
        }
    })
}

/// Checks, and prints what is found.
pub fn show(global: &Global, repository: &Repository, options: &CheckOptions) -> CliResult<CheckReport> {
    let status = StatusLine::new(!global.quiet);
    let mut listen = |event: Event| status.event(&event);
    let report = check(repository, options, Some(&mut listen))?;
    drop(status);
    for finding in &report.findings {
        let kind = match finding.severity() {
            Severity::Damage => "damage",
            Severity::Newer => "newer",
            Severity::Harmless => "note",
        };
        print(&format!("{kind}: {finding}\n"));
    }
    if report.unlisted() > 0 {
        print(&format!("... and {} more\n", report.unlisted()));
    }
    if !global.quiet {
        let verified = render::size(report.bytes_verified);
        let what = match (options.subset, options.verify_data) {
            (Some(_), _) => format!("{} of them, {verified}, read and verified", report.packs_verified),
            (None, true) => format!("{verified} of packs read and verified"),
            (None, false) => "metadata only; --verify-data reads everything".to_owned(),
        };
        print(&format!(
            "Checked {} snapshots, {} items, {} chunks, {} packs ({what}): {}\n",
            report.snapshots,
            report.items,
            report.chunks,
            report.packs,
            match report.damage {
                0 => "no damage".to_owned(),
                n => format!("{n} problems"),
            },
        ));
    }
    if report.changed_meanwhile {
        eprintln!("vykar: the repository changed while it was checked; counts may be off, so check again");
    }
    Ok(report)
}
