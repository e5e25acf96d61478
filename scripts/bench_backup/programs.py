"""What is compared: each program with its folders, and the floor."""

import os
import pathlib
import re

from bench_common import archivers
from bench_common.data import compile_c
from bench_common.processes import Failure, remove, run

THREADS = os.cpu_count()
"""What the floor uses of the processors, as the programs do."""


class Program:
    """A way to back up and to restore. All that it writes lies in one folder, but for what it restores."""

    name = ""
    """In file names, and the key of what was measured."""
    title = ""
    """The heading of its column."""
    group = ""
    """For --programs."""
    packages = ()
    """Debian packages that it needs."""
    on_disk = True
    """Whether it is timed on the disk as well."""

    def __init__(self, folder):
        self.folder = folder / self.name
        self.repo = self.folder / "repo"

    def install(self, allowed):
        """Makes what no Debian package brings. A Failure if that means to download, and is not `allowed`."""

    def fresh(self):
        """Makes an empty repository, with nothing in local caches."""
        self.clear()
        self.folder.mkdir(parents=True)

    def clear(self):
        """Removes the repository and the local caches."""
        remove(self.folder)

    def commands(self, operation, source, target):
        """The commands of a pipeline; None if there is no such thing.

        `source` is what is backed up, `target` an empty folder to restore into.
        """
        raise NotImplementedError

    def check(self, operation, output, entries):
        """A Failure if what a pipeline printed is wrong. `entries` is how many there are in the source."""

    def stored(self):
        """Bytes of the repository."""
        return sum(os.lstat(os.path.join(folder, name)).st_size
                   for folder, _, names in os.walk(self.repo) for name in names)

    def version(self):
        """What it says of itself."""
        raise NotImplementedError


class Archived(Program):
    """One of the backup programs, in one of its settings."""

    def __init__(self, folder, name, title, make, on_disk=True):
        self.name = name
        self.title = title
        self.on_disk = on_disk
        super().__init__(folder)
        self.archiver = make(self.folder / "cache")
        self.group = self.archiver.name
        self.packages = self.archiver.packages
        self.snapshot = ""
        """The newest."""

    def install(self, allowed):
        self.archiver.install(allowed)

    def fresh(self):
        super().fresh()
        self.archiver.cache.mkdir()
        self.archiver.init(self.repo).run()

    def commands(self, operation, source, target):
        if operation == "restore":
            return [self.archiver.restore(self.repo, target, self.snapshot)]
        self.snapshot = operation
        return [self.archiver.backup(self.repo, source, operation)]

    def version(self):
        return self.archiver.version()


class Floor(Program):
    """What costs least and does some of the same: no encryption, no deduplication, no history."""

    name = "floor"
    title = "floor"
    group = "floor"
    packages = ("zstd", "build-essential")

    def __init__(self, folder, binaries):
        super().__init__(folder)
        self.walk = binaries / "walk"

    def install(self, _allowed):
        compile_c(pathlib.Path(__file__).with_name("walk.c"), self.walk, ["-pthread"])

    def fresh(self):
        super().fresh()
        self.repo.mkdir()

    def commands(self, operation, source, target):
        if operation == "first":
            packed = 'zstd -q -3 "-T$0" -o "$1" && sync "$1"'
            return [["tar", "c", "-C", source, "."], ["sh", "-c", packed, THREADS, self.repo / "tar.zst"]]
        if operation == "unchanged":
            return [[self.walk, source, THREADS]]
        if operation == "restore":
            return [["cp", "-a", f"{source}/.", target]]
        return None

    def check(self, operation, output, entries):
        if operation == "unchanged" and int(output) != entries:
            raise Failure(f"walk found {int(output)} entries instead of {entries}")

    def version(self):
        first = [run([name, "--version"]).splitlines()[0] for name in ("tar", "cp")]
        return ", ".join([*first, "zstd " + re.search(r"v([0-9.]+)", run(["zstd", "--version"])).group(1)])


NAMES = ("vykar", "restic", "borg", "floor")
"""For --programs."""


def choose(names, folder, binaries):
    """The programs of these groups, in the order of the tables. `binaries` holds vykar and what is compiled."""
    def vykar(compression=None):
        return lambda cache: archivers.Vykar(cache, binaries / "vykar", "aes256gcm", compression)

    def borg(compression=None):
        return lambda cache: archivers.Borg(cache, compression)

    programs = [
        Archived(folder, "vykar", "vykar", vykar()),
        Archived(folder, "vykar-lz4", "vykar, LZ4", vykar("lz4"), on_disk=False),
        Archived(folder, "restic", "restic", archivers.Restic),
        Archived(folder, "borg", "borg, LZ4", borg()),
        Archived(folder, "borg-zstd", "borg, zstd 3", borg("zstd,3"), on_disk=False),
        Floor(folder, binaries),
    ]
    return [program for program in programs if program.group in names]
