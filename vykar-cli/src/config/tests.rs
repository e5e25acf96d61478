use std::time::Duration;

use super::*;

fn config(text: &str) -> Config {
    parse(Path::new("/etc/vykar/config.yaml"), text).unwrap_or_else(|e| panic!("{e}"))
}

/// The error's text and, behind a bar, its hint.
fn wrong(text: &str) -> String {
    let Err(error) = parse(Path::new("c.yaml"), text) else { panic!("{text:?} was read") };
    assert_eq!(error.exit(), Exit::Usage);
    format!("{error} | {}", error.hint_text().unwrap_or_default())
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = config("repositories:\n  - url: /repo\nsources: [/home]\n");
    let [repository] = &config.repositories[..] else { panic!("{config:?}") };
    assert_eq!(repository.place.as_deref(), Ok(Path::new("/repo")));
    assert_eq!((repository.name(), repository.label.as_deref()), ("/repo", None));
    assert_eq!(repository.compression, vykar_core::codec::Compression::Zstd(3));
    assert_eq!(repository.chunker, vykar_core::format::ChunkerParams::FILES);
    assert!(repository.retention.is_empty() && repository.hooks.is_empty());
    assert_eq!(repository.compact_threshold, 20);
    assert_eq!(repository.check.full_every, Some(Duration::from_secs(60 * 86400)));
    assert!(!repository.schedule.enabled);
    assert_eq!(repository.schedule.every.as_secs(), 86400);
    let [source] = &repository.sources[..] else { panic!("{config:?}") };
    assert_eq!((source.label.as_str(), &source.paths[..]), ("home", &[PathBuf::from("/home")][..]));
    assert!(source.options.xattrs);
}

#[test]
fn an_empty_file_is_a_configuration() {
    assert!(config("").repositories.is_empty());
    assert!(config("# nothing\n").repositories.is_empty());
}

#[test]
fn the_starter_reads_and_so_does_all_that_it_shows() {
    let starter = include_str!("starter.yaml");
    assert_eq!(config(starter).repositories.len(), 1);
    // With everything in it that is commented out.
    let all: String = starter.lines().map(|line| line.replacen("#: ", "", 1) + "\n").collect();
    let all = all.replace("\n- ", "\n  - ").replace("\n  path:", "\n    path:");
    let all: String = all.lines().map(|line| realigned(line) + "\n").collect();
    let read = parse(Path::new("starter.yaml"), &all.replace("${BACKUP_PASSPHRASE}", "x"));
    // Only that both ways to a passphrase are there.
    assert!(read.unwrap_err().to_string().contains("both `passphrase` and `passcommand`"));
    let one = all.replace("  passphrase: ${BACKUP_PASSPHRASE}\n", "");
    let config = config(&one);
    let labels: Vec<_> = config.repositories[0].sources.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["default", "projects", "databases"]);
    assert_eq!(config.mount.len(), 3);
}

/// Keys of the sources that are commented out stand two columns to the left of where they are.
fn realigned(line: &str) -> String {
    let keys = ["exclude:", "exclude_if_present: [.nobackup]", "one_file_system: true", "git_ignore: true"];
    let keys = keys.into_iter().chain(["xattrs: {enabled: true}", "repos:", "retention: {keep_daily: 30}"]);
    let mut keys = keys.chain(["hooks: {before: 'systemctl", "command_dumps:"]);
    match line.strip_prefix("  ") {
        Some(rest) if keys.any(|key| rest.starts_with(key)) => format!("    {rest}"),
        Some(rest) if rest.starts_with("  - {name: all.sql") => format!("      {}", rest.trim_start()),
        _ => line.to_owned(),
    }
}

#[test]
fn a_repository_may_differ_and_its_hooks_are_added() {
    let config = config(
        "repositories:
  - {url: /a, label: a}
  - url: /b
    label: b
    encryption: {passcommand: cat b}
    compression: {algorithm: lz4}
    retention: {keep_last: 1}
    limits: {upload_mib_per_sec: 0.5}
    hooks: {before: second}
    schedule: {enabled: true, cron: '0 3 * * *'}
encryption: {passphrase: secret}
compression: {zstd_level: 9}
retention: {keep_daily: 7, keep_within: 2w}
limits: {threads: 2, nice: 10}
hooks: {before: first}
sources:
  - {label: one, path: /one}
  - {label: two, paths: [/x, /y], repos: [b], exclude: ['*.o'], retention: {keep_yearly: 3}}
exclude_patterns: [tmp/]
one_file_system: true
",
    );
    let [a, b] = &config.repositories[..] else { panic!("{config:?}") };
    assert!(a.passphrase.is_some() && a.passcommand.is_none());
    assert!(b.passphrase.is_none() && b.passcommand.as_deref() == Some("cat b"));
    assert_eq!(a.compression, vykar_core::codec::Compression::Zstd(9));
    assert_eq!(b.compression, vykar_core::codec::Compression::Lz4);
    assert_eq!((a.retention.daily, a.retention.within.unwrap().as_secs()), (7, 14 * 86400));
    assert_eq!((b.retention.daily, b.retention.last), (0, 1));
    assert_eq!((b.threads, b.nice, b.upload_limit), (Some(2), Some(10), Some(1 << 19)));
    assert_eq!(b.hooks.at(When::Before, Around::Backup).collect::<Vec<_>>(), ["first", "second"]);
    assert!(!a.schedule.enabled && b.schedule.enabled && b.schedule.cron.is_some());
    let labels = |r: &RepositoryPlan| r.sources.iter().map(|s| s.label.clone()).collect::<Vec<_>>();
    assert_eq!((labels(a), labels(b)), (vec!["one".to_owned()], vec!["one".to_owned(), "two".to_owned()]));
    let two = &b.sources[1];
    assert_eq!(two.options.excludes.patterns, [&b"tmp/"[..], b"*.o"]);
    assert!(two.options.excludes.one_file_system);
    assert_eq!(two.retention.unwrap().yearly, 3);
}

#[test]
fn relative_paths_are_taken_from_the_file_and_a_tilde_is_home() {
    let config = config("repositories: [{url: ../repo}, {url: 'file:///x y'}]\nsources: [sub, ~/docs]\n");
    assert_eq!(config.repositories[0].place.as_deref(), Ok(Path::new("/etc/vykar/../repo")));
    assert_eq!(config.repositories[1].place.as_deref(), Ok(Path::new("/x y")));
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let source = &config.repositories[0].sources[0];
    assert_eq!(source.paths, [PathBuf::from("/etc/vykar/sub"), home.join("docs")]);
    assert_eq!(source.label, "default");
}

#[test]
fn other_storage_is_read_and_said_not_to_be_supported_yet() {
    let config = config(
        "repositories:
  - url: s3:https://example.org/bucket
    region: eu-central-1
    access_key_id: AK
    secret_access_key: SK
    retry: {max_retries: 5, retry_delay_ms: 1500, retry_max_delay_ms: 60000}
  - {url: 'sftp://host/path', sftp_key: /k, sftp_known_hosts: /h, sftp_timeout: 30}
  - {url: 'http://host', allow_insecure_http: true}
limits: {connections: 4}
",
    );
    let why: Vec<_> = config.repositories.iter().map(|r| r.place.clone().unwrap_err()).collect();
    assert_eq!(why[0], "s3: this kind of storage is not supported yet");
    assert!(why[1].starts_with("sftp:") && why[2].starts_with("http:"));
}

#[test]
fn errors_name_the_line_and_what_to_do() {
    let repo = "repositories:\n  - url: /r\n";
    for (text, expected) in [
        ("repositorys: []\n", "c.yaml, line 1: unknown key `repositorys` | did you mean `repositories`?"),
        (
            "sources:\n  - path: /a\n    exclud: [x]\n",
            "c.yaml, line 3: unknown key `exclud` | did you mean `exclude`?",
        ),
        (
            "hooks:\n  before_restore: x\n",
            "c.yaml, line 2: unknown key `before_restore` | did you mean `before`?",
        ),
        (
            "retention: {keep_daily: many}\n",
            "c.yaml, line 1: invalid u32 | YAML: `key: value`, lists with `- `, the same indent for siblings",
        ),
        (
            "retention:\n  keep_within: 3\n",
            "c.yaml, line 2: this must be a number with h, d, w, m (30 days) or y (365 days), as in 30d or 1y6m | ",
        ),
        (
            "limits: {nice: 20}\n",
            "c.yaml, line 1: this must be a nice value from -20 (first; root only) to 19 (last) | ",
        ),
        ("compression:\n  zstd_level: 23\n", "c.yaml, line 2: this must be a zstd level from 1 to 22 | "),
        (
            "encryption: {mode: rot13}\n",
            "c.yaml, line 1: this must be auto, aes256gcm, chacha20poly1305 or none | ",
        ),
        ("repositories:\n  - label: x\n", "c.yaml, line 2: `url` is missing here | "),
        ("a: 1\na: 2\n", "c.yaml, line 1: unknown key `a` | known here: "),
        ("hostname: a\n\nhostname: b\n", "c.yaml, line 3: `hostname` is here a second time | "),
        (
            "sources:\n  - paths: [/a, /b]\n",
            "c.yaml, line 2: a source without a label | several paths, or none but dumps, need a `label`",
        ),
        ("sources:\n  - {label: x}\n", "c.yaml, line 2: a source with nothing in it | "),
        (
            "repositories:\n  - {url: /r, label: main}\nsources:\n  - {path: /a, repos: [mian]}\n",
            "c.yaml, line 4: no repository is called `mian` | did you mean `main`?",
        ),
        (
            "repositories:\n  - url: /r\nsources:\n  - {path: /a/x}\n  - {path: /b/x}\n",
            "c.yaml, line 5: two sources are called `x` | give each a label of its own",
        ),
        (
            "repositories:\n  - url: /r\n  - url: /r\n",
            "c.yaml, line 3: `/r` is here a second time, by its url or its label | ",
        ),
        ("exclude_if_present: [a/b]\n", "c.yaml, line 1: the name of an entry, without slashes"),
        ("exclude_patterns:\n  - '#x'\n", "c.yaml, line 2: a rule that begins with # is a comment"),
        ("exclude_patterns:\n  - ok\n  - 'a[z-a]'\n", "c.yaml, line 3: an invalid range: z-a"),
        ("schedule:\n  cron: hourly\n", "c.yaml, line 2: this must be five fields: minute, hour,"),
        (
            "cache_dir: ${VYKAR_TEST_NO_SUCH}\n",
            "c.yaml, line 1: the environment variable VYKAR_TEST_NO_SUCH is not set",
        ),
        ("sources: [\n", "c.yaml, line "),
        ("\tx: 1\n", "c.yaml, line 1: "),
        ("chunker: {min_size: 1}\n", "c.yaml: chunker: "),
    ] {
        let found = wrong(text);
        assert!(found.starts_with(expected), "{text:?}\n{found}\n{expected}");
    }
    assert!(!wrong(&format!("{repo}    encryption: {{passphrase: [hidden]}}\n")).contains("hidden"));
}

#[test]
fn a_source_that_is_a_symlink_is_stored_as_one_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::os::unix::fs::symlink("/", dir.join("link")).unwrap();
    let shown = dir.join("link");
    let shown = shown.display();
    let config = config(&format!("repositories: [{{url: /r}}]\nsources: ['{shown}', '{shown}/', /]\n"));
    let expected = format!(
        "line 2: {shown} is a symlink and is stored as one; write `{shown}/` to store what it leads to"
    );
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn a_hook_with_a_value_inside_quotes_is_refused_with_its_line() {
    let one = wrong("hooks:\n  before: echo {error}\n  failed: 'mail \"backup: {error}\"'\n");
    assert!(one.starts_with("c.yaml, line 3: a hook with {error} inside quotes"), "{one}");
    assert!(one.contains("$VYKAR_ERROR"), "{one}");
    let listed = wrong("hooks:\n  after:\n    - echo\n    - echo '{source_path}'\n");
    assert!(listed.starts_with("c.yaml, line 4: a hook with {source_path}"), "{listed}");
    let source =
        "repositories: [{url: /r}]\nsources:\n  - path: /a\n    hooks: {after: 'echo \"{label}\"'}\n";
    assert!(wrong(source).starts_with("c.yaml, line 4: "), "{}", wrong(source));
}

#[test]
fn intervals_have_minutes_and_what_never_comes_is_refused() {
    let with = |text: &str| format!("repositories: [{{url: /r}}]\n{text}\n");
    let every = |text: &str| {
        config(&with(&format!("schedule: {{enabled: true, every: {text}}}"))).repositories[0]
            .schedule
            .every
            .as_secs()
    };
    assert_eq!((every("30m"), every("2"), every("1d12h")), (1800, 2 * 86400, 36 * 3600));
    let full = |text: &str| config(&with(&format!("check: {{{text}}}"))).repositories[0].check.full_every;
    let days = |n: u64| Some(Duration::from_secs(n * 86400));
    assert_eq!(full("full_every: 7"), days(7));
    assert_eq!(full("full_every: 90m"), Some(Duration::from_secs(5400)));
    assert_eq!((full("full_every: null"), full("max_percent: 5")), (None, days(60)));
    for (text, why) in [
        ("schedule: {every: 0h}", "a minute or more"),
        ("schedule: {every: 30s}", "a minute or more"),
        ("schedule: {every: 1w}", "s, m (minutes), h or d"),
        ("check: {full_every: 0}", "a minute or more"),
        ("schedule: {cron: '0 0 31 2 *'}", "a time that comes"),
    ] {
        let wrong = wrong(&with(text));
        assert!(wrong.starts_with("c.yaml, line 2: ") && wrong.contains(why), "{wrong}");
    }
    let within = config(&with("retention: {keep_within: 1m}")).repositories[0].retention.within;
    assert_eq!(within, days(30), "the units of keep_within stay");
}

#[test]
fn a_umask_is_octal_however_it_is_written() {
    for written in ["77", "077", "0o77", "'077'", "\"0o77\""] {
        let config = config(&format!("mount: {{umask: {written}, uid: 10}}\n"));
        let texts: Vec<_> =
            config.mount.iter().map(|(key, value, line)| (key.as_str(), value.to_string(), *line)).collect();
        let plain = written.trim_matches(['\'', '"']).to_owned();
        assert_eq!(texts, [("umask", plain.clone(), 1), ("uid", "10".to_owned(), 1)]);
        assert_eq!(crate::parse::umask(&plain), Ok(0o77));
    }
    assert!(wrong("mount: {umask: 77, umask: 22}\n").contains("a second time"));
}
