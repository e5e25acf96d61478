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

use crate::args::{Args, Command, GlobalArgs, ResolvedOptions, RuleArg};
use crate::exit::{CliError, CliResult, Exit};
pub use crate::say::{print, stdout_failed};
use crate::settings;
use crate::settings::ChosenRepositories;
use crate::{context, render, say};

/// Runs the command that was asked for.
pub fn run(args: Args) -> CliResult {
    let Args { global: given, command } = args;
    match command {
        // About no repository, or about several in another way.
        Some(Command::Umount { mountpoint, lazy }) => mount::unmount(&mountpoint, lazy),
        Some(Command::Config(args)) => config::run(&given, &args),
        Some(Command::Completions { shell }) => completions::run(shell),
        Some(Command::Man { dir }) => man::run(&dir),
        Some(Command::Copy(args)) => copy::run(&given, &args),
        Some(Command::Daemon) => daemon::run(&given),
        // About each repository that is configured.
        None => for_every(&given, cycle::run),
        Some(Command::Init { encryption, min_pack_size, max_pack_size }) => {
            for_every(&given, |global| init::run(global, encryption, (min_pack_size, max_pack_size)))
        }
        Some(Command::Backup(args)) => for_every(&given, |global| backup::run(global, &args)),
        Some(Command::Prune(args)) => for_every(&given, |global| prune::run(global, &args)),
        Some(Command::Compact { threshold, max_repack_size, dry_run, json }) => {
            let request = compact::CompactRequest { threshold, max_repack_size, dry_run, json };
            for_every(&given, |global| compact::run(global, &request))
        }
        Some(Command::Check(args)) if !args.repair => for_every(&given, |global| check::run(global, &args)),
        // About one repository.
        Some(Command::Check(args)) => for_one(&given, |global| check::run(global, &args)),
        Some(Command::List(args)) if args.damaged => {
            for_one(&given, |global| list::damaged(global, args.json))
        }
        Some(Command::List(args)) => for_one(&given, |global| list::run(global, &args)),
        Some(Command::Cat { place, tar }) => {
            let request = cat::CatRequest { place, tar };
            for_one(&given, |global| cat::run(global, &request))
        }
        Some(Command::Snapshot(command)) => for_one(&given, |global| snapshot::run(global, command)),
        Some(Command::Restore(args)) => for_one(&given, |global| restore::run(global, &args)),
        Some(Command::Rewrite(args)) => for_one(&given, |global| rewrite::run(global, &args)),
        Some(Command::Info { json }) => for_one(&given, |global| info::run(global, json)),
        Some(Command::Delete { confirm, dry_run, json }) => {
            let request = delete::DeleteRequest { confirm, dry_run, json };
            for_one(&given, |global| delete::run(global, &request))
        }
        Some(Command::BreakLock { sessions, yes, dry_run, json }) => {
            let request = break_lock::BreakLockRequest { sessions, yes, dry_run, json };
            for_one(&given, |global| break_lock::run(global, &request))
        }
        Some(Command::Key(command)) => for_one(&given, |global| key::run(global, command)),
        Some(Command::Mount(args)) => for_one(&given, |global| mount::run(global, &args)),
    }
}

/// Runs something for the repository that is meant, of which there must be one.
fn for_one(given: &GlobalArgs, run: impl FnOnce(&ResolvedOptions) -> CliResult) -> CliResult {
    let only = settings::one(chosen(given)?)?;
    context::set_nice(only.nice)?;
    run(&only)
}

fn chosen(given: &GlobalArgs) -> CliResult<ChosenRepositories> {
    settings::choose(given, settings::configuration(given)?.as_ref())
}

/// Runs something for each repository that is meant. What is wrong with one keeps no other from its turn.
fn for_every(given: &GlobalArgs, run: impl Fn(&ResolvedOptions) -> CliResult) -> CliResult {
    let all = match chosen(given)? {
        ChosenRepositories::One(one) => {
            context::set_nice(one.nice)?;
            return run(&one);
        }
        ChosenRepositories::All(all) => all,
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
