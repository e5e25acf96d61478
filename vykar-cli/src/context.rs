//! What commands need before they begin: the repository, its passphrase, local caches.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vykar_core::repository::{LockOptions, OpenOptions, Passphrase, Repository};
use vykar_core::storage::LocalBackend;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::exit::{CliError, CliResult, Exit};

/// The repository's folder, absolute, so that it is remembered under one name.
pub fn repository_path(global: &Global) -> CliResult<PathBuf> {
    let Some(path) = &global.repo else {
        return Err(CliError::new(Exit::Usage, "no repository given")
            .hint("give its folder with -R REPO, or set VYKAR_REPO"));
    };
    let absolute = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    absolute.map_err(|e| CliError::new(Exit::Usage, format!("{}: {e}", path.display())))
}

/// Its storage.
pub fn backend(global: &Global) -> CliResult<Arc<LocalBackend>> {
    let path = repository_path(global)?;
    if path.exists() && !path.is_dir() {
        return Err(CliError::new(Exit::NoRepository, format!("{}: not a folder", path.display()))
            .hint("a repository is a folder; check the path given with -R"));
    }
    Ok(Arc::new(LocalBackend::new(path)))
}

/// How it is opened.
pub fn open_options(global: &Global) -> OpenOptions {
    OpenOptions { cache_dir: cache_dir(global), trust: global.trust_repo }
}

/// Opens it.
pub fn open(global: &Global) -> CliResult<Repository> {
    let backend = backend(global)?;
    if !backend.root().is_dir() {
        let message = format!("{}: no repository here (there is no such folder)", backend.root().display());
        return Err(CliError::new(Exit::NoRepository, message)
            .hint("check the path given with -R; `vykar -R PATH init` makes a new repository"));
    }
    Ok(Repository::open(backend, &mut || passphrase(global, false), &open_options(global))?)
}

/// How long to wait for locks.
pub fn lock_options(global: &Global) -> LockOptions {
    LockOptions { wait: Duration::from_secs(global.lock_wait), ..LockOptions::default() }
}

fn cache_dir(global: &Global) -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    global
        .cache_dir
        .clone()
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("vykar")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/vykar")))
}

/// The passphrase: VYKAR_PASSPHRASE, then the pass command, then a prompt (twice for a new one).
pub fn passphrase(global: &Global, new: bool) -> Result<Passphrase, String> {
    if let Some(value) = std::env::var_os("VYKAR_PASSPHRASE") {
        return value.into_string().map(Zeroizing::new).map_err(|_| "VYKAR_PASSPHRASE is not UTF-8".into());
    }
    if let Some(command) = &global.passcommand {
        return run_passcommand(command);
    }
    if !std::io::stdin().is_terminal() {
        return Err("none is set, and there is no terminal to ask on".into());
    }
    let ask =
        |prompt: &str| rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|e| e.to_string());
    let first = ask(if new { "New passphrase: " } else { "Passphrase: " })?;
    if new && ask("The same again: ")? != first {
        return Err("the two were not the same".into());
    }
    Ok(first)
}

fn run_passcommand(command: &str) -> Result<Passphrase, String> {
    let output =
        Command::new("sh").args(["-c", command]).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("the pass command cannot be run: {e}"))?;
    if !output.status.success() {
        return Err(format!("the pass command failed ({})", output.status));
    }
    let stdout = Zeroizing::new(output.stdout);
    let text = std::str::from_utf8(&stdout).map_err(|_| "the pass command's output is not UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// Allows as many open files as the system does: a deep tree holds one directory open per level.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A flag that Ctrl-C and SIGTERM set; a second one ends the process at once.
pub fn cancel_flag() -> CliResult<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let code = Exit::Interrupted as i32;
        signal_hook::flag::register_conditional_shutdown(signal, code, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|e| CliError::new(Exit::Failure, format!("cannot handle signals: {e}")))?;
    }
    Ok(flag)
}
