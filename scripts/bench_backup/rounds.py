"""The timing: in each round the programs take turns with each operation, so that all see the same machine."""

import contextlib
import dataclasses
import os
import time

from bench_backup.change import changed_files
from bench_backup.operations import DISK, ONLY_TREE, OPERATIONS, Row
from bench_common.memory import MemoryWatch, touch_free_memory
from bench_common.outcome import Problems
from bench_common.processes import Failure, drop_caches, pipeline, remove, run, say

SETTLE_SECONDS = 3
"""Between a change of the source and a backup. A program may read a file that changed just now once more."""


TOUCHED = 5 << 30
"""Bytes of free memory that are written before each operation in RAM: more than any of them needs."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one operation took, once."""

    seconds: float
    cpu: float
    """Seconds of processor time."""
    resident: int
    """The peak of resident memory, in bytes."""
    private: int
    """The peak of private memory, in bytes, as far as it was seen."""


class Bench:
    """What was measured so far."""

    def __init__(self, folder, selected):
        self.folder = folder
        """For what is needed besides the programs' folders, in RAM."""
        self.selected = selected
        """The names of the operations that are wanted."""
        self.samples = {}
        """(Row, program's name) -> the Sample of each round (from 0); None where it failed."""
        self.sizes = {}
        """(place, data, program's name) -> bytes of the repository after the first backup of each round."""
        self.problems = Problems()
        self.verified = set()
        """(data, program's name) whose restored files were compared with the source."""
        self.entries = {}
        """The number of entries in a source, by its path."""

    def run_round(self, number, place, data, programs):
        """Every operation once with every program. The one that begins is another in each round (from 0)."""
        operations = self.operations(place, data)
        if not operations:
            return
        first = number % len(programs)
        failed = set()
        try:
            for program in [*programs[first:], *programs[:first]]:
                self.guarded(program, failed, program.fresh)
            time.sleep(SETTLE_SECONDS)
            for operation in operations:
                with self.source_for(operation, data):
                    for program in [*programs[first:], *programs[:first]]:
                        row = Row(place, data.name, operation)
                        self.guarded(program, failed, lambda: self.time(number, row, program, data.path))
        finally:
            for program in programs:
                program.clear()

    def operations(self, place, data):
        """What is run in a round. The first backup always is if anything is: the others build on it."""
        wanted = [name for name in OPERATIONS if name in self.selected[place]
                  and (data.name == "tree" or name not in ONLY_TREE)]
        return list(dict.fromkeys(["first", *wanted])) if wanted else []

    def guarded(self, program, failed, work):
        """Calls `work`. A program that failed is left alone for the rest of the round."""
        if program.name in failed:
            return
        try:
            work()
        except Failure as failure:
            failed.add(program.name)
            self.problems.note(program.name, str(failure))

    def source_for(self, operation, data):
        """What has to be so while an operation is timed."""
        return changed_files(data.path, self.folder / "unchanged") if operation == "changed" \
            else contextlib.nullcontext()

    def time(self, number, row, program, source):
        """One operation of one program."""
        target = self.folder / "restored"
        commands = program.commands(row.operation, source, target)
        if commands is None:
            return
        wanted = row.operation in self.selected[row.place]
        samples = self.samples.setdefault((row, program.name), {}) if wanted else {}
        samples[number] = None
        remove(target)
        if row.operation == "restore":
            target.mkdir()
        if row.place == DISK:
            drop_caches()
        else:
            touch_free_memory(self.folder, TOUCHED)
        watch = MemoryWatch()
        try:
            done = pipeline(commands, keep=True, watch=watch)
            program.check(row.operation, done.output, self.count(source))
            if row.operation == "restore":
                self.verify(row.data, program, source, target)
        finally:
            remove(target)
        samples[number] = Sample(done.seconds, done.cpu, done.resident, watch.peak)
        if row.operation == "first":
            self.sizes.setdefault((row.place, row.data, program.name), {})[number] = program.stored()
        say(f"round {number + 1}  {row.place:4} {row.data:5} {row.operation:10} {program.name:10} "
            f"{done.seconds:8.3f} s, {done.cpu:8.3f} s of processor, {done.resident / 1e6:5.0f} MB")

    def count(self, source):
        """How many entries there are in a source, without its root."""
        if source not in self.entries:
            self.entries[source] = sum(len(folders) + len(files) for _, folders, files in os.walk(source))
        return self.entries[source]

    def verify(self, data, program, source, target):
        """Compares what was restored with the source, once for each program and data, untimed."""
        if (data, program.name) in self.verified:
            return
        compare = ["rsync", "-aHn", "--checksum", "--delete", "--modify-window=-1", "--itemize-changes"]
        lines = run([*compare, f"{source}/", f"{target}/"]).splitlines()
        # Not all programs store the folder that they are told to store, apart from what is in it.
        wrong = [line for line in lines if not line.endswith(" ./")]
        if wrong:
            raise Failure(f"NOT THE SAME AS THE SOURCE, {len(wrong)} entries: {' | '.join(wrong[:3])}")
        self.verified.add((data, program.name))
