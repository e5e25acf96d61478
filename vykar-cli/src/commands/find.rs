//! `snapshot find`: what became of paths from snapshot to snapshot.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use vykar_core::format::{ItemType, Snapshot};
use vykar_core::inspect::{FindOptions, FindReport, FoundPath, PathState, PathVersion, Pattern, find};
use vykar_core::repository::RefreshingReader;
use vykar_core::repository::read::path_hint::meant;

use super::items::{kind_name, put_path};
use super::list::report_unreadable;
use super::print_json;
use crate::args::{FindArgs, ResolvedOptions, TypeArg};
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render, say};

pub fn run(global: &ResolvedOptions, args: &FindArgs) -> CliResult {
    let place = args.place.as_ref().map(|place| place.as_bytes()).unwrap_or_default();
    let options = FindOptions {
        pattern: Pattern::new(place, &args.name, &args.iname)?,
        kind: args.kind.map(TypeArg::item_type),
        larger: args.larger,
        smaller: args.smaller,
        since: args.since.map(nanoseconds),
    };
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let mut damaged = report_unreadable(&manifest);
    let snapshots = args.filter.choose(manifest.snapshots, None);
    let reader = RefreshingReader::new(&repository)?;
    let status = StatusLine::of(global, args.json);
    let report = find(&reader, &snapshots, &options, Some(&mut |event| status.event(&event)))?;
    drop(status);
    damaged |= !report.complete;
    if args.json {
        print_json(&Json { report: &report, snapshots: &snapshots })?;
    } else {
        // One at a time: together they may take gigabytes.
        say::print_each(report.paths().map(|found| text(&report, &found, &snapshots)));
        if report.is_empty() && !global.quiet {
            say!("nothing found");
            let wanted = [place.to_vec()];
            let newest = snapshots.iter().max_by_key(|snapshot| snapshot.time);
            let there = newest.filter(|_| !is_pattern(place)).map(|newest| meant(&reader, newest, &wanted));
            if let Some(there) = there.transpose()?.and_then(|mut meant| meant.remove(place)) {
                say::hint(&format!("did you mean {}?", render::plain(&there)));
            } else if is_name(place) {
                let name = render::plain(place);
                say::hint(&format!(
                    "a path begins at the top of a snapshot; for a name in any folder: --name {name}"
                ));
            }
        }
    }
    Ok(Exit::of_reading(!damaged, report.out_of_reach))
}

/// True for a pattern of paths, and for no path.
fn is_pattern(place: &[u8]) -> bool {
    place.is_empty() || place.iter().any(|c| b"*?[".contains(c))
}

/// True for what may have been meant as a name.
fn is_name(place: &[u8]) -> bool {
    !is_pattern(place) && !place.contains(&b'/')
}

/// Nanoseconds since the epoch, within what a snapshot can hold.
fn nanoseconds(time: Timestamp) -> i64 {
    let exact = time.as_nanosecond();
    i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
}

impl TypeArg {
    fn item_type(self) -> ItemType {
        match self {
            TypeArg::File => ItemType::RegularFile,
            TypeArg::Directory => ItemType::Directory,
            TypeArg::Symlink => ItemType::Symlink,
        }
    }
}

/// The snapshot that stands at a position of a path's series.
fn at<'s>(report: &FindReport, found: &FoundPath, position: usize, all: &'s [Snapshot]) -> &'s Snapshot {
    &all[report.series[found.series].snapshots[position]]
}

fn text(report: &FindReport, found: &FoundPath, snapshots: &[Snapshot]) -> String {
    let mut out = render::plain(&found.path);
    if let (2.., Some(version)) = (report.series.len(), found.versions.first()) {
        let _ = write!(out, "  ({})", origin(at(report, found, version.first, snapshots)));
    }
    out.push('\n');
    let snapshot = |position| at(report, found, position, snapshots);
    let rows: Vec<_> = found.versions.iter().flat_map(|version| rows(version, &snapshot)).collect();
    for line in render::rows(&rows, &[3]).lines() {
        let _ = writeln!(out, "  {line}");
    }
    out
}

/// Host, label and paths of a snapshot.
fn origin(snapshot: &Snapshot) -> String {
    let meta = &snapshot.meta;
    render::plain([&*meta.hostname, snapshot.label(), &meta.source_paths.join(" ")].join(", ").as_bytes())
}

/// One row for the first snapshot, and one for all others, which are unchanged.
fn rows<'s>(version: &PathVersion, snapshot: &impl Fn(usize) -> &'s Snapshot) -> Vec<Vec<String>> {
    let row = |position: usize, what: String, facts: bool| {
        let snapshot = snapshot(position);
        let facts = version.facts.as_ref().filter(|_| facts);
        let size = facts.map(|facts| match facts.kind {
            ItemType::RegularFile => render::size(facts.size),
            other => kind_name(other).to_owned(),
        });
        vec![
            render::plain(snapshot.meta.name.as_bytes()),
            render::time(snapshot.time),
            what,
            size.unwrap_or_default(),
            facts.map(|facts| render::nanoseconds(facts.mtime)).unwrap_or_default(),
        ]
    };
    let further = version.last - version.first;
    let same = |first: usize, more: usize| match more {
        0 => row(first, "unchanged".into(), false),
        more => {
            let last = render::plain(snapshot(version.last).meta.name.as_bytes());
            row(first, format!("unchanged, and in {more} more up to {last}"), false)
        }
    };
    let what = match &version.state {
        PathState::Added => "added".to_owned(),
        PathState::Removed => "removed".to_owned(),
        PathState::Unchanged => return vec![same(version.first, further)],
        PathState::Changed(aspects) => {
            let aspects: Vec<_> = aspects.iter().map(ToString::to_string).collect();
            format!("changed ({})", aspects.join(", "))
        }
    };
    let mut rows = vec![row(version.first, what, true)];
    if further > 0 {
        rows.push(same(version.first + 1, further - 1));
    }
    rows
}

/// What was found, made one path at a time while it is written.
struct Json<'r> {
    report: &'r FindReport,
    snapshots: &'r [Snapshot],
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Files<'j, 'r>(&'j Json<'r>);
        impl Serialize for Files<'_, '_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.report.paths().map(|found| self.0.file(&found)))
            }
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("files", &Files(self))?;
        map.end()
    }
}

impl Json<'_> {
    fn file(&self, found: &FoundPath) -> Value {
        let snapshot = |position| at(self.report, found, position, self.snapshots);
        let mut map = Map::new();
        put_path(&mut map, "path", &found.path);
        if let Some(version) = found.versions.first() {
            let first = snapshot(version.first);
            map.insert("hostname".into(), json!(first.meta.hostname));
            map.insert("label".into(), json!(first.label()));
        }
        let versions = found.versions.iter().flat_map(|version| {
            (version.first..=version.last)
                .map(move |position| version_json(version, position, snapshot(position)))
        });
        map.insert("versions".into(), versions.collect());
        Value::Object(map)
    }
}

fn version_json(version: &PathVersion, position: usize, snapshot: &Snapshot) -> Value {
    let status = match &version.state {
        _ if position > version.first => "unchanged",
        PathState::Added => "added",
        PathState::Changed(_) => "changed",
        PathState::Unchanged => "unchanged",
        PathState::Removed => "removed",
    };
    let facts = version.facts.as_ref();
    let mut json = json!({
        "snapshot": snapshot.meta.name,
        "id": snapshot.id.to_string(),
        "time": snapshot.meta.time,
        "status": status,
        "type": facts.map(|facts| kind_name(facts.kind)),
        "size": facts.map(|facts| facts.size),
        "mtime": facts.map(|facts| facts.mtime),
    });
    if let (PathState::Changed(aspects), "changed") = (&version.state, status) {
        json["changed"] = aspects.iter().map(ToString::to_string).collect();
    }
    json
}
