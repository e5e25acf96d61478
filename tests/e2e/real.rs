//! A real tree of tens of thousands of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::compare::{Leave, read_tree, same, same_to_others};
use super::harness::{World, is_root, note};

/// The largest of some folders that this user can read whole.
fn real_tree() -> PathBuf {
    for dir in ["/usr/share", "/usr/share/doc", "/usr/include"].map(Path::new) {
        let readable = |dir: &Path| {
            let find = Command::new("find").arg(dir).args(["!", "-readable", "-print", "-quit"]).output();
            find.is_ok_and(|o| o.status.success() && o.stdout.is_empty())
        };
        if dir.is_dir() && (is_root() || readable(dir)) {
            return dir.to_owned();
        }
    }
    panic!("no folder under /usr that this user can read whole");
}

#[test]
fn a_real_tree_is_the_same_mounted_and_restored() {
    needs!(mounts);
    let source = real_tree();
    let world = World::with_repository("auto");
    let before = read_tree(&source);
    note(&format!("{}: {} paths", source.display(), before.len()));

    // Other tests may compile or install beside this one, but nothing writes to /usr.
    let run = world.backup([source.as_os_str()]).ok();
    note(&format!("backed up in {:.1?}", run.took));

    // diff and rsync compare the contents here, so that they are read three times and not four.
    // Only root and a file's owner can read it without a new access time.
    let leave = Leave { contents: true, atime: !is_root(), ..Leave::default() };
    let mount = world.mount();
    same(&before, &source, &mount.latest(), Leave { owner: false, ..leave });
    same_to_others(&source, &mount.latest());
    mount.unmount(&world);

    let restored = world.path("restored");
    let run = world.run(["restore".as_ref(), "latest".as_ref(), restored.as_os_str()]).ok();
    note(&format!("restored in {:.1?}", run.took));
    same(&before, &source, &restored, leave);
    same_to_others(&source, &restored);
    fs::remove_dir_all(&restored).unwrap();

    let run = world.run(["check", "--verify-data"]).ok();
    note(&format!("verified in {:.1?}", run.took));
    world.oracle_verify();
}
