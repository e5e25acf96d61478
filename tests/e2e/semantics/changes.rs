//! Snapshots come and go under a mount.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Mount, World};
use crate::tree::noise;

/// How soon a change of the repository must be seen.
const SOON: Duration = Duration::from_secs(5);

/// Waits until a change of the repository is seen.
pub fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Deletes the snapshot at this place among those that `list` shows.
pub fn delete(world: &World, at: usize) {
    let id = world.snapshots()[at]["id"].as_str().unwrap().to_owned();
    fs::remove_file(world.repo.join("snapshots").join(id)).unwrap();
}

#[test]
fn new_snapshots_appear_latest_follows_and_deleted_ones_disappear() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    let write = |text: &str| {
        fs::write(source.join("file"), text).unwrap();
        world.backup(["source", "--label", text]).ok();
    };
    write("first");
    let mount = world.mount();
    let latest = |mount: &Mount| fs::read_to_string(mount.path("snapshots/latest/file")).unwrap_or_default();
    assert_eq!(latest(&mount), "first");
    assert_eq!(count(&mount.path("ids")), 1);
    // The kernel knows that this is not there.
    assert!(fs::metadata(mount.path("labels/second")).is_err());
    write("second");
    soon("appearing", || count(&mount.path("ids")) == 2);
    soon("latest", || latest(&mount) == "second");
    soon("its label", || fs::read_to_string(mount.path("labels/second/latest/file")).is_ok());
    assert_eq!(fs::read_to_string(mount.path("labels/first/latest/file")).unwrap(), "first");

    delete(&world, 1);
    soon("disappearing", || count(&mount.path("ids")) == 1 && count(&mount.path("labels")) == 1);
    soon("latest", || latest(&mount) == "first");
    soon("its label", || fs::metadata(mount.path("labels/second")).is_err());
}

#[test]
fn what_is_open_in_a_deleted_snapshot_reads_right_or_fails() {
    needs!(mounts);
    let world = World::with_repository("none");
    let source = world.folder("source");
    let content = noise(20 << 20, 3);
    // One that stays: that all are gone at once is not believed.
    world.backup(["source"]).ok();
    fs::write(source.join("file"), &content).unwrap();
    world.backup(["source"]).ok();
    let mount = world.mount();
    let file = fs::File::open(mount.latest().join("file")).unwrap();
    delete(&world, 1);
    soon("disappearing", || count(&mount.path("ids")) == 1);
    let mut found = Vec::new();
    match std::io::Read::read_to_end(&mut &file, &mut found) {
        Ok(_) => assert!(found == content),
        Err(e) => {
            let code = e.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
            assert!([Some(rustix::io::Errno::IO), Some(rustix::io::Errno::STALE)].contains(&code), "{e}");
            assert!(content.starts_with(&found));
        }
    }
}
