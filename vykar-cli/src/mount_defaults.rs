//! What `vykar mount` takes from the configuration where the command line is silent.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::args::{Args, Command};
use crate::config::{Config, MountValue, error};
use crate::exit::CliResult;
use crate::settings;

/// Adds what the configuration says to a call of `vykar mount`; other commands stay as they are.
pub fn add(args: Args, words: Vec<OsString>) -> CliResult<Args> {
    if !matches!(args.command, Some(Command::Mount(_))) {
        return Ok(args);
    }
    match settings::configuration(&args.global)? {
        Some(config) if !config.mount.is_empty() => with(&config, words),
        _ => Ok(args),
    }
}

fn with(config: &Config, mut words: Vec<OsString>) -> CliResult<Args> {
    let mut command = Args::command();
    command.build();
    // It has just been parsed.
    let Some(mount) = command.find_subcommand("mount").cloned() else { return Ok(Args::parse_from(words)) };
    let matches = command.clone().get_matches_from(&words);
    let given = matches.subcommand_matches("mount");
    let is_given =
        |id: &str| given.is_some_and(|given| given.value_source(id) == Some(ValueSource::CommandLine));
    let mut mountpoint = None;
    let mut line = 0;
    for (key, value, at) in &config.mount {
        line = *at;
        let wrong = |what: String| error::at(&config.path, *at, &what);
        if key == "mountpoint" {
            match value {
                MountValue::Text(path) if !is_given("mountpoint") => {
                    mountpoint = Some(crate::config::absolute_path(&config.path, path).into_os_string());
                }
                MountValue::Text(_) => {}
                _ => return Err(wrong("mount: `mountpoint` must be a folder".to_owned())),
            }
            continue;
        }
        let long = key.replace('_', "-");
        let options = || mount.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help");
        let Some(option) = options().find(|arg| arg.get_long() == Some(&long)) else {
            let known = options().filter_map(|arg| Some(arg.get_long()?.replace('-', "_")));
            let known = known.chain(["mountpoint".to_owned()]);
            let unknown = wrong(format!("mount: unknown key `{key}`"));
            return Err(match error::nearest(key, known) {
                Some(nearest) => unknown.hint(format!("did you mean `{nearest}`?")),
                None => unknown.hint("`vykar mount --help` lists the options; write _ for -"),
            });
        };
        if is_given(option.get_id().as_str()) {
            continue;
        }
        let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
        match value {
            MountValue::Switch(true) if is_switch => words.push(format!("--{long}").into()),
            MountValue::Switch(false) if is_switch => {}
            MountValue::Text(text) if !is_switch => words.push(format!("--{long}={text}").into()),
            MountValue::Several(all) if matches!(option.get_action(), ArgAction::Append) => {
                words.extend(all.iter().map(|text| OsString::from(format!("--{long}={text}"))));
            }
            _ if is_switch => return Err(wrong(format!("mount: `{key}` must be true or false"))),
            _ => return Err(wrong(format!("mount: `{key}` must be one text or number"))),
        }
    }
    if let Some(path) = mountpoint {
        words.extend(["--".into(), path]);
    }
    let matches = command.try_get_matches_from(words);
    matches.and_then(|matches| Args::from_arg_matches(&matches)).map_err(|e| {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default();
        error::at(&config.path, line, &format!("mount: {}", first.trim_start_matches("error: ")))
            .hint("`vykar mount --help` lists the options and what they take")
    })
}
