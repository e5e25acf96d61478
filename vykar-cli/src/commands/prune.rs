use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use vykar_core::Event;
use vykar_core::format::Snapshot;
use vykar_core::maintenance::{DeleteReport, KeepRule, KeepRules, PruneOptions, PruneReport, prune};
use vykar_core::platform::process::short_hostname;

use super::list::snapshot_json;
use super::{print, print_json, series};
use crate::args::{KeepArgs, PruneArgs, ResolvedOptions};
use crate::config::{Around, SourcePlan};
use crate::exit::{CliError, CliResult, Exit};
use crate::hooks;
use crate::progress::StatusLine;
use crate::{context, render};

/// Deletes what no rule keeps, between the hooks of the configuration.
pub fn run(global: &ResolvedOptions, args: &PruneArgs) -> CliResult {
    let jobs = jobs(global, args)?;
    let prune = || {
        for job in &jobs {
            one(global, args, job)?;
        }
        if rules(&args.keep).is_empty() {
            series::warn(global)?;
        }
        Ok(Exit::Success)
    };
    match args.dry_run {
        true => prune(),
        false => hooks::configured(Around::Prune, global, prune),
    }
}

/// Rules, and the snapshots that they are for.
struct PruneJob {
    rules: KeepRules,
    host: Option<String>,
    label: Option<String>,
}

/// The rules of the command line; without any, those of the configuration, each for its own sources on this host:
/// what other machines keep in the same repository is theirs to decide.
fn jobs(global: &ResolvedOptions, args: &PruneArgs) -> CliResult<Vec<PruneJob>> {
    let given = rules(&args.keep);
    if !given.is_empty() {
        return Ok(vec![PruneJob { rules: given, host: args.host.clone(), label: args.label.clone() }]);
    }
    let nothing = || {
        CliError::new(Exit::Usage, "no rule says what to keep, so nothing is pruned")
            .hint("give at least one, as in --keep-daily 7 --keep-monthly 12, or configure `retention`")
    };
    let plan = global.plan.as_ref().ok_or_else(nothing)?;
    let asked = |label: &str| args.label.as_deref().is_none_or(|asked| asked == label);
    let host = args.host.clone().or_else(|| plan.hostname.clone()).unwrap_or_else(short_hostname);
    let job = |source: &SourcePlan| PruneJob {
        rules: source.retention.unwrap_or(plan.retention),
        host: Some(host.clone()),
        label: Some(source.label.clone()),
    };
    let mut jobs: Vec<PruneJob> = plan.sources.iter().filter(|s| asked(&s.label)).map(job).collect();
    if plan.sources.is_empty() {
        jobs.push(PruneJob { rules: plan.retention, host: args.host.clone(), label: args.label.clone() });
    }
    jobs.retain(|job| !job.rules.is_empty());
    if jobs.is_empty() { Err(nothing()) } else { Ok(jobs) }
}

/// True when the configuration says what is kept of anything.
pub fn is_configured(global: &ResolvedOptions) -> bool {
    let plan = global.plan.as_ref();
    plan.is_some_and(|plan| {
        !plan.retention.is_empty()
            || plan.sources.iter().any(|s| s.retention.is_some_and(|rules| !rules.is_empty()))
    })
}

fn one(global: &ResolvedOptions, args: &PruneArgs, job: &PruneJob) -> CliResult<()> {
    let repository = context::open(global)?;
    let options = PruneOptions {
        group_by: args.group_by,
        host: job.host.clone(),
        label: job.label.clone(),
        zone: TimeZone::system(),
        dry_run: args.dry_run,
        lock: context::lock_to_the_end(global)?,
        ..PruneOptions::new(job.rules)
    };
    let status = StatusLine::of(global, args.json);
    let mut listen = |event: Event| status.event(&event);
    let report = prune(&repository, &options, Some(&mut listen))?;
    drop(status);
    if args.json {
        return print_json(&report_json(&report, args.dry_run));
    }
    if args.list {
        print(&list(&report));
    }
    if !global.quiet {
        print(&summary(&report, args.dry_run));
    }
    Ok(())
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
    let row = |(s, rules): &(Snapshot, Vec<KeepRule>)| {
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
