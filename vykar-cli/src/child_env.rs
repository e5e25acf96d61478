//! Starting other programs.

use std::ffi::OsStr;
use std::process::Command;

/// Environment variables that hold passphrases. No child gets them: what it starts in turn, and whoever may look into
/// its environment, would have them too. This program itself needs no child that knows one.
const SECRETS: [&str; 3] = [crate::passphrase::CURRENT, crate::passphrase::NEW, crate::passphrase::TO];

/// A command for sh, without passphrases in its environment.
pub fn shell(command: &str) -> Command {
    let mut sh = program(OsStr::new("sh"));
    sh.args(["-c", command]);
    sh
}

/// A program, without passphrases in its environment.
pub fn program(name: &OsStr) -> Command {
    let mut program = Command::new(name);
    for secret in SECRETS {
        program.env_remove(secret);
    }
    program
}
