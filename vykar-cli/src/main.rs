//! The `vykar` command.

mod args;
mod background;
mod commands;
mod context;
mod exit;
mod parse;
mod platform;
mod render;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    context::raise_file_limit();
    match commands::run(args) {
        Ok(code) => code.into(),
        Err(error) => {
            render::error(&error);
            error.exit().into()
        }
    }
}
