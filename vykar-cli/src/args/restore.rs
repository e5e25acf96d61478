//! Arguments of `vykar restore`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::rule::RuleArg;

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// A name, a unique prefix of a name or id, or `latest`
    pub snapshot: String,
    /// The folder, made if it does not exist
    pub dest: PathBuf,
    /// Paths inside the snapshot; everything when none is given
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only what this rule matches, with what is below it: *.txt, docs/, /top/only; may be repeated
    #[arg(short, long, value_name = "RULE", value_parser = RuleArg::parser())]
    pub include: Vec<RuleArg>,
    /// Nothing that this rule matches; may be repeated
    #[arg(short, long, value_name = "RULE", value_parser = RuleArg::parser())]
    pub exclude: Vec<RuleArg>,
    /// What becomes of files that exist
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = OverwriteArg::Never)]
    pub overwrite: OverwriteArg,
    /// Read everything again that was written, and compare it with the snapshot
    #[arg(long)]
    pub verify: bool,
    /// List what would be done, and do nothing
    #[arg(short = 'n', long, conflicts_with = "verify")]
    pub dry_run: bool,
    /// Set owners, and users and groups in ACLs, by number, even where this machine knows the name by another number
    #[arg(long)]
    pub numeric_ids: bool,
    /// Print the summary as JSON, and with --dry-run one object a line
    #[arg(long)]
    pub json: bool,
    /// With --overwrite: replace a folder by something else even if it is not empty, and delete what is in it
    #[arg(long)]
    pub delete_conflicting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverwriteArg {
    /// Replace them
    Always,
    /// Replace those of another type, size or modification time, and correct owners, permissions and attributes
    IfChanged,
    /// Replace those that are older than in the snapshot
    IfNewer,
    /// Leave them; those that are not as in the snapshot are errors
    Never,
}
