//! Snapshots copied into another repository.

use serde_json::json;
use vykar_core::Event;
use vykar_core::format::Snapshot;
use vykar_core::snapshot_ops::{Copied, CopyOptions, copy_snapshots, plan_copy};

use super::list::snapshot_json;
use super::{print, print_json};
use crate::args::{CopyArgs, GlobalArgs, ResolvedOptions};
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render, settings};

pub fn run(given: &GlobalArgs, args: &CopyArgs) -> CliResult {
    let config = settings::configuration(given)?;
    let global = settings::one(settings::choose(given, config.as_ref())?)?;
    let destination = GlobalArgs {
        repo: Some(args.to.clone()),
        passphrase_file: args.to_passphrase_file.clone(),
        passcommand: args.to_passcommand.clone(),
        ..given.clone()
    };
    let config = settings::configuration(&destination)?;
    let destination = settings::one(settings::choose(&destination, config.as_ref())?)?;
    context::set_nice(global.nice)?;
    copy(&global, &ResolvedOptions { is_destination: true, ..destination }, args)
}

fn copy(global: &ResolvedOptions, destination: &ResolvedOptions, args: &CopyArgs) -> CliResult {
    let options = CopyOptions {
        compression: destination.plan.as_ref().map(|plan| plan.compression).unwrap_or_default(),
        threads: global.threads,
        lock: context::lock_options(destination),
        cancel: context::interrupts(),
    };
    let from = context::open_until(global, &options.cancel)?;
    let to = context::open_until(destination, &options.cancel)?;
    context::cancel_on_signals()?;
    let manifest = from.manifest()?;
    let chosen = match &args.snapshots[..] {
        [] => args.filter.choose(manifest.snapshots, args.since),
        names => names.iter().map(|name| manifest.resolve(name).cloned()).collect::<Result<_, _>>()?,
    };
    let plan = plan_copy(&to, chosen)?;
    let there = plan.there.len();
    if args.dry_run {
        return finish_dry(args, &plan.wanted, there);
    }
    let status = StatusLine::of(global, args.json);
    let mut listen = |event: Event| status.event(&event);
    let report = copy_snapshots((&from, &to), &plan.wanted, &options, Some(&mut listen))?;
    drop(status);
    let there = there + report.there.len();
    if args.json {
        let copied = |c: &Copied| {
            let new = Snapshot::new(c.id, c.meta.clone()).ok();
            json!({ "from": c.from.to_string(), "lost": c.lost, "made": new.as_ref().map(snapshot_json) })
        };
        print_json(&json!({
            "copied": report.copied.iter().map(copied).collect::<Vec<_>>(),
            "failed": report.failed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "there": there,
        }))?;
    } else if !global.quiet {
        report.copied.iter().for_each(|copied| print(&line(copied)));
        print(&format!("{} copied, {there} were there already\n", report.copied.len()));
    }
    Ok(if report.is_complete() { Exit::Success } else { Exit::Partial })
}

fn line(copied: &Copied) -> String {
    let (from, name) =
        (render::plain(copied.from_name.as_bytes()), render::plain(copied.meta.name.as_bytes()));
    let added = render::size(copied.meta.stats.deduplicated_size);
    format!("Copied {from} as {name} ({}), {added} added, {} paths lost\n", copied.id.short(), copied.lost)
}

fn finish_dry(args: &CopyArgs, wanted: &[Snapshot], there: usize) -> CliResult {
    if args.json {
        let wanted: Vec<_> = wanted.iter().map(snapshot_json).collect();
        print_json(&json!({ "dry_run": true, "wanted": wanted, "there": there }))?;
    } else {
        for s in wanted {
            print(&format!("Would copy {} ({})\n", render::plain(s.meta.name.as_bytes()), s.id.short()));
        }
        print(&format!("{} would be copied, {there} are there already\n", wanted.len()));
    }
    Ok(Exit::Success)
}
