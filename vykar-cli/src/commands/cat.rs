//! `cat`: a file, or a folder as an archive, on stdout.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

use vykar_core::Event;
use vykar_core::export::{ContentReader, ExportError, Lookup, archive, lookup};
use vykar_core::format::path::plain;
use vykar_core::format::{ChunkRef, Snapshot};
use vykar_core::repository::read::path_hint::meant;
use vykar_core::repository::{RefreshingReader, Repository};

use crate::args::ResolvedOptions;
use crate::exit::{CliError, CliResult, Exit};
use crate::location::Location;
use crate::{context, render};

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;

pub struct CatRequest {
    pub place: OsString,
    pub tar: bool,
}

pub fn run(global: &ResolvedOptions, request: &CatRequest) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let place = Location::resolve(&manifest, &request.place)?;
    let (snapshot, path) = (place.snapshot, plain(place.path));
    match request.tar {
        true => tar(&repository, snapshot, &path),
        false => file(&repository, snapshot, &path),
    }
}

/// Errors name the snapshot and the path.
fn error(snapshot: &Snapshot, path: &[u8], error: impl Into<CliError>) -> CliError {
    let name = render::plain(snapshot.meta.name.as_bytes());
    let place = if path.is_empty() { name } else { format!("{name}:{}", render::plain(path)) };
    error.into().context(&place)
}

fn file(repository: &Repository, snapshot: &Snapshot, path: &[u8]) -> CliResult {
    let fails = |exit, reason: &str| error(snapshot, path, CliError::new(exit, reason));
    let reader = RefreshingReader::new(repository)?;
    match lookup(&reader, snapshot, path)? {
        Lookup::File(chunks) => content(&reader, (snapshot, path), &chunks),
        Lookup::Directory => Err(fails(Exit::Failure, "a directory")
            .hint("--tar writes it, with all that is in it, as a tar archive")),
        Lookup::Symlink(target) => {
            Err(fails(Exit::Failure, &format!("a symlink to {}", render::plain(&target)))
                .hint("give the path of the file itself"))
        }
        Lookup::Special => Err(fails(Exit::Failure, "a FIFO, a socket or a device, without content")),
        Lookup::Absent => {
            let there = meant(&reader, snapshot, &[path.to_vec()])?.remove(path);
            let hint = match there {
                Some(there) => format!("did you mean {}?", render::plain(&there)),
                None => "`vykar snapshot list SNAPSHOT` shows what there is".to_owned(),
            };
            Err(fails(Exit::Failure, "not in the snapshot").hint(hint))
        }
        Lookup::Unusable(reason) => Err(fails(Exit::Damaged, &reason)),
    }
}

fn content(
    reader: &RefreshingReader<'_>,
    (snapshot, path): (&Snapshot, &[u8]),
    chunks: &[ChunkRef],
) -> CliResult {
    let mut out = stdout()?;
    let written = ContentReader::new(reader).write(path, chunks, &mut out);
    // What came before a chunk that is damaged is right, and all that there is.
    let flushed = out.flush().map_err(ExportError::Output);
    match written {
        Err(ExportError::File { source, .. }) => Err(error(snapshot, path, *source)),
        other => {
            ended(other.and(flushed)).map_err(|e| error(snapshot, path, e))?;
            Ok(Exit::Success)
        }
    }
}

fn tar(repository: &Repository, snapshot: &Snapshot, path: &[u8]) -> CliResult {
    if std::io::stdout().is_terminal() {
        return Err(CliError::new(Exit::Usage, "an archive is nothing for a terminal")
            .hint("send it to a file (> FILE) or to a program (| tar -x)"));
    }
    let mut out = stdout()?;
    let mut listen = |event: Event| render::event(&event);
    let written = archive(repository, snapshot, path, &mut out, Some(&mut listen));
    let flushed = out.flush().map_err(ExportError::Output);
    let summary = match written {
        Err(ExportError::File { path, source }) => {
            return Err(error(snapshot, path.as_bytes(), *source)
                .hint("the archive ends there; `vykar restore` leaves out what is damaged"));
        }
        other => ended(other.and_then(|summary| flushed.map(|()| Some(summary)))),
    };
    let Some(summary) = summary.map_err(|e| error(snapshot, path, e))? else { return Ok(Exit::Success) };
    if !summary.met {
        let exit = if summary.left_out == 0 { Exit::Failure } else { Exit::Damaged };
        return Err(error(snapshot, path, CliError::new(exit, "not in the snapshot")));
    }
    if summary.left_out > 0 {
        say!("{} path(s) were left out; everything else is in the archive", summary.left_out);
        return Ok(Exit::Partial);
    }
    Ok(Exit::Success)
}

/// Stdout without a buffer that looks for lines.
fn stdout() -> CliResult<BufWriter<File>> {
    let own = std::io::stdout().as_fd().try_clone_to_owned();
    let own = own.map_err(|e| CliError::new(Exit::Failure, format!("cannot write to stdout: {e}")))?;
    Ok(BufWriter::with_capacity(BUFFER, File::from(own)))
}

/// Whoever reads may have seen enough, as `head` has.
fn ended<T: Default>(written: Result<T, ExportError>) -> CliResult<T> {
    match written {
        Err(ExportError::Output(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(T::default()),
        other => Ok(other?),
    }
}

impl From<ExportError> for CliError {
    fn from(e: ExportError) -> Self {
        match e {
            ExportError::Repository(e) => (*e).into(),
            ExportError::File { path, source } => {
                CliError::from(*source).context(&render::plain(path.as_bytes()))
            }
            e @ ExportError::Output(_) => CliError::new(Exit::Failure, e.to_string()),
        }
    }
}
