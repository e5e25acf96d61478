//! Asking before something is done that cannot be undone.

use std::io::{ErrorKind, IsTerminal};

use crate::exit::{CliError, CliResult, Exit};
use crate::terminal;

/// Asks a question on the terminal, where `yes` has not answered it already. Only `y` and `yes` are consent.
///
/// # Errors
/// Without a terminal nobody can be asked, and nothing must be done.
pub fn confirm(question: &str, yes: bool) -> CliResult<bool> {
    if yes {
        return Ok(true);
    }
    let answer = ask(&format!("{question} [y/N] "), "--yes")?;
    Ok(["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()))
}

/// Asks for a line on the terminal; `flag` is what answers it without one.
pub fn ask(prompt: &str, flag: &str) -> CliResult<String> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(Exit::Usage, "nothing was done: there is no terminal to ask on")
            .hint(format!("give {flag} to go on without being asked")));
    }
    match terminal::ask_shown(prompt) {
        Ok(answer) => Ok(answer.trim().to_owned()),
        Err(e) if e.kind() == ErrorKind::Interrupted => {
            Err(CliError::new(Exit::Interrupted, "interrupted, so nothing was done"))
        }
        // Nobody answered.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(String::new()),
        Err(e) => Err(CliError::new(Exit::Failure, format!("cannot ask on the terminal: {e}"))),
    }
}
