use vykar_core::format::Encryption;

use super::print;
use crate::args::{Global, KeyCommand, NewPassphraseArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::{context, passphrase, render, strength};

pub fn run(global: &Global, command: KeyCommand) -> CliResult {
    match command {
        KeyCommand::ChangePassphrase(new) => change_passphrase(global, &new),
    }
}

fn change_passphrase(global: &Global, new: &NewPassphraseArgs) -> CliResult {
    let repository = context::open(global)?;
    let url = render::plain(repository.backend().url().as_bytes());
    // Before anything is asked for.
    if repository.config().encryption == Encryption::None {
        return Err(not_encrypted(&url));
    }
    // It was asked for when the repository was opened.
    let old = passphrase::current(global, false).map_err(|e| CliError::new(Exit::Passphrase, e))?;
    let new = passphrase::replacement(new)?;
    if let Some(warning) = strength::warning(&new) {
        eprintln!("vykar: {warning}");
    }
    repository.change_passphrase(&old, &new, &context::lock_options(global))?;
    if !global.quiet {
        print(&format!("Changed the passphrase of {url}\n"));
        eprintln!(
            "vykar: copies of keys/repokey from before, as in another copy of the repository or in an export, still \
             open with the old passphrase, and who has one can read everything with it"
        );
        eprintln!("vykar: put the new one wherever the old one is kept, on every machine");
    }
    Ok(Exit::Success)
}

fn not_encrypted(url: &str) -> CliError {
    CliError::new(Exit::Usage, format!("{url}: not encrypted, so it has no key and no passphrase"))
        .hint("encryption is chosen when a repository is made (`vykar init --encryption`)")
}
