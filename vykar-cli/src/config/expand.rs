//! `${VAR}` and `${VAR:-default}` in the text of a configuration file, before it is parsed.

/// A variable that cannot be put in.
#[derive(Debug, PartialEq, Eq)]
pub struct Unset {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Puts variables in. Lines that are comments stay as they are; a `$` without a brace means itself.
pub fn expand(text: &str, get: impl Fn(&str) -> Option<String>) -> Result<String, Unset> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match line.trim_start().starts_with('#') {
            true => out.push_str(line),
            false => expand_line(line, &get, &mut out).map_err(|what| Unset { line: number + 1, what })?,
        }
    }
    Ok(out)
}

fn expand_line(line: &str, get: &impl Fn(&str) -> Option<String>, out: &mut String) -> Result<(), String> {
    let mut rest = line;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let Some((inner, behind)) = from[2..].split_once('}') else {
            return Err("${ without }".to_owned());
        };
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("${{{inner}}}: not the name of a variable"));
        }
        // As in a shell, `:-` stands in for what is empty, too.
        let value = get(name).filter(|value| default.is_none() || !value.is_empty());
        let value = value.or_else(|| default.map(str::to_owned));
        let value = value.ok_or_else(|| format!("the environment variable {name} is not set"))?;
        out.push_str(before);
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Unset> {
        expand(text, |name| match name {
            "HOME" => Some("/home/me".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_defaults() {
        assert_eq!(with("a: ${HOME}/x ${NO:-y}${NO:-}!").unwrap(), "a: /home/me/x y!");
        assert_eq!(with("${EMPTY}|${EMPTY:-z}").unwrap(), "|z");
        assert_eq!(with("$HOME $ {HOME} $$").unwrap(), "$HOME $ {HOME} $$");
        assert_eq!(with(" # ${NO}\n\u{e9}${HOME}\n").unwrap(), " # ${NO}\n\u{e9}/home/me\n");
        // What a variable holds is not looked into again.
        assert_eq!(expand("${A}", |_| Some("${A}".to_owned())).unwrap(), "${A}");
    }

    #[test]
    fn what_cannot_be_put_in_is_named_with_its_line() {
        let wrong = |text: &str| with(text).unwrap_err();
        assert_eq!(wrong("a\nb: ${NO}").line, 2);
        assert!(wrong("a\nb: ${NO}").what.contains("NO is not set"));
        for text in ["${", "${}", "${1A}", "${A B}", "${A-b}"] {
            assert_eq!(wrong(text).line, 1, "{text}");
        }
    }
}
