"""Processes, what they cost, and the kernel's caches. Whatever is started here is ended here, whatever happens."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

SCRIPT = pathlib.Path(sys.argv[0]).name
"""The script that runs, as messages name it."""
FOREIGN = ("BORG_", "RESTIC_", "VYKAR_")
"""Variables that begin so would change what is measured: no command gets the user's."""


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
        say(f"{SCRIPT}: interrupted, cleaning up")
        raise SystemExit(128 + number)

    for each in signals:
        signal.signal(each, leave)


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


def remove(path):
    """Removes a folder, if it is there."""
    if path.exists():
        run(["rm", "-rf", "--one-file-system", path])


def merged(env):
    """The environment with `env` over it, and messages and sorting as in the C locale."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**own, "LC_ALL": "C", **(env or {})}


def tail(text):
    """The last of what a program said, on one line."""
    return " | ".join(text.decode(errors="replace").strip().splitlines()[-3:])


@dataclasses.dataclass(frozen=True)
class Done:
    """What a pipeline took, and said."""

    seconds: float
    """From the start of the first command to the end of the last."""
    cpu: float
    """Seconds of processor time, the kernel's included, of all commands and of what they started."""
    resident: int
    """The largest peak of resident memory of any command, in bytes. Never below this script's own."""
    output: bytes
    """The stdout of the last command, if it was kept."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, with what it needs."""

    argv: list
    env: dict | None = None
    cwd: pathlib.Path | None = None

    def run(self):
        """Runs it to its end; returns its stdout."""
        return run(self.argv, env=self.env, cwd=self.cwd)


def pipeline(commands, good=(0,), keep=False, watch=None):
    """Runs commands (a Command, or only its argv), each reading the one before it. Returns Done.

    The stdout of the last is /dev/null unless `keep`. A MemoryWatch is given the first. A Failure if the first
    one's exit code is not in `good`, or another's is not 0.
    """
    commands = [each if isinstance(each, Command) else Command(each) for each in commands]
    started = []
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        try:
            for number, command in enumerate(commands):
                last = number == len(commands) - 1
                started.append(start(
                    command, stdin=started[-1].stdout if started else subprocess.DEVNULL, stderr=errors,
                    stdout=subprocess.PIPE if not last else output if keep else subprocess.DEVNULL))
                if number:
                    started[-2].stdout.close()
            if watch is not None:
                watch.start(started[0].pid)
            usages = [reap(each) for each in started]
            seconds = time.perf_counter() - begin
        finally:
            if watch is not None:
                watch.stop()
            for each in started:
                if each.poll() is None:
                    each.kill()
                    each.wait()
        errors.seek(0)
        output.seek(0)
        codes = [each.returncode for each in started]
        if codes[0] not in good or any(codes[1:]):
            said = tail(errors.read() or output.read(1 << 16))
            line = " | ".join(" ".join(str(part) for part in command.argv) for command in commands)
            raise Failure(f"{line}: exit codes {codes}: {said}")
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return Done(seconds, cpu, max(usage.ru_maxrss for usage in usages) * 1024, output.read())


def reap(process):
    """Waits for a process to end; returns what the kernel says that it used."""
    _, status, usage = os.wait4(process.pid, 0)
    # What Popen would have set.
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def drop_caches():
    """Makes the kernel forget pages, entries and inodes that it can get again. What is in tmpfs stays."""
    run(["sync"])
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def times_dropped():
    """How often the kernel's caches were dropped since the machine started, by whomever."""
    found = dict(line.split() for line in pathlib.Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    return int(found.get("drop_pagecache", 0)) + int(found.get("drop_slab", 0))


def spawn(argv, log, env=None):
    """Starts a program that keeps running, away from the terminal's signals: they are for this script."""
    return start(Command(argv, env), start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def start(command, **how):
    """Starts a Command. `how` goes to Popen. A Failure if it cannot be run."""
    try:
        return subprocess.Popen(
            [str(part) for part in command.argv], env=merged(command.env), cwd=command.cwd, **how)
    except OSError as error:
        raise Failure(f"cannot run {command.argv[0]}: {error.strerror}") from error
