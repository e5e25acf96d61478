"""The tables, from what was measured."""

import re
import statistics

from bench_common.processes import Failure, run
from bench_common.tables import machine, megabytes, ratios, spread, table
from bench_mount.operations import ENTER_TARGET, MEMORY_TARGET, READY_TARGET, USER_TARGET

INTRODUCTION = """\
## The mount

`vykar mount` beside other read-only file systems, with everything in RAM: what is left is what the programs
and the kernel cost. Written by `scripts/bench-mount --write` (`make bench-mount`) from one run.

Times are in seconds: the median of the rounds, and in brackets the fastest and the slowest. *Cold* is the
first time on a fresh mount, after the kernel's caches were dropped; *again* is the same a second time. The
slow programs run in fewer rounds.

In a round all programs take turns with each command. Ratios are computed within a round; the tables have their
median. The targets and aims are the project's own; an aim is what a target should become.
"""

CONDITIONS = """\
- The tree is the unpacked source of Linux from Debian's package `linux-source-6.1`{parts}.
- The large files are `compressible` ({compressible}, a `tar` of the tree) and `random` ({random}).
- vykar and borg store at zstd level 3 (borg with `repokey-blake2`), restic with its default compression,
  squashfs images are made at zstd level 3. All but squashfs encrypt.
- All mounts have their defaults. The whole repository is mounted with vykar, borg and restic.
- *Zeros by FUSE* is a small driver that has the names and sizes in memory and answers zeros: the floor for
  anything that answers the kernel's messages one at a time (`scripts/bench_mount/zero.c`).
- The output of `tar` goes through `cat` to `/dev/null`: otherwise it would not read the files.
- After `cp -a` and `cat` everything is compared with the source once for each program, and the lists that `grep`
  finds each time. `diff` must find no difference.
"""


class Report:
    """Makes the section of the document from a Bench, a Ready (or None for either), and the choice of operations."""

    def __init__(self, bench, ready, operations, sizes):
        self.bench = bench
        self.ready = ready
        self.operations = operations
        self.sizes = sizes
        self.failed_targets = []

    def text(self, versions, runs):
        """The whole section."""
        rounds = ["rounds", f"{runs[0]}; {runs[1]} with the slow programs"]
        parts = [INTRODUCTION, "### Machine\n\n" + machine([rounds, *versions])]
        parts.append("### Conditions\n\n" + CONDITIONS.format(**self.sizes.words()))
        parts += ["### Cold\n\n" + self.times("cold"), "### Again\n\n" + self.times("warm")]
        parts += ["### Targets\n\n" + self.targets(), "### As an unprivileged user\n\n" + self.user()]
        parts.append("### Memory\n\n" + self.memory())
        if self.ready is not None:
            parts.append("### Ready\n\n" + self.ready_table())
        return "\n".join([*parts, *self.bench.problems.section()])

    def shown_programs(self):
        """The columns of the times."""
        return [program for program in self.bench.programs if not program.prefix]

    def seconds(self, operation, program, when):
        """The times of one cell, one for each round; None for a round that failed."""
        timings = self.bench.timings.get((operation.name, program), [])
        return [getattr(timing, when) for timing in timings]

    def times(self, when):
        """The table of times, `cold` or `warm`."""
        programs = self.shown_programs()
        rows = [[operation.title, *(spread(self.seconds(operation, program.name, when)) for program in programs)]
                for operation in self.operations]
        return table(["seconds", *(program.title for program in programs)], rows)

    def ratios(self, operation, when, program, other):
        """The ratios of two programs' times, round by round."""
        return ratios(self.seconds(operation, program, when), self.seconds(operation, other, when))

    def targets(self):
        """What vykar takes of what the kernel's squashfs takes cold, and of the tree itself again."""
        rows = []
        for operation in self.operations:
            ratios = self.ratios(operation, "cold", "vykar", "squashfs")
            rows.append([operation.title, "cold, of kernel squashfs", spread(ratios),
                         *self.judged(ratios, operation.cold, operation.aim, operation.title)])
        for operation in self.operations:
            ratios = self.ratios(operation, "warm", "vykar", "tree")
            rows.append([operation.title, "again, of the tree itself", spread(ratios),
                         *self.judged(ratios, operation.warm, None, operation.title)])
        return table(["", "", "ratio", "target", "aim", ""], rows)

    def user(self):
        """What vykar takes as `nobody`, where the kernel's read-ahead stays at 128 KiB, of what root's takes."""
        rows = []
        for when, title in (("cold", "cold"), ("warm", "again")):
            for operation in self.operations:
                if operation.as_user:
                    ratios = self.ratios(operation, when, "vykar-user", "vykar")
                    rows.append([operation.title, title, spread(self.seconds(operation, "vykar", when)),
                                 spread(self.seconds(operation, "vykar-user", when)), spread(ratios),
                                 *self.judged(ratios, USER_TARGET, None, operation.title + " as a user")])
        head = ["", "", "root, seconds", "user, seconds", "ratio", "target", "aim", ""]
        return ("Mounted by `nobody` with `fusermount3`; the kernel's read-ahead stays at 128 KiB there.\n\n"
                + table(head, rows))

    def judged(self, values, target, aim, what):
        """The last cells of a row: the target, the aim, and whether the median is within them."""
        if target is None:
            return ["", "", ""]
        if not values:
            return [f"{target:g}", f"{aim:g}" if aim else "", "not measured"]
        value = statistics.median(values)
        if value > target:
            self.failed_targets.append(f"{what}: {value:.3g}, target {target:g}")
            verdict = "**missed**"
        else:
            verdict = "met" if not aim or value <= aim else "met, not the aim"
        return [f"{target:g}", f"{aim:g}" if aim else "", verdict]

    def memory(self):
        """Peak and final memory of the programs' processes."""
        rows = []
        for program in self.shown_programs():
            cells = [self.bench.memory.get((program.name, name)) for name in ("tree", "large")]
            if any(cells):
                rows.append([program.title, *(megabytes(cell) for cell in cells)])
        return ("Megabytes of the process that serves the mount, after everything above was run once in one mount:\n"
                "the peak of what was resident, and what was anonymous (not backed by files) at the end.\n\n"
                + table(["peak / anonymous at the end", "tree", "large files"], rows))

    def ready_table(self):
        """How soon a mount can be used."""
        ready = self.ready
        rows = []
        for (cipher, count, cache), values in sorted(ready.seconds.items()):
            named = "no encryption" if cipher == "none" else "encrypted"
            title = f"mount, {named}, {count} snapshot{'s' if count > 1 else ''}, cache {cache}"
            rows.append([title, spread(values), *self.judged(values, READY_TARGET, None, title)])
        if ready.enter:
            title = f"entering a snapshot of {ready.many.files} files"
            rows.append([title, spread(ready.enter), *self.judged(ready.enter, ENTER_TARGET, None, title)])
            peaks = [peak for peak, _ in ready.memory]
            target = self.judged(peaks, MEMORY_TARGET, None, "memory with many files")
            rows.append(["memory after walking through it, peak / anonymous at the end, MB",
                         megabytes(max(ready.memory)), megabytes((MEMORY_TARGET,)), *target[1:]])
        key = f"Deriving the key takes {spread(ready.key)} s, which is taken off where there is\n" \
            "encryption: the difference of `vykar list` on empty repositories with and without (the fastest of\n" \
            "several each).\n" if ready.key else ""
        return ("Seconds from the start of `vykar mount --background` to its return. *Cache kept* is with what earlier\n"
                "commands left in the cache folder, *new* with an empty one.\n" + key + "\n"
                + table(["", "seconds", "target", "aim", ""], rows))


def tool_versions():
    """The versions of the commands that read."""
    found = []
    for name in ("find", "ls", "tar", "diff", "grep"):
        try:
            line = run([name, "--version"]).splitlines()[0]
        except (Failure, FileNotFoundError, IndexError):
            line = name
        found.append(re.sub(r"^\w+ \((.*)\)", r"\1", line))
    return ["commands", ", ".join(found)]
