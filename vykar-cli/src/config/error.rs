//! Errors that point at a line of the configuration.

use std::path::Path;

use serde_saphyr::Error;

use super::hooks::IN_QUOTES;
use super::values::WANTED;
use crate::exit::{CliError, Exit};
use crate::render;

/// How alike a known name must be to be proposed: 1 is the same.
const ALIKE: f64 = 0.75;

/// Something at a line.
pub fn at(path: &Path, line: u64, what: &str) -> CliError {
    let path = render::path(path);
    let place = if line == 0 { path } else { format!("{path}, line {line}") };
    CliError::new(Exit::Usage, format!("{place}: {what}"))
}

/// What the parser found, in our words where they are better.
pub fn explain(path: &Path, error: &Error) -> CliError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let unknown = at(path, line, &format!("unknown key `{}`", render::plain(field.as_bytes())));
            match nearest(field, expected) {
                Some(known) => unknown.hint(format!("did you mean `{known}`?")),
                None => unknown.hint(format!("known here: {}", expected.join(", "))),
            }
        }
        Error::SerdeMissingField { field, .. } => at(path, line, &format!("`{field}` is missing here")),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            at(path, line, &format!("`{}` is here a second time", render::plain(key.as_bytes())))
        }
        other => {
            let text = other.to_string();
            // The place is said already.
            let text = text.split(" at line ").next().unwrap_or(&text);
            if let Some(name) = text.strip_prefix(IN_QUOTES) {
                return in_quotes(path, line, name);
            }
            match text.strip_prefix(WANTED) {
                Some(wanted) => at(path, line, &format!("{WANTED}{wanted}")),
                None => at(path, line, text)
                    .hint("YAML: `key: value`, lists with `- `, the same indent for siblings"),
            }
        }
    }
}

/// A hook with a value inside quotes.
fn in_quotes(path: &Path, line: u64, name: &str) -> CliError {
    let variable = format!("$VYKAR_{}", name.to_ascii_uppercase());
    at(path, line, &format!("a hook with {{{name}}} inside quotes, where it is not one word")).hint(format!(
        "write \"{variable}\" inside double quotes, as \"failed: {variable}\", or {{{name}}} outside of them"
    ))
}

/// The known name that is most like it.
pub fn nearest<S: AsRef<str>>(name: &str, known: impl IntoIterator<Item = S>) -> Option<S> {
    let alike = |known: S| (strsim::jaro_winkler(name, known.as_ref()), known);
    let best = known.into_iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}
