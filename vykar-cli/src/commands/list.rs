use serde_json::json;
use vykar_core::VykarError;
use vykar_core::format::Snapshot;
use vykar_core::maintenance::SetAside;
use vykar_core::repository::{KeyKind, Manifest};

use super::{print, print_json};
use crate::args::{ListArgs, ResolvedOptions};
use crate::exit::{CliResult, Exit};
use crate::{context, render};

pub fn run(global: &ResolvedOptions, args: &ListArgs) -> CliResult {
    let repository = context::open(global)?;
    let mut manifest = repository.manifest()?;
    let folder = repository.backend().folder();
    let odd = folder.map_or(Ok(Vec::new()), |f| f.odd_entries("snapshots/")).map_err(VykarError::from)?;
    let there = manifest.snapshots.len();
    manifest.snapshots = args.filter.choose(manifest.snapshots, args.since);
    if args.json {
        let unreadable = |(id, cause): &(vykar_core::SnapshotId, vykar_core::error::ObjectError)| json!({ "id": id.to_string(), "newer": cause.is_newer(), "reason": cause.to_string() });
        print_json(&json!({
            "snapshots": manifest.snapshots.iter().map(snapshot_json).collect::<Vec<_>>(),
            "unreadable": manifest.unreadable.iter().map(unreadable).collect::<Vec<_>>(),
        }))?;
    } else {
        print(&text(&manifest, there));
    }
    let damaged = report_unreadable(&manifest) | report_odd(&odd);
    Ok(if damaged { Exit::Damaged } else { Exit::Success })
}

/// What repairs set aside.
pub fn damaged(global: &ResolvedOptions, json: bool) -> CliResult {
    let repository = context::open(global)?;
    let aside = SetAside::list(&repository)?;
    if json {
        let object = |a: &SetAside| {
            json!({
                "object": a.object,
                "key": a.key,
                "size": a.size,
                "set_aside": a.time,
                "reason": a.reason,
                "name": a.snapshot.as_ref().map(|meta| &meta.name),
                "time": a.snapshot.as_ref().map(|meta| &meta.time),
            })
        };
        print_json(&json!({ "damaged": aside.iter().map(object).collect::<Vec<_>>() }))?;
        return Ok(Exit::Success);
    }
    if aside.is_empty() {
        print("Nothing was set aside\n");
        return Ok(Exit::Success);
    }
    let row = |a: &SetAside| {
        let snapshot = a.snapshot.as_ref();
        vec![
            a.key.clone(),
            render::size(a.size),
            render::stored_time(&a.time),
            snapshot.map_or(String::new(), |meta| render::plain(meta.name.as_bytes())),
            snapshot.map_or(String::new(), |meta| render::stored_time(&meta.time)),
            render::plain(a.reason.as_bytes()),
        ]
    };
    let rows: Vec<_> = aside.iter().map(row).collect();
    print(&render::table(&["OBJECT", "SIZE", "SET ASIDE", "NAME", "TIME", "REASON"], &rows, &[1]));
    if !global.quiet {
        say!("these are files in the repository's folder; when nobody needs them any more, remove them");
    }
    Ok(Exit::Success)
}

/// Names the snapshots that cannot be used; true when one of them is damaged.
pub fn report_unreadable(manifest: &Manifest) -> bool {
    for (id, cause) in &manifest.unreadable {
        let what = if cause.is_newer() { "not supported" } else { "damaged" };
        say!("snapshot {}: {what}: {cause}", id.short());
    }
    manifest.unreadable.iter().any(|(_, cause)| !cause.is_newer())
}

/// Names what is in the place of a snapshot and is no file, so that no list has it; true when there is something.
fn report_odd(entries: &[String]) -> bool {
    let keys = entries.iter().map(|entry| entry.trim_end_matches('/'));
    let odd: Vec<_> = keys.filter(|key| *key == "snapshots" || KeyKind::of(key).is_some()).collect();
    odd.iter().for_each(|key| say!("{key}: not a file, and a snapshot belongs there"));
    !odd.is_empty()
}

/// A table of those that are left of so many.
fn text(manifest: &Manifest, there: usize) -> String {
    if manifest.snapshots.is_empty() {
        return match there {
            0 => "No snapshots\n".to_owned(),
            _ => format!("None of the {there} snapshots fits\n"),
        };
    }
    let row = |s: &Snapshot| {
        vec![
            render::plain(s.meta.name.as_bytes()),
            render::time(s.time),
            render::plain(s.meta.hostname.as_bytes()),
            render::plain(s.label().as_bytes()),
            s.meta.stats.nfiles.to_string(),
            render::size(s.meta.stats.original_size),
            render::plain(s.meta.source_paths.join(" ").as_bytes()),
        ]
    };
    let rows: Vec<_> = manifest.snapshots.iter().map(row).collect();
    render::table(&["NAME", "TIME", "HOST", "LABEL", "FILES", "SIZE", "PATHS"], &rows, &[4, 5])
}

/// One snapshot as JSON.
pub fn snapshot_json(s: &Snapshot) -> serde_json::Value {
    let stats = &s.meta.stats;
    json!({
        "name": s.meta.name,
        "id": s.id.to_string(),
        "time": s.meta.time,
        "time_end": s.meta.time_end,
        "hostname": s.meta.hostname,
        "username": s.meta.username,
        "label": s.label(),
        "comment": s.meta.comment,
        "paths": s.meta.source_paths,
        "files": stats.nfiles,
        "size": stats.original_size,
        "compressed_size": stats.compressed_size,
        "deduplicated_size": stats.deduplicated_size,
        "errors": stats.errors,
    })
}
