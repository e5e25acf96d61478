//! Random rules and trees: what is left out is what git leaves out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use super::*;
use crate::event::Planned;
use crate::testing::Dice;

const CASES: usize = 400;
const NAMES: &[&str] = &[
    "a", "b", "ab", "a.o", "b.txt", "A", "foo", "bar", "x y", "[a]", "a*", "#h", "!n", " sp", "sp ",
    "\u{e9}", ".hid", "a\\b", "**", "-d", "foo.", "tab\tx", "{a,b}", "a}", "]", "-",
];
const PARTS: &[&str] = &[
    "a",
    "b",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[^a]",
    "[a-c]",
    "foo",
    "bar",
    ".o",
    ".txt",
    "**",
    "\\a",
    "\\*",
    "\\#",
    "\\!",
    "x y",
    "\u{e9}",
    "[[:alpha:]]",
    "[]a]",
    "[a",
    "\\",
    "A",
    ".",
    "..",
    "[\\]]",
    "[a-]",
    "[--a]",
    "\\ ",
    " ",
    "#",
    "!",
    "[[:space:]]",
    "[z-a]",
    "{a,b}",
    "~",
    "$",
    "[!]a]",
    "[a\\-c]",
    "[a\\]]",
    "\\/",
    "\t",
];

impl Dice {
    fn of<'v>(&mut self, values: &[&'v str]) -> &'v str {
        values[self.below(values.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn rule(&mut self) -> String {
        let part = |dice: &mut Self| match dice.below(10) {
            0 => "**".to_owned(),
            1..4 => dice.of(NAMES).to_owned(),
            _ => (0..[1, 1, 1, 2, 2, 3][dice.below(6)]).map(|_| dice.of(PARTS)).collect(),
        };
        let mut rule = (0..=self.below(3)).map(|_| part(self)).collect::<Vec<_>>().join("/");
        if self.one_in(4) {
            rule.insert(0, '/');
        }
        if self.one_in(4) {
            rule.push('/');
        }
        if self.one_in(4) {
            rule.insert(0, '!');
        }
        if self.one_in(16) {
            rule.push_str(self.of(&[" ", "  ", "\t", "\\ ", "\\  ", "\r"]));
        }
        rule
    }

    fn rules(&mut self) -> String {
        let lines: Vec<_> = (0..=self.below(5)).map(|_| self.rule()).collect();
        let mut text = lines.join("\n");
        if !self.one_in(5) {
            text.push('\n');
        }
        if self.one_in(20) {
            text.insert(0, '\u{feff}');
        }
        if self.one_in(12) { text.replace('\n', "\r\n") } else { text }
    }
}

/// A folder with folders, files, and rules in some of them.
fn grow(dice: &mut Dice, top: &Path) {
    let mut folders = vec![top.to_owned()];
    fs::create_dir(top).unwrap();
    for _ in 0..=dice.below(6) {
        let folder = folders[dice.below(folders.len())].join(dice.of(NAMES));
        if fs::create_dir(&folder).is_ok() {
            folders.push(folder);
        }
    }
    for _ in 0..3 + dice.below(12) {
        let file = folders[dice.below(folders.len())].join(dice.of(NAMES));
        // What is there already stays.
        let _ = if dice.one_in(10) { symlink("x", file) } else { File::create_new(file).map(drop) };
    }
    for (at, folder) in folders.iter().enumerate() {
        if at == 0 || dice.one_in(3) {
            fs::write(folder.join(".gitignore"), dice.rules()).unwrap();
        }
    }
}

/// What git does not ignore.
fn kept_by_git(top: &Path) -> BTreeSet<PathBuf> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(top).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.args(args).output().expect("git is needed for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    git(&["init", "-q"]);
    let list = git(&["-c", "core.ignoreCase=false", "ls-files", "-z", "-o", "--exclude-standard"]);
    fs::remove_dir_all(top.join(".git")).unwrap();
    list.split(|c| *c == 0)
        .filter(|path| !path.is_empty())
        .map(|path| OsStr::from_bytes(path).into())
        .collect()
}

#[test]
fn what_is_left_out_is_what_git_leaves_out() {
    // More, or others, than each time: VYKAR_TEST_RULES="SEED COUNT".
    let asked = std::env::var("VYKAR_TEST_RULES").unwrap_or_default();
    let mut asked = asked.split(' ').map(|number| number.parse::<usize>().unwrap_or_default());
    let seed = asked.next().unwrap_or_default();
    let cases = asked.next().unwrap_or(CASES);
    let f = Fixture::new();
    for number in seed..seed + cases {
        let mut dice = Dice::new(number as u64);
        (0..4).for_each(|_| _ = dice.below(2));
        grow(&mut dice, &f.source().join(number.to_string()));
    }
    let by_git = kept_by_git(&f.source());
    let excludes = Excludes { git_ignore: true, ..Excludes::default() };
    let mut kept = BTreeSet::new();
    let mut listen = |event: Event| match event {
        Event::Planned { what: Planned::Directory, .. } => {}
        Event::Planned { path, .. } => drop(kept.insert(path.strip_prefix(f.source()).unwrap().to_owned())),
        _ => {}
    };
    preview(&f.repository(), &BackupOptions { excludes, ..f.options() }, Some(&mut listen)).unwrap();
    let wrong: Vec<_> = kept.symmetric_difference(&by_git).collect();
    let rules = wrong.first().map(|path| {
        let folders: Vec<_> =
            path.ancestors().skip(1).map(|dir| f.source().join(dir).join(".gitignore")).collect();
        folders.into_iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{} differ, as {:?} by {rules:?}", wrong.len(), wrong.first());
    assert!(by_git.len() > 2 * cases);
}
