//! Commands that run around others: which there are.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before; when it fails, the command does not run.
    Before,
    /// After the command succeeded.
    After,
    /// After it failed, or a hook before it did.
    Failed,
    /// At the end, whatever happened.
    Finally,
}

/// A command that hooks run around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Around {
    Backup,
    Prune,
    Check,
    Compact,
}

impl Around {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Around::Backup => "backup",
            Around::Prune => "prune",
            Around::Check => "check",
            Around::Compact => "compact",
        }
    }
}

/// What a hook can have put in, as `{name}`, and gets in its environment, as `VYKAR_NAME`.
pub const VALUES: [&str; 6] = ["command", "repository", "label", "error", "source_label", "source_path"];

/// How the message of a value inside quotes begins; its name follows.
pub const IN_QUOTES: &str = "inside quotes: ";

/// The first value that stands inside quotes, where no shell takes it as one word.
fn in_quotes(hook: &str) -> Option<&'static str> {
    let mut quote = None;
    let mut chars = hook.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '\\') => drop(chars.next()),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (Some(_), '{') => {
                let is_here = |name: &&str| hook[at..].starts_with(&format!("{{{name}}}"));
                if let Some(name) = VALUES.into_iter().find(is_here) {
                    return Some(name);
                }
            }
            _ => {}
        }
    }
    None
}

/// A command whose values stand outside of quotes.
struct HookLine(String);

impl<'de> Deserialize<'de> for HookLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match in_quotes(&text) {
            Some(name) => Err(de::Error::custom(format!("{IN_QUOTES}{name}"))),
            None => Ok(HookLine(text)),
        }
    }
}

/// HookKeys of hooks, in the order in which they are shown.
const KEYS: [&str; 20] = [
    "before",
    "after",
    "failed",
    "finally",
    "before_backup",
    "after_backup",
    "failed_backup",
    "finally_backup",
    "before_prune",
    "after_prune",
    "failed_prune",
    "finally_prune",
    "before_check",
    "after_check",
    "failed_check",
    "finally_check",
    "before_compact",
    "after_compact",
    "failed_compact",
    "finally_compact",
];

/// What a key means: when, and around which command; `None` is around each.
fn meaning(key: &str) -> Option<(When, Option<Around>)> {
    let at = KEYS.iter().position(|known| *known == key)?;
    let when = [When::Before, When::After, When::Failed, When::Finally][at % 4];
    let around =
        [None, Some(Around::Backup), Some(Around::Prune), Some(Around::Check), Some(Around::Compact)][at / 4];
    Some((when, around))
}

/// Shell commands by their time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks(BTreeMap<(When, Option<Around>), Vec<String>>);

impl Hooks {
    /// What runs then: what is for every command first.
    pub fn at(&self, when: When, around: Around) -> impl Iterator<Item = &str> {
        let of = move |around| self.0.get(&(when, around)).into_iter().flatten();
        of(None).chain(of(Some(around))).map(String::as_str)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// Each key with its commands.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        KEYS.into_iter().filter_map(|key| Some((key, self.0.get(&meaning(key)?)?.as_slice())))
    }

    /// These, and behind them those of `more`.
    pub fn with(&self, more: &Hooks) -> Hooks {
        let mut all = self.clone();
        for (key, commands) in &more.0 {
            all.0.entry(*key).or_default().extend(commands.iter().cloned());
        }
        all
    }
}

impl<'de> Deserialize<'de> for Hooks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HookKeys;
        impl<'de> Visitor<'de> for HookKeys {
            type Value = Hooks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of hooks")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Hooks, E> {
                Ok(Hooks::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hooks, A::Error> {
                let mut hooks = Hooks::default();
                while let Some(key) = map.next_key::<HookKey>()? {
                    let Commands(commands) = map.next_value()?;
                    hooks.0.entry(key.0).or_default().extend(commands);
                }
                Ok(hooks)
            }
        }
        deserializer.deserialize_map(HookKeys)
    }
}

struct HookKey((When, Option<Around>));

impl<'de> Deserialize<'de> for HookKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        meaning(&text).map(HookKey).ok_or_else(|| de::Error::unknown_field(&text, &KEYS))
    }
}

/// A command, or a list of them.
struct Commands(Vec<String>);

impl<'de> Deserialize<'de> for Commands {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HookEither;
        impl<'de> Visitor<'de> for HookEither {
            type Value = Commands;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command, or a list of commands")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Commands, E> {
                Ok(Commands(Vec::new()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Commands, E> {
                let HookLine(text) = HookLine::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(Commands(vec![text]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Commands, A::Error> {
                let mut all = Vec::new();
                while let Some(HookLine(command)) = seq.next_element()? {
                    all.push(command);
                }
                Ok(Commands(all))
            }
        }
        deserializer.deserialize_any(HookEither)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_inside_quotes_are_found() {
        for (hook, found) in [
            (r#"echo "x {error}""#, Some("error")),
            ("echo 'x {source_path}'", Some("source_path")),
            (r#"echo "a \" {label} b""#, Some("label")),
            (r#"echo "it's" 'y' {error} "z""#, None),
            (r"echo \' {error} \'", None),
            (r#"awk '{print $1}' "{other}" "$VYKAR_ERROR""#, None),
            (r"echo 'a\' {error}", None),
        ] {
            assert_eq!(in_quotes(hook), found, "{hook}");
        }
    }

    #[test]
    fn hooks_for_every_command_come_first_and_lists_are_kept_in_order() {
        let text = "before_backup: [b, c]\nbefore: a\nfinally_check: d\n";
        let hooks: Hooks = serde_saphyr::from_str(text).unwrap();
        assert_eq!(hooks.at(When::Before, Around::Backup).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(hooks.at(When::Before, Around::Prune).collect::<Vec<_>>(), ["a"]);
        assert_eq!(hooks.at(When::Finally, Around::Check).collect::<Vec<_>>(), ["d"]);
        let more: Hooks = serde_saphyr::from_str("before: z\n").unwrap();
        let both = hooks.with(&more);
        assert_eq!(both.at(When::Before, Around::Prune).collect::<Vec<_>>(), ["a", "z"]);
        let keys: Vec<_> = both.all().map(|(key, _)| key).collect();
        assert_eq!(keys, ["before", "before_backup", "finally_check"]);
    }
}
