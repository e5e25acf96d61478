"""The timing: in each round every program runs an operation once, in turn, so that all see the same machine."""

import contextlib
import dataclasses
import shutil

from bench_common.memory import peak_and_private
from bench_common.mounts import mounted
from bench_common.outcome import Problems
from bench_common.processes import Failure, drop_caches, pipeline, remove, run, say, times_dropped
from bench_mount.operations import OPERATIONS, Place


@dataclasses.dataclass(frozen=True)
class Timing:
    """One operation on one program's mount, in seconds; None where it failed."""

    cold: float | None
    warm: float | None


class Bench:
    """Programs, the data they read, and what was measured so far."""

    def __init__(self, folder, programs, data):
        self.folder = folder
        self.programs = programs
        self.data = data
        """By name."""
        self.timings = {}
        """(operation, program) -> one Timing for each round, in their order. Names are the keys."""
        self.memory = {}
        """(program, name of data) -> (peak resident, anonymous at the end), in bytes."""
        self.problems = Problems()
        self.disturbed = []
        """The timings during which something else dropped the kernel's caches."""
        self.verified = set()
        """(program, name of data) that were compared with the source."""
        self.found = None
        """What `grep` finds in the source; None as long as that was not looked up."""

    def run_round(self, number, operations, slow_runs):
        """Every operation once on every program; on slow ones in the first `slow_runs` rounds (from 0)."""
        for operation in operations:
            for program in self.programs:
                if program.slow and number >= slow_runs or not possible(program, operation):
                    continue
                timing = self.time(program, operation)
                self.timings.setdefault((operation.name, program.name), []).append(timing)
                say(f"round {number + 1}  {operation.name:17} {program.name:11} "
                    f"{shown(timing.cold)} {shown(timing.warm)}")

    def time(self, program, operation):
        """A fresh mount with cold caches, the operation, and the operation again."""
        data = self.data[operation.data]
        mountpoint = self.mountpoint(program)
        cold = warm = None
        try:
            with self.source_for(program, operation) as source:
                drop_caches()
                dropped = times_dropped()
                with mounted(program, data, mountpoint):
                    place = Place(program.root(mountpoint), source, self.folder / "copy")
                    cold = self.once(program, operation, place)
                    warm = self.once(program, operation, place)
                    if times_dropped() != dropped:
                        self.disturbed.append(f"{program.name}, {operation.name}")
                        say("*** something else dropped the kernel's caches; the next line is of no use:")
                    self.verify(program, operation, place)
        except Failure as failure:
            self.problems.note(program.name, str(failure))
        finally:
            remove(self.folder / "copy")
        return Timing(cold, warm)

    def once(self, program, operation, place):
        """Runs an operation once, checks what it says, and returns the seconds."""
        remove(place.copy)
        if operation.name == "cp":
            place.copy.mkdir()
            if program.prefix:
                shutil.chown(place.copy, "nobody", "nogroup")
        commands = operation.commands(place)
        commands[0] = [*program.prefix, *commands[0]]
        good = (0, 1) if program.zeros and operation.name == "grep" else (0,)
        try:
            done = pipeline(commands, good, keep=operation.name in ("diff", "grep"))
        except Failure as failure:
            raise Failure(f"NOT THE SAME AS THE SOURCE: {failure}" if operation.name == "diff" else failure) from failure
        if operation.name == "grep" and not program.zeros:
            self.check_grep(place, done.output)
        return done.seconds

    def check_grep(self, place, output):
        """A Failure if `grep` found something else than in the source."""
        def names(text, root):
            return sorted(line.removeprefix(f"{root}/") for line in text.splitlines())

        if self.found is None:
            operation = next(each for each in OPERATIONS if each.name == "grep")
            at_source = Place(place.source, place.source, place.copy)
            text = pipeline(operation.commands(at_source), keep=True).output.decode()
            self.found = names(text, place.source)
        if names(output.decode(), place.root) != self.found:
            raise Failure(f"WRONG DATA: grep -rl in {place.root} found other files than in the source")

    def verify(self, program, operation, place):
        """Compares everything with the source, once for each program and data, untimed."""
        key = (program.name, operation.data)
        if program.zeros or key in self.verified:
            return
        try:
            if operation.name == "cp":
                run(["diff", "-r", "--no-dereference", place.source, place.copy])
            elif operation.data == "large":
                for name in ("compressible", "random"):
                    run([*program.prefix, "cmp", place.source / name, place.root / name])
            else:
                return
        except Failure as failure:
            raise Failure(f"NOT THE SAME AS THE SOURCE: {failure}") from failure
        self.verified.add(key)

    @contextlib.contextmanager
    def source_for(self, program, operation):
        """The source to compare with: a second copy for the tree itself, as `diff` skips what is one file."""
        source = self.data[operation.data].path
        if operation.name != "diff" or program.name != "tree":
            yield source
            return
        second = self.folder / "second"
        try:
            run(["cp", "-a", source, second])
            yield second
        finally:
            remove(second)

    def measure_memory(self, operations):
        """For every program with a process: all operations on some data once, in one mount, then its memory."""
        for program in self.programs:
            if program.prefix:
                continue
            for name in dict.fromkeys(operation.data for operation in operations):
                chosen = [each for each in operations if each.data == name and possible(program, each)]
                mountpoint = self.mountpoint(program)
                try:
                    drop_caches()
                    with mounted(program, self.data[name], mountpoint) as process:
                        if process is None:
                            continue
                        place = Place(program.root(mountpoint), self.data[name].path, self.folder / "copy")
                        for operation in chosen:
                            self.once(program, operation, place)
                        self.memory[program.name, name] = peak_and_private(process.pid)
                except Failure as failure:
                    self.problems.note(program.name, str(failure))
                finally:
                    remove(self.folder / "copy")
                say(f"memory   {name:17} {program.name:11} {self.memory.get((program.name, name))}")

    def mountpoint(self, program):
        """An empty folder for a program to mount on."""
        path = self.folder / "mnt" / program.name
        path.mkdir(parents=True, exist_ok=True)
        if program.prefix:
            shutil.chown(path, "nobody", "nogroup")
        return path


def possible(program, operation):
    """Whether an operation says anything about a program."""
    if program.zeros and operation.name == "diff":
        return False
    return operation.as_user or not program.prefix


def shown(seconds):
    """Seconds for a progress line."""
    return "  failed" if seconds is None else f"{seconds:8.3f}"
