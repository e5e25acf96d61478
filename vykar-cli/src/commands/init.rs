use std::sync::Arc;

use vykar_core::crypto::aead::fastest_cipher;
use vykar_core::format::{ChunkerParams, Encryption, RepoConfig};
use vykar_core::repository::{InitOptions, Repository};

use super::print;
use crate::args::{EncryptionArg, ResolvedOptions};
use crate::exit::{CliResult, Exit};
use crate::{context, passphrase, passphrase_strength};

pub fn run(
    global: &ResolvedOptions,
    encryption: Option<EncryptionArg>,
    pack_sizes: (Option<u32>, Option<u32>),
) -> CliResult {
    let plan = global.plan.as_deref();
    let configured = plan.map(|plan| plan.encryption);
    let encryption = match encryption.or(configured).unwrap_or(EncryptionArg::Auto) {
        EncryptionArg::Auto => fastest_cipher().map_err(vykar_core::VykarError::from)?,
        EncryptionArg::Aes256gcm => Encryption::Aes256Gcm,
        EncryptionArg::Chacha20poly1305 => Encryption::Chacha20Poly1305,
        EncryptionArg::None => Encryption::None,
    };
    // Where only one is given, the other gives way.
    let (min, max) = (RepoConfig::DEFAULT_MIN_PACK, RepoConfig::DEFAULT_MAX_PACK);
    let (planned_min, planned_max) = plan.map_or((None, None), |plan| plan.pack_sizes);
    let pack_sizes = match (pack_sizes.0.or(planned_min), pack_sizes.1.or(planned_max)) {
        (None, None) => (min, max),
        (Some(min), None) => (min, max.max(min)),
        (None, Some(max)) => (min.min(max), max),
        (Some(min), Some(max)) => (min, max),
    };
    let chunker = plan.map_or(ChunkerParams::FILES, |plan| plan.chunker);
    let options = InitOptions { pack_sizes, chunker, ..InitOptions::new(encryption) };
    let backend = context::backend(global, &Arc::default())?;
    let place = backend.url().to_owned();
    let mut warning = None;
    let repository = Repository::init(
        backend,
        &options,
        &mut || {
            let secret = passphrase::current(global, true)?;
            warning = passphrase_strength::warning(&secret);
            Ok(secret)
        },
        &context::open_options(global),
    )?;
    if let Some(warning) = warning {
        say!("{warning}");
    }
    if !global.quiet {
        let id = repository.config().id.short();
        print(&format!("Made repository {id} at {place} (encryption {encryption})\n"));
        if encryption != Encryption::None {
            say!("keep the passphrase safe: without it nothing in here can ever be read again");
        }
    }
    Ok(Exit::Success)
}
