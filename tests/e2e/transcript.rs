//! What commands print, word for word.
//!
//! `transcripts/*.txt` are what one would see on a terminal: commands behind `$ `, and what they print, stderr included,
//! with the exit code in brackets where it is not 0. Each file is run from top to bottom in an empty folder with sh.
//! What differs from run to run (ids, times, the folder) is replaced by names on both sides. With `VYKAR_TRANSCRIPTS=write`
//! the files are written anew: read the difference before it is committed.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use super::harness::{VYKAR, World, project};

/// A command, and what it prints.
struct Step {
    command: String,
    printed: String,
}

/// Commands of a transcript; lines before the first are comments.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), printed: String::new() }),
            (None, Some(step)) => {
                step.printed.push_str(line);
                step.printed.push('\n');
            }
            (None, None) => {}
        }
    }
    steps
}

/// Replaces what differs from run to run.
struct Names(Vec<(Regex, &'static str)>);

impl Names {
    fn new(world: &World) -> Self {
        let dir = world.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/').to_owned();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap().to_owned();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        let patterns = [
            (regex::escape(&dir), "DIR"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d[:-]\d\d[:-]\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?".to_owned(), "TIME"),
            // Before ids: a fraction may have as many digits.
            (r#""seconds": [0-9.]+"#.to_owned(), r#""seconds": N"#),
            (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b|\b[0-9a-f]{8}\b".to_owned(), "ID"),
            (r"\d+\.\d+ s\b".to_owned(), "N s"),
            (r"\(encryption [A-Z][A-Za-z0-9]+\)".to_owned(), "(encryption CIPHER)"),
            (format!(r"\b{}\b", regex::escape(&host)), "HOST"),
            (format!(r#"(User +|"username": "){}\b"#, regex::escape(&user)), "${1}USER"),
            // Columns are as wide as what is in them.
            (r"(\S) {2,}".to_owned(), "$1  "),
        ];
        Names(patterns.map(|(pattern, name)| (Regex::new(&pattern).unwrap(), name)).into())
    }

    fn put_in(&self, text: &str) -> String {
        let all = self
            .0
            .iter()
            .fold(text.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned());
        let lines = all.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }
}

/// Runs a command as a shell on a terminal of 100 columns would, and says what it printed.
fn printed_by(world: &World, command: &str) -> String {
    let mut sh = world.with_environment(Command::new("sh"));
    let programs = Path::new(VYKAR).parent().unwrap().to_str().unwrap();
    sh.arg("-c").arg(format!("exec 2>&1; {command}"));
    sh.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap())).env("COLUMNS", "100");
    let run = world.finish(sh);
    let mut text = run.out();
    if run.code != 0 {
        text.push_str(&format!("[{}]\n", run.code));
    }
    text
}

fn check(name: &str) {
    let path = project().join("tests/e2e/transcripts").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let world = World::new();
    let names = Names::new(&world);
    let write = std::env::var("VYKAR_TRANSCRIPTS").is_ok_and(|how| how == "write");
    let head: String =
        text.lines().take_while(|line| !line.starts_with("$ ")).map(|line| line.to_owned() + "\n").collect();
    let (mut written, mut wrong) = (head, Vec::new());
    for Step { command, printed } in steps(&text) {
        let found = names.put_in(&printed_by(&world, &command));
        if found != names.put_in(&printed) {
            wrong.push(format!("$ {command}\n--- expected\n{printed}--- found\n{found}"));
        }
        written.push_str(&format!("$ {command}\n{found}"));
    }
    if write {
        return fs::write(path, written).unwrap();
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn errors_say_what_happened_to_what_and_what_to_do_next() {
    check("errors.txt");
    let text = fs::read_to_string(project().join("tests/e2e/transcripts/errors.txt")).unwrap();
    let failed = |step: &&Step| step.printed.trim_end().ends_with(']');
    let errors = steps(&text);
    let errors: Vec<_> = errors.iter().filter(failed).collect();
    assert!(errors.len() >= 40, "{} errors", errors.len());
    // The arguments' own errors have more lines; theirs are clap's.
    let one =
        |step: &&&Step| step.printed.starts_with("vykar: ") && step.printed.matches("vykar: ").count() == 1;
    for step in errors.iter().filter(one) {
        // And the exit code.
        assert!(step.printed.lines().count() <= 4, "$ {}\n{}", step.command, step.printed);
    }
}

#[test]
fn tables_and_summaries() {
    check("tables.txt");
}

#[test]
fn json_documents() {
    check("json.txt");
}

#[test]
fn help_of_every_command() {
    check("help.txt");
}

/// The session of the README, as it is printed there.
#[test]
fn the_walkthrough_of_the_readme_is_what_one_sees() {
    needs!(mounts);
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let block = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let world = World::new();
    // What is backed up there.
    let docs = world.folder("docs");
    for (name, lines) in [("format.md", 300), ("invariants.md", 80), ("mount.md", 200)] {
        let text: String = (0..lines).map(|n| format!("Line {n} of what {name} says.\n")).collect();
        fs::write(docs.join(name), text).unwrap();
    }
    world.folder("mnt");
    let names = Names::new(&world);
    let sizes = Regex::new(r"\d+(\.\d+)? (B|KiB|MiB)|\d+\.\d%|\d+[acd]\d+|/tmp/ada").unwrap();
    let plain = |text: &str| sizes.replace_all(&names.put_in(text), "#").replace("DIR", "#");
    let written = Regex::new(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d").unwrap();
    for Step { command, printed } in steps(block) {
        // A snapshot's folder has the name of its time, which is another one here.
        let times: Vec<String> = match fs::read_dir(world.path("mnt/snapshots")) {
            Ok(entries) => entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => Vec::new(),
        };
        let first = times.iter().filter(|name| *name != "latest").min();
        let command = match first {
            Some(first) => written.replace_all(&command, first.as_str()).into_owned(),
            None => command,
        };
        // What diff found is no failure, and a session does not show exit codes.
        let found = printed_by(&world, &command);
        let found = if command.starts_with("diff") { found.replace("[1]\n", "") } else { found };
        assert_eq!(plain(&found), plain(&printed), "$ {command}");
        if command.contains("backup docs") {
            // Snapshots of one second would have one name.
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
    }
}
