//! Reading.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use crate::craft::Crafted;
use crate::harness::{Mount, World, sha256};
use crate::platform::{map_private, map_shared};
use crate::tree::noise;

/// Sizes of the chunks of a file.
const CHUNKS: [usize; 12] = [1, 4095, 4096, 4097, 100_000, 7, 524_288, 131_072, 3, 2_000_000, 1, 65_537];

/// A mounted file of such chunks, and its content.
fn chunked() -> (World, Mount, Vec<u8>) {
    let mut repository = Crafted::new();
    let (mut content, mut chunks) = (Vec::new(), Vec::new());
    for (n, size) in CHUNKS.iter().enumerate() {
        let data = noise(*size, n as u64 + 1);
        chunks.push(repository.chunk(&data));
        content.extend(data);
    }
    let world = World::new();
    repository.file_of("file", chunks).write(&world.repo);
    let mount = world.mount();
    (world, mount, content)
}

/// Opens past the kernel's cache.
fn direct(path: &Path) -> File {
    let flags = OFlags::DIRECT.bits().cast_signed();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap()
}

/// Demands that a read gives all that there is.
fn check(file: &File, content: &[u8], at: usize, len: usize) {
    let mut buf = vec![0; len];
    let wanted = &content[at.min(content.len())..(at + len).min(content.len())];
    let mut got = 0;
    while got < len {
        match file.read_at(&mut buf[got..], (at + got) as u64).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert!(buf[..got] == *wanted, "{len} bytes at {at}: {got} of {}", wanted.len());
}

/// Every chunk's begin and the end of the file, one before and one behind.
fn boundaries() -> Vec<usize> {
    let mut ends: Vec<usize> =
        CHUNKS.iter().scan(0, |at, size| Some(std::mem::replace(at, *at + size))).collect();
    ends.push(CHUNKS.iter().sum());
    ends.iter().flat_map(|at| at.saturating_sub(1)..=at + 1).collect()
}

#[test]
fn reads_at_every_chunk_boundary_give_the_sources_bytes() {
    needs!(mounts);
    let (_world, mount, content) = chunked();
    let path = mount.latest().join("file");
    assert_eq!(fs::metadata(&path).unwrap().len(), content.len() as u64);
    let (cached, direct) = (File::open(&path).unwrap(), direct(&path));
    for at in boundaries() {
        for len in [1, 2, 3, 4096, 70_000, 700_000] {
            // Exactly this range is asked for first, then pages.
            check(&direct, &content, at, len);
            check(&cached, &content, at, len);
        }
    }
    // From one boundary to another.
    for from in boundaries().into_iter().step_by(3) {
        for to in boundaries().into_iter().step_by(4).filter(|to| *to > from) {
            check(&direct, &content, from, to - from);
        }
    }
    assert_eq!(direct.read_at(&mut [0; 10], content.len() as u64 + 5).unwrap(), 0);
    assert!(fs::read(&path).unwrap() == content);
}

#[test]
fn seeks_lead_where_they_should() {
    needs!(mounts);
    use std::io::{Read, Seek, SeekFrom};
    let (_world, mount, content) = chunked();
    let mut file = File::open(mount.latest().join("file")).unwrap();
    let next = |file: &mut File| {
        let mut buf = [0; 3];
        let n = file.read(&mut buf).unwrap();
        buf[..n].to_vec()
    };
    for at in boundaries() {
        let wanted = &content[at.min(content.len())..(at + 3).min(content.len())];
        assert_eq!(file.seek(SeekFrom::Start(at as u64)).unwrap(), at as u64);
        assert_eq!(next(&mut file), wanted);
        if at <= content.len() {
            file.seek(SeekFrom::End(at as i64 - content.len() as i64)).unwrap();
            assert_eq!(next(&mut file), wanted);
        }
    }
}

#[test]
fn files_can_be_mapped() {
    needs!(mounts);
    let (_world, mount, content) = chunked();
    let file = File::open(mount.latest().join("file")).unwrap();
    let shared = map_shared(&file);
    // From behind, so that nothing is read in sequence.
    assert!(shared[..].chunks(4096).rev().zip(content.chunks(4096).rev()).all(|(a, b)| a == b));
    assert!(map_private(&file)[..] == content[..]);
}

#[test]
fn programs_run_from_a_mount() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    fs::copy("/bin/echo", source.join("echo")).unwrap();
    world.backup(["source"]).ok();
    let mount = world.mount();
    let output = Command::new(mount.latest().join("echo")).arg("it runs").output().unwrap();
    assert_eq!(output.stdout, b"it runs\n");
}

#[test]
fn several_processes_read_one_file_at_once() {
    needs!(mounts);
    let (world, mount, content) = chunked();
    fs::write(world.path("wanted"), &content).unwrap();
    let path = mount.latest().join("file");
    let spawn = |n: usize| {
        let mut command = Command::new(if n.is_multiple_of(2) { "cmp" } else { "sha256sum" });
        command.arg(&path).stdout(Stdio::piped());
        if n.is_multiple_of(2) {
            command.arg(world.path("wanted"));
        }
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..8).map(spawn).collect();
    let digest = sha256(&world.path("wanted"));
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(if n.is_multiple_of(2) { said.is_empty() } else { said.starts_with(&digest) }, "{said}");
    }
}

#[test]
fn files_of_terabytes_are_read_at_both_ends() {
    needs!(mounts);
    const CHUNK: u64 = 8 << 20;
    const COUNT: u64 = (2 << 40) / CHUNK;
    let mut repository = Crafted::new();
    let (begin, zeros, end) = (
        repository.chunk(b"the begin"),
        repository.chunk(&vec![0; CHUNK as usize]),
        repository.chunk(b"the end"),
    );
    let chunks = std::iter::once(begin).chain((0..COUNT).map(|_| zeros)).chain([end]).collect();
    let world = World::new();
    repository.file_of("huge", chunks).write(&world.repo);
    let mount = world.mount();
    let path = mount.latest().join("huge");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (COUNT * CHUNK + 16, 1));
    let file = File::open(&path).unwrap();
    let read = |at: u64, len: usize| {
        let mut buf = vec![1; len];
        file.read_exact_at(&mut buf, at).unwrap();
        buf
    };
    assert_eq!(read(0, 12), b"the begin\0\0\0");
    assert_eq!(read(meta.len() - 9, 9), b"\0\0the end");
    assert_eq!(read(1 << 40, 100), [0; 100]);
    use rustix::fs::{SeekFrom, seek};
    assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(9));
    assert_eq!(seek(&file, SeekFrom::Data(9)), Ok(meta.len() - 7));
}
