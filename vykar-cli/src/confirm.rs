//! Asking before something is done that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use crate::exit::{CliError, CliResult, Exit};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4096;

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
    let failed = |e| CliError::new(Exit::Failure, format!("cannot ask on the terminal: {e}"));
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(Exit::Usage, "nothing was done: there is no terminal to ask on")
            .hint(format!("give {flag} to go on without being asked")));
    }
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    let mut stdin = std::io::Read::take(std::io::stdin().lock(), MAX_ANSWER);
    stdin.read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim().to_owned())
}
