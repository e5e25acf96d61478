//! Arguments of `vykar key`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Let another passphrase open the repository, in place of the one that does
    ///
    /// Asks for the old one, unless it is given as for any command, and for the new one twice. Nothing but the small
    /// object that holds the keys is written, and at every moment one of the two passphrases opens it.
    ChangePassphrase(NewPassphraseArgs),
}

/// Where the new passphrase comes from: from VYKAR_NEW_PASSPHRASE, from here, or from a prompt.
#[derive(Debug, clap::Args)]
pub struct NewPassphraseArgs {
    /// A file that holds the new passphrase, and nothing else but an end of line
    #[arg(long, value_name = "FILE", conflicts_with = "new_passcommand")]
    pub new_passphrase_file: Option<PathBuf>,
    /// A command that prints the new passphrase (run by sh -c)
    #[arg(long, value_name = "COMMAND")]
    pub new_passcommand: Option<String>,
}
