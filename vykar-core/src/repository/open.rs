//! Making and opening a repository.

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{CONFIG, ChunkReader, INDEX, INDEX_GENERATION, Keys, Manifest, REPOKEY, index_copy, pin};
use crate::codec::{Compression, compress::compress_stream, decompress_stream};
use crate::crypto::kdf::{self, UnwrapError};
use crate::crypto::{random, random_bytes};
use crate::error::{CodecError, ObjectError, Result, StorageError, VykarError};
use crate::format::envelope::{INDEX_CONTEXT, ObjectKind};
use crate::format::{
    ChunkerParams, EncryptedKey, Encryption, IndexBlob, IndexEntry, MAX_METADATA_OBJECT,
    MAX_METADATA_PLAINTEXT, MAX_SMALL_OBJECT, MasterKeys, RepoConfig,
};
use crate::id::RepositoryId;
use crate::storage::{Backend, PutMode};

/// A passphrase, wiped from memory when dropped.
pub type Passphrase = Zeroizing<String>;

/// Where a passphrase comes from: called at most once, and only when one is needed. The error is
/// shown to the user.
pub type PassphraseSource<'a> = &'a mut dyn FnMut() -> Result<Passphrase, String>;

/// What a new repository is like.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// How objects are sealed.
    pub encryption: Encryption,
    /// Chunk sizes.
    pub chunker: ChunkerParams,
    /// Smallest and largest data pack target in bytes.
    pub pack_sizes: (u32, u32),
}

impl InitOptions {
    /// With the format's default sizes.
    pub fn new(encryption: Encryption) -> Self {
        InitOptions {
            encryption,
            chunker: ChunkerParams::FILES,
            pack_sizes: (RepoConfig::DEFAULT_MIN_PACK, RepoConfig::DEFAULT_MAX_PACK),
        }
    }
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Where local caches live; without one nothing is remembered between runs.
    pub cache_dir: Option<PathBuf>,
    /// Accept a repository whose identity changed, and remember the new one.
    pub trust: bool,
}

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: RepoConfig,
    keys: Arc<Keys>,
    cache_dir: Option<PathBuf>,
}

impl Repository {
    /// Makes a repository where there is none.
    ///
    /// The key is written before `config`, both exclusively: `config` makes the repository.
    pub fn init(
        backend: Arc<dyn Backend>,
        options: &InitOptions,
        passphrase: PassphraseSource<'_>,
        open: &OpenOptions,
    ) -> Result<Self> {
        let url = backend.url().to_owned();
        if backend.exists(CONFIG)? {
            return Err(VykarError::AlreadyARepository { url });
        }
        // A folder of somebody's files must not become a repository by a typing error. What an
        // interrupted init leaves (key or index without config) does not count.
        if backend.holds_other_than(&[REPOKEY, INDEX, INDEX_GENERATION])? {
            return Err(VykarError::NotEmpty { url });
        }
        let config = RepoConfig {
            version: crate::format::config::LAYOUT_VERSION,
            id: RepositoryId(random()?),
            chunker: options.chunker,
            encryption: options.encryption,
            created: super::now_rfc3339(),
            min_pack_size: options.pack_sizes.0,
            max_pack_size: options.pack_sizes.1,
        };
        config.check().map_err(|e| VykarError::Usage(e.to_string()))?;
        backend.prepare()?;
        let mut master = None;
        if config.encryption != Encryption::None {
            let secret = passphrase().map_err(|reason| VykarError::NoPassphrase { reason })?;
            let mut keys = MasterKeys { encryption_key: [0; 32], chunk_id_key: [0; 32] };
            random_bytes(&mut keys.encryption_key)?;
            random_bytes(&mut keys.chunk_id_key)?;
            let wrapped = kdf::wrap(&keys, secret.as_bytes(), kdf::default_params()?)?.encode()?;
            // Left over from an init that never wrote its config: nothing depends on it.
            backend.delete(REPOKEY)?;
            exclusive(&*backend, REPOKEY, &wrapped)?;
            master = Some(keys);
        }
        let keys = Arc::new(Keys::new(&config, master.as_ref())?);
        let repo = Repository { backend, config, keys, cache_dir: open.cache_dir.clone() };
        repo.write_index(0, 0, std::iter::empty(), Compression::default())?;
        exclusive(&*repo.backend, CONFIG, &crate::format::wire::encode("config", &repo.config)?)?;
        if let Some(cache) = &open.cache_dir {
            // A new repository was asked for here by a person: nothing older is to be kept.
            pin::check(cache, repo.backend.url(), &repo.config, &repo.keys, true)?;
        }
        Ok(repo)
    }

    /// Opens a repository. The passphrase is asked for only when it has one.
    pub fn open(
        backend: Arc<dyn Backend>,
        passphrase: PassphraseSource<'_>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let config = read_config(&*backend)?;
        let master = match config.encryption {
            Encryption::None => None,
            _ => Some(read_master(&*backend, passphrase)?),
        };
        let keys = Arc::new(Keys::new(&config, master.as_ref())?);
        if let Some(cache) = &options.cache_dir {
            pin::check(cache, backend.url(), &config, &keys, options.trust)?;
        }
        Ok(Repository { backend, config, keys, cache_dir: options.cache_dir.clone() })
    }

    /// The storage.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The unchanging parameters.
    pub fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// A directory for local caches of this repository alone, if caches are kept.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        Some(self.cache_dir.as_ref()?.join(self.config.id.to_string()))
    }

    /// Reads every snapshot's metadata.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::load(self)
    }

    /// Reads the index. An absent one beside any snapshot is damage, never an empty index.
    pub fn read_index(&self) -> Result<IndexBlob> {
        let mut object = match self.backend.get(INDEX, MAX_METADATA_OBJECT) {
            Err(StorageError::NotFound { .. }) => {
                return match self.backend.list("snapshots/")?.is_empty() {
                    true => Ok(IndexBlob::default()),
                    false => Err(VykarError::IndexMissing),
                };
            }
            other => other?,
        };
        let damaged = |cause: ObjectError| VykarError::damaged(INDEX, cause);
        let payload = self.keys.open(ObjectKind::Index, INDEX_CONTEXT, &mut object).map_err(damaged)?;
        let mut plain = decompress_stream(payload, MAX_METADATA_PLAINTEXT).map_err(|e| damaged(e.into()))?;
        IndexBlob::decode_from(&mut plain).map_err(|e| damaged(e.into()))
    }

    /// Writes the index, and its generation's hint (best effort). The caller holds the lock.
    pub(crate) fn write_index(
        &self,
        generation: u64,
        count: u32,
        entries: impl Iterator<Item = IndexEntry>,
        compression: Compression,
    ) -> Result<()> {
        let mut object = Vec::new();
        crate::format::envelope::seal_into(
            self.keys.engine(),
            ObjectKind::Index,
            INDEX_CONTEXT,
            &mut object,
            |out| {
                let mut plain = 0u64;
                compress_stream(compression, out, |w| {
                    let mut counted = Counted { inner: w, count: &mut plain };
                    IndexBlob::encode_to(&mut counted, generation, count, entries)
                })
                .map_err(|e| VykarError::Encode { what: "index", reason: e.to_string() })?;
                if plain > MAX_METADATA_PLAINTEXT {
                    let e = CodecError::TooLarge { max: MAX_METADATA_PLAINTEXT };
                    return Err(VykarError::Encode { what: "index", reason: e.to_string() });
                }
                Ok(())
            },
        )?;
        self.backend.put(INDEX, &object, PutMode::Replace)?;
        let _ = self.backend.put(INDEX_GENERATION, &generation.to_le_bytes(), PutMode::Replace);
        Ok(())
    }

    /// Reads the index through a local copy that costs little memory and is made when there is none. The
    /// copy may be out of date or damaged in ways that only show when a chunk is not found through it: who
    /// uses it must then read the index itself ([`Repository::read_index`]), and must never conclude from it
    /// that a chunk is missing. Without a cache directory this is the index itself.
    pub fn read_index_copy(&self) -> Result<IndexBlob> {
        let Some(dir) = self.cache_dir() else { return self.read_index() };
        let hint = self.backend.get(INDEX_GENERATION, 8).ok();
        let generation = hint.and_then(|hint| hint.try_into().ok()).map(u64::from_le_bytes);
        if let Some(copy) =
            generation.and_then(|generation| index_copy::open(&dir, self.keys.hasher(), generation))
        {
            return Ok(copy);
        }
        let index = self.read_index()?;
        // A cache that cannot be written costs memory, nothing else.
        Ok(index_copy::write(&dir, self.keys.hasher(), &index).ok().flatten().unwrap_or(index))
    }

    /// A reader of chunks over the current index.
    pub fn chunk_reader(&self) -> Result<ChunkReader> {
        Ok(ChunkReader::new(self.backend.clone(), self.keys.clone(), self.read_index()?))
    }
}

struct Counted<'a> {
    inner: &'a mut dyn std::io::Write,
    count: &'a mut u64,
}

impl std::io::Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        *self.count += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn exclusive(backend: &dyn Backend, key: &str, data: &[u8]) -> Result<()> {
    match backend.put(key, data, PutMode::Exclusive) {
        Err(StorageError::AlreadyExists { .. }) => {
            Err(VykarError::AlreadyARepository { url: backend.url().to_owned() })
        }
        other => Ok(other?),
    }
}

fn read_config(backend: &dyn Backend) -> Result<RepoConfig> {
    let url = || backend.url().to_owned();
    let data = match backend.get(CONFIG, MAX_SMALL_OBJECT) {
        Err(StorageError::NotFound { .. }) => {
            return Err(VykarError::NotARepository { url: url(), reason: "it has no config object".into() });
        }
        Err(StorageError::TooLarge { .. }) => {
            return Err(VykarError::NotARepository {
                url: url(),
                reason: "its config is not one of vykar's".into(),
            });
        }
        other => other?,
    };
    RepoConfig::decode(&data).map_err(|e| VykarError::damaged(CONFIG, e))
}

fn read_master(backend: &dyn Backend, passphrase: PassphraseSource<'_>) -> Result<MasterKeys> {
    let damaged = |e: ObjectError| VykarError::damaged(REPOKEY, e);
    let data = match backend.get(REPOKEY, MAX_SMALL_OBJECT) {
        Err(StorageError::NotFound { .. }) => {
            return Err(damaged(ObjectError::Unreadable(
                "missing: without it nothing here can be decrypted".into(),
            )));
        }
        other => other?,
    };
    let key = EncryptedKey::decode(&data).map_err(|e| damaged(e.into()))?;
    let secret = passphrase().map_err(|reason| VykarError::NoPassphrase { reason })?;
    kdf::unwrap(&key, secret.as_bytes()).map_err(|e| match e {
        UnwrapError::WrongPassphrase => VykarError::WrongPassphrase { url: backend.url().to_owned() },
        UnwrapError::Crypto(e) => e.into(),
        UnwrapError::Format(e) => damaged(e.into()),
    })
}
