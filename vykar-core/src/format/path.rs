//! Paths inside a snapshot, as people type them.

/// The plain form of a path that was typed: slashes at the ends, doubled ones and `.` do not matter. Empty for the
/// top of a snapshot.
pub fn plain(path: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = path.split(|c| *c == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

/// True for `top` itself and all that lies below it; everything lies below the empty path.
pub fn is_within(path: &[u8], top: &[u8]) -> bool {
    match path.strip_prefix(top) {
        Some(rest) => top.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

/// The last component.
pub fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|c| *c == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_becomes_plain() {
        for (typed, is) in [("a/b", "a/b"), ("/a//b/", "a/b"), ("./a/.", "a"), ("/", ""), ("", ""), (".", "")]
        {
            assert_eq!(plain(typed.as_bytes()), is.as_bytes(), "{typed}");
        }
    }

    #[test]
    fn below_is_by_components() {
        for (path, top, is) in [
            ("a", "a", true),
            ("a/b", "a", true),
            ("ab", "a", false),
            ("a", "a/b", false),
            ("x", "", true),
            ("", "a", false),
        ] {
            assert_eq!(is_within(path.as_bytes(), top.as_bytes()), is, "{path} in {top}");
        }
        assert_eq!((name(b"a/b"), name(b"a")), (&b"b"[..], &b"a"[..]));
    }
}
