//! Snapshots made anew without what rules match.

use std::fmt::Write as _;

use serde_json::{Value, json};
use vykar_core::format::Snapshot;
use vykar_core::maintenance::{DeleteOptions, DeleteReport, delete_snapshots};
use vykar_core::repository::Repository;
use vykar_core::snapshot_ops::{RewriteOptions, Rewritten, rewrite};
use vykar_core::{Event, SnapshotId};

use super::list::snapshot_json;
use super::{print, print_json, prune, rules};
use crate::args::{ResolvedOptions, RewriteArgs};
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render, say};

pub fn run(global: &ResolvedOptions, args: &RewriteArgs) -> CliResult {
    let options = RewriteOptions {
        patterns: rules(&args.exclude, &args.exclude_file)?,
        dry_run: args.dry_run,
        report_excluded: args.dry_run || global.verbose > 0,
        lock: context::lock_options(global),
        cancel: context::interrupts(),
    };
    let repository = context::open_until(global, &options.cancel)?;
    context::cancel_on_signals()?;
    let manifest = repository.manifest()?;
    // All of them before the first is made: `latest` is what it is now.
    let mut chosen: Vec<&Snapshot> = Vec::new();
    for wanted in &args.snapshots {
        let snapshot = manifest.resolve(wanted)?;
        if chosen.iter().all(|other| other.id != snapshot.id) {
            chosen.push(snapshot);
        }
    }
    let mut done = Vec::new();
    for snapshot in chosen {
        done.push(one(global, args, (&repository, snapshot), &options)?);
    }
    let forgotten = match args.forget && !args.dry_run {
        true => forget(global, args, &repository, &done)?,
        false => None,
    };
    if args.json {
        let mut json = json!({ "dry_run": args.dry_run });
        json["snapshots"] = done.iter().map(|one| one.json.clone()).collect();
        json["removal"] = forgotten.map_or(Value::Null, |report| prune::removal_json(&report, false));
        print_json(&json)?;
    } else if let Some(report) = forgotten.filter(|_| !global.quiet) {
        print(&prune::removal_text(&report, false));
    }
    Ok(Exit::Success)
}

/// A snapshot that was looked at.
struct Done {
    from: SnapshotId,
    made: bool,
    json: Value,
}

fn one(
    global: &ResolvedOptions,
    args: &RewriteArgs,
    (repository, snapshot): (&Repository, &Snapshot),
    options: &RewriteOptions,
) -> CliResult<Done> {
    let status = StatusLine::of(global, args.json);
    let mut left_out = Vec::new();
    let mut listen = |event: Event| match &event {
        Event::Excluded { path, why } if args.json => {
            left_out.push(json!({ "path": path.to_string_lossy(), "reason": why.to_string() }));
        }
        Event::Excluded { path, why } => status.suspend(|| {
            let why = render::plain(why.to_string().as_bytes());
            let line = format!("x {}  ({why})", render::path(path));
            if args.dry_run { print(&(line + "\n")) } else { say::bare(&line) }
        }),
        _ => status.event(&event),
    };
    let done = rewrite(repository, snapshot, options, Some(&mut listen))?;
    drop(status);
    if !args.json && !global.quiet {
        print(&text(snapshot, &done));
    }
    let made = done.made.as_ref().map(|(id, meta)| (*id, meta.clone()));
    let made = made.and_then(|(id, meta)| Snapshot::new(id, meta).ok());
    let json = json!({
        "snapshot": snapshot_json(snapshot),
        "left_out": done.left_out,
        "files": done.files,
        "bytes": done.bytes,
        "paths": left_out,
        "made": made.as_ref().map(snapshot_json),
    });
    Ok(Done { from: snapshot.id, made: done.made.is_some(), json })
}

fn text(snapshot: &Snapshot, done: &Rewritten) -> String {
    let name = render::plain(snapshot.meta.name.as_bytes());
    let what =
        format!("{} paths, {} of them files ({})", done.left_out, done.files, render::size(done.bytes));
    let mut out = String::new();
    let _ = match &done.made {
        _ if done.left_out == 0 => writeln!(out, "Snapshot {name}: nothing matches, so no new one is made"),
        None => writeln!(out, "Snapshot {name}: would leave out {what}; nothing was made"),
        Some((id, meta)) => {
            let new = render::plain(meta.name.as_bytes());
            writeln!(out, "Snapshot {new} ({}), made of {name} without {what}", id.short())
        }
    };
    out
}

/// Deletes the originals of those that were made anew.
fn forget(
    global: &ResolvedOptions,
    args: &RewriteArgs,
    repository: &Repository,
    done: &[Done],
) -> CliResult<Option<DeleteReport>> {
    let ids: Vec<_> = done.iter().filter(|one| one.made).map(|one| one.from).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let options = DeleteOptions { dry_run: false, lock: context::lock_to_the_end(global)? };
    let status = StatusLine::of(global, args.json);
    let mut listen = |event: Event| status.event(&event);
    let report = delete_snapshots(repository, &ids, &options, Some(&mut listen));
    report.map(Some).map_err(|e| {
        let e = crate::exit::CliError::from(e);
        e.context("the new snapshots are there, and the originals are not all deleted")
    })
}
