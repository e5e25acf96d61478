use std::fmt::Write as _;

use serde_json::{Value, json};
use vykar_core::Event;
use vykar_core::maintenance::compact::{DEFAULT_THRESHOLD, Repack};
use vykar_core::maintenance::{CompactOptions, CompactPlan, CompactReport, compact, plan_compact};

use super::{print, print_json};
use crate::args::ResolvedOptions;
use crate::config::Around;
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, hooks, render};

/// What to compact, and how; the configuration says what is not given.
#[derive(Default)]
pub struct CompactRequest {
    pub threshold: Option<u8>,
    pub max_repack_size: Option<u64>,
    pub dry_run: bool,
    pub json: bool,
}

/// Between the hooks of the configuration.
pub fn run(global: &ResolvedOptions, request: &CompactRequest) -> CliResult {
    match request.dry_run {
        true => inside(global, request),
        false => hooks::configured(Around::Compact, global, || inside(global, request)),
    }
}

fn inside(global: &ResolvedOptions, request: &CompactRequest) -> CliResult {
    let cancel = context::interrupts();
    let repository = context::open_until(global, &cancel)?;
    context::cancel_on_signals()?;
    let mut lock = context::lock_options(global);
    lock.cancel = cancel.clone();
    let configured = global.plan.as_ref().map_or(DEFAULT_THRESHOLD, |plan| plan.compact_threshold);
    let threshold = request.threshold.unwrap_or(configured);
    let max_repack_size = request.max_repack_size;
    let options = CompactOptions { threshold, max_repack_size, lock, cancel };
    let status = StatusLine::of(global, request.json);
    let mut listen = |event: Event| status.event(&event);
    if request.dry_run {
        let plan = plan_compact(&repository, &options, Some(&mut listen))?;
        drop(status);
        match request.json {
            true => print_json(&json!({ "dry_run": true, "plan": plan_json(&plan) }))?,
            false => print(&plan_text(&plan)),
        }
        return Ok(Exit::Success);
    }
    let report = compact(&repository, &options, Some(&mut listen))?;
    drop(status);
    if request.json {
        print_json(&report_json(&report))?;
    } else if !global.quiet {
        print(&report_text(&report));
    }
    for (pack, reason) in &report.damaged {
        say!("pack {pack}: {reason}; left as it is");
    }
    if report.damaged.is_empty() {
        return Ok(Exit::Success);
    }
    say!("`vykar check --verify-data` names what that costs");
    Ok(Exit::Damaged)
}

/// What would be done, a line for each kind of thing.
fn plan_text(plan: &CompactPlan) -> String {
    if plan.is_empty() {
        return "Nothing to compact\n".to_owned();
    }
    let mut out = String::new();
    let deleted: u64 = plan.delete.iter().map(|(_, size)| size).sum();
    let (read, live) = plan.repack.iter().fold((0, 0), |(read, live), r| (read + r.size, live + r.live));
    for (count, what) in [
        (plan.delete.len() as u64, format!("packs would be deleted, {}", render::size(deleted))),
        (
            plan.repack.len() as u64,
            format!("packs, {}, would be written anew as {}", render::size(read), render::size(live)),
        ),
        (plan.chunks_dropped, "chunks would leave the index".to_owned()),
        (plan.counts_lowered, "chunks are counted too high, which would be put right".to_owned()),
        (plan.leftovers.len() as u64, "unfinished writes would be removed".to_owned()),
        (plan.journals.len() as u64, "journals of backups that are gone would be removed".to_owned()),
    ] {
        if count > 0 {
            let _ = writeln!(out, "{count} {what}");
        }
    }
    let _ = writeln!(out, "{} would be freed", render::size(plan.bytes_freed()));
    out
}

fn report_text(report: &CompactReport) -> String {
    if report.plan.is_empty() {
        return "Nothing to compact\n".to_owned();
    }
    format!(
        "Deleted {} packs, {}; wrote {}, {}\n{} freed\n",
        report.packs_deleted,
        render::size(report.bytes_deleted),
        report.packs_written,
        render::size(report.bytes_written),
        render::size(report.bytes_freed()),
    )
}

fn plan_json(plan: &CompactPlan) -> Value {
    let delete = |(pack, size): &(vykar_core::PackId, u64)| json!({ "pack": pack.to_string(), "size": size });
    let repack =
        |r: &Repack| json!({ "pack": r.pack.to_string(), "size": r.size, "live": r.live, "dead": r.dead() });
    let object = |o: &vykar_core::storage::ObjectInfo| json!({ "key": o.key, "size": o.size });
    json!({
        "delete": plan.delete.iter().map(delete).collect::<Vec<_>>(),
        "repack": plan.repack.iter().map(repack).collect::<Vec<_>>(),
        "chunks_dropped": plan.chunks_dropped,
        "counts_lowered": plan.counts_lowered,
        "leftovers": plan.leftovers.iter().map(object).collect::<Vec<_>>(),
        "journals": plan.journals.iter().map(object).collect::<Vec<_>>(),
        "bytes_freed": plan.bytes_freed(),
    })
}

fn report_json(report: &CompactReport) -> Value {
    let damaged =
        |(pack, reason): &(vykar_core::PackId, String)| json!({ "pack": pack.to_string(), "reason": reason });
    json!({
        "dry_run": false,
        "plan": plan_json(&report.plan),
        "packs_deleted": report.packs_deleted,
        "bytes_deleted": report.bytes_deleted,
        "packs_written": report.packs_written,
        "bytes_written": report.bytes_written,
        "bytes_freed": report.bytes_freed(),
        "damaged": report.damaged.iter().map(damaged).collect::<Vec<_>>(),
    })
}
