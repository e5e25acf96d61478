//! Path templates: rules for the folders above the snapshots.
//!
//! `by-day/%Y-%m-%d/{host}-{label}` says under which path, from the root of the mount, a snapshot is: a
//! `/` makes a folder, `%Y` and its like are parts of the snapshot's begin, `{host}` and its like what
//! the snapshot says of itself.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::view::layout::Listed;

/// Most templates at once: each has directories of its own, and inode numbers have two bits for that.
pub const MAX_TEMPLATES: usize = crate::view::inode::View::ALL.len();
/// Digits of an id that `{id}` shows.
const ID_DIGITS: usize = 8;

/// Why a text is no template. The texts are for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing between two slashes, or at an end.
    #[error("an empty component: a template is a path from the root of the mount, like ids/{{id}}")]
    Empty,
    /// `.` or `..`.
    #[error("{component:?} is no name for a folder")]
    Dots {
        /// The component.
        component: String,
    },
    /// A `{` that begins nothing known.
    #[error("{piece}: unknown; there are {{id}}, {{host}}, {{label}} and {{name}}")]
    Placeholder {
        /// From the brace on.
        piece: String,
    },
    /// A `%` that begins nothing known.
    #[error("{piece}: {reason}")]
    Time {
        /// From the percent sign on.
        piece: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    /// A strftime conversion.
    Time(String),
    Id,
    Host,
    Label,
    Name,
}

/// A path template. Parsed with [`str::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// At least one, and none of them empty.
    components: Vec<Vec<TemplatePart>>,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let components = text.split('/').map(component).collect::<Result<_, _>>()?;
        Ok(Template { text: text.to_owned(), components })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn component(text: &str) -> Result<Vec<TemplatePart>, TemplateError> {
    match text {
        "" => return Err(TemplateError::Empty),
        "." | ".." => return Err(TemplateError::Dots { component: text.to_owned() }),
        _ => {}
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '%']) {
        if at > 0 {
            parts.push(TemplatePart::Text(rest[..at].to_owned()));
        }
        let (part, len) = match &rest[at..] {
            piece if piece.starts_with('{') => placeholder(piece)?,
            piece => conversion(piece)?,
        };
        parts.push(part);
        rest = &rest[at + len..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// The placeholder that `piece` begins with, and its length.
fn placeholder(piece: &str) -> Result<(TemplatePart, usize), TemplateError> {
    let len = piece.find('}').map_or(piece.len(), |end| end + 1);
    let part = match &piece[..len] {
        "{id}" => TemplatePart::Id,
        "{host}" => TemplatePart::Host,
        "{label}" => TemplatePart::Label,
        "{name}" => TemplatePart::Name,
        other => return Err(TemplateError::Placeholder { piece: other.to_owned() }),
    };
    Ok((part, len))
}

/// The strftime conversion that `piece` begins with, and its length: flags, a width, then a letter.
fn conversion(piece: &str) -> Result<(TemplatePart, usize), TemplateError> {
    let plain = |c: char| !matches!(c, '_' | '-' | '^' | '#' | '.' | ':') && !c.is_ascii_digit();
    let end = piece.char_indices().skip(1).find(|(_, c)| plain(*c));
    let len = end.map_or(piece.len(), |(at, c)| at + c.len_utf8());
    let piece = &piece[..len];
    let wrong = |reason: String| TemplateError::Time { piece: piece.to_owned(), reason };
    // Any time will do.
    match time_text(piece, &jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)) {
        Ok(text) if text.contains('/') => Err(wrong("gives a `/`; write its parts one by one".to_owned())),
        Ok(_) => Ok((TemplatePart::Time(piece.to_owned()), len)),
        Err(reason) => Err(wrong(reason)),
    }
}

fn time_text(conversion: &str, time: &Zoned) -> Result<String, String> {
    BrokenDownTime::from(time).to_string(conversion).map_err(|e| e.to_string())
}

impl Template {
    /// `FOLDER/TIME`, or `FOLDER/{host}/TIME`, or `FOLDER/{label}/TIME`: TIME as `2026-11-22T07-32-36`
    /// sorts by time, and needs no quotes and no escapes.
    fn times(folder: &str, group: Option<TemplatePart>) -> Self {
        let time = ["%Y", "-", "%m", "-", "%d", "T", "%H", "-", "%M", "-", "%S"].map(|piece| {
            if piece.starts_with('%') {
                TemplatePart::Time(piece.to_owned())
            } else {
                TemplatePart::Text(piece.to_owned())
            }
        });
        let mut components = vec![vec![TemplatePart::Text(folder.to_owned())]];
        components.extend(group.map(|part| vec![part]));
        components.push(time.into());
        Template { text: folder.to_owned(), components }
    }

    /// What is there without any template, beside `ids/`: by time, by host, by label.
    pub(crate) fn standard() -> [Template; 3] {
        let times = Template::times;
        [
            times(crate::view::layout::TIMES, None),
            times("hosts", Some(TemplatePart::Host)),
            times("labels", Some(TemplatePart::Label)),
        ]
    }

    /// The names of the folders that lead to a snapshot, and its own last. They are not safe yet.
    pub(crate) fn names(&self, snapshot: &Listed, zone: &TimeZone) -> Vec<String> {
        let time = snapshot.time.to_zoned(zone.clone());
        let name = |parts: &Vec<TemplatePart>| parts.iter().map(|part| part.text(snapshot, &time)).collect();
        self.components.iter().map(name).collect()
    }

    /// The names of folders that are the same for all snapshots, from the root on.
    pub(crate) fn fixed(&self) -> Vec<String> {
        let above = self.components.len().saturating_sub(1);
        let text = |parts: &Vec<TemplatePart>| match &parts[..] {
            [TemplatePart::Text(text)] => Some(text.clone()),
            _ => None,
        };
        self.components.iter().take(above).map_while(text).collect()
    }
}

impl TemplatePart {
    fn text(&self, snapshot: &Listed, time: &Zoned) -> String {
        match self {
            TemplatePart::Text(text) => text.clone(),
            // Some know only some centuries.
            TemplatePart::Time(conversion) => {
                time_text(conversion, time).unwrap_or_else(|_| conversion.clone())
            }
            TemplatePart::Id => snapshot.id.to_string().chars().take(ID_DIGITS).collect(),
            TemplatePart::Host => snapshot.host.clone(),
            TemplatePart::Label => snapshot.label.clone(),
            TemplatePart::Name => snapshot.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(template: &str) -> Vec<String> {
        let snapshot = Listed {
            id: vykar_core::SnapshotId([0xab; 32]),
            number: 1,
            time: "2026-01-02T03:04:05.5Z".parse().unwrap(),
            name: "n".into(),
            host: "h/h".into(),
            label: String::new(),
        };
        template.parse::<Template>().unwrap().names(&snapshot, &TimeZone::fixed(jiff::tz::offset(1)))
    }

    #[test]
    fn times_and_placeholders_are_put_in() {
        assert_eq!(names("by-day/%Y-%m-%d/{host}-{label}"), ["by-day", "2026-01-02", "h/h-"]);
        assert_eq!(names("{id}{name} 100%%}"), ["abababab"[..].to_owned() + "n 100%}"]);
        assert_eq!(names("%-d %_H|%3f|%:z"), ["2  4|500|+01:00"]);
        let standard = Template::standard().map(|t| (t.to_string(), t.fixed()));
        for ((text, fixed), name) in standard.into_iter().zip(["snapshots", "hosts", "labels"]) {
            assert_eq!((text.as_str(), fixed), (name, vec![name.to_owned()]));
        }
        let fixed = |template: &str| template.parse::<Template>().unwrap().fixed();
        assert_eq!(fixed("a/b/%Y/c/{id}"), ["a", "b"]);
        assert_eq!(fixed("all"), [""; 0]);
    }

    #[test]
    fn what_is_no_template_is_named() {
        for (template, piece) in [
            ("", "empty"),
            ("/ids/{id}", "empty"),
            ("ids//{id}", "empty"),
            ("ids/", "empty"),
            ("a/../{id}", "\"..\""),
            ("./{id}", "\".\""),
            ("x{user}y", "{user}:"),
            ("{id", "{id:"),
            ("a-%!-b", "%!:"),
            ("100%", "%:"),
            ("%-", "%-:"),
            ("%D", "%D: gives a `/`"),
        ] {
            let said = template.parse::<Template>().unwrap_err().to_string();
            assert!(said.contains(piece), "{template:?}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program(text in "[%{}a-z_#:.0-9/é-]{0,12}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string(), text.clone());
                prop_assert!(!names(&text).is_empty());
            }
        }
    }
}
