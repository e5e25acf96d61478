//! Files that come from programs.

use std::io::Read;

use super::*;
use crate::testing::noise;

/// Bytes, and what is said at their end.
struct Bytes(std::io::Cursor<Vec<u8>>, Result<(), String>);

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        // As a pipe does, in parts.
        let some = buf.len().min(70_001);
        self.0.read(&mut buf[..some])
    }
}

impl StreamContent for Bytes {
    fn finish(self: Box<Self>) -> Result<(), String> {
        self.1
    }
}

fn stream(path: &str, bytes: &[u8], end: Result<(), String>) -> Stream {
    let bytes = bytes.to_vec();
    let open: OpenStream =
        Arc::new(move || Ok(Box::new(Bytes(std::io::Cursor::new(bytes.clone()), end.clone()))));
    Stream { path: path.to_owned(), open }
}

#[test]
fn a_stream_becomes_a_file_cut_as_a_file_of_that_content_is() {
    let f = Fixture::new();
    // More than a segment.
    let large = noise(1, (64 << 20) + 12_345);
    f.write("same", &large);
    f.write("vykar-dumps/old", b"restored from an older snapshot");
    f.backup();
    let streams =
        vec![stream("vykar-dumps/db/all.sql", &large, Ok(())), stream("vykar-dumps/empty", b"", Ok(()))];
    let options = BackupOptions { streams, ..f.options() };
    let mut notes = Vec::new();
    let mut listen = |event: Event| {
        if let Event::Note(text) = event {
            notes.push(text);
        }
    };
    let summary = backup(&f.repository(), &options, Some(&mut listen)).unwrap();
    assert_eq!(notes, ["vykar-dumps/empty: nothing came, and an empty file is stored"]);
    assert_eq!((summary.added, summary.excluded), (0, 1), "every chunk was there already");
    let items = f.items();
    let paths: Vec<_> = items.keys().map(|p| std::str::from_utf8(p).unwrap()).collect();
    assert_eq!(
        paths,
        ["same", "vykar-dumps", "vykar-dumps/db", "vykar-dumps/db/all.sql", "vykar-dumps/empty"]
    );
    let (item, content) = &items[&b"vykar-dumps/db/all.sql"[..]];
    assert!(*content == large);
    assert_eq!((item.permissions(), item.size), (0o600, large.len() as u64));
    assert_eq!(items[&b"vykar-dumps"[..]].0.permissions(), 0o700);
    f.assert_counts();
}

#[test]
fn streams_alone_make_a_snapshot() {
    let f = Fixture::new();
    let streams = vec![stream("mail.mbox", b"From me", Ok(()))];
    let options = BackupOptions { sources: Vec::new(), streams, ..f.options() };
    let summary = backup(&f.repository(), &options, None).unwrap();
    assert_eq!(summary.meta.source_paths, ["mail.mbox"]);
    assert_eq!(f.items()[&b"mail.mbox"[..]].1, b"From me");
    f.assert_counts();
}

#[test]
fn a_stream_that_fails_publishes_nothing() {
    let f = Fixture::new();
    f.write("a", b"1");
    let streams = vec![stream("vykar-dumps/db", &noise(1, 100_000), Err("exit status: 3".into()))];
    let options = BackupOptions { streams, ..f.options() };
    let error = backup(&f.repository(), &options, None).unwrap_err();
    assert_eq!(error.to_string(), "vykar-dumps/db: exit status: 3; nothing was published");
    let unopened: OpenStream = Arc::new(|| Err("cannot be run".to_owned()));
    let streams = vec![Stream { path: "vykar-dumps/db".to_owned(), open: unopened }];
    let error = backup(&f.repository(), &BackupOptions { streams, ..f.options() }, None).unwrap_err();
    assert_eq!(error.to_string(), "vykar-dumps/db: cannot be run; nothing was published");
    assert!(f.repository().manifest().unwrap().snapshots.is_empty());
}
