use std::fmt::Write as _;

use serde_json::json;
use vykar_core::Event;
use vykar_core::maintenance::{CheckOptions, CheckReport, Severity, Subset, check};
use vykar_core::repository::Repository;

use super::{print, print_json, repair};
use crate::args::{CheckArgs, ResolvedOptions};
use crate::config::Around;
use crate::exit::{CliError, CliResult, Exit};
use crate::parse::DataSubset;
use crate::progress::StatusLine;
use crate::{context, hooks, render, say};

/// Between the hooks of the configuration.
pub fn run(global: &ResolvedOptions, args: &CheckArgs) -> CliResult {
    hooks::configured(Around::Check, global, || inside(global, args))
}

fn inside(global: &ResolvedOptions, args: &CheckArgs) -> CliResult {
    let repository = context::open(global)?;
    let subset = args.read_data_subset.map(subset).transpose()?;
    let options = CheckOptions { verify_data: args.verify_data, subset, threads: global.threads };
    let report = show(global, &repository, &options, args.json)?;
    if args.repair {
        return repair::run(global, &repository, args, &report);
    }
    Ok(outcome(&report))
}

/// What looks like damage in a repository that changes while it is checked need not be any.
pub fn outcome(report: &CheckReport) -> Exit {
    match (report.damage, report.changed_meanwhile) {
        (0, _) => Exit::Success,
        (_, true) => Exit::Changed,
        (_, false) => Exit::Damaged,
    }
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
pub fn show(
    global: &ResolvedOptions,
    repository: &Repository,
    options: &CheckOptions,
    json: bool,
) -> CliResult<CheckReport> {
    let status = StatusLine::of(global, json);
    let mut listen = |event: Event| status.event(&event);
    let report = check(repository, options, Some(&mut listen))?;
    drop(status);
    let damage = report.findings.iter().filter(|finding| finding.severity() == Severity::Damage);
    damage.for_each(|finding| global.problems.note(&finding.to_string()));
    match json {
        true => print_json(&report_json(&report))?,
        false => print(&report_text(&report, options, global.quiet)),
    }
    if report.changed_meanwhile && report.damage > 0 {
        say!(
            "the repository changed each time it was checked, so this may be no damage: run the check again when \
             the other program is done"
        );
    }
    Ok(report)
}

fn kind(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Newer => "newer",
        Severity::Harmless => "note",
    }
}

fn report_text(report: &CheckReport, options: &CheckOptions, quiet: bool) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let _ = writeln!(out, "{}: {}", kind(finding.severity()), say::one_line(&finding.to_string()));
    }
    if report.unlisted() > 0 {
        let _ = writeln!(out, "... and {} more", report.unlisted());
    }
    if quiet {
        return out;
    }
    let verified = render::size(report.bytes_verified);
    let what = match (options.subset, options.verify_data) {
        (Some(_), _) => format!("{} of them, {verified}, read and verified", report.packs_verified),
        (None, true) => format!("{verified} of packs read and verified"),
        (None, false) => "metadata only; --verify-data reads everything".to_owned(),
    };
    let CheckReport { snapshots, items, chunks, packs, .. } = report;
    let damage = match report.damage {
        0 => "no damage".to_owned(),
        n => format!("{n} problems"),
    };
    let _ = writeln!(
        out,
        "Checked {snapshots} snapshots, {items} items, {chunks} chunks, {packs} packs ({what}): {damage}"
    );
    out
}

fn report_json(report: &CheckReport) -> serde_json::Value {
    let finding = |f: &vykar_core::maintenance::Finding| json!({ "severity": kind(f.severity()), "message": f.to_string() });
    json!({
        "snapshots": report.snapshots,
        "items": report.items,
        "chunks": report.chunks,
        "packs": report.packs,
        "packs_verified": report.packs_verified,
        "bytes_verified": report.bytes_verified,
        "damage": report.damage,
        "changed_meanwhile": report.changed_meanwhile,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "unlisted": report.unlisted(),
    })
}
