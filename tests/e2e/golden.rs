//! Small repositories that an earlier version of this project wrote: they must stay readable.

use super::fixtures::read_all;
use super::harness::{note, project};

#[test]
fn repositories_of_earlier_versions_are_read_in_full() {
    let dir = project().join("tests/golden");
    match dir.is_dir() {
        true => read_all(&dir),
        false => note("no tests/golden yet"),
    }
}
