"""Processes, mounts and caches. Whatever is started here is ended here, whatever happens."""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

MOUNT_SECONDS = 120
"""How long a program may take until its mount is there."""
UNMOUNT_SECONDS = 20
"""How long an unmounted program may take to end by itself."""
SETTLE_SECONDS = 0.3
"""After a mount appears: time for its program to finish what it does first, such as raising the read-ahead."""


class Failure(Exception):
    """Something that was started did not do what it should; the text says what."""


def say(text):
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def end_on_signals():
    """Turns SIGINT, SIGTERM and SIGHUP into SystemExit, so that everything is cleaned up; once.

    What comes later is ignored: it would interrupt the cleaning up, each step of which has a time limit.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(number, _frame):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        say("bench-mount: interrupted, cleaning up")
        raise SystemExit(128 + number)

    for each in signals:
        signal.signal(each, leave)


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


def run(argv, env=None, cwd=None, good=(0,)):
    """Runs a command to its end and returns its stdout; a Failure if its exit code is not in `good`."""
    argv = [str(part) for part in argv]
    try:
        done = subprocess.run(
            argv, env=merged(env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise Failure(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode not in good:
        raise Failure(f"{' '.join(argv)}: exit code {done.returncode}: {tail(done.stderr or done.stdout)}")
    return done.stdout.decode(errors="replace")


def merged(env):
    """The environment with `env` over it, and messages and sorting as in the C locale."""
    return {**os.environ, "LC_ALL": "C", **(env or {})}


def tail(text):
    """The last of what a program said, on one line."""
    return " | ".join(text.decode(errors="replace").strip().splitlines()[-3:])


def pipeline(commands, good=(0,), keep=False):
    """Runs commands, each reading the one before it. Returns (seconds, stdout of the last).

    The time is from the start of the first to the end of the last. That stdout is /dev/null, and returned
    empty, unless `keep`. A Failure if the first one's exit code is not in `good`, or another's is not 0.
    """
    started = []
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        try:
            for number, argv in enumerate(commands):
                last = number == len(commands) - 1
                started.append(subprocess.Popen(
                    [str(part) for part in argv], env=merged(None), stderr=errors,
                    stdin=started[-1].stdout if started else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if not last else output if keep else subprocess.DEVNULL))
                if number:
                    started[-2].stdout.close()
            codes = [each.wait() for each in started]
            seconds = time.perf_counter() - begin
        finally:
            for each in started:
                if each.poll() is None:
                    each.kill()
                    each.wait()
        errors.seek(0)
        output.seek(0)
        if codes[0] not in good or any(codes[1:]):
            said = tail(errors.read() or output.read(1 << 16))
            line = " | ".join(" ".join(str(part) for part in argv) for argv in commands)
            raise Failure(f"{line}: exit codes {codes}: {said}")
        return seconds, output.read()


def drop_caches():
    """Makes the kernel forget pages, entries and inodes that it can get again. What is in tmpfs stays."""
    run(["sync"])
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def times_dropped():
    """How often the kernel's caches were dropped since the machine started, by whomever."""
    found = dict(line.split() for line in pathlib.Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    return int(found.get("drop_pagecache", 0)) + int(found.get("drop_slab", 0))


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
        deadline = time.monotonic() + MOUNT_SECONDS
        while device_of(mountpoint) is None:
            if process is not None and process.poll() is not None:
                log.seek(0)
                raise Failure(f"nothing mounted on {mountpoint}: exit code {process.returncode}: {tail(log.read())}")
            if time.monotonic() > deadline:
                raise Failure(f"nothing mounted on {mountpoint} after {MOUNT_SECONDS} s")
            time.sleep(0.005)
        program.after_mount(mountpoint)
        time.sleep(SETTLE_SECONDS)
        yield process
    finally:
        unmount(mountpoint)
        if process is not None:
            finish(process, mountpoint)


def spawn(argv, log, env=None):
    """Starts a program that keeps running, away from the terminal's signals: they are for this script."""
    try:
        return subprocess.Popen(
            [str(part) for part in argv], env=merged(env), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    except OSError as error:
        raise Failure(f"cannot run {argv[0]}: {error.strerror}") from error


def unmount(mountpoint):
    """Unmounts a path if something is mounted there: at once if it can be, by detaching it otherwise."""
    deadline = time.monotonic() + 5
    while device_of(mountpoint) is not None:
        done = subprocess.run(["umount", str(mountpoint)], capture_output=True, check=False)
        if done.returncode and time.monotonic() > deadline:
            subprocess.run(["umount", "-l", str(mountpoint)], capture_output=True, check=False)
            say(f"bench-mount: {mountpoint} was busy and is detached: {tail(done.stderr)}")
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
        say(f"bench-mount: {process.args[0]} (process {process.pid}) does not end")


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


def memory_of(process):
    """(peak resident, anonymous now) of a process, in bytes, from /proc."""
    found = {}
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name in ("VmHWM", "RssAnon"):
                found[name] = int(value.split()[0]) * 1024
    return found["VmHWM"], found["RssAnon"]
