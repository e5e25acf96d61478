//! Snapshots of this machine that no source of the configuration continues: what is kept of them nobody decides.

use std::collections::BTreeMap;

use vykar_core::format::Snapshot;
use vykar_core::platform::process::short_hostname;
use vykar_core::repository::Repository;

use crate::args::{GlobalArgs, ResolvedOptions};
use crate::config::{Config, RepositoryPlan};
use crate::exit::CliResult;
use crate::settings;
use crate::settings::ChosenRepositories;
use crate::{context, passphrase, render};

/// Labels of snapshots that this machine made and that no source has, with their numbers of snapshots.
fn unfed(plan: &RepositoryPlan, snapshots: &[Snapshot]) -> BTreeMap<String, usize> {
    let host = plan.hostname.clone().unwrap_or_else(short_hostname);
    let mut found = BTreeMap::new();
    // Without sources everything is pruned by one rule.
    let mine = snapshots.iter().filter(|s| !plan.sources.is_empty() && s.meta.hostname == host);
    for label in mine.map(Snapshot::label).filter(|label| plan.sources.iter().all(|s| s.label != *label)) {
        *found.entry(label.to_owned()).or_insert(0) += 1;
    }
    found
}

fn text(label: &str, count: usize) -> String {
    let label = render::plain(label.as_bytes());
    format!(
        "no source is called `{label}`, as {count} snapshot(s) of this machine are: prune leaves them alone; \
         `label: {label}` makes a source continue them"
    )
}

/// Says which there are, after a prune by the rules of the configuration.
pub fn warn(global: &ResolvedOptions) -> CliResult<()> {
    let Some(plan) = global.plan.as_ref().filter(|_| !global.quiet) else { return Ok(()) };
    for (label, count) in unfed(plan, &context::open(global)?.manifest()?.snapshots) {
        say!("{}", text(&label, count));
    }
    Ok(())
}

/// The same for all repositories of a configuration that can be opened without asking for a passphrase or running a
/// command.
pub fn warnings(args: &GlobalArgs, config: &Config) -> CliResult<Vec<String>> {
    let chosen = match settings::choose(args, Some(config)) {
        Ok(ChosenRepositories::One(one)) => vec![*one],
        Ok(ChosenRepositories::All(all)) => all.into_iter().flatten().collect(),
        // What is wrong with it is said elsewhere.
        Err(_) => Vec::new(),
    };
    let mut warnings = Vec::new();
    for global in chosen.iter().filter(|global| global.repo.join("config").is_file()) {
        let Some(plan) = &global.plan else { continue };
        let Ok(repository) = look(global) else { continue };
        let found = unfed(plan, &repository.manifest()?.snapshots);
        let name = render::plain(plan.name().as_bytes());
        warnings
            .extend(found.iter().map(|(label, count)| format!("repository {name}: {}", text(label, *count))));
    }
    Ok(warnings)
}

/// Opens a repository, leaving no trace.
fn look(global: &ResolvedOptions) -> CliResult<Repository> {
    let mut passphrase = || match passphrase::is_at_hand(global) {
        true => passphrase::current(global, false),
        false => Err("no passphrase is at hand".to_owned()),
    };
    let options = vykar_core::repository::OpenOptions { cache_dir: None, trust: true };
    Ok(Repository::open(context::backend(global, &Default::default())?, &mut passphrase, &options)?)
}
