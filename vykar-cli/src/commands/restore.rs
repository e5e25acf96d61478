use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use vykar_core::Event;
use vykar_core::restore::{RestoreOptions, restore};

use super::print;
use crate::args::Global;
use crate::exit::{CliResult, Exit};
use crate::progress::StatusLine;
use crate::{context, render};

pub struct Request {
    pub snapshot: String,
    pub dest: PathBuf,
    pub paths: Vec<PathBuf>,
    pub numeric_ids: bool,
}

pub fn run(global: &Global, request: &Request) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let snapshot = manifest.resolve(&request.snapshot)?;
    let options = RestoreOptions {
        paths: request.paths.iter().map(|p| p.as_os_str().as_bytes().to_vec()).collect(),
        threads: global.threads,
        numeric_ids: request.numeric_ids,
    };
    let status = StatusLine::new(!global.quiet);
    let mut listen = |event: Event| status.event(&event);
    let summary = restore(&repository, snapshot, &request.dest, &options, Some(&mut listen))?;
    drop(status);
    if !global.quiet {
        print(&format!(
            "Restored {} files ({}), {} directories, {} symlinks from snapshot {} to {}\n",
            summary.files,
            render::size(summary.bytes),
            summary.directories,
            summary.symlinks,
            render::plain(snapshot.meta.name.as_bytes()),
            render::path(&request.dest),
        ));
    }
    if summary.errors > 0 {
        eprintln!("vykar: {} path(s) were not restored; everything else was", summary.errors);
        return Ok(Exit::Partial);
    }
    Ok(Exit::Success)
}
