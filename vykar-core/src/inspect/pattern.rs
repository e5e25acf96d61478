//! Which paths are looked for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Result, VykarError};
use crate::format::path;

/// Characters that make a pattern of what is a path otherwise.
const WILD: &[u8] = b"*?[";

/// A pattern of paths: all that fit every part.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    /// This path and what is below it.
    top: Vec<u8>,
    /// Paths that fit, and what is below them.
    tops: Option<GlobSet>,
    /// The last component.
    name: Option<GlobSet>,
    /// Likewise, or as `inames`, if there are any of either.
    names: Option<GlobSet>,
    /// The last component in lower case.
    inames: Option<GlobSet>,
}

impl Pattern {
    /// From what people type. `place` is a path, which stands for itself and what is below it; with `*`, `?` or `[` in
    /// it, a pattern of such paths or, without a slash, of names. `names` and `inames`, those without regard to upper
    /// and lower case, are patterns of names, one of which must fit if there are any. A `?` is one byte.
    ///
    /// # Errors
    /// [`VykarError::Usage`] for a pattern that cannot be understood.
    pub fn new(place: &[u8], names: &[String], inames: &[String]) -> Result<Self> {
        let mut pattern = Pattern::default();
        let wild = std::str::from_utf8(place).ok().filter(|_| place.iter().any(|c| WILD.contains(c)));
        match wild {
            None => pattern.top = path::plain(place),
            Some(name) if !name.contains('/') => pattern.name = set([name])?,
            Some(_) => pattern.tops = set([&*String::from_utf8_lossy(&path::plain(place))])?,
        }
        pattern.names = set(names.iter().map(String::as_str))?;
        let lower: Vec<_> = inames.iter().map(|name| name.to_lowercase()).collect();
        pattern.inames = set(lower.iter().map(String::as_str))?;
        Ok(pattern)
    }

    /// True when it fits the path.
    pub fn matches(&self, path: &[u8]) -> bool {
        let name = path::name(path);
        path::is_within(path, &self.top)
            && self.name.as_ref().is_none_or(|set| fits(set, name))
            && self.fits_names(name)
            && self.tops.as_ref().is_none_or(|set| is_below(set, path))
    }

    fn fits_names(&self, name: &[u8]) -> bool {
        let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        match (&self.names, &self.inames) {
            (None, None) => true,
            (names, inames) => {
                names.as_ref().is_some_and(|set| fits(set, name))
                    || inames.as_ref().is_some_and(|set| fits(set, lower(name).as_bytes()))
            }
        }
    }
}

fn fits(set: &GlobSet, path: &[u8]) -> bool {
    set.is_match(Path::new(OsStr::from_bytes(path)))
}

fn is_below(set: &GlobSet, path: &[u8]) -> bool {
    let slashes = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at);
    slashes.chain([path.len()]).any(|end| fits(set, &path[..end]))
}

/// Of patterns, if there are any.
fn set<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Option<GlobSet>> {
    let usage = |e: globset::Error| VykarError::Usage(format!("not a pattern: {e}"));
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(usage)?);
    }
    let set = builder.build().map_err(usage)?;
    Ok((!set.is_empty()).then_some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(place: &str, names: &[&str], inames: &[&str]) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let pattern = Pattern::new(place.as_bytes(), &owned(names), &owned(inames)).unwrap();
        let all = ["a", "a/b.jpg", "a/c/B.JPG", "a/c/d.txt", "ab", "x/a/b.jpg"];
        all.into_iter().filter(|path| pattern.matches(path.as_bytes())).collect()
    }

    #[test]
    fn paths_are_themselves_and_what_is_below() {
        assert_eq!(fits("/a/", &[], &[]), ["a", "a/b.jpg", "a/c/B.JPG", "a/c/d.txt"]);
        assert_eq!(fits("", &[], &[]).len(), 6);
        assert_eq!(fits("a/c", &["*.txt"], &[]), ["a/c/d.txt"]);
        assert_eq!(fits("b.jpg", &[], &[]), [""; 0], "there is no such path at the top");
    }

    #[test]
    fn patterns_with_a_slash_are_of_paths_and_others_of_names() {
        assert_eq!(fits("*.jpg", &[], &[]), ["a/b.jpg", "x/a/b.jpg"]);
        assert_eq!(fits("*/b.jpg", &[], &[]), ["a/b.jpg"]);
        assert_eq!(fits("**/b.jpg", &[], &[]), ["a/b.jpg", "x/a/b.jpg"]);
        assert_eq!(fits("[ax]/?", &[], &[]), ["a/c/B.JPG", "a/c/d.txt", "x/a/b.jpg"]);
        assert_eq!(
            fits("", &["d.txt", "a?"], &["b.jpg"]),
            ["a/b.jpg", "a/c/B.JPG", "a/c/d.txt", "ab", "x/a/b.jpg"]
        );
    }

    #[test]
    fn names_may_be_of_any_bytes() {
        let pattern = Pattern::new(b"", &["*-?".into()], &[]).unwrap();
        assert!(pattern.matches(b"d/x-\xff"));
        let pattern = Pattern::new(b"", &[], &["gr\u{d6}\u{df}e*".into()]).unwrap();
        assert!(pattern.matches("d/Gr\u{f6}\u{df}e.txt".as_bytes()));
        let literal = Pattern::new(b"d-\xff[", &[], &[]).unwrap();
        assert!(literal.matches(b"d-\xff[/x") && !literal.matches(b"d-\xfe["));
        assert!(matches!(Pattern::new(b"[a", &[], &[]), Err(VykarError::Usage(_))));
    }
}
