//! InitUndo and opening a repository.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use crate::codec::Compression;
use crate::crypto::kdf::{self, UnwrapError};
use crate::crypto::{pack_id, random, random_bytes};
use crate::error::{ObjectError, Result, StorageError, VykarError};
use crate::format::{
    ChunkerParams, EncryptedKey, Encryption, KeyExport, MAX_SMALL_OBJECT, MasterKeys, RepoConfig,
};
use crate::id::{PackId, RepositoryId};
use crate::local_state::identity_pin;
use crate::repository::handle::undo_init::InitUndo;
use crate::repository::{CONFIG, INDEX, INDEX_GENERATION, Keys, Manifest, REPOKEY};
use crate::storage::{Backend, PutMode, holds_other_than};

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
    /// Accept a repository whose identity changed, or of which an earlier state came back, and remember the new one.
    pub trust: bool,
}

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: RepoConfig,
    keys: Arc<Keys>,
    /// Hash of the wrapped keys' object, where there is one.
    key_object: Option<PackId>,
    cache_dir: Option<PathBuf>,
    trust: bool,
    /// Another program kept the memory of what was seen to itself for too long.
    memory_is_busy: AtomicBool,
    /// This machine knows its parameters, or something vouches for them.
    is_known: AtomicBool,
}

impl Repository {
    /// Makes a repository where there is none.
    ///
    /// The key is written before `config`, both exclusively: `config` makes the repository. When it fails, what was
    /// written is removed.
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
        if holds_other_than(backend.as_ref(), &[REPOKEY, INDEX, INDEX_GENERATION])? {
            return Err(VykarError::NotEmpty { url });
        }
        let config = RepoConfig {
            version: crate::format::config::LAYOUT_VERSION,
            id: RepositoryId(random()?),
            chunker: options.chunker,
            encryption: options.encryption,
            created: crate::repository::now_rfc3339(),
            min_pack_size: options.pack_sizes.0,
            max_pack_size: options.pack_sizes.1,
        };
        config.check().map_err(|e| VykarError::Usage(e.to_string()))?;
        let mut master = None;
        if config.encryption != Encryption::None {
            let secret = passphrase().map_err(|reason| VykarError::NoPassphrase { reason })?;
            let mut keys = MasterKeys { encryption_key: [0; 32], chunk_id_key: [0; 32] };
            random_bytes(&mut keys.encryption_key)?;
            random_bytes(&mut keys.chunk_id_key)?;
            let wrapped = kdf::wrap(&keys, secret.as_bytes(), kdf::default_params()?)?.encode()?;
            master = Some((keys, wrapped));
        }
        let keys = Arc::new(Keys::new(&config, master.as_ref().map(|(keys, _)| keys))?);
        let wrapped = master.map(|(_, wrapped)| wrapped);
        // Nothing that was seen at this place was of this one.
        let (cache_dir, trust) = (open.cache_dir.clone(), true);
        let repo = Repository {
            backend,
            config,
            keys,
            key_object: wrapped.as_deref().map(pack_id),
            cache_dir,
            trust,
            memory_is_busy: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        };
        let making = InitUndo::begin(&*repo.backend);
        let made = repo.write_new(wrapped.as_deref(), open);
        making.end(&*repo.backend, made)?;
        Ok(repo)
    }

    /// Writes a repository that is not there yet.
    fn write_new(&self, wrapped: Option<&[u8]>, open: &OpenOptions) -> Result<()> {
        let backend = &*self.backend;
        backend.prepare()?;
        if let Some(wrapped) = wrapped {
            // Left over from an init that never wrote its config: nothing depends on it.
            backend.delete(REPOKEY)?;
            exclusive(backend, REPOKEY, wrapped)?;
        }
        self.write_index(0, 0, std::iter::empty(), Compression::default())?;
        exclusive(backend, CONFIG, &crate::format::wire::encode("config", &self.config)?)?;
        if let Some(cache) = &open.cache_dir {
            // A new repository was asked for here by a person: nothing older is to be kept.
            identity_pin::check(cache, backend.url(), &self.config, &self.keys, true)?;
        }
        Ok(())
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
        let key_object = master.as_ref().map(|(_, object)| *object);
        let keys = Arc::new(Keys::new(&config, master.as_ref().map(|(keys, _)| keys))?);
        let (cache_dir, trust) = (options.cache_dir.clone(), options.trust);
        let repository = Repository {
            backend,
            config,
            keys,
            key_object,
            cache_dir,
            trust,
            memory_is_busy: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        };
        repository.check_identity(options)?;
        Ok(repository)
    }

    /// What is left of an encrypted repository whose deletion was cut off after its key went and before its config did:
    /// nothing that a key could open. `None` for any other.
    ///
    /// It can be deleted, and used for nothing else.
    pub fn open_remains(backend: Arc<dyn Backend>, options: &OpenOptions) -> Result<Option<Self>> {
        let config = match read_config(&*backend) {
            Err(VykarError::NotARepository { .. }) => return Ok(None),
            other => other?,
        };
        if config.encryption == Encryption::None || backend.exists(REPOKEY)? || backend.exists(INDEX)? {
            return Ok(None);
        }
        if !backend.list("snapshots/")?.is_empty() || !backend.list("packs/")?.is_empty() {
            return Ok(None);
        }
        // Keys of nothing: whatever is there does not open with them.
        let mut master = MasterKeys { encryption_key: [0; 32], chunk_id_key: [0; 32] };
        random_bytes(&mut master.encryption_key)?;
        random_bytes(&mut master.chunk_id_key)?;
        let keys = Arc::new(Keys::new(&config, Some(&master))?);
        let (cache_dir, trust) = (options.cache_dir.clone(), options.trust);
        Ok(Some(Repository {
            backend,
            config,
            keys,
            key_object: None,
            cache_dir,
            trust,
            memory_is_busy: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        }))
    }

    /// A repository as an export of its key says it is, whatever lies in its place. `key_object` is the hash of the wrapped
    /// keys' object as it would be written.
    pub(crate) fn from_export(
        backend: Arc<dyn Backend>,
        export: &KeyExport,
        key_object: PackId,
        passphrase: PassphraseSource<'_>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let secret = passphrase().map_err(|reason| VykarError::NoPassphrase { reason })?;
        let master = unwrap_key(backend.url(), &export.key, &secret)?;
        let config = export.config.clone();
        let keys = Arc::new(Keys::new(&config, Some(&master))?);
        let (cache_dir, trust) = (options.cache_dir.clone(), options.trust);
        let memory_is_busy = AtomicBool::new(false);
        Ok(Repository {
            backend,
            config,
            keys,
            key_object: Some(key_object),
            cache_dir,
            trust,
            memory_is_busy,
            is_known: AtomicBool::new(false),
        })
    }

    /// The same repository on another storage, without its passphrase.
    #[cfg(test)]
    pub(crate) fn on(&self, backend: Arc<dyn Backend>) -> Self {
        let (config, keys, key_object) = (self.config.clone(), self.keys.clone(), self.key_object);
        let (cache_dir, memory_is_busy) = (self.cache_dir.clone(), AtomicBool::new(false));
        let (trust, is_known) = (false, AtomicBool::new(true));
        Repository { backend, config, keys, key_object, cache_dir, trust, memory_is_busy, is_known }
    }

    /// Compares it with what is remembered of this place, and remembers it.
    ///
    /// # Errors
    /// [`VykarError::IdentityChanged`].
    pub(crate) fn check_identity(&self, options: &OpenOptions) -> Result<()> {
        let is_known = match &options.cache_dir {
            Some(cache) => {
                identity_pin::check(cache, self.backend.url(), &self.config, &self.keys, options.trust)?
            }
            None => false,
        };
        self.is_known.store(is_known, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses to write where nothing vouches for the repository's id and the chunks speak against it: without a cipher
    /// they are named by it, and `config` alone has it. What this machine knows, or a person trusts, is not looked at.
    ///
    /// # Errors
    /// [`VykarError::KeysDoubtful`].
    pub(crate) fn refuse_wrong_id(&self) -> Result<()> {
        if self.config.encryption != Encryption::None || self.trust || self.is_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(newest) = self.manifest()?.snapshots.pop() else { return Ok(()) };
        let Ok(index) = self.open_index() else { return Ok(()) };
        let reader =
            crate::repository::ChunkReader::new(self.backend.clone(), self.keys.clone(), index.index);
        let doubtful = newest.meta.item_ptrs.iter().take(8).all(|pointer| {
            matches!(reader.read(pointer), Err(VykarError::ChunkDamaged { cause: ObjectError::WrongId, .. }))
        });
        if doubtful && !newest.meta.item_ptrs.is_empty() {
            let reason =
                "the chunks of the newest snapshot are not what this repository's id would name".to_owned();
            return Err(VykarError::KeysDoubtful { reason });
        }
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The repository is still there, and the one that was opened: who waited for a lock may have waited for its
    /// deletion.
    ///
    /// # Errors
    /// [`VykarError::NotARepository`] and [`VykarError::IdentityChanged`]: nothing must be written there.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        match read_config(&*self.backend)? == self.config {
            true => Ok(()),
            false => {
                let detail = "it was replaced while this program ran".to_owned();
                Err(VykarError::IdentityChanged { url: self.backend.url().to_owned(), detail })
            }
        }
    }

    /// Removes the local caches of this repository, where there are any. What it is remembered by stays, so that another
    /// one in its place is not used unasked.
    pub(crate) fn remove_caches(&self) -> std::io::Result<()> {
        match self.cache_dir().map(std::fs::remove_dir_all) {
            Some(Err(e)) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
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

    /// Whether the stored parameters are still those that this repository was opened with.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_config(&self) -> Result<()> {
        match read_config(&*self.backend)? == self.config {
            true => Ok(()),
            false => Err(VykarError::damaged(CONFIG, changed())),
        }
    }

    /// Whether the stored keys are still those that this repository was opened with, by their passphrase. Fine
    /// where there are none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_key(&self) -> Result<()> {
        let Some(opened) = self.key_object else { return Ok(()) };
        let data = read_key(&*self.backend)?;
        EncryptedKey::decode(&data).map_err(|e| VykarError::damaged(REPOKEY, e))?;
        match pack_id(&data) == opened {
            true => Ok(()),
            false => {
                let reason = "not what the repository was opened with: the passphrase was changed meanwhile, or it was \
                              damaged, which shows when it is opened anew";
                Err(VykarError::damaged(REPOKEY, ObjectError::Unreadable(reason.into())))
            }
        }
    }

    /// Hash of the wrapped keys' object that it was opened with, where there is one.
    pub(crate) fn key_object(&self) -> Option<PackId> {
        self.key_object
    }

    /// A directory for local caches of this repository alone, if caches are kept.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        Some(self.cache_dir.as_ref()?.join(self.config.id.to_string()))
    }

    /// What was seen of it before is not to be held against it.
    pub(crate) fn trust(&self) -> bool {
        self.trust
    }

    pub(crate) fn memory_is_busy(&self) -> &AtomicBool {
        &self.memory_is_busy
    }

    /// Reads every snapshot's metadata.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::load(self)
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

fn changed() -> ObjectError {
    ObjectError::Unreadable("not what the repository was opened with".into())
}

pub(crate) fn read_key(backend: &dyn Backend) -> Result<Vec<u8>> {
    match backend.get(REPOKEY, MAX_SMALL_OBJECT) {
        Err(StorageError::NotFound { .. }) => {
            let reason = "missing: without it nothing here can be decrypted";
            Err(VykarError::damaged(REPOKEY, ObjectError::Unreadable(reason.into())))
        }
        other => Ok(other?),
    }
}

/// The unwrapped keys, and the hash of the object they were in.
fn read_master(backend: &dyn Backend, passphrase: PassphraseSource<'_>) -> Result<(MasterKeys, PackId)> {
    let data = read_key(backend)?;
    let key = EncryptedKey::decode(&data).map_err(|e| VykarError::damaged(REPOKEY, e))?;
    let secret = passphrase().map_err(|reason| VykarError::NoPassphrase { reason })?;
    Ok((unwrap_key(backend.url(), &key, &secret)?, pack_id(&data)))
}

/// The master keys, if this passphrase is theirs.
pub(crate) fn unwrap_key(url: &str, key: &EncryptedKey, secret: &Passphrase) -> Result<MasterKeys> {
    kdf::unwrap(key, secret.as_bytes()).map_err(|e| match e {
        UnwrapError::WrongPassphrase => VykarError::WrongPassphrase { url: url.to_owned() },
        UnwrapError::Crypto(e) => e.into(),
        UnwrapError::Format(e) => VykarError::damaged(REPOKEY, e),
    })
}
