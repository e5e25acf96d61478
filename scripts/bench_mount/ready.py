"""How soon a mount can be used: with one snapshot and with many, and with a snapshot of very many files."""

import concurrent.futures
import dataclasses
import shutil
import time

from bench_common.data import Data, once
from bench_common.memory import peak_and_private
from bench_common.mounts import mounted, unmount
from bench_common.processes import Failure, drop_caches, pipeline, say
from bench_mount import zero
from bench_mount.operations import Place
from bench_mount.programs import Zero

@dataclasses.dataclass(frozen=True)
class Many:
    """How much is much."""

    snapshots: int
    """In the repository that has many."""
    files: int
    """In the snapshot that has many."""


MANY = {"full": Many(1000, 1_000_000), "small": Many(30, 20_000)}
CIPHERS = ("none", "auto")
LISTS = 5
"""How often `vykar list` is timed in a round, to know how long the derivation of the key takes."""


class Ready:
    """The repositories, and what was measured so far."""

    def __init__(self, vykar, many):
        self.vykar = vykar
        self.many = many
        self.counts = (1, many.snapshots)
        self.seconds = {}
        """(cipher, number of snapshots, "kept" or "new" cache) -> seconds of each round, without the key."""
        self.key = []
        """Seconds of each round that the derivation of the key takes."""
        self.enter = []
        """Seconds of each round until the top of the snapshot with very many files was listed."""
        self.memory = []
        """(peak resident, anonymous at the end) of each round, with that snapshot walked through."""

    def repo(self, cipher, count):
        """Where the repository with so many snapshots is."""
        return self.vykar.folder / f"vykar-{cipher}-{count}"

    def prepare(self):
        """Makes the repositories with few and many snapshots, the two ciphers side by side."""
        tiny = tiny_folder(self.vykar.folder)

        def build(path, cipher, count):
            self.vykar.command(path, "init", "--quiet", "--encryption", cipher)
            for _ in range(count):
                self.vykar.command(path, "backup", "--quiet", tiny)

        def all_of(cipher):
            for count in (0, *self.counts):
                once(self.repo(cipher, count), lambda path: build(path, cipher, count))

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(all_of, CIPHERS))

    def prepare_many_files(self):
        """Backs up very many files that do not exist: the driver that answers zeros pretends them."""
        pretended = Zero(self.vykar.folder)
        pretended.install(True)
        data = self.many_files()
        zero.write_many_files(self.many.files, pretended.stored(data))
        mountpoint = self.mountpoint("pretended")

        def build(path):
            self.vykar.command(path, "init", "--quiet")
            with mounted(pretended, data, mountpoint):
                self.vykar.command(path, "backup", "--quiet", mountpoint)

        once(self.vykar.stored(data), build)

    def many_files(self):
        """The data of very many files."""
        return Data("many", self.vykar.folder / "many")

    def mountpoint(self, name):
        """An empty folder to mount on."""
        path = self.vykar.folder / "mnt" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run_round(self):
        """Times every repository once, with the cache folder that the backups left, and with a new one."""
        # The fastest of several: what else the machine does must not make mounting look faster.
        lists = {cipher: min(self.timed(self.repo(cipher, 0), "list") for _ in range(LISTS)) for cipher in CIPHERS}
        key = lists["auto"] - lists["none"]
        self.key.append(key)
        for cipher in CIPHERS:
            for count in self.counts:
                for cache in ("kept", "new"):
                    seconds = self.mount(self.repo(cipher, count), cache)
                    seconds -= key if cipher != "none" else 0
                    self.seconds.setdefault((cipher, count, cache), []).append(seconds)
                    say(f"ready    cipher {cipher}, {count} snapshots, {cache} cache: {seconds:.3f}")

    def mount(self, repo, cache):
        """Seconds of `vykar mount --background`."""
        mountpoint = self.mountpoint("ready")
        new = self.vykar.folder / "cache-new"
        options = ["--cache-dir", new] if cache == "new" else []
        try:
            return self.timed(repo, "mount", mountpoint, "--background", *options)
        finally:
            unmount(mountpoint)
            shutil.rmtree(new, ignore_errors=True)

    def timed(self, repo, *arguments):
        """Seconds of one vykar command."""
        drop_caches()
        begin = time.perf_counter()
        self.vykar.command(repo, *arguments)
        return time.perf_counter() - begin

    def enter_round(self):
        """Enters the snapshot of very many files, walks through it, and looks at the memory."""
        drop_caches()
        mountpoint = self.mountpoint("many")
        with mounted(self.vykar, self.many_files(), mountpoint) as process:
            place = Place(self.vykar.root(mountpoint), mountpoint, mountpoint)
            listed = pipeline([["ls", place.inside]], keep=True)
            folders = len(listed.output.splitlines())
            expected = -(-self.many.files // 1000)
            if folders != expected:
                raise Failure(f"NOT THE SAME AS THE SOURCE: {folders} folders instead of {expected}")
            pipeline([["find", place.inside]])
            self.enter.append(listed.seconds)
            self.memory.append(peak_and_private(process.pid))
        say(f"enter    {self.many.files} files: {listed.seconds:.3f}, memory {self.memory[-1]}")


def tiny_folder(folder):
    """A folder with one small file: snapshots of it cost nearly nothing."""
    path = folder / "tiny"
    path.mkdir(exist_ok=True)
    (path / "file").write_text("one line\n", encoding="ascii")
    return path
