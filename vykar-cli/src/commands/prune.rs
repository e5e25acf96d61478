use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use vykar_core::Event;
use vykar_core::format::Snapshot;
use vykar_core::maintenance::{DeleteReport, KeepRules, PruneOptions, PruneReport, Rule, prune};

use super::list::snapshot_json;
use super::{print, print_json};
use crate::args::{Global, KeepArgs, PruneArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub fn run(global: &Global, args: &PruneArgs) -> CliResult {
    let rules = rules(&args.keep);
    if rules.is_empty() {
        return Err(CliError::new(Exit::Usage, "no rule says what to keep, so nothing is pruned")
            .hint("give at least one, as in --keep-daily 7 --keep-monthly 12"));
    }
    let repository = context::open(global)?;
    let options = PruneOptions {
        group_by: args.group_by,
        host: args.host.clone(),
        label: args.label.clone(),
        zone: TimeZone::system(),
        dry_run: args.dry_run,
        lock: context::lock_options(global),
        ..PruneOptions::new(rules)
    };
    let status = StatusLine::new(!global.quiet && !args.json);
    let mut listen = |event: Event| status.event(&event);
    let report = prune(&repository, &options, Some(&mut listen))?;
    drop(status);
    if args.json {
        print_json(&report_json(&report, args.dry_run))?;
        return Ok(Exit::Success);
    }
    if args.list {
        print(&list(&report));
    }
    if !global.quiet {
        print(&summary(&report, args.dry_run));
    }
    Ok(Exit::Success)
}

fn rules(keep: &KeepArgs) -> KeepRules {
    KeepRules {
        last: keep.keep_last,
        hourly: keep.keep_hourly,
        daily: keep.keep_daily,
        weekly: keep.keep_weekly,
        monthly: keep.keep_monthly,
        yearly: keep.keep_yearly,
        within: keep.keep_within,
    }
}

fn list(report: &PruneReport) -> String {
    let row = |(s, rules): &(Snapshot, Vec<Rule>)| {
        let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
        vec![
            render::plain(s.meta.name.as_bytes()),
            render::time(s.time),
            render::plain(s.meta.hostname.as_bytes()),
            render::plain(s.label().as_bytes()),
            if rules.is_empty() { "delete" } else { "keep" }.to_owned(),
            rules.join(", "),
        ]
    };
    let rows: Vec<_> = report.decisions.iter().map(row).collect();
    render::table(&["NAME", "TIME", "HOST", "LABEL", "", "RULES"], &rows, &[])
}

fn summary(report: &PruneReport, dry_run: bool) -> String {
    let kept = report.decisions.iter().filter(|(_, rules)| !rules.is_empty()).count();
    format!("{}{kept} snapshots stay\n", removal_text(&report.removal, dry_run))
}

/// What was deleted, a line for each snapshot, and what that frees.
pub fn removal_text(report: &DeleteReport, dry_run: bool) -> String {
    let verb = if dry_run { "Would delete" } else { "Deleted" };
    let mut out = String::new();
    for s in &report.deleted {
        let (name, host) = (render::plain(s.meta.name.as_bytes()), render::plain(s.meta.hostname.as_bytes()));
        let label = render::plain(s.label().as_bytes());
        let _ = writeln!(out, "{verb} {name} ({}), {host}, {label}, {}", s.id.short(), render::time(s.time));
    }
    for id in &report.deleted_unreadable {
        let _ = writeln!(out, "{verb} {} (damaged)", id.short());
    }
    if out.is_empty() {
        return "Nothing to delete\n".to_owned();
    }
    let (size, chunks) = (render::size(report.bytes_freed), report.chunks_freed);
    let verb = if dry_run { "would be" } else { "is" };
    let _ = writeln!(out, "{size} in {chunks} chunks {verb} free for `vykar compact`");
    out
}

/// The same for programs.
pub fn removal_json(report: &DeleteReport, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "deleted": report.deleted.iter().map(snapshot_json).collect::<Vec<_>>(),
        "deleted_damaged": report.deleted_unreadable.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "chunks_freed": report.chunks_freed,
        "bytes_freed": report.bytes_freed,
    })
}

fn report_json(report: &PruneReport, dry_run: bool) -> Value {
    let kept = report.decisions.iter().filter(|(_, rules)| !rules.is_empty());
    let kept = kept.map(|(snapshot, rules)| {
        let mut json = snapshot_json(snapshot);
        json["rules"] = rules.iter().map(ToString::to_string).collect();
        json
    });
    let mut json = removal_json(&report.removal, dry_run);
    json["kept"] = kept.collect();
    json
}
