//! Examples, shown at the end of a command's help.

pub const LIST: &str = "\
Examples:
  vykar -R REPO list --label photos --last 5
  vykar -R REPO list --host nas --since 2w
  vykar -R REPO list --since '2026-11-01 12:00' --json";

pub const SNAPSHOT_LIST: &str = "\
Examples:
  vykar -R REPO snapshot list latest --long
  vykar -R REPO snapshot list latest --long --sort size | head
  vykar -R REPO snapshot list 8c2f --path photos/2019 --json";
