use std::fmt::Write as _;
use std::io::{BufWriter, Write};

use serde_json::{Map, Value, json};
use vykar_core::Event;
use vykar_core::format::{Item, ItemType};
use vykar_core::maintenance::{DeleteOptions, delete_snapshots};
use vykar_core::repository::MovingReader;
use vykar_core::repository::items::{Found, for_each_item};

use super::list::snapshot_json;
use super::{print, print_json, prune, stdout_failed};
use crate::args::{Global, SnapshotCommand};
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub fn run(global: &Global, command: SnapshotCommand) -> CliResult {
    match command {
        SnapshotCommand::List { snapshot, json } => list(global, &snapshot, json),
        SnapshotCommand::Delete { snapshots, dry_run, json } => delete(global, &snapshots, dry_run, json),
        SnapshotCommand::Info { snapshot, json } => info(global, &snapshot, json),
    }
}

fn delete(global: &Global, wanted: &[String], dry_run: bool, json: bool) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    // All of them before the first goes: `latest` is what it is now.
    let ids = wanted.iter().map(|wanted| manifest.resolve_id(wanted)).collect::<Result<Vec<_>, _>>()?;
    let options = DeleteOptions { dry_run, lock: context::lock_options(global) };
    let status = StatusLine::new(!global.quiet && !json);
    let mut listen = |event: Event| status.event(&event);
    let report = delete_snapshots(&repository, &ids, &options, Some(&mut listen))?;
    drop(status);
    if json {
        print_json(&prune::removal_json(&report, dry_run))?;
    } else if !global.quiet {
        print(&prune::removal_text(&report, dry_run));
    }
    Ok(Exit::Success)
}

fn info(global: &Global, wanted: &str, json: bool) -> CliResult {
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

fn list(global: &Global, wanted: &str, json: bool) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let snapshot = manifest.resolve(wanted)?;
    let reader = MovingReader::new(&repository)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut damaged = false;
    for_each_item(&reader, snapshot, &mut |found| {
        let written = match found {
            Found::Item(item) if json => writeln!(out, "{}", item_json(&item)),
            Found::Item(item) => writeln!(out, "{}", render::plain(item.path_bytes())),
            Found::Problem(problem) => {
                eprintln!("vykar: {}: left out: {problem}", render::plain(problem.path().as_bytes()));
                damaged = true;
                Ok(())
            }
            Found::Lost(reason) => {
                eprintln!("vykar: snapshot {}: {reason}", snapshot.id.short());
                damaged = true;
                Ok(())
            }
        };
        let goes_on = written.is_ok();
        written.unwrap_or_else(stdout_failed);
        Ok(goes_on)
    })?;
    out.flush().unwrap_or_else(stdout_failed);
    Ok(if damaged { Exit::Damaged } else { Exit::Success })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One item as JSON. `path` and `target` are for display; where they are not exact, `path_bytes`
/// and `target_bytes` hold the bytes in hex. Attribute values are always in hex.
fn item_json(item: &Item<'_>) -> Value {
    let kind = match item.kind {
        ItemType::RegularFile => "file",
        ItemType::Directory => "directory",
        ItemType::Symlink => "symlink",
    };
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    put("path", json!(item.path));
    put("type", json!(kind));
    put("mode", json!(item.permissions()));
    put("uid", json!(item.uid));
    put("gid", json!(item.gid));
    put("user", json!(item.user));
    put("group", json!(item.group));
    put("size", json!(item.size));
    put("mtime", json!(item.mtime));
    put("atime", json!(item.atime));
    put("ctime", json!(item.ctime));
    if let Some(target) = &item.link_target {
        put("target", json!(target));
    }
    if let Some(raw) = &item.raw_names {
        if let Some(path) = &raw.path {
            put("path_bytes", json!(hex(path)));
        }
        if let Some(target) = &raw.target {
            put("target_bytes", json!(hex(target)));
        }
    }
    if let Some(xattrs) = &item.xattrs {
        let values = xattrs.iter().map(|(name, value)| (name.to_string(), json!(hex(value))));
        put("xattrs", Value::Object(values.collect()));
    }
    if let Some((dev, ino)) = item.hardlink {
        put("hardlink", json!([dev, ino]));
    }
    Value::Object(map)
}
