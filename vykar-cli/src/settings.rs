//! What holds for one repository: the command line, and behind it the configuration.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use vykar_core::repository::Passphrase;

use crate::args::GlobalArgs;
use crate::config::{self, Config, RepositoryPlan, Secret};
use crate::exit::{CliError, CliResult, Exit};
use crate::problems::Problems;
use crate::render;

/// Everything that commands need to know about a repository and how to work with it.
#[derive(Clone, Default)]
pub struct ResolvedOptions {
    /// The folder of the repository.
    pub repo: PathBuf,
    /// In which order passphrases are looked for: see [`crate::passphrase::current`].
    pub passphrase_file: Option<PathBuf>,
    pub passcommand: Option<String>,
    pub configured_passphrase: Option<Secret>,
    pub configured_passcommand: Option<String>,
    /// The one that was found.
    pub passphrase: Arc<OnceLock<Passphrase>>,
    /// What went wrong with single files, for hooks.
    pub problems: Arc<Problems>,
    /// It is the one that snapshots are copied to, with a passphrase of its own.
    pub is_destination: bool,
    pub trust_repo: bool,
    pub cache_dir: Option<PathBuf>,
    /// 0 chooses.
    pub threads: usize,
    pub nice: i32,
    /// Bytes a second; 0 is no limit.
    pub upload_limit: u64,
    pub download_limit: u64,
    /// Seconds.
    pub lock_wait: u64,
    pub metrics_file: Option<PathBuf>,
    /// How often `-v` was given.
    pub verbose: u8,
    pub quiet: bool,
    /// What the configuration says about it, if it is in there.
    pub plan: Option<Box<RepositoryPlan>>,
}

impl ResolvedOptions {
    /// What people call the repository, where there are several.
    pub fn name(&self) -> String {
        match &self.plan {
            Some(plan) => plan.name().to_owned(),
            None => render::path(&self.repo),
        }
    }
}

/// What a command works with.
pub enum ChosenRepositories {
    /// The repository that was given, or the only one that is configured.
    One(Box<ResolvedOptions>),
    /// All that are configured.
    All(Vec<CliResult<ResolvedOptions>>),
}

/// Finds out which repositories are meant.
///
/// # Errors
/// None is given, or the configuration is wrong.
pub fn choose(args: &GlobalArgs, config: Option<&Config>) -> CliResult<ChosenRepositories> {
    match (&args.repo, config) {
        (Some(repo), config) => {
            let planned = config.and_then(|config| config.repositories.iter().find(|r| is_meant(r, repo)));
            match planned {
                Some(plan) => planned_settings(args, plan).map(Box::new).map(ChosenRepositories::One),
                None => Ok(ChosenRepositories::One(Box::new(ResolvedOptions {
                    repo: absolute(repo)?,
                    ..given(args)
                }))),
            }
        }
        (None, Some(config)) => match &config.repositories[..] {
            [] => Err(CliError::new(
                Exit::Usage,
                format!("{}: no repository is configured", render::path(&config.path)),
            )
            .hint("add one under `repositories`, or give its folder with -R REPO")),
            [one] => planned_settings(args, one).map(Box::new).map(ChosenRepositories::One),
            several => {
                Ok(ChosenRepositories::All(several.iter().map(|plan| planned_settings(args, plan)).collect()))
            }
        },
        (None, None) => Err(CliError::new(Exit::Usage, "no repository given")
            .hint("give its folder with -R REPO, set VYKAR_REPO, or write a configuration (`vykar config`)")),
    }
}

/// The one repository that a command works with.
///
/// # Errors
/// There are several, and none was chosen.
pub fn one(chosen: ChosenRepositories) -> CliResult<ResolvedOptions> {
    match chosen {
        ChosenRepositories::One(one) => Ok(*one),
        ChosenRepositories::All(all) => {
            let names: Vec<String> = all.iter().flatten().map(ResolvedOptions::name).collect();
            Err(CliError::new(Exit::Usage, "several repositories are configured, and this is about one")
                .hint(format!("choose with -R: {}", names.join(", "))))
        }
    }
}

/// True when `repo` names this repository: by its label, its url, or its folder.
fn is_meant(plan: &RepositoryPlan, repo: &Path) -> bool {
    let text = repo.to_str();
    let same_folder = || {
        let (Ok(ours), Ok(theirs)) = (plan.place.as_deref(), absolute(repo)) else { return false };
        absolute(ours).is_ok_and(|ours| ours == theirs)
    };
    text.is_some_and(|text| plan.label.as_deref() == Some(text) || plan.url == text) || same_folder()
}

/// What the command line says.
fn given(args: &GlobalArgs) -> ResolvedOptions {
    ResolvedOptions {
        repo: PathBuf::new(),
        passphrase_file: args.passphrase_file.clone(),
        passcommand: args.passcommand.clone(),
        configured_passphrase: None,
        configured_passcommand: None,
        passphrase: Arc::default(),
        problems: Arc::default(),
        is_destination: false,
        trust_repo: args.trust_repo,
        cache_dir: args.cache_dir.clone(),
        threads: args.threads.unwrap_or(0),
        nice: args.nice.unwrap_or(0),
        upload_limit: args.upload_limit.unwrap_or(0),
        download_limit: args.download_limit.unwrap_or(0),
        lock_wait: args.lock_wait,
        metrics_file: args.metrics_file.clone(),
        verbose: args.verbose,
        quiet: args.quiet,
        plan: None,
    }
}

/// The same, and behind it what is configured.
fn planned_settings(args: &GlobalArgs, plan: &RepositoryPlan) -> CliResult<ResolvedOptions> {
    let place = plan.place.as_ref().map_err(|why| {
        CliError::new(Exit::Usage, format!("repository {}: {why}", plan.name()))
            .hint("a repository is a folder, on this machine or mounted on it")
    })?;
    let given = given(args);
    Ok(ResolvedOptions {
        repo: absolute(place)?,
        configured_passphrase: plan.passphrase.clone(),
        configured_passcommand: plan.passcommand.clone(),
        cache_dir: given.cache_dir.clone().or_else(|| plan.cache_dir.clone()),
        threads: args.threads.or(plan.threads).unwrap_or(0),
        nice: args.nice.or(plan.nice).unwrap_or(0),
        upload_limit: args.upload_limit.or(plan.upload_limit).unwrap_or(0),
        download_limit: args.download_limit.or(plan.download_limit).unwrap_or(0),
        plan: Some(Box::new(plan.clone())),
        ..given
    })
}

/// Absolute, so that it is remembered under one name.
fn absolute(path: &Path) -> CliResult<PathBuf> {
    let absolute = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    absolute.map_err(|e| CliError::new(Exit::Usage, format!("{}: {e}", path.display())))
}

/// The configuration that was named, else the first that is found. A repository that is given as a path needs none, so
/// none is looked for; a word may be the label of one, or a folder here.
pub fn configuration(args: &GlobalArgs) -> CliResult<Option<Config>> {
    let repo = args.repo.as_deref();
    match &args.config {
        None if repo.is_some_and(is_path) => Ok(None),
        named => config::load(named.as_deref(), repo.is_some_and(Path::is_dir)),
    }
}

/// True for what cannot be a label: it has a `/`, or is `.` or `..`.
fn is_path(repo: &Path) -> bool {
    let bytes = repo.as_os_str().as_encoded_bytes();
    bytes.contains(&b'/') || bytes == b"." || bytes == b".."
}
