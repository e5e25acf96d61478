"""What is timed, and the targets."""

import dataclasses

RAM, DISK = "ram", "disk"
"""Where sources and repositories are. On the disk, the kernel's caches are dropped before each timing."""

OPERATIONS = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "restore": "restore",
    "changed": "1 % of the files changed",
}
"""By the names for --only, in the order in which they are timed: each builds on the ones before."""
ON_DISK = ("first", "unchanged")
"""Those that are timed on the disk as well."""
ONLY_TREE = ("changed",)
"""Those that say nothing about two large files."""
BACKUPS = ("first", "unchanged", "changed")

DATA = {"tree": "tree", "large": "large files"}
"""What is backed up, by the names for --data."""


@dataclasses.dataclass(frozen=True)
class Row:
    """An operation on some data: a row of the tables."""

    place: str
    data: str
    operation: str

    @property
    def title(self):
        """Its heading."""
        return f"{DATA[self.data]}, {OPERATIONS[self.operation]}"


@dataclasses.dataclass(frozen=True)
class Target:
    """What one program's value may be of another's, as the median of the rounds' ratios."""

    title: str
    row: Row
    value: str
    """`seconds` or `cpu`."""
    other: str
    """The program to compare with."""
    limit: float
    program: str = "vykar"


def in_ram(data, operation):
    """A row of the tables that are about RAM."""
    return Row(RAM, data, operation)


TARGETS = (
    Target("first backup of the tree, time, of restic's", in_ram("tree", "first"), "seconds", "restic", 0.40),
    Target("first backup of the tree, processor time, of restic's", in_ram("tree", "first"), "cpu", "restic", 0.40),
    Target("first backup of the large files, time, of restic's", in_ram("large", "first"), "seconds", "restic", 0.40),
    Target("first backup of the large files, processor time, of restic's", in_ram("large", "first"),
           "cpu", "restic", 0.40),
    Target("nothing changed in the tree, time, of restic's", in_ram("tree", "unchanged"), "seconds", "restic", 0.18),
    Target("restore of the tree, time, of restic's", in_ram("tree", "restore"), "seconds", "restic", 0.22),
    Target("restore of the large files, time, of restic's", in_ram("large", "restore"), "seconds", "restic", 0.25),
    Target("first backup of the tree with LZ4, time, of that with zstd", in_ram("tree", "first"),
           "seconds", "vykar", 0.90, "vykar-lz4"),
    Target("first backup of the large files with LZ4, time, of that with zstd", in_ram("large", "first"),
           "seconds", "vykar", 0.90, "vykar-lz4"),
)
SIZE_TARGET = 1.0
"""What vykar's repository may take of restic's, in bytes."""
MEMORY_TARGET = 150_000_000
"""Bytes that may be resident at the peak, in any operation."""
