//! Options of `mount` that say what is shown, and how.

use std::ffi::OsString;

use jiff::Timestamp;
use vykar_core::repository::Repository;
use vykar_mount::view::attr_mapping::{Look, OnDamage, Shown, SnapshotQuery, Top};
use vykar_mount::view::template::{MAX_TEMPLATES, Template};

use crate::exit::{CliError, CliResult, Exit};
use crate::filter::OriginArgs;
use crate::location::Location;
use crate::parse;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What is shown")]
pub struct ViewArgs {
    /// Show this snapshot only, or this folder of it, at the top of the mount
    ///
    /// `latest` is the newest now: the mount stays with it. With --label, --host or --since, the
    /// newest of those.
    #[arg(long, value_name = "SNAPSHOT[:PATH]", conflicts_with = "path_template")]
    pub snapshot: Option<OsString>,
    #[command(flatten)]
    pub origin: OriginArgs,
    /// Show snapshots of this age or younger only: 2026-01-31, an RFC 3339 time, or how long before now
    ///
    /// How long is a number and a unit: h, d, w, m (30 days) or y (365 days), as in 30d or 1y6m.
    #[arg(long, value_name = "WHEN", value_parser = parse::since)]
    pub since: Option<Timestamp>,
    /// The folders, in place of ids, snapshots, hosts and labels; up to four times
    ///
    /// A path from the top of the mount, as by-day/%Y-%m-%d/{host}-{label}: with {id}, {host}, {label},
    /// {name}, and %Y and its like (strftime) for parts of the snapshot's time. Every snapshot is once
    /// under each.
    #[arg(long, value_name = "TEMPLATE")]
    pub path_template: Vec<Template>,
    /// Show this user as the owner of everything
    #[arg(long, value_name = "USER", value_parser = parse::user)]
    pub uid: Option<u32>,
    /// Show this group as the group of everything
    #[arg(long, value_name = "GROUP", value_parser = parse::group)]
    pub gid: Option<u32>,
    /// Take these permission bits (octal) away from everything
    #[arg(long, value_name = "OCTAL", value_parser = parse::umask)]
    pub umask: Option<u16>,
    /// Show root as the owner and group of everything
    #[arg(long, conflicts_with_all = ["uid", "gid"])]
    pub owner_root: bool,
    /// What readers get of a part of a file that is damaged or gone
    #[arg(long, value_enum, default_value_t = OnDamageArg::Error)]
    pub on_damage: OnDamageArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDamageArg {
    /// An input/output error
    Error,
    /// Zeros in its place, and a line that says so
    Zero,
}

impl ViewArgs {
    /// What these options choose. Only `--snapshot` needs to look into the repository.
    pub fn shown(&self, repository: &Repository) -> CliResult<Shown> {
        let filter = self.origin.filter(self.since);
        let root = self.owner_root.then_some(0);
        Ok(Shown {
            top: self.snapshot.as_ref().map(|wanted| top(repository, wanted, &filter)).transpose()?,
            filter,
            templates: self.templates()?,
            look: Look { uid: self.uid.or(root), gid: self.gid.or(root), umask: self.umask.unwrap_or(0) },
            on_damage: match self.on_damage {
                OnDamageArg::Error => OnDamage::Error,
                OnDamageArg::Zero => OnDamage::Zero,
            },
        })
    }

    fn templates(&self) -> CliResult<Vec<Template>> {
        let wrong = |what: String| Err(CliError::new(Exit::Usage, format!("--path-template: {what}")));
        if self.path_template.len() > MAX_TEMPLATES {
            return wrong(format!("{} of them, and at most {MAX_TEMPLATES}", self.path_template.len()));
        }
        for (at, template) in self.path_template.iter().enumerate() {
            if self.path_template[..at].contains(template) {
                return wrong(format!("{template}: given twice"));
            }
        }
        Ok(self.path_template.clone())
    }
}

/// The folder that `SNAPSHOT[:PATH]` names.
fn top(repository: &Repository, wanted: &OsString, filter: &SnapshotQuery) -> CliResult<Top> {
    let mut manifest = repository.manifest()?;
    manifest.snapshots.retain(|snapshot| filter.allows(snapshot));
    let place = Location::resolve(&manifest, wanted)?;
    Ok(Top { snapshot: place.snapshot.id, path: place.path.to_vec() })
}
