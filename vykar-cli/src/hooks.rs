//! Running the hooks of a configuration around a command.

use std::process::Stdio;

use crate::args::Global;
use crate::config::{Around, Hooks, When};
use crate::exit::{CliError, CliResult, Exit};
use crate::{children, metrics, render};

/// What a hook is told: `{command}` and so on in it, and `VYKAR_COMMAND` and so on in its environment.
#[derive(Debug, Clone)]
pub struct Told {
    pub around: Around,
    pub repository: String,
    pub label: String,
    pub source_label: String,
    pub source_path: String,
}

impl Told {
    /// About a repository as a whole.
    pub fn of(around: Around, global: &Global) -> Self {
        Told {
            around,
            repository: global.repo.to_string_lossy().into_owned(),
            label: global.name(),
            source_label: String::new(),
            source_path: String::new(),
        }
    }

    fn values<'t>(&'t self, error: &'t str) -> [(&'static str, &'t str); 6] {
        [
            ("command", self.around.name()),
            ("repository", &self.repository),
            ("label", &self.label),
            ("error", error),
            ("source_label", &self.source_label),
            ("source_path", &self.source_path),
        ]
    }
}

/// Runs a command between the hooks of the configuration, if there are any.
pub fn configured(around_what: Around, global: &Global, run: impl FnOnce() -> CliResult) -> CliResult {
    metrics::timed(global, around_what.name(), || match &global.plan {
        Some(plan) => around(&plan.hooks, &Told::of(around_what, global), run),
        None => run(),
    })
}

/// Runs something between its hooks. When one before it fails it does not run; those for failures, and those for
/// the end, run all the same.
///
/// # Errors
/// The error of what ran, or else that of a hook.
pub fn around(hooks: &Hooks, told: &Told, run: impl FnOnce() -> CliResult) -> CliResult {
    if hooks.is_empty() {
        return run();
    }
    let result = all(hooks, When::Before, told, "").and_then(|()| run());
    let error = match &result {
        Ok(Exit::Success) => None,
        Ok(exit) => Some(format!("finished with exit code {}", *exit as u8)),
        Err(error) => Some(error.to_string()),
    };
    let later = match &error {
        None => all(hooks, When::After, told, ""),
        Some(error) => all(hooks, When::Failed, told, error),
    };
    let last = all(hooks, When::Finally, told, error.as_deref().unwrap_or_default());
    // What ran has the last word; what its hooks did wrong is said in any case.
    match (result, later.and(last)) {
        (Ok(Exit::Success), Err(hook)) => Err(hook),
        (result, hook) => {
            if let Err(hook) = hook {
                render::error(&hook);
            }
            result
        }
    }
}

/// Runs all hooks of a time; the first that fails ends it, but for those of the end, which all run.
fn all(hooks: &Hooks, when: When, told: &Told, error: &str) -> CliResult<()> {
    let mut result = Ok(());
    for hook in hooks.at(when, told.around) {
        let one = one(hook, told, error);
        match when {
            When::Before => one?,
            _ => result = result.and(one),
        }
    }
    result
}

/// Runs one with sh. What it prints goes to stderr: stdout is for results.
fn one(hook: &str, told: &Told, error: &str) -> CliResult<()> {
    let values = told.values(error);
    let mut command = children::shell(&replaced(hook, &values));
    command.stdin(Stdio::null());
    for (name, value) in values {
        // A value with a NUL cannot be passed on.
        command.env(format!("VYKAR_{}", name.to_ascii_uppercase()), value.replace('\0', ""));
    }
    let failed = |what: String| {
        CliError::new(Exit::Failure, format!("hook `{}`: {what}", render::plain(hook.as_bytes())))
            .hint("it runs with sh -c; what it printed is above")
    };
    let stderr = std::io::stderr();
    let out = std::os::fd::AsFd::as_fd(&stderr).try_clone_to_owned();
    command.stdout(out.map_or_else(|_| Stdio::null(), Stdio::from));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(e) => Err(failed(format!("cannot be run: {e}"))),
    }
}

/// Puts values in for `{name}`, each quoted for a shell. Other braces stay.
fn replaced(hook: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(hook.len());
    let mut rest = hook;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let found = values.iter().find_map(|(name, value)| {
            let behind = from.strip_prefix('{')?.strip_prefix(*name)?.strip_prefix('}')?;
            Some((*value, behind))
        });
        match found {
            Some((value, behind)) => {
                out.push_str(&quoted(value));
                rest = behind;
            }
            None => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// One word of a shell, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\0', "").replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_as_one_word_and_not_looked_into() {
        let values = [("error", "it's {label}; $(rm)"), ("label", "x")];
        let hook = "notify {error} {label} ${HOME} {other} {";
        assert_eq!(replaced(hook, &values), r"notify 'it'\''s {label}; $(rm)' 'x' ${HOME} {other} {");
    }

    /// Runs something between hooks that write down that they ran.
    fn run_with(text: &str, result: CliResult) -> (CliResult, String) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let hooks: Hooks = serde_saphyr::from_str(&text.replace("LOG", log.to_str().unwrap())).unwrap();
        let told = Told {
            around: Around::Backup,
            repository: "/r".into(),
            label: "main".into(),
            source_label: "docs".into(),
            source_path: "/a b".into(),
        };
        let result = around(&hooks, &told, || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"run\n"))
                .unwrap();
            result
        });
        (result, std::fs::read_to_string(&log).unwrap_or_default())
    }

    const HOOKS: &str = "before: echo before {command} >> LOG
after: echo after $VYKAR_LABEL >> LOG
failed_backup: echo failed {error} >> LOG
finally: ['echo finally {source_path} >> LOG', echo last >> LOG]
";

    #[test]
    fn hooks_run_in_their_order() {
        let (result, log) = run_with(HOOKS, Ok(Exit::Success));
        assert_eq!(result.unwrap(), Exit::Success);
        assert_eq!(log, "before backup\nrun\nafter main\nfinally /a b\nlast\n");
        let (result, log) = run_with(HOOKS, Err(CliError::new(Exit::Storage, "no 'room'")));
        assert_eq!(result.unwrap_err().exit(), Exit::Storage);
        assert_eq!(log, "before backup\nrun\nfailed no 'room'\nfinally /a b\nlast\n");
        let (result, log) = run_with(HOOKS, Ok(Exit::Partial));
        assert_eq!(result.unwrap(), Exit::Partial);
        assert_eq!(log, "before backup\nrun\nfailed finished with exit code 3\nfinally /a b\nlast\n");
    }

    #[test]
    fn a_hook_before_that_fails_stops_the_command_and_the_others_run() {
        let text =
            "before: [exit 3, echo no >> LOG]\nfailed: echo {error} >> LOG\nfinally: echo end >> LOG\n";
        let (result, log) = run_with(text, Ok(Exit::Success));
        assert_eq!(result.unwrap_err().exit(), Exit::Failure);
        assert_eq!(log, "hook `exit 3`: exit status: 3\nend\n");
    }

    #[test]
    fn a_hook_after_that_fails_is_an_error_and_the_end_comes_all_the_same() {
        let (result, log) = run_with("after: exit 1\nfinally: echo end >> LOG\n", Ok(Exit::Success));
        assert_eq!(result.unwrap_err().to_string(), "hook `exit 1`: exit status: 1");
        assert_eq!(log, "run\nend\n");
    }
}
