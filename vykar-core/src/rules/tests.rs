//! What rules mean. That git means the same is seen to by `backup::beside_git`.

use super::*;

fn rules(list: &[&str]) -> Rules {
    Rules::new(&list.iter().map(|rule| rule.as_bytes().to_vec()).collect::<Vec<_>>()).unwrap()
}

/// Which of the paths are left out; directories have a slash at their end.
fn out<'p>(list: &[&str], paths: &[&'p str]) -> Vec<&'p str> {
    let rules = rules(list);
    let is_out = |path: &&&str| {
        let plain = path.strip_suffix('/').unwrap_or(path);
        rules.ruling(plain.as_bytes(), plain.len() < path.len()).is_out()
    };
    paths.iter().filter(is_out).copied().collect()
}

#[test]
fn characters_mean_what_they_mean_in_git() {
    for (rule, fits, does_not) in [
        ("{GUID-1}", "{GUID-1}", "GUID-1"),
        ("{a,b}", "{a,b}", "a"),
        ("[a\\]]", "]", "\\"),
        ("[\\-c]", "-", "b"),
        ("a\\/b", "a/b", "b"),
        ("\\#x", "#x", "\\#x"),
        ("\\!x", "!x", "x"),
        ("[!a]", "b", "a"),
        ("[^a]", "b", "^a"),
        ("[[:digit:]]", "7", "d"),
        ("a**/b", "a/x/b", "x/a/b"),
        ("a/**/b", "a/x/y/b", "a/xb"),
        ("**/b", "x/y/b", "b/x"),
        ("x*y", "x y", "x/y"),
        ("/top", "top", "d/top"),
        ("d/x", "d/x", "e/d/x"),
        ("sp\\ ", "sp ", "sp"),
        ("sp  ", "sp", "sp  "),
        ("?", "a", "\u{e4}"),
    ] {
        assert_eq!(out(&[rule], &[fits, does_not]), [fits], "{rule}");
    }
}

#[test]
fn the_last_rule_that_fits_decides() {
    let paths = ["a.o", "keep.o", "d/", "d/keep.o", "build/", "build"];
    assert_eq!(out(&["*.o", "!keep.o", "build/"], &paths), ["a.o", "build/"]);
    assert_eq!(out(&["!keep.o", "*.o"], &paths), ["a.o", "keep.o", "d/keep.o"]);
    // Plain names are found in another way than patterns.
    assert_eq!(out(&["keep.o", "!k*", "keep.o", "!keep.o"], &paths), [""; 0]);
    assert_eq!(out(&["!keep.o", "k*", "!keep.o", "keep.o"], &paths), ["keep.o", "d/keep.o"]);
    assert_eq!(out(&["# comment", ""], &paths), [""; 0]);
}

#[test]
fn rules_are_bytes() {
    let (rules, flawed) = Rules::of_file(b"\xef\xbb\xbfb\xe4r\r\n# no\n\nx\xff*\n");
    assert!(flawed.is_empty());
    assert!(rules.ruling(b"b\xe4r", false).is_out() && rules.ruling(b"d/x\xffy", false).is_out());
    assert!(!rules.ruling("b\u{e4}r".as_bytes(), false).is_out());
    let kept: Vec<_> = lines(b"\xef\xbb\xbfb\xe4r\r\n# no\n\nx\xff*\n").collect();
    assert_eq!(kept, [(1, &b"b\xe4r"[..]), (4, b"x\xff*")]);
}

#[test]
fn what_cannot_do_what_it_should_is_refused_and_named() {
    for (rule, why) in [
        ("a[z-a]", "an invalid range: z-a"),
        ("[a", "a [ without its ]"),
        ("a\\", "a \\ with nothing behind it"),
        ("[[:alfa:]]", "no class of characters: [:alfa:]"),
        ("[[:alpha", "a [: without its :]"),
        ("/", "it matches nothing"),
        ("!", "it matches nothing"),
        ("", "an empty rule"),
        ("   ", "an empty rule"),
        ("#auto#", "is a comment"),
        (&"a*".repeat(61), "more than 60 times *"),
    ] {
        let error = check(rule.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{rule}: {error}");
    }
    for rule in
        ["[]]", "[!]a]", "[]-a]", "[a-]", "[--a]", "[\\]]", "[a[:digit:]z]", "\\#x", "{", "a**", "[[:x]"]
    {
        assert_eq!(check(rule.as_bytes()), Ok(()), "{rule}");
    }
    assert!(matches!(Rules::new(&[b"ok".to_vec(), b"[a".to_vec()]), Err(VykarError::Usage(_))));
    let (rules, flawed) = Rules::of_file(b"ok\n[z-ab]\n[a\n");
    assert_eq!(flawed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    // As far as it goes, git follows it too.
    assert!(rules.ruling(b"b", false).is_out());
}

#[test]
fn as_many_stars_as_are_taken_work() {
    let rule = "a*".repeat(60);
    assert_eq!(out(&[&rule], &[&"ab".repeat(60), &"a".repeat(59)]).len(), 1);
}

#[test]
fn an_absolute_path_in_a_source_is_that_path() {
    let moved = |list: &[&str], there: bool| {
        let rules = rules(list);
        let rules = rules.at_source(b"/home/u", |_| there).unwrap_or(rules);
        let paths = ["cache", "d/cache", "home/u/cache"];
        paths.into_iter().filter(|path| rules.ruling(path.as_bytes(), true).is_out()).collect::<Vec<_>>()
    };
    assert_eq!(moved(&["/home/u/cache/"], false), ["cache"]);
    assert_eq!(moved(&["/home/u/*/cache"], false), ["d/cache"]);
    assert_eq!(moved(&["*", "!/home/u/cache"], false), ["d/cache", "home/u/cache"]);
    // Where the source has such a path in it, the rule is as in a .gitignore.
    assert_eq!(moved(&["/home/u/cache"], true), ["home/u/cache"]);
    assert_eq!(moved(&["/home/us/cache", "home/u/d", "/home/u"], false), [""; 0]);
}

#[test]
fn from_the_top_nothing_comes_back_from_a_folder_that_is_left_out() {
    let mut rules = FromTop::new(rules(&["d/", "!keep"]));
    assert_eq!(rules.standing(b"d", true), RuleStanding::Out(b"d/"));
    assert_eq!(rules.standing(b"d/keep", false), RuleStanding::Below);
    assert_eq!(rules.standing(b"x/d/y/keep", false), RuleStanding::Below);
    assert_eq!(rules.standing(b"keep", false), RuleStanding::Stays);
    assert_eq!(rules.standing(b"d", false), RuleStanding::Stays);
}
