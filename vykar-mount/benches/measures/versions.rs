//! `versions` over 100 snapshots of 100 000 files.

use std::time::Instant;

use vykar_core::ChunkId;
use vykar_core::codec::{Chunker, Compression};
use vykar_core::format::wire::encode;
use vykar_core::format::{ChunkRef, ChunkerParams, Encryption, Item, ItemType};
use vykar_core::repository::OpenOptions;

use crate::testing::{Mounted, Repo, meta};

const SNAPSHOTS: u8 = 100;
const FOLDERS: usize = 990;
/// Files of a folder; one folder has ten times as many.
const FILES: usize = 100;

/// A pseudo-random number for a place in a sequence.
fn noise(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn encoded(path: &str, kind: ItemType, version: u64) -> Vec<u8> {
    let hash = path.bytes().fold(0, |hash, byte| noise(hash ^ u64::from(byte))) ^ version << 32;
    let mut id = [0; 32];
    (0..4).for_each(|n| id[n * 8..][..8].copy_from_slice(&noise(hash + n as u64).to_le_bytes()));
    let chunks = match kind {
        ItemType::RegularFile => vec![ChunkRef { id: ChunkId(id), size: 5000, stored_size: 2000 }],
        _ => Vec::new(),
    };
    let time = 1_700_000_000_000_000_000 + (hash >> 20) as i64;
    let item = Item {
        chunks,
        size: 5000,
        uid: 1000,
        gid: 1000,
        mtime: time,
        atime: Some(time),
        ctime: Some(time),
        user: Some("somebody".into()),
        group: Some("users".into()),
        ..Item::new(path, kind)
    };
    encode("item", &item).unwrap()
}

/// 100 000 files in the order of a walk; file `n` is in folder `n / FILES`, the last 1000 in one.
fn tree() -> Vec<(String, ItemType)> {
    let mut paths = vec![("home".to_owned(), ItemType::Directory)];
    for folder in 0..=FOLDERS {
        let at = format!("home/project-{folder:03}");
        paths.push((at.clone(), ItemType::Directory));
        let files = if folder == FOLDERS { 10 * FILES } else { FILES };
        paths.extend((0..files).map(|n| (format!("{at}/source_file_{n:04}.rs"), ItemType::RegularFile)));
    }
    paths
}

/// Numbers of the files that change from one snapshot to the next: some hundred, some of them in the large folder.
fn changed(snapshot: u64, scattered: bool) -> Vec<usize> {
    let random = |n: u64, below: usize| (noise(snapshot << 32 | n) % below as u64) as usize;
    let large = (0..20).map(|n| FOLDERS * FILES + random(1000 + n, 10 * FILES));
    let others = (0..300u64).map(|n| match scattered {
        true => random(n, FOLDERS * FILES),
        false => random(n / 30, FOLDERS) * FILES + (n % 30) as usize,
    });
    others.chain(large).collect()
}

fn make(repo: &mut Repo, scattered: bool) {
    let mut items: Vec<_> =
        tree().into_iter().map(|(path, kind)| (encoded(&path, kind, 0), path, kind)).collect();
    let files: Vec<_> = (0..items.len()).filter(|at| items[*at].2 == ItemType::RegularFile).collect();
    for n in 0..SNAPSHOTS {
        for file in changed(n.into(), scattered) {
            let (bytes, path, kind) = &mut items[files[file]];
            *bytes = encoded(path, *kind, u64::from(n) + 1);
        }
        let stream: Vec<u8> = items.iter().flat_map(|(bytes, _, _)| bytes).copied().collect();
        let chunks: Vec<_> = Chunker::new(ChunkerParams::ITEMS).cut(&stream).collect();
        let time = format!("2026-01-01T{:02}:{:02}:00Z", n / 60, n % 60);
        repo.raw_snapshot(n, meta(&format!("s{n}"), "h", "l", &time), &chunks);
    }
}

/// Memory of this process, in bytes.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() << 10
}

fn measure<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let (memory, start) = (resident(), Instant::now());
    let result = f();
    let took = start.elapsed().as_millis();
    println!("{what:44} {took:6} ms, {:5} MB more", (resident() - memory) >> 20);
    result
}

fn look(m: &Mounted) {
    measure("first look: ls versions", || m.list("versions"));
    measure("ls of its 991 folders", || assert_eq!(m.list("versions/home").len(), FOLDERS + 1));
    measure("ls of 1000 files", || {
        assert_eq!(m.list(&format!("versions/home/project-{FOLDERS}")).len(), 1000)
    });
    measure("the same again", || m.list(&format!("versions/home/project-{FOLDERS}")));
    measure("ls of 100 files", || m.list("versions/home/project-500"));
    let versions = measure("all versions of 100 files", || {
        let files = m.list("versions/home/project-501").into_iter();
        files.map(|file| m.list(&format!("versions/home/project-501/{file}")).len()).sum::<usize>()
    });
    assert!(versions >= 200);
    let walk = |folders| {
        let folder = |n| format!("versions/home/project-{n:03}");
        for (at, file) in
            (0..folders).flat_map(|n| m.list(&folder(n)).into_iter().map(move |f| (folder(n), f)))
        {
            m.list(&format!("{at}/{file}"));
        }
    };
    measure("find in 100 folders", || walk(100));
}

pub fn scale() {
    for scattered in [false, true] {
        println!("{} changes", if scattered { "scattered" } else { "clustered" });
        let dir = tempfile::tempdir().unwrap();
        let open = OpenOptions { cache_dir: Some(dir.path().to_owned()), ..OpenOptions::default() };
        let mut repo = Repo::with(Encryption::Aes256Gcm, &open);
        repo.compression = Compression::default();
        make(&mut repo, scattered);
        look(&repo.mount_with(16 << 20, 1 << 20));
        let file = repo.repository.cache_dir().unwrap().join("versions");
        println!("the local file: {} KB; after a remount:", std::fs::metadata(file).unwrap().len() >> 10);
        look(&repo.mount_with(16 << 20, 1 << 20));
    }
}
