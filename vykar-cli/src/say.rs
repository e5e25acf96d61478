//! The only way to stdout and stderr.
//!
//! Every text passes through [`clean`], whatever it was made of: a path, a host name in a lock, a message of another
//! program. So nothing that was read from anywhere reaches a terminal as a command to it. A line on stderr that cannot
//! be written stops nothing: its reader went away.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

use crate::exit::{CliError, Exit};
use crate::render;

/// Before the lines of a message but the first.
const INDENT: &str = "       ";

/// Writes a message to stderr, as [`line()`] does.
macro_rules! say {
    ($($arg:tt)*) => { $crate::say::line(&format!($($arg)*)) };
}

/// One message on stderr, after the program's name.
pub fn line(text: &str) {
    bare(&format!("vykar: {}", clean(&text.replace('\n', &format!("\n{INDENT}")))));
}

/// What to do about the message before it.
pub fn hint(text: &str) {
    bare(&format!("{INDENT}{}", clean(&text.replace('\n', &format!("\n{INDENT}")))));
}

/// A line on stderr without the program's name.
pub fn bare(text: &str) {
    raw(&format!("{}\n", clean(text)));
}

/// The same for a line of JSON.
pub fn raw(text: &str) {
    // At once, so that lines of several threads do not mix.
    let _ = std::io::stderr().lock().write_all(&json_line(text));
}

/// JSON without control characters.
pub fn json_line(text: &str) -> Vec<u8> {
    let mut line = JsonOut { out: Vec::with_capacity(text.len()), pending: false };
    // Only memory is written to.
    let _ = line.write_all(text.as_bytes());
    line.out
}

/// Writes results to stdout. A reader that went away (`| head`) has seen enough, and the command's exit code stays
/// what it is; any other failure ends the program.
pub fn print(text: &str) {
    print_raw(&clean(text));
}

/// The same without a look at what it holds, for JSON.
pub fn print_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&json_line(text)).and_then(|()| out.flush());
    written.unwrap_or_else(stdout_failed);
}

/// Writes results to stdout, each as soon as it is made, so that any number of them takes little memory.
pub fn print_each(texts: impl Iterator<Item = String>) {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for text in texts {
        if let Err(e) = out.write_all(clean(&text).as_bytes()) {
            return stdout_failed(e);
        }
    }
    out.flush().unwrap_or_else(stdout_failed);
}

/// Writes a JSON document to stdout while it is made.
///
/// # Errors
/// The value cannot be JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), serde_json::Error> {
    let mut out = JsonOut { out: std::io::BufWriter::new(std::io::stdout().lock()), pending: false };
    let written = match serde_json::to_writer_pretty(&mut out, value) {
        Ok(()) => out.write_all(b"\n").and_then(|()| out.flush()),
        Err(e) if e.is_io() => Err(e.into()),
        Err(e) => return Err(e),
    };
    written.unwrap_or_else(stdout_failed);
    Ok(())
}

/// Passes JSON on with DEL and the control characters from U+0080 to U+009F escaped, which JSON allows in texts and some
/// terminals obey. Outside of texts they cannot be.
struct JsonOut<W> {
    out: W,
    /// The first byte of a character was the last of a write.
    pending: bool,
}

impl<W: Write> Write for JsonOut<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let mut escaped = Vec::with_capacity(data.len());
        for byte in data {
            match (std::mem::take(&mut self.pending), *byte) {
                (true, 0x80..=0x9f) => write!(escaped, "\\u00{byte:02x}")?,
                (true, other) => escaped.extend([0xc2, other]),
                (false, 0xc2) => self.pending = true,
                (false, 0x7f) => escaped.extend(b"\\u007f"),
                (false, other) => escaped.push(other),
            }
        }
        self.out.write_all(&escaped)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// What happens when stdout cannot be written.
pub fn stdout_failed(e: std::io::Error) {
    if e.kind() != std::io::ErrorKind::BrokenPipe {
        render::error(&CliError::new(Exit::Failure, format!("cannot write to stdout: {e}")));
        std::process::exit(Exit::Failure as i32);
    }
}

/// True for what a terminal may take for a command, or what changes the order of what stands around it.
pub fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with everything escaped that is a command to a terminal. Ends of lines and tabs stay.
pub fn clean(text: &str) -> Cow<'_, str> {
    let stays = |c: char| !is_command(c) || c == '\n' || c == '\t';
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match stays(c) {
            true => out.push(c),
            false => {
                let _ = write!(out, "{}", c.escape_default());
            }
        }
    }
    Cow::Owned(out)
}

/// The same in one line, for a text that stands among others.
pub fn one_line(text: &str) -> String {
    clean(text).replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_control_character_and_stays_the_same() {
        let value = serde_json::json!({ "name\u{9b}": "a\u{7f}\u{80}\u{9f}\u{a0}\u{e9}\u{c2}" });
        let line = String::from_utf8(json_line(&value.to_string())).unwrap();
        assert!(line.chars().all(|c| !c.is_control()), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
        // A character may be cut in two by the writes.
        let mut out = JsonOut { out: Vec::new(), pending: false };
        value.to_string().bytes().for_each(|byte| out.write_all(&[byte]).unwrap());
        assert_eq!(String::from_utf8(out.out).unwrap(), line);
    }

    #[test]
    fn commands_to_a_terminal_are_escaped_and_lines_stay_lines() {
        let text = "a\tb\n\x1b]0;x\x07\r\u{9b}1m\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}\u{e9}\u{200d}\\";
        let clean = clean(text);
        assert_eq!(
            clean,
            "a\tb\n\\u{1b}]0;x\\u{7}\\r\\u{9b}1m\\u{7f}\\u{202e}\\u{2066}\\u{200f}\\u{2028}\u{e9}\u{200d}\\"
        );
        assert!(matches!(super::clean("plain"), Cow::Borrowed(_)));
        assert_eq!(one_line("a\n\tb\x07"), "a\\n\\tb\\u{7}");
    }
}
