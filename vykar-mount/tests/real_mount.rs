//! Mounts repositories that other programs wrote and looks at them as any program would.
//!
//! Needs FUSE.

#![allow(clippy::unwrap_used, clippy::panic)]

#[macro_use]
#[path = "../../tests/needs.rs"]
mod needs;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use vykar_core::repository::{OpenOptions, Repository};
use vykar_core::storage::LocalBackend;
use vykar_mount::{Mount, MountError, MountOptions};

/// Repositories that other programs wrote, where they can be mounted.
fn fixtures() -> Vec<PathBuf> {
    needs::require_fuse();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let found: Vec<_> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.join("repo/config").exists()).collect();
    assert!(found.len() >= 3, "{}: {found:?}", dir.display());
    found
}

fn open(repo: &Path) -> Arc<Repository> {
    let backend = Arc::new(LocalBackend::new(repo));
    let mut passphrase = || Ok("correct horse".to_owned().into());
    Arc::new(Repository::open(backend, &mut passphrase, &OpenOptions::default()).unwrap())
}

fn mount(repo: &Path, at: &Path) -> Mount {
    let options = MountOptions { repository_path: Some(repo.to_owned()), ..MountOptions::new(at) };
    let log = Arc::new(|line: vykar_mount::LogLine| panic!("{line}"));
    Mount::new(open(repo), &options, log).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn items(fixture: &Path) -> Vec<Value> {
    let text = fs::read_to_string(fixture.join("items.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn path_in(root: &Path, item: &Value) -> PathBuf {
    let path = unhex(item["path_bytes"].as_str().unwrap());
    root.join("ids").join(item["snapshot"].as_str().unwrap()).join(OsStr::from_bytes(&path))
}

fn xattrs(path: &Path) -> HashMap<String, Vec<u8>> {
    let mut buf = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut buf[..]).unwrap();
    let names = String::from_utf8(buf[..len].to_vec()).unwrap();
    let get = |name: &str| {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_owned(), value[..len].to_vec())
    };
    names.split_terminator('\0').map(get).collect()
}

fn check_item(path: &Path, item: &Value) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let number = |key: &str| item[key].as_i64().unwrap();
    let kind = match item["type"].as_str().unwrap() {
        "RegularFile" => libc::S_IFREG,
        "Directory" => libc::S_IFDIR,
        _ => libc::S_IFLNK,
    };
    let at = path.display();
    assert_eq!(found.mode(), kind | (number("mode") as u32 & 0o7777), "{at}");
    assert_eq!(found.mtime() * 1_000_000_000 + found.mtime_nsec(), number("mtime"), "{at}");
    assert_eq!((i64::from(found.uid()), i64::from(found.gid())), (number("uid"), number("gid")), "{at}");
    if kind == libc::S_IFREG {
        assert_eq!(found.len() as i64, number("size"), "{at}");
    }
    if let Some(target) = item.get("target_bytes").and_then(Value::as_str) {
        assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), unhex(target), "{at}");
        assert_eq!(found.len() as usize, unhex(target).len());
    }
    let expected = item["xattrs"].as_object().into_iter().flatten();
    let expected = expected.map(|(k, v)| (k.clone(), unhex(v.as_str().unwrap()))).collect::<HashMap<_, _>>();
    assert_eq!(xattrs(path), expected, "{at}");
}

/// Contents, all with one call of `sha256sum`.
fn check_contents(root: &Path, items: &[Value]) {
    let files: Vec<_> = items.iter().filter(|i| i["sha256"].is_string()).collect();
    for some in files.chunks(100) {
        let output = Command::new("sha256sum").args(some.iter().map(|i| path_in(root, i))).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for (line, item) in text.lines().zip(some) {
            assert_eq!(&line.trim_start_matches('\\')[..64], item["sha256"].as_str().unwrap(), "{line}");
        }
        assert_eq!(text.lines().count(), some.len());
    }
}

fn check_links(root: &Path, items: &[Value]) {
    let mut groups: HashMap<(String, String), Vec<PathBuf>> = HashMap::new();
    for item in items.iter().filter(|i| !i["hardlink"].is_null()) {
        let key = (item["snapshot"].to_string(), item["hardlink"].to_string());
        groups.entry(key).or_default().push(path_in(root, item));
    }
    assert!(!groups.is_empty());
    let mut seen = HashMap::new();
    for (key, paths) in groups {
        let inodes: Vec<_> = paths.iter().map(|p| fs::metadata(p).unwrap()).collect();
        assert!(inodes.iter().all(|m| m.ino() == inodes[0].ino() && m.nlink() == paths.len() as u64));
        assert_eq!(seen.insert(inodes[0].ino(), key), None, "two snapshots share an inode");
    }
}

/// Every path below a snapshot.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        }
    }
}

#[test]
fn fixtures_read_as_they_were_written() {
    needs!(mounts);
    for fixture in fixtures() {
        let dir = tempfile::tempdir().unwrap();
        let mount = mount(&fixture.join("repo"), dir.path());
        let root = mount.path().to_owned();
        let items = items(&fixture);
        assert!(!items.is_empty());
        for item in &items {
            check_item(&path_in(&root, item), item);
        }
        check_contents(&root, &items);
        check_links(&root, &items);
        let mut snapshots: Vec<_> = items.iter().map(|i| i["snapshot"].as_str().unwrap()).collect();
        snapshots.dedup();
        for snapshot in snapshots {
            let mut found = Vec::new();
            walk(&root.join("ids").join(snapshot), &mut found);
            let stored: Vec<_> =
                items.iter().filter(|i| i["snapshot"] == snapshot).map(|i| path_in(&root, i)).collect();
            let made_up = |p: &PathBuf| stored.iter().any(|s| s != p && s.starts_with(p));
            assert!(found.iter().all(|p| stored.contains(p) || made_up(p)), "more than was stored");
            assert!(stored.iter().all(|p| found.contains(p)), "less than was stored");
        }
        assert_eq!(fs::read_dir(root.join("snapshots/latest")).unwrap().count(), {
            let latest = fs::read_link(root.join("snapshots/latest")).unwrap();
            fs::read_dir(root.join("snapshots").join(latest)).unwrap().count()
        });
        let unmounter = mount.unmounter();
        let waiting = std::thread::spawn(move || mount.wait());
        unmounter.unmount().unwrap();
        waiting.join().unwrap().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        println!("{}: {} items", fixture.display(), items.len());
    }
}

#[test]
fn a_mount_is_read_only_and_refuses_to_hide_things() {
    needs!(mounts);
    let fixture = fixtures().pop().unwrap();
    let repo = fixture.join("repo");
    let dir = tempfile::tempdir().unwrap();
    let mount = mount(&repo, dir.path());
    let ids = mount.path().join("ids");
    let name = fs::read_dir(&ids).unwrap().next().unwrap().unwrap().file_name();
    let mut paths = Vec::new();
    walk(&ids.join(&name), &mut paths);
    let file = paths.iter().find(|p| fs::symlink_metadata(p).unwrap().is_file()).unwrap();
    let refused = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    };
    refused(fs::File::options().write(true).open(file).map(drop));
    refused(fs::write(ids.join("new"), ""));
    refused(fs::create_dir(ids.join(&name).join("new")));
    refused(fs::remove_file(file));
    refused(fs::rename(file, ids.join("x")));
    refused(fs::set_permissions(file, fs::metadata(file).unwrap().permissions()));
    let again = Mount::new(open(&repo), &MountOptions::new(dir.path()), Arc::new(|_| {}));
    assert!(matches!(again.err(), Some(MountError::AlreadyMounted { .. })));
    // Busy while it is in use; the second request detaches it.
    let open_file = fs::File::open(file).unwrap();
    let unmounter = mount.unmounter();
    assert!(matches!(unmounter.unmount(), Err(MountError::Busy { .. })));
    assert!(matches!(vykar_mount::unmount(dir.path(), false), Err(MountError::Busy { .. })));
    unmounter.unmount().unwrap();
    unmounter.unmount().unwrap();
    assert!(matches!(vykar_mount::unmount(dir.path(), false), Err(MountError::NotMounted { .. })));
    drop(open_file);
    mount.wait().unwrap();
}

#[test]
fn a_dropped_mount_is_gone() {
    needs!(mounts);
    let fixture = fixtures().pop().unwrap();
    let dir = tempfile::tempdir().unwrap();
    drop(mount(&fixture.join("repo"), dir.path()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The number of the device that is mounted at a path.
fn device_at(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut lines = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.rfind(|fields| fields[4] == path.to_str().unwrap()).unwrap()[2].to_owned()
}

/// Unmounts with the system's own call, behind the back of whoever mounted.
fn unmount_from_outside(path: &Path) {
    let done = rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty());
    if done.is_err() {
        assert!(Command::new("fusermount3").arg("-u").arg(path).status().unwrap().success());
    }
}

#[test]
fn a_mount_that_was_unmounted_from_outside_never_takes_away_its_successor() {
    needs!(mounts);
    let fixture = fixtures().pop().unwrap();
    let repo = fixture.join("repo");
    let dir = tempfile::tempdir().unwrap();
    let first = mount(&repo, dir.path());
    let unmounter = first.unmounter();
    unmount_from_outside(first.path());
    let second = mount(&repo, dir.path());
    // Nearly always the same number, which the system uses again.
    println!("{} and {}", first.device(), second.device());
    unmounter.unmount().unwrap();
    unmounter.unmount().unwrap();
    drop(first);
    vykar_mount::unmount_dead(second.path(), Some(second.device())).unwrap();
    vykar_mount::unmount_dead(second.path(), None).unwrap();
    vykar_mount::unmount_stuck(second.path(), second.device()).unwrap();
    assert_eq!(device_at(second.path()), second.device(), "the second mount was taken away");
    assert_eq!(fs::read_dir(dir.path().join("ids")).unwrap().count(), {
        fs::read_dir(second.path().join("snapshots")).unwrap().count() - 1
    });
}

#[test]
fn a_drop_waits_until_nothing_serves_the_mount_any_more() {
    needs!(mounts);
    let fixture = fixtures().pop().unwrap();
    let repo = fixture.join("repo");
    let dir = tempfile::tempdir().unwrap();
    for unmounted_before in [false, true] {
        let repository = open(&repo);
        let options = MountOptions::new(dir.path());
        let mount = Mount::new(repository.clone(), &options, Arc::new(|_| {})).unwrap();
        fs::read_dir(mount.path().join("ids")).unwrap().for_each(|entry| {
            fs::read_dir(entry.unwrap().path()).unwrap().count();
        });
        assert!(Arc::strong_count(&repository) > 1);
        if unmounted_before {
            unmount_from_outside(mount.path());
        }
        drop(mount);
        assert_eq!(Arc::strong_count(&repository), 1, "threads still hold the repository");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_dropped_mount_that_is_in_use_is_detached_and_served_until_it_is_not() {
    needs!(mounts);
    let fixture = fixtures().pop().unwrap();
    let repo = fixture.join("repo");
    let dir = tempfile::tempdir().unwrap();
    let repository = open(&repo);
    let mount = Mount::new(repository.clone(), &MountOptions::new(dir.path()), Arc::new(|_| {})).unwrap();
    let ids = fs::File::open(mount.path().join("ids")).unwrap();
    drop(mount);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let name = items(&fixture)[0]["snapshot"].as_str().unwrap().to_owned();
    let flags = rustix::fs::OFlags::RDONLY;
    let snapshot = rustix::fs::openat(&ids, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
    assert!(rustix::fs::Dir::new(snapshot).unwrap().count() > 2);
    drop(ids);
    let began = std::time::Instant::now();
    while Arc::strong_count(&repository) > 1 {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "it is served by nobody's wish");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
