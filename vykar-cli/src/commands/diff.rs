//! `snapshot diff`: what is different between two snapshots.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use vykar_core::format::path::plain;
use vykar_core::inspect::{Aspect, Change, ChangeKind, DiffReport, DiffSummary, Facts, diff};
use vykar_core::repository::RefreshingReader;

use super::items::{kind_name, put_path};
use super::{print, print_json};
use crate::args::ResolvedOptions;
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub struct DiffRequest {
    pub before: String,
    pub after: String,
    pub path: Option<PathBuf>,
    pub json: bool,
}

pub fn run(global: &ResolvedOptions, request: &DiffRequest) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let snapshots = (manifest.resolve(&request.before)?, manifest.resolve(&request.after)?);
    let top = request.path.as_ref().map(|path| plain(path.as_os_str().as_bytes())).unwrap_or_default();
    let reader = RefreshingReader::new(&repository)?;
    let status = StatusLine::of(global, request.json);
    let report = diff(&reader, snapshots, &top, Some(&mut |event| status.event(&event)))?;
    drop(status);
    let exit = Exit::of_reading(report.complete, report.out_of_reach);
    if !report.complete {
        say!("what could not be read there looks as if it were missing");
    }
    if !report.met && !top.is_empty() {
        let exit = if report.complete { Exit::Failure } else { exit };
        return Err(CliError::new(exit, format!("{}: in neither snapshot", render::plain(&top))));
    }
    match request.json {
        true => print_json(&report_json(&report))?,
        false => print(&text(&report)),
    }
    Ok(exit)
}

fn text(report: &DiffReport) -> String {
    let mut out = String::new();
    for change in &report.changes {
        let path = match &change.path[..] {
            b"" => ".".to_owned(),
            path => render::plain(path),
        };
        let (letter, detail) = line(change);
        let _ = match detail.is_empty() {
            true => writeln!(out, "{letter} {path}"),
            false => writeln!(out, "{letter} {path} ({detail})"),
        };
    }
    out + &summary(&report.summary)
}

/// The letter of a change, and what else there is to say.
fn line(change: &Change) -> (char, String) {
    let both = |show: &dyn Fn(&Facts) -> String| {
        let sides = [&change.before, &change.after].map(|facts| facts.as_ref().map(show).unwrap_or_default());
        sides.join(" -> ")
    };
    let mut details = Vec::new();
    let letter = match change.kind() {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Type => {
            details.push(both(&|facts| kind_name(facts.kind).to_owned()));
            'T'
        }
        ChangeKind::Content => {
            details.push(both(&|facts| render::size(facts.size)));
            'M'
        }
        ChangeKind::Metadata => 'm',
    };
    // Other content has another time, as a rule.
    let skip = |aspect: &Aspect| match change.kind() {
        ChangeKind::Metadata => false,
        _ => matches!(aspect, Aspect::Type | Aspect::Content | Aspect::Mtime),
    };
    details.extend(change.differences().iter().filter(|aspect| !skip(aspect)).map(ToString::to_string));
    (letter, details.join(", "))
}

fn summary(s: &DiffSummary) -> String {
    let size = render::size;
    let both = |(before, after)| format!("{} -> {}", size(before), size(after));
    format!(
        "{} added ({}), {} removed ({}), {} of another type ({})\n\
         {} with other content ({}), {} with other metadata only, {} unchanged\n",
        s.added,
        size(s.added_bytes),
        s.removed,
        size(s.removed_bytes),
        s.types,
        both(s.type_bytes),
        s.content,
        both(s.content_bytes),
        s.metadata,
        s.unchanged
    )
}

fn report_json(report: &DiffReport) -> Value {
    let s = &report.summary;
    json!({
        "changes": report.changes.iter().map(change_json).collect::<Vec<_>>(),
        "summary": {
            "added": s.added,
            "removed": s.removed,
            "type": s.types,
            "content": s.content,
            "metadata": s.metadata,
            "unchanged": s.unchanged,
            "added_bytes": s.added_bytes,
            "removed_bytes": s.removed_bytes,
            "type_bytes_before": s.type_bytes.0,
            "type_bytes_after": s.type_bytes.1,
            "content_bytes_before": s.content_bytes.0,
            "content_bytes_after": s.content_bytes.1,
        },
    })
}

fn change_json(change: &Change) -> Value {
    let kind = match change.kind() {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Type => "type",
        ChangeKind::Content => "content",
        ChangeKind::Metadata => "metadata",
    };
    let facts = |facts: &Option<Facts>| {
        facts.as_ref().map(|f| json!({ "type": kind_name(f.kind), "size": f.size, "mtime": f.mtime }))
    };
    let mut map = Map::new();
    put_path(&mut map, "path", &change.path);
    map.insert("change".into(), json!(kind));
    map.insert("differs".into(), change.differences().iter().map(ToString::to_string).collect());
    map.insert("before".into(), json!(facts(&change.before)));
    map.insert("after".into(), json!(facts(&change.after)));
    Value::Object(map)
}
