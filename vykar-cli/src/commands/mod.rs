//! One file a command: parse, call the library, render.

mod backup;
mod break_lock;
mod cat;
mod check;
mod compact;
mod delete;
mod diff;
mod find;
mod info;
mod init;
mod items;
mod list;
mod mount;
mod prune;
mod repair;
mod restore;
mod snapshot;

use crate::args::{Args, Command};
use crate::exit::{CliError, CliResult, Exit};

/// Runs the command that was asked for.
pub fn run(args: Args) -> CliResult {
    let Args { global, command } = args;
    // Before any thread starts: a thread takes it from the one that starts it.
    crate::context::set_nice(global.nice)?;
    match command {
        Command::Init { encryption, min_pack_size, max_pack_size } => {
            init::run(&global, encryption, (min_pack_size, max_pack_size))
        }
        Command::Backup { paths, label, comment, compression, stats, json } => {
            backup::run(&global, backup::Request { paths, label, comment, compression, stats, json })
        }
        Command::List(args) if args.damaged => list::damaged(&global, args.json),
        Command::List(args) => list::run(&global, &args),
        Command::Snapshot(command) => snapshot::run(&global, command),
        Command::Cat { place, tar } => cat::run(&global, &cat::Request { place, tar }),
        Command::Restore { snapshot, dest, paths, numeric_ids } => {
            restore::run(&global, &restore::Request { snapshot, dest, paths, numeric_ids })
        }
        Command::Prune(args) => prune::run(&global, &args),
        Command::Compact { threshold, max_repack_size, dry_run, json } => {
            compact::run(&global, &compact::Request { threshold, max_repack_size, dry_run, json })
        }
        Command::Info { json } => info::run(&global, json),
        Command::Delete { confirm, dry_run, json } => {
            delete::run(&global, &delete::Request { confirm, dry_run, json })
        }
        Command::Check(args) => check::run(&global, &args),
        Command::BreakLock { sessions, yes, dry_run, json } => {
            break_lock::run(&global, &break_lock::Request { sessions, yes, dry_run, json })
        }
        Command::Mount(args) => mount::run(&global, &args),
        Command::Umount { mountpoint, lazy } => mount::unmount(&mountpoint, lazy),
    }
}

/// Writes results to stdout. A reader that went away (`| head`) has seen enough, and the command's exit
/// code stays what it is; any other failure ends the program.
pub fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.unwrap_or_else(stdout_failed);
}

/// What happens when stdout cannot be written.
pub fn stdout_failed(e: std::io::Error) {
    if e.kind() != std::io::ErrorKind::BrokenPipe {
        crate::render::error(&CliError::new(Exit::Failure, format!("cannot write to stdout: {e}")));
        std::process::exit(Exit::Failure as i32);
    }
}

/// Writes one JSON document to stdout.
pub fn print_json(value: &impl serde::Serialize) -> CliResult<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| CliError::new(Exit::Failure, format!("cannot write JSON: {e}")))?;
    print(&(text + "\n"));
    Ok(())
}
