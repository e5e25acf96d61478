//! What a backup and a restore tell of how far they are, on a storage slow enough that there is something to
//! tell.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vykar_core::backup::{BackupOptions, BackupSummary, backup};
use vykar_core::codec::Compression;
use vykar_core::format::{ChunkerParams, Encryption};
use vykar_core::repository::{InitOptions, OpenOptions, Repository};
use vykar_core::restore::{RestoreOptions, restore};
use vykar_core::storage::{Limits, MemoryBackend};
use vykar_core::{Event, Totals};

/// Bytes a second in each direction.
const RATE: u64 = 4 << 20;

struct Fixture {
    dir: TempDir,
    repository: Repository,
}

/// Files, bytes, path and expected totals.
type Told = (u64, u64, Option<PathBuf>, Option<Totals>);

impl Fixture {
    /// Small chunks and packs, so that a few MiB take several transfers.
    fn new() -> Self {
        let rate = NonZeroU64::new(RATE);
        let limits = Limits { upload: rate, download: rate, ..Limits::default() };
        let mut options = InitOptions::new(Encryption::None);
        options.chunker = ChunkerParams { min: 32 << 10, avg: 64 << 10, max: 128 << 10 };
        options.pack_sizes = (256 << 10, 256 << 10);
        let backend = limits.apply(Arc::new(MemoryBackend::new()));
        let mut passphrase = || Ok(String::new().into());
        let dir = tempfile::tempdir().unwrap();
        let open = OpenOptions { cache_dir: Some(dir.path().join("cache")), trust: false };
        let repository = Repository::init(backend, &options, &mut passphrase, &open);
        fs::create_dir(dir.path().join("source")).unwrap();
        Fixture { dir, repository: repository.unwrap() }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// A file that does not compress.
    fn write(&self, name: &str, len: usize) {
        let mut state = name.bytes().fold(1u64, |state, byte| state.wrapping_mul(31) + u64::from(byte));
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        fs::write(self.source().join(name), (0..len).map(|_| next()).collect::<Vec<_>>()).unwrap();
    }

    fn backup(&self, change: impl FnOnce(&mut BackupOptions)) -> (BackupSummary, Vec<Told>) {
        let mut told = Vec::new();
        let mut options = BackupOptions::new(vec![self.source()]);
        options.compression = Compression::None;
        options.threads = 1;
        change(&mut options);
        let summary = backup(&self.repository, &options, Some(&mut |event| note(&mut told, event))).unwrap();
        (summary, told)
    }
}

fn note(told: &mut Vec<Told>, event: Event) {
    if let Event::Progress { files, bytes, path, expected } = event {
        told.push((files, bytes, path, expected));
    }
}

/// Counters never go back.
fn assert_grows(told: &[Told]) {
    assert!(told.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1), "{told:?}");
}

#[test]
fn a_backup_tells_its_path_and_in_the_end_what_the_snapshot_counts() {
    let f = Fixture::new();
    (0..30).for_each(|n| f.write(&format!("file {n}"), 100_000));
    let (summary, told) = f.backup(|_| {});
    assert_grows(&told);
    let paths: Vec<_> = told.iter().filter_map(|t| t.2.as_deref()).collect();
    assert!(!paths.is_empty(), "{told:?}");
    let inside = |path: &&Path| path.starts_with(f.source());
    assert!(paths.iter().all(inside) && paths.iter().any(|path| path.is_file()), "{paths:?}");
    let stats = &summary.meta.stats;
    assert_eq!(told.last(), Some(&(stats.nfiles, stats.original_size, None, None)));
    assert_eq!((stats.nfiles, stats.original_size), (30, 3_000_000));
}

#[test]
fn files_that_are_not_read_again_count_as_well() {
    let f = Fixture::new();
    (0..9).for_each(|n| f.write(&format!("file {n}"), 10_000));
    fs::hard_link(f.source().join("file 2"), f.source().join("file 2a")).unwrap();
    // Older than the clock's granularity, so that they are not read again.
    std::thread::sleep(Duration::from_millis(2100));
    f.backup(|_| {});
    f.write("file 4", 20_000);
    f.write("large", 300_000);
    let (summary, told) = f.backup(|_| {});
    assert_eq!((summary.new, summary.changed, summary.unchanged), (1, 1, 9));
    let (files, bytes, ..) = told.last().unwrap();
    assert_eq!((*files, *bytes), (11, 9 * 10_000 + 20_000 + 300_000));
    assert_eq!(*bytes, summary.meta.stats.original_size);
}

#[test]
fn a_large_file_counts_while_it_is_read() {
    let f = Fixture::new();
    f.write("large", 3 << 20);
    let (_, told) = f.backup(|_| {});
    assert_grows(&told);
    let large = f.source().join("large");
    let under_way = |t: &Told| t.0 == 0 && (1..3 << 20).contains(&t.1) && t.2.as_ref() == Some(&large);
    assert!(told.iter().any(under_way), "{told:?}");
}

#[test]
fn the_previous_snapshot_of_the_same_sources_is_what_is_expected() {
    let f = Fixture::new();
    f.write("one", 50_000);
    f.backup(|options| options.estimate = true);
    let number = Cell::new(0);
    let expected = |change: fn(&mut BackupOptions)| {
        // Something new that takes longer than the look at the other snapshots.
        f.write(&format!("new {}", number.replace(number.get() + 1)), 3 << 20);
        let (_, told) = f.backup(|options| {
            options.estimate = true;
            change(options);
        });
        told.last().unwrap().3
    };
    assert_eq!(expected(|_| {}), Some(Totals { files: 1, bytes: 50_000 }));
    assert_eq!(expected(|options| options.label = Some("other".into())), None);
    assert_eq!(expected(|options| options.hostname = Some("other".into())), None);
    assert_eq!(expected(|options| options.estimate = false), None);
    let newest = Totals { files: 5, bytes: 50_000 + (12 << 20) };
    assert_eq!(expected(|_| {}), Some(newest));
}

#[test]
fn a_restore_knows_what_it_comes_to() {
    let f = Fixture::new();
    (0..20).for_each(|n| f.write(&format!("file {n}"), 100_000));
    fs::hard_link(f.source().join("file 0"), f.source().join("again")).unwrap();
    f.backup(|_| {});
    let manifest = f.repository.manifest().unwrap();
    let mut told = Vec::new();
    let mut listen = |event| note(&mut told, event);
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let dest = f.dir.path().join("out");
    let summary = restore(&f.repository, &manifest.snapshots[0], &dest, &options, Some(&mut listen)).unwrap();
    assert_eq!((summary.files, summary.bytes), (20, 2_000_000));
    assert_grows(&told);
    let totals = Some(Totals { files: 20, bytes: 2_000_000 });
    assert!(!told.is_empty() && told.iter().all(|t| t.3 == totals), "{told:?}");
    let restored = |t: &Told| t.2.as_ref().is_some_and(|path| dest.join(path).is_file());
    assert!(told.iter().any(restored), "{told:?}");
}
