//! What a backup stores: the paths of the command line, or the sources of the configuration.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use vykar_core::backup::{Excludes, Stream};
use vykar_core::codec::Compression;

use crate::args::{BackupArgs, ExcludeArgs, ResolvedOptions};
use crate::commands::rules;
use crate::config::{Dump, Hooks, SourceOptions};
use crate::exit::{CliError, CliResult, Exit};
use crate::{render, stdio};

/// What standard input is stored as, where no other name is given.
const STDIN_NAME: &str = "stdin";

/// What some editors put before the first line of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Paths that do not exist are named up to this number, and counted beyond it.
const MAX_NAMED: u64 = 100;

/// What becomes one snapshot.
pub struct BackupJob {
    pub label: Option<String>,
    pub paths: Vec<PathBuf>,
    pub options: SourceOptions,
    pub hooks: Hooks,
    dumps: Vec<Dump>,
    /// What comes through a pipe, and the name that it is stored under.
    piped: Option<(Piped, String)>,
    /// Paths of a list that do not exist.
    pub missing: u64,
}

/// Where a file comes from that is none.
pub enum Piped {
    Stdin,
    /// A program and its arguments.
    Command(Vec<OsString>),
}

impl BackupJob {
    /// What programs hand over.
    pub fn streams(&self) -> Vec<Stream> {
        let dumps = self.dumps.iter().map(stdio::dump);
        let piped = self.piped.iter().map(|(from, name)| match from {
            Piped::Stdin => stdio::stdin(name),
            Piped::Command(words) => stdio::command(name, words.clone()),
        });
        dumps.chain(piped).collect()
    }
}

/// What is to be stored, one job for each snapshot.
///
/// # Errors
/// Nothing is, or it is not configured.
pub fn jobs(global: &ResolvedOptions, args: &BackupArgs) -> CliResult<Vec<BackupJob>> {
    let excludes = excludes(&args.excludes)?;
    if args.paths.is_empty() && args.files_from.is_empty() && !args.stdin {
        return configured(global, args, &excludes);
    }
    let mut options = global.plan.as_ref().map(|plan| plan.defaults.clone()).unwrap_or_default();
    add(&mut options.excludes, &excludes);
    let (listed, missing) = listed(&args.files_from, if args.null { b'\0' } else { b'\n' })?;
    let piped = match (args.stdin, args.stdin_from_command) {
        (true, _) => Some(Piped::Stdin),
        (_, true) => {
            Some(Piped::Command(args.paths.iter().map(|word| word.clone().into_os_string()).collect()))
        }
        (false, false) => None,
    };
    let piped = piped.map(|from| (from, args.stdin_name.clone().unwrap_or_else(|| STDIN_NAME.to_owned())));
    let label = args.label.clone().or_else(|| piped.as_ref().map(|(_, name)| name.clone()));
    let paths: Vec<PathBuf> = match args.stdin_from_command {
        true => Vec::new(),
        false => args.paths.iter().cloned().chain(listed).collect(),
    };
    if paths.is_empty() && piped.is_none() {
        return Err(CliError::new(Exit::Usage, "no path to back up: the lists name none that exists"));
    }
    let (hooks, dumps) = (Hooks::default(), Vec::new());
    Ok(vec![BackupJob { label, paths, options, hooks, dumps, piped, missing }])
}

fn configured(global: &ResolvedOptions, args: &BackupArgs, excludes: &Excludes) -> CliResult<Vec<BackupJob>> {
    let nothing = || {
        CliError::new(Exit::Usage, "nothing to back up")
            .hint("give paths, or write `sources` into the configuration (`vykar config` shows how)")
    };
    let plan = global.plan.as_ref().ok_or_else(nothing)?;
    if plan.sources.is_empty() {
        return Err(nothing());
    }
    let known = || plan.sources.iter().map(|s| s.label.as_str()).collect::<Vec<_>>().join(", ");
    for label in &args.source {
        if !plan.sources.iter().any(|s| s.label == *label) {
            let what = format!("no source of {} is called {label:?}", plan.name());
            return Err(CliError::new(Exit::Usage, what).hint(format!("there are: {}", known())));
        }
    }
    if args.label.is_some() {
        return Err(CliError::new(Exit::Usage, "--label is for paths on the command line")
            .hint(format!("to store one source of the configuration use --source; there are: {}", known())));
    }
    let wanted = plan.sources.iter().filter(|s| args.source.is_empty() || args.source.contains(&s.label));
    let job = |source: &crate::config::SourcePlan| {
        let mut options = source.options.clone();
        add(&mut options.excludes, excludes);
        BackupJob {
            label: Some(source.label.clone()),
            paths: source.paths.clone(),
            options,
            hooks: source.hooks.clone(),
            dumps: source.dumps.clone(),
            piped: None,
            missing: 0,
        }
    };
    Ok(wanted.map(job).collect())
}

/// How new chunks are compressed.
pub fn compression(global: &ResolvedOptions, args: &BackupArgs) -> Compression {
    let configured = global.plan.as_ref().map(|plan| plan.compression);
    args.compression.or(configured).unwrap_or_default()
}

/// What the command line leaves out.
fn excludes(args: &ExcludeArgs) -> CliResult<Excludes> {
    Ok(Excludes {
        patterns: rules(&args.exclude, &args.exclude_file)?,
        if_present: args.exclude_if_present.clone(),
        caches: args.exclude_caches,
        git_ignore: args.git_ignore,
        one_file_system: args.one_file_system,
        larger_than: args.exclude_larger_than,
    })
}

/// Adds what the command line says to what is configured.
fn add(excludes: &mut Excludes, more: &Excludes) {
    excludes.patterns.extend(more.patterns.iter().cloned());
    excludes.if_present.extend(more.if_present.iter().cloned());
    excludes.caches |= more.caches;
    excludes.git_ignore |= more.git_ignore;
    excludes.one_file_system |= more.one_file_system;
    excludes.larger_than = more.larger_than.or(excludes.larger_than);
}

/// Paths from lists, and how many of them do not exist: who made a list made it a while ago.
fn listed(lists: &[PathBuf], end: u8) -> CliResult<(Vec<PathBuf>, u64)> {
    let (mut paths, mut missing) = (Vec::new(), 0u64);
    for list in lists {
        let failed = |e: std::io::Error| {
            CliError::new(Exit::Usage, format!("--files-from {}: {e}", render::path(list)))
        };
        let reader: Box<dyn Read> = match list.as_path() == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(std::fs::File::open(list).map_err(failed)?),
        };
        let mut is_first = true;
        for line in BufReader::new(reader).split(end) {
            let mut line = line.map_err(failed)?;
            if std::mem::take(&mut is_first) && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            if end == b'\n' && line.last() == Some(&b'\r') {
                line.pop();
            }
            let path = PathBuf::from(OsString::from_vec(line));
            if path.as_os_str().is_empty() {
                continue;
            }
            match path.symlink_metadata() {
                Ok(_) => paths.push(path),
                Err(e) => {
                    missing += 1;
                    if missing <= MAX_NAMED {
                        say!("{}: not stored: {e}", render::path(&path));
                    }
                }
            }
        }
    }
    if missing > MAX_NAMED {
        say!("{} more paths of the lists are not stored", missing - MAX_NAMED);
    }
    Ok((paths, missing))
}
