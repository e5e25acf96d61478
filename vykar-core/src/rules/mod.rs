//! Rules as in a `.gitignore`, read and applied as git does. They are bytes, as paths are.

mod flaw;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::rule::PathRule;
use crate::error::{Result, VykarError};

/// What some editors put before the first line of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with a rule, if anything is.
///
/// # Errors
/// It is none that a line of a `.gitignore` may be, or could never match.
pub fn check(rule: &[u8]) -> Result<(), String> {
    let first = rule.first().ok_or("an empty rule")?;
    if *first == b'#' {
        return Err("a rule that begins with # is a comment; put \\ before the #".to_owned());
    }
    PathRule::parse(rule).ok_or("an empty rule").map_err(str::to_owned).and_then(|rule| rule.check())
}

/// The lines of a file with rules, numbered from 1, without those that are no rules. A byte order mark before them and
/// carriage returns behind them are no part of them.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = text.split(|c| *c == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.zip(1..).map(|(line, number)| (number, line)).filter(|(_, line)| PathRule::parse(line).is_some())
}

/// What the rules say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling<'r> {
    /// Nothing.
    Silent,
    /// This rule leaves it out.
    Out(&'r [u8]),
    /// A rule with `!` keeps it.
    Kept,
}

impl Ruling<'_> {
    /// True when a rule leaves it out.
    pub fn is_out(&self) -> bool {
        matches!(self, Ruling::Out(_))
    }
}

/// Rules in their order: the last that matches decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    list: Vec<PathRule>,
    /// Rules that are a plain name, by that name: people bring lists of thousands.
    names: HashMap<Vec<u8>, Vec<usize>>,
    /// All others.
    others: Vec<usize>,
}

impl Rules {
    /// Of options.
    ///
    /// # Errors
    /// [`VykarError::Usage`] for what is no rule.
    pub fn new(rules: &[Vec<u8>]) -> Result<Self> {
        let mut made = Rules::default();
        for text in rules {
            // A comment does no harm here: who reads options is to refuse them.
            let Some(rule) = PathRule::parse(text) else { continue };
            let wrong = |e| VykarError::Usage(format!("rule {:?}: {e}", String::from_utf8_lossy(text)));
            rule.check().map_err(wrong)?;
            made.push(rule);
        }
        Ok(made)
    }

    /// Of a `.gitignore`. Those that cannot match, or not all that they should, come too, with their lines: they hold
    /// as far as they do in git.
    pub fn of_file(text: &[u8]) -> (Self, Vec<(usize, String)>) {
        let (mut made, mut flawed) = (Rules::default(), Vec::new());
        for (number, line) in lines(text) {
            let Some(rule) = PathRule::parse(line) else { continue };
            if let Err(e) = rule.check() {
                flawed.push((number, format!("{:?}: {e}", String::from_utf8_lossy(line))));
            }
            made.push(rule);
        }
        (made, flawed)
    }

    fn push(&mut self, rule: PathRule) {
        let at = self.list.len();
        match rule.plain_name() {
            Some(name) => self.names.entry(name.to_vec()).or_default().push(at),
            None => self.others.push(at),
        }
        self.list.push(rule);
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What they say of a path, which is relative to where they are. Nothing is asked about the folders above it.
    pub fn ruling(&self, path: &[u8], is_dir: bool) -> Ruling<'_> {
        let name = crate::format::path::name(path);
        let fits = |at: &usize| self.list[*at].matches(path, name, is_dir);
        let named = self.names.get(name).and_then(|all| all.iter().rev().find(|at| fits(at)));
        // Only what comes behind it can overrule a rule.
        let later = self.others.iter().rev().take_while(|at| named.is_none_or(|named| *at > named));
        match later.copied().find(fits).or(named.copied()) {
            None => Ruling::Silent,
            Some(at) if self.list[at].is_negated() => Ruling::Kept,
            Some(at) => Ruling::Out(self.list[at].text()),
        }
    }

    /// The rules for a source at this absolute path, where they differ: one that begins with that path means what is
    /// there. Only where it could match nothing otherwise, which `is_below` tells of a path below the source.
    pub fn at_source(&self, source: &[u8], is_below: impl Fn(&[u8]) -> bool) -> Option<Rules> {
        let differs = self.list.iter().any(|rule| rule.below(source).is_some());
        if !differs || is_below(source.strip_prefix(b"/").unwrap_or(source)) {
            return None;
        }
        let mut made = Rules::default();
        self.list.iter().for_each(|rule| made.push(rule.below(source).unwrap_or_else(|| rule.clone())));
        Some(made)
    }
}

/// How a path stands to the rules, the folders above it considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleStanding<'r> {
    /// No rule leaves it out.
    Stays,
    /// This one leaves it out.
    Out(&'r [u8]),
    /// A folder above it is left out.
    Below,
}

/// Rules for paths that come without the folders above them, from the top as a walk would ask: nothing brings back what
/// is in a folder that is left out.
#[derive(Debug, Default)]
pub(crate) struct FromTop {
    rules: Rules,
    /// The folder that was asked about last, and whether it is left out: most paths are beside the one before.
    last: (Vec<u8>, bool),
}

impl FromTop {
    /// With these rules.
    pub fn new(rules: Rules) -> Self {
        FromTop { rules, last: (Vec::new(), false) }
    }

    /// What becomes of a path.
    pub fn standing(&mut self, path: &[u8], is_dir: bool) -> RuleStanding<'_> {
        let parent = path.iter().rposition(|c| *c == b'/').map_or(&[][..], |end| &path[..end]);
        if self.last.0 != parent {
            let mut ends = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(end, _)| end);
            let out = ends.any(|end| self.rules.ruling(&path[..end], true).is_out());
            self.last = (parent.to_vec(), out);
        }
        if self.last.1 {
            return RuleStanding::Below;
        }
        match self.rules.ruling(path, is_dir) {
            Ruling::Out(rule) => RuleStanding::Out(rule),
            Ruling::Silent | Ruling::Kept => RuleStanding::Stays,
        }
    }
}
