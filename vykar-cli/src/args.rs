//! The command line.

mod key;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use vykar_core::codec::Compression;
use vykar_core::maintenance::GroupBy;
use vykar_mount::mount::DEFAULT_READ_AHEAD_KIB;

pub use self::key::{ImportArgs, KeyCommand, NewPassphraseArgs};
use crate::parse;
pub use crate::settings::Settings as Global;
use crate::view::ViewArgs;

/// Encrypted, deduplicating backups that you can mount.
///
/// The passphrase comes from VYKAR_PASSPHRASE, from a file (--passphrase-file), from a command
/// (--passcommand), or from a prompt.
#[derive(Debug, Parser)]
#[command(name = "vykar", version, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    /// Without one, the cycle that the configuration describes is run: backup, prune, compact, check.
    pub command: Option<Command>,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, clap::Args)]
pub struct GlobalArgs {
    /// The configuration file [default: the first of ./vykar.yaml, ~/.config/vykar/config.yaml,
    /// /etc/vykar/config.yaml]
    #[arg(long, value_name = "FILE", env = "VYKAR_CONFIG", hide_env_values = true, global = true)]
    pub config: Option<PathBuf>,
    /// The repository: a folder, or the label of one in the configuration
    #[arg(
        short = 'R',
        long = "repo",
        value_name = "REPO",
        env = "VYKAR_REPO",
        hide_env_values = true,
        global = true
    )]
    pub repo: Option<PathBuf>,
    /// A command that prints the passphrase (run by sh -c)
    #[arg(long, value_name = "COMMAND", env = "VYKAR_PASSCOMMAND", hide_env_values = true, global = true)]
    pub passcommand: Option<String>,
    /// A file that holds the passphrase, and nothing else but an end of line
    #[arg(long, value_name = "FILE", global = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Accept that another repository is at this place than last time
    #[arg(long, global = true)]
    pub trust_repo: bool,
    /// Where local caches are kept [default: ~/.cache/vykar]
    #[arg(long, value_name = "DIR", env = "VYKAR_CACHE_DIR", hide_env_values = true, global = true)]
    pub cache_dir: Option<PathBuf>,
    /// Threads to use; 0 chooses by the number of processors [default: 0]
    #[arg(long, value_name = "N", value_parser = parse::threads, global = true)]
    pub threads: Option<usize>,
    /// Run with this nice value, from -20 (first; root only) to 19 (last); 0 leaves it as it is [default: 0]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(-20..=19),
        allow_negative_numbers = true,
        global = true
    )]
    pub nice: Option<i32>,
    /// Write at most this much to the repository, in MiB a second (1.5, say); 0 for no limit [default: 0]
    #[arg(long, value_name = "MIB_PER_SEC", value_parser = parse::rate, allow_negative_numbers = true, global = true)]
    pub upload_limit: Option<u64>,
    /// Read at most this much from the repository, in MiB a second; 0 for no limit [default: 0]
    #[arg(long, value_name = "MIB_PER_SEC", value_parser = parse::rate, allow_negative_numbers = true, global = true)]
    pub download_limit: Option<u64>,
    /// Seconds to wait for a lock that another program holds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, global = true)]
    pub lock_wait: u64,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new repository
    Init {
        /// The cipher; auto takes the one that is faster on this machine [default: auto]
        #[arg(long, value_enum)]
        encryption: Option<EncryptionArg>,
        /// Size of data packs while there are few: a number of MiB, or as 512K [default: 32M]
        #[arg(long, value_name = "SIZE", value_parser = parse::pack_size)]
        min_pack_size: Option<u32>,
        /// Largest size of data packs, at most 512M [default: 192M]
        #[arg(long, value_name = "SIZE", value_parser = parse::pack_size)]
        max_pack_size: Option<u32>,
    },
    /// Store files and directories as a new snapshot
    ///
    /// Without paths, each source of the configuration becomes a snapshot, in each repository it belongs to.
    Backup(Box<BackupArgs>),
    /// List the snapshots
    List {
        /// What repairs set aside, in place of the snapshots
        #[arg(long)]
        damaged: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look into a snapshot
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Put a snapshot, or some paths of it, under a folder
    ///
    /// What exists there already is never overwritten.
    Restore {
        /// A name, a unique prefix of a name or id, or `latest`
        snapshot: String,
        /// The folder, made if it does not exist
        dest: PathBuf,
        /// Paths inside the snapshot; everything when none is given
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Set owners by number, even where this machine knows the name by another number
        #[arg(long)]
        numeric_ids: bool,
    },
    /// Delete the snapshots that no rule keeps
    ///
    /// The rules are applied to the snapshots of each host and label apart. What a rule keeps stays; the newest is
    /// always kept. `vykar compact` gives back the space. A snapshot that cannot be read stops it.
    Prune(PruneArgs),
    /// Give back the space of what deleted snapshots held
    ///
    /// Packs that are dead in part are written anew without that. Nothing is touched where a chunk that any snapshot
    /// needs is missing or counted too low. It may be interrupted at any time, and mounts and restores go on.
    Compact {
        /// Write a pack anew when so many percent of it are dead [default: 20]
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
        threshold: Option<u8>,
        /// Write anew at most this much of the old packs, those with most dead bytes first: MiB, or as 512M or 2G
        #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
        max_repack_size: Option<u64>,
        /// Say what would be done, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the repository is, and how much is in it
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete the whole repository, with all snapshots
    ///
    /// Shows what it is, and asks to type its path. Nothing of it can be brought back. What else lies in its folder
    /// stays. When it is interrupted, run it again.
    Delete {
        /// Do not ask: PATH must be the repository's path, as it is shown
        #[arg(long, value_name = "PATH", conflicts_with = "dry_run")]
        confirm: Option<String>,
        /// Say what would be deleted, and delete nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look for damage, and with --repair make the repository whole without what is lost
    Check(CheckArgs),
    /// Remove locks, and with --sessions the markers of backups, that their programs left behind
    ///
    /// Those of programs that are certainly gone are removed by the next command that meets them: this is for the
    /// others, such as of another machine that crashed. Shows each, and asks.
    BreakLock {
        /// Also the markers of backups, which keep maintenance waiting
        #[arg(long)]
        sessions: bool,
        /// Do not ask
        #[arg(long, conflicts_with = "dry_run")]
        yes: bool,
        /// Show them, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change the passphrase, export the key, or put it back
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show all snapshots as folders
    ///
    /// Stays until unmounted, interrupted (Ctrl-C) or told to go to the background.
    Mount(MountArgs),
    /// Print a configuration to begin with, or explain one
    ///
    /// `vykar config > vykar.yaml` makes a file with every key and what it means.
    Config(ConfigArgs),
    /// Run the cycle of backup, prune, compact and check as the configuration schedules it
    ///
    /// Stays in the foreground. SIGHUP reads the configuration again, SIGUSR1 runs the cycle now, SIGTERM ends it: a
    /// backup that is running publishes nothing then, and what it stored is taken up by the next one.
    Daemon,
    /// Print what lets a shell complete the command line; `make install` puts it in its place
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: ShellArg,
    },
    /// Write the manual pages to a folder
    #[command(hide = true)]
    Man {
        /// The folder, made if it does not exist
        dir: PathBuf,
    },
    /// Unmount a vykar mount
    Umount {
        /// The folder it is mounted on
        mountpoint: PathBuf,
        /// Detach it even if it is in use; it goes when it is not
        #[arg(long)]
        lazy: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration, and say what follows from it
    ///
    /// Which sources go where, what is left out, what is kept, and which hooks run. Nothing is opened.
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// What to store
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Store this source of the configuration only; may be repeated
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["paths", "files_from", "stdin"])]
    pub source: Vec<String>,
    /// Read paths from this file, one a line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    pub files_from: Vec<PathBuf>,
    /// Store what comes from standard input as a file
    #[arg(long, conflicts_with = "paths")]
    pub stdin: bool,
    /// The name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin", requires = "stdin", value_parser = parse::relative_path)]
    pub stdin_name: String,
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

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is left out")]
pub struct ExcludeArgs {
    /// A rule as in a .gitignore at the top of each path: *.o, cache/, /top/only, !not/this; may be repeated
    #[arg(short, long, value_name = "RULE", value_parser = parse::exclude)]
    pub exclude: Vec<String>,
    /// Read such rules from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Directories that hold something of this name
    #[arg(long, value_name = "NAME")]
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
    /// What is mounted below the paths
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
}

#[derive(Debug, clap::Args)]
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

#[derive(Debug, clap::Args)]
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
}

#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// An empty folder [default: the one that is configured]
    pub mountpoint: Option<PathBuf>,
    /// Return when the mount can be used
    #[arg(long)]
    pub background: bool,
    /// Memory for decoded chunks: a number of MiB, or as 512M or 2G; at least 16M
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse::cache_size)]
    pub cache_size: u64,
    /// How far the kernel reads ahead in a file, in KiB; root only, and 0 leaves its default
    #[arg(long, value_name = "KIB", default_value_t = DEFAULT_READ_AHEAD_KIB, value_parser = parse::read_ahead)]
    pub readahead: u32,
    /// Let other users look, as far as permissions allow them
    #[arg(long)]
    pub allow_other: bool,
    /// Let nobody run programs that lie in the mount
    #[arg(long)]
    pub noexec: bool,
    /// Do not keep the processors of a virtual machine awake while many requests come (root's mounts do)
    #[arg(long)]
    pub no_keep_awake: bool,
    #[command(flatten)]
    pub view: ViewArgs,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// List the items of a snapshot
    List {
        /// A name, a unique prefix of a name or id, or `latest`
        snapshot: String,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Delete snapshots; `vykar compact` gives back the space
    Delete {
        /// Names, unique prefixes of names or ids, or `latest`; a damaged one by its id
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
        /// Say what would be deleted, and delete nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is known about a snapshot
    Info {
        /// A name, a unique prefix of a name or id, or `latest`
        snapshot: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncryptionArg {
    Auto,
    Aes256gcm,
    Chacha20poly1305,
    None,
}
