//! `mount -t fuse.vykar` and fstab: the program under the names that mount(8) calls it by.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::harness::{Mount, Run, VYKAR, World, eventually, is_mounted, silent};
use super::processes::{kill, runs, server_of, watchdog_of};

/// Exit codes of mount(8).
const USAGE: i32 = 1;
const FAILED: i32 = 32;

/// A repository with a snapshot, and its passphrase in the file `secret`, as a machine that boots has it:
/// nothing in the environment, and no terminal.
fn world() -> World {
    let world = World::with_repository("aes256gcm");
    fs::write(world.folder("source").join("file"), b"kept").unwrap();
    world.backup(["source"]).ok();
    fs::write(world.path("secret"), format!("{}\n", world.passphrase)).unwrap();
    for name in ["mount.fuse.vykar", "mount.vykar"] {
        symlink(VYKAR, world.path(name)).unwrap();
    }
    world
}

/// Calls the helper as mount(8) does: by its path, with what it was given and what it made of that.
fn call(world: &World, name: &str, args: &[&OsStr]) -> Run {
    let mut command = Command::new(world.path(name));
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir(world.path("")).stdin(Stdio::null());
    world.finish(command)
}

/// Its options, with those that every call here needs.
fn options(world: &World, more: &str) -> String {
    let path = |name: &str| world.path(name).into_os_string().into_string().unwrap();
    format!("rw,passphrase_file={},cache_dir={}{more}", path("secret"), path("cache"))
}

fn mount(world: &World, name: &str, at: &Path, more: &str) -> Run {
    let options = options(world, more);
    call(world, name, &[world.repo.as_os_str(), at.as_os_str(), "-o".as_ref(), options.as_ref()])
}

fn reads(at: &Path) {
    assert_eq!(fs::read(at.join("snapshots/latest/file")).unwrap(), b"kept");
}

#[test]
fn the_helper_mounts_in_the_background_and_says_nothing() {
    needs!(mounts);
    let world = world();
    let at = world.folder("at");
    for name in ["mount.fuse.vykar", "mount.vykar"] {
        let more = ",nosuid,nodev,noatime,_netdev,nofail,x-systemd.automount,cache_size=32,threads=2";
        let run = mount(&world, name, &at, more).ok();
        assert_eq!((run.out().as_str(), run.stderr.as_str()), ("", ""));
        let mount = Mount::adopt(at.clone());
        reads(&at);
        assert!(runs(watchdog_of(server_of(&at))));
        mount.unmount(&world);
    }
    // As findmnt shows it, so that `mount -a` knows it again; and talkative.
    let spec = format!("vykar:{}", world.repo.display());
    let given = options(&world, "");
    let args = [spec.as_ref(), at.as_os_str(), "-v".as_ref(), "-n".as_ref(), "-o".as_ref(), given.as_ref()];
    let run = call(&world, "mount.fuse.vykar", &args).ok();
    assert!(run.out().contains(at.to_str().unwrap()), "{run}");
    let mount = Mount::adopt(at.clone());
    reads(&at);
    kill(server_of(&at));
    eventually("unmounting after a kill", || !is_mounted(&at));
    drop(mount);
}

#[test]
fn options_of_mount_are_those_of_the_helper() {
    needs!(mounts);
    let world = world();
    let at = world.folder("at");
    let pass = |text: &str| format!("passcommand=\"{text}\",cache_dir={}", world.path("cache").display());
    // A comma in a value, and a flag.
    let given = pass("cut -d, -f1- secret") + ",noexec";
    let args = [world.repo.as_os_str(), at.as_os_str(), "-o".as_ref(), given.as_ref()];
    call(&world, "mount.fuse.vykar", &args).ok();
    let mount = Mount::adopt(at.clone());
    let flags = rustix::fs::statvfs(&at).unwrap().f_flag;
    let wanted =
        ["RDONLY", "NOSUID", "NODEV"].map(|name| rustix::fs::StatVfsMountFlags::from_name(name).unwrap());
    assert!(wanted.iter().all(|flag| flags.contains(*flag)), "{flags:?}");
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap();
    assert!(line.contains("noexec") && line.contains(" fuse.vykar "), "{line}");
    mount.unmount(&world);
}

#[test]
fn what_goes_wrong_has_the_exit_codes_of_mount() {
    let world = world();
    let at = world.folder("at");
    mount(&world, "mount.vykar", &at, ",cachesize=5").exits(USAGE).one_message().says("cache_size");
    mount(&world, "mount.vykar", &at, ",cache_size=some").exits(USAGE).one_message().says("some");
    mount(&world, "mount.vykar", &world.path("absent"), "").exits(FAILED).one_message().says("absent");
    call(&world, "mount.vykar", &[world.repo.as_os_str()]).exits(USAGE);
    let repo = world.repo.as_os_str();
    // Without a passphrase there is nobody to ask.
    let none = call(&world, "mount.vykar", &[repo, at.as_os_str()]).exits(FAILED).one_message();
    assert!(none.stderr.contains("passphrase"), "{none}");
    fs::write(world.path("secret"), "wrong").unwrap();
    mount(&world, "mount.vykar", &at, "").exits(FAILED).one_message().says("passphrase");
    fs::remove_file(world.path("secret")).unwrap();
    mount(&world, "mount.vykar", &at, "").exits(FAILED).one_message().says("secret");
    assert!(!is_mounted(&at));
    // Sloppy leaves out what it does not know; fake does not mount.
    let fake = ["-s", "-f", "-o", "ro,cachesize=5"].map(OsStr::new);
    call(&world, "mount.vykar", &[&[repo, at.as_os_str()][..], &fake].concat()).ok();
    assert!(!is_mounted(&at));
}

#[test]
fn a_passphrase_file_serves_all_commands() {
    let world = world();
    let with = |file: &str| {
        let mut command = world.command();
        command.env_remove("VYKAR_PASSPHRASE").arg("-R").arg(&world.repo);
        command.args(["list", "--passphrase-file", file]);
        world.finish(command)
    };
    with("secret").ok();
    fs::write(world.path("secret"), &world.passphrase).unwrap();
    with("secret").ok();
    fs::write(world.path("secret"), format!("{}\r\n", world.passphrase)).unwrap();
    with("secret").ok();
    with("absent").exits(super::harness::exit::PASSPHRASE).one_message().says("absent");
    with("/dev/zero").exits(super::harness::exit::PASSPHRASE).one_message().says("/dev/zero");
    with(".").exits(super::harness::exit::PASSPHRASE).one_message();
}

#[test]
fn the_helper_mounts_in_another_namespace() {
    needs!(root);
    needs!(mounts);
    let world = world();
    let at = world.folder("at");
    let mut other = Command::new("unshare").args(["-m", "sleep", "300"]).spawn().unwrap();
    let file = PathBuf::from(format!("/proc/{}/ns/mnt", other.id()));
    eventually("another namespace", || {
        fs::read_link(&file).is_ok_and(|other| other != fs::read_link("/proc/self/ns/mnt").unwrap())
    });
    let given = options(&world, "");
    let args = [world.repo.as_os_str(), at.as_os_str(), "-N".as_ref(), file.as_os_str(), "-o".as_ref()];
    call(&world, "mount.fuse.vykar", &[&args[..], &[given.as_ref()]].concat()).ok();
    assert!(!is_mounted(&at));
    let there = fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap();
    assert!(there.contains(at.to_str().unwrap()), "{there}");
    let server = server_of(&at);
    // The namespace ends with the last process in it.
    kill(server);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn mount_and_fstab_find_the_helper() {
    needs!(root);
    needs!(mounts);
    let world = world();
    let at = world.folder("at");
    let helpers = world.folder("sbin");
    symlink(VYKAR, helpers.join("mount.fuse.vykar")).unwrap();
    let fstab = format!(
        "vykar:{} {} fuse.vykar {},x-test 0 0\n",
        world.repo.display(),
        at.display(),
        options(&world, "").replace("rw,", "")
    );
    fs::write(world.path("fstab"), fstab).unwrap();
    let script = world.path("script");
    // In mounts of its own, where the folder that mount(8) looks for helpers in is another one.
    fs::write(
        &script,
        format!(
            "set -e\n\
             mount --make-rprivate /\n\
             mount --bind sbin \"$(readlink -f /sbin)\"\n\
             mount -t fuse.vykar '{repo}' '{at}' -o '{options}'\n\
             cat '{at}/snapshots/latest/file'\n\
             findmnt -n -o FSTYPE '{at}'\n\
             umount '{at}'\n\
             mount -T fstab -a\n\
             mount -T fstab -a\n\
             cat '{at}/snapshots/latest/file'\n\
             grep -c ' {at} ' /proc/self/mounts\n\
             umount '{at}'\n\
             ! mount -t fuse.vykar '{repo}' '{at}' -o nonsense\n",
            repo = world.repo.display(),
            at = at.display(),
            options = options(&world, "")
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh"]).arg(&script).current_dir(world.path("")).stdin(Stdio::null());
    // Whoever runs the tests may have one set, which would come before the file that the options name.
    shell.env_remove("VYKAR_PASSPHRASE");
    let run = world.finish(shell).ok();
    assert_eq!(run.out(), "keptfuse.vykar\nkept1\n");
    assert!(run.stderr.contains("nonsense"), "{run}");
    silent(Command::new("test").arg("!").arg("-e").arg(at.join("snapshots")));
}
