//! Small repositories that an earlier version of this project wrote: they must stay readable.

use std::path::PathBuf;

use super::fixtures::{mount_all, read_all};
use super::harness::project;

fn golden() -> PathBuf {
    project().join("tests/golden")
}

#[test]
fn repositories_of_earlier_versions_are_read_in_full() {
    read_all(&golden());
}

#[test]
fn repositories_of_earlier_versions_are_mounted() {
    needs!(mounts);
    mount_all(&golden());
}
