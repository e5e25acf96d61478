//! The keys of a configuration file, as serde reads them. What a value means is said in docs/config.md.
//!
//! Unknown keys are errors everywhere. Values are checked as they are read, so that an error knows its line.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::hooks::Hooks;
use super::values;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    pub repositories: Option<Vec<RepositorySection>>,
    pub sources: Option<Vec<Spanned<SourceSection>>>,
    pub encryption: EncryptionSection,
    pub compression: CompressionSection,
    pub exclude_patterns: Option<Vec<Spanned<String>>>,
    pub exclude_if_present: Option<Vec<Spanned<String>>>,
    pub one_file_system: Option<bool>,
    pub git_ignore: Option<bool>,
    pub xattrs: XattrsSection,
    pub chunker: ChunkerSection,
    pub retention: Option<Retention>,
    pub compact: Compact,
    pub check: Check,
    pub limits: LimitsSection,
    pub hooks: Hooks,
    pub schedule: Option<ScheduleSection>,
    pub mount: values::MountValues,
    pub hostname: Option<String>,
    pub cache_dir: Option<String>,
}

/// Where a repository is, and what is different there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositorySection {
    pub url: Spanned<String>,
    #[serde(default)]
    pub label: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "values::optional_pack_size")]
    pub min_pack_size: Option<u32>,
    #[serde(default, deserialize_with = "values::optional_pack_size")]
    pub max_pack_size: Option<u32>,
    #[serde(default, rename = "retry")]
    pub _retry: Retry,
    #[serde(default)]
    pub encryption: Option<EncryptionSection>,
    #[serde(default)]
    pub compression: Option<CompressionSection>,
    #[serde(default)]
    pub retention: Option<Retention>,
    #[serde(default)]
    pub limits: Option<LimitsSection>,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub schedule: Option<ScheduleSection>,
    // What other storage needs is accepted, so that one file serves programs that have it.
    #[serde(default, rename = "region")]
    pub _region: Option<String>,
    #[serde(default, rename = "access_key_id")]
    pub _access_key_id: Option<String>,
    #[serde(default, rename = "secret_access_key")]
    pub _secret_access_key: Option<String>,
    #[serde(default, rename = "sftp_key")]
    pub _sftp_key: Option<String>,
    #[serde(default, rename = "sftp_known_hosts")]
    pub _sftp_known_hosts: Option<String>,
    #[serde(default, rename = "sftp_timeout")]
    pub _sftp_timeout: Option<u64>,
    #[serde(default, rename = "allow_insecure_http")]
    pub _allow_insecure_http: Option<bool>,
}

/// How often, and how soon, a request to a storage that is not local is repeated.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    #[serde(rename = "max_retries")]
    pub _max_retries: Option<u32>,
    #[serde(rename = "retry_delay_ms")]
    pub _retry_delay_ms: Option<u64>,
    #[serde(rename = "retry_max_delay_ms")]
    pub _retry_max_delay_ms: Option<u64>,
}

/// A source with everything that may be said about it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceMap {
    pub label: Option<Spanned<String>>,
    pub path: Option<Spanned<String>>,
    pub paths: Option<Vec<Spanned<String>>>,
    pub exclude: Option<Vec<Spanned<String>>>,
    pub exclude_if_present: Option<Vec<Spanned<String>>>,
    pub one_file_system: Option<bool>,
    pub git_ignore: Option<bool>,
    pub xattrs: Option<XattrsSection>,
    pub repos: Option<Vec<Spanned<String>>>,
    pub retention: Option<Retention>,
    pub hooks: Hooks,
    pub command_dumps: Option<Vec<CommandDump>>,
}

/// A file whose content a command prints.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandDump {
    #[serde(deserialize_with = "values::dump_name")]
    pub name: String,
    pub command: String,
}

/// How the repository is made, and where its passphrase comes from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptionSection {
    #[serde(deserialize_with = "values::optional_encryption")]
    pub mode: Option<crate::args::EncryptionArg>,
    #[serde(deserialize_with = "values::optional_secret")]
    pub passphrase: Option<values::Secret>,
    pub passcommand: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionSection {
    #[serde(deserialize_with = "values::optional_algorithm")]
    pub algorithm: Option<values::Algorithm>,
    #[serde(deserialize_with = "values::optional_zstd_level")]
    pub zstd_level: Option<i32>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct XattrsSection {
    pub enabled: Option<bool>,
}

/// Sizes of chunks in bytes, for repositories that are made.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkerSection {
    #[serde(deserialize_with = "values::optional_bytes")]
    pub min_size: Option<u32>,
    #[serde(deserialize_with = "values::optional_bytes")]
    pub avg_size: Option<u32>,
    #[serde(deserialize_with = "values::optional_bytes")]
    pub max_size: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub keep_last: u32,
    pub keep_hourly: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    pub keep_yearly: u32,
    #[serde(deserialize_with = "values::optional_duration")]
    pub keep_within: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compact {
    #[serde(deserialize_with = "values::optional_percent")]
    pub threshold: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    #[serde(deserialize_with = "values::optional_percent")]
    pub max_percent: Option<u8>,
    #[serde(deserialize_with = "values::interval_or_null")]
    pub full_every: Option<Option<Duration>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    #[serde(rename = "connections", deserialize_with = "values::optional_connections")]
    pub _connections: Option<u32>,
    #[serde(deserialize_with = "values::optional_threads")]
    pub threads: Option<usize>,
    #[serde(deserialize_with = "values::optional_nice")]
    pub nice: Option<i32>,
    #[serde(deserialize_with = "values::optional_rate")]
    pub upload_mib_per_sec: Option<u64>,
    #[serde(deserialize_with = "values::optional_rate")]
    pub download_mib_per_sec: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    pub enabled: Option<bool>,
    #[serde(deserialize_with = "values::optional_interval")]
    pub every: Option<Duration>,
    #[serde(deserialize_with = "values::optional_cron")]
    pub cron: Option<values::Cron>,
    pub on_startup: Option<bool>,
    pub jitter_seconds: Option<u32>,
    // Of programs that ask for a passphrase in a window.
    #[serde(rename = "passphrase_prompt_timeout_seconds")]
    pub _passphrase_prompt_timeout_seconds: Option<u64>,
}

/// A source: a path, or a map.
#[derive(Debug, Clone)]
pub enum SourceSection {
    Path(String),
    Map(Box<SourceMap>),
}

impl<'de> Deserialize<'de> for SourceSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = SourceSection;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a map with `path`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SourceSection, E> {
                Ok(SourceSection::Path(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SourceSection, A::Error> {
                let map = de::value::MapAccessDeserializer::new(map);
                Ok(SourceSection::Map(Box::new(SourceMap::deserialize(map)?)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
