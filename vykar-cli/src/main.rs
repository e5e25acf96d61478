//! The `vykar` command.

// All that is written passes through `say`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub(crate) mod child_env;
pub(crate) mod location;
pub(crate) mod passphrase_strength;
pub(crate) mod stdio;
#[macro_use]
mod say;

mod args;
mod background;
mod commands;
mod config;
mod confirm;
mod context;
mod exit;
mod filter;
mod hooks;
mod metrics;
mod mount_defaults;
mod mount_helper;
mod parse;
mod passphrase;
mod platform;
mod problems;
mod progress;
mod render;
mod settings;
mod terminal;
mod view;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some(watchdog::NAME) => watchdog::run().into(),
        Some(name) if mount_helper::NAMES.contains(&name) => mount_helper::run().into(),
        _ => command(),
    }
}

fn command() -> ExitCode {
    let args = args::Args::parse();
    context::raise_file_limit();
    match mount_defaults::add(args, std::env::args_os().collect()).and_then(commands::run) {
        Ok(code) => code.into(),
        Err(error) => {
            render::error(&error);
            error.exit().into()
        }
    }
}
