//! Arguments of commands that make snapshots of snapshots.

use std::path::PathBuf;

use jiff::Timestamp;

use super::rule::RuleArg;
use crate::filter::SnapshotFilter;
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
        value_parser = RuleArg::parser(),
        required_unless_present = "exclude_file"
    )]
    pub exclude: Vec<RuleArg>,
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

#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// Names, unique prefixes of names or ids, or `latest`
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["label", "host", "last", "since"])]
    pub snapshots: Vec<String>,
    /// Where to: a folder, or the label of a repository in the configuration
    #[arg(long, value_name = "DEST_REPO")]
    pub to: PathBuf,
    /// A file that holds the passphrase of that one; before it counts VYKAR_TO_PASSPHRASE
    #[arg(long, value_name = "FILE")]
    pub to_passphrase_file: Option<PathBuf>,
    /// A command that prints it
    #[arg(long, value_name = "COMMAND", conflicts_with = "to_passphrase_file")]
    pub to_passcommand: Option<String>,
    /// Say which snapshots would be copied, and copy none
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Snapshots of this age or younger only, as in `vykar list`
    #[arg(long, value_name = "WHEN", value_parser = parse::since, help_heading = "Which snapshots")]
    pub since: Option<Timestamp>,
    // Last: its heading is for all that follows.
    #[command(flatten)]
    pub filter: SnapshotFilter,
}
