//! Rules that git takes, and that match nothing, or less than their writer wants: better refused than void in silence.

/// `*` that the matcher follows in one rule; one with more matches nothing.
const MAX_STARS: usize = 60;
/// Classes of characters.
const CLASSES: [&[u8]; 12] = [
    b"alnum", b"alpha", b"blank", b"cntrl", b"digit", b"graph", b"lower", b"print", b"punct", b"space",
    b"upper", b"xdigit",
];

/// What is wrong with a pattern.
pub fn find(pattern: &[u8]) -> Option<String> {
    if pattern.is_empty() {
        return Some("it matches nothing".to_owned());
    }
    let (mut at, mut stars) = (0, 0usize);
    while let Some(c) = pattern.get(at) {
        at += 1;
        match c {
            b'\\' if at == pattern.len() => return Some("a \\ with nothing behind it".to_owned()),
            b'\\' => at += 1,
            b'*' => {
                stars += 1;
                at += pattern[at..].iter().take_while(|c| **c == b'*').count();
            }
            b'[' => match brackets(pattern, at) {
                Ok(behind) => at = behind,
                Err(what) => return Some(what),
            },
            _ => {}
        }
    }
    (stars > MAX_STARS).then(|| format!("more than {MAX_STARS} times *"))
}

/// Where the brackets end that begin before `at`.
fn brackets(pattern: &[u8], mut at: usize) -> Result<usize, String> {
    let open = || "a [ without its ]; put \\ before one that stands for itself".to_owned();
    let byte = |at: usize| pattern.get(at).copied().ok_or_else(open);
    if matches!(byte(at)?, b'!' | b'^') {
        at += 1;
    }
    let mut first = true;
    // What a range may begin with.
    let mut before: Option<u8> = None;
    loop {
        let c = byte(at)?;
        at += 1;
        match c {
            b']' if !first => return Ok(at),
            b'-' if before.is_some() && byte(at)? != b']' => {
                let mut end = byte(at)?;
                at += 1;
                if end == b'\\' {
                    end = byte(at)?;
                    at += 1;
                }
                if let Some(begin) = before.take().filter(|begin| *begin > end) {
                    let shown = [begin, b'-', end];
                    return Err(format!("an invalid range: {}", String::from_utf8_lossy(&shown)));
                }
            }
            b'\\' => {
                before = Some(byte(at)?);
                at += 1;
            }
            b'[' if byte(at)? == b':' => match class(pattern, at + 1)? {
                Some(behind) => (at, before) = (behind, None),
                None => before = Some(b'['),
            },
            c => before = Some(c),
        }
        first = false;
    }
}

/// Where a class ends whose name begins at `at`; `None` when it is none, but two characters.
fn class(pattern: &[u8], at: usize) -> Result<Option<usize>, String> {
    let rest = pattern.get(at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|c| *c == b']') else {
        return Err("a [: without its :]".to_owned());
    };
    let Some(name) = rest[..end].strip_suffix(b":") else { return Ok(None) };
    match CLASSES.contains(&name) {
        true => Ok(Some(at + end + 1)),
        false => Err(format!("no class of characters: [:{}:]", String::from_utf8_lossy(name))),
    }
}
