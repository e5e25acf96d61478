"""What is compared: how each program makes its repository or image, and how it mounts that."""

import pathlib
import re
import shutil

from bench_common import archivers
from bench_common.data import once
from bench_common.mounts import device_of
from bench_common.processes import run, spawn
from bench_mount import zero

NOBODY = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


class Program:
    """A way to read the data. Names of files in `folder` begin with the program's name."""

    name = ""
    title = ""
    """The heading of its column."""
    packages = ()
    """Debian packages that it needs."""
    slow = False
    """Whether it is timed in the first --slow-runs rounds only."""
    prefix = ()
    """Put before every command that reads its mount."""
    zeros = False
    """Whether files read as zeros instead of what they are."""

    def __init__(self, folder):
        self.folder = folder

    def stored(self, data):
        """Where its repository or image of some data is."""
        return self.folder / f"{self.name}-{data.name}"

    def install(self, allowed):
        """Makes what no Debian package brings. A Failure if that means to download, and is not `allowed`."""

    def prepare(self, data):
        """Makes the repository or image, once."""
        once(self.stored(data), lambda path: self.build(data, path))

    def build(self, data, path):
        """Makes the repository or image at `path`."""

    def start(self, data, mountpoint, log):
        """Mounts. Returns the process that serves the mount, in the foreground; None if the kernel does."""
        raise NotImplementedError

    def after_mount(self, mountpoint):
        """Called when the mount is there."""

    def root(self, mountpoint):
        """Where in the mount the data are."""
        return mountpoint

    def version(self):
        """What it says of itself."""
        raise NotImplementedError


class Archived(Program):
    """A program that mounts the repositories that it makes itself."""

    def __init__(self, folder, archiver):
        super().__init__(folder)
        self.archiver = archiver

    def install(self, allowed):
        self.archiver.install(allowed)

    def build(self, data, path):
        self.archiver.cache.mkdir(exist_ok=True)
        self.archiver.init(path).run()
        self.archiver.backup(path, data.path, "archive").run()

    def spawn(self, log, *argv):
        """Starts a command of it that keeps running."""
        return spawn([*self.prefix, *argv], log, env=self.env())

    def env(self):
        """The environment of its commands."""
        return self.archiver.env()

    def version(self):
        return self.archiver.version()


class Vykar(Archived):
    """The program that this is all about, with its defaults."""

    name = "vykar"
    title = "vykar"
    packages = ("fuse3",)

    def __init__(self, folder, binary):
        super().__init__(folder, archivers.Vykar(folder / f"cache-{self.name}", binary))
        self.binary = binary

    def command(self, repo, *arguments):
        """Runs one of its commands to its end, and returns its stdout."""
        return self.archiver.command(repo, *arguments).run()

    def build(self, data, path):
        super().build(data, path)
        # Root reads it all the same.
        run(["chown", "-R", "nobody:nogroup", path])

    def start(self, data, mountpoint, log):
        return self.spawn(log, self.binary, "-R", self.stored(data), "mount", mountpoint)

    def root(self, mountpoint):
        return mountpoint / "snapshots" / "latest"


class VykarAsUser(Vykar):
    """vykar and the commands that read its mount, as `nobody`."""

    name = "vykar-user"
    title = "vykar, as a user"
    packages = ("fuse3", "util-linux")
    prefix = NOBODY

    def stored(self, data):
        return self.folder / f"vykar-{data.name}"

    def env(self):
        return {**super().env(), "HOME": str(self.archiver.cache)}

    def install(self, _allowed):
        self.archiver.cache.mkdir(exist_ok=True)
        shutil.chown(self.archiver.cache, "nobody", "nogroup")


class Restic(Archived):
    """restic's mount."""

    name = "restic"
    title = "restic"
    packages = (*archivers.Restic.packages, "fuse3")
    slow = True

    def __init__(self, folder):
        super().__init__(folder, archivers.Restic(folder / "cache-restic"))

    def start(self, data, mountpoint, log):
        return self.spawn(log, "restic", "-r", self.stored(data), "mount", mountpoint)

    def root(self, mountpoint):
        return mountpoint / "snapshots" / "latest"


class Borg(Archived):
    """borg's mount, through pyfuse3."""

    name = "borg"
    title = "borg"
    packages = archivers.Borg.packages
    slow = True

    def __init__(self, folder):
        super().__init__(folder, archivers.Borg(folder / "cache-borg", "zstd,3"))

    def start(self, data, mountpoint, log):
        # The whole repository, as with restic and vykar: an archive is loaded when it is looked into.
        return self.spawn(log, self.archiver.binary, "mount", "-f", self.stored(data), mountpoint)

    def root(self, mountpoint):
        return mountpoint / "archive"


class Squashfs(Program):
    """The kernel's squashfs, on a loop device."""

    name = "squashfs"
    title = "kernel squashfs"
    packages = ("squashfs-tools",)

    def stored(self, data):
        return self.folder / f"{data.name}.sqfs"

    def build(self, data, path):
        run(["mksquashfs", data.path, path, "-comp", "zstd", "-Xcompression-level", "3", "-no-progress", "-quiet"])

    def start(self, data, mountpoint, log):
        run(["mount", "-t", "squashfs", "-o", "loop,ro", self.stored(data), mountpoint])

    def version(self):
        return run(["mksquashfs", "-version"]).split(" (")[0].strip()


class Squashfuse(Squashfs):
    """The same images through FUSE."""

    name = "squashfuse"
    title = "squashfuse"
    packages = ("squashfs-tools", "squashfuse", "fuse3")
    slow = True

    def start(self, data, mountpoint, log):
        return spawn([self.binary(), "-f", self.stored(data), mountpoint], log)

    def binary(self):
        """The one with the low-level interface, where there are both."""
        return shutil.which("squashfuse_ll") or "squashfuse"

    def version(self):
        said = run(["dpkg-query", "-W", "-f", "${Version}", "squashfuse"], good=(0, 1, 127))
        return f"{pathlib.Path(self.binary()).name} {re.split('-|$', said)[0]}"


class Tree(Program):
    """The data themselves, in tmpfs: bound to the mount point, so that paths are as long as the others'."""

    name = "tree"
    title = "the tree itself"

    def prepare(self, data):
        pass

    def start(self, data, mountpoint, log):
        run(["mount", "--bind", data.path, mountpoint])

    def version(self):
        return "tmpfs"


class Zero(Program):
    """A FUSE driver that knows the names and sizes, and answers zeros: the floor for anything with FUSE."""

    name = "zero"
    title = "zeros by FUSE"
    packages = ("fuse3", "libfuse3-dev", "pkg-config", "build-essential")
    zeros = True

    def install(self, _allowed):
        zero.compile_driver(self.folder)

    def build(self, data, path):
        zero.write_listing(data.path, path)

    def start(self, data, mountpoint, log):
        return zero.start(self.folder, self.stored(data), mountpoint, log)

    def after_mount(self, mountpoint):
        # As vykar does; INIT can only lower it.
        raise_read_ahead(mountpoint, 1024)

    def version(self):
        return "libfuse " + run(["pkg-config", "--modversion", "fuse3"]).strip()


def raise_read_ahead(mountpoint, kibibytes):
    """Sets a mount's read-ahead."""
    path = pathlib.Path("/sys/class/bdi") / device_of(mountpoint) / "read_ahead_kb"
    path.write_text(f"{kibibytes}\n", encoding="ascii")


def choose(names, folder, binary):
    """The programs of these names, in the order of the tables."""
    programs = [Vykar(folder, binary), VykarAsUser(folder, binary), Squashfs(folder), Tree(folder),
                Zero(folder), Squashfuse(folder), Borg(folder), Restic(folder)]
    wanted = set(names)
    if "vykar" in wanted:
        wanted.add("vykar-user")
    return [program for program in programs if program.name in wanted]


NAMES = ("vykar", "squashfs", "tree", "zero", "squashfuse", "borg", "restic")
