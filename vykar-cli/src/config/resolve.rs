//! From what a file says to what holds for each repository: defaults, overrides, and what does not go together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_saphyr::Spanned;
use vykar_core::backup::Excludes;
use vykar_core::codec::Compression;
use vykar_core::format::ChunkerParams;
use vykar_core::maintenance::KeepRules;
use vykar_core::maintenance::compact::DEFAULT_THRESHOLD;

use super::hooks::Hooks;
use super::values::{Algorithm, Cron, Secret};
use super::{Config, error, schema};
use crate::args::EncryptionArg;
use crate::exit::CliResult;

/// How often a scheduled check reads everything, when it reads a part otherwise.
const FULL_CHECK_EVERY: Duration = Duration::from_secs(60 * 86400);
/// How often the daemon runs where nothing is said.
const RUN_EVERY: Duration = Duration::from_secs(86400);

/// What holds for one repository.
#[derive(Debug, Clone)]
pub struct RepositoryPlan {
    /// As it is written.
    pub url: String,
    /// The folder; or why this is none that can be used.
    pub place: Result<PathBuf, String>,
    pub label: Option<String>,
    pub encryption: EncryptionArg,
    pub passphrase: Option<Secret>,
    pub passcommand: Option<String>,
    pub compression: Compression,
    pub pack_sizes: (Option<u32>, Option<u32>),
    pub chunker: ChunkerParams,
    pub retention: KeepRules,
    /// Percent of a pack.
    pub compact_threshold: u8,
    pub check: CheckPolicy,
    pub threads: Option<usize>,
    pub nice: Option<i32>,
    /// Bytes a second; 0 is no limit.
    pub upload_limit: Option<u64>,
    pub download_limit: Option<u64>,
    pub hooks: Hooks,
    pub schedule: Schedule,
    pub hostname: Option<String>,
    pub cache_dir: Option<PathBuf>,
    /// What is stored in it.
    pub sources: Vec<SourcePlan>,
    /// What holds for paths that are given on the command line.
    pub defaults: SourceOptions,
}

impl RepositoryPlan {
    /// What people call it.
    pub fn name(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.url)
    }
}

/// How scheduled checks look at the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckPolicy {
    /// Percent of the packs that are read each time.
    pub max_percent: u8,
    /// After this everything is read; never where it is `None`.
    pub full_every: Option<Duration>,
}

/// When the daemon runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub enabled: bool,
    pub every: Duration,
    /// In place of `every`.
    pub cron: Option<Cron>,
    pub on_startup: bool,
    /// Each run is later by up to so many seconds.
    pub jitter_seconds: u32,
}

/// How a source is read.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    pub excludes: Excludes,
    pub xattrs: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions { excludes: Excludes::default(), xattrs: true }
    }
}

/// What becomes one snapshot.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    pub label: String,
    pub paths: Vec<PathBuf>,
    pub options: SourceOptions,
    pub retention: Option<KeepRules>,
    pub hooks: Hooks,
    pub dumps: Vec<Dump>,
}

/// A file whose content a command prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    pub name: String,
    pub command: String,
}

/// A source, the repositories that it goes to, and its line.
struct Placed {
    source: SourcePlan,
    repos: Option<Vec<Spanned<String>>>,
    line: u64,
}

/// Puts everything together.
pub fn resolve(path: &Path, file: schema::ConfigFile) -> CliResult<Config> {
    let mut warnings = Vec::new();
    let chunker = chunker(path, &file.chunker)?;
    let sources = sources(path, &file, &mut warnings)?;
    let mut repositories: Vec<RepositoryPlan> = Vec::new();
    for repository in file.repositories.iter().flatten() {
        let plan = RepositoryPlan { chunker, ..repository_plan(path, &file, repository)? };
        let line = repository.url.referenced.line();
        let same =
            |other: &&RepositoryPlan| other.url == plan.url || plan.label.as_deref() == Some(other.name());
        if let Some(other) = repositories.iter().find(same) {
            let what = format!("`{}` is here a second time, by its url or its label", other.name());
            return Err(
                error::at(path, line, &what).hint("each repository needs a url and a label of its own")
            );
        }
        repositories.push(plan);
    }
    for placed in sources {
        for name in placed.repos.iter().flatten() {
            if !repositories.iter().any(|r| is_named(r, &name.value)) {
                return Err(unknown_repository(path, name, &repositories));
            }
        }
        let wanted = |r: &&mut RepositoryPlan| match &placed.repos {
            None => true,
            Some(names) => names.iter().any(|name| is_named(r, &name.value)),
        };
        for repository in repositories.iter_mut().filter(wanted) {
            if repository.sources.iter().any(|s| s.label == placed.source.label) {
                let what = format!("two sources are called `{}`", placed.source.label);
                return Err(error::at(path, placed.line, &what)
                    .hint("give each a label of its own: retention is applied to each label apart"));
            }
            repository.sources.push(placed.source.clone());
        }
    }
    let mount = file.mount.0.into_iter().map(|(key, v)| (key, v.value, v.referenced.line())).collect();
    Ok(Config { path: path.to_owned(), repositories, mount, warnings })
}

fn is_named(repository: &RepositoryPlan, name: &str) -> bool {
    repository.label.as_deref() == Some(name) || repository.url == name
}

fn unknown_repository(
    path: &Path,
    name: &Spanned<String>,
    repositories: &[RepositoryPlan],
) -> crate::exit::CliError {
    let known: Vec<&str> = repositories.iter().map(RepositoryPlan::name).collect();
    let error = error::at(path, name.referenced.line(), &format!("no repository is called `{}`", name.value));
    match error::nearest(&name.value, &known) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint(format!("there are: {}", known.join(", "))),
    }
}

fn repository_plan(
    path: &Path,
    file: &schema::ConfigFile,
    repository: &schema::RepositorySection,
) -> CliResult<RepositoryPlan> {
    let own = repository.encryption.clone().unwrap_or_default();
    // One that says where its passphrase comes from says all of it.
    let secret_from = match own.passphrase.is_some() || own.passcommand.is_some() {
        true => &own,
        false => &file.encryption,
    };
    if secret_from.passphrase.is_some() && secret_from.passcommand.is_some() {
        let what = "both `passphrase` and `passcommand` are given";
        return Err(error::at(path, repository.url.referenced.line(), what).hint("keep one of them"));
    }
    let limits = repository.limits.unwrap_or_default();
    let compression = repository.compression.unwrap_or_default();
    let algorithm = compression.algorithm.or(file.compression.algorithm).unwrap_or(Algorithm::Zstd);
    let level = compression.zstd_level.or(file.compression.zstd_level).unwrap_or(3);
    let schedule = repository.schedule.as_ref().or(file.schedule.as_ref()).cloned().unwrap_or_default();
    let folder = &folder_of(path);
    Ok(RepositoryPlan {
        url: repository.url.value.clone(),
        place: place(folder, &repository.url.value),
        label: repository.label.as_ref().map(|label| label.value.clone()),
        encryption: own.mode.or(file.encryption.mode).unwrap_or(EncryptionArg::Auto),
        passphrase: secret_from.passphrase.clone(),
        passcommand: secret_from.passcommand.clone(),
        compression: match algorithm {
            Algorithm::Zstd => Compression::Zstd(level),
            Algorithm::Lz4 => Compression::Lz4,
            Algorithm::None => Compression::None,
        },
        pack_sizes: (repository.min_pack_size, repository.max_pack_size),
        chunker: ChunkerParams::FILES,
        retention: rules(&repository.retention.or(file.retention).unwrap_or_default()),
        compact_threshold: file.compact.threshold.unwrap_or(DEFAULT_THRESHOLD),
        check: CheckPolicy {
            max_percent: file.check.max_percent.unwrap_or(0),
            full_every: file.check.full_every.unwrap_or(Some(FULL_CHECK_EVERY)),
        },
        threads: limits.threads.or(file.limits.threads),
        nice: limits.nice.or(file.limits.nice),
        upload_limit: limits.upload_mib_per_sec.or(file.limits.upload_mib_per_sec),
        download_limit: limits.download_mib_per_sec.or(file.limits.download_mib_per_sec),
        hooks: file.hooks.with(&repository.hooks),
        schedule: Schedule {
            enabled: schedule.enabled.unwrap_or(false),
            every: schedule.every.unwrap_or(RUN_EVERY),
            cron: schedule.cron,
            on_startup: schedule.on_startup.unwrap_or(false),
            jitter_seconds: schedule.jitter_seconds.unwrap_or(0),
        },
        hostname: file.hostname.clone(),
        cache_dir: file.cache_dir.as_ref().map(|dir| absolute(folder, dir)),
        sources: Vec::new(),
        defaults: SourceOptions { excludes: excludes(file), xattrs: file.xattrs.enabled.unwrap_or(true) },
    })
}

/// The folder of a repository, or why it is none.
fn place(folder: &Path, url: &str) -> Result<PathBuf, String> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    match scheme {
        Some("file") => match url.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err("file: needs an absolute path, as in file:///srv/backup".to_owned()),
        },
        Some(scheme) if is_scheme(scheme) => {
            Err(format!("{scheme}: this kind of storage is not supported yet"))
        }
        _ => Ok(absolute(folder, url)),
    }
}

/// The folder that relative paths in a configuration are taken from.
pub fn folder_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().map(Path::to_owned).unwrap_or_default()
}

/// A path with `~` put in, from the configuration's folder.
pub fn absolute(folder: &Path, path: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match (path.strip_prefix('~'), home()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => folder.join(path),
    }
}

fn chunker(path: &Path, chunker: &schema::ChunkerSection) -> CliResult<ChunkerParams> {
    let default = ChunkerParams::FILES;
    let params = ChunkerParams {
        min: chunker.min_size.unwrap_or(default.min),
        avg: chunker.avg_size.unwrap_or(default.avg),
        max: chunker.max_size.unwrap_or(default.max),
    };
    params.check().map_err(|e| {
        error::at(path, 0, &format!("chunker: {e}"))
            .hint("sizes in bytes; the defaults are 524288, 2097152 and 8388608")
    })?;
    Ok(params)
}

fn rules(retention: &schema::Retention) -> KeepRules {
    KeepRules {
        last: retention.keep_last,
        hourly: retention.keep_hourly,
        daily: retention.keep_daily,
        weekly: retention.keep_weekly,
        monthly: retention.keep_monthly,
        yearly: retention.keep_yearly,
        within: retention.keep_within,
    }
}

fn texts(all: Option<&Vec<Spanned<String>>>) -> impl Iterator<Item = String> {
    all.into_iter().flatten().map(|text| text.value.clone())
}

fn excludes(file: &schema::ConfigFile) -> Excludes {
    Excludes {
        patterns: texts(file.exclude_patterns.as_ref()).map(String::into_bytes).collect(),
        if_present: texts(file.exclude_if_present.as_ref()).collect(),
        git_ignore: file.git_ignore.unwrap_or(false),
        one_file_system: file.one_file_system.unwrap_or(false),
        ..Excludes::default()
    }
}

/// All sources; plain paths together are one.
fn sources(path: &Path, file: &schema::ConfigFile, warnings: &mut Vec<String>) -> CliResult<Vec<Placed>> {
    let folder = &folder_of(path);
    check_patterns(path, file.exclude_patterns.as_ref())?;
    check_markers(path, file.exclude_if_present.as_ref())?;
    let options = SourceOptions { excludes: excludes(file), xattrs: file.xattrs.enabled.unwrap_or(true) };
    let mut plain: Vec<PathBuf> = Vec::new();
    let mut plain_line = 0;
    let mut all = Vec::new();
    for source in file.sources.iter().flatten() {
        let line = source.referenced.line();
        match &source.value {
            schema::SourceSection::Path(text) => {
                plain.push(absolute(folder, text));
                plain_line = line;
            }
            schema::SourceSection::Map(map) => {
                let source = source_plan(path, line, map, &options)?;
                all.push(Placed { source, repos: map.repos.clone(), line });
            }
        }
    }
    if !plain.is_empty() {
        let source = SourcePlan {
            label: default_label(&plain),
            paths: plain,
            options,
            retention: None,
            hooks: Hooks::default(),
            dumps: Vec::new(),
        };
        all.insert(0, Placed { source, repos: None, line: plain_line });
    }
    for Placed { source, line, .. } in &all {
        warnings.extend(links(source).into_iter().map(|what| format!("line {line}: {what}")));
    }
    Ok(all)
}

/// The directory's name where there is one, else `default`.
fn default_label(paths: &[PathBuf]) -> String {
    let name = match paths {
        [one] => one.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    name.unwrap_or_else(|| "default".to_owned())
}

fn source_plan(
    path: &Path,
    line: u64,
    map: &schema::SourceMap,
    defaults: &SourceOptions,
) -> CliResult<SourcePlan> {
    let folder = &folder_of(path);
    let wrong = |what: &str, hint: &str| Err(error::at(path, line, what).hint(hint));
    let paths: Vec<PathBuf> = match (&map.path, &map.paths) {
        (Some(_), Some(_)) => return wrong("a source with both `path` and `paths`", "keep one of them"),
        (Some(one), None) => vec![absolute(folder, &one.value)],
        (None, several) => texts(several.as_ref()).map(|text| absolute(folder, &text)).collect(),
    };
    let dumps = map.command_dumps.iter().flatten();
    let dumps: Vec<Dump> = dumps.map(|d| Dump { name: d.name.clone(), command: d.command.clone() }).collect();
    if let Some(twice) =
        dumps.iter().enumerate().find(|(at, d)| dumps[..*at].iter().any(|o| o.name == d.name))
    {
        return wrong(&format!("two dumps are called `{}`", twice.1.name), "give each a name of its own");
    }
    let label = match (&map.label, paths.len()) {
        (Some(label), _) => label.value.clone(),
        (None, 1) => default_label(&paths),
        (None, 0) if dumps.is_empty() => {
            return wrong("a source without a path", "give `path: /what/to/store`, or `paths` with a list");
        }
        (None, _) => {
            return wrong("a source without a label", "several paths, or none but dumps, need a `label`");
        }
    };
    if label.is_empty() || (paths.is_empty() && dumps.is_empty()) {
        return wrong("a source with nothing in it", "it needs a label, and a path or dumps");
    }
    check_patterns(path, map.exclude.as_ref())?;
    check_markers(path, map.exclude_if_present.as_ref())?;
    let mut excludes = defaults.excludes.clone();
    excludes.patterns.extend(texts(map.exclude.as_ref()).map(String::into_bytes));
    excludes.if_present.extend(texts(map.exclude_if_present.as_ref()));
    excludes.one_file_system = map.one_file_system.unwrap_or(excludes.one_file_system);
    excludes.git_ignore = map.git_ignore.unwrap_or(excludes.git_ignore);
    let xattrs = map.xattrs.and_then(|x| x.enabled).unwrap_or(defaults.xattrs);
    Ok(SourcePlan {
        label,
        paths,
        options: SourceOptions { excludes, xattrs },
        retention: map.retention.as_ref().map(rules),
        hooks: map.hooks.clone(),
        dumps,
    })
}

fn check_patterns(path: &Path, patterns: Option<&Vec<Spanned<String>>>) -> CliResult<()> {
    for pattern in patterns.into_iter().flatten() {
        vykar_core::rules::check(pattern.value.as_bytes()).map_err(|e| {
            error::at(path, pattern.referenced.line(), &e)
                .hint("rules are those of a .gitignore: *.o, cache/, /top/only, !not/this")
        })?;
    }
    Ok(())
}

fn check_markers(path: &Path, names: Option<&Vec<Spanned<String>>>) -> CliResult<()> {
    for name in names.into_iter().flatten() {
        Excludes::check_marker(&name.value).map_err(|e| {
            error::at(path, name.referenced.line(), &e)
                .hint("`exclude_if_present` takes names of entries that mark a directory, as in .nobackup")
        })?;
    }
    Ok(())
}

/// Symlinks among the paths, which are stored without what they lead to.
fn links(source: &SourcePlan) -> Vec<String> {
    let is_link = |path: &&PathBuf| {
        // With a slash behind it what it leads to is looked at, and stored.
        path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) && path.is_dir()
    };
    let warning = |path: &PathBuf| {
        let shown = path.display();
        format!("{shown} is a symlink and is stored as one; write `{shown}/` to store what it leads to")
    };
    source.paths.iter().filter(is_link).map(warning).collect()
}
