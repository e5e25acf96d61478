"""What the scripts' command lines have in common, and the vykar that a run is about."""

import argparse
import contextlib
import os
import pathlib
import shutil
import tempfile

from bench_common.mounts import work_folder
from bench_common.processes import SCRIPT, Failure, end_on_signals, remove, run, say

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def positive(text):
    """A type of argument: a number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def listed(known):
    """A type of argument: names from `known`, with commas between."""
    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(known)}")
        return names

    return parse


def add_common(parser, runs):
    """Adds the options that all scripts have. `runs` is the default number of rounds."""
    parser.add_argument("--runs", type=positive, default=runs, metavar="N", help=f"rounds (default: {runs})")
    parser.add_argument("--work", type=pathlib.Path, metavar="DIR",
                        help="folder for all data, best in tmpfs (default: a tmpfs of its own)")
    parser.add_argument("--small", action="store_true", help="little data, to try this script")
    parser.add_argument("--no-install", action="store_true", help="install no packages; say which are missing")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    parser.add_argument("--vykar", type=pathlib.Path, metavar="PATH", help="a built vykar (default: build it)")


def checked(options, work):
    """Runs `work(options)` and returns its exit code, if the options that all scripts have are good."""
    if options.write and options.small:
        say(f"{SCRIPT}: --write is for the full data, not for --small")
        return 2
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        say(f"{SCRIPT}: must be run as root, with /dev/fuse: it mounts, and drops the kernel's caches")
        return 2
    end_on_signals()
    try:
        return work(options)
    except Failure as failure:
        say(f"{SCRIPT}: {failure}")
        return 1


def vykar_binary(options):
    """(path of the binary, what it was built from); builds it unless it was given."""
    if options.vykar is not None:
        if not options.vykar.is_file():
            raise Failure(f"{options.vykar} is not there; --vykar is the path of a built vykar")
        return options.vykar, ""
    say("== building vykar")
    built = ["cargo", "build", "--release", "--locked", "--package", "vykar-cli"]
    run(built, cwd=PROJECT)
    commit = run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, good=(0, 128)).strip()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target")
    return target / "release" / "vykar", f", commit {commit}" if commit else ""


@contextlib.contextmanager
def run_folder(work, name, gigabytes, keep=False):
    """The folder `name` for a run's data, in `work` or in a tmpfs of its own; removed afterwards unless `keep`."""
    with work_folder(work, gigabytes) as parent:
        folder = parent / name
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            if not keep:
                remove(folder)


@contextlib.contextmanager
def disk_folder(parent, needed):
    """A new folder in `parent`, removed afterwards. A Failure if there are less than `needed` bytes left."""
    parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(parent).free < needed:
        raise Failure(f"{parent} has less than {needed / 1e9:.1f} GB left; name another folder with --disk DIR")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        remove(folder)


def file_system(path):
    """The kind of file system that a path is on."""
    return run(["findmnt", "-n", "-o", "FSTYPE", "-T", path]).strip()


def own_copy(built, folder):
    """A copy of the binary that nobody builds over, and that every user can run."""
    binary = folder / "vykar"
    shutil.copyfile(built, binary)
    binary.chmod(0o755)
    return binary
