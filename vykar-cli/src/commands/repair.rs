//! `check --repair`: the plan in words, a question, and what was done.

use std::collections::HashMap;
use std::fmt::Write as _;

use vykar_core::maintenance::repair::SnapshotFate;
use vykar_core::maintenance::{
    CheckOptions, CheckReport, RepairOptions, RepairPlan, RepairReport, apply_repair, plan_repair,
};
use vykar_core::repository::Repository;
use vykar_core::{Event, VykarError};

use super::{check, print};
use crate::args::{CheckArgs, ResolvedOptions};
use crate::confirm::confirm;
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render, say};

pub fn run(
    global: &ResolvedOptions,
    repository: &Repository,
    args: &CheckArgs,
    checked: &CheckReport,
) -> CliResult {
    let options = RepairOptions { threads: global.threads, lock: context::lock_options(global) };
    if !global.quiet {
        print("Reading everything to plan the repair\n");
    }
    let plan = make_plan(global, repository, &options)?;
    if !plan.has_work() {
        print("Nothing to repair\n");
        return Ok(if checked.damage > 0 { Exit::Damaged } else { Exit::Success });
    }
    print(&plan_text(&plan));
    if args.dry_run || !confirm("Repair the repository like that?", args.yes)? {
        print("Nothing was changed\n");
        return Ok(Exit::Damaged);
    }
    let options = RepairOptions { lock: context::lock_to_the_end(global)?, ..options };
    let report = apply_repair(repository, &plan, &options)?;
    context::end_on_signals();
    print(&report_text(&report, &plan));
    let verify = CheckOptions { verify_data: true, threads: global.threads, ..CheckOptions::default() };
    let after = check::show(global, repository, &verify, false)?;
    Ok(match (after.damage, plan.loses_data()) {
        (0, false) => Exit::Success,
        (0, true) => Exit::Partial,
        _ => Exit::Damaged,
    })
}

/// Makes the plan, and prints what would be dropped as it is found: that may be more than fits into memory.
fn make_plan(
    global: &ResolvedOptions,
    repository: &Repository,
    options: &RepairOptions,
) -> CliResult<RepairPlan> {
    let status = StatusLine::of(global, false);
    let names: HashMap<_, _> =
        repository.manifest()?.snapshots.into_iter().map(|s| (s.id, s.meta.name)).collect();
    let mut listen = |event: Event| match &event {
        Event::ItemSkipped { snapshot, path, reason } => {
            let name = names.get(snapshot).map_or("?", String::as_str);
            let what = match path.is_empty() {
                true => say::one_line(reason),
                false => format!("{} ({})", render::plain(path.as_bytes()), say::one_line(reason)),
            };
            let name = render::plain(name.as_bytes());
            status.suspend(|| print(&format!("drop: snapshot {name} ({}): {what}\n", snapshot.short())));
        }
        other => status.event(other),
    };
    plan_repair(repository, options, Some(&mut listen)).map_err(|e| match e {
        e @ VykarError::Storage(_) => CliError::from(e)
            .hint("what cannot be read now may be read yet: copy the repository to a sound disk first"),
        other => other.into(),
    })
}

fn plan_text(plan: &RepairPlan) -> String {
    let mut out = "The repair would:\n".to_owned();
    let mut line = |text: String| {
        let _ = writeln!(out, "- {}", say::one_line(&text));
    };
    for (pack, key) in &plan.packs_put_back {
        line(format!("put back pack {pack}, which lies at {}", render::plain(key.as_bytes())));
    }
    for (id, name, key) in &plan.snapshots_put_back {
        let (name, key) = (render::plain(name.as_bytes()), render::plain(key.as_bytes()));
        line(format!("put back snapshot {name} ({}), which lies at {key}", id.short()));
    }
    for (pack, size, reason) in &plan.packs_damaged {
        line(format!("set aside pack {pack} of {} ({reason})", render::size(*size)));
    }
    if plan.chunks_moved > 0 {
        let size = render::size(plan.bytes_moved);
        line(format!("store anew {} whole chunks of damaged packs, {size}", plan.chunks_moved));
    }
    for pack in &plan.packs_missing {
        line(format!("do without pack {pack}, which is gone"));
    }
    if let Some(reason) = &plan.index_unusable {
        line(format!("rebuild the index from the packs ({reason})"));
    }
    let found = if plan.index_unusable.is_some() { 0 } else { plan.chunks_found };
    let too_high = if plan.snapshots.is_empty() { plan.counts_too_high } else { 0 };
    for (count, what) in [
        (plan.chunks_lost, "chunks out of the index, which are lost"),
        (plan.chunks_redirected, "chunks of the index from other packs, which have them too"),
        (found, "chunks into the index, which only packs have"),
        (plan.counts_too_low, "counts of references that are too low right"),
        (too_high, "counts of references that are too high right"),
    ] {
        if count > 0 {
            let verb = if what.starts_with("counts") { "set" } else { "take" };
            line(format!("{verb} {count} {what}"));
        }
    }
    if plan.hint_wrong {
        line("write index.gen anew".to_owned());
    }
    plan.snapshots.iter().for_each(|fate| line(fate_text(fate)));
    let _ = writeln!(out, "{} snapshots are whole and stay as they are.", plan.snapshots_whole);
    if !plan.snapshots.is_empty() {
        out.push_str(
            "What is set aside is kept under damaged/ (`vykar list --damaged`); chunks that only set-aside \
             snapshots refer to go with the next `vykar compact`.\n",
        );
    }
    out
}

fn fate_text(fate: &SnapshotFate) -> String {
    let name = fate.name.as_deref().map(|name| render::plain(name.as_bytes()));
    let which = name.map_or(fate.id.to_string(), |name| format!("{name} ({})", fate.id.short()));
    let reason = render::plain(fate.reason.as_bytes());
    let gaps = match fate.gaps {
        0 => String::new(),
        n => format!(" and what was listed in {n} places that are lost"),
    };
    let successor = match (fate.replaced, fate.replaced_before, &fate.name) {
        (true, ..) => format!(
            "write it anew with the {} items that are whole, without {} that are not{gaps}",
            fate.kept, fate.dropped
        ),
        (_, true, _) => "an earlier repair has written it anew".to_owned(),
        (.., Some(_)) => "nothing of it is whole".to_owned(),
        (.., None) => "it cannot be read".to_owned(),
    };
    format!("set aside snapshot {which} ({reason}); {successor}")
}

fn report_text(report: &RepairReport, plan: &RepairPlan) -> String {
    let mut out = String::new();
    for (old, new) in &report.replaced {
        let fate = plan.snapshots.iter().find(|fate| fate.id == *old);
        let name = fate.and_then(|fate| fate.name.as_deref()).unwrap_or("?");
        let _ = writeln!(
            out,
            "Snapshot {} is {} now; {} is set aside",
            render::plain(name.as_bytes()),
            new.short(),
            old.short()
        );
    }
    let put_back = (report.snapshots_put_back.len(), report.packs_put_back.len());
    if put_back != (0, 0) {
        let _ = writeln!(out, "Put back {} snapshots and {} packs", put_back.0, put_back.1);
    }
    if report.packs_written > 0 {
        let _ = writeln!(out, "Wrote {} packs, {}", report.packs_written, render::size(report.bytes_written));
    }
    let _ = writeln!(
        out,
        "Repaired: {} snapshots and {} packs set aside",
        report.set_aside.len(),
        report.packs_set_aside.len()
    );
    out
}
