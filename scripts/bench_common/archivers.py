"""vykar, restic and borg: how each is called to make a repository, to back up, and to restore."""

import pathlib
import sys

from bench_common.data import once
from bench_common.processes import Command, Failure, run

PASSPHRASE = "benchmark"
CACHE = pathlib.Path.home() / ".cache" / "vykar-bench"
"""What is kept from one run to the next."""
BORG = "borgbackup[pyfuse3]>=1.4,<1.5"
"""What pip installs into a virtual environment in CACHE."""


class Archiver:
    """A program that makes encrypted, deduplicated backups in a folder. Nothing of it outlives its two folders."""

    name = ""
    """In file names, and on the command line."""
    title = ""
    """The heading of its column."""
    packages = ()
    """Debian packages that it needs."""

    def __init__(self, cache):
        self.cache = cache
        """The folder for its local caches; it need not be there."""

    def install(self, allowed):
        """Makes what no Debian package brings. A Failure if that means to download, and is not `allowed`."""

    def env(self):
        """The environment of its commands."""
        raise NotImplementedError

    def init(self, repo):
        """The Command that makes a repository."""
        raise NotImplementedError

    def backup(self, repo, source, snapshot):
        """The Command that stores the contents of a folder. Only borg needs the name of the snapshot."""
        raise NotImplementedError

    def restore(self, repo, target, snapshot):
        """The Command that restores the newest snapshot, of this name, into a folder that is there and empty."""
        raise NotImplementedError

    def version(self):
        """What it says of itself."""
        raise NotImplementedError


class Vykar(Archiver):
    """The program that this is all about."""

    name = "vykar"
    title = "vykar"

    def __init__(self, cache, binary, cipher="auto", compression=None):
        super().__init__(cache)
        self.binary = binary
        self.cipher = cipher
        self.compression = compression
        """None for its default, zstd level 3."""

    def env(self):
        # It looks for a configuration file there.
        return {"VYKAR_PASSPHRASE": PASSPHRASE, "VYKAR_CACHE_DIR": str(self.cache),
                "XDG_CONFIG_HOME": str(self.cache / "config")}

    def command(self, repo, *arguments):
        """The Command for any of its commands."""
        return Command([self.binary, "-R", repo, *arguments], self.env())

    def init(self, repo):
        return self.command(repo, "init", "--quiet", "--encryption", self.cipher)

    def backup(self, repo, source, snapshot):
        compression = ["--compression", self.compression] if self.compression else []
        return self.command(repo, "backup", "--quiet", *compression, source)

    def restore(self, repo, target, snapshot):
        return self.command(repo, "restore", "--quiet", "latest", target)

    def version(self):
        return run([self.binary, "--version"]).strip()


class Restic(Archiver):
    """restic, with its default compression."""

    name = "restic"
    title = "restic"
    packages = ("restic",)

    def env(self):
        return {"RESTIC_PASSWORD": PASSPHRASE, "RESTIC_CACHE_DIR": str(self.cache)}

    def command(self, repo, *arguments, cwd=None):
        """The Command for any of its commands."""
        return Command(["restic", "-r", repo, *arguments], self.env(), cwd)

    def init(self, repo):
        return self.command(repo, "init", "--repository-version", "2")

    def backup(self, repo, source, snapshot):
        return self.command(repo, "backup", "--quiet", ".", cwd=source)

    def restore(self, repo, target, snapshot):
        return self.command(repo, "restore", "--quiet", "latest", "--target", target)

    def version(self):
        return " ".join(run(["restic", "version"]).split()[:2])


class Borg(Archiver):
    """borg with pyfuse3, from PyPI: Debian's cannot mount."""

    name = "borg"
    title = "borg"
    packages = ("fuse3", "python3-venv", "python3-dev", "libfuse3-dev", "pkg-config", "libacl1-dev",
                "libssl-dev", "build-essential")
    binary = CACHE / "borg" / "bin" / "borg"

    def __init__(self, cache, compression=None):
        super().__init__(cache)
        self.compression = compression
        """None for its default, LZ4."""

    def install(self, allowed):
        def build(path):
            if not allowed:
                raise Failure(f"borg is missing: make a virtual environment in {path}, with {BORG}")
            run([sys.executable, "-m", "venv", path])
            run([path / "bin" / "pip", "install", "--quiet", BORG])

        CACHE.mkdir(parents=True, exist_ok=True)
        once(CACHE / "borg", build)

    def env(self):
        # Its cache, configuration, keys and notes of repositories are all below this one.
        return {"BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(self.cache),
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self, repo):
        return Command([self.binary, "init", "--encryption", "repokey-blake2", repo], self.env())

    def backup(self, repo, source, snapshot):
        compression = ["--compression", self.compression] if self.compression else []
        return Command([self.binary, "create", *compression, f"{repo}::{snapshot}", "."], self.env(), source)

    def restore(self, repo, target, snapshot):
        return Command([self.binary, "extract", f"{repo}::{snapshot}"], self.env(), target)

    def version(self):
        return run([self.binary, "--version"]).strip()
