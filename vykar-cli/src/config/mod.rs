//! The configuration file: where it is, what it says, and what follows for each repository.

pub mod error;
mod expand;
mod hooks;
mod resolve;
mod schema;
mod trust;
mod values;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

pub use self::hooks::{Around, Hooks, VALUES, When};
pub use self::resolve::{CheckPolicy, Dump, RepositoryPlan, Schedule, SourceOptions, SourcePlan};
pub use self::values::{MountValue, Secret};
use crate::exit::{CliError, CliResult, Exit};
use crate::render;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A configuration that was read and holds together.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was found.
    pub path: PathBuf,
    /// In the order of the file.
    pub repositories: Vec<RepositoryPlan>,
    /// Options of `vykar mount`, with their lines.
    pub mount: Vec<(String, MountValue, u64)>,
    /// What is allowed and likely not meant.
    pub warnings: Vec<String>,
}

/// Where a configuration is looked for, in this order, after `--config` and `VYKAR_CONFIG`.
pub fn places() -> Vec<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|home| home.join(".config")));
    let user = home.map(|dir| dir.join("vykar/config.yaml"));
    std::iter::once(PathBuf::from("vykar.yaml"))
        .chain(user)
        .chain([PathBuf::from("/etc/vykar/config.yaml")])
        .collect()
}

/// The configuration that was named, or the first that is found.
///
/// One that is found runs commands (hooks, pass commands), so it is used only where nobody but the caller and root can
/// have written it. Another one is left alone, which a line on stderr says. With `can_do_without`, one that cannot be
/// opened counts as none.
pub fn load(named: Option<&Path>, can_do_without: bool) -> CliResult<Option<Config>> {
    if let Some(path) = named {
        let file = open(path).map_err(|e| unreadable(path, &e))?.ok_or_else(|| {
            CliError::new(Exit::Usage, format!("{}: there is no such configuration", render::path(path)))
                .hint("check --config and VYKAR_CONFIG; `vykar config` prints one to begin with")
        })?;
        return read(path, file).map(Some);
    }
    for path in places() {
        match trust::open(&path) {
            Ok(Some(file)) => return read(&path, file).map(Some),
            Ok(None) => {}
            Err(_) if can_do_without => {}
            Err(e) => return Err(unreadable(&path, &e)),
        }
    }
    Ok(None)
}

/// Opens a file; `None` when there is none.
fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Usage, format!("{}: cannot be read: {error}", render::path(path)))
        .hint("another configuration can be given with --config")
}

/// Reads what was opened at `path`.
fn read(path: &Path, file: File) -> CliResult<Config> {
    let failed = |e: std::io::Error| unreadable(path, &e);
    // May hold a passphrase.
    let mut text = zeroize::Zeroizing::new(String::new());
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other("longer than 1 MiB")));
    }
    parse(path, &text)
}

/// What a text says. Relative paths in it are taken from the folder of `path`.
fn parse(path: &Path, text: &str) -> CliResult<Config> {
    let get = |name: &str| std::env::var(name).ok();
    let expanded = expand::expand(text, get).map_err(|unset| {
        error::at(path, unset.line as u64, &unset.what)
            .hint("set it, or give a default: ${NAME:-default}; a $ alone is not special")
    })?;
    let expanded = zeroize::Zeroizing::new(expanded);
    let file: schema::ConfigFile = match expanded.trim().is_empty() {
        true => schema::ConfigFile::default(),
        false => serde_saphyr::from_str(&expanded).map_err(|e| error::explain(path, &e))?,
    };
    resolve::resolve(path, file)
}

/// A path in the configuration at `file`, from its folder and with `~` put in.
pub fn absolute_path(file: &Path, path: &str) -> PathBuf {
    resolve::absolute(&resolve::folder_of(file), path)
}

/// A schedule's cron, for tests.
#[cfg(test)]
pub fn test_cron(text: &str) -> Option<values::Cron> {
    serde_saphyr::from_str::<schema::ScheduleSection>(text).ok()?.cron
}

#[cfg(test)]
mod tests;
