"""Mounts, and the folder of a run. Whatever is mounted here is unmounted here, whatever happens."""

import contextlib
import ctypes
import os
import pathlib
import subprocess
import tempfile
import time

from bench_common.processes import SCRIPT, Failure, run, say, tail

MOUNT_SECONDS = 120
"""How long a program may take until its mount is there."""
UNMOUNT_SECONDS = 20
"""How long an unmounted program may take to end by itself."""
SETTLE_SECONDS = 0.3
"""After a mount appears: time for its program to finish what it does first, such as raising the read-ahead."""
NEW_MOUNT_NAMESPACE = 0x00020000
"""CLONE_NEWNS of <sched.h>."""


def own_mounts():
    """Gives this process a mount namespace of its own: what it mounts is nobody else's."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNT_NAMESPACE):
        raise Failure(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")
    run(["mount", "--make-rprivate", "/"])


@contextlib.contextmanager
def fuse_for_users(folder):
    """Lets everybody open /dev/fuse, as is usual, in this mount namespace where the machine does not.

    The machine's own device stays as it is: another one, in `folder`, is bound over it.
    """
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        yield
        return
    devices = folder / "dev"
    devices.mkdir(exist_ok=True)
    try:
        run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "vykar-bench", devices])
        run(["mknod", "-m", "666", devices / "fuse", "c", "10", "229"])
        run(["mount", "--bind", devices / "fuse", "/dev/fuse"])
        yield
    finally:
        unmount("/dev/fuse")
        unmount(devices)


def device_of(mountpoint):
    """The device number, such as 0:53, of what is mounted on a path; None if nothing is."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split()
            if fields[4] == str(mountpoint):
                found = fields[2]
    return found


@contextlib.contextmanager
def mounted(program, data, mountpoint):
    """A mount of some data by a program (see programs.py) for the length of a `with`. Gives its process or None."""
    with tempfile.TemporaryFile() as log:
        yield from serve(program, data, mountpoint, log)


def serve(program, data, mountpoint, log):
    """Mounts, waits, yields the process, unmounts. What the process says goes to the open file `log`."""
    process = None
    try:
        process = program.start(data, mountpoint, log)
        wait_until_mounted(process, mountpoint, log)
        program.after_mount(mountpoint)
        time.sleep(SETTLE_SECONDS)
        yield process
    finally:
        unmount(mountpoint)
        if process is not None:
            finish(process, mountpoint)


def wait_until_mounted(process, mountpoint, log):
    """Waits until something is mounted on a path. A Failure if `process`, if there is one, ends before."""
    deadline = time.monotonic() + MOUNT_SECONDS
    while device_of(mountpoint) is None:
        if process is not None and process.poll() is not None:
            log.seek(0)
            raise Failure(f"nothing mounted on {mountpoint}: exit code {process.returncode}: {tail(log.read())}")
        if time.monotonic() > deadline:
            raise Failure(f"nothing mounted on {mountpoint} after {MOUNT_SECONDS} s")
        time.sleep(0.001)


def unmount(mountpoint):
    """Unmounts a path if something is mounted there: at once if it can be, by detaching it otherwise."""
    deadline = time.monotonic() + 5
    while device_of(mountpoint) is not None:
        done = subprocess.run(["umount", str(mountpoint)], capture_output=True, check=False)
        if done.returncode and time.monotonic() > deadline:
            subprocess.run(["umount", "-l", str(mountpoint)], capture_output=True, check=False)
            say(f"{SCRIPT}: {mountpoint} was busy and is detached: {tail(done.stderr)}")
            return
        if done.returncode:
            time.sleep(0.1)


def finish(process, mountpoint):
    """Waits for a program whose mount is gone to end, and makes it end if it does not.

    One that was still on its way to its mount may mount now: that is unmounted as well.
    """
    for stop in (lambda: None, process.terminate, process.kill):
        stop()
        deadline = time.monotonic() + UNMOUNT_SECONDS
        while time.monotonic() < deadline:
            unmount(mountpoint)
            if process.poll() is not None:
                unmount(mountpoint)
                return
            time.sleep(0.02)
        say(f"{SCRIPT}: {process.args[0]} (process {process.pid}) does not end")


@contextlib.contextmanager
def work_folder(given, gigabytes):
    """The folder for all data: `given`, or else a tmpfs of its own, which is gone afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    path = pathlib.Path(tempfile.mkdtemp(prefix="vykar-bench-"))
    try:
        run(["mount", "-t", "tmpfs", "-o", f"size={gigabytes}g,nr_inodes=0,mode=755", "vykar-bench", path])
        path.chmod(0o755)
        yield path
    finally:
        unmount(path)
        with contextlib.suppress(OSError):
            path.rmdir()
