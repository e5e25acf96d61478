use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use vykar_core::format::Snapshot;
use vykar_core::restore::{Overwrite, RestoreOptions, RestoreSummary, restore};
use vykar_core::{Event, Restoring};

use super::{print, print_json};
use crate::args::{OverwriteArg, ResolvedOptions, RestoreArgs};
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render, say};

pub fn run(global: &ResolvedOptions, args: &RestoreArgs) -> CliResult {
    let cancel = context::interrupts();
    let repository = context::open_until(global, &cancel)?;
    context::cancel_on_signals()?;
    let manifest = repository.manifest()?;
    let snapshot = manifest.resolve(&args.snapshot)?;
    let options = RestoreOptions {
        paths: args.paths.iter().map(|p| p.as_os_str().as_bytes().to_vec()).collect(),
        include: args.include.iter().map(|rule| rule.0.clone()).collect(),
        exclude: args.exclude.iter().map(|rule| rule.0.clone()).collect(),
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        },
        delete_conflicting: args.delete_conflicting,
        verify: args.verify,
        dry_run: args.dry_run,
        cancel,
        threads: global.threads,
        numeric_ids: args.numeric_ids,
    };
    let status = match args.dry_run {
        true => StatusLine::new(false),
        false => StatusLine::of(global, args.json),
    };
    let mut listen = |event: Event| match event {
        Event::PlannedRestore { path, what } => show_planned(&path, what, args.json),
        other => status.event(&other),
    };
    let summary = restore(&repository, snapshot, &args.dest, &options, Some(&mut listen))?;
    drop(status);
    match (args.json, args.dry_run) {
        // One object a line, and nothing else.
        (true, true) => {}
        (true, false) => print_json(&summary_json(&summary, snapshot))?,
        (false, _) if global.quiet => {}
        (false, dry_run) => print(&summary_text(&summary, snapshot, args, dry_run)),
    }
    if summary.errors > 0 {
        let verb = if args.dry_run { "would not be" } else { "were not" };
        say!(
            "{} path(s) {verb} restored; everything else {}",
            summary.errors,
            if args.dry_run { "would be" } else { "was" }
        );
        return Ok(Exit::Partial);
    }
    if summary.named > 0 {
        say!("{} path(s) have other metadata than in the snapshot; each is named above", summary.named);
        return Ok(Exit::Partial);
    }
    Ok(Exit::Success)
}

/// A line for each path of a dry run: + made, M replaced, = left as it is.
fn show_planned(path: &std::path::Path, what: Restoring, json: bool) {
    let (sign, name) = match what {
        Restoring::Make => ('+', "make"),
        Restoring::Replace => ('M', "replace"),
        Restoring::Keep => ('=', "keep"),
    };
    match json {
        true => {
            let line = json!({ "path": path.to_string_lossy(), "action": name });
            say::print_raw(&format!("{line}\n"));
        }
        false => print(&format!("{sign} {}\n", render::path(path))),
    }
}

fn summary_text(summary: &RestoreSummary, snapshot: &Snapshot, args: &RestoreArgs, dry_run: bool) -> String {
    let special = match summary.special {
        0 => String::new(),
        n => format!(", {n} special"),
    };
    let unchanged = match summary.unchanged {
        0 => String::new(),
        n => format!("; {n} were there already"),
    };
    let verified = if args.verify { "; all of it was read again" } else { "" };
    format!(
        "{} {} files ({}), {} directories, {} symlinks{special} from snapshot {} to {}{unchanged}{verified}\n",
        if dry_run { "Would restore" } else { "Restored" },
        summary.files,
        render::size(summary.bytes),
        summary.directories,
        summary.symlinks,
        render::plain(snapshot.meta.name.as_bytes()),
        render::path(&args.dest),
    )
}

fn summary_json(summary: &RestoreSummary, snapshot: &Snapshot) -> serde_json::Value {
    json!({
        "snapshot": snapshot.meta.name,
        "id": snapshot.id.to_string(),
        "files": summary.files,
        "directories": summary.directories,
        "symlinks": summary.symlinks,
        "hardlinks": summary.hardlinks,
        "special": summary.special,
        "unchanged": summary.unchanged,
        "bytes": summary.bytes,
        "errors": summary.errors,
        "incomplete": summary.incomplete,
    })
}
