//! Arguments of commands that make snapshots of snapshots.

use std::path::PathBuf;

use crate::parse;

#[derive(Debug, clap::Args)]
pub struct RewriteArgs {
    /// Names, unique prefixes of names or ids, or `latest`
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,
    /// A rule as in a .gitignore at the top of the snapshot: *.o, cache/, /top/only, !not/this; may be repeated
    #[arg(
        short,
        long,
        value_name = "RULE",
        value_parser = parse::exclude,
        required_unless_present = "exclude_file"
    )]
    pub exclude: Vec<String>,
    /// Read such rules from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Delete the originals of those that were made anew, once all are
    #[arg(long)]
    pub forget: bool,
    /// List what would be left out, and make nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
