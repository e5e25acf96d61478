//! What happened, for the text file collector of Prometheus' node_exporter.
//!
//! The file holds one series for each repository and command, and for each source of a backup. A run replaces its own
//! and keeps the others, so that one file serves all repositories and commands of a machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use vykar_core::backup::BackupSummary;

use crate::args::ResolvedOptions;
use crate::exit::CliResult;
use crate::render;

/// Names, and what they mean.
const HELP: [(&str, &str); 10] = [
    ("vykar_last_run_timestamp_seconds", "When the command ended last."),
    ("vykar_last_success_timestamp_seconds", "When the command ended last with exit code 0."),
    ("vykar_last_exit_code", "Its exit code: see the table in the documentation."),
    ("vykar_last_duration_seconds", "How long it took."),
    ("vykar_backup_files", "Regular files in the newest snapshot of the source."),
    ("vykar_backup_bytes", "Bytes of these files."),
    ("vykar_backup_added_bytes", "Bytes of them that were new to the repository."),
    ("vykar_backup_stored_bytes", "The same, compressed and encrypted."),
    ("vykar_backup_errors", "Paths that could not be stored."),
    ("vykar_backup_excluded", "Entries that were left out by rules."),
];
/// Largest file that is read as metrics, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Values by name and labels.
#[derive(Debug, Default, PartialEq)]
struct MetricSeries(BTreeMap<(String, String), String>);

impl MetricSeries {
    /// Reads what [`MetricSeries::text`] wrote; anything else is left out.
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (left, value) = line.rsplit_once(' ')?;
            let (name, labels) = left.strip_suffix('}')?.split_once('{')?;
            let known = HELP.iter().any(|(known, _)| *known == name);
            (known && value.parse::<f64>().is_ok())
                .then(|| ((name.to_owned(), labels.to_owned()), value.to_owned()))
        };
        MetricSeries(text.lines().filter_map(line).collect())
    }

    fn set(&mut self, name: &str, labels: &str, value: impl ToString) {
        self.0.insert((name.to_owned(), labels.to_owned()), value.to_string());
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, help) in HELP {
            let mut values = self.0.iter().filter(|((n, _), _)| n == name).peekable();
            if values.peek().is_some() {
                out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
            }
            for ((_, labels), value) in values {
                out.push_str(&format!("{name}{{{labels}}} {value}\n"));
            }
        }
        out
    }
}

/// `name="value"` with commas between them.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    pairs.join(",")
}

/// Runs a command, and writes down how it went where that is asked for.
pub fn timed(global: &ResolvedOptions, command: &str, run: impl FnOnce() -> CliResult) -> CliResult {
    let Some(path) = &global.metrics_file else { return run() };
    let began = Instant::now();
    let result = run();
    let code = result.as_ref().map_or_else(|e| e.exit() as u8, |exit| *exit as u8);
    let labels = labels(&[("repository", &global.name()), ("command", command)]);
    let now = vykar_core::clock::now().as_second();
    update(path, |series| {
        series.set("vykar_last_run_timestamp_seconds", &labels, now);
        series.set("vykar_last_exit_code", &labels, code);
        series.set("vykar_last_duration_seconds", &labels, format!("{:.3}", began.elapsed().as_secs_f64()));
        if code == 0 {
            series.set("vykar_last_success_timestamp_seconds", &labels, now);
        }
    });
    result
}

/// Writes down what a backup stored.
pub fn backup(global: &ResolvedOptions, summary: &BackupSummary) {
    let Some(path) = &global.metrics_file else { return };
    let labels = labels(&[("repository", &global.name()), ("source", &summary.meta.source_label)]);
    let stats = &summary.meta.stats;
    update(path, |series| {
        series.set("vykar_backup_files", &labels, stats.nfiles);
        series.set("vykar_backup_bytes", &labels, stats.original_size);
        series.set("vykar_backup_added_bytes", &labels, summary.added);
        series.set("vykar_backup_stored_bytes", &labels, summary.added_stored);
        series.set("vykar_backup_errors", &labels, stats.errors);
        series.set("vykar_backup_excluded", &labels, summary.excluded);
    });
}

/// Changes the file; its readers see the old or the new one. What goes wrong is said, and fails nothing.
fn update(path: &Path, change: impl FnOnce(&mut MetricSeries)) {
    if let Err(e) = try_update(path, change) {
        say!("--metrics-file {}: {e}", render::path(path));
    }
}

fn try_update(path: &Path, change: impl FnOnce(&mut MetricSeries)) -> std::io::Result<()> {
    use std::io::Read;
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => drop(file.take(MAX_FILE).read_to_string(&mut text)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut series = MetricSeries::parse(&text);
    change(&mut series);
    // In the same folder, so that it can take the place of the old one; not *.prom, which would be collected.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // Whoever collects it is another user, mostly; nobody else writes it, whatever the umask says.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(series.text().as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_its_own_series_and_keeps_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vykar.prom");
        let one = labels(&[("repository", "a \"b\"\\"), ("command", "backup")]);
        let other = labels(&[("repository", "c"), ("command", "check")]);
        try_update(&path, |s| s.set("vykar_last_exit_code", &one, 3)).unwrap();
        try_update(&path, |s| s.set("vykar_last_exit_code", &other, 0)).unwrap();
        try_update(&path, |s| s.set("vykar_last_exit_code", &one, 0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# HELP vykar_last_exit_code Its exit code: see the table in the documentation.\n\
             # TYPE vykar_last_exit_code gauge\n\
             vykar_last_exit_code{repository=\"a \\\"b\\\"\\\\\",command=\"backup\"} 0\n\
             vykar_last_exit_code{repository=\"c\",command=\"check\"} 0\n"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_series_of_ours_is_left_out() {
        let series = MetricSeries::parse(
            "# x\nother{a=\"b\"} 1\nvykar_backup_files{a=\"b\"} x\nvykar_backup_files{} 2\n\n}{ 1\n",
        );
        assert_eq!(series.0.len(), 1);
    }
}
