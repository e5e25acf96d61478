//! The command line.

mod backup;
mod copying;
mod examples;
mod key;
mod restore;
mod rule;
mod upkeep;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use vykar_mount::session::mount::DEFAULT_READ_AHEAD_KIB;

pub use self::backup::{BackupArgs, ExcludeArgs};
pub use self::copying::{CopyArgs, RewriteArgs};
pub use self::key::{ImportArgs, KeyCommand, NewPassphraseArgs};
pub use self::restore::{OverwriteArg, RestoreArgs};
pub use self::rule::RuleArg;
pub use self::upkeep::{CheckArgs, KeepArgs, PruneArgs};
use crate::filter::SnapshotFilter;
use crate::parse;
pub use crate::settings::ResolvedOptions;
use crate::view::ViewArgs;

/// Encrypted, deduplicating backups that you can mount.
///
/// The passphrase comes from VYKAR_PASSPHRASE, from a file (--passphrase-file), from a command
/// (--passcommand), or from a prompt.
#[derive(Debug, Parser)]
#[command(name = "vykar", version, max_term_width = 100, after_help = examples::VYKAR)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    /// Without one, the cycle that the configuration describes is run: backup, prune, compact, check.
    pub command: Option<Command>,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, clap::Args)]
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
    /// Accept what is refused because it may not be meant: another repository at this place than last time, an
    /// earlier state of it, snapshots that are gone, folders that lead out of it
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
    /// Write what happened to this file, for Prometheus' node_exporter
    #[arg(long, value_name = "FILE", global = true)]
    pub metrics_file: Option<PathBuf>,
    /// Say more: -v what is used and what is left out, -vv each file that is stored
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet", global = true)]
    pub verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new repository
    #[command(after_help = examples::INIT)]
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
    #[command(after_help = examples::BACKUP)]
    Backup(Box<BackupArgs>),
    /// List the snapshots
    #[command(after_help = examples::LIST)]
    List(ListArgs),
    /// Look into a snapshot
    #[command(subcommand, after_help = examples::SNAPSHOT)]
    Snapshot(SnapshotCommand),
    /// Write a file of a snapshot to stdout, or a folder of it as a tar archive
    ///
    /// Every byte is verified before it is written. Where a part of the file is damaged, it ends there with an error.
    #[command(after_help = examples::CAT)]
    Cat {
        /// A snapshot (a name, a unique prefix of a name or id, or `latest`), and a path in it
        #[arg(value_name = "SNAPSHOT:PATH")]
        place: OsString,
        /// Write the folder, or all of the snapshot, as a tar archive (pax) with all metadata
        #[arg(long)]
        tar: bool,
    },
    /// Put a snapshot, or some paths of it, under a folder
    ///
    /// What is there already as the snapshot has it is left alone, so that a restore that was interrupted can be run
    /// again; what is not stays, unless --overwrite says otherwise.
    #[command(after_help = examples::RESTORE)]
    Restore(RestoreArgs),
    /// Delete the snapshots that no rule keeps
    ///
    /// The rules are applied to the snapshots of each host and label apart. What a rule keeps stays; the newest is
    /// always kept. `vykar compact` gives back the space. A snapshot that cannot be read stops it.
    #[command(after_help = examples::PRUNE)]
    Prune(PruneArgs),
    /// Give back the space of what deleted snapshots held
    ///
    /// Packs that are dead in part are written anew without that. Nothing is touched where a chunk that any snapshot
    /// needs is missing or counted too low. It may be interrupted at any time, and mounts and restores go on.
    #[command(after_help = examples::COMPACT)]
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
    /// Copy snapshots into another repository, which exists already
    ///
    /// All that are not there yet, when none is named. Every chunk is verified, and stored only where it is new.
    #[command(after_help = examples::COPY)]
    Copy(CopyArgs),
    /// Make snapshots anew without what rules match
    ///
    /// Each new one has the time, host, label and everything else of the original, but for its name. Files are referred
    /// to, not read. The original stays, unless --forget deletes it; `vykar compact` gives back the space.
    #[command(after_help = examples::REWRITE)]
    Rewrite(RewriteArgs),
    /// Show what the repository is, and how much is in it
    #[command(after_help = examples::INFO)]
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete the whole repository, with all snapshots
    ///
    /// Shows what it is, and asks to type its path. Nothing of it can be brought back. What else lies in its folder
    /// stays. When it is interrupted, run it again.
    #[command(after_help = examples::DELETE)]
    Delete {
        /// Do not ask: PATH must be the repository's path, as it is shown, or its label in the configuration
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
    #[command(after_help = examples::CHECK)]
    Check(CheckArgs),
    /// Remove locks, and with --sessions the markers of backups, that their programs left behind
    ///
    /// Those of programs that are certainly gone are removed by the next command that meets them: this is for the
    /// others, such as of another machine that crashed. Shows each, and asks.
    #[command(after_help = examples::BREAK_LOCK)]
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
    #[command(subcommand, after_help = examples::KEY)]
    Key(KeyCommand),
    /// Show all snapshots as folders
    ///
    /// Stays until unmounted, interrupted (Ctrl-C) or told to go to the background.
    #[command(after_help = examples::MOUNT)]
    Mount(MountArgs),
    /// Print a configuration to begin with, or explain one
    ///
    /// `vykar config > vykar.yaml` makes a file with every key and what it means.
    #[command(after_help = examples::CONFIG)]
    Config(ConfigArgs),
    /// Run the cycle of backup, prune, compact and check as the configuration schedules it
    ///
    /// Stays in the foreground. SIGHUP reads the configuration again, SIGUSR1 runs the cycle now, SIGTERM ends it: a
    /// backup that is running publishes nothing then, and what it stored is taken up by the next one.
    #[command(after_help = examples::DAEMON)]
    Daemon,
    /// Print what lets a shell complete the command line; `make install` puts it in its place
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: ShellArg,
    },
    /// Write the manual pages to a folder
    #[command(hide = true)]
    #[command(after_help = examples::MAN)]
    Man {
        /// The folder, made if it does not exist
        dir: PathBuf,
    },
    /// Unmount a vykar mount
    #[command(after_help = examples::UMOUNT)]
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
    #[command(after_help = examples::CONFIG_CHECK)]
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// What repairs set aside, in place of the snapshots
    #[arg(long, conflicts_with_all = ["label", "host", "last", "since"])]
    pub damaged: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Snapshots of this age or younger only: 2026-01-31, "2026-01-31 12:00", an RFC 3339 time, or how long before now
    ///
    /// How long is a number and a unit: h, d, w, m (30 days) or y (365 days), as in 30d or 1y6m.
    #[arg(long, value_name = "WHEN", value_parser = parse::since, help_heading = "Which snapshots")]
    pub since: Option<Timestamp>,
    // Last: its heading is for all that follows.
    #[command(flatten)]
    pub filter: SnapshotFilter,
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
    /// Keep all processors of a virtual machine awake while many requests come; root only
    #[arg(long)]
    pub keep_awake: bool,
    /// Let the mount be exported by NFS
    #[arg(long, display_order = 900)]
    pub export: bool,
    #[command(flatten)]
    pub view: ViewArgs,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// List the items of a snapshot
    #[command(after_help = examples::SNAPSHOT_LIST)]
    List(ItemsArgs),
    /// Find files in all snapshots, and say what became of each from snapshot to snapshot
    #[command(after_help = examples::SNAPSHOT_FIND)]
    Find(FindArgs),
    /// Say what is different between two snapshots
    ///
    /// A line for each path: + added, - removed, M with other content (and its size before and after), m with other
    /// metadata only (mode, owner, mtime, xattrs, target or hardlink), T of another type. Times of access and change
    /// do not count.
    #[command(after_help = examples::SNAPSHOT_DIFF)]
    Diff {
        /// The first snapshot: a name, a unique prefix of a name or id, or `latest`
        #[arg(value_name = "FIRST")]
        before: String,
        /// The second one
        #[arg(value_name = "SECOND")]
        after: String,
        /// Only this path of the snapshots, and what is below it
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete snapshots; `vykar compact` gives back the space
    #[command(after_help = examples::SNAPSHOT_DELETE)]
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
    #[command(after_help = examples::SNAPSHOT_INFO)]
    Info {
        /// A name, a unique prefix of a name or id, or `latest`
        snapshot: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct ItemsArgs {
    /// A name, a unique prefix of a name or id, or `latest`
    pub snapshot: String,
    /// Show type, permissions, owner, group, size and modification time (local) too, as ls -l does
    #[arg(short, long)]
    pub long: bool,
    /// Only this path of the snapshot, and what is below it
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Sort by path (byte by byte), size (largest first) or modification time (newest first) [default: as it is stored]
    #[arg(long, value_name = "BY", value_enum)]
    pub sort: Option<SortBy>,
    /// Print one JSON object a line, with everything that is known of the item
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct FindArgs {
    /// A path inside the snapshots, for itself and all below it; or a pattern (with *, ? or [) of such paths where it has a
    /// slash, else of names anywhere
    #[arg(value_name = "PATH|PATTERN")]
    pub place: Option<OsString>,
    /// Names that fit this pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub name: Vec<String>,
    /// The same, where upper and lower case are one
    #[arg(long, value_name = "GLOB")]
    pub iname: Vec<String>,
    /// Files (f), directories (d) or symlinks (l) only
    #[arg(long = "type", value_name = "f|d|l", value_enum, hide_possible_values = true)]
    pub kind: Option<TypeArg>,
    /// Files larger than this: a number of MiB, or as 100K or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
    pub larger: Option<u64>,
    /// Files smaller than this
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes)]
    pub smaller: Option<u64>,
    /// Modified at this time or later: 2026-01-31, "2026-01-31 12:00", an RFC 3339 time, or how long before now (2w)
    #[arg(long, value_name = "WHEN", value_parser = parse::since)]
    pub since: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: SnapshotFilter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeArg {
    #[value(name = "f")]
    File,
    #[value(name = "d")]
    Directory,
    #[value(name = "l")]
    Symlink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    Name,
    Size,
    Mtime,
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
