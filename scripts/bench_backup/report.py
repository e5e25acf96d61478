"""The tables, from what was measured."""

import dataclasses
import statistics

from bench_backup.operations import (
    BACKUPS, DATA, DISK, MEMORY_TARGET, ON_DISK, ONLY_TREE, OPERATIONS, RAM, SIZE_TARGET, TARGETS, Row)
from bench_backup.syncs import shown
from bench_common import tables
from bench_common.tables import machine, megabytes, ratios, spread, table

INTRODUCTION = """\
## Backup and restore

`vykar backup` and `vykar restore` beside other programs, with everything in RAM unless said otherwise: what is
left is what the programs and the kernel cost. Written by `scripts/bench --write` (`make bench`) from one run.

Times are in seconds: the median of the rounds, and in brackets the least and the most. In a round the programs
take turns with each operation, and another one begins in each round. Ratios are computed within a round; the
tables have their median. The targets are the project's own.
"""

CONDITIONS = """\
- The tree is the unpacked source of Linux from Debian's package `linux-source-6.1`{parts}.
- The large files are `compressible` ({compressible}, a `tar` of the tree) and `random` ({random}).
- vykar stores with its defaults (zstd level 3) or with `--compression lz4`, encrypted with AES-256-GCM; restic
  with its own, in a repository of version 2; borg with its default (LZ4) or `--compression zstd,3`, encrypted
  with `repokey-blake2`. Nothing else is set.
- *First backup* is into an empty repository, with nothing in local caches; making it is not timed. *Nothing
  changed* is the same command again, *restore* everything into an empty folder. For *1 % of the files changed*
  one file in a hundred got another middle, another end and another time, the same for all programs.
- The *floor* of a first backup is `tar | zstd -3` with {threads} threads into a file, where nothing changed an
  `lstat` of every entry in {threads} threads (`scripts/bench_backup/walk.c`), of a restore `cp -a`.
- Before each operation in RAM 5 GiB of free memory are written once: on a virtual machine memory that was never
  used, or not for long, is slow the first time, which none of the programs is to pay for.
- Processor time is of the program and the kernel together, all threads and child processes.
- What each program restored was compared with the source once, contents, names, times, owners and modes.
"""

MEMORY = """\
Megabytes at the peak, the most of all rounds. In front what was resident: the kernel keeps that number. It counts
pages of mapped files and of the program itself as well, which the kernel takes back when it needs them. In
brackets what was private (RssAnon), read every 10 ms, because the kernel keeps no such peak: shorter ones are
missed. The target is for the first.
"""

DISK_TEXT = """\
Source and repository are on the disk ({file_system}), and the kernel's caches are dropped before each operation.
The floor's file is synced at the end. Syncs are counted by `strace` in a run of their own.
"""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the report says besides what was measured."""

    sizes: object
    """Of the data (data.Sizes)."""
    runs: int
    versions: list
    """[program, version] of each."""
    threads: int
    """Of the floor."""
    file_system: str
    """Of the disk."""


class Report:
    """Makes the section of the document from a Bench and the counts of syncs."""

    def __init__(self, bench, programs, syncs, facts):
        self.bench = bench
        self.programs = programs
        self.syncs = syncs
        self.facts = facts
        self.failed_targets = []

    def text(self):
        """The whole section."""
        facts = self.facts
        conditions = CONDITIONS.format(threads=facts.threads, **facts.sizes.words())
        parts = [INTRODUCTION, "### Machine\n\n" + machine([["rounds", facts.runs], *facts.versions]),
                 "### Conditions\n\n" + conditions,
                 "### Targets\n\n" + self.targets(),
                 "### Time\n\n" + self.times(RAM, "seconds", "seconds"),
                 "### Processor time\n\n" + self.times(RAM, "cpu", "seconds of processor"),
                 "### Ratios\n\n" + self.ratio_table(),
                 "### Size of the repository\n\n" + self.size_table(),
                 "### Memory\n\n" + MEMORY + "\n" + self.memory_table()]
        if self.rows(DISK):
            parts.append("### On the disk\n\n" + DISK_TEXT.format(file_system=facts.file_system)
                         + "\n" + self.times(DISK, "seconds", "seconds")
                         + "\n" + self.times(DISK, "cpu", "seconds of processor") + "\n" + self.sync_table())
        return "\n".join([*parts, *self.bench.problems.section()])

    def rows(self, place):
        """The rows that were measured."""
        measured = {row for row, _ in self.bench.samples}
        every = [Row(place, data, operation) for data in DATA for operation in OPERATIONS
                 if data == "tree" or operation not in ONLY_TREE]
        return [row for row in every if row in measured]

    def values(self, row, program, value):
        """One value of each round; None for a round that failed. Empty if there is no such thing."""
        samples = self.bench.samples.get((row, program))
        if samples is None:
            return []
        found = (samples.get(number) for number in range(self.facts.runs))
        return [None if sample is None else getattr(sample, value) for sample in found]

    def times(self, place, value, unit):
        """A table of times."""
        programs = [program for program in self.programs if place == RAM or program.on_disk]
        rows = [[row.title, *(spread(self.values(row, program.name, value)) for program in programs)]
                for row in self.rows(place)]
        return table([unit, *(program.title for program in programs)], rows)

    def ratio_table(self):
        """vykar beside restic, borg and the floor; and its two ways to compress beside each other."""
        columns = (("vykar / restic", "vykar", "restic"), ("vykar / borg, zstd 3", "vykar", "borg-zstd"),
                   ("vykar / floor", "vykar", "floor"), ("vykar, LZ4 / borg, LZ4", "vykar-lz4", "borg"),
                   ("vykar, LZ4 / vykar", "vykar-lz4", "vykar"))
        rows = []
        for row in self.rows(RAM):
            for value, title in (("seconds", "time"), ("cpu", "processor")):
                cells = [spread(ratios(self.values(row, one, value), self.values(row, other, value)))
                         for _, one, other in columns]
                rows.append([row.title, title, *cells])
        return table(["", "", *(title for title, _, _ in columns)], rows)

    def sizes_of(self, data, program):
        """Bytes of a repository, of each round."""
        found = self.bench.sizes.get((RAM, data, program), {})
        return [found.get(number) for number in range(self.facts.runs)] if found else []

    def size_table(self):
        """How large the repositories are after the first backup."""
        rows = []
        for data, title in DATA.items():
            cells = []
            for program in self.programs:
                known = [size for size in self.sizes_of(data, program.name) if size is not None]
                cells.append(f"{statistics.median(known) / 1e6:.1f}" if known else "")
            if any(cells):
                rows.append([title, *cells])
        return table(["MB", *(program.title for program in self.programs)], rows)

    def peak(self, program, data, operations, value):
        """The largest peak of memory in some operations, in bytes; 0 if none was measured."""
        found = [self.values(Row(RAM, data, operation), program, value) for operation in operations]
        return max((each for values in found for each in values if each is not None), default=0)

    def memory_table(self):
        """Peaks of memory, of the backups and of restoring."""
        programs = [program for program in self.programs if program.name != "floor"]
        rows = []
        for data, title in DATA.items():
            for operations, named in ((BACKUPS, "backup"), (("restore",), "restore")):
                cells = []
                for program in programs:
                    resident = self.peak(program.name, data, operations, "resident")
                    private = self.peak(program.name, data, operations, "private")
                    cells.append(f"{megabytes([resident])} ({megabytes([private])})" if resident else "")
                if any(cells):
                    rows.append([f"{title}, {named}", *cells])
        return table(["MB", *(program.title for program in programs)], rows)

    def sync_table(self):
        """The calls that make the kernel write."""
        programs = [program for program in self.programs if program.on_disk and program.name != "floor"]
        rows = []
        for operation in ON_DISK:
            counts = [self.syncs.get((operation, program.name)) for program in programs]
            if any(counts):
                rows.append([f"{DATA['tree']}, {OPERATIONS[operation]}",
                             *("" if each is None else shown(each) for each in counts)])
        return table(["syncs", *(program.title for program in programs)], rows) if rows else ""

    def targets(self):
        """What is to be reached, and what was."""
        rows = []
        for target in TARGETS:
            found = ratios(self.values(target.row, target.program, target.value),
                           self.values(target.row, target.other, target.value))
            rows.append([target.title, f"{target.limit:.2f}", spread(found), self.verdict(
                target.title, statistics.median(found) if found else None, target.limit)])
        for data, name in DATA.items():
            title = f"repository of the {name}, of restic's"
            found = ratios(self.sizes_of(data, "vykar"), self.sizes_of(data, "restic"))
            shown_size = f"{statistics.median(found):.3f}" if found else ""
            rows.append([title, f"{SIZE_TARGET:g}", shown_size, self.verdict(
                title, statistics.median(found) if found else None, SIZE_TARGET)])
        for data, name in DATA.items():
            for operations, named in ((BACKUPS, "backup"), (("restore",), "restore")):
                title = f"peak memory, {name}, {named}, MB"
                peak = max(self.peak(program, data, operations, "resident") for program in ("vykar", "vykar-lz4"))
                rows.append([title, f"{MEMORY_TARGET / 1e6:.0f}", megabytes([peak]) if peak else "",
                             self.verdict(title, peak / 1e6 if peak else None, MEMORY_TARGET / 1e6)])
        return table(["", "target", "measured", ""], rows)

    def verdict(self, title, value, limit):
        """The last cell of a row of targets."""
        if value is None:
            return "not measured"
        if value <= limit:
            return "met"
        self.failed_targets.append(f"{title}: {value:.3g}, target {limit:g}")
        return "**missed**"


def raw(bench, syncs, facts):
    """Everything that was measured, for a file of JSON."""
    samples = [{"place": row.place, "data": row.data, "operation": row.operation, "program": program,
                "round": number + 1, **(dataclasses.asdict(sample) if sample else {"failed": True})}
               for (row, program), rounds in bench.samples.items() for number, sample in rounds.items()]
    sizes = [{"place": place, "data": data, "program": program, "round": number + 1, "bytes": size}
             for (place, data, program), rounds in bench.sizes.items() for number, size in rounds.items()]
    counts = [{"operation": operation, "program": program, **calls}
              for (operation, program), calls in syncs.items()]
    return {"machine": dict(tables.facts()), "versions": dict(facts.versions), "runs": facts.runs, "samples": samples,
            "sizes": sizes, "syncs": counts, "problems": bench.problems}
