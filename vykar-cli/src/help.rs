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

pub const SNAPSHOT_FIND: &str = "\
A path that fits in one snapshot is followed through all of them, among those of the same host, label and paths.

Examples:
  vykar -R REPO snapshot find '*.odt'                      names, in any folder
  vykar -R REPO snapshot find etc/fstab                    a path
  vykar -R REPO snapshot find photos --iname '*.jpg'       names below a path
  vykar -R REPO snapshot find 'home/*/mail' --since 7d     below paths that fit, and modified since
  vykar -R REPO snapshot find --type f --larger 1G --label nas --last 10 --json";

pub const SNAPSHOT_DIFF: &str = "\
Examples:
  vykar -R REPO snapshot diff 8c2f latest
  vykar -R REPO snapshot diff 8c2f latest photos/2019
  vykar -R REPO snapshot diff 8c2f latest --json";

pub const CAT: &str = "\
The names in an archive are those in the snapshot. GNU tar restores all attributes with --xattrs-include='*' only.
A file that is damaged is left out of an archive, unless it is large: then the archive ends there.

Examples:
  vykar -R REPO cat latest:etc/fstab
  vykar -R REPO cat 8c2f:mail/inbox | grep -a Subject:
  vykar -R REPO cat latest:photos --tar > photos.tar
  vykar -R REPO cat latest:home/ada --tar | tar -x --xattrs --xattrs-include='*' -C /mnt
  vykar -R REPO cat latest --tar | ssh nas 'cat > backup.tar'";
