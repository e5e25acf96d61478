//! What is left out of a backup.

use super::*;

impl Fixture {
    /// Paths of a backup with these excludes, and what it says about the rest.
    fn stored(&self, excludes: Excludes) -> (Vec<String>, Vec<String>) {
        let options = BackupOptions { excludes, report_excluded: true, ..self.options() };
        let mut left = Vec::new();
        let source = self.source();
        let mut listen = |event: Event| {
            if let Event::Excluded { path, why } = event {
                left.push(format!("{}: {why}", path.strip_prefix(&source).unwrap().display()));
            }
        };
        let summary = backup(&self.repository(), &options, Some(&mut listen)).unwrap();
        assert!(summary.is_complete());
        assert_eq!(summary.excluded, left.len() as u64);
        left.sort();
        let paths = self.items().into_keys().map(|p| String::from_utf8(p).unwrap()).collect();
        (paths, left)
    }
}

fn patterns(patterns: &[&str]) -> Excludes {
    Excludes { patterns: patterns.iter().map(|p| p.as_bytes().to_vec()).collect(), ..Excludes::default() }
}

#[test]
fn rules_are_those_of_a_gitignore_at_the_top_of_the_source() {
    let f = Fixture::new();
    for name in ["a.o", "keep.o", "d/b.o", "d/build/x", "build/x", "top", "d/top", "log/a", "x/y/z"] {
        f.write(name, b"1");
    }
    let (paths, left) = f.stored(patterns(&["*.o", "!keep.o", "build/", "/top", "log/*", "x/**/z", "# no"]));
    assert_eq!(paths, ["d", "d/top", "keep.o", "log", "x", "x/y"]);
    assert_eq!(
        left,
        [
            "a.o: the rule `*.o`",
            "build: the rule `build/`",
            "d/b.o: the rule `*.o`",
            "d/build: the rule `build/`",
            "log/a: the rule `log/*`",
            "top: the rule `/top`",
            "x/y/z: the rule `x/**/z`",
        ]
    );
    let wrong = BackupOptions { excludes: patterns(&["a[z-a]"]), ..f.options() };
    assert!(matches!(backup(&f.repository(), &wrong, None), Err(VykarError::Usage(_))));
    assert!(crate::rules::check(b"a[z-a]").is_err() && crate::rules::check(b"ok/*").is_ok());
}

#[test]
fn of_several_sources_each_has_its_own_top() {
    let f = Fixture::new();
    for name in ["one/top", "one/d/top", "two/top", "two/d/top"] {
        f.write(name, b"1");
    }
    let sources = vec![f.source().join("one"), f.source().join("two")];
    let options = BackupOptions { sources, excludes: patterns(&["/top"]), ..f.options() };
    backup(&f.repository(), &options, None).unwrap();
    let base = f.source().to_str().unwrap()[1..].to_owned();
    let paths = f.items().into_keys().map(|p| String::from_utf8(p).unwrap());
    let paths: Vec<_> = paths.filter(|path| path.starts_with(&format!("{base}/"))).collect();
    let expected = ["one", "one/d", "one/d/top", "two", "two/d", "two/d/top"];
    assert_eq!(paths, expected.map(|p| format!("{base}/{p}")));
}

#[test]
fn directories_are_left_out_for_what_they_hold_but_not_the_source_itself() {
    let f = Fixture::new();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# rest";
    for (name, content) in [
        (".nobackup", ""),
        ("a/.nobackup", ""),
        ("a/x", ""),
        ("cache/CACHEDIR.TAG", tag),
        ("cache/deep/x", ""),
        ("fake/CACHEDIR.TAG", "Signature: something else"),
        ("b/x", ""),
    ] {
        f.write(name, content.as_bytes());
    }
    let excludes = Excludes { if_present: vec![".nobackup".into()], caches: true, ..Excludes::default() };
    let (paths, left) = f.stored(excludes);
    assert_eq!(paths, [".nobackup", "b", "b/x", "fake", "fake/CACHEDIR.TAG"]);
    assert_eq!(left, ["a: it holds `.nobackup`", "cache: it is marked as a cache (CACHEDIR.TAG)"]);
}

#[test]
fn gitignore_files_hold_for_their_directory_and_the_nearest_wins() {
    let f = Fixture::new();
    for (name, content) in [
        (".gitignore", "*.log\n/only-top\r\n[z-a\n"),
        ("a.log", ""),
        ("only-top", ""),
        ("d/only-top", ""),
        ("d/.gitignore", "!a.log\nx/\n"),
        ("d/a.log", ""),
        ("d/b.log", ""),
        ("d/x/y", ""),
        ("e/x/y", ""),
    ] {
        f.write(name, content.as_bytes());
    }
    let (paths, left) = f.stored(Excludes { git_ignore: true, ..Excludes::default() });
    assert_eq!(paths, [".gitignore", "d", "d/.gitignore", "d/a.log", "d/only-top", "e", "e/x", "e/x/y"]);
    assert_eq!(left[0], "a.log: the rule `*.log` of a .gitignore");
    assert_eq!(left.len(), 4);
    // A rule of the caller is stronger.
    let (paths, _) = f.stored(Excludes { git_ignore: true, ..patterns(&["!only-top", "e"]) });
    assert!(paths.contains(&"only-top".to_owned()) && !paths.contains(&"e".to_owned()));
    // One that cannot be read leaves nothing out.
    fs::remove_file(f.source().join(".gitignore")).unwrap();
    fs::create_dir(f.source().join(".gitignore")).unwrap();
    let (paths, _) = f.stored(Excludes { git_ignore: true, ..Excludes::default() });
    assert!(paths.contains(&"a.log".to_owned()));
}

#[test]
fn large_files_are_left_out_by_their_size_alone() {
    let f = Fixture::new();
    f.write("small", &[1; 1000]);
    f.write("large", &[1; 1001]);
    let (paths, left) = f.stored(Excludes { larger_than: Some(1000), ..Excludes::default() });
    assert_eq!((paths, left), (vec!["small".into()], vec!["large: too large (1001 bytes)".into()]));
}

#[test]
fn everything_is_read_again_when_asked() {
    let f = Fixture::new();
    f.write("a", b"hello");
    std::thread::sleep(Duration::from_millis(2100));
    f.backup();
    assert_eq!(f.backup().unchanged, 1);
    let options = BackupOptions { reread: true, ..f.options() };
    // With a content that was changed behind the times, as a failing disk does.
    let times = fs::metadata(f.source().join("a")).unwrap().modified().unwrap();
    fs::write(f.source().join("a"), b"HELLO").unwrap();
    File::options().write(true).open(f.source().join("a")).unwrap().set_modified(times).unwrap();
    let summary = backup(&f.repository(), &options, None).unwrap();
    assert_eq!((summary.changed, summary.unchanged), (1, 0));
    assert_eq!(f.items()[&b"a"[..]].1, b"HELLO");
    f.assert_counts();
}

#[test]
fn a_preview_says_what_a_backup_would_do_and_stores_nothing() {
    let f = Fixture::new();
    f.write("old", b"old");
    f.write("changed", b"1");
    std::thread::sleep(Duration::from_millis(2100));
    f.backup();
    f.write("changed", b"22");
    f.write("d/new", b"333");
    f.write("skip.o", b"");
    symlink("x", f.source().join("link")).unwrap();
    let before = f.backend.list("").unwrap().len();
    let options =
        BackupOptions { excludes: patterns(&["*.o"]), report_excluded: true, threads: 2, ..f.options() };
    let mut said = Vec::new();
    let source = f.source();
    let name = |path: PathBuf| path.strip_prefix(&source).unwrap().display().to_string();
    let mut listen = |event: Event| match event {
        Event::Planned { path, what, size } => said.push(format!("{}: {what:?} {size}", name(path))),
        Event::Excluded { path, why } => said.push(format!("{}: {why}", name(path))),
        _ => {}
    };
    let found = preview(&f.repository(), &options, Some(&mut listen)).unwrap();
    said.sort();
    assert_eq!(
        said,
        [
            "changed: Changed 2",
            "d/new: New 3",
            "d: Directory 0",
            "link: Symlink 0",
            "old: Unchanged 3",
            "skip.o: the rule `*.o`"
        ]
    );
    let expected = Preview {
        new: 1,
        changed: 1,
        unchanged: 1,
        directories: 1,
        symlinks: 1,
        special: 0,
        bytes: 8,
        bytes_to_read: 5,
        excluded: 1,
        errors: 0,
    };
    assert_eq!(found, expected);
    assert_eq!(f.backend.list("").unwrap().len(), before);
}
