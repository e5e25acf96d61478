use std::fmt::Write as _;

use vykar_core::error::VykarError;
use vykar_core::maintenance::{DeleteOptions, delete_snapshots};
use vykar_core::repository::{Manifest, Repository};
use vykar_core::{Event, SnapshotId};

use super::list::snapshot_json;
use super::{diff, find, items, print, print_json, prune};
use crate::args::{ResolvedOptions, SnapshotCommand};
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub fn run(global: &ResolvedOptions, command: SnapshotCommand) -> CliResult {
    match command {
        SnapshotCommand::List(args) => items::run(global, &args),
        SnapshotCommand::Find(args) => find::run(global, &args),
        SnapshotCommand::Diff { before, after, path, json } => {
            diff::run(global, &diff::DiffRequest { before, after, path, json })
        }
        SnapshotCommand::Delete { snapshots, dry_run, json } => delete(global, &snapshots, dry_run, json),
        SnapshotCommand::Info { snapshot, json } => info(global, &snapshot, json),
    }
}

fn delete(global: &ResolvedOptions, wanted: &[String], dry_run: bool, json: bool) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    // All of them before the first goes: `latest` is what it is now.
    let ChosenSnapshots { ids, missing } = ChosenSnapshots::of(&repository, &manifest, wanted)?;
    if let (true, Some(_)) = (ids.is_empty(), &missing) {
        return missing.map_or(Ok(Exit::Success), |e| Err(e.into()));
    }
    let options = DeleteOptions { dry_run, lock: context::lock_to_the_end(global)? };
    let status = StatusLine::of(global, json);
    let mut listen = |event: Event| status.event(&event);
    let report = delete_snapshots(&repository, &ids, &options, Some(&mut listen))?;
    drop(status);
    if json {
        print_json(&prune::removal_json(&report, dry_run))?;
    } else if !global.quiet {
        print(&prune::removal_text(&report, dry_run));
    }
    report.gone.iter().for_each(|id| say!("{}", deleted_before(&id.short())));
    match missing {
        Some(missing) => Err(CliError::from(missing).context("the others are deleted")),
        None => Ok(Exit::Success),
    }
}

/// Which snapshots are deleted.
struct ChosenSnapshots {
    ids: Vec<SnapshotId>,
    /// The first that nobody knows. The others are deleted all the same, as rm(1) does it, so that a deletion that was
    /// cut off can be run again.
    missing: Option<VykarError>,
}

impl ChosenSnapshots {
    fn of(repository: &Repository, manifest: &Manifest, wanted: &[String]) -> CliResult<Self> {
        let mut chosen = ChosenSnapshots { ids: Vec::new(), missing: None };
        for wanted in wanted {
            match manifest.resolve_id(wanted) {
                Ok(id) => chosen.ids.push(id),
                Err(VykarError::SnapshotNotFound { wanted }) if repository.was_deleted_here(&wanted) => {
                    say!("{}", deleted_before(&render::plain(wanted.as_bytes())));
                }
                Err(e @ VykarError::SnapshotNotFound { .. }) => {
                    chosen.missing.get_or_insert(e);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(chosen)
    }
}

fn deleted_before(snapshot: &str) -> String {
    format!("snapshot {snapshot} was deleted before")
}

fn info(global: &ResolvedOptions, wanted: &str, json: bool) -> CliResult {
    let manifest = context::open(global)?.manifest()?;
    let snapshot = manifest.resolve(wanted)?;
    if json {
        print_json(&snapshot_json(snapshot))?;
        return Ok(Exit::Success);
    }
    let (meta, stats) = (&snapshot.meta, &snapshot.meta.stats);
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<13}{value}");
    };
    line("Name", render::plain(meta.name.as_bytes()));
    line("Id", snapshot.id.to_string());
    line("Begin", render::time(snapshot.time));
    line("End", render::stored_time(&meta.time_end));
    line("Host", render::plain(meta.hostname.as_bytes()));
    line("User", render::plain(meta.username.as_bytes()));
    line("Label", render::plain(snapshot.label().as_bytes()));
    if !meta.comment.is_empty() {
        line("Comment", render::plain(meta.comment.as_bytes()));
    }
    for path in &meta.source_paths {
        line("Path", render::plain(path.as_bytes()));
    }
    line("Files", stats.nfiles.to_string());
    line("Size", render::size(stats.original_size));
    line("Stored", render::size(stats.compressed_size));
    line("Added", render::size(stats.deduplicated_size));
    line("Errors", stats.errors.to_string());
    print(&out);
    Ok(Exit::Success)
}
