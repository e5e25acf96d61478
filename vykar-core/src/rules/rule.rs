//! One rule.

use gix_glob::wildmatch::Mode;

use super::flaw;

/// Bytes that mean something else than themselves.
const SPECIAL: &[u8] = b"*?[\\";

/// A line that is a rule.
#[derive(Debug, Clone)]
pub struct PathRule {
    /// As it is written.
    text: Vec<u8>,
    /// Without `!`, and the slashes at both ends.
    pattern: Vec<u8>,
    /// So many bytes at its beginning stand for themselves.
    plain: usize,
    negated: bool,
    dir_only: bool,
    /// It is about the path from where the rule is, not about a name anywhere below.
    of_path: bool,
}

impl PathRule {
    /// `None` for empty lines and comments.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line.first().is_none_or(|first| *first == b'#') {
            return None;
        }
        let text = without_spaces_behind(line);
        let (negated, pattern) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (dir_only, pattern) = match pattern.strip_suffix(b"/") {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let of_path = pattern.contains(&b'/');
        let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
        if text.is_empty() {
            return None;
        }
        Some(PathRule::made(text, pattern, (negated, dir_only, of_path)))
    }

    fn made(text: &[u8], pattern: &[u8], (negated, dir_only, of_path): (bool, bool, bool)) -> Self {
        let plain = pattern.iter().position(|c| SPECIAL.contains(c)).unwrap_or(pattern.len());
        PathRule { text: text.to_vec(), pattern: pattern.to_vec(), plain, negated, dir_only, of_path }
    }

    /// As it is written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// True when it keeps what it matches.
    pub fn is_negated(&self) -> bool {
        self.negated
    }

    /// Why it can not do what its writer wants.
    pub fn check(&self) -> Result<(), String> {
        flaw::find(&self.pattern).map_or(Ok(()), Err)
    }

    /// The name that it stands for, and no other.
    pub fn plain_name(&self) -> Option<&[u8]> {
        (!self.of_path && self.plain == self.pattern.len()).then_some(&self.pattern)
    }

    /// True when it is about this path, whose last component is `name`.
    pub fn matches(&self, path: &[u8], name: &[u8], is_dir: bool) -> bool {
        if self.dir_only && !is_dir {
            return false;
        }
        let subject = if self.of_path { path } else { name };
        // What is plain at the beginning is compared apart, as in git, which has a meaning: `a**/b` matches `a/x/b`.
        let (plain, wild) = self.pattern.split_at(self.plain);
        let Some(rest) = subject.strip_prefix(plain) else { return false };
        if wild.is_empty() {
            return rest.is_empty();
        }
        match wild.strip_prefix(b"*") {
            Some(end) if !self.of_path && !end.iter().any(|c| SPECIAL.contains(c)) => rest.ends_with(end),
            _ => {
                let mode = if self.of_path { Mode::NO_MATCH_SLASH_LITERAL } else { Mode::empty() };
                gix_glob::wildmatch(wild.into(), rest.into(), mode)
            }
        }
    }

    /// The same rule for what is below an absolute path, if it begins with that.
    pub fn below(&self, source: &[u8]) -> Option<Self> {
        let source = source.strip_prefix(b"/")?;
        // Without the slash at its beginning it is about something below the source.
        if source.is_empty() || !self.text.strip_prefix(b"!").unwrap_or(&self.text).starts_with(b"/") {
            return None;
        }
        let rest = self.pattern.strip_prefix(source)?.strip_prefix(b"/")?;
        (!rest.is_empty()).then(|| PathRule::made(&self.text, rest, (self.negated, self.dir_only, true)))
    }
}

/// Spaces at the end are no part of a rule, unless a backslash is before them.
fn without_spaces_behind(line: &[u8]) -> &[u8] {
    let (mut end, mut at) = (0, 0);
    while let Some(c) = line.get(at) {
        at += if *c == b'\\' { 2 } else { 1 };
        if *c != b' ' {
            end = at.min(line.len());
        }
    }
    &line[..end]
}
