//! Arguments of `vykar prune` and `vykar check`.

use std::time::Duration;

use vykar_core::maintenance::GroupBy;

use crate::parse;

#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Apply the rules to the snapshots that have these in common: host, label, paths, or none
    #[arg(long, value_name = "NAMES", default_value = "host,label", value_parser = parse::group_by)]
    pub group_by: GroupBy,
    /// Look at the snapshots of this host only
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Look at the snapshots with this label only
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// Say what would be deleted, and delete nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// List every snapshot that was looked at, with the rules that keep it
    #[arg(long)]
    pub list: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "What is kept")]
pub struct KeepArgs {
    /// The N newest
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_last: u32,
    /// The newest of each of the N most recent hours that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_hourly: u32,
    /// Likewise, of days (local time)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_daily: u32,
    /// Likewise, of weeks, which begin on Monday
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_weekly: u32,
    /// Likewise, of months
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_monthly: u32,
    /// Likewise, of years
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_yearly: u32,
    /// All not older than this: 30d, 1y6m; with h, d, w, m (30 days), y (365 days)
    ///
    /// Counted from now or, where that is earlier, from the newest snapshot.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub keep_within: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Read and verify every chunk, not only what describes them
    #[arg(long)]
    pub verify_data: bool,
    /// Read and verify some packs: a share that is drawn anew each time (5%), or one part of several (2/7)
    #[arg(long, value_name = "PART", value_parser = parse::data_subset, conflicts_with_all = ["verify_data", "repair"])]
    pub read_data_subset: Option<parse::DataSubset>,
    /// Plan a repair, show it, ask, and do it
    ///
    /// What is whole is kept, what is replaced is set aside under damaged/ in the repository.
    #[arg(long)]
    pub repair: bool,
    /// Do not ask
    #[arg(long, requires = "repair", conflicts_with = "dry_run")]
    pub yes: bool,
    /// Show the plan, and change nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "repair")]
    pub json: bool,
}
