//! A configuration to begin with, and what one means.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use vykar_core::maintenance::KeepRules;

use super::{print, print_json, series};
use crate::args::{ConfigArgs, ConfigCommand, GlobalArgs};
use crate::config::{self, Config, Hooks, RepositoryPlan, Schedule, SourcePlan};
use crate::exit::{CliError, CliResult, Exit};
use crate::render;

/// Every key, with what it means.
const STARTER: &str = include_str!("../config/starter.yaml");

pub fn run(global: &GlobalArgs, args: &ConfigArgs) -> CliResult {
    let json = match args.command {
        None => {
            print(STARTER);
            return Ok(Exit::Success);
        }
        Some(ConfigCommand::Check { json }) => json,
    };
    let Some(mut config) = config::load(global.config.as_deref(), false)? else {
        let places: Vec<String> = config::places().iter().map(|p| render::path(p)).collect();
        return Err(CliError::new(Exit::Usage, format!("no configuration: none of {}", places.join(", ")))
            .hint("`vykar config > vykar.yaml` makes one to begin with"));
    };
    config.warnings.extend(series::warnings(global, &config)?);
    match json {
        true => print_json(&config_json(&config))?,
        false => print(&explain(&config)),
    }
    for warning in &config.warnings {
        say!("{}, {warning}", render::path(&config.path));
    }
    Ok(Exit::Success)
}

fn explain(config: &Config) -> String {
    let mut out = format!("{}\n", render::path(&config.path));
    if config.repositories.is_empty() {
        out.push_str("No repositories: give one with -R\n");
    }
    for repository in &config.repositories {
        out.push('\n');
        repository_text(&mut out, repository);
    }
    if !config.mount.is_empty() {
        let options: Vec<String> =
            config.mount.iter().map(|(key, value, _)| format!("{key}: {value}")).collect();
        let _ = writeln!(out, "\nmount: {}", options.join(", "));
    }
    out
}

fn repository_text(out: &mut String, plan: &RepositoryPlan) {
    // Only memory is written to.
    let mut line = |text: String| writeln!(out, "{text}").unwrap_or_default();
    line(format!("Repository {}", render::plain(plan.name().as_bytes())));
    match &plan.place {
        Ok(place) => line(format!("  folder       {}", render::path(place))),
        Err(why) => line(format!("  not usable   {}", render::plain(why.as_bytes()))),
    }
    line(format!("  passphrase   {}", passphrase_from(plan)));
    line(format!("  compression  {}", compression(plan)));
    line(format!("  kept         {}", rules(&plan.retention)));
    line(format!("  compact      packs of which {} % are dead", plan.compact_threshold));
    line(format!("  schedule     {}", schedule(&plan.schedule)));
    for (key, commands) in plan.hooks.all() {
        line(format!("  hook         {key}: {}", commands.join("; ")));
    }
    if plan.sources.is_empty() {
        line("  no sources: give paths to `vykar backup`".to_owned());
    }
    for source in &plan.sources {
        source_lines(source, &mut line);
    }
}

fn source_lines(source: &SourcePlan, line: &mut impl FnMut(String)) {
    line(format!("  Source {}", render::plain(source.label.as_bytes())));
    for path in &source.paths {
        let missing = if path.symlink_metadata().is_ok() { "" } else { "  (does not exist now)" };
        line(format!("    path       {}{missing}", render::path(path)));
    }
    for dump in &source.dumps {
        line(format!("    dump       {} from `{}`", dump.name, dump.command));
    }
    for part in left_out(source) {
        line(format!("    left out   {part}"));
    }
    if let Some(own) = &source.retention {
        line(format!("    kept       {}", rules(own)));
    }
    for (key, commands) in source.hooks.all() {
        line(format!("    hook       {key}: {}", commands.join("; ")));
    }
}

fn left_out(source: &SourcePlan) -> Vec<String> {
    let excludes = &source.options.excludes;
    let mut parts: Vec<String> = excludes.patterns.iter().map(|rule| render::plain(rule)).collect();
    parts.extend(excludes.if_present.iter().map(|name| format!("directories that hold {name}")));
    if excludes.git_ignore {
        parts.push("what .gitignore files say".to_owned());
    }
    if excludes.one_file_system {
        parts.push("other file systems".to_owned());
    }
    if !source.options.xattrs {
        parts.push("extended attributes".to_owned());
    }
    parts
}

fn passphrase_from(plan: &RepositoryPlan) -> &'static str {
    match (&plan.passphrase, &plan.passcommand) {
        (Some(_), _) => "from this file",
        (None, Some(_)) => "from a command",
        (None, None) => "from VYKAR_PASSPHRASE or a prompt",
    }
}

fn compression(plan: &RepositoryPlan) -> String {
    use vykar_core::codec::Compression;
    match plan.compression {
        Compression::Zstd(level) => format!("zstd, level {level}"),
        Compression::Lz4 => "lz4".to_owned(),
        Compression::None => "none".to_owned(),
    }
}

fn rules(rules: &KeepRules) -> String {
    let counts = [
        (rules.last, "last"),
        (rules.hourly, "hourly"),
        (rules.daily, "daily"),
        (rules.weekly, "weekly"),
        (rules.monthly, "monthly"),
        (rules.yearly, "yearly"),
    ];
    let mut parts: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    parts.extend(rules.within.map(|within| format!("all of {} hours", within.as_secs() / 3600)));
    if parts.is_empty() { "everything (no retention)".to_owned() } else { parts.join(", ") }
}

fn schedule(schedule: &Schedule) -> String {
    if !schedule.enabled {
        return "off".to_owned();
    }
    let mut text = match &schedule.cron {
        Some(cron) => format!("cron {}", cron.text),
        None => format!("every {}", span(schedule.every)),
    };
    if schedule.on_startup {
        text.push_str(", and when the daemon starts");
    }
    if schedule.jitter_seconds > 0 {
        let _ = write!(text, ", up to {} s later", schedule.jitter_seconds);
    }
    text
}

/// A span of time in the units of a configuration.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts =
        [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}

fn config_json(config: &Config) -> Value {
    json!({
        "path": config.path.to_string_lossy(),
        "repositories": config.repositories.iter().map(repository_json).collect::<Vec<_>>(),
        "warnings": config.warnings,
    })
}

fn repository_json(plan: &RepositoryPlan) -> Value {
    json!({
        "url": plan.url,
        "label": plan.label,
        "folder": plan.place.as_ref().ok().map(|place| place.to_string_lossy()),
        "problem": plan.place.as_ref().err(),
        "passphrase": passphrase_from(plan),
        "retention": rules_json(&plan.retention),
        "compact_threshold": plan.compact_threshold,
        "check": {
            "max_percent": plan.check.max_percent,
            "full_every_seconds": plan.check.full_every.map(|every| every.as_secs()),
        },
        "schedule": {
            "enabled": plan.schedule.enabled,
            "every_seconds": plan.schedule.every.as_secs(),
            "cron": plan.schedule.cron.as_ref().map(|cron| &cron.text),
            "on_startup": plan.schedule.on_startup,
            "jitter_seconds": plan.schedule.jitter_seconds,
        },
        "hooks": hooks_json(&plan.hooks),
        "sources": plan.sources.iter().map(source_json).collect::<Vec<_>>(),
    })
}

fn source_json(source: &SourcePlan) -> Value {
    let excludes = &source.options.excludes;
    json!({
        "label": source.label,
        "paths": source.paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "exclude": excludes.patterns.iter().map(|rule| String::from_utf8_lossy(rule)).collect::<Vec<_>>(),
        "exclude_if_present": excludes.if_present,
        "one_file_system": excludes.one_file_system,
        "git_ignore": excludes.git_ignore,
        "xattrs": source.options.xattrs,
        "retention": source.retention.as_ref().map(rules_json),
        "hooks": hooks_json(&source.hooks),
        "command_dumps": source.dumps.iter()
            .map(|dump| json!({ "name": dump.name, "command": dump.command })).collect::<Vec<_>>(),
    })
}

fn rules_json(rules: &KeepRules) -> Value {
    json!({
        "keep_last": rules.last,
        "keep_hourly": rules.hourly,
        "keep_daily": rules.daily,
        "keep_weekly": rules.weekly,
        "keep_monthly": rules.monthly,
        "keep_yearly": rules.yearly,
        "keep_within_seconds": rules.within.map(|within| within.as_secs()),
    })
}

fn hooks_json(hooks: &Hooks) -> Value {
    hooks.all().map(|(key, commands)| (key.to_owned(), json!(commands))).collect()
}
