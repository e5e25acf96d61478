//! Arguments of `vykar key`.

use std::path::PathBuf;

use clap::Subcommand;

use super::examples;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Let another passphrase open the repository, in place of the one that does
    ///
    /// Asks for the old one, unless it is given as for any command, and for the new one twice. Nothing but the small
    /// object that holds the keys is written, and at every moment one of the two passphrases opens it.
    #[command(after_help = examples::CHANGE_PASSPHRASE)]
    ChangePassphrase(NewPassphraseArgs),
    /// Print the key and the parameters of the repository, to be kept on paper or elsewhere
    ///
    /// The key is still protected by the passphrase. With both, a repository can be read whose keys/repokey or config is
    /// lost (`vykar key import`). Its lines are numbered and checked, so that they can be typed back.
    #[command(after_help = examples::EXPORT)]
    Export {
        /// Write to this file, which must not exist yet, and which nobody else may read
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put back the key, or the parameters, of a repository that lost them
    ///
    /// Writes what is missing or damaged, once the passphrase of the export opens it and it opens the repository.
    #[command(after_help = examples::IMPORT)]
    Import(ImportArgs),
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

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What `vykar key export` wrote, or its numbered lines as they were typed
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Also in place of a key that looks right; it is kept under damaged/ in the repository
    #[arg(long)]
    pub replace: bool,
    /// Do not ask
    #[arg(long, requires = "replace")]
    pub yes: bool,
}
