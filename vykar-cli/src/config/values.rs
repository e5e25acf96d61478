//! Values that are more than a number or a word: each is checked where it is read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use vykar_core::clock;
use zeroize::Zeroizing;

use crate::args::EncryptionArg;
use crate::parse;

/// Something that is not to be shown.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How new chunks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Zstd,
    Lz4,
    None,
}

/// Minutes at which something happens: five fields, as cron has them.
#[derive(Debug, Clone)]
pub struct Cron {
    pub text: String,
    pub pattern: croner::Cron,
}

/// What an option of `vykar mount` is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountValue {
    Switch(bool),
    Text(String),
    Several(Vec<String>),
}

impl fmt::Display for MountValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountValue::Switch(on) => write!(f, "{on}"),
            MountValue::Text(text) => f.write_str(text),
            MountValue::Several(all) => write!(f, "[{}]", all.join(", ")),
        }
    }
}

impl<'de> Deserialize<'de> for MountValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = MountValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, a text, a number, or a list of them")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<MountValue, E> {
                Ok(MountValue::Switch(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<MountValue, E> {
                Ok(MountValue::Text(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<MountValue, E> {
                Ok(MountValue::Text(value.to_string()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<MountValue, E> {
                Ok(MountValue::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MountValue, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element()? {
                    all.push(text);
                }
                Ok(MountValue::Several(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A whole number of bytes, or a size with a suffix as in `64M`.
pub fn bytes(text: &str) -> Result<u64, String> {
    match text.bytes().all(|c| c.is_ascii_digit()) {
        true => text.parse().map_err(|_| "a number of bytes, or a size as in 64M".to_owned()),
        false => parse::bytes(text).map_err(|_| "a number of bytes, or a size as in 64M".to_owned()),
    }
}

fn pack_size(text: &str) -> Result<u32, String> {
    let kib = bytes(text)?.div_ceil(1024);
    parse::pack_size(&format!("{kib}K")).map_err(|_| "a number of bytes from 1024 to 512 MiB".to_owned())?;
    u32::try_from(bytes(text)?).map_err(|e| e.to_string())
}

fn chunk_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(bytes(text)?).map_err(|_| "a number of bytes, at most 16 MiB".to_owned())
}

fn percent(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|n| *n <= 100).ok_or_else(|| "a percentage from 0 to 100".to_owned())
}

fn connections(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| (1..=16).contains(n));
    number.ok_or_else(|| "a number from 1 to 16".to_owned())
}

fn nice(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|n| (-20..=19).contains(n));
    number.ok_or_else(|| "a nice value from -20 (first; root only) to 19 (last)".to_owned())
}

fn zstd_level(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|n| (1..=22).contains(n));
    number.ok_or_else(|| "a zstd level from 1 to 22".to_owned())
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "zstd" => Ok(Algorithm::Zstd),
        "lz4" => Ok(Algorithm::Lz4),
        "none" => Ok(Algorithm::None),
        _ => Err("zstd, lz4 or none".to_owned()),
    }
}

fn encryption(text: &str) -> Result<EncryptionArg, String> {
    let found = <EncryptionArg as clap::ValueEnum>::from_str(text, false);
    found.map_err(|_| "auto, aes256gcm, chacha20poly1305 or none".to_owned())
}

fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret(Zeroizing::new(text.to_owned())))
}

fn cron(text: &str) -> Result<Cron, String> {
    if text.split_whitespace().count() != 5 {
        return Err("five fields: minute, hour, day of the month, month, day of the week".to_owned());
    }
    let pattern = croner::Cron::from_str(text).map_err(|e| format!("five fields as cron has them ({e})"))?;
    if pattern.find_next_occurrence(&clock::local(), false).is_err() {
        return Err("a time that comes: no such day is in the calendar".to_owned());
    }
    Ok(Cron { text: text.to_owned(), pattern })
}

/// Defines functions that read a scalar, given or not, and check it.
macro_rules! optional {
    ($($name:ident: $parse:expr => $type:ty;)*) => {
        $(pub fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            scalar(deserializer, $parse)
        })*
    };
}

optional! {
    optional_bytes: chunk_bytes => u32;
    optional_pack_size: pack_size => u32;
    optional_percent: percent => u8;
    optional_connections: connections => u32;
    optional_threads: parse::threads => usize;
    optional_nice: nice => i32;
    optional_rate: parse::rate => u64;
    optional_duration: parse::duration => Duration;
    optional_interval: parse::interval => Duration;
    optional_zstd_level: zstd_level => i32;
    optional_algorithm: algorithm => Algorithm;
    optional_encryption: encryption => EncryptionArg;
    optional_secret: secret => Secret;
    optional_cron: cron => Cron;
}

/// An interval; `null` is another thing than nothing.
pub fn interval_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Duration>>, D::Error> {
    scalar(deserializer, parse::interval).map(Some)
}

/// Options of `vykar mount`, in their order.
#[derive(Debug, Clone, Default)]
pub struct MountValues(pub Vec<(String, Spanned<MountValue>)>);

impl<'de> Deserialize<'de> for MountValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyNames;
        impl<'de> Visitor<'de> for KeyNames {
            type Value = MountValues;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of options")
            }
            fn visit_unit<E: de::Error>(self) -> Result<MountValues, E> {
                Ok(MountValues::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MountValues, A::Error> {
                let mut all = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = match key.as_str() {
                        // As it is written: YAML would make a number of 0o77, which is then no longer octal.
                        "umask" => as_text(map.next_value()?),
                        _ => map.next_value()?,
                    };
                    all.push((key, value));
                }
                Ok(MountValues(all))
            }
        }
        deserializer.deserialize_map(KeyNames)
    }
}

fn as_text(written: Spanned<String>) -> Spanned<MountValue> {
    let Spanned { value, referenced, defined, .. } = written;
    Spanned::new(MountValue::Text(value), referenced, defined)
}

/// The name of a dump.
pub fn dump_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    scalar(deserializer, parse::relative_path)?.ok_or_else(|| D::Error::custom("a name is missing"))
}

/// Numbers are read as the text they are written as.
fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new);
    let Some(text) = text else { return Ok(None) };
    parse(&text).map(Some).map_err(|wanted| D::Error::custom(format!("{WANTED}{wanted}")))
}

/// How messages of values that are not allowed begin; what follows says what is.
pub const WANTED: &str = "this must be ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_suffix_are_bytes() {
        assert_eq!((bytes("524288"), bytes("2M"), bytes("1GiB")), (Ok(524_288), Ok(2 << 20), Ok(1 << 30)));
        assert!(bytes("").is_err() && bytes("-1").is_err() && bytes("1.5M").is_err());
        assert_eq!((pack_size("33554432"), pack_size("512M")), (Ok(32 << 20), Ok(512 << 20)));
        assert!(pack_size("1000").is_ok() && pack_size("0").is_err() && pack_size("513M").is_err());
    }

    #[test]
    fn dumps_stay_below_their_folder() {
        assert_eq!(parse::relative_path("db/all.sql"), Ok("db/all.sql".to_owned()));
        for wrong in ["", "/etc", "../x", "a//b", "a/.", "a/"] {
            assert!(parse::relative_path(wrong).is_err(), "{wrong}");
        }
        // No file system takes a longer name: nothing could be restored.
        let names = |len: usize, count: usize| vec!["n".repeat(len); count].join("/");
        assert!(parse::relative_path(&names(255, 12)).is_ok());
        for wrong in [names(256, 1), format!("a/{}/b", "é".repeat(128)), names(100, 31)] {
            assert!(parse::relative_path(&wrong).unwrap_err().contains("255"), "{wrong}");
        }
    }

    #[test]
    fn cron_has_five_fields() {
        assert!(cron("*/15 3 * * mon-fri").is_ok());
        assert!(cron("0 0 29 2 *").is_ok(), "it comes every four years");
        for wrong in ["", "* * * *", "0 0 3 * * *", "61 * * * *", "@daily", "0 0 31 2 *", "0 0 31 4,6,9,11 *"]
        {
            assert!(cron(wrong).is_err(), "{wrong}");
        }
    }
}
