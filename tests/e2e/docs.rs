//! The documentation as a book: everything is in it, and no link leads nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::harness::project;

/// Where the links of a page lead, as they are written.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let parts = line.split("](").skip(1).filter(|_| !code);
        found.extend(parts.filter_map(|part| Some(part.split_once(')')?.0.to_owned())));
    }
    found
}

/// Names of a page's headings, as links call them.
fn anchors(text: &str) -> BTreeSet<String> {
    let plain = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().chars().filter_map(plain).collect()).collect()
}

fn assert_leads_somewhere(page: &Path) {
    let text = fs::read_to_string(page).unwrap();
    for link in links(&text).iter().filter(|link| !link.contains("://")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        assert!(target.exists(), "{}: {link}", page.display());
        if !anchor.is_empty() {
            let found = anchors(&fs::read_to_string(&target).unwrap());
            assert!(found.contains(anchor), "{}: {link} is none of {found:?}", page.display());
        }
    }
}

#[test]
fn the_book_has_all_pages_and_no_link_leads_nowhere() {
    let docs = project().join("docs");
    let entries = fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().path());
    let pages: BTreeSet<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    let summary = docs.join("SUMMARY.md");
    let listed = links(&fs::read_to_string(&summary).unwrap());
    let listed: BTreeSet<PathBuf> = listed.into_iter().map(|link| docs.join(link)).collect();
    let wanted: BTreeSet<PathBuf> = pages.iter().filter(|page| **page != summary).cloned().collect();
    assert_eq!(listed, wanted);
    pages.iter().chain([&project().join("README.md")]).for_each(|page| assert_leads_somewhere(page));
}
