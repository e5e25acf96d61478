//! What a test cannot do without; part of the tests of every crate, and the first module there.
//!
//! A test that this user or this machine cannot run is left out: `needs!` says so in one line, adds its name to the
//! file that `VYKAR_LEFT_OUT` names, and returns. `make test` says at its end how many there were, and `.ci/run`
//! fails where a test was left out as root and as an ordinary user (`scripts/left-out`).
#![allow(dead_code, reason = "no crate needs all of it")]

use std::io::Write;

/// True, and recorded, where a test must be left out. `needs!` asks.
pub fn lacks(need: &str, test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let lacking = match need {
        "root" => !root,
        "user" => root,
        "mounts" if without_mounts() => true,
        "mounts" => {
            require_fuse();
            false
        }
        other => panic!("a test needs {other}: what is that?"),
    };
    if lacking {
        leave_out(need, test);
    }
    lacking
}

/// Says and records that a test is left out.
pub fn leave_out(need: &str, test: &str) {
    // Past the test harness's capture, in one piece.
    let _ = std::io::stderr().write_all(format!("left out, needs {need}: {test}\n").as_bytes());
    if let Some(path) = std::env::var_os("VYKAR_LEFT_OUT") {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{need} {test}\n").as_bytes()).unwrap();
    }
}

/// True where `VYKAR_NO_FUSE=1` says to leave out what mounts; without that, a missing /dev/fuse is a failure.
pub fn without_mounts() -> bool {
    std::env::var_os("VYKAR_NO_FUSE").is_some_and(|value| value == "1")
}

/// Fails with the remedy where nothing can be mounted, and where a test mounts that did not begin with
/// `needs!(mounts)`.
pub fn require_fuse() {
    assert!(
        !without_mounts(),
        "VYKAR_NO_FUSE is set, and a test that mounts does not begin with needs!(mounts)"
    );
    let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    assert!(
        fuse.is_ok(),
        "this test mounts, and /dev/fuse cannot be opened ({}): load the fuse module; a container needs \
         --device /dev/fuse --cap-add SYS_ADMIN; VYKAR_NO_FUSE=1 leaves such tests out",
        fuse.unwrap_err()
    );
    if !rustix::process::geteuid().is_root() {
        require_fusermount();
    }
}

/// Fails with the remedy where only root can mount.
pub fn require_fusermount() {
    let version = std::process::Command::new("fusermount3").arg("--version").output();
    assert!(
        version.is_ok(),
        "this test mounts without root, and that needs fusermount3: apt-get install fuse3"
    );
}

/// Leaves the test out, by returning, where it cannot run: `needs!(root)`, `needs!(user)` who is not root,
/// `needs!(mounts)`; `needs!(disks: found)` for what only the test itself can find out.
macro_rules! needs {
    ($need:ident) => {
        if $crate::needs::lacks(stringify!($need), $crate::needs::this_test!()) {
            return;
        }
    };
    ($need:ident: $there:expr) => {
        if !$there {
            return $crate::needs::leave_out(stringify!($need), $crate::needs::this_test!());
        }
    };
}

/// The name of the test that it is in: a closure's type has it.
macro_rules! this_test {
    () => {
        std::any::type_name_of_val(&|| ()).trim_end_matches("::{{closure}}")
    };
}
pub(crate) use this_test;
