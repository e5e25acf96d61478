"""The timing of vykar's commands, and their memory."""

import dataclasses
import os
import tempfile
import time

from bench_common.archivers import Vykar
from bench_common.memory import MemoryWatch, peak_and_private
from bench_common.mounts import finish, unmount, wait_until_mounted
from bench_common.outcome import Problems
from bench_common.processes import Failure, pipeline, remove, say, spawn
from bench_scale.cases import STOP_LIMIT
from bench_scale.generate import folders_of, give_index

SETTLE_SECONDS = 3
"""Between the making of a tree and its backup: a file that changed just now would be read once more."""
COMPARED = 100
"""How many of the restored files are compared with the source."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one operation took, once. Memory in bytes."""

    seconds: float
    cpu: float | None
    """Seconds of processor time; None for a mount, which goes on."""
    resident: int
    """The peak of resident memory."""
    private: int
    """The peak of private memory, up to the moment at which there was a lock."""
    committing: int
    """The same, from then on; 0 if there was none."""
    index: int
    """The size of the stored index afterwards."""


class Measured:
    """What was measured so far."""

    def __init__(self):
        self.samples = {}
        """(case, operation) -> a Sample of each round that did not fail."""
        self.problems = Problems()


class Measure:
    """Runs cases in a folder."""

    def __init__(self, folder, binary, generator, measured):
        self.folder = folder
        self.generator = generator
        self.binary = binary
        self.measured = measured
        self.repo = folder / "repo"
        self.cache = folder / "cache"
        self.source = folder / "source"

    def run_case(self, case, runs):
        """Makes what a case needs, and times its operations."""
        index = self.folder / "index.object"
        try:
            say(f"== {case.title}")
            self.generator.tree(self.source, case.files)
            if case.chunks:
                self.generator.index(index, case.chunks)
            time.sleep(SETTLE_SECONDS)
            for number in range(1 if case.once else runs):
                self.run_round(number, case, index)
        except Failure as failure:
            self.measured.problems.note(case.title, str(failure))
        finally:
            for path in (self.source, index, self.repo, self.cache):
                remove(path)

    def run_round(self, number, case, index):
        """Every operation once, in a new repository."""
        archiver = Vykar(self.cache, self.binary, "none" if case.chunks else "aes256gcm")
        remove(self.repo)
        remove(self.cache)
        archiver.init(self.repo).run()
        if case.chunks:
            give_index(self.repo, index)
            self.generator.packs(self.repo / "packs", case.chunks)
        for operation in case.operations:
            sample = getattr(self, operation)(archiver, case)
            self.measured.samples.setdefault((case, operation), []).append(sample)
            say(f"round {number + 1}  {case.title:30} {operation:10} {sample.seconds:8.3f} s, private memory "
                f"{sample.private / 1e6:.0f} MB, with the lock {sample.committing / 1e6:.0f} MB")

    def first(self, archiver, _case):
        """The first backup."""
        return self.timed(archiver.backup(self.repo, self.source, "first"))

    def unchanged(self, archiver, _case):
        """A backup with nothing changed."""
        return self.timed(archiver.backup(self.repo, self.source, "unchanged"))

    def list(self, archiver, _case):
        """The list of snapshots."""
        return self.timed(archiver.command(self.repo, "list"))

    def restore(self, archiver, case):
        """A restore into an empty folder."""
        target = self.folder / "restored"
        try:
            target.mkdir()
            sample = self.timed(archiver.restore(self.repo, target, "unchanged"))
            compare(self.source, target, case.files)
            return sample
        finally:
            remove(target)

    def timed(self, command):
        """Runs a command of vykar."""
        watch = MemoryWatch(self.locked, STOP_LIMIT)
        try:
            done = pipeline([command], watch=watch)
        except Failure as failure:
            if watch.exceeded:
                text = f"{command.argv[3]}: ended because it had more than {STOP_LIMIT / 1e9:g} GB"
                raise Failure(text) from failure
            raise
        return Sample(done.seconds, done.cpu, done.resident, watch.peak, watch.peak_late, self.index_size())

    def mount(self, archiver, case):
        """From the start of a mount to the first listing of a snapshot's root."""
        mountpoint = self.folder / "mnt"
        mountpoint.mkdir(exist_ok=True)
        watch = MemoryWatch(limit=STOP_LIMIT)
        process = None
        with tempfile.TemporaryFile() as log:
            try:
                command = archiver.command(self.repo, "mount", mountpoint)
                begin = time.perf_counter()
                process = spawn(command.argv, log, command.env)
                watch.start(process.pid)
                wait_until_mounted(process, mountpoint, log)
                found = os.listdir(mountpoint / "snapshots" / "latest")
                seconds = time.perf_counter() - begin
                resident, _ = peak_and_private(process.pid)
            finally:
                watch.stop()
                unmount(mountpoint)
                if process is not None:
                    finish(process, mountpoint)
        if len(found) != folders_of(case.files):
            raise Failure(f"the mount shows {len(found)} folders instead of {folders_of(case.files)}")
        return Sample(seconds, None, resident, watch.peak, 0, self.index_size())

    def locked(self):
        """Whether the repository is locked, as it is while a backup commits."""
        try:
            return any(name.endswith(".json") for name in os.listdir(self.repo / "locks"))
        except FileNotFoundError:
            return False

    def index_size(self):
        """Bytes of the stored index."""
        return (self.repo / "index").stat().st_size


def compare(source, target, files):
    """A Failure if the restored tree has another number of files, or some have other contents."""
    found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(target) for name in names)
    if len(found) != files:
        raise Failure(f"NOT THE SAME AS THE SOURCE: {len(found)} files restored instead of {files}")
    for path in found[::max(1, files // COMPARED)]:
        with open(path, "rb") as restored, open(source / os.path.relpath(path, target), "rb") as original:
            if restored.read() != original.read():
                raise Failure(f"NOT THE SAME AS THE SOURCE: {path}")
