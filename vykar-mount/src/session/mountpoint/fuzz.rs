//! Lines of `/proc/self/mountinfo`, in which users have a say.

use std::os::unix::ffi::OsStrExt;

use crate::session::mountpoint::{MountEntry, unescape};

/// A line.
pub fn mountinfo(data: &[u8]) {
    if let Some(entry) = MountEntry::parse(data) {
        assert!(entry.path.as_os_str().len() <= data.len());
    }
    let plain = unescape(data);
    assert!(plain.len() <= data.len());
    // As the kernel writes it, and a bit more: everything else undone is the same again.
    let escaped: Vec<u8> = data.iter().flat_map(|byte| format!("\\{byte:03o}").into_bytes()).collect();
    assert_eq!(unescape(&escaped), data);
    let line = [b"1 2 0:3 / ", &escaped[..], b" rw - fuse.vykar vykar rw"].concat();
    let entry = MountEntry::parse(&line);
    assert!(
        entry.is_some_and(|entry| entry.path.as_os_str().as_bytes() == data && entry.kind == "fuse.vykar")
    );
}
