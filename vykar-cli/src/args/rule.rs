//! Rules as arguments.

use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A rule for what is left out, in bytes as names of files are.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleArg(pub Vec<u8>);

impl RuleArg {
    /// Takes what is a rule.
    pub fn parser() -> impl TypedValueParser<Value = RuleArg> {
        OsStringValueParser::new().try_map(|text| {
            let text = text.into_vec();
            vykar_core::rules::check(&text).map(|()| RuleArg(text))
        })
    }
}
