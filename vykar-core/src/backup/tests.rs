//! Backups of real folders into a repository in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::codec::Chunker;
use crate::error::{StorageError, VykarError};
use crate::format::{ChunkRef, Encryption, Item, ItemType, Snapshot};
use crate::id::ChunkId;
use crate::repository::now_rfc3339;
use crate::repository::read::items::{FoundItem, for_each_item};
use crate::repository::{InitOptions, OpenOptions, Passphrase};
use crate::storage::{Backend, MemoryBackend, PutMode};

mod beside_git;
mod excludes;
mod lost_packs;
mod meddling;
mod streams;
mod takeup;

struct Fixture {
    dir: tempfile::TempDir,
    backend: Arc<dyn Backend>,
}

impl Fixture {
    fn new() -> Self {
        Self::over(Arc::new(MemoryBackend::new()))
    }

    fn over(backend: Arc<dyn Backend>) -> Self {
        Self::with_packs(backend, InitOptions::new(Encryption::None).pack_sizes)
    }

    fn with_packs(backend: Arc<dyn Backend>, pack_sizes: (u32, u32)) -> Self {
        Self::with(backend, &InitOptions { pack_sizes, ..InitOptions::new(Encryption::None) })
    }

    fn with(backend: Arc<dyn Backend>, init: &InitOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Repository::init(backend.clone(), init, &mut passphrase, &OpenOptions::default()).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Fixture { dir, backend }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    fn write(&self, name: &str, data: &[u8]) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    fn repository(&self) -> Repository {
        let options = OpenOptions { cache_dir: Some(self.dir.path().join("cache")), trust: false };
        Repository::open(self.backend.clone(), &mut passphrase, &options).unwrap()
    }

    fn options(&self) -> BackupOptions {
        let lock = LockOptions { wait: Duration::from_secs(20), ..LockOptions::default() };
        BackupOptions { threads: 3, lock, ..BackupOptions::new(vec![self.source()]) }
    }

    fn backup(&self) -> BackupSummary {
        backup(&self.repository(), &self.options(), None).unwrap()
    }

    /// Items of the newest snapshot by path, with their contents.
    fn items(&self) -> BTreeMap<Vec<u8>, (Item<'static>, Vec<u8>)> {
        let repository = self.repository();
        let manifest = repository.manifest().unwrap();
        read_items(&repository, manifest.resolve("latest").unwrap())
    }

    /// Every count in the index is the number of references that snapshots have.
    fn assert_counts(&self) {
        let (index, counted) = self.counts();
        assert_eq!(index, counted);
        assert!(self.backend.list("sessions/").unwrap().is_empty(), "no session is left");
        assert!(self.backend.list("locks/").unwrap().is_empty(), "no lock is left");
    }

    /// The counts in the index, and the numbers of references that snapshots have.
    fn counts(&self) -> (HashMap<ChunkId, u32>, HashMap<ChunkId, u32>) {
        let repository = self.repository();
        // Not through the local copy.
        let index = repository.read_index().unwrap();
        let mut counted: HashMap<ChunkId, u32> = HashMap::new();
        for snapshot in repository.manifest().unwrap().snapshots {
            for pointer in &snapshot.meta.item_ptrs {
                *counted.entry(*pointer).or_default() += 1;
            }
            for (item, _) in read_items(&repository, &snapshot).into_values() {
                for chunk in &item.chunks {
                    *counted.entry(chunk.id).or_default() += 1;
                }
            }
        }
        (index.chunks.iter().map(|e| (e.id, e.refcount)).collect(), counted)
    }
}

fn passphrase() -> Result<Passphrase, String> {
    Ok("secret".to_owned().into())
}

fn owned(item: Item<'_>) -> Item<'static> {
    let path = item.path_bytes().to_vec();
    let target = item.target_bytes().map(<[u8]>::to_vec);
    let mut copy = Item { mode: item.mode, mtime: item.mtime, size: item.size, ..Item::new("", item.kind) };
    (copy.chunks, copy.hardlink, copy.ctime) = (item.chunks, item.hardlink, item.ctime);
    copy.xattrs = item
        .xattrs
        .map(|list| list.into_iter().map(|(n, v)| (n.into_owned().into(), v.into_owned().into())).collect());
    copy.set_names(path.into(), target.map(Into::into));
    copy
}

fn read_items(repository: &Repository, snapshot: &Snapshot) -> BTreeMap<Vec<u8>, (Item<'static>, Vec<u8>)> {
    let reader = repository.chunk_reader().unwrap();
    let mut items = BTreeMap::new();
    for_each_item(&reader, snapshot, &mut |found| {
        let FoundItem::Item(item) = found else { panic!("{found:?}") };
        let read = |c: &ChunkRef| reader.read_sized(&c.id, c.size).unwrap();
        let content = item.chunks.iter().flat_map(read).collect();
        items.insert(item.path_bytes().to_vec(), (owned(item), content));
        Ok(true)
    })
    .unwrap();
    items
}

#[test]
fn a_tree_is_stored_with_its_own_metadata_and_found_unchanged_next_time() {
    let f = Fixture::new();
    f.write("a", b"hello");
    f.write("d/e/empty", b"");
    f.write("d/f", &vec![7; 3 << 20]);
    symlink("../nowhere", f.source().join("d/link")).unwrap();
    let odd = f.source().join(std::ffi::OsStr::from_bytes(b"odd\xff\n"));
    fs::write(&odd, b"odd").unwrap();
    fs::hard_link(f.source().join("a"), f.source().join("z")).unwrap();
    fs::set_permissions(f.source(), PermissionsExt::from_mode(0o751)).unwrap();
    // Old enough that the clock's granularity is no issue.
    std::thread::sleep(Duration::from_millis(2100));
    let first = f.backup();
    assert_eq!((first.new, first.changed, first.unchanged), (5, 0, 0));
    assert_eq!((first.directories, first.symlinks, first.meta.stats.nfiles), (2, 1, 5));
    assert!(first.is_complete());
    let items = f.items();
    let paths: Vec<_> = items.keys().map(|p| p.as_slice()).collect();
    assert_eq!(paths, [&b"a"[..], b"d", b"d/e", b"d/e/empty", b"d/f", b"d/link", b"odd\xff\n", b"z"]);
    assert_eq!(items[&b"d/f"[..]].1, vec![7; 3 << 20]);
    assert_eq!(items[&b"d/link"[..]].0.target_bytes(), Some(&b"../nowhere"[..]));
    assert_eq!(items[&b"a"[..]].0.hardlink, items[&b"z"[..]].0.hardlink);
    assert!(items[&b"a"[..]].0.hardlink.is_some());
    assert_eq!(items[&b"z"[..]].1, b"hello");
    let root = first.meta.root_item().unwrap();
    assert_eq!((root.kind, root.permissions()), (ItemType::Directory, 0o751));
    f.assert_counts();

    let second = f.backup();
    assert_eq!((second.new, second.changed, second.unchanged), (0, 0, 5));
    assert_eq!((second.added, second.added_stored), (0, 0));
    f.assert_counts();

    fs::remove_dir_all(f.dir.path().join("cache")).unwrap();
    let without_cache = f.backup();
    assert_eq!(without_cache.unchanged, 5, "the previous snapshot serves as the cache");
    // Not the first: reading a symlink touches its access time.
    assert_eq!(without_cache.meta.item_ptrs, second.meta.item_ptrs, "the same stream");

    f.write("a", b"HELLO");
    fs::remove_file(f.source().join("d/f")).unwrap();
    let changed = f.backup();
    assert_eq!((changed.new, changed.changed, changed.unchanged), (0, 2, 2), "both names of a changed");
    assert_eq!(f.items()[&b"z"[..]].1, b"HELLO");
    f.assert_counts();
}

#[test]
fn files_that_do_not_know_their_size_are_stored_as_they_read() {
    let f = Fixture::new();
    let options = BackupOptions { sources: vec!["/proc/self/status".into()], ..f.options() };
    let summary = backup(&f.repository(), &options, None).unwrap();
    assert!(summary.is_complete());
    let (item, content) = f.items().remove(&b"status"[..]).unwrap();
    assert!(content.starts_with(b"Name:") && item.size == content.len() as u64);
}

#[test]
fn files_that_refuse_large_reads_are_stored() {
    let f = Fixture::new();
    let options = BackupOptions { sources: vec!["/proc/sys/kernel/ostype".into()], ..f.options() };
    assert!(backup(&f.repository(), &options, None).unwrap().is_complete());
    assert_eq!(f.items()[&b"ostype"[..]].1, b"Linux\n");
}

#[test]
fn a_file_rewritten_with_the_same_size_and_mtime_is_noticed() {
    let f = Fixture::new();
    f.write("x", b"one");
    let path = f.source().join("x");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    f.backup();
    fs::write(&path, b"two").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    f.backup();
    assert_eq!(f.items()[&b"x"[..]].1, b"two");
}

#[test]
fn large_files_are_cut_segment_by_segment_and_holes_are_zeros() {
    let f = Fixture::new();
    let mut file = File::create(f.source().join("large")).unwrap();
    let noise: Vec<u8> = (0u32..5 << 20).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
    file.write_all(&noise).unwrap();
    // Two segments of nothing, then data again.
    file.seek(SeekFrom::Start(3 * crate::codec::chunker::SEGMENT + 12_345)).unwrap();
    file.write_all(&noise).unwrap();
    file.set_len(5 * crate::codec::chunker::SEGMENT + 777).unwrap();
    drop(file);
    let summary = f.backup();
    assert!(summary.is_complete());
    let data = fs::read(f.source().join("large")).unwrap();
    let (item, content) = f.items().remove(&b"large"[..]).unwrap();
    assert!(content == data);
    let repository = f.repository();
    let chunker = Chunker::new(repository.config().chunker);
    let expected: Vec<_> = data
        .chunks(crate::codec::chunker::SEGMENT as usize)
        .flat_map(|segment| chunker.cut(segment))
        .map(|c| repository.keys().hasher().chunk_id(c).unwrap())
        .collect();
    assert_eq!(item.chunks.iter().map(|c| c.id).collect::<Vec<_>>(), expected);
    f.assert_counts();
}

#[test]
fn several_sources_keep_their_absolute_paths_and_one_file_its_name() {
    let f = Fixture::new();
    f.write("one/x", b"1");
    f.write("two/y", b"2");
    let sources = vec![f.source().join("one"), f.source().join("two/y")];
    let options = BackupOptions { sources, ..f.options() };
    backup(&f.repository(), &options, None).unwrap();
    let prefix = f.source().as_os_str().as_bytes()[1..].to_vec();
    let under = |name: &str| [&prefix[..], name.as_bytes()].concat();
    let (above, found): (Vec<_>, Vec<_>) = f
        .items()
        .into_iter()
        .partition(|(path, _)| !path.starts_with(&under("/")) || path.ends_with(b"/two"));
    let names = |all: Vec<(Vec<u8>, _)>| all.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert!(above.iter().all(|(_, (item, _))| item.kind == ItemType::Directory));
    assert!(names(above).contains(&under("/two")), "the folders above are directories of the snapshot");
    assert_eq!(names(found), [under("/one"), under("/one/x"), under("/two/y")]);

    let options = BackupOptions { sources: vec![f.source().join("two/y")], ..f.options() };
    backup(&f.repository(), &options, None).unwrap();
    assert_eq!(f.items().into_keys().collect::<Vec<_>>(), [b"y".to_vec()]);
    f.assert_counts();
}

#[test]
fn a_time_that_no_snapshot_holds_is_named() {
    let f = Fixture::new();
    f.write("late", b"1");
    f.write("now", b"1");
    let late = std::time::UNIX_EPOCH + Duration::from_secs(10_413_792_000); // in 2300
    let file = File::options().append(true).open(f.source().join("late")).unwrap();
    file.set_modified(late).unwrap();
    if file.metadata().unwrap().modified().unwrap() != late {
        // This file system cannot hold it either.
        return;
    }
    let mut named = Vec::new();
    let mut listen = |event: Event| {
        if let Event::SourceIncomplete { path, reason } = event {
            named.push((path, reason));
        }
    };
    backup(&f.repository(), &f.options(), Some(&mut listen)).unwrap();
    let [(path, reason)] = &named[..] else { panic!("{named:?}") };
    assert!(path.ends_with("late") && reason.contains("2262"), "{path:?}: {reason}");
}

#[test]
fn concurrent_backups_all_publish_and_counts_stay_right() {
    let f = Fixture::new();
    for n in 0..50 {
        f.write(&format!("f{n}"), format!("content {n}").repeat(n + 1).as_bytes());
    }
    std::thread::scope(|scope| {
        for n in 0..4 {
            let f = &f;
            scope.spawn(move || {
                let options = BackupOptions { label: Some(format!("writer {n}")), ..f.options() };
                backup(&f.repository(), &options, None).unwrap()
            });
        }
    });
    assert_eq!(f.repository().manifest().unwrap().snapshots.len(), 4);
    f.assert_counts();
}

#[test]
fn a_damaged_copy_of_the_index_gets_into_no_index() {
    let f = Fixture::new();
    for n in 0..40u32 {
        f.write(&format!("f{n}"), &[n as u8; 100]);
    }
    f.backup();
    let copy = f.dir.path().join("cache").join(f.repository().config().id.to_string()).join("index");
    // Steps that meet every field of a slot, and what is before and behind the slots.
    let len = fs::read(&copy).unwrap().len();
    for at in (0..len).step_by(41) {
        let mut bytes = fs::read(&copy).unwrap();
        bytes[at] ^= 0x21;
        // Replaced, as everything that writes it does.
        fs::write(copy.with_extension("new"), bytes).unwrap();
        fs::rename(copy.with_extension("new"), &copy).unwrap();
        f.write("changing", &at.to_le_bytes());
        f.backup();
    }
    f.assert_counts();
}

#[test]
fn a_cancelled_backup_publishes_nothing() {
    let f = Fixture::new();
    f.write("x", b"data");
    let options = f.options();
    options.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(backup(&f.repository(), &options, None), Err(VykarError::Interrupted)));
    assert!(f.repository().manifest().unwrap().snapshots.is_empty());
    f.assert_counts();
}
