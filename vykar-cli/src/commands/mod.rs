//! One file a command: parse, call the library, render.

mod backup;
mod break_lock;
mod cat;
mod check;
mod compact;
mod completions;
mod config;
mod copy;
mod cycle;
mod daemon;
mod delete;
mod diff;
mod find;
mod info;
mod init;
mod items;
mod key;
mod list;
mod man;
mod mount;
mod prune;
mod repair;
mod restore;
mod rewrite;
mod series;
mod snapshot;

use std::path::PathBuf;

use crate::args::{Args, Command, Global, RuleArg};
use crate::exit::{CliError, CliResult, Exit};
pub use crate::say::{print, stdout_failed};
use crate::settings::{self, Chosen};
use crate::{context, render, say};

/// Runs the command that was asked for.
pub fn run(args: Args) -> CliResult {
    let Args { global, command } = args;
    match command {
        // These are about no repository.
        Some(Command::Umount { mountpoint, lazy }) => mount::unmount(&mountpoint, lazy),
        Some(Command::Config(args)) => config::run(&global, &args),
        Some(Command::Completions { shell }) => completions::run(shell),
        Some(Command::Man { dir }) => man::run(&dir),
        Some(Command::Copy(args)) => copy::run(&global, &args),
        Some(Command::Daemon) => daemon::run(&global),
        command => {
            let config = settings::configuration(&global)?;
            let chosen = settings::choose(&global, config.as_ref())?;
            with_repository(command, chosen)
        }
    }
}

fn with_repository(command: Option<Command>, chosen: Chosen) -> CliResult {
    match command {
        None => every(chosen, cycle::run),
        Some(Command::Init { encryption, min_pack_size, max_pack_size }) => {
            every(chosen, |global| init::run(global, encryption, (min_pack_size, max_pack_size)))
        }
        Some(Command::Backup(args)) => every(chosen, |global| backup::run(global, &args)),
        Some(Command::Prune(args)) => every(chosen, |global| prune::run(global, &args)),
        Some(Command::Compact { threshold, max_repack_size, dry_run, json }) => {
            let request = compact::Request { threshold, max_repack_size, dry_run, json };
            every(chosen, |global| compact::run(global, &request))
        }
        Some(Command::Check(args)) if !args.repair => every(chosen, |global| check::run(global, &args)),
        Some(command) => {
            let global = settings::one(chosen)?;
            context::set_nice(global.nice)?;
            with_one(command, &global)
        }
    }
}

/// Commands that are about one repository.
fn with_one(command: Command, global: &Global) -> CliResult {
    match command {
        Command::List(args) if args.damaged => list::damaged(global, args.json),
        Command::List(args) => list::run(global, &args),
        Command::Cat { place, tar } => cat::run(global, &cat::Request { place, tar }),
        Command::Snapshot(command) => snapshot::run(global, command),
        Command::Restore(args) => restore::run(global, &args),
        Command::Rewrite(args) => rewrite::run(global, &args),
        Command::Info { json } => info::run(global, json),
        Command::Delete { confirm, dry_run, json } => {
            delete::run(global, &delete::Request { confirm, dry_run, json })
        }
        Command::Check(args) => check::run(global, &args),
        Command::BreakLock { sessions, yes, dry_run, json } => {
            break_lock::run(global, &break_lock::Request { sessions, yes, dry_run, json })
        }
        Command::Key(command) => key::run(global, command),
        Command::Mount(args) => mount::run(global, &args),
        // Those that were done already.
        Command::Init { .. }
        | Command::Backup(_)
        | Command::Prune(_)
        | Command::Compact { .. }
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Copy(_)
        | Command::Daemon
        | Command::Umount { .. } => Ok(Exit::Success),
    }
}

/// Runs something for each repository that is meant. What is wrong with one keeps no other from its turn.
fn every(chosen: Chosen, run: impl Fn(&Global) -> CliResult) -> CliResult {
    let all = match chosen {
        Chosen::One(one) => {
            context::set_nice(one.nice)?;
            return run(&one);
        }
        Chosen::All(all) => all,
    };
    let mut result = Ok(Exit::Success);
    for one in all {
        let one = one.and_then(|global| {
            // Before any thread starts: a thread takes it from the one that starts it.
            context::set_nice(global.nice)?;
            if !global.quiet {
                say!("repository {}", render::plain(global.name().as_bytes()));
            }
            run(&global).map_err(|e| e.context(&global.name()))
        });
        let interrupted = one.as_ref().is_err_and(|e| e.exit() == Exit::Interrupted);
        result = both(result, one);
        if interrupted {
            break;
        }
    }
    result
}

/// What two things that ran one after the other come to. Of two errors the first is kept, and the other said.
pub fn both(first: CliResult, second: CliResult) -> CliResult {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(first.and(second)),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Err(first), Err(second)) => {
            render::error(&second);
            Err(first)
        }
    }
}

/// Rules that are given, and those of files, one a line.
pub fn rules(given: &[RuleArg], files: &[PathBuf]) -> CliResult<Vec<Vec<u8>>> {
    let mut rules: Vec<Vec<u8>> = given.iter().map(|rule| rule.0.clone()).collect();
    for path in files {
        let failed = |e: &dyn std::fmt::Display| {
            CliError::new(Exit::Usage, format!("--exclude-file {}: {e}", render::path(path)))
        };
        let text = std::fs::read(path).map_err(|e| failed(&e))?;
        for (number, line) in vykar_core::rules::lines(&text) {
            let wrong = |e| failed(&format!("line {number}, {}: {e}", render::plain(line)));
            vykar_core::rules::check(line).map_err(wrong)?;
            rules.push(line.to_vec());
        }
    }
    Ok(rules)
}

/// Writes one JSON document to stdout.
pub fn print_json(value: &impl serde::Serialize) -> CliResult<()> {
    say::print_json(value).map_err(|e| CliError::new(Exit::Failure, format!("cannot write JSON: {e}")))?;
    Ok(())
}
