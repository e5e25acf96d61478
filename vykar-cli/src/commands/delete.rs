use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;
use vykar_core::Event;
use vykar_core::maintenance::{Remains, RepositoryContents, WholeReport, delete_repository};
use vykar_core::repository::{Manifest, Repository};
use vykar_core::storage::Backend;
use vykar_core::text::first_few;

use super::{print, print_json};
use crate::args::ResolvedOptions;
use crate::confirm::ask;
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

/// Names of other things in the folder that are listed; more are counted.
const MAX_NAMES: usize = 10;
const REMAINS: &str =
    "no repository any more: its deletion was cut off, and a lock or empty folders are left";

pub struct DeleteRequest {
    pub confirm: Option<String>,
    pub dry_run: bool,
    pub json: bool,
}

pub fn run(global: &ResolvedOptions, request: &DeleteRequest) -> CliResult {
    let backend = context::backend(global, &Arc::default())?;
    if let Some(remains) = Remains::of(backend.as_ref())? {
        return run_remains(global, request, backend.as_ref(), &remains);
    }
    let repository = context::open_to_delete(global)?;
    let contents = RepositoryContents::of(&repository)?;
    let manifest = repository.manifest()?;
    if request.dry_run {
        match request.json {
            true => print_json(&plan_json(&repository, &contents))?,
            false => print(&description(&repository, &manifest, &contents)),
        }
        return Ok(Exit::Success);
    }
    let url = repository.backend().url();
    confirm(global, url, request, || description(&repository, &manifest, &contents))?;
    let status = StatusLine::of(global, request.json);
    let mut listen = |event: Event| status.event(&event);
    let lock = context::lock_to_the_end(global)?;
    let report = delete_repository(&repository, &contents, &lock, Some(&mut listen))?;
    drop(status);
    if request.json {
        let id = repository.config().id.to_string();
        print_json(&report_json(url, Some(id), false, &report))?;
    } else if !global.quiet {
        print(&report_text(url, &report));
    }
    Ok(Exit::Success)
}

/// Ends a deletion that was cut off when it was no repository any more.
fn run_remains(
    global: &ResolvedOptions,
    request: &DeleteRequest,
    backend: &dyn Backend,
    remains: &Remains,
) -> CliResult {
    let url = backend.url();
    let description = || format!("{}: {REMAINS}\n", render::plain(url.as_bytes()));
    if request.dry_run {
        match request.json {
            true => print_json(&report_json(url, None, true, &remains.plan()))?,
            false => print(&description()),
        }
        return Ok(Exit::Success);
    }
    confirm(global, url, request, description)?;
    let report = remains.delete(backend)?;
    if request.json {
        print_json(&report_json(url, None, false, &report))?;
    } else if !global.quiet {
        print(&report_text(url, &report));
    }
    Ok(Exit::Success)
}

/// Returns when somebody has given the repository's path, or its label in the configuration, and fails otherwise.
fn confirm(
    global: &ResolvedOptions,
    url: &str,
    request: &DeleteRequest,
    description: impl FnOnce() -> String,
) -> CliResult<()> {
    let shown = render::plain(url.as_bytes());
    let label = global.plan.as_ref().and_then(|plan| plan.label.as_deref());
    let is_it = |text: &str| text == url || text == shown || Some(text) == label;
    match &request.confirm {
        Some(path) if is_it(path) => Ok(()),
        Some(path) => {
            let message = format!(
                "{}: not the path of the repository, so nothing was deleted",
                render::plain(path.as_bytes())
            );
            Err(CliError::new(Exit::Usage, message).hint(format!("its path is {shown}")))
        }
        // What is to be deleted would not be shown.
        None if request.json => Err(CliError::new(Exit::Usage, "nothing was deleted: --json asks nothing")
            .hint(format!("give --confirm {shown} as well"))),
        None => {
            print(&description());
            let typed = ask("Type the path of the repository to delete it for good: ", "--confirm PATH")?;
            match is_it(&typed) {
                true => Ok(()),
                false => Err(CliError::new(Exit::Failure, "that is not its path, so nothing was deleted")),
            }
        }
    }
}

/// What there is to lose.
fn description(repository: &Repository, manifest: &Manifest, contents: &RepositoryContents) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<13}{value}");
    };
    line("Repository", render::plain(repository.backend().url().as_bytes()));
    line("Id", repository.config().id.to_string());
    line("Made", render::stored_time(&repository.config().created));
    let unreadable = match manifest.unreadable.len() {
        0 => String::new(),
        n => format!(", {n} of them cannot be read"),
    };
    line("Snapshots", format!("{}{unreadable}", contents.snapshots.len()));
    if let (Some(oldest), Some(newest)) = (manifest.snapshots.first(), manifest.snapshots.last()) {
        line("Oldest", render::time(oldest.time));
        line("Newest", render::time(newest.time));
    }
    let hosts: BTreeSet<_> = manifest.snapshots.iter().map(|s| s.meta.hostname.as_str()).collect();
    let labels: BTreeSet<_> = manifest.snapshots.iter().map(|s| s.label()).collect();
    for (name, values) in [("Hosts", hosts), ("Labels", labels)] {
        if !values.is_empty() {
            line(name, names(&values.into_iter().collect::<Vec<_>>()));
        }
    }
    line("Size", format!("{} in {} objects", render::size(contents.bytes()), contents.objects.len()));
    if !contents.others.is_empty() {
        line("What stays", format!("{} (not the repository's)", names(&contents.others)));
    }
    out
}

/// The first of them, and how many more there are.
fn names(all: &[impl AsRef<str>]) -> String {
    first_few(all.iter().map(|name| render::plain(name.as_ref().as_bytes())), MAX_NAMES, ", ")
}

fn report_text(url: &str, report: &WholeReport) -> String {
    let url = render::plain(url.as_bytes());
    let (snapshots, objects, size) = (report.snapshots, report.objects, render::size(report.bytes));
    let mut out = format!("Deleted {url}: {snapshots} snapshots, {objects} objects, {size}\n");
    if !report.left.is_empty() {
        let _ = writeln!(out, "Left there: {}", names(&report.left));
    } else if !report.place_is_gone {
        out.push_str("Its folder is empty, and could not be removed\n");
    }
    out
}

fn plan_json(repository: &Repository, contents: &RepositoryContents) -> serde_json::Value {
    json!({
        "dry_run": true,
        "url": repository.backend().url(),
        "id": repository.config().id.to_string(),
        "snapshots": contents.snapshots.len(),
        "objects": contents.objects.len() + contents.leftovers.len(),
        "bytes": contents.bytes(),
        "left": contents.others,
    })
}

/// Without an id, of what is no repository any more.
fn report_json(url: &str, id: Option<String>, dry_run: bool, report: &WholeReport) -> serde_json::Value {
    json!({
        "dry_run": dry_run,
        "url": url,
        "id": id,
        "snapshots": report.snapshots,
        "objects": report.objects,
        "bytes": report.bytes,
        "left": report.left,
        "folder_removed": report.place_is_gone,
    })
}
