use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use vykar_core::VykarError;
use vykar_core::format::{Encryption, KeyExport};
use vykar_core::maintenance::{Held, KeyImport};

use super::print;
use crate::args::{ImportArgs, KeyCommand, NewPassphraseArgs, ResolvedOptions};
use crate::confirm::confirm;
use crate::exit::{CliError, CliResult, Exit};
use crate::{context, passphrase, passphrase_strength, render};

/// Longest file that is taken for an export, in bytes.
const EXPORT_MAX: u64 = 256 << 10;

pub fn run(global: &ResolvedOptions, command: KeyCommand) -> CliResult {
    match command {
        KeyCommand::ChangePassphrase(new) => change_passphrase(global, &new),
        KeyCommand::Export { output } => export(global, output.as_deref()),
        KeyCommand::Import(args) => import(global, &args),
    }
}

fn change_passphrase(global: &ResolvedOptions, new: &NewPassphraseArgs) -> CliResult {
    let repository = context::open(global)?;
    let url = render::plain(repository.backend().url().as_bytes());
    // Before anything is asked for.
    if repository.config().encryption == Encryption::None {
        return Err(not_encrypted(&url));
    }
    // It was asked for when the repository was opened.
    let old = passphrase::current(global, false).map_err(|e| CliError::new(Exit::Passphrase, e))?;
    let new = passphrase::replacement(new)?;
    if let Some(warning) = passphrase_strength::warning(&new) {
        say!("{warning}");
    }
    repository.change_passphrase(&old, &new, &context::lock_to_the_end(global)?)?;
    if !global.quiet {
        print(&format!("Changed the passphrase of {url}\n"));
        say!(
            "copies of keys/repokey from before, as in another copy of the repository or in an export, still \
             open with the old passphrase, and who has one can read everything with it"
        );
        say!("put the new one wherever the old one is kept, on every machine");
    }
    Ok(Exit::Success)
}

fn not_encrypted(url: &str) -> CliError {
    CliError::new(Exit::Usage, format!("{url}: not encrypted, so it has no key and no passphrase"))
        .hint("encryption is chosen when a repository is made (`vykar init --encryption`)")
}

fn export(global: &ResolvedOptions, output: Option<&Path>) -> CliResult {
    let repository = context::open(global)?;
    if repository.config().encryption == Encryption::None {
        return Err(not_encrypted(&render::plain(repository.backend().url().as_bytes())));
    }
    let text = repository.export_key()?.to_text()?;
    match output {
        Some(path) => {
            write_new(path, &text)?;
            if !global.quiet {
                print(&format!("Wrote the key to {}\n", render::path(path)));
            }
        }
        None => print(&text),
    }
    if !global.quiet {
        say!(
            "it opens with the passphrase that holds now, also after that is changed: keep it away from the \
             repository, and export anew after a change"
        );
    }
    Ok(Exit::Success)
}

/// Writes a file that must not exist, for its owner alone; it is durable, or gone again.
fn write_new(path: &Path, text: &str) -> CliResult<()> {
    let failed = |e: io::Error| {
        let error = CliError::new(Exit::Failure, format!("{}: {e}", render::path(path)));
        match e.kind() {
            io::ErrorKind::AlreadyExists => error.hint("nothing is overwritten: give another name"),
            _ => error,
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|e| {
        let _ = std::fs::remove_file(path);
        failed(e)
    })
}

fn import(global: &ResolvedOptions, args: &ImportArgs) -> CliResult {
    let export = read_export(&args.file)?;
    let backend = context::backend(global, &Arc::default())?;
    let url = render::plain(backend.url().as_bytes());
    if backend.local_path().is_some_and(|path| !path.is_dir()) {
        return Err(CliError::new(Exit::NoRepository, format!("{url}: there is no such folder"))
            .hint("give with -R the folder of the repository that lost its key"));
    }
    let mut source = || passphrase::current(global, false);
    let import = KeyImport::prepare(backend, &export, &mut source, &context::open_options(global));
    let import = import.map_err(|e| match e {
        VykarError::WrongPassphrase { .. } => {
            CliError::new(Exit::Passphrase, format!("wrong passphrase for {}", render::path(&args.file)))
                .hint("it is the one that held when the export was made")
        }
        other => other.into(),
    })?;
    agree(&url, &import, args)?;
    let written = import.apply(&context::lock_to_the_end(global)?)?;
    if !global.quiet {
        match written[..] {
            [] => print(&format!("{url} has this key already\n")),
            _ => print(&format!("Imported into {url}: {}\n", written.join(", "))),
        }
    }
    Ok(Exit::Success)
}

/// Returns when what may be right may be replaced, or nothing is.
fn agree(url: &str, import: &KeyImport, args: &ImportArgs) -> CliResult<()> {
    let doubtful = |(key, held): (&str, &Held)| match held {
        Held::Other => Some(format!("{key} is not as in the export, and nothing seems to be wrong with it")),
        Held::Newer(why) => Some(format!("{key} is not as in the export ({why})")),
        Held::Missing | Held::Damaged(_) | Held::Same => None,
    };
    let objects = [("keys/repokey", import.key()), ("config", import.config())];
    let doubts: Vec<String> = objects.into_iter().filter_map(doubtful).collect();
    if doubts.is_empty() {
        return Ok(());
    }
    let doubts = doubts.join("; ");
    if !args.replace {
        let message = format!("{url}: {doubts}");
        return Err(CliError::new(Exit::Failure, message)
            .hint("the passphrase may have been changed since; if none opens it, give --replace"));
    }
    let question =
        format!("{doubts}. Replace it? From then on the passphrase of the export opens {url}, and no other.");
    match confirm(&question, args.yes)? {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failure, "nothing was changed")),
    }
}

fn read_export(path: &Path) -> CliResult<KeyExport> {
    let failed = |what: String| CliError::new(Exit::Failure, format!("{}: {what}", render::path(path)));
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(EXPORT_MAX + 1).read_to_end(&mut text));
    if read.map_err(|e| failed(e.to_string()))? as u64 > EXPORT_MAX {
        return Err(failed("too long to be the export of a key".to_owned()));
    }
    KeyExport::parse(&String::from_utf8_lossy(&text)).map_err(|e| {
        failed(e.to_string())
            .hint("compare these lines with the export: the last four characters check each line")
    })
}
