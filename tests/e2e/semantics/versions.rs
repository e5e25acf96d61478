//! All versions of a file in one folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::changes::{delete, soon};
use crate::compare::xattrs;
use crate::harness::{Mount, World, silent};
use crate::tree::set_mode;

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names of the snapshots by time, and what `versions/PATH` has of them.
fn versions(mount: &Mount, path: &str) -> (Vec<String>, Vec<String>) {
    let times = names(&mount.path("snapshots"));
    let versions = names(&mount.path("versions").join(path));
    (times.clone(), versions.into_iter().filter(|name| times.contains(name)).collect())
}

#[test]
fn a_file_is_a_folder_of_its_versions_and_new_ones_appear() {
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    let source = world.folder("source");
    fs::create_dir(source.join("dir")).unwrap();
    let write = |name: &str, text: &str| fs::write(source.join(name), text).unwrap();
    write("dir/file", "first\n");
    write("dir/gone", "gone\n");
    write("turns", "a file");
    std::os::unix::fs::symlink("dir/file", source.join("link")).unwrap();
    set_mode(&source.join("dir/file"), 0o640);
    silent(Command::new("setfattr").args(["-n", "user.k", "-v", "v"]).arg(source.join("dir/file")));
    world.backup(["source"]).ok();
    fs::remove_file(source.join("dir/gone")).unwrap();
    fs::remove_file(source.join("turns")).unwrap();
    fs::create_dir(source.join("turns")).unwrap();
    write("turns/below", "below");
    world.backup(["source"]).ok();
    write("dir/file", "second\n");
    world.backup(["source"]).ok();

    let mount = world.mount();
    assert_eq!(names(&mount.path("versions")), ["dir", "link", "turns"]);
    assert_eq!(names(&mount.path("versions/dir")), ["file", "gone"]);
    let (times, found) = versions(&mount, "dir/file");
    assert_eq!(found, [&times[0][..], &times[2], "latest"]);
    let folder = mount.path("versions/dir/file");
    let (first, third) = (folder.join(&times[0]), folder.join(&times[2]));
    let diff = Command::new("diff").args([&first, &third]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&diff.stdout), "1c1\n< first\n---\n> second\n");
    assert_eq!(fs::read_link(folder.join("latest")).unwrap().to_str(), Some(&times[2][..]));
    let there = mount.path("snapshots").join(&times[0]).join("dir/file");
    let look = |path: &Path| {
        let m = fs::symlink_metadata(path).unwrap();
        (m.mode(), m.len(), m.mtime_nsec(), m.blocks(), m.uid())
    };
    assert_eq!(look(&first), look(&there));
    assert_eq!((xattrs(&first), xattrs(&first).len()), (xattrs(&there), 1));
    assert_eq!(versions(&mount, "turns").1, [&times[0][..], "latest"]);
    assert_eq!(fs::read(mount.path("versions/turns/below/latest")).unwrap(), b"below");
    assert_eq!(fs::read(mount.path("versions/turns/latest")).unwrap(), b"a file");
    assert_eq!(fs::read(mount.path("versions/dir/gone/latest")).unwrap(), b"gone\n");
    assert_eq!(
        fs::read_link(mount.path("versions/link").join(&times[0])).unwrap().to_str(),
        Some("dir/file")
    );

    write("dir/file", "third\n");
    world.backup(["source"]).ok();
    soon("a new version", || versions(&mount, "dir/file").1.len() == 4);
    assert_eq!(fs::read(folder.join("latest")).unwrap(), b"third\n");
    assert_eq!(fs::read(&first).unwrap(), b"first\n");
    delete(&world, 0);
    soon("the end of what it alone had", || !mount.path("versions/dir/gone").exists());
    let (times, found) = versions(&mount, "dir/file");
    assert_eq!(found, times, "the next snapshot has what the first had");
    assert_eq!(fs::read(folder.join(&times[0])).unwrap(), b"first\n");
    assert_eq!(world.mount_log(), "");
}

#[test]
fn a_walk_through_versions_ends_and_a_remount_shows_the_same() {
    needs!(mounts);
    let world = World::with_repository("chacha20poly1305");
    let source = world.folder("source");
    for n in 0..6 {
        for file in (n..40).step_by(n + 1) {
            let at = source.join(format!("{}/{}", file % 7, file % 3));
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(format!("f{file}")), format!("{file} in backup {n}")).unwrap();
        }
        world.backup(["source"]).ok();
    }
    let walk = |mount: &Mount| {
        let mut find = Command::new("find");
        find.args(["versions", "-printf", "%i %y %p %l\n"]).current_dir(mount.path(""));
        let output = find.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        // A `latest` has another number after a remount.
        let line = |line: &str| match line.contains("/latest ") {
            true => line.split_once(' ').unwrap().1.to_owned(),
            false => line.to_owned(),
        };
        text.lines().map(line).collect::<Vec<_>>()
    };
    let mount = world.mount();
    let found = walk(&mount);
    assert!(found.len() > 150, "{found:#?}");
    assert_eq!(walk(&mount), found);
    silent(Command::new("cp").args(["-a"]).arg(mount.path("versions")).arg(world.path("copy")));
    let arguments = ["-r", "--no-dereference"];
    silent(Command::new("diff").args(arguments).args([mount.path("versions"), world.path("copy")]));
    mount.unmount(&world);
    assert_eq!(walk(&world.mount()), found);
    assert_eq!(world.mount_log(), "");
}
