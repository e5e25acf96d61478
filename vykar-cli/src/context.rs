//! What commands need before they begin: the repository, its passphrase, local caches.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vykar_core::repository::{LockOptions, OpenOptions, Repository};
use vykar_core::storage::{Backend, Limits, LocalBackend};

use crate::args::ResolvedOptions;
use crate::exit::{CliError, CliResult, Exit};
use crate::{passphrase, platform};

/// A repository's storage, within the limits that were asked for. Nothing waits for them once `cancel` is set.
pub fn backend(global: &ResolvedOptions, cancel: &Arc<AtomicBool>) -> CliResult<Arc<dyn Backend>> {
    let path = global.repo.clone();
    if path.exists() && !path.is_dir() {
        return Err(CliError::new(Exit::NoRepository, format!("{}: not a folder", path.display()))
            .hint("a repository is a folder; check the path given with -R"));
    }
    let limits = Limits {
        upload: NonZeroU64::new(global.upload_limit),
        download: NonZeroU64::new(global.download_limit),
        cancel: cancel.clone(),
    };
    Ok(limits.apply(Arc::new(LocalBackend::new(path))))
}

/// How it is opened.
pub fn open_options(global: &ResolvedOptions) -> OpenOptions {
    OpenOptions { cache_dir: cache_dir(global), trust: global.trust_repo }
}

/// Opens it.
pub fn open(global: &ResolvedOptions) -> CliResult<Repository> {
    open_until(global, &Arc::default())
}

/// Opens it for something that ends early when `cancel` is set.
pub fn open_until(global: &ResolvedOptions, cancel: &Arc<AtomicBool>) -> CliResult<Repository> {
    let backend = backend(global, cancel)?;
    if backend.local_path().is_some_and(|path| !path.is_dir()) {
        let message = format!("{}: no repository here (there is no such folder)", backend.url());
        return Err(CliError::new(Exit::NoRepository, message)
            .hint("check the path given with -R; `vykar -R PATH init` makes a new repository"));
    }
    let repository =
        Repository::open(backend, &mut || passphrase::current(global, false), &open_options(global))?;
    for strange in repository.compare_with_last_time(None)? {
        say!("{strange}");
    }
    Ok(repository)
}

/// Opens it to be deleted: also what is left of one whose key is gone, of which a passphrase would open nothing.
pub fn open_to_delete(global: &ResolvedOptions) -> CliResult<Repository> {
    match Repository::open_remains(backend(global, &Arc::default())?, &open_options(global))? {
        Some(remains) => Ok(remains),
        None => open(global),
    }
}

/// How long to wait for locks.
pub fn lock_options(global: &ResolvedOptions) -> LockOptions {
    LockOptions { wait: Duration::from_secs(global.lock_wait), ..LockOptions::default() }
}

/// The same for work that gives the lock back before a signal ends it: the first one ends the waiting for it, and work
/// that may be cut off between two writes. Other work is done or not begun.
pub fn lock_to_the_end(global: &ResolvedOptions) -> CliResult<LockOptions> {
    cancel_on_signals()?;
    Ok(LockOptions { cancel: interrupts(), ..lock_options(global) })
}

fn cache_dir(global: &ResolvedOptions) -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    global
        .cache_dir
        .clone()
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("vykar")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/vykar")))
}

/// Allows as many open files as the system does: a deep tree holds one directory open per level.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Gives this process, and what it starts, a nice value. One that is nicer already stays so.
pub fn set_nice(nice: i32) -> CliResult<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    let failed = |e: rustix::io::Errno| {
        CliError::new(Exit::Failure, format!("cannot run with nice value {nice}: {e}"))
            .hint("only root may give a process more than its share; 1 to 19 is for everybody")
    };
    if nice == 0 || (nice > 0 && getpriority_process(None).map_err(failed)? >= nice) {
        return Ok(());
    }
    setpriority_process(None, nice).map_err(failed)
}

/// The flag that Ctrl-C, SIGTERM and SIGHUP set, once [`cancel_on_signals`] was called.
pub fn interrupts() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default).clone()
}

/// Whether the next signal ends the process.
fn at_once() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default).clone()
}

/// What needs an orderly end is done: from here on the first signal ends the process, as it does everything that only
/// reads.
pub fn end_on_signals() {
    at_once().store(true, Ordering::Relaxed);
}

/// Lets Ctrl-C, SIGTERM and SIGHUP set the flag of [`interrupts`]; a second one ends the process at once. SIGHUP, which
/// comes when the terminal goes away, stays ignored under nohup(1).
pub fn cancel_on_signals() -> CliResult<()> {
    cancel_on(&[SIGINT, SIGTERM, SIGHUP])
}

/// The same for these signals alone. Only the first call has an effect.
pub fn cancel_on(signals: &[i32]) -> CliResult<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let wanted = |signal: &i32| *signal != SIGHUP || !platform::is_ignored(SIGHUP);
    for signal in signals.iter().copied().filter(wanted) {
        let code = Exit::Interrupted as i32;
        signal_hook::flag::register_conditional_shutdown(signal, code, at_once())
            .and_then(|_| signal_hook::flag::register(signal, at_once()))
            .and_then(|_| signal_hook::flag::register(signal, interrupts()))
            .map_err(|e| CliError::new(Exit::Failure, format!("cannot handle signals: {e}")))?;
    }
    Ok(())
}
