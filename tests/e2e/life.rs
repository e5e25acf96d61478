//! How mounts end: by a signal, by an unmount from outside, by a kill, as root and as nobody.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::platform::own_mounts;
use super::harness::{MOUNTS, Mount, Run, World, eventually, exit, is_mounted, is_root, silent, wait};
use super::processes::{
    Foreground, children_of, environment, kill, memory, name, open_files, runs, server_of, status, users,
    watchdog_of,
};

const SOON: Duration = Duration::from_secs(20);

fn world(nobody: bool) -> World {
    let mut world = World::with_repository("aes256gcm");
    fs::write(world.folder("source").join("file"), b"kept").unwrap();
    world.backup(["source"]).ok();
    if nobody {
        world.become_nobody();
    }
    world
}

/// Reads a file of the mount, as the user who mounted.
fn read(world: &World, at: &Path) -> Run {
    let mut cat = world.tool("cat");
    cat.arg(at.join("snapshots/latest/file"));
    world.finish(cat)
}

fn umount(world: &World, at: &Path, args: &[&str]) -> Run {
    let mut command = world.command();
    command.arg("umount").arg(at).args(args);
    world.finish(command)
}

/// Mounts in the background on a folder of this name.
fn background(world: &World, name: &str) -> (Mount, std::path::PathBuf) {
    let at = world.mountpoint(name);
    world.run([OsStr::new("mount"), at.as_os_str(), "--background".as_ref()]).ok();
    assert!(is_mounted(&at));
    (Mount::adopt(at.clone()), at)
}

/// The place can be mounted on again, and shows what it should.
fn mounts_again(world: &World, name: &str) {
    let (mount, at) = background(world, name);
    assert_eq!(read(world, &at).ok().stdout, b"kept");
    mount.unmount(world);
}

#[test]
fn a_mount_whose_process_is_killed_unmounts_itself() {
    needs!(mounts);
    for nobody in users() {
        let world = world(nobody);
        let mut front = Foreground::start(&world, "front", &[]);
        let (_mount, back) = background(&world, "back");
        let servers = [(front.pid(), front.at.clone()), (server_of(&back), back)];
        for (server, at) in servers {
            assert_eq!(read(&world, &at).ok().stdout, b"kept");
            let watchdog = watchdog_of(server);
            kill(server);
            eventually("unmounting after a kill", || !is_mounted(&at));
            eventually("the end of the watchdog", || !runs(watchdog));
        }
        front.child.wait().unwrap();
        for name in ["front", "back"] {
            mounts_again(&world, name);
        }
    }
}

#[test]
fn a_killed_mount_that_is_in_use_is_detached() {
    needs!(mounts);
    let world = world(false);
    let front = Foreground::start(&world, "front", &[]);
    let open = fs::File::open(front.mount.path("snapshots/latest/file")).unwrap();
    kill(front.pid());
    eventually("unmounting after a kill", || !is_mounted(&front.at));
    drop(open);
}

#[test]
fn what_a_kill_of_all_processes_leaves_is_cleared_by_umount_and_mounted_again() {
    needs!(mounts);
    for nobody in users() {
        let world = world(nobody);
        let mut front = Foreground::start(&world, "front", &[]);
        let watchdog = watchdog_of(front.pid());
        kill(watchdog);
        eventually("the end of the watchdog", || !runs(watchdog));
        assert_eq!(read(&world, &front.at).ok().stdout, b"kept", "it serves without its watchdog");
        kill(front.pid());
        front.child.wait().unwrap();
        assert!(is_mounted(&front.at), "nobody could unmount it, and it is gone");
        // What was read once, the kernel still has; everything else is an error at once.
        let mut stat = world.tool("stat");
        stat.arg("-f").arg(&front.at);
        world.finish(stat).exits(1).says("not connected");

        let again = world.run([OsStr::new("mount"), front.at.as_os_str(), "--background".as_ref()]);
        let remedy = format!("vykar umount {}", front.at.display());
        again.exits(exit::FAILURE).one_message().says(&remedy);
        let run = umount(&world, &front.at, &[]).ok();
        assert_eq!(run.stderr, "");
        assert!(!is_mounted(&front.at));
        mounts_again(&world, "front");
    }
}

#[test]
fn an_unmount_ends_all_processes_silently() {
    needs!(mounts);
    for nobody in users() {
        let world = world(nobody);
        let by_command = |at: &Path| drop(umount(&world, at, &[]).ok());
        let by_system = |at: &Path| {
            let mut tool = world.tool("fusermount3");
            tool.arg("-u").arg(at);
            world.finish(tool).ok();
        };
        let by_signal = |at: &Path| kill_process(server_of(at), Signal::TERM).unwrap();
        let ways: [&dyn Fn(&Path); 3] = [&by_command, &by_system, &by_signal];
        for (n, way) in ways.iter().enumerate() {
            let mut front = Foreground::start(&world, &format!("front-{n}"), &[]);
            let (_mount, back) = background(&world, &format!("back-{n}"));
            let behind = server_of(&back);
            let watchdogs = [watchdog_of(front.pid()), watchdog_of(behind)];
            way(&front.at);
            way(&back);
            let ended = wait(&mut front.child, SOON).expect("it should end when it is unmounted");
            assert!(ended.success(), "{ended}: {}", front.said());
            assert_eq!(front.said(), "");
            eventually("the end in the background", || !runs(behind));
            eventually("the end of the watchdogs", || !watchdogs.iter().any(|pid| runs(*pid)));
            assert!(!is_mounted(&front.at) && !is_mounted(&back));
        }
    }
}

#[test]
fn a_watchdog_outlives_the_signals_that_end_a_mount_and_holds_no_secret() {
    needs!(mounts);
    let world = world(false);
    let at = world.folder("at");
    // As a shell that has left something open.
    let mut shell = world.with_environment(Command::new("sh"));
    let line = format!("exec 9</etc/passwd; exec '{}' -R repo mount at", super::harness::VYKAR);
    let mut child = shell.args(["-c", &line]).stdout(Stdio::null()).spawn().unwrap();
    let _mount = Mount::adopt(at.clone());
    eventually("mounting", || is_mounted(&at) && read(&world, &at).code == 0);
    let server = Pid::from_child(&child);
    let watchdog = watchdog_of(server);
    eventually("settling", || open_files(watchdog).len() == 3);
    assert_eq!(open_files(watchdog)[1..], [Path::new("/dev/null"), Path::new("/dev/null")]);
    let environment = environment(watchdog);
    assert!(!environment.windows(5).any(|word| word == b"VYKAR"), "it has the passphrase");
    assert!(memory(watchdog, "RssAnon") < 2048, "{} KiB", memory(watchdog, "RssAnon"));
    assert_eq!(rustix::process::getsid(Some(watchdog)), Ok(watchdog), "Ctrl-C would end it");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        kill_process(watchdog, signal).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(runs(watchdog), "it ended before the mount: {:?}", status(watchdog, "State"));
    kill(server);
    child.wait().unwrap();
    eventually("unmounting after a kill", || !is_mounted(&at));
}

#[test]
fn a_mount_that_came_to_the_same_place_stays_when_the_first_process_ends() {
    needs!(mounts);
    for signal in [Signal::KILL, Signal::TERM] {
        let world = world(false);
        let mut first = Foreground::start(&world, "at", &[]);
        let watchdog = watchdog_of(first.pid());
        // Unmounted behind its back: it cannot run and so does not know.
        kill_process(first.pid(), Signal::STOP).unwrap();
        umount(&world, &first.at, &[]).ok();
        let (mount, at) = background(&world, "at");
        kill_process(first.pid(), signal).unwrap();
        kill_process(first.pid(), Signal::CONT).unwrap();
        wait(&mut first.child, SOON).expect("it should end: its mount is gone");
        eventually("the end of the watchdog", || !runs(watchdog));
        assert_eq!(read(&world, &at).ok().stdout, b"kept", "the second mount was taken away");
        mount.unmount(&world);
    }
}

/// Something that uses the mount.
struct User(Child);

impl User {
    /// A process that stands in a folder of the mount.
    fn in_folder(world: &World, at: &Path) -> Self {
        let mut shell = world.tool("sh");
        shell.args(["-c", "cd \"$1/snapshots/latest\" && exec sleep 300", "sh"]).arg(at);
        let user = User(shell.stdin(Stdio::null()).spawn().unwrap());
        eventually("entering", || {
            let folder = fs::read_link(format!("/proc/{}/cwd", user.0.id()));
            folder.is_ok_and(|folder| folder.starts_with(at))
        });
        user
    }

    /// A process that has a file of the mount open.
    fn with_file(world: &World, at: &Path) -> Self {
        let mut shell = world.tool("sh");
        shell.args(["-c", "exec sleep 300 <\"$1/snapshots/latest/file\"", "sh"]).arg(at);
        let user = User(shell.spawn().unwrap());
        eventually("opening", || {
            let file = fs::read_link(format!("/proc/{}/fd/0", user.0.id()));
            file.is_ok_and(|file| file.starts_with(at))
        });
        user
    }

    fn named(&self) -> String {
        format!("{} (sleep)", self.0.id())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_busy_unmount_names_who_uses_the_mount_and_what_to_do() {
    needs!(mounts);
    for nobody in users() {
        let world = world(nobody);
        let (mount, at) = background(&world, "at");
        let mut users = vec![User::in_folder(&world, &at), User::with_file(&world, &at)];
        let run = umount(&world, &at, &[]).exits(exit::FAILURE).one_message().says("busy").says("--lazy");
        for user in &users {
            assert!(run.stderr.contains(&user.named()), "{run} should name {}", user.named());
        }
        assert!(!run.stderr.contains("more"), "{run}");
        users.extend((0..5).map(|_| User::in_folder(&world, &at)));
        umount(&world, &at, &[]).exits(exit::FAILURE).one_message().says(" and 2 more");
        assert_eq!(read(&world, &at).ok().stdout, b"kept", "a refused unmount does no harm");

        let server = server_of(&at);
        umount(&world, &at, &["--lazy"]).ok();
        assert!(!is_mounted(&at));
        assert!(runs(server), "those who use it are served");
        drop(users);
        eventually("the end of the last user", || !runs(server));
        drop(mount);
    }
}

#[test]
fn a_mapped_file_and_a_mount_inside_keep_a_mount_busy_and_are_named() {
    needs!(root);
    needs!(mounts);
    let world = World::with_repository("aes256gcm");
    fs::create_dir_all(world.folder("source").join("folder")).unwrap();
    // A program in the mount, that runs: its file is mapped.
    fs::copy("/bin/sleep", world.path("source/sleep")).unwrap();
    world.backup(["source"]).ok();
    let (mount, at) = background(&world, "at");
    let running = User(Command::new(mount.latest().join("sleep")).arg("300").spawn().unwrap());
    umount(&world, &at, &[]).exits(exit::FAILURE).says(&running.named());
    drop(running);
    let inside = mount.latest().join("folder");
    super::harness::silent(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&inside));
    let run = umount(&world, &at, &[]).exits(exit::FAILURE).one_message();
    assert!(run.stderr.contains(&format!("a mount on {}", inside.display())), "{run}");
    super::harness::silent(Command::new("umount").arg(&inside));
    mount.unmount(&world);
}

#[test]
fn a_signal_at_a_busy_mount_names_who_uses_it_and_a_second_one_detaches() {
    needs!(mounts);
    for (nobody, signal) in users().into_iter().zip([Signal::INT, Signal::TERM]) {
        let world = world(nobody);
        let mut front = Foreground::start(&world, "at", &[]);
        let user = User::in_folder(&world, &front.at);
        kill_process(front.pid(), signal).unwrap();
        eventually("an explanation", || front.said().contains("busy") && front.said().lines().count() == 2);
        assert!(front.said().contains(&user.named()), "{}", front.said());
        assert!(front.said().contains("second"), "{}", front.said());
        assert!(is_mounted(&front.at), "the first signal must not disturb who uses it");
        kill_process(front.pid(), signal).unwrap();
        eventually("detaching", || !is_mounted(&front.at));
        drop(user);
        let ended = wait(&mut front.child, SOON).expect("it should end when it is not used any more");
        assert!(ended.success(), "{ended}");
    }
}

#[test]
fn nothing_in_a_mount_runs_with_noexec() {
    needs!(mounts);
    for nobody in users() {
        let mut world = World::with_repository("none");
        fs::copy("/bin/true", world.folder("source").join("program")).unwrap();
        world.backup(["source"]).ok();
        if nobody {
            world.become_nobody();
        }
        for (name, args, code) in [("exec", &[][..], 0), ("noexec", &["--noexec"], 126)] {
            let mut front = Foreground::start(&world, name, args);
            let mut shell = world.tool("sh");
            shell.arg("-c").arg(front.at.join("snapshots/latest/program"));
            world.finish(shell).exits(code);
            umount(&world, &front.at, &[]).ok();
            wait(&mut front.child, SOON).unwrap();
        }
    }
}

#[test]
fn letting_others_in_without_permission_is_explained() {
    needs!(mounts);
    users();
    let world = world(is_root());
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        // This machine allows it. Only root can let this thread and what it starts see another file.
        needs!(root);
        own_mounts().unwrap();
        silent(Command::new("mount").args(["--make-rprivate", "/"]));
        let empty = world.path("fuse.conf");
        fs::write(&empty, b"").unwrap();
        silent(Command::new("mount").arg("--bind").arg(&empty).arg("/etc/fuse.conf"));
    }
    let at = world.mountpoint("at");
    let run = world.run([OsStr::new("mount"), at.as_os_str(), "--allow-other".as_ref()]);
    run.exits(exit::FAILURE).one_message().says("user_allow_other").says("/etc/fuse.conf");
    assert!(!is_mounted(&at));
}

#[test]
fn what_goes_wrong_in_the_background_is_said_with_its_exit_code() {
    needs!(mounts);
    for nobody in users() {
        let mut world = world(nobody);
        let args = |at: &Path| ["mount".into(), at.as_os_str().to_owned(), "--background".into()];
        let at = world.mountpoint("at");
        world.run(args(&world.path("absent"))).exits(exit::FAILURE).one_message().says("absent");
        fs::write(world.mountpoint("full").join("x"), b"").unwrap();
        world.run(args(&world.path("full"))).exits(exit::FAILURE).one_message().says("not empty");
        world.run(args(&world.path("full/x"))).exits(exit::FAILURE).one_message().says("full/x");
        let (mount, mounted) = background(&world, "mounted");
        world.run(args(&mounted)).exits(exit::FAILURE).one_message().says("mounted already");
        mount.unmount(&world);
        let repo = std::mem::replace(&mut world.repo, "nothing here".into());
        world.run(args(&at)).exits(exit::NO_REPOSITORY).one_message().says("nothing here");
        world.repo = repo;
        world.passphrase = "wrong".into();
        world.run(args(&at)).exits(exit::PASSPHRASE).one_message().says("passphrase");
        assert!(!is_mounted(&at));
    }
}

#[test]
fn a_background_process_that_is_killed_before_it_is_ready_is_reported() {
    let world = world(false);
    let at = world.folder("at");
    let mut command = world.command();
    command.env_remove("VYKAR_PASSPHRASE").arg("-R").arg(&world.repo).arg("mount").arg(&at);
    command.args(["--background", "--passcommand", "exec sleep 300"]).stderr(Stdio::piped());
    let mut caller = command.spawn().unwrap();
    let pid = Pid::from_child(&caller);
    let below = |pid: &Pid| children_of(*pid);
    let asks = |child: &Pid| below(child).iter().any(|pid| name(*pid) == "sleep");
    eventually("the pass command", || below(&pid).iter().any(asks));
    let child = below(&pid)[0];
    let rest = below(&child);
    kill(child);
    let ended = wait(&mut caller, SOON).expect("it should end with its child");
    rest.into_iter().filter(|pid| runs(*pid)).for_each(kill);
    let said = std::io::read_to_string(caller.stderr.take().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(exit::FAILURE), "{said}");
    assert!(said.contains("killed"), "{said}");
}

#[test]
fn a_mountpoint_in_the_repository_or_around_it_is_refused_by_any_path() {
    let world = World::new();
    let outer = world.folder("outer");
    let repo = outer.join("repo");
    let vykar = |args: &[&OsStr]| {
        let mut command = world.command();
        command.args(args);
        world.finish(command)
    };
    vykar(&["-R".as_ref(), repo.as_os_str(), "init".as_ref(), "--encryption=none".as_ref()]).ok();
    fs::create_dir(repo.join("empty")).unwrap();
    std::os::unix::fs::symlink("outer", world.path("link")).unwrap();
    std::os::unix::fs::symlink("outer/repo/empty", world.path("into")).unwrap();
    for by in ["outer/repo", "link/repo", "link/../outer/repo"] {
        for at in ["outer", "link", "into", "outer/repo/empty", "link/repo/empty", "."] {
            let run =
                vykar(&["-R".as_ref(), by.as_ref(), "mount".as_ref(), at.as_ref(), "--background".as_ref()]);
            run.exits(exit::FAILURE).one_message().says("inside the repository");
            assert!(!is_mounted(&fs::canonicalize(world.path(at)).unwrap()));
        }
    }
}

#[test]
fn a_repository_of_any_name_is_mounted_and_shown_as_the_source() {
    needs!(mounts);
    let names: [&[u8]; 7] = [
        b"a,b=c,,",
        b"a b\ttab",
        b"back\\slash\\,",
        b"new\nline",
        b"\"quo'te\"",
        "n\u{e4}me \u{1f4be}#".as_bytes(),
        b"not utf-8 \xff",
    ];
    for nobody in users() {
        let mut world = world(nobody);
        for (n, name) in names.iter().enumerate() {
            let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
            let repo = world.path("").join(name);
            fs::rename(&world.repo, &repo).unwrap();
            world.repo = repo;
            let (mount, at) = background(&world, &format!("at-{n}"));
            assert_eq!(read(&world, &at).ok().stdout, b"kept");
            let wanted = format!("vykar:{}", fs::canonicalize(&world.repo).unwrap().display());
            assert_eq!(source_of(&at), wanted, "{name:?}");
            mount.unmount(&world);
        }
    }
}

/// What the kernel shows as the source of the mount on a folder.
fn source_of(at: &Path) -> String {
    let table = fs::read_to_string(MOUNTS).unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == at.to_str()).expect("a mount");
    let escaped = line.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap();
    let mut out = Vec::new();
    let mut rest = escaped.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a, b, c, ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn a_mount_of_nobody_is_for_nobody() {
    needs!(root);
    needs!(mounts);
    users();
    let world = world(true);
    let (mount, at) = background(&world, "at");
    assert_eq!(read(&world, &at).ok().stdout, b"kept");
    assert_eq!(fs::read_dir(&at).unwrap_err().kind(), ErrorKind::PermissionDenied);
    // Root takes it away all the same.
    let mut umount = Command::new(super::harness::VYKAR);
    umount.arg("umount").arg(&at);
    world.finish(umount).ok();
    assert!(!is_mounted(&at));
    drop(mount);
}
