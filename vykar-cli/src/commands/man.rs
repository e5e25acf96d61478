use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::Args;
use crate::exit::{CliError, CliResult, Exit};
use crate::render;

const SEE_ALSO: &str = ".SH SEE ALSO\n\\fBvykar\\fR(1), which has the options that every command takes.\n";

/// Writes a manual page for the program and for each of its commands, for `make install`.
pub fn run(dir: &Path) -> CliResult {
    let failed = |e: io::Error| CliError::new(Exit::Failure, format!("{}: {e}", render::path(dir)));
    fs::create_dir_all(dir).map_err(failed)?;
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    write_all(&command, dir).map_err(failed)?;
    Ok(Exit::Success)
}

fn write_all(command: &clap::Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        write_all(below, dir)?;
    }
    let (name, page) = page(command)?;
    fs::write(dir.join(name), page)
}

/// The name of a command's page, and the page.
fn page(command: &clap::Command) -> io::Result<(String, Vec<u8>)> {
    let is_whole = command.get_display_name().is_none_or(|name| name == command.get_name());
    // Those that every command takes are in one page.
    let own = command.clone().mut_args(|arg| {
        let hidden = arg.is_hide_set() || (arg.is_global_set() && !is_whole);
        arg.hide(hidden)
    });
    let man = Man::new(own.disable_help_subcommand(true)).manual("vykar");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|below| !below.is_hide_set() && below.get_name() != "help") {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(text) = command.get_after_help() {
        out.extend(examples(&text.to_string()).into_bytes());
    }
    if !is_whole {
        out.extend(SEE_ALSO.as_bytes());
    }
    Ok((man.get_filename(), out))
}

/// What stands at the end of a command's help, line by line as it is.
fn examples(text: &str) -> String {
    let (before, examples) = text.split_once("Examples:\n").unwrap_or((text, ""));
    let mut out = String::new();
    for (heading, text) in [("NOTES", before), ("EXAMPLES", examples)] {
        if text.trim().is_empty() {
            continue;
        }
        let _ = write!(out, ".SH {heading}\n.nf\n");
        for line in text.trim_end().lines() {
            let _ = writeln!(out, "{}", roff(line));
        }
        out.push_str(".fi\n");
    }
    out
}

/// A line that no troff takes for anything but text.
fn roff(line: &str) -> String {
    // Not a request, whatever it begins with.
    let mut out = String::from("\\&");
    for c in line.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_text_and_nothing_else() {
        let text = "More.\n\nExamples:\n  vykar -x '~' `a\\b`\n.request\n";
        let expected = ".SH NOTES\n.nf\n\\&More.\n.fi\n.SH EXAMPLES\n.nf\n\
                        \\&  vykar \\-x \\(aq\\(ti\\(aq \\(gaa\\eb\\(ga\n\\&.request\n.fi\n";
        assert_eq!(examples(text), expected);
    }
}
