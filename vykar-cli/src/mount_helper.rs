//! What mount(8) calls for `mount -t fuse.vykar REPO DIR -o ...` and for such a line in fstab: this program
//! under the name `mount.fuse.vykar` or `mount.vykar`.
//!
//! An option `name=value` becomes `--name value` of `vykar mount`, whatever those are: the table is the
//! definition of the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use rustix::thread::LinkNameSpaceType;

use crate::args::Args;
use crate::config::error::nearest;
use crate::exit::{CliError, CliResult, Exit};
use crate::{commands, context, render};

/// The names that mount(8) calls it by.
pub const NAMES: [&str; 2] = ["mount.fuse.vykar", "mount.vykar"];

/// Options of mount(8) itself, of every file system, and of FUSE, that change nothing here: the mount is
/// `ro,nosuid,nodev` whatever they say, has no access times to keep, and nothing to write.
const WITHOUT_EFFECT: &str = "_netdev async atime auto background comment default_permissions defaults dev \
    diratime dirsync exec group iversion lazytime loud mand noatime noauto nodev nodiratime nofail nogroup \
    noiversion nolazytime nomand nonempty noowner norelatime nostrictatime nosuid nosymfollow nouser nousers \
    owner quiet relatime ro rw silent strictatime suid symfollow sync user users";
/// Options of `vykar mount` that are not for this.
const NOT_OPTIONS: [&str; 3] = ["repo", "help", "version"];
/// What may stand before the repository's path, as `findmnt` shows it.
const PREFIX: &[u8] = b"vykar:";

/// Exit codes of mount(8).
mod code {
    pub const DONE: u8 = 0;
    pub const USAGE: u8 = 1;
    pub const INTERRUPTED: u8 = 8;
    pub const FAILED: u8 = 32;
}

/// Mounts a vykar repository for mount(8).
#[derive(Debug, Parser)]
#[command(name = "mount.fuse.vykar", version, max_term_width = 100, args_override_self = true)]
struct Call {
    /// The repository: a folder, or vykar: and a folder
    spec: OsString,
    /// An empty folder
    dir: PathBuf,
    /// Options, with commas between; a value with commas stands in double quotes
    #[arg(short = 'o', value_name = "OPTIONS", action = ArgAction::Append)]
    options: Vec<OsString>,
    /// Leave out options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short = 'f')]
    fake: bool,
    /// Accepted; there is no mtab to write
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Say what is done
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount in another mount namespace
    #[arg(short = 'N', value_name = "FILE")]
    namespace: Option<PathBuf>,
    /// Accepted; it is fuse.vykar
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
}

/// Does what mount(8) asks for, and returns an exit code of mount(8).
pub fn run() -> u8 {
    let call = match Call::try_parse() {
        Ok(call) => call,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { code::USAGE } else { code::DONE };
        }
    };
    let exit = mount(&call).unwrap_or_else(|error| {
        render::error(&error);
        error.exit()
    });
    match exit {
        Exit::Success => code::DONE,
        Exit::Usage => code::USAGE,
        Exit::Interrupted => code::INTERRUPTED,
        _ => code::FAILED,
    }
}

fn mount(call: &Call) -> CliResult {
    let args = translate(call)?;
    if let Some(namespace) = &call.namespace {
        enter(namespace)?;
    }
    if call.fake {
        return Ok(Exit::Success);
    }
    context::raise_file_limit();
    commands::run(args)
}

fn enter(namespace: &PathBuf) -> CliResult<()> {
    let failed = |e: std::io::Error| {
        CliError::new(Exit::Failure, format!("cannot enter the namespace {}: {e}", render::path(namespace)))
    };
    let file = std::fs::File::open(namespace).map_err(failed)?;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Mount))
        .map_err(|e| failed(e.into()))
}

/// The command that stands for the call.
fn translate(call: &Call) -> CliResult<Args> {
    let repo = call.spec.as_bytes();
    let repo = repo.strip_prefix(PREFIX).unwrap_or(repo);
    let mut words = Words::new();
    words.add("repo", Some(OsStr::from_bytes(repo)));
    words.add("background", None);
    if !call.verbose {
        words.add("quiet", None);
    }
    let table = Table::new();
    for option in call.options.iter().flat_map(|text| split(text.as_bytes())) {
        let (name, value) = &option;
        match table.find(name) {
            FoundOption::Nothing => {}
            FoundOption::Argument { long, takes_value, once } => {
                if takes_value != value.is_some() {
                    let what = if takes_value { "needs a value" } else { "takes no value" };
                    return Err(CliError::new(Exit::Usage, format!("the option {name} {what}")));
                }
                if once {
                    words.forget(&long);
                }
                words.add(&long, value.as_deref());
            }
            FoundOption::Unknown(_) if call.sloppy => {}
            FoundOption::Unknown(nearest) => return Err(unknown(name, nearest)),
        }
    }
    words.parse(&call.dir)
}

fn unknown(name: &str, nearest: Option<String>) -> CliError {
    let error = CliError::new(Exit::Usage, format!("unknown option {:?}", name));
    match (name, nearest) {
        ("remount", _) => {
            error.hint("a mount is read-only and cannot be changed: unmount it and mount it again")
        }
        (_, Some(nearest)) => error.hint(format!("the nearest there is: {nearest}")),
        (_, None) => error.hint("`vykar mount --help` shows what there is; write _ for - and leave out --"),
    }
}

/// `a,b=c,d="e,f"` as names and values.
fn split(text: &[u8]) -> Vec<(String, Option<OsString>)> {
    let mut quoted = false;
    let parts = text.split(|c| {
        quoted ^= *c == b'"';
        *c == b',' && !quoted
    });
    let option = |part: &[u8]| {
        let (name, value) = match part.iter().position(|c| *c == b'=') {
            Some(at) => (&part[..at], Some(&part[at + 1..])),
            None => (part, None),
        };
        let value = value.map(|value| value.iter().copied().filter(|c| *c != b'"').collect());
        (String::from_utf8_lossy(name).into_owned(), value.map(OsString::from_vec))
    };
    parts.filter(|part| !part.is_empty()).map(option).collect()
}

/// What an option is.
enum FoundOption {
    /// Known, and without effect.
    Nothing,
    /// An argument of `vykar mount`; `once` if a later one replaces an earlier one.
    Argument { long: String, takes_value: bool, once: bool },
    /// Neither; the nearest known name.
    Unknown(Option<String>),
}

/// The arguments of `vykar mount`.
struct Table(clap::Command);

impl Table {
    fn new() -> Self {
        let mut all = Args::command();
        // Gives the subcommands the options that all commands take.
        all.build();
        Table(all.find_subcommand("mount").cloned().unwrap_or_default())
    }

    fn find(&self, name: &str) -> FoundOption {
        let mut without_effect = WITHOUT_EFFECT.split(' ');
        if without_effect.any(|known| known == name) || name.starts_with("x-") || name.starts_with("X-") {
            return FoundOption::Nothing;
        }
        let long = name.replace('_', "-");
        match self.arguments().find(|arg| arg.get_long() == Some(&long)) {
            Some(arg) => {
                let action = arg.get_action();
                let once = !matches!(action, ArgAction::Append | ArgAction::Count);
                FoundOption::Argument { long, takes_value: action.takes_values(), once }
            }
            None => FoundOption::Unknown(self.nearest(name)),
        }
    }

    fn arguments(&self) -> impl Iterator<Item = &clap::Arg> {
        let named = |arg: &&clap::Arg| arg.get_long().is_some_and(|long| !NOT_OPTIONS.contains(&long));
        self.0.get_arguments().filter(named)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let own = self.arguments().filter_map(|arg| arg.get_long()).map(|long| long.replace('-', "_"));
        let all = own.chain(WITHOUT_EFFECT.split(' ').map(str::to_owned));
        nearest(name, all)
    }
}

/// A command line in the making.
struct Words(Vec<(String, Option<OsString>)>);

impl Words {
    fn new() -> Self {
        Words(Vec::new())
    }

    fn add(&mut self, long: &str, value: Option<&OsStr>) {
        self.0.push((long.to_owned(), value.map(OsStr::to_owned)));
    }

    fn forget(&mut self, long: &str) {
        self.0.retain(|(other, _)| other != long);
    }

    fn parse(self, dir: &PathBuf) -> CliResult<Args> {
        let mut line: Vec<OsString> = vec!["vykar".into(), "mount".into()];
        for (long, value) in self.0 {
            let mut word = OsString::from(format!("--{long}"));
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            line.push(word);
        }
        line.extend(["--".into(), dir.into()]);
        let matches = Args::command().try_get_matches_from(line);
        matches.and_then(|matches| Args::from_arg_matches(&matches)).map_err(|e| {
            let text = e.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            CliError::new(Exit::Usage, first.strip_prefix("error: ").unwrap_or(first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    fn call(words: &[&str]) -> Call {
        Call::try_parse_from([&["mount.fuse.vykar"], words].concat()).unwrap()
    }

    fn translated(words: &[&str]) -> Args {
        translate(&call(words)).unwrap()
    }

    fn refused(options: &str) -> CliError {
        translate(&call(&["/repo", "/mnt", "-o", options])).unwrap_err()
    }

    #[test]
    fn options_become_arguments_and_a_later_one_replaces_an_earlier_one() {
        let options = "rw,lock_wait=5,allow_other,threads=3,x-systemd.automount,lock_wait=7,cache-dir=/c";
        let args = translated(&["vykar:/repo", "/mnt", "-n", "-o", options, "-o", "threads=2"]);
        assert_eq!(args.global.repo, Some("/repo".into()));
        assert_eq!((args.global.threads, args.global.lock_wait), (Some(2), 7));
        assert_eq!(args.global.cache_dir, Some("/c".into()));
        assert!(args.global.quiet);
        match args.command {
            Some(Command::Mount(args)) => {
                assert_eq!(args.mountpoint, Some(PathBuf::from("/mnt")));
                assert!(args.background && args.allow_other);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_of_mount_can_be_given() {
        for arg in Table::new().arguments() {
            let name = arg.get_long().unwrap().replace('-', "_");
            assert!(!matches!(Table::new().find(&name), FoundOption::Unknown(_)), "{name}");
        }
    }

    #[test]
    fn what_mount_passes_for_everything_is_accepted() {
        let options =
            WITHOUT_EFFECT.replace(' ', ",") + ",noexec,comment=x,user=ada,dev=/dev/x,X-mount.mkdir=0755";
        translated(&["/repo", "/mnt", "-o", &options, "-sfnv", "-t", "fuse.vykar"]);
        assert!(!translated(&["/repo", "/mnt", "-v"]).global.quiet);
    }

    #[test]
    fn quoted_values_hold_commas() {
        let args = translated(&["/repo", "/mnt", "-o", r#"ro,passcommand="cut -d, -f1 /x=y",threads=1"#]);
        assert_eq!(args.global.passcommand.as_deref(), Some("cut -d, -f1 /x=y"));
        assert_eq!(args.global.threads, Some(1));
    }

    #[test]
    fn unknown_options_are_named_with_the_nearest_known_one() {
        let error = refused("ro,cachesize=5");
        assert_eq!(error.to_string(), "unknown option \"cachesize\"");
        assert!(error.hint_text().unwrap().contains("cache_size"), "{error:?}");
        assert!(refused("alow_other").hint_text().unwrap().contains("allow_other"));
        assert!(refused("zzz").hint_text().unwrap().contains("--help"));
        assert!(refused("remount,ro").hint_text().unwrap().contains("unmount"));
        assert!(refused("repo=/x").to_string().contains("repo"));
        translated(&["/repo", "/mnt", "-s", "-o", "cachesize=5"]);
    }

    #[test]
    fn bad_values_are_named() {
        assert!(refused("cache_size=lots").to_string().contains("lots"));
        assert_eq!(refused("cache_size").to_string(), "the option cache_size needs a value");
        assert_eq!(refused("allow_other=yes").to_string(), "the option allow_other takes no value");
    }
}
