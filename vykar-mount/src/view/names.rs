//! Folder names from what a repository says: host names, labels, snapshot names.
//!
//! Nearly all are used as they are. One that no folder can have, or that looks like the escaped form
//! of another, is percent-escaped, so that two different names never become one folder.

/// Longest folder name in bytes.
const MAX: usize = 255;
/// `%` and the digits of a hash, behind a name that was cut.
const CUT_MARK: usize = 17;

/// The folder name for `name`, at most 255 bytes less `reserve` for what the caller appends.
///
/// Empty becomes `%`. A name that is `.` or `..`, holds `/` or NUL, or looks escaped itself has those
/// bytes and every `%` as `%XX`. What is too long then is cut and ends in `%` and 16 hex digits of a hash.
pub fn folder_name(name: &str, reserve: usize) -> String {
    if name.is_empty() {
        return "%".into();
    }
    let dots = matches!(name, "." | "..");
    let mut out = String::with_capacity(name.len());
    if dots || name.contains(['/', '\0']) || looks_escaped(name) {
        for c in name.chars() {
            match c {
                '/' | '\0' | '%' => out.push_str(&format!("%{:02X}", c as u32)),
                '.' if dots => out.push_str("%2E"),
                c => out.push(c),
            }
        }
    } else {
        out.push_str(name);
    }
    let max = MAX.saturating_sub(reserve);
    if out.len() > max {
        let mut end = max.saturating_sub(CUT_MARK);
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push_str(&format!("%{:016X}", fnv1a(name.as_bytes())));
    }
    out
}

/// True for what [`folder_name`] may return for another name.
fn looks_escaped(name: &str) -> bool {
    let hex = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(c));
    let bytes = name.as_bytes();
    let escape = |at: usize| bytes[at] == b'%' && hex(bytes.get(at + 1)) && hex(bytes.get(at + 2));
    name == "%" || (0..bytes.len()).any(escape)
}

/// A small hash that stays the same over versions of this program and its compiler.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_and_impossible_ones_are_escaped() {
        for name in ["web-1.example.org", "50%", "100% done", "...", "späße", "a\nb"] {
            assert_eq!(folder_name(name, 0), name);
        }
        for (name, expected) in [
            ("", "%"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("a/b", "a%2Fb"),
            ("/50%", "%2F50%25"),
            ("a\0", "a%00"),
            ("a%2Fb", "a%252Fb"),
            ("%", "%25"),
        ] {
            assert_eq!(folder_name(name, 0), expected);
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = ("x".repeat(300) + "a", "x".repeat(300) + "b");
        assert_ne!(folder_name(&a, 0), folder_name(&b, 0));
        for name in [a, b, "é".repeat(200), "/".repeat(256)] {
            assert!(folder_name(&name, 0).len() <= 255 && folder_name(&name, 9).len() <= 246, "{name}");
        }
        assert_eq!(folder_name(&"y".repeat(255), 0), "y".repeat(255));
    }

    proptest! {
        #[test]
        fn different_names_become_different_folders(a in "[%./A2F\0a]{0,6}", b in "[%./A2F\0a]{0,6}") {
            let (x, y) = (folder_name(&a, 0), folder_name(&b, 0));
            prop_assert_eq!(a == b, x == y, "{} {}", x, y);
            prop_assert!(!x.is_empty() && x != "." && x != ".." && !x.contains(['/', '\0']));
        }
    }
}
