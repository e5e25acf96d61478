//! Arguments of `vykar backup`.

use std::path::PathBuf;

use vykar_core::codec::Compression;

use super::rule::RuleArg;
use crate::parse;

#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct BackupArgs {
    /// What to store
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Store this source of the configuration only; may be repeated
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["paths", "files_from", "stdin"])]
    pub source: Vec<String>,
    /// Read paths from this file, one a line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "piped")]
    pub files_from: Vec<PathBuf>,
    /// In that file each path ends with a zero byte, as find -print0 writes them
    #[arg(long, requires = "files_from")]
    pub null: bool,
    /// Store what symlinks among the paths lead to; without it only those with a slash behind them are followed
    #[arg(long)]
    pub follow_paths: bool,
    /// Store what comes from standard input as a file
    #[arg(long, group = "piped", conflicts_with = "paths")]
    pub stdin: bool,
    /// Store what a command prints as a file, or nothing when it fails: --stdin-from-command -- pg_dump shop
    #[arg(long, group = "piped", requires = "paths")]
    pub stdin_from_command: bool,
    /// The name of that file [default: stdin]
    #[arg(long, value_name = "NAME", requires = "piped", value_parser = parse::relative_path)]
    pub stdin_name: Option<String>,
    /// What to call this set of paths [default: the directory's name]
    #[arg(long)]
    pub label: Option<String>,
    /// Free text to keep with the snapshot
    #[arg(long, default_value = "", hide_default_value = true)]
    pub comment: String,
    #[command(flatten)]
    pub excludes: ExcludeArgs,
    /// Read all files again, also those that look unchanged
    #[arg(short, long)]
    pub force: bool,
    /// zstd[:LEVEL] (1 to 22), lz4 or none [default: zstd:3]
    #[arg(long)]
    pub compression: Option<Compression>,
    /// List what would be stored, and what not and why; store nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Say where the time went, stage by stage
    #[arg(long, conflicts_with = "dry_run")]
    pub stats: bool,
    /// Print the summary as JSON, one document for each snapshot
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "What is left out")]
pub struct ExcludeArgs {
    /// A rule as in a .gitignore at the top of each path: *.o, cache/, /top/only, !not/this; may be repeated
    #[arg(short, long, value_name = "RULE", value_parser = RuleArg::parser())]
    pub exclude: Vec<RuleArg>,
    /// Read such rules from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Directories that hold something of this name
    #[arg(long, value_name = "NAME", value_parser = parse::marker)]
    pub exclude_if_present: Vec<String>,
    /// Directories that are marked as caches (CACHEDIR.TAG)
    #[arg(long)]
    pub exclude_caches: bool,
    /// Files larger than this: MiB, or as 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
    pub exclude_larger_than: Option<u64>,
    /// What the .gitignore files in the paths say
    #[arg(long)]
    pub git_ignore: bool,
    /// What is mounted below the paths, and other devices and subvolumes
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
}
