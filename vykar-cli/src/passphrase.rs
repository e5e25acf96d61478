//! Where passphrases come from.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::Stdio;

use vykar_core::repository::Passphrase;
use zeroize::Zeroizing;

use crate::args::{NewPassphraseArgs, ResolvedOptions};
use crate::exit::{CliError, CliResult, Exit};
use crate::{child_env, render, terminal};

/// Longest file that is taken for a passphrase, in bytes.
const PASSPHRASE_MAX: u64 = 64 << 10;
/// The variable that holds the passphrase.
pub const CURRENT: &str = "VYKAR_PASSPHRASE";
/// The variable that holds the one it is to be changed to.
pub const NEW: &str = "VYKAR_NEW_PASSPHRASE";

/// The variable that holds that of the repository that snapshots are copied to.
pub const TO: &str = "VYKAR_TO_PASSPHRASE";

/// The passphrase: VYKAR_PASSPHRASE, then the file and the pass command of the command line, then those of the
/// configuration, then a prompt (twice for the one of a repository that is made).
///
/// What was found once is used again: a cycle of commands asks once.
pub fn current(global: &ResolvedOptions, is_made: bool) -> Result<Passphrase, String> {
    if let Some(known) = global.passphrase.get() {
        return Ok(known.clone());
    }
    let found = find_current(global, is_made)?;
    Ok(global.passphrase.get_or_init(|| found).clone())
}

/// True when a passphrase can be had without asking anybody or running anything.
pub fn is_at_hand(global: &ResolvedOptions) -> bool {
    std::env::var_os(CURRENT).is_some()
        || global.passphrase_file.is_some()
        || global.configured_passphrase.is_some() && global.passcommand.is_none()
}

fn find_current(global: &ResolvedOptions, is_made: bool) -> Result<Passphrase, String> {
    let variable = if global.is_destination { TO } else { CURRENT };
    if let Some(passphrase) = from_environment(variable)? {
        return Ok(passphrase);
    }
    if let Some(path) = &global.passphrase_file {
        return from_file(path);
    }
    if let Some(command) = &global.passcommand {
        return from_command(command);
    }
    if let Some(passphrase) = &global.configured_passphrase {
        return Ok(passphrase.0.clone());
    }
    if let Some(command) = &global.configured_passcommand {
        return from_command(command);
    }
    match is_made {
        true => ask_twice(),
        false if global.is_destination => ask("Passphrase of the repository to copy to: "),
        false => ask("Passphrase: "),
    }
}

/// The passphrase that is to be the repository's: VYKAR_NEW_PASSPHRASE, then the file or the command that are given for
/// it, then a prompt.
pub fn replacement(args: &NewPassphraseArgs) -> CliResult<Passphrase> {
    let found = from_environment(NEW).and_then(|set| match (set, args) {
        (Some(passphrase), _) => Ok(passphrase),
        (None, NewPassphraseArgs { new_passphrase_file: Some(path), .. }) => from_file(path),
        (None, NewPassphraseArgs { new_passcommand: Some(command), .. }) => from_command(command),
        (None, _) => ask_twice(),
    });
    found.map_err(|reason| {
        CliError::new(Exit::Passphrase, format!("no new passphrase, so nothing was changed: {reason}"))
            .hint(format!("set {NEW}, give --new-passphrase-file or --new-passcommand, or run on a terminal"))
    })
}

fn from_environment(name: &str) -> Result<Option<Passphrase>, String> {
    let value = std::env::var_os(name).map(|value| value.into_string().map(Zeroizing::new));
    value.transpose().map_err(|_| format!("{name} is not UTF-8"))
}

fn ask_twice() -> Result<Passphrase, String> {
    let first = ask("New passphrase: ")?;
    match ask("The same again: ")? == first {
        true => Ok(first),
        false => Err("the two were not the same".to_owned()),
    }
}

fn ask(prompt: &str) -> Result<Passphrase, String> {
    if !std::io::stdin().is_terminal() {
        return Err("none is set, and there is no terminal to ask on".to_owned());
    }
    terminal::ask_hidden(prompt).map_err(|e| match e.kind() {
        io::ErrorKind::Interrupted => "interrupted".to_owned(),
        io::ErrorKind::UnexpectedEof => "none was given".to_owned(),
        _ => e.to_string(),
    })
}

fn from_file(path: &Path) -> Result<Passphrase, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", render::path(path));
    let content = File::open(path).and_then(bounded).map_err(|e| failed(&e))?;
    without_end(&content).ok_or_else(|| failed(&"not UTF-8"))
}

/// All of it, if it is short enough for a passphrase.
fn bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(PASSPHRASE_MAX as usize + 1));
    match from.take(PASSPHRASE_MAX + 1).read_to_end(&mut content)? as u64 > PASSPHRASE_MAX {
        true => Err(io::Error::other(format!("longer than {PASSPHRASE_MAX} bytes"))),
        false => Ok(content),
    }
}

/// Text without the end of its line.
fn without_end(text: &[u8]) -> Option<Passphrase> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Some(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn from_command(command: &str) -> Result<Passphrase, String> {
    let mut sh = child_env::shell(command);
    sh.stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = sh.spawn().map_err(|e| format!("the pass command cannot be run: {e}"))?;
    // With the pipe gone, a command that goes on printing ends.
    let printed = child.stdout.take().map(bounded).transpose();
    if printed.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| format!("the pass command cannot be waited for: {e}"))?;
    let printed = printed.map_err(|e| format!("what the pass command prints: {e}"))?.unwrap_or_default();
    if !status.success() {
        return Err(format!("the pass command failed ({status})"));
    }
    without_end(&printed).ok_or_else(|| "the pass command's output is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_never_stops_printing_is_stopped() {
        let error = from_command("yes").unwrap_err();
        assert_eq!(error, "what the pass command prints: longer than 65536 bytes");
        assert_eq!(*from_command("echo secret").unwrap(), "secret");
        assert!(from_command("echo secret; exit 3").unwrap_err().contains("exit status: 3"));
    }
}
