//! Damage costs what it touches, and is said.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::craft::Crafted;
use crate::harness::{World, eventually, fingerprint};
use crate::tree::noise;

const PAGE: usize = 4096;
/// Size of each of the file's three chunks; the second is the bad one.
const CHUNK: usize = 50_000;

/// A repository with `folder/bad`, whose second chunk can be spoilt, and `good`.
struct Spoilt {
    world: World,
    content: Vec<u8>,
    /// The id of the second chunk.
    chunk: String,
}

impl Spoilt {
    fn new() -> Self {
        let content = noise(3 * CHUNK, 1);
        let mut repository = Crafted::new();
        let chunks: Vec<_> = content.chunks(CHUNK).map(|data| repository.chunk(data)).collect();
        let chunk = chunks[1].id.to_string();
        let world = World::new();
        repository.file_of("folder/bad", chunks).file("good", b"good").write(&world.repo);
        Spoilt { world, content, chunk }
    }

    /// The pack that holds the second chunk.
    fn pack(&self) -> PathBuf {
        let needle = &self.content[CHUNK..2 * CHUNK];
        let packs = fingerprint(&self.world.repo).into_iter().filter(|(_, (_, kind))| kind != "directory");
        let mut packs = packs.map(|(name, _)| self.world.repo.join(name));
        packs.find(|path| position(&fs::read(path).unwrap(), needle).is_some()).unwrap()
    }

    fn pack_name(&self) -> String {
        let packs = fingerprint(&self.world.repo).into_iter().filter(|(name, _)| name.starts_with("packs"));
        let (_, name) = packs.map(|(name, (size, _))| (size, name)).max().unwrap();
        name.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Changes a byte of the second chunk.
    fn damage(&self) {
        let pack = self.pack();
        let mut bytes = fs::read(&pack).unwrap();
        let at = position(&bytes, &self.content[CHUNK..2 * CHUNK]).unwrap();
        bytes[at + CHUNK / 2] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let begin = needle.first_chunk::<16>()?;
    bytes.windows(16).position(|w| w == begin).filter(|at| bytes[*at..].starts_with(needle))
}

fn is_io<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    matches!(result, Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()))
}

/// Reads page by page, and demands that just those of `bad` fail.
fn pages_fail(path: &Path, content: &[u8], bad: std::ops::Range<usize>) {
    let file = File::open(path).unwrap();
    for (n, wanted) in content.chunks(PAGE).enumerate() {
        let mut buf = vec![0; wanted.len()];
        let read = file.read_exact_at(&mut buf, (n * PAGE) as u64);
        if bad.contains(&n) {
            assert!(is_io(read), "page {n} should fail");
        } else {
            assert!(read.is_ok() && buf == wanted, "page {n} should be read");
        }
    }
}

#[test]
fn a_bad_chunk_fails_the_pages_it_touches_and_nothing_else() {
    needs!(mounts);
    let spoilt = Spoilt::new();
    spoilt.damage();
    let pack = spoilt.pack_name();
    let mount = spoilt.world.mount();
    let bad = mount.latest().join("folder/bad");
    let pages = CHUNK / PAGE..(2 * CHUNK).div_ceil(PAGE);
    for _ in 0..2 {
        pages_fail(&bad, &spoilt.content, pages.clone());
    }
    // A read in sequence fails where the damage begins, and is never taken for the end of the file.
    let mut found = Vec::new();
    assert!(is_io(File::open(&bad).unwrap().read_to_end(&mut found)));
    assert!(spoilt.content.starts_with(&found) && found.len() >= pages.start * PAGE);
    assert_eq!(fs::read(mount.latest().join("good")).unwrap(), b"good");
    let log = spoilt.world.mount_log();
    assert_eq!(log.lines().count(), 1, "{log}");
    for word in ["\"crafted0\"", "\"folder/bad\"", &spoilt.chunk, &pack] {
        assert!(log.contains(word), "{log} should name {word}");
    }
}

#[test]
fn a_missing_pack_fails_what_is_in_it() {
    needs!(mounts);
    let spoilt = Spoilt::new();
    let pack = spoilt.pack();
    let away = spoilt.world.path("away");
    fs::rename(&pack, &away).unwrap();
    let mount = spoilt.world.mount();
    let bad = mount.latest().join("folder/bad");
    assert_eq!(fs::metadata(&bad).unwrap().len(), spoilt.content.len() as u64);
    pages_fail(&bad, &spoilt.content, 0..spoilt.content.len().div_ceil(PAGE));
    assert!(is_io(fs::read(mount.latest().join("good"))), "it is in the same pack");
    let log = spoilt.world.mount_log();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(log.contains(name) && log.contains("folder/bad") && log.contains(&spoilt.chunk), "{log}");
    // It is back: what failed was not kept.
    fs::rename(&away, &pack).unwrap();
    eventually("reading again", || fs::read(&bad).is_ok());
    assert!(fs::read(&bad).unwrap() == spoilt.content);
}

#[test]
fn zeros_take_the_place_of_what_is_lost_when_they_are_asked_for() {
    needs!(mounts);
    let spoilt = Spoilt::new();
    spoilt.damage();
    let mount = spoilt.world.mount_with(&["--on-damage", "zero"]);
    let found = fs::read(mount.latest().join("folder/bad")).unwrap();
    let (content, zeros) = (&spoilt.content, vec![0; CHUNK]);
    assert!(found == [&content[..CHUNK], &zeros, &content[2 * CHUNK..]].concat());
    let log = spoilt.world.mount_log();
    assert!(log.lines().count() == 1 && log.contains("zeros were given"), "{log}");
    assert!(log.contains(&spoilt.chunk) && log.contains(&spoilt.pack_name()), "{log}");

    // A repository that is gone is not taken for one that is damaged.
    let spoilt = Spoilt::new();
    let mount = spoilt.world.mount_with(&["--on-damage", "zero"]);
    let bad = mount.latest().join("folder/bad");
    fs::metadata(&bad).unwrap();
    let away = spoilt.world.path("unplugged");
    fs::rename(&spoilt.world.repo, &away).unwrap();
    assert!(is_io(fs::read(&bad)));
    fs::rename(&away, &spoilt.world.repo).unwrap();
    eventually("reading again", || fs::read(&bad).is_ok());
    assert!(fs::read(&bad).unwrap() == spoilt.content);
    let log = spoilt.world.mount_log();
    assert!(!log.is_empty() && !log.contains("zeros"), "{log}");
}
