"""The tables, and what is over a limit."""

import statistics

from bench_common.tables import machine, spread, table
from bench_scale.cases import GROWTH_LIMIT, MEMORY_LIMIT, OPERATIONS, PARTS, TIMES

INTRODUCTION = """\
## Growth

How the time and memory of `vykar` grow with the number of files and of chunks. Written by
`scripts/scale --write` (`make scale`) from one run, which fails when a limit is broken.

Times are in seconds: the median of the rounds, and in brackets the least and the most. *Growth* is the cost per
file or chunk divided by that in the row above, where there is a tenth of them: 1 is linear, less shows a cost
that does not grow. In the largest case it may be at most {growth:g}.

Memory is private memory (RssAnon) in megabytes, the most of all rounds, read every 10 ms: what is mapped from
local copies of the index and of the file cache is not in it, since the kernel takes that back when it needs it.
*Committing* is from the moment at which the repository's lock is there. The limit is {memory:.0f} MB, and while
committing the stored index on top of it.

- A file has 100 to 2000 bytes of its own; 1000 of them are in a folder. Each round begins with a new repository
  and empty local caches.
- Repositories of many chunks have an index of random chunks in packs of 200, in front of the first backup. The
  packs have the right length and nothing in them. They are not encrypted, the trees' repositories are.
- A mount's time is from the start of the program to the list of the snapshot's root.
"""


class Report:
    """Makes the section of the document from what was measured (see Measure)."""

    def __init__(self, measured, cases, runs, versions):
        self.measured = measured
        self.cases = cases
        self.runs = runs
        self.versions = versions
        self.failures = []
        """What is over a limit."""

    def text(self, places):
        """The whole section. `places` says for each part where it ran."""
        rows = [["rounds", self.runs], *self.versions]
        parts = [INTRODUCTION.format(growth=GROWTH_LIMIT, memory=MEMORY_LIMIT / 1e6),
                 "### Machine\n\n" + machine(rows)]
        for part, title in PARTS.items():
            cases = [case for case in self.cases if case.part == part]
            if cases:
                parts.append(f"### {title}\n\nSource, repository and caches are {places[part]}.\n\n"
                             + self.part_table(cases))
        return "\n".join([*parts, *self.measured.problems.section("What is over a limit, or failed", self.failures)])

    def part_table(self, cases):
        """One part: each operation in all its cases."""
        unit = "chunk" if cases[0].part == "chunks" else "file"
        rows = []
        for operation in OPERATIONS:
            before = None
            for case in cases:
                samples = self.measured.samples.get((case, operation))
                if samples is None:
                    continue
                each = statistics.median(sample.seconds for sample in samples) / case.units
                growth = self.growth(case, cases, operation, each, before)
                cpu = [sample.cpu for sample in samples if sample.cpu is not None]
                rows.append([OPERATIONS[operation], case.title, spread([sample.seconds for sample in samples]),
                             spread(cpu), per_unit(each), growth, *self.memory(case, operation, samples)])
                before = (case, each)
        return table(["", "", "seconds", "seconds of processor", f"µs per {unit}", "growth", "memory",
                      "committing", "stored index", ""], rows)

    def growth(self, case, cases, operation, each, before):
        """The cell of growth: how the cost of a unit compares with that in the case before."""
        if before is None or case.units != before[0].units * TIMES:
            return ""
        ratio = each / before[1]
        if case is cases[-1] and ratio > GROWTH_LIMIT:
            self.failures.append(f"{case.title}, {OPERATIONS[operation]}: costs {ratio:.2f} times as much per unit as "
                                 f"{before[0].title}, limit {GROWTH_LIMIT:g}")
            return f"**{ratio:.2f}**"
        return f"{ratio:.2f}"

    def memory(self, case, operation, samples):
        """The cells of memory, and whether it is within the limit."""
        private = max(sample.private for sample in samples)
        committing = max(sample.committing for sample in samples)
        index = max(sample.index for sample in samples)
        over = [f"{kind} {peak / 1e6:.0f} MB, limit {limit / 1e6:.0f}"
                for kind, peak, limit in (("memory", private, MEMORY_LIMIT),
                                          ("memory while committing", committing, MEMORY_LIMIT + index))
                if peak > limit]
        self.failures += [f"{case.title}, {OPERATIONS[operation]}: {line}" for line in over]
        return [f"{private / 1e6:.0f}", f"{committing / 1e6:.0f}" if committing else "", f"{index / 1e6:.1f}",
                "**over**" if over else "within"]


def per_unit(seconds):
    """The cost of one file or chunk, in microseconds."""
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
