//! Running the hooks of a configuration around a command.

use std::process::Stdio;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::args::ResolvedOptions;
use crate::config::{Around, Hooks, VALUES, When};
use crate::exit::{CliError, CliResult, Exit};
use crate::problems::{Problems, Scope};
use crate::{child_env, metrics, render, say};

/// Longest value that a hook gets, in bytes: the kernel refuses a variable of 128 KiB.
const MAX_VALUE: usize = 64 << 10;

/// What a hook gets to know: `VYKAR_COMMAND` and so on in its environment, which `{command}` and so on in it stand for.
#[derive(Debug, Clone)]
pub struct HookFacts {
    pub around: Around,
    pub repository: String,
    pub label: String,
    pub source_label: String,
    pub source_path: String,
    /// What goes wrong while its command runs.
    pub problems: Arc<Problems>,
}

impl HookFacts {
    /// About a repository as a whole.
    pub fn of(around: Around, global: &ResolvedOptions) -> Self {
        HookFacts {
            around,
            repository: global.repo.to_string_lossy().into_owned(),
            label: global.name(),
            source_label: String::new(),
            source_path: String::new(),
            problems: global.problems.clone(),
        }
    }

    /// In the order of [`VALUES`].
    fn values<'t>(&'t self, error: &'t str) -> [&'t str; VALUES.len()] {
        let (command, repository) = (self.around.name(), &self.repository);
        [command, repository, &self.label, error, &self.source_label, &self.source_path]
    }

    /// What a failure is called.
    fn failure(&self, result: &CliResult, problems: &Scope) -> Option<String> {
        let exit = match result {
            Ok(Exit::Success) => return None,
            Ok(exit) => *exit as u8,
            Err(error) => return Some(error.to_string()),
        };
        let Scope { count, first: Some(first) } = problems else {
            return Some(format!("finished with exit code {exit}"));
        };
        let noun = match (self.around, count) {
            (Around::Backup, 1) => "file with problems",
            (Around::Backup, _) => "files with problems",
            (_, 1) => "problem",
            _ => "problems",
        };
        Some(format!("{count} {noun} (exit code {exit}); the first: {first}"))
    }
}

/// Runs a command between the hooks of the configuration, if there are any.
pub fn configured(
    around_what: Around,
    global: &ResolvedOptions,
    run: impl FnOnce() -> CliResult,
) -> CliResult {
    metrics::timed(global, around_what.name(), || match &global.plan {
        Some(plan) => around(&plan.hooks, &HookFacts::of(around_what, global), run),
        None => run(),
    })
}

/// Runs something between its hooks. When one before it fails it does not run; those for failures, and those for
/// the end, run all the same.
///
/// # Errors
/// The error of what ran, or else that of a hook.
pub fn around(hooks: &Hooks, told: &HookFacts, run: impl FnOnce() -> CliResult) -> CliResult {
    if hooks.is_empty() {
        return run();
    }
    let run = || all(hooks, When::Before, told, "").and_then(|()| run());
    let (result, problems) = told.problems.during(run);
    let error = told.failure(&result, &problems);
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
fn all(hooks: &Hooks, when: When, told: &HookFacts, error: &str) -> CliResult<()> {
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
fn one(hook: &str, told: &HookFacts, error: &str) -> CliResult<()> {
    let error = say::clean(error);
    let mut command = child_env::shell(&with_variables(hook));
    command.stdin(Stdio::null());
    for (name, value) in VALUES.into_iter().zip(told.values(&error)) {
        command.env(variable(name), passable(value));
    }
    let failed = |what: String| {
        CliError::new(Exit::Failure, format!("hook `{}`: {what}", render::plain(hook.as_bytes())))
            .hint("it runs with sh -c; what it printed is above")
    };
    let stderr = std::io::stderr();
    if is_readerless(&stderr) {
        // What it prints would end it.
        command.stdout(Stdio::null()).stderr(Stdio::null());
    } else {
        let out = std::os::fd::AsFd::as_fd(&stderr).try_clone_to_owned();
        command.stdout(out.map_or_else(|_| Stdio::null(), Stdio::from));
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(e) => Err(failed(format!("cannot be run: {e}"))),
    }
}

/// True of a pipe that nobody reads any more.
fn is_readerless(pipe: impl std::os::fd::AsFd) -> bool {
    let mut fds = [PollFd::new(&pipe, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// The variable that holds a value.
fn variable(name: &str) -> String {
    format!("VYKAR_{}", name.to_ascii_uppercase())
}

/// As much of a value as a variable takes: no NUL, and no more than the kernel passes on.
fn passable(value: &str) -> String {
    let mut value = value.replace('\0', "");
    if value.len() > MAX_VALUE {
        value.truncate(value.floor_char_boundary(MAX_VALUE));
        value.push_str("...");
    }
    value
}

/// Puts the variable that holds the value in place of `{name}`, as one word. Other braces stay. The value itself is never
/// part of the command: whatever it holds, the shell runs none of it.
fn with_variables(hook: &str) -> String {
    VALUES.into_iter().fold(hook.to_owned(), |hook, name| {
        hook.replace(&format!("{{{name}}}"), &format!("\"${}\"", variable(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_as_variables() {
        let hook = "notify {error} {label} ${HOME} {other} {";
        let expected = r#"notify "$VYKAR_ERROR" "$VYKAR_LABEL" ${HOME} {other} {"#;
        assert_eq!(with_variables(hook), expected);
    }

    #[test]
    fn nothing_of_a_value_is_run_wherever_it_stands() {
        let evil = "a'b\"c $(touch OWNED) `touch OWNED`\n touch OWNED #\u{1b}]0;x\u{7}";
        // Those inside quotes are refused where a configuration is read.
        let hooks = [
            "echo {error} >> LOG",
            "echo \"{error}\" >> LOG",
            "echo '{error}' >> LOG",
            "echo $(echo {error}) `echo {error}` >> LOG",
            "# {error}\ncat <<END >> LOG\n{error}\nEND",
        ];
        for hook in hooks {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
            let error = evil.replace("OWNED", &path("owned"));
            one(&hook.replace("LOG", &path("log")), &told(), &error).unwrap();
            let log = std::fs::read_to_string(path("log")).unwrap();
            assert!(!log.contains('\u{1b}') && !log.contains('\u{7}'), "{log:?}");
            assert!(!dir.path().join("owned").exists(), "{hook}");
        }
    }

    #[test]
    fn long_values_are_cut_and_fail_nothing() {
        let long = "\u{e9}".repeat(100_000) + "\0";
        assert_eq!(passable(&long).len(), MAX_VALUE + 3);
        let (_, log) = run_with("failed: echo {error} >> LOG\n", Err(CliError::new(Exit::Failure, long)));
        assert!(log.ends_with("...\n"), "{}", log.len());
    }

    #[test]
    fn a_failure_says_how_many_files_and_the_first() {
        let problems = Problems::default();
        let told = told();
        let said = |result: CliResult, around, lines: &[&str]| {
            let ((), scope) = problems.during(|| lines.iter().for_each(|line| problems.note(line)));
            HookFacts { around, ..told.clone() }.failure(&result, &scope)
        };
        let backup = |result, lines| said(result, Around::Backup, lines);
        assert_eq!(backup(Ok(Exit::Success), &[]), None);
        let two = backup(Ok(Exit::Partial), &["/a: not stored: denied", "/b: not stored: denied"]);
        let expected = "2 files with problems (exit code 3); the first: /a: not stored: denied";
        assert_eq!(two.as_deref(), Some(expected));
        assert_eq!(
            said(Ok(Exit::Damaged), Around::Check, &["pack x: damaged"]).as_deref(),
            Some("1 problem (exit code 7); the first: pack x: damaged")
        );
        assert_eq!(backup(Ok(Exit::Partial), &[]).as_deref(), Some("finished with exit code 3"));
        let error = backup(Err(CliError::new(Exit::Failure, "no room")), &["/a"]);
        assert_eq!(error.as_deref(), Some("no room"));
    }

    fn told() -> HookFacts {
        HookFacts {
            around: Around::Backup,
            repository: "/r".into(),
            label: "main".into(),
            source_label: "docs".into(),
            source_path: "/a b".into(),
            problems: Arc::default(),
        }
    }

    /// Runs something between hooks that write down that they ran.
    fn run_with(text: &str, result: CliResult) -> (CliResult, String) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let hooks: Hooks = serde_saphyr::from_str(&text.replace("LOG", log.to_str().unwrap())).unwrap();
        let told = told();
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
