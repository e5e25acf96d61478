use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use vykar_core::Event;
use vykar_core::backup::{BackupOptions, BackupSummary, backup};
use vykar_core::codec::Compression;
use vykar_core::stage::{STAGES, Stage};

use super::{print, print_json};
use crate::args::Global;
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub struct Request {
    pub paths: Vec<PathBuf>,
    pub label: Option<String>,
    pub comment: String,
    pub compression: Compression,
    pub stats: bool,
    pub json: bool,
}

pub fn run(global: &Global, request: Request) -> CliResult {
    let began = Instant::now();
    let cancel = Arc::default();
    let repository = context::open_until(global, &cancel)?;
    context::cancel_on_signals(&cancel)?;
    let status = StatusLine::new(!global.quiet && !request.json);
    let options = BackupOptions {
        label: request.label,
        comment: request.comment,
        compression: request.compression,
        threads: global.threads,
        estimate: status.is_shown(),
        lock: context::lock_options(global),
        cancel,
        ..BackupOptions::new(request.paths)
    };
    let opened = began.elapsed();
    let began = Instant::now();
    let mut listen = |event: Event| status.event(&event);
    let summary = backup(&repository, &options, Some(&mut listen))?;
    drop(status);
    let seconds = began.elapsed().as_secs_f64();
    let times = request.stats.then(|| times(&summary, opened));
    if request.json {
        let mut json = summary_json(&summary, seconds);
        if let Some(times) = times {
            json["stages"] =
                times.into_iter().map(|(name, time)| (name, json!(time.as_secs_f64()))).collect();
        }
        print_json(&json)?;
    } else if !global.quiet {
        print(&summary_text(&summary, seconds));
        times.into_iter().for_each(|times| print(&times_text(&times)));
    }
    let (errors, changed) = (summary.meta.stats.errors, summary.changed_while_read);
    if errors > 0 {
        eprintln!("vykar: {errors} path(s) could not be stored; the snapshot holds everything else");
    }
    if changed > 0 {
        eprintln!("vykar: {changed} file(s) changed while they were read");
    }
    Ok(if summary.is_complete() { Exit::Success } else { Exit::Partial })
}

fn summary_text(s: &BackupSummary, seconds: f64) -> String {
    let stats = &s.meta.stats;
    format!(
        "Snapshot {} ({}), label {}\n\
         Files: {} ({} new, {} changed, {} unchanged), {} directories, {} symlinks\n\
         Size:  {}, {}{} deduplicated\n\
         Added: {}, stored as {}{}\n\
         Time:  {seconds:.2} s\n",
        s.meta.name,
        s.id.short(),
        render::plain(s.meta.source_label.as_bytes()),
        stats.nfiles,
        s.new,
        s.changed,
        s.unchanged,
        s.directories,
        s.symlinks,
        render::size(stats.original_size),
        render::size(s.deduplicated()),
        share(s.deduplicated(), stats.original_size),
        render::size(s.added),
        render::size(s.added_stored),
        share(s.added_stored, s.added),
    )
}

/// Time spent opening the repository, and in each stage of the backup.
fn times(summary: &BackupSummary, opened: Duration) -> Vec<(String, Duration)> {
    let stage = |stage: Stage| (stage.name().to_owned(), summary.stages.get(stage));
    std::iter::once(("open".to_owned(), opened)).chain(STAGES.into_iter().map(stage)).collect()
}

fn times_text(times: &[(String, Duration)]) -> String {
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    let row = |(name, time): &(String, Duration)| {
        let share = time.as_secs_f64() * 100.0 / total.as_secs_f64().max(f64::MIN_POSITIVE);
        vec![name.clone(), format!("{:.3}", time.as_secs_f64()), format!("{share:.1}%")]
    };
    let rows: Vec<Vec<String>> = times.iter().map(row).collect();
    format!("\n{}", render::table(&["Stage", "Seconds", "Share"], &rows, &[1, 2]))
}

/// A part in percent of a whole, in brackets; nothing of nothing.
fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => String::new(),
        _ => format!(" ({:.1}%)", part as f64 * 100.0 / whole as f64),
    }
}

fn summary_json(s: &BackupSummary, seconds: f64) -> serde_json::Value {
    let ratio = (s.added > 0).then(|| s.added_stored as f64 / s.added as f64);
    json!({
        "name": s.meta.name,
        "id": s.id.to_string(),
        "time": s.meta.time,
        "time_end": s.meta.time_end,
        "label": s.meta.source_label,
        "files": {
            "total": s.meta.stats.nfiles,
            "new": s.new,
            "changed": s.changed,
            "unchanged": s.unchanged,
        },
        "directories": s.directories,
        "symlinks": s.symlinks,
        "size": s.meta.stats.original_size,
        "added": s.added,
        "added_stored": s.added_stored,
        "ratio": ratio,
        "deduplicated": s.deduplicated(),
        "seconds": seconds,
        "errors": s.meta.stats.errors,
        "changed_while_read": s.changed_while_read,
    })
}
