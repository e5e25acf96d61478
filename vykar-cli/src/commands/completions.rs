use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::print;
use crate::args::{Args, ShellArg};
use crate::exit::{CliResult, Exit};

/// Prints what lets a shell complete the command line.
pub fn run(shell: ShellArg) -> CliResult {
    print(&script(shell));
    Ok(Exit::Success)
}

fn script(shell: ShellArg) -> String {
    let shell = match shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut out = Vec::new();
    generate(shell, &mut Args::command(), "vykar", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of all commands and their commands.
    fn names(command: &clap::Command, found: &mut Vec<String>) {
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            found.push(command.get_name().to_owned());
            names(command, found);
        }
    }

    #[test]
    fn every_command_is_completed_in_every_shell() {
        let mut all = Vec::new();
        names(&Args::command(), &mut all);
        assert!(all.len() > 20, "{all:?}");
        for shell in [ShellArg::Bash, ShellArg::Zsh, ShellArg::Fish] {
            let script = script(shell);
            for name in &all {
                assert!(script.contains(name.as_str()), "{shell:?}: {name}");
            }
            assert!(script.contains("passphrase-file"), "{shell:?}");
        }
    }
}
