//! Storing paths, or the sources of the configuration.

mod choose;

use std::time::{Duration, Instant};

use serde_json::json;
use vykar_core::backup::{BackupOptions, BackupSummary, Preview, backup, preview};
use vykar_core::stage::{STAGES, Stage};
use vykar_core::{Event, Planned};

use self::choose::BackupJob;
use super::{both, print, print_json};
use crate::args::{BackupArgs, ResolvedOptions};
use crate::config::Around;
use crate::exit::{CliResult, Exit};
use crate::hooks;
use crate::hooks::HookFacts;
use crate::progress::StatusLine;
use crate::{context, metrics, render, say};

/// Stores what is asked for, each source as a snapshot, between the hooks of the configuration.
pub fn run(global: &ResolvedOptions, args: &BackupArgs) -> CliResult {
    let jobs = choose::jobs(global, args)?;
    let all = || {
        let mut all = Ok(Exit::Success);
        for job in &jobs {
            let one = match args.dry_run {
                true => one(global, args, job),
                false => hooks::around(&job.hooks, &told(global, job), || one(global, args, job)),
            };
            // What is wrong with one source keeps no other from being stored.
            let ends = one.as_ref().is_err_and(|e| e.exit() != Exit::Failure);
            all = both(all, one);
            if ends {
                break;
            }
        }
        all
    };
    match args.dry_run {
        true => all(),
        false => hooks::configured(Around::Backup, global, all),
    }
}

/// What the hooks of a source are told.
fn told(global: &ResolvedOptions, job: &BackupJob) -> HookFacts {
    let path = job.paths.first().map(|path| path.to_string_lossy().into_owned());
    HookFacts {
        source_label: job.label.clone().unwrap_or_default(),
        source_path: path.unwrap_or_default(),
        ..HookFacts::of(Around::Backup, global)
    }
}

/// One snapshot.
fn one(global: &ResolvedOptions, args: &BackupArgs, job: &BackupJob) -> CliResult {
    let began = Instant::now();
    let cancel = context::interrupts();
    let repository = context::open_until(global, &cancel)?;
    context::cancel_on_signals()?;
    let status = match args.dry_run {
        true => StatusLine::new(false),
        false => StatusLine::of(global, args.json),
    };
    let options = BackupOptions {
        streams: job.streams(),
        label: job.label.clone(),
        hostname: global.plan.as_ref().and_then(|plan| plan.hostname.clone()),
        comment: args.comment.clone(),
        compression: choose::compression(global, args),
        xattrs: job.options.xattrs,
        excludes: job.options.excludes.clone(),
        report_excluded: args.dry_run || global.verbose > 0,
        report_stored: global.verbose > 1,
        reread: args.force,
        threads: global.threads,
        estimate: status.is_shown(),
        lock: context::lock_options(global),
        cancel,
        follow_sources: args.follow_paths,
        ..BackupOptions::new(job.paths.clone())
    };
    if args.dry_run {
        let found = preview(&repository, &options, Some(&mut |event| show_planned(&event, args.json)))?;
        return finish_preview(&found, args.json);
    }
    let opened = began.elapsed();
    let began = Instant::now();
    let mut listen = |event: Event| match &event {
        Event::Stored { .. } | Event::Excluded { .. } => status.suspend(|| say::bare(&entry_line(&event))),
        _ => status.event(&event),
    };
    let summary = backup(&repository, &options, Some(&mut listen))?;
    drop(status);
    metrics::backup(global, &summary);
    let seconds = began.elapsed().as_secs_f64();
    let times = args.stats.then(|| times(&summary, opened));
    if args.json {
        let mut json = summary_json(&summary, seconds);
        json["repository"] = json!(global.name());
        json["missing_paths"] = json!(job.missing);
        if let Some(times) = times {
            json["stages"] =
                times.into_iter().map(|(name, time)| (name, json!(time.as_secs_f64()))).collect();
        }
        print_json(&json)?;
    } else if !global.quiet {
        print(&summary_text(&summary, seconds));
        times.into_iter().for_each(|times| print(&times_text(&times)));
    }
    if job.missing > 0 {
        global.problems.note(&format!("{} listed path(s) do not exist", job.missing));
    }
    let (errors, changed) = (summary.meta.stats.errors, summary.changed_while_read);
    if errors > 0 {
        say!("{errors} path(s) could not be stored; the snapshot holds everything else");
    }
    if changed > 0 {
        say!("{changed} file(s) changed while they were read");
    }
    Ok(if summary.is_complete() && job.missing == 0 { Exit::Success } else { Exit::Partial })
}

/// A line for each path of a preview: + new, M changed, = unchanged, d, l and s for directories, symlinks and special
/// files, | for what programs hand over, x for what is left out.
fn show_planned(event: &Event, json: bool) {
    let (sign, name, path, size, why) = match event {
        Event::Planned { path, what, size } => {
            let (sign, name) = match what {
                Planned::New => ('+', "new"),
                Planned::Changed => ('M', "changed"),
                Planned::Unchanged => ('=', "unchanged"),
                Planned::Directory => ('d', "directory"),
                Planned::Symlink => ('l', "symlink"),
                Planned::Special => ('s', "special"),
                Planned::Stream => ('|', "stream"),
            };
            (sign, name, path, Some(*size), None)
        }
        Event::Excluded { path, why } => ('x', "excluded", path, None, Some(why.to_string())),
        Event::Skipped { path, reason } => ('x', "excluded", path, None, Some(reason.clone())),
        other => return render::event(other),
    };
    match (json, why) {
        (true, why) => {
            let line = json!({ "path": path.to_string_lossy(), "action": name, "size": size, "reason": why });
            say::print_raw(&format!("{line}\n"));
        }
        (false, Some(why)) => {
            print(&format!("{sign} {}  ({})\n", render::path(path), render::plain(why.as_bytes())));
        }
        (false, None) => print(&format!("{sign} {}\n", render::path(path))),
    }
}

/// A file that was stored, or an entry that was left out, as a line of `-v`.
fn entry_line(event: &Event) -> String {
    match event {
        Event::Stored { path, what, size } => {
            let sign = if *what == Planned::New { '+' } else { 'M' };
            format!("{sign} {}  {}", render::path(path), render::size(*size))
        }
        Event::Excluded { path, why } => {
            format!("x {}  ({})", render::path(path), render::plain(why.to_string().as_bytes()))
        }
        _ => String::new(),
    }
}

fn finish_preview(found: &Preview, json: bool) -> CliResult {
    let Preview { new, changed, unchanged, directories, symlinks, .. } = *found;
    if !json {
        print(&format!(
            "Would store {} files ({}; {new} new, {changed} changed, {unchanged} unchanged), {directories} \
             directories, {symlinks} symlinks; {} left out\n\
             Would read {}; nothing was stored\n",
            new + changed + unchanged,
            render::size(found.bytes),
            found.excluded,
            render::size(found.bytes_to_read),
        ));
    }
    Ok(if found.errors == 0 { Exit::Success } else { Exit::Partial })
}

fn summary_text(s: &BackupSummary, seconds: f64) -> String {
    let stats = &s.meta.stats;
    let special = match s.special {
        0 => String::new(),
        n => format!(", {n} special"),
    };
    let left_out = match s.excluded {
        0 => String::new(),
        n => format!("Left out: {n} (`vykar backup --dry-run` says what and why)\n"),
    };
    format!(
        "Snapshot {} ({}), label {}\n\
         Files: {} ({} new, {} changed, {} unchanged), {} directories, {} symlinks{special}\n\
         Size:  {}, {}{} deduplicated\n\
         Added: {}, stored as {}{}\n{left_out}\
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
        "excluded": s.excluded,
        "directories": s.directories,
        "symlinks": s.symlinks,
        "special": s.special,
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
