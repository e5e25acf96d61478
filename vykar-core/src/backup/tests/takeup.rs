//! What a backup that ended without publishing leaves to the next one.

use super::*;
use crate::codec::decompress;
use crate::format::envelope::PENDING_CONTEXT;
use crate::format::{ObjectKind, SessionMarker, pending};
use crate::repository::{Liveness, Session, SessionInfo, pack_key};
use crate::storage::testing::{Call, TestBackend};

/// Hears what is about to be written, and how many packs still may be.
type Listener = Arc<dyn Fn(&str, usize) + Send + Sync>;

/// Storage that nobody can write to any more once so many packs were written.
struct Mortal {
    inner: MemoryBackend,
    packs: AtomicUsize,
    /// A key that cannot be written.
    full: Mutex<Option<&'static str>>,
    listener: Mutex<Option<Listener>>,
}

impl Mortal {
    fn write(&self, key: &str) -> Result<(), StorageError> {
        let fewer = |left: usize| match key.starts_with("packs/") {
            true => left.checked_sub(1),
            false => (left > 0).then_some(left),
        };
        let left = self.packs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        let source = std::io::Error::other("made up");
        let failed = StorageError::Io { operation: "write", key: key.into(), source };
        match left {
            Ok(left) if *self.full.lock() != Some(key) => {
                self.tell(key, left);
                Ok(())
            }
            _ => Err(failed),
        }
    }

    fn tell(&self, key: &str, left: usize) {
        // Not called under the lock: it may write.
        let listener = self.listener.lock().clone();
        if let Some(listener) = listener {
            listener(key, left);
        }
    }
}

impl Mortal {
    /// The storage, as backups see it.
    fn backend(self: &Arc<Self>) -> Arc<TestBackend<MemoryBackend>> {
        let backend = TestBackend::new(self.inner.clone());
        let (before, after) = (self.clone(), self.clone());
        backend.before(move |op, _| match op.call {
            Call::Put | Call::Delete => before.write(op.key),
            _ => Ok(()),
        });
        backend.after(move |op, _| {
            if op.call == Call::List {
                after.tell(&format!("after listing {}", op.key), usize::MAX);
            }
        });
        Arc::new(backend)
    }
}

const FILES: usize = 60;
/// Packs after which a backup is killed here, and how many of them the journal names then.
const KILLED_AT: usize = 21;
const NAMED: usize = 16;

/// Some files, each of whose chunks is a pack by itself, and storage that dies on demand.
struct World {
    f: Fixture,
    storage: Arc<Mortal>,
}

impl World {
    fn new() -> Self {
        let packs = AtomicUsize::new(usize::MAX);
        let inner = MemoryBackend::new();
        let storage = Arc::new(Mortal { inner, packs, full: Mutex::default(), listener: Mutex::default() });
        let f = Fixture::with_packs(storage.backend(), (1, 1));
        for n in 0..FILES {
            f.write(&format!("f{n:02}"), format!("content {n}").as_bytes());
        }
        World { f, storage }
    }

    /// After a backup that was killed.
    fn killed() -> Self {
        let world = World::new();
        world.kill_after(KILLED_AT, &world.f.options());
        world
    }

    fn labelled(&self, label: &str) -> BackupOptions {
        BackupOptions { label: Some(label.into()), ..self.f.options() }
    }

    /// A backup that is killed when it has written so many packs.
    fn kill_after(&self, packs: usize, options: &BackupOptions) {
        self.storage.packs.store(packs, Ordering::Relaxed);
        backup(&self.f.repository(), options, None).unwrap_err();
        self.storage.packs.store(usize::MAX, Ordering::Relaxed);
        for session in self.sessions() {
            // This process lives; the one of the marker is to be dead.
            self.mark(&session, |marker| marker.pid = 1 << 30);
        }
        assert!(self.sessions().iter().all(|session| session.standing == Liveness::Dead));
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        SessionInfo::list(&self.f.repository()).unwrap()
    }

    fn mark(&self, session: &SessionInfo, change: impl FnOnce(&mut SessionMarker)) {
        let mut marker = session.marker.clone().unwrap();
        change(&mut marker);
        self.put(&session.marker_key(), &serde_json::to_vec(&marker).unwrap());
    }

    fn put(&self, key: &str, data: &[u8]) {
        self.storage.inner.put(key, data, PutMode::Replace).unwrap();
    }

    fn get(&self, key: &str) -> Vec<u8> {
        self.storage.inner.get(key, u64::MAX).unwrap()
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.storage.inner.list(prefix).unwrap().into_iter().map(|object| object.key).collect()
    }

    fn journal(&self) -> String {
        let journals: Vec<_> = self.keys("sessions/").into_iter().filter(|k| k.ends_with(".index")).collect();
        assert_eq!(journals.len(), 1);
        journals[0].clone()
    }

    /// The packs that the journal names.
    fn named(&self) -> Vec<String> {
        let mut object = self.get(&self.journal());
        let repository = self.f.repository();
        let payload = repository.keys().open(ObjectKind::PendingIndex, PENDING_CONTEXT, &mut object).unwrap();
        let plain = decompress(payload, 1 << 20).unwrap();
        let packs = pending::decode(&plain).unwrap();
        packs.iter().map(|pack| pack_key(&pack.pack)).collect()
    }

    fn forget(&self) {
        fs::remove_dir_all(self.f.dir.path().join("cache")).unwrap();
    }

    /// A backup that ends; gives how many packs it wrote, and what it said.
    fn backup(&self, options: &BackupOptions) -> (usize, Vec<String>) {
        let mut notes = Vec::new();
        let mut listen = |event| {
            if let Event::Note(text) = event {
                notes.push(text);
            }
        };
        let before = self.storage.packs.load(Ordering::Relaxed);
        assert!(backup(&self.f.repository(), options, Some(&mut listen)).unwrap().is_complete());
        (before - self.storage.packs.load(Ordering::Relaxed), notes)
    }

    fn assert_right(&self) {
        let items = self.f.items();
        assert_eq!(items.len(), FILES);
        for n in 0..FILES {
            assert_eq!(items[format!("f{n:02}").as_bytes()].1, format!("content {n}").as_bytes());
        }
        self.f.assert_counts();
        let claims = fs::read_dir(self.f.repository().cache_dir().unwrap().join("sessions")).unwrap();
        assert_eq!(claims.count(), 0, "nothing is remembered that is not there");
    }
}

#[test]
fn the_packs_of_a_killed_backup_are_taken_up() {
    let world = World::killed();
    assert_eq!(world.keys("sessions/").len(), 2, "a marker and a journal");
    let (written, notes) = world.backup(&world.f.options());
    // And one of items.
    assert_eq!(written, FILES - NAMED + 1);
    assert_eq!(notes, [format!("{NAMED} pack(s) of an unfinished backup are taken up")]);
    world.assert_right();
    assert_eq!(world.backup(&world.f.options()).1, [""; 0], "nothing is left to be taken up");
}

#[test]
fn maintenance_drops_the_marker_and_leaves_the_journal_to_the_next_backup() {
    let world = World::killed();
    world.f.repository().with_maintenance_lock(&LockOptions::default(), |guard| guard.check()).unwrap();
    assert_eq!(world.keys("sessions/"), [world.journal()]);
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(written, FILES - NAMED + 1);
    world.assert_right();
}

#[test]
fn a_second_kill_loses_nothing() {
    let world = World::killed();
    // Again, and before the next journal would have been due.
    world.kill_after(5, &world.f.options());
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(written, FILES - NAMED + 1);
    world.assert_right();
}

#[test]
fn packs_that_two_journals_name_are_taken_up_once() {
    let world = World::killed();
    let (journal, object, session) =
        (world.journal(), world.get(&world.journal()), world.sessions().remove(0));
    world.kill_after(5, &world.f.options());
    // As if it had been killed before it removed what it took up.
    world.put(&journal, &object);
    world.mark(&session, |marker| marker.pid = 1 << 30);
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(written, FILES - NAMED + 1);
    world.assert_right();
}

#[test]
fn what_is_of_other_sources_is_left_to_them() {
    let world = World::new();
    world.kill_after(KILLED_AT, &world.labelled("one"));
    let (written, notes) = world.backup(&world.labelled("two"));
    assert_eq!((written, notes.len()), (FILES + 1, 0));
    assert_eq!(world.keys("sessions/").len(), 2);
    // All of it is in the index by now.
    let (written, notes) = world.backup(&world.labelled("one"));
    assert_eq!((written, notes.len()), (0, 0));
    world.assert_right();
}

#[test]
fn what_nobody_remembers_is_taken_up_by_the_same_host_only() {
    let world = World::new();
    world.kill_after(KILLED_AT, &world.labelled("one"));
    world.forget();
    let (written, _) = world.backup(&world.labelled("two"));
    assert_eq!(written, FILES - NAMED + 1);
    world.assert_right();

    let world = World::killed();
    world.forget();
    world.mark(&world.sessions()[0], |marker| {
        marker.hostname = "elsewhere".into();
        marker.last_refresh = "2020-01-01T00:00:00Z".into();
    });
    assert_eq!(world.sessions()[0].standing, Liveness::Stale);
    let (written, _) = world.backup(&world.f.options());
    assert_eq!((written, world.keys("sessions/").len()), (FILES + 1, 2));
}

#[test]
fn the_packs_of_a_running_backup_are_left_to_it() {
    let world = World::killed();
    world.mark(&world.sessions()[0], |marker| marker.pid = std::process::id());
    assert_eq!(world.sessions()[0].standing, Liveness::Alive);
    let (written, notes) = world.backup(&world.f.options());
    assert_eq!((written, notes.len()), (FILES + 1, 0));
    assert_eq!(world.keys("sessions/").len(), 2);
}

#[test]
fn a_backup_of_the_same_sources_that_begins_just_now_is_left_alone() {
    let world = World::new();
    let (repository, options) = (world.f.repository(), world.f.options());
    let begun = Arc::new(Mutex::new(None));
    let result = begun.clone();
    *world.storage.listener.lock() = Some(Arc::new(move |key, _| {
        if key == "after listing sessions/" && result.lock().is_none() {
            let session = Session::register(&repository).unwrap();
            let sources = Sources::resolve(&options.sources, false).unwrap();
            session.claim(&BackupTask::new(&repository, &options, &sources).unwrap().claims);
            *result.lock() = Some(session);
        }
    }));
    world.backup(&world.f.options());
    *world.storage.listener.lock() = None;
    assert!(begun.lock().take().unwrap().is_live().unwrap());
}

#[test]
fn packs_that_are_not_there_in_full_are_not_taken_up() {
    let world = World::killed();
    let named = world.named();
    assert_eq!(named.len(), NAMED);
    world.storage.inner.delete(&named[3]).unwrap();
    let whole = world.get(&named[7]);
    world.put(&named[7], &whole[..whole.len() - 1]);
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(written, FILES - NAMED + 2 + 1);
    world.assert_right();
}

#[test]
fn a_damaged_journal_is_said_and_costs_no_more_than_storing_again() {
    let whole = World::killed();
    let object = whole.get(&whole.journal());
    for damaged in [&object[..object.len() / 2], &object[..1], b"", &[7; 100]] {
        let world = World::killed();
        world.put(&world.journal(), damaged);
        let (written, notes) = world.backup(&world.f.options());
        assert_eq!((written, notes.len()), (FILES + 1, 1), "{notes:?}");
        assert!(notes[0].contains("sessions/"), "{notes:?}");
        world.assert_right();
    }
}

#[test]
fn an_interrupted_backup_leaves_all_that_it_stored_and_no_marker() {
    let world = World::new();
    let options = BackupOptions { cancel: Arc::default(), threads: 1, ..world.f.options() };
    let cancel = options.cancel.clone();
    *world.storage.listener.lock() = Some(Arc::new(move |_, left| {
        if left <= usize::MAX - 10 {
            cancel.store(true, Ordering::Relaxed);
        }
    }));
    let error = backup(&world.f.repository(), &options, None).unwrap_err();
    assert!(matches!(error, VykarError::Interrupted), "{error}");
    *world.storage.listener.lock() = None;
    let stored = world.keys("packs/").len();
    assert!(stored >= 10 && world.sessions().is_empty());
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(stored + written, FILES + 1);
    world.assert_right();
}

#[test]
fn a_backup_that_cannot_publish_leaves_all_that_it_stored() {
    let world = World::new();
    *world.storage.full.lock() = Some("index");
    assert!(backup(&world.f.repository(), &world.f.options(), None).is_err());
    assert_eq!((world.sessions().len(), world.keys("sessions/").len()), (0, 1));
    *world.storage.full.lock() = None;
    let (written, _) = world.backup(&world.f.options());
    assert_eq!(written, 0);
    world.assert_right();
}

#[test]
fn what_was_taken_up_and_is_gone_at_the_commit_is_stored_again() {
    let world = World::killed();
    let (inner, once, named) = (world.storage.inner.clone(), AtomicUsize::new(0), world.named());
    *world.storage.listener.lock() = Some(Arc::new(move |key, _| {
        // The commit's lock: somebody has compacted.
        if key.starts_with("locks/") && once.fetch_add(1, Ordering::Relaxed) == 0 {
            named.iter().for_each(|key| inner.delete(key).unwrap());
        }
    }));
    let (_, notes) = world.backup(&world.f.options());
    *world.storage.listener.lock() = None;
    assert!(notes.iter().any(|note| note.contains("storing again")), "{notes:?}");
    world.assert_right();
}

#[test]
fn two_backups_that_take_up_the_same_packs_count_right() {
    let world = World::killed();
    world.forget();
    let (journal, object, session) =
        (world.journal(), world.get(&world.journal()), world.sessions().remove(0));
    let marker = world.get(&session.marker_key());
    let (repository, other, storage) = (world.f.repository(), world.labelled("other"), world.storage.clone());
    let (inside, once) = (Arc::new(Mutex::new(None)), AtomicUsize::new(0));
    let result = inside.clone();
    *world.storage.listener.lock() = Some(Arc::new(move |key, _| {
        if key.starts_with("locks/") && once.fetch_add(1, Ordering::Relaxed) == 0 {
            // Another backup came before this commit, and had read the journal when this one did.
            storage.inner.put(&journal, &object, PutMode::Replace).unwrap();
            storage.inner.put(&session.marker_key(), &marker, PutMode::Replace).unwrap();
            *result.lock() = Some(backup(&repository, &other, None).map(drop));
        }
    }));
    let (_, notes) = world.backup(&world.f.options());
    *world.storage.listener.lock() = None;
    inside.lock().take().unwrap().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(world.f.repository().manifest().unwrap().snapshots.len(), 2);
    world.assert_right();
}
